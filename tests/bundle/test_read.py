"""Nothing of a bundle is used before all of it is verified."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.bundle.small_bundle import model_file, sign, write_invented

from clearmargin.bundle.read import REQUIRED, SUMS, find_bundle, read_bundle
from clearmargin.errors import BundleError

NEWLINE_LIKE = [b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x00", b" ", b"\x85"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_invented(tmp_path / "run" / "bundle")


def test_what_was_written_is_read(bundle: Path) -> None:
    read = read_bundle(bundle)
    assert read.model == model_file()
    assert read.folder == bundle
    for name in REQUIRED:
        assert read.read(name) == (bundle / name).read_bytes()
        assert read.sums[name] == hashlib.sha256(read.read(name)).hexdigest()


def test_a_run_folder_stands_for_its_bundle(bundle: Path) -> None:
    assert find_bundle(bundle.parent) == bundle
    assert read_bundle(str(bundle.parent)).folder == bundle


def test_a_bundle_may_be_moved_and_renamed(bundle: Path, tmp_path: Path) -> None:
    before = read_bundle(bundle)
    after = read_bundle(shutil.move(bundle, tmp_path / "mine"))
    assert after.sha256 == before.sha256
    assert after.model == before.model


def test_the_identity_of_a_bundle_is_that_of_its_contents(bundle: Path, tmp_path: Path) -> None:
    same = write_invented(tmp_path / "same")
    other = write_invented(tmp_path / "other", threshold=0.5)
    assert read_bundle(bundle).sha256 == read_bundle(same).sha256 != read_bundle(other).sha256


@pytest.mark.parametrize("name", [*REQUIRED, SUMS])
def test_a_changed_byte_anywhere_is_refused(bundle: Path, name: str) -> None:
    path = bundle / name
    content = path.read_bytes()
    generator = np.random.default_rng(1)
    every = len(content) if name == SUMS else 60
    positions = {0, len(content) - 1, *generator.choice(len(content), min(every, len(content)), replace=False).tolist()}
    for position in sorted(positions):
        changed = bytearray(content)
        changed[position] ^= int(generator.integers(1, 256))
        path.write_bytes(changed)
        with pytest.raises(BundleError):
            read_bundle(bundle)
    path.write_bytes(content)
    read_bundle(bundle)


def test_no_other_byte_passes_for_the_end_of_a_line(bundle: Path) -> None:
    content = (bundle / SUMS).read_bytes()
    ends = [position for position, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 4
    for position in ends:
        for other in NEWLINE_LIKE:
            (bundle / SUMS).write_bytes(content[:position] + other + content[position + 1 :])
            with pytest.raises(BundleError, match="SHA256SUMS: "):
                read_bundle(bundle)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_byte_more_or_less_is_refused(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    for changed in (content[:-1], content + b"\n", b""):
        (bundle / name).write_bytes(changed)
        with pytest.raises(BundleError, match=rf"{name}: the content is not the one that SHA256SUMS names"):
            read_bundle(bundle)


@pytest.mark.parametrize("name", [*REQUIRED, SUMS])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "line",
    [
        f"{'0' * 64}  ../../secret",
        f"{'0' * 64}  /etc/passwd",
        f"{'0' * 64}  extra.txt",
        f"{'0' * 64}  SHA256SUMS",
        f"{'0' * 64}  bundle/model.json",
        f"{'0' * 64} model.json",
        f"{'0' * 63}  model.json",
        f"{'g' * 64}  model.json",
        "",
        "# a comment",
    ],
)
def test_a_line_that_is_not_of_a_bundle_is_refused(bundle: Path, line: str) -> None:
    content = (bundle / SUMS).read_text()
    for changed in (f"{line}\n{content}", f"{content}{line}\n"):
        (bundle / SUMS).write_text(changed)
        with pytest.raises(BundleError, match=r"SHA256SUMS: the line .* is not one of a bundle\. Make the bundle anew"):
            read_bundle(bundle)


def test_a_file_named_twice_is_refused(bundle: Path) -> None:
    lines = (bundle / SUMS).read_text()
    (bundle / SUMS).write_text(lines + lines.splitlines()[0] + "\n")
    with pytest.raises(BundleError, match="is not one of a bundle"):
        read_bundle(bundle)


def test_a_list_of_hashes_that_is_cut_off_is_refused(bundle: Path) -> None:
    content = (bundle / SUMS).read_text()
    (bundle / SUMS).write_text(content.removesuffix("\n"))
    with pytest.raises(BundleError, match="ends in the middle of a line"):
        read_bundle(bundle)
    (bundle / SUMS).write_text("".join(content.splitlines(keepends=True)[:3]))
    with pytest.raises(BundleError, match=r"SHA256SUMS: has no line for MODEL_CARD\.md"):
        read_bundle(bundle)
    (bundle / SUMS).write_text("")
    with pytest.raises(BundleError):
        read_bundle(bundle)


def test_a_huge_list_of_hashes_is_not_read_to_its_end(bundle: Path) -> None:
    with (bundle / SUMS).open("ab") as file:
        file.truncate(2**30)
    with pytest.raises(BundleError, match="larger than the limit of 65,536 bytes"):
        read_bundle(bundle)


def test_a_file_larger_than_the_limit_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearmargin.bundle.read._MAX_BYTES", 200)
    with pytest.raises(BundleError, match=r"model\.json: larger than the limit of 200 bytes"):
        read_bundle(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["weights.safetensors", "model.onnx"])
def test_a_pipe_in_the_place_of_a_file_is_refused_instead_of_waited_for(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match=rf"{name}: is not a regular file"):
        read_bundle(bundle)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
def test_an_endless_device_behind_a_link_is_refused(bundle: Path) -> None:
    (bundle / "weights.safetensors").unlink()
    (bundle / "weights.safetensors").symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="is not a regular file"):
        read_bundle(bundle)


def test_a_folder_in_the_place_of_a_file_is_refused(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").mkdir()
    with pytest.raises(BundleError, match="is not a regular file"):
        read_bundle(bundle)


def test_a_file_that_changes_after_the_bundle_was_read_is_refused(bundle: Path) -> None:
    read = read_bundle(bundle)
    (bundle / "model.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"model\.onnx: the content is not"):
        read.read("model.onnx")


def test_other_files_in_the_folder_do_no_harm_and_are_not_read(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    assert read_bundle(bundle).model == model_file()


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere: no such bundle"):
        read_bundle(tmp_path / "nowhere")


def test_a_folder_or_file_of_something_else_is_no_bundle(tmp_path: Path) -> None:
    give = "Give a bundle folder, the run folder that holds one, or a .clearmargin file."
    for name, kind in [
        ("photo.png", ""),
        ("report.html", ""),
        ("model.onnx", ", but a network alone, without what decides"),
        ("model.keras", "; 'clearmargin import-keras' makes one of a Keras file"),
    ]:
        (tmp_path / name).write_bytes(b"x")
        for place, said in [(tmp_path, ""), (tmp_path / name, kind)]:
            with pytest.raises(BundleError) as caught:
                read_bundle(place)
            assert str(caught.value) == f"{place}: not a bundle{said}. {give}"


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    bundle = write_invented(tmp_path / "bundle")
    before = read_bundle(bundle).sha256
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    after = read_bundle(tmp_path / "bundle")
    assert after.sha256 == before
    assert "notes.txt" not in after.sums


def test_a_run_that_is_not_finished_says_how_to_finish_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    with pytest.raises(BundleError, match=r"a run that is not finished; it has no bundle yet.*--resume"):
        read_bundle(tmp_path)


def test_a_signed_bundle_of_a_newer_schema_is_refused_with_what_is_read(bundle: Path) -> None:
    text = (bundle / "model.json").read_text()
    (bundle / "model.json").write_text(text.replace('"schema": 2', '"schema": 3'))
    sign(bundle)
    with pytest.raises(BundleError, match=r"model\.json: schema 3 is newer .*\(it reads 1 to 2\)\. Use a newer clearm"):
        read_bundle(bundle)
