"""The store: what is packed, when it is packed again, and what survives kills, races and full disks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from clearmargin.data import store as packing
from clearmargin.data.audit import audit_manifest
from clearmargin.data.manifest import Manifest
from clearmargin.data.sources import read_source
from clearmargin.data.store import Store, cache_folder, pack_store
from clearmargin.errors import DataError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.images.read import read_image
from clearmargin.types import Listener

Build = Callable[..., Path]
SPEC = Preprocessing(width=12, height=20)
IMAGES_IN_A_CHUNK = 3


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_CHUNK_BYTES", IMAGES_IN_A_CHUNK * 12 * 20 * 3)


@pytest.fixture
def manifest(make_folder: Build) -> Manifest:
    """16 images, which makes six chunks, the last of one image."""
    return audit_manifest(read_source(make_folder(patients=4, per_class=2))).manifest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the images that were decoded, in the order of their decoding."""
    read = packing._read_packed
    paths: list[str] = []

    def counting(path: str, name: str, content: str, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        paths.append(path)
        return read(path, name, content, preprocessing)

    monkeypatch.setattr(packing, "_read_packed", counting)
    return paths


def expected(manifest: Manifest, spec: Preprocessing = SPEC) -> NDArray[np.uint8]:
    return np.stack([spec.apply(read_image(path)) for path in manifest.frame["path"]])


def assert_right(store: Store, manifest: Manifest, spec: Preprocessing = SPEC) -> None:
    np.testing.assert_array_equal(store.images, expected(manifest, spec))
    assert len(store) == len(manifest)


def partial_of(home: Path) -> Path:
    (partial,) = home.glob("*.partial")
    return partial


class TestPacking:
    @pytest.mark.parametrize(
        "spec", [SPEC, Preprocessing(width=8, height=8, channels=1), Preprocessing(width=30, height=30, fit="stretch")]
    )
    def test_holds_the_preprocessed_images_in_the_order_of_the_manifest(
        self, manifest: Manifest, home: Path, spec: Preprocessing
    ) -> None:
        store = pack_store(manifest, spec, folder=home)
        assert_right(store, manifest, spec)
        assert store.packed == 16
        assert store.images.dtype == np.uint8

    def test_images_cannot_be_written(self, manifest: Manifest, home: Path) -> None:
        store = pack_store(manifest, SPEC, folder=home)
        with pytest.raises(ValueError, match="read-only"):
            store.images[0] = 0

    def test_progress_goes_to_the_end(self, manifest: Manifest, home: Path) -> None:
        heard: list[object] = []

        class Hears(Listener):
            def stage(self, name: str) -> None:
                heard.append(name)

            def advance(self, done: int, total: int) -> None:
                heard.append((done, total))

        pack_store(manifest, SPEC, folder=home, listener=Hears())
        assert heard == ["pack", *((done, 16) for done in (3, 6, 9, 12, 15, 16))]

    def test_goes_to_the_cache_by_default(self, manifest: Manifest) -> None:
        store = pack_store(manifest, SPEC)
        assert store.path.parent == cache_folder() == Path(os.environ["CLEARMARGIN_CACHE"]) / "stores"

    def test_says_what_it_holds(self, manifest: Manifest, home: Path) -> None:
        index = json.loads((pack_store(manifest, SPEC, folder=home).path / "index.json").read_text())
        assert index["images"] == 16
        assert index["shape"] == [20, 12, 3]
        assert Preprocessing.model_validate(index["preprocessing"]) == SPEC


class TestReuse:
    def test_a_second_run_packs_nothing(self, manifest: Manifest, home: Path, decoded: list[str]) -> None:
        first = pack_store(manifest, SPEC, folder=home)
        assert len(decoded) == 16
        second = pack_store(manifest, SPEC, folder=home)
        assert (second.packed, second.path, len(decoded)) == (0, first.path, 16)
        assert_right(second, manifest)

    def test_a_renamed_folder_finds_its_store(self, manifest: Manifest, home: Path, decoded: list[str]) -> None:
        pack_store(manifest, SPEC, folder=home)
        moved = manifest.root.rename(manifest.root.with_name("elsewhere"))
        again = audit_manifest(read_source(moved)).manifest
        assert pack_store(again, SPEC, folder=home).packed == 0

    def test_scaling_is_the_networks_business(self, manifest: Manifest, home: Path) -> None:
        pack_store(manifest, SPEC, folder=home)
        assert pack_store(manifest, SPEC.model_copy(update={"mean": 0.5, "std": 0.25}), folder=home).packed == 0

    @pytest.mark.parametrize(
        "change",
        [{"width": 13}, {"padding": "white"}, {"fit": "stretch"}, {"interpolation": "nearest"}, {"channels": 1}],
    )
    def test_another_preprocessing_is_another_store(
        self, manifest: Manifest, home: Path, change: dict[str, object]
    ) -> None:
        first = pack_store(manifest, SPEC, folder=home)
        other = SPEC.model_copy(update=change)
        store = pack_store(manifest, other, folder=home)
        assert (store.packed, store.path == first.path) == (16, False)
        assert_right(store, manifest, other)

    def test_other_images_or_another_order_are_another_store(self, manifest: Manifest, home: Path) -> None:
        paths = {pack_store(manifest, SPEC, folder=home).path}
        fewer = manifest.keep(np.arange(16) != 7)
        reverse = Manifest(manifest.frame.iloc[::-1].reset_index(drop=True), manifest.root, manifest.source)
        for other in (fewer, reverse):
            store = pack_store(other, SPEC, folder=home)
            assert_right(store, other)
            paths.add(store.path)
        assert len(paths) == 3

    @pytest.mark.parametrize("damage", ["missing", "cut", "rubbish"])
    def test_a_store_whose_images_are_damaged_is_made_anew(self, manifest: Manifest, home: Path, damage: str) -> None:
        images = pack_store(manifest, SPEC, folder=home).path / "images.npy"
        data = images.read_bytes()
        images.unlink()
        if damage != "missing":
            images.write_bytes(data[:500] if damage == "cut" else b"rubbish")
        store = pack_store(manifest, SPEC, folder=home)
        assert store.packed == 16
        assert_right(store, manifest)


class TestResuming:
    def stop_after(self, monkeypatch: pytest.MonkeyPatch, images: int) -> None:
        read, count = packing._read_packed, iter(range(10**6))

        def stopping(path: str, name: str, content: str, preprocessing: Preprocessing) -> NDArray[np.uint8]:
            if next(count) >= images:
                raise KeyboardInterrupt
            return read(path, name, content, preprocessing)

        monkeypatch.setattr(packing, "_read_packed", stopping)
        monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one thread, so that the chunks are done in their order

    def test_finished_chunks_are_not_decoded_again(
        self, manifest: Manifest, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as stopped:
            self.stop_after(stopped, 7)  # in the middle of the third chunk
            with pytest.raises(KeyboardInterrupt):
                pack_store(manifest, SPEC, folder=home)
        assert not list(home.glob("*/index.json"))
        decoded: list[str] = []
        read = packing._read_packed
        monkeypatch.setattr(packing, "_read_packed", lambda path, *rest: (decoded.append(path), read(path, *rest))[1])
        store = pack_store(manifest, SPEC, folder=home)
        assert sorted(decoded) == sorted(manifest.frame["path"][6:])
        assert_right(store, manifest)
        assert not list(home.glob("*.partial"))

    def test_a_chunk_that_changed_on_disk_is_decoded_again(
        self, manifest: Manifest, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as stopped:
            self.stop_after(stopped, 9)
            with pytest.raises(KeyboardInterrupt):
                pack_store(manifest, SPEC, folder=home)
        images = np.lib.format.open_memmap(partial_of(home) / "images.npy", mode="r+")
        images[4] ^= 1  # in the second chunk
        images.flush()
        decoded: list[str] = []
        read = packing._read_packed
        monkeypatch.setattr(packing, "_read_packed", lambda path, *rest: (decoded.append(path), read(path, *rest))[1])
        store = pack_store(manifest, SPEC, folder=home)
        assert sorted(decoded) == sorted([*manifest.frame["path"][3:6], *manifest.frame["path"][9:]])
        assert_right(store, manifest)

    @pytest.mark.parametrize("file", ["images.npy", "checksums.npy"])
    @pytest.mark.parametrize("content", [b"", b"rubbish", None])
    def test_a_partial_store_that_lost_a_file_is_begun_anew(
        self, manifest: Manifest, home: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes | None
    ) -> None:
        with monkeypatch.context() as stopped:
            self.stop_after(stopped, 9)
            with pytest.raises(KeyboardInterrupt):
                pack_store(manifest, SPEC, folder=home)
        damaged = partial_of(home) / file
        damaged.unlink()
        if content is not None:
            damaged.write_bytes(content)
        assert_right(pack_store(manifest, SPEC, folder=home), manifest)

    def test_chunks_of_another_size_are_begun_anew(
        self, manifest: Manifest, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as stopped:
            self.stop_after(stopped, 9)
            with pytest.raises(KeyboardInterrupt):
                pack_store(manifest, SPEC, folder=home)
        monkeypatch.setattr(packing, "_CHUNK_BYTES", 5 * 12 * 20 * 3)
        assert_right(pack_store(manifest, SPEC, folder=home), manifest)


_PACK = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    from clearmargin.data import store as packing
    from clearmargin.data.audit import audit_manifest
    from clearmargin.data.sources import read_source
    from clearmargin.images.preprocess import Preprocessing

    root, home, delay = sys.argv[1:]
    packing._CHUNK_BYTES = 3 * 12 * 20 * 3
    os.cpu_count = lambda: 1
    read = packing._read_packed

    def slow(*arguments):
        time.sleep(float(delay))
        return read(*arguments)

    packing._read_packed = slow
    manifest = audit_manifest(read_source(root)).manifest
    print("ready", flush=True)
    store = packing.pack_store(manifest, Preprocessing(width=12, height=20), folder=Path(home))
    print(store.packed, int(store.images.sum()), flush=True)
    """
)


def start(manifest: Manifest, home: Path, delay: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PACK, str(manifest.root), str(home), str(delay)], stdout=subprocess.PIPE, text=True
    )


class TestProcesses:
    @pytest.mark.timeout(120)
    def test_a_killed_run_is_gone_on_with(self, manifest: Manifest, home: Path, decoded: list[str]) -> None:
        process = start(manifest, home, 0.15)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        finished = 0
        deadline = time.monotonic() + 60
        while finished < 2:
            assert time.monotonic() < deadline
            marks = list(home.glob("*.partial/checksums.npy"))
            finished = int((np.load(marks[0]) != 0).sum()) if marks else 0
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        finished = int((np.load(partial_of(home) / "checksums.npy") != 0).sum())
        assert 2 <= finished < 6
        store = pack_store(manifest, SPEC, folder=home)
        assert sorted(decoded) == sorted(manifest.frame["path"][finished * IMAGES_IN_A_CHUNK :])
        assert_right(store, manifest)

    @pytest.mark.timeout(120)
    def test_two_runs_at_once_take_turns_and_give_one_store(self, manifest: Manifest, home: Path) -> None:
        processes = [start(manifest, home, 0.02) for _ in range(2)]
        answers = [process.communicate()[0].split() for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        assert sorted(answer[1] for answer in answers) == ["0", "16"]  # one packs, the other finds it packed
        assert {answer[2] for answer in answers} == {str(int(expected(manifest).sum()))}
        assert [path.name for path in home.iterdir() if path.is_dir()] == [
            pack_store(manifest, SPEC, folder=home).path.name
        ]

    @pytest.mark.timeout(60)
    def test_a_run_that_has_to_wait_says_so(self, manifest: Manifest, home: Path) -> None:
        final = pack_store(manifest, SPEC, folder=home).path
        lock = FileLock(f"{final}.lock")
        notes: list[str] = []

        class Hears(Listener):
            def note(self, text: str) -> None:
                notes.append(text)
                lock.release()

        lock.acquire()
        assert pack_store(manifest, SPEC, folder=home, listener=Hears()).packed == 0
        assert notes == ["Another run is packing the same images; waiting for it."]


class TestErrors:
    def test_a_file_that_changed_since_the_audit(self, manifest: Manifest, home: Path) -> None:
        path = Path(manifest.frame["path"][5])
        Image.new("RGB", (16, 16)).save(path)
        with pytest.raises(
            DataError, match=r"the file changed since the audit\. Let nothing write there, and run again"
        ):
            pack_store(manifest, SPEC, folder=home)
        assert not list(home.glob("*/index.json"))

    def test_a_file_that_went_away_since_the_audit(self, manifest: Manifest, home: Path) -> None:
        Path(manifest.frame["path"][5]).unlink()
        with pytest.raises(DataError, match=r"class0\.png: no such file, though the audit could read it\. Run again\."):
            pack_store(manifest, SPEC, folder=home)

    def test_a_full_disk_is_one_clear_error_and_gives_back_what_it_took(
        self, manifest: Manifest, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "posix_fallocate", full, raising=False)
            with pytest.raises(DataError) as caught:
                pack_store(manifest, SPEC, folder=home)
        assert str(caught.value) == (
            f"{home}: the disk is full; packing 16 images needs 1 MB. "
            "Free some space, or set CLEARMARGIN_CACHE to a folder on another disk."
        )
        assert not list(home.glob("*.partial"))
        assert_right(pack_store(manifest, SPEC, folder=home), manifest)

    @pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
    def test_a_file_system_that_cannot_reserve_space_is_packed_on_all_the_same(
        self, manifest: Manifest, home: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        def unable(*arguments: object) -> None:
            raise OSError(code, "not supported")

        monkeypatch.setattr(os, "posix_fallocate", unable, raising=False)
        assert_right(pack_store(manifest, SPEC, folder=home), manifest)

    def test_a_cache_below_a_file(self, manifest: Manifest, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(DataError, match=r"cannot be written \(Not a directory\); .* set CLEARMARGIN_CACHE"):
            pack_store(manifest, SPEC, folder=tmp_path / "file" / "cache")

    def test_a_cache_that_is_not_writable(
        self, manifest: Manifest, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbidden(*arguments: object, **options: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", forbidden)
        with pytest.raises(DataError, match=r"cache: cannot be written \(Permission denied\); .* CLEARMARGIN_CACHE"):
            pack_store(manifest, SPEC, folder=home)
