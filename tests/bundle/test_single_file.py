"""One file says what the folder says; whatever is not written as we write it is refused in one line."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.bundle.small_bundle import write_invented

from clearmargin.bundle.read import REQUIRED, SUMS, find_bundle, read_bundle
from clearmargin.bundle.single_file import SUFFIX, open_single_file, pack_files
from clearmargin.errors import BundleError, UsageError

NAMES = (*REQUIRED, SUMS)


def packed(folder: Path) -> bytes:
    return pack_files({file.name: file.read_bytes() for file in folder.iterdir()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_invented(tmp_path / "bundle")


@pytest.fixture
def single(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / f"model{SUFFIX}"
    path.write_bytes(packed(folder))
    return path


def test_it_is_the_bundle_that_was_packed(folder: Path, single: Path) -> None:
    one, other = read_bundle(single), read_bundle(folder)
    assert (one.sha256, one.model, one.folder) == (other.sha256, other.model, single)
    assert all(one.read(name) == other.read(name) for name in REQUIRED)
    assert find_bundle(single) == single


def test_the_same_bundle_gives_the_same_bytes(folder: Path, single: Path) -> None:
    again = {file.name: file.read_bytes() for file in sorted(folder.iterdir(), reverse=True)}
    assert pack_files(again) == single.read_bytes()


def test_any_program_can_list_and_unpack_it(folder: Path, single: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(single) as archive:
        assert archive.testzip() is None
        assert {info.filename for info in archive.infolist()} == set(NAMES)
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        archive.extractall(tmp_path / "out")
    assert read_bundle(tmp_path / "out").sha256 == read_bundle(folder).sha256
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tqq", str(single)], check=True)


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_to_the_whole_bundle_is_fine(folder: Path, single: Path, tmp_path: Path, link: str) -> None:
    path = tmp_path / ("linked" + (SUFFIX if link == "file" else ""))
    path.symlink_to(single if link == "file" else folder)
    assert read_bundle(path).sha256 == read_bundle(folder).sha256


def test_a_bundle_of_more_than_4_gib_stays_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearmargin.bundle.single_file._MOST_BYTES", 2**17)
    with pytest.raises(UsageError, match="share its folder instead"):
        pack_files({"model.onnx": bytes(2**17)})


def test_every_changed_byte_is_refused(single: Path) -> None:
    content = single.read_bytes()
    for place in {*range(0, len(content), 97), *range(len(content) - 330, len(content), 3)}:
        changed = bytearray(content)
        changed[place] ^= 0x41
        single.write_bytes(changed)
        with pytest.raises(BundleError) as caught:
            read_bundle(single)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("cut", [0, 1, 21, 22, 100, -1, -22, -23, -300])
def test_a_file_that_is_cut_off_is_refused(single: Path, cut: int) -> None:
    single.write_bytes(single.read_bytes()[:cut])
    with pytest.raises(BundleError) as caught:
        read_bundle(single)
    why = "it is cut off, longer than it was, or of another kind"
    assert (
        str(caught.value)
        == f"{single}: is not written as a .clearmargin file is: {why}. Copy it anew, or make it with export."
    )


@pytest.mark.parametrize("extra", [b"\n", b"#!/bin/sh\nrm -rf /\n", b"\x89PNG\r\n\x1a\n", bytes(70_000)])
@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_file_that_is_something_else_as_well_is_refused(single: Path, extra: bytes, where: str) -> None:
    content = single.read_bytes()
    single.write_bytes(extra + content if where == "before" else content + extra)
    with pytest.raises(BundleError, match=r"is not written as a \.clearmargin file is"):
        read_bundle(single)


def zipped(folder: Path, change: Callable[[zipfile.ZipFile], object], method: int = zipfile.ZIP_STORED) -> bytes:
    """The files in a zip archive by Python's own writer, changed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for file in sorted(folder.iterdir()):
            info = zipfile.ZipInfo(file.name)
            info.external_attr = 0o100644 << 16
            info.compress_type = method
            archive.writestr(info, file.read_bytes())
        change(archive)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "/etc/passwd", "..\\evil.txt", "C:\\evil.txt", "folder/", "bundle/model.json", "model.json/", ".",
     "notes.txt", "model.pkl", "MODEL.JSON", "mod\u00e9l.json", "a\nb", "x" * 60_000],
)  # fmt: skip
def test_a_member_that_is_no_file_of_a_bundle_is_refused(folder: Path, single: Path, name: str) -> None:
    single.write_bytes(zipped(folder, lambda archive: archive.writestr(name, b"evil")))
    with pytest.raises(BundleError, match=r"which is no file of a bundle|lists") as caught:
        read_bundle(single)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert not (single.parent / "evil.txt").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(folder: Path, single: Path) -> None:
    (folder / "MODEL_CARD.md").unlink()
    single.write_bytes(zipped(folder, lambda archive: archive.writestr("model.json", b"{}")))
    with pytest.raises(BundleError, match=r"twice|in another way|plain file"):
        read_bundle(single)


def test_a_link_as_a_member_is_refused(folder: Path, single: Path) -> None:
    (folder / "model.onnx").unlink()

    def add(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("model.onnx")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, b"/etc/passwd")

    single.write_bytes(zipped(folder, add))
    with pytest.raises(BundleError, match="as something else than a plain file"):
        read_bundle(single)


def test_a_bomb_is_refused_before_it_swells(folder: Path, single: Path) -> None:
    (folder / "weights.safetensors").write_bytes(bytes(50_000_000))
    single.write_bytes(zipped(folder, lambda archive: None, zipfile.ZIP_DEFLATED))
    assert single.stat().st_size < 100_000
    with pytest.raises(BundleError, match="compressed"):
        read_bundle(single)


def entry_of(content: bytes, name: bytes) -> int:
    """Where the entry of a member begins in the directory."""
    return content.rindex(b"PK\x01\x02", 0, content.rindex(name))


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (8, "<H", 0x1), (8, "<H", 0x800), (10, "<H", 8), (10, "<H", 99), (16, "<I", 7), (20, "<I", 2**32 - 1),
        (24, "<I", 2**32 - 1), (24, "<I", 0), (30, "<H", 4), (32, "<H", 4), (34, "<H", 1), (38, "<I", 0o040755 << 16),
        (42, "<I", 2**32 - 1), (42, "<I", 0), (4, "<H", 45), (12, "<H", 1),
    ],
    ids=["encrypted", "utf-8", "deflated", "unknown", "crc", "zip64", "zip64 size", "empty", "extra", "comment", "disk",
         "folder", "zip64 place", "other place", "version", "time"],
)  # fmt: skip
def test_a_lie_in_the_directory_is_refused(single: Path, offset: int, form: str, value: int) -> None:
    content = bytearray(single.read_bytes())
    struct.pack_into(form, content, entry_of(bytes(content), b"model.onnx") + offset, value)
    single.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        read_bundle(single)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [(4, "<H", 1), (8, "<H", 0), (8, "<H", 2**16 - 1), (10, "<H", 2**16 - 1), (12, "<I", 2**32 - 1),
     (16, "<I", 2**32 - 1), (16, "<I", 0), (20, "<H", 5)],
)  # fmt: skip
def test_a_lie_at_the_end_is_refused(single: Path, offset: int, form: str, value: int) -> None:
    content = bytearray(single.read_bytes())
    struct.pack_into(form, content, len(content) - 22 + offset, value)
    single.write_bytes(content)
    with pytest.raises(BundleError, match=r"is not written as a \.clearmargin file is"):
        read_bundle(single)


def test_a_wrong_checksum_is_refused_though_both_places_say_it(folder: Path, single: Path) -> None:
    content = single.read_bytes()
    crc = struct.pack("<I", zlib.crc32((folder / SUMS).read_bytes()))
    assert content.count(crc) == 2
    single.write_bytes(content.replace(crc, b"\x01\x02\x03\x04"))
    with pytest.raises(BundleError, match=r"SHA256SUMS: the bytes changed: the checksum is wrong"):
        read_bundle(single)


def test_a_zip_archive_by_somebody_else_is_no_single_file(folder: Path, single: Path) -> None:
    with zipfile.ZipFile(single, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    with pytest.raises(BundleError, match="Copy it anew, or make it with export"):
        read_bundle(single)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"PK\x05\x06" + bytes(18), bytes(100)])
def test_what_is_no_archive_at_all_is_refused(single: Path, content: bytes) -> None:
    single.write_bytes(content)
    with pytest.raises(BundleError):
        read_bundle(single)


def test_a_member_that_the_list_of_hashes_does_not_name_is_refused(folder: Path, single: Path) -> None:
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    single.write_bytes(pack_files({**files, "context.onnx": b"hidden"}))
    with pytest.raises(BundleError, match=r"holds context\.onnx, which SHA256SUMS does not name"):
        read_bundle(single)
    single.write_bytes(pack_files({name: files[name] for name in files if name != "model.onnx"}))
    with pytest.raises(BundleError, match=r"has no model\.onnx"):
        read_bundle(single)
    single.write_bytes(pack_files({name: files[name] for name in files if name != SUMS}))
    with pytest.raises(BundleError, match="has no SHA256SUMS"):
        read_bundle(single)


def test_a_file_that_changes_after_it_was_read_is_refused(single: Path) -> None:
    bundle = read_bundle(single)
    content = single.read_bytes()
    single.write_bytes(content.replace(b"# Model card", b"# Nodel card"))
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md: the bytes changed"):
        bundle.read("MODEL_CARD.md")
    single.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.read("MODEL_CARD.md")


def test_many_gigabytes_of_nothing_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / f"huge{SUFFIX}"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BundleError, match="is larger than 4 GiB"):
        open_single_file(path, set(NAMES))
