"""Folders, archives and tables made to do harm: the audit answers, and accounts for every file."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import stat
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.fuzz import seeds

from clearmargin import api
from clearmargin.cli import main
from clearmargin.data.audit import Audit
from clearmargin.data.sources import read_source
from clearmargin.data.walk import walk_files
from clearmargin.images.file_names import name_on_disk, written_name

pytestmark = pytest.mark.skipif(os.name == "nt", reason="names and links of these kinds are not on Windows")

GENERATOR = np.random.default_rng(11)
NAMES = [
    b"it's.png",
    b'"quoted".png',
    b"two\nlines.png",
    b"tab\there.png",
    b"bell\x07 esc\x1b[31m.png",
    "rtl \u202egnp.exe.png".encode(),
    b"gew\xe4chs.png",
    b"\xed\xa0\x80.png",
    b"\\udce4.png",
    b"-rf",
    b"-rf.png",
    b";rm -rf x;.png",
    b"$(touch pwned).png",
    b"`touch pwned`.png",
    b"%s%n%d.png",
    b"{}{0.__class__}.png",
    "🎗 größe 图.png".encode(),
    b" leading and trailing .png",
    b"a,b;c.png",
    b"<img src=x onerror=alert(1)>.png",
    b"#frame=1.png",
    b"a.png#frame=1",
    b"a.png#xywh=0,0,2,2",
    b"a\\b.png",
    b"~.png",
    b"*?[a].png",
    b"x" * 251 + b".png",
    "e\u0301.png".encode(),
    "\u00e9.png".encode(),
]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


def image(kind: str = "PNG") -> bytes:
    """Never the same twice."""
    return seeds.encode(GENERATOR.integers(0, 256, (12, 12, 3)).astype(np.uint8), kind)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six good images of each class."""
    for name in ("benign", "malignant"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "data" / name / f"good {number}.png").write_bytes(image())
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    assert not (tmp_path / "work" / "pwned").exists()


def accounted(result: Audit) -> set[str]:
    """Every path that the audit says anything of."""
    named = {path for finding in result.findings for path in finding.paths}
    return set(result.manifest.frame["path"]) | {file.path for file in result.quarantine} | named


def check_answer(call: Call, root: Path, *, allow: tuple[int, ...] = (0, 3)) -> tuple[dict[str, Any], Audit]:
    """The JSON of the command line and the audit; every file of the folder is in one of its lists."""
    answer = call("audit", root, "--json", "--fix-list", "fix.txt")
    assert answer.code in allow, answer.err
    assert "Traceback" not in answer.err
    values = json.loads(answer.out)
    result = api.audit(root)
    assert json.loads(json.dumps(result.to_dict())) == values
    lost = {f"{root}/{name}" for name in walk_files(root)} - accounted(result)
    assert not lost
    lines = Path("fix.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(result.fix_list())
    assert call("audit", root, "--json", "--exclude", "fix.txt").code in (0, 3)
    assert call("audit", root).code == answer.code  # the text for people, whatever the names are
    return values, result


class TestNames:
    def test_images_of_any_name_are_used(self, call: Call, data: Path) -> None:
        for name in NAMES:
            (data / "benign" / os.fsdecode(name)).write_bytes(image())
        values, result = check_answer(call, data)
        assert {Path(path).name for path in result.manifest.frame["path"]} >= {
            written_name(os.fsdecode(name)) for name in NAMES if name.endswith(b".png")
        }
        assert values["counts"]["images"] == 12 + len(NAMES) - 1  # -rf has no extension

    def test_damaged_files_of_any_name_are_in_quarantine_and_can_be_excluded(self, call: Call, data: Path) -> None:
        for name in NAMES:
            (data / "malignant" / os.fsdecode(name)).write_bytes(b"junk")
        values, _ = check_answer(call, data, allow=(3,))
        assert values["counts"]["images"] == 12
        excluded = call("audit", data, "--json", "--exclude", "fix.txt")
        assert excluded.code == 0, excluded.err
        assert json.loads(excluded.out)["quarantine"] == []

    def test_folders_of_any_name_are_entered(self, call: Call, data: Path) -> None:
        for name in NAMES:
            (data / "benign" / os.fsdecode(name)).mkdir()
            (data / "benign" / os.fsdecode(name) / "a.png").write_bytes(image())
        values, _ = check_answer(call, data)
        assert values["counts"]["images"] == 12 + len(NAMES)

    def test_members_of_an_archive_of_any_name_are_used(self, call: Call, data: Path, tmp_path: Path) -> None:
        names = [written_name(os.fsdecode(name)) for name in NAMES if name.endswith(b".png")]
        names += ["x" * 60_000 + ".png", "deep/" * 5_000 + "a.png"]
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(f"benign/{name}"), image())
            for number in range(3):
                archive.writestr(f"malignant/{number}.png", image())
        values, _ = check_answer(call, tmp_path / "d.zip")
        assert values["counts"]["images"] == len(set(names)) + 3

    def test_a_table_may_name_anything(self, call: Call, data: Path, tmp_path: Path) -> None:
        names = [os.fsdecode(name) for name in NAMES if name.endswith(b".png") and not name.startswith(b" ")]
        for name in names:
            (data / "benign" / name).write_bytes(image())
        absent = ["x" * 100_000, "../" * 3_000 + "etc/passwd", "/dev/zero", "/dev/stdin", "http://localhost/a.png"]
        absent += ["a.zip/" * 15_000 + "b.png", "file:///etc/passwd", "nul\0byte.png", "\\\\server\\share\\a.png"]
        with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label"])
            writer.writerows([f"data/benign/{written_name(name)}", 0] for name in names)
            writer.writerows([name, 1] for name in absent)
        answer = call("audit", tmp_path / "list.csv", "--json", "--fix-list", "fix.txt")
        assert answer.code == 3
        values = json.loads(answer.out)
        assert values["counts"]["images"] == len(names)
        assert len(values["quarantine"]) == len(absent)
        assert call("audit", tmp_path / "list.csv").code == 3


class TestThingsThatAreNoFiles:
    def test_pipes_sockets_devices_and_links_are_quarantined_without_waiting(self, call: Call, data: Path) -> None:
        bad = data / "benign"
        os.mkfifo(bad / "pipe.png")
        with socket.socket(socket.AF_UNIX) as server:
            os.chdir(bad)  # the address of a socket is short
            server.bind("socket.png")
            os.chdir(data.parent / "work")
            (bad / "zero.png").symlink_to("/dev/zero")
            (bad / "stdin.png").symlink_to("/dev/stdin")
            (bad / "memory.png").symlink_to("/proc/self/mem")
            (bad / "loop.png").symlink_to("loop.png")
            (bad / "gone.png").symlink_to("nowhere.png")
            values, _ = check_answer(call, data, allow=(3,))
        assert {Path(file["path"]).stem for file in values["quarantine"]} == {
            *("pipe", "socket", "zero", "stdin", "memory", "loop", "gone")
        }
        assert values["counts"]["images"] == 12

    def test_a_folder_called_like_an_image_is_a_folder(self, call: Call, data: Path) -> None:
        for name in ("a.png", "b.zip", "c.npz", "d.dcm"):
            (data / "benign" / name).mkdir()
            (data / "benign" / name / "inside.png").write_bytes(image())
        values, _ = check_answer(call, data)
        assert values["counts"]["images"] == 12 + 4
        assert values["quarantine"] == []

    def test_a_file_that_nobody_may_read(self, call: Call, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        secret = data / "benign" / "secret.png"
        secret.write_bytes(image())
        opened = os.open

        def guarded(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if str(path) == str(secret):
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, flags, *rest, **options)

        monkeypatch.setattr(os, "open", guarded)
        values, _ = check_answer(call, data, allow=(3,))
        assert [file["reason"] for file in values["quarantine"]] == ["cannot be opened (Permission denied)"]

    @pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_that_nobody_may_read_is_one_clear_line(self, call: Call, data: Path) -> None:
        (data / "closed").mkdir(mode=0)
        answer = call("audit", data)
        assert answer.code == 3
        assert "the folder cannot be read" in answer.err

    def test_a_file_that_vanishes_between_listing_and_reading(
        self, call: Call, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        victim = data / "benign" / "good 0.png"
        opened = os.open

        def vanishing(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if str(path) == str(victim):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            return opened(path, flags, *rest, **options)

        monkeypatch.setattr(os, "open", vanishing)
        answer = call("audit", data, "--json")
        assert answer.code == 3
        assert [file["kind"] for file in json.loads(answer.out)["quarantine"]] == ["missing"]


class TestLinks:
    def outside(self, data: Path) -> list[Any]:
        return [finding for finding in api.audit(data).findings if finding.kind == "link_outside"]

    def test_links_out_of_the_folder_are_followed_and_told(self, call: Call, data: Path, tmp_path: Path) -> None:
        store = tmp_path / "store"
        store.mkdir()
        for name in ("a.png", "b.png", "c.png"):
            (store / name).write_bytes(image())
        (data / "benign" / "central").symlink_to(store)
        (store / "sub").mkdir()
        (store / "sub" / "d.png").write_bytes(image())
        (tmp_path / "alone.png").write_bytes(image())
        (data / "malignant" / os.fsdecode(b"alone\xe4.png")).symlink_to(tmp_path / "alone.png")
        values, _ = check_answer(call, data)
        assert values["counts"]["images"] == 12 + 5
        (finding,) = self.outside(data)
        assert (finding.severity, finding.certainty, finding.count) == ("note", "certain", 5)
        assert {Path(path).name for path in finding.paths} == {"a.png", "b.png", "c.png", "d.png", r"alone\udce4.png"}

    def test_links_within_the_folder_and_a_linked_root_are_nothing_to_tell(self, data: Path, tmp_path: Path) -> None:
        (data / "benign" / "copy.png").symlink_to("good 0.png")
        (data / "malignant" / "more").symlink_to(data / "malignant")
        (tmp_path / "shortcut").symlink_to(data)
        assert self.outside(data) == self.outside(tmp_path / "shortcut") == []

    def test_a_folder_beside_the_root_with_a_longer_name_is_outside(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "data2").mkdir()
        (tmp_path / "data2" / "a.png").write_bytes(image())
        (data / "benign" / "x").symlink_to(tmp_path / "data2")
        assert [finding.count for finding in self.outside(data)] == [1]

    def test_a_row_of_a_table_elsewhere_is_no_link(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "lists").mkdir()
        rows = [f"{file},{int(file.parent.name == 'malignant')}" for file in sorted(data.rglob("*.png"))]
        (tmp_path / "lists" / "list.csv").write_text("\n".join(["path,label", *rows]))
        assert self.outside(tmp_path / "lists" / "list.csv") == []

    def test_a_linked_archive_or_array_in_a_table_is_told_with_all_its_images(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "far.npz").write_bytes(seeds.npz_seeds()[0])
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists" / "near.npz").symlink_to(tmp_path / "far.npz")
        rows = [f"near.npz/train_images/{row},{row}" for row in (0, 1)]
        (tmp_path / "lists" / "list.csv").write_text("\n".join(["path,label", *rows]))
        assert [finding.count for finding in self.outside(tmp_path / "lists" / "list.csv")] == [2]

    def test_loops_of_links_end_and_a_real_folder_goes_by_its_own_name(self, call: Call, data: Path) -> None:
        (data / "benign" / "up").symlink_to(data)
        (data / "malignant" / "here").symlink_to(".")
        (data / "benign" / "false friends").symlink_to(data / "malignant" / "sub")
        (data / "malignant" / "sub").mkdir()
        (data / "malignant" / "sub" / "a.png").write_bytes(image())
        values, result = check_answer(call, data)
        assert values["counts"] | {"images": 13, "benign": 6, "malignant": 7} == values["counts"]
        assert f"{data}/malignant/sub/a.png" in set(result.manifest.frame["path"])

    def test_links_in_an_archive_lead_nowhere(self, tmp_path: Path, call: Call) -> None:
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
            for name in ("benign/a.png", "malignant/b.png"):
                archive.writestr(name, image())
            link = zipfile.ZipInfo("benign/passwd.png")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "/etc/passwd")
        values, _ = check_answer(call, tmp_path / "d.zip")
        assert values["counts"]["images"] == 2
        assert "passwd" not in json.dumps(values)


class TestDepthAndNumber:
    @pytest.fixture
    def deep(self, data: Path) -> Iterator[Path]:
        """An image 1,200 folders down."""
        here = os.open(data / "benign", os.O_RDONLY)
        try:
            for _ in range(1_200):
                os.mkdir("d", dir_fd=here)
                below = os.open("d", os.O_RDONLY, dir_fd=here)
                os.close(here)
                here = below
            file = os.open("a.png", os.O_WRONLY | os.O_CREAT, dir_fd=here)
            os.write(file, image())
            os.close(file)
            os.close(here)
            yield data
        finally:
            subprocess.run(["rm", "-r", str(data / "benign" / "d")], check=True)  # shutil.rmtree recurses, and fails

    def test_folders_a_thousand_deep_are_entered(self, deep: Path) -> None:
        assert sum(1 for _ in walk_files(deep)) == 13
        assert len(api.audit(deep).manifest) == 13

    def test_images_of_every_odd_shape_are_measured_without_a_warning(self, call: Call, data: Path) -> None:
        shapes = [(1, 1), (1, 3000), (3000, 1), (2, 2), (1, 2), (3, 3), (12, 13)]
        for number, shape in enumerate(shapes):
            for value in (0, 255):
                pixels = np.full((*shape, 3), value, np.uint8)
                (data / "benign" / f"{number}_{value}.png").write_bytes(seeds.encode(pixels, "PNG"))
            wide = np.full(shape, 40_000 + number, np.uint16)
            (data / "malignant" / f"{number}.png").write_bytes(seeds.encode(wide, "PNG"))
        values, _ = check_answer(call, data)
        assert values["counts"]["images"] == 12 + 3 * len(shapes)

    def test_every_kind_of_file_under_every_extension(self, call: Call, data: Path) -> None:
        kinds = {
            "png": seeds.png_seeds(),
            "jpg": seeds.jpeg_seeds(),
            "bmp": seeds.bmp_seeds(),
            "npy": seeds.npy_seeds(),
        }
        kinds |= {"tif": seeds.tiff_seeds(), "pgm": seeds.ppm_seeds()}
        for kind, files in kinds.items():
            for number, content in enumerate(files):
                for extension in ("png", "dcm", "npy"):
                    (data / "malignant" / f"{kind}{number}.{extension}").write_bytes(content)
        check_answer(call, data)


class TestTables:
    def test_a_damaged_parquet_file_is_one_line(self, call: Call, tmp_path: Path) -> None:
        stream = io.BytesIO()
        pd.DataFrame({"path": ["a.png"], "label": [1]}).to_parquet(stream)
        whole = stream.getvalue()
        broken = [whole[:length] for length in range(0, len(whole), 97)]
        broken += [
            whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :] for place in range(0, len(whole), 41)
        ]
        broken.append(whole.replace(b"a.png", b"\xff.png"))
        for data in broken:
            (tmp_path / "list.parquet").write_bytes(data)
            answer = call("audit", tmp_path / "list.parquet")
            assert answer.code == 3, answer.err
            assert answer.err.count("Error: ") <= 1

    def test_what_pandas_wrote_beside_a_table_is_not_believed(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        pd.DataFrame({"path": ["a.png"], "label": [1]}).to_parquet(stream)
        changed = stream.getvalue().replace(b'"pandas_type"', b'"pandas_tyqe"')
        assert changed != stream.getvalue()
        (tmp_path / "list.parquet").write_bytes(changed)
        assert len(read_source(tmp_path / "list.parquet")) == 1

    @pytest.mark.parametrize("extension", [".csv", ".parquet"])
    def test_a_table_of_thousands_of_columns_is_no_manifest(self, call: Call, tmp_path: Path, extension: str) -> None:
        table = pd.DataFrame({name: ["0"] for name in ["path", "label", *map(str, range(2_000))]})
        path = tmp_path / f"list{extension}"
        (table.to_csv if extension == ".csv" else table.to_parquet)(path)
        answer = call("audit", path)
        assert answer.code == 3
        assert "columns, more than any manifest" in answer.err


class TestPlacesToWrite:
    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("missing/fix.txt", "missing: no such folder. Make it"),
            ("folder", "folder: is a folder; give a file, as --fix-list folder/fix_list.txt"),
            ("file/fix.txt", "file: is not a folder; give a file elsewhere with --fix-list"),
            ("/dev/null", "/dev/null: is a pipe or a device"),
        ],
    )
    def test_a_list_that_cannot_be_written_is_one_line_before_the_audit(
        self, call: Call, data: Path, target: str, words: str
    ) -> None:
        Path("folder").mkdir()
        Path("file").write_text("mine")
        answer = call("audit", data, "--fix-list", target)
        assert answer.code == 2
        assert words in answer.err
        assert "Auditing" not in answer.err
        assert Path("file").read_text() == "mine"
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)

    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("file/split.csv", "file: is not a folder; give a file elsewhere with --out"),
            ("folder", "folder: is a folder; give a file, as --out folder/split.csv"),
            ("/dev/null", "/dev/null: is a pipe or a device"),
        ],
    )
    def test_a_split_that_cannot_be_written_is_one_line(self, call: Call, data: Path, target: str, words: str) -> None:
        Path("folder").mkdir()
        Path("file").write_text("mine")
        answer = call("split", data, "--by", "image", "--out", target)
        assert answer.code == 2
        assert words in answer.err
        assert Path("file").read_text() == "mine"


def test_names_in_this_file_are_what_they_are_meant_to_be() -> None:
    assert all(
        name_on_disk(written_name(os.fsdecode(name))) == os.fsdecode(name) for name in NAMES if b"\\u" not in name
    )
