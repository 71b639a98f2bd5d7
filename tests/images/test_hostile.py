"""Files made to do harm: each costs little, and gives its pixels or one line that says why not."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian
from tests.fuzz import seeds
from tests.images import dicom_files

from clearmargin.errors import DataError, ImageError
from clearmargin.images.archive import ArchiveLimits, list_members
from clearmargin.images.complete import is_costly
from clearmargin.images.limits import Limits
from clearmargin.images.npz import read_array
from clearmargin.images.place import parse_place
from clearmargin.images.read import decode_image, read_bytes, read_encoded, read_image
from clearmargin.images.size import read_size

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

MEGA = 10**6
PNG = b"\x89PNG\r\n\x1a\n"


def png_of(*parts: bytes, width: int = 8, height: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG + seeds.png_chunk(b"IHDR", header) + b"".join(parts) + seeds.png_chunk(b"IEND", b"")


def idat(values: bytes = bytes(9 * 8)) -> bytes:
    return seeds.png_chunk(b"IDAT", zlib.compress(values, 9))


def tiff_of(tags: list[tuple[int, int, int, int]], behind: bytes = b"", *, following: int = 0) -> bytes:
    """A little-endian TIFF: directory at 8, `behind` after it."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + behind


def grey_tiff(width: int, height: int, *, compression: int = 1, strips: int = 1, data: bytes = bytes(64)) -> bytes:
    place = 8 + 2 + 9 * 12 + 4
    offsets = (273, 4, 1, place) if strips == 1 else (273, 4, strips, place)
    counts = (279, 4, 1, len(data)) if strips == 1 else (279, 4, strips, place)
    return tiff_of(
        [
            *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)),
            *(offsets, (277, 3, 1, 1), (278, 4, 1, max(1, height // strips)), counts),
        ],
        data,
    )


def many_pages(count: int) -> bytes:
    """A chain of pages, of which only the first is an image."""
    first = grey_tiff(8, 8)
    first = first[: 8 + 2 + 9 * 12] + struct.pack("<I", len(first)) + first[8 + 2 + 9 * 12 + 4 :]
    pages = (struct.pack("<HI", 0, len(first) + 6 * (page + 1)) for page in range(count - 1))
    return first + b"".join(pages) + struct.pack("<HI", 0, 0)


def bmp_run_lengths(width: int, height: int, runs: bytes) -> bytes:
    palette = bytes(64)
    offset = 54 + len(palette)
    header = struct.pack("<2sIII", b"BM", offset + len(runs), 0, offset)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 16, 16) + palette + runs


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = seeds.encode(seeds.SMOOTH, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def dicom(**elements: object) -> bytes:
    return dicom_files.dicom_bytes(dicom_files.phantom(), ExplicitVRLittleEndian, **elements)  # type: ignore[arg-type]


def deflated_dicom(inflated: int) -> bytes:
    syntax = b"1.2.840.10008.1.2.1.99"
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return bytes(128) + b"DICM" + element + packer.compress(bytes(inflated)) + packer.flush()


ZEROS = 200 << 20


@cache
def packed_zeros() -> bytes:
    return zlib.compress(bytes(ZEROS))


BOMBS: dict[str, Callable[[], bytes]] = {
    "png of 10^12 pixels": lambda: png_of(idat(), width=MEGA, height=MEGA),
    "png, pixels that inflate to 200 MB": lambda: png_of(seeds.png_chunk(b"IDAT", packed_zeros())),
    "png, colour profile of 200 MB": lambda: png_of(seeds.png_chunk(b"iCCP", b"a\0\0" + packed_zeros()), idat()),
    "png, text of 200 MB": lambda: png_of(seeds.png_chunk(b"zTXt", b"a\0\0" + packed_zeros()), idat()),
    "png, international text of 200 MB": lambda: png_of(
        seeds.png_chunk(b"iTXt", b"a\0\1\0\0\0" + packed_zeros()), idat()
    ),
    "png of a million empty parts": lambda: png_of(seeds.png_chunk(b"teSt", b"") * MEGA, idat()),
    "jpeg of 65,500 x 65,500": lambda: dicom_files.bare_jpeg(65_500, 65_500, marker=0xC0, bits=8),
    "jpeg of 5,000 scans": lambda: many_scans(5_000),
    "tiff of 10^12 pixels": lambda: grey_tiff(MEGA, MEGA),
    "tiff, a strip that inflates to 200 MB": lambda: grey_tiff(8, 8, compression=8, data=packed_zeros()),
    "tiff of 400,000 strips": lambda: grey_tiff(8, 8, strips=400_000, data=bytes(1_600_000)),
    "tiff of 200,000 pages": lambda: many_pages(200_000),
    "bmp of 10^12 pixels": lambda: bmp_run_lengths(MEGA, MEGA, b"\0\1"),
    "bmp, run lengths that lead nowhere": lambda: bmp_run_lengths(9_000, 9_000, b"\0\2\0\1" + b"\0\0" * 9_000),
    "pgm of 10^12 pixels": lambda: b"P5 1000000 1000000 255\n",
    "pgm, numbers of 3 MB": lambda: b"P2 9000 9000 255\n" + b"1" * (3 << 20),
    "npy of 10^12 pixels": lambda: npy_header("(1000000, 1000000)"),
    "npy of negative size": lambda: npy_header("(-1000, -1000)"),
    "dicom of 65,535 x 65,535": lambda: dicom(Rows=65_535, Columns=65_535),
    "dicom of 10^9 frames": lambda: dicom(NumberOfFrames=10**9),
    "deflated dicom of 200 MB": lambda: deflated_dicom(ZEROS),
}
HARMLESS = {  # decoded in bounds, because no more is unpacked than the image has pixels
    "png, pixels that inflate to 200 MB",
    "tiff, a strip that inflates to 200 MB",
    "tiff of 400,000 strips",
}


class TestBombs:
    def test_each_costs_little_time_and_memory(self, tmp_path: Path) -> None:
        """One process that decodes them all stays below 250 MB more than it had, and below 15 s for each."""
        for number, build in enumerate(BOMBS.values()):
            (tmp_path / f"{number:02}.png").write_bytes(build())
        script = (
            "import json, resource, sys, time\n"
            "from pathlib import Path\n"
            "from clearmargin.errors import ImageError\n"
            "from clearmargin.images.read import read_image\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
            "answers, first = [], peak()\n"
            "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
            "    began = time.monotonic()\n"
            "    try:\n"
            "        kind = str(read_image(path).shape)\n"
            "    except ImageError as error:\n"
            "        kind = error.kind + ': ' + error.reason\n"
            "    answers.append([kind, time.monotonic() - began])\n"
            "print(json.dumps([answers, peak() - first]))\n"
        )
        answer = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert answer.stderr == ""
        answers, growth = json.loads(answer.stdout)
        told = dict(zip(BOMBS, answers, strict=True))
        assert growth < 250 << 20, growth
        assert max(seconds for _, seconds in answers) < 15, told
        decoded = {name for name, (kind, _) in told.items() if kind.startswith("(")}
        assert decoded <= HARMLESS, told
        for name in ("png of 10^12 pixels", "tiff of 10^12 pixels", "bmp of 10^12 pixels", "pgm of 10^12 pixels"):
            assert told[name][0].startswith("too_large"), told[name]
        for name in ("npy of 10^12 pixels", "dicom of 65,535 x 65,535", "jpeg of 65,500 x 65,500"):
            assert told[name][0].startswith("too_large"), told[name]

    def test_what_the_size_does_not_bound_goes_to_a_child(self) -> None:
        for name, build in BOMBS.items():
            costly = name.startswith(("tiff, a strip", "tiff of 400", "tiff of 200", "bmp", "pgm, numbers"))
            assert is_costly(build()) == costly, name
        for plain in (seeds.tiff_seeds()[0], seeds.bmp_seeds()[0], seeds.ppm_seeds()[0], seeds.png_seeds()[0]):
            assert not is_costly(plain)

    def test_the_size_of_a_bomb_is_told_without_decoding_it(self, tmp_path: Path) -> None:
        for name in ("png of a million empty parts", "tiff of 400,000 strips", "tiff of 200,000 pages"):
            (tmp_path / "a").write_bytes(BOMBS[name]())
            began = time.monotonic()
            assert read_size(tmp_path / "a") == (8, 8)
            assert time.monotonic() - began < 2

    def test_a_decoder_that_takes_too_long_is_stopped(self) -> None:
        slow = bmp_run_lengths(9_000, 9_000, b"\0\2\0\1" + b"\0\0" * 9_000 + b"\1\0" * 9_000_000)
        began = time.monotonic()
        with pytest.raises(ImageError) as caught:
            decode_image(slow, "a", Limits(max_seconds=0.5))
        assert "took longer than 0.5 s" in caught.value.reason
        assert time.monotonic() - began < 10


class TestArchives:
    def write(self, path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
        path.write_bytes(seeds.zipped(members, method))
        return path

    def test_a_member_that_unpacks_to_more_than_an_image_may_have_is_not_unpacked(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "d.zip", {"a.png": bytes(20 << 20)})
        with pytest.raises(ImageError, match="more than the limit") as caught:
            read_bytes(path / "a.png", Limits(max_bytes=10 << 20))
        assert caught.value.kind == "too_large"

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_methods_that_unpack_without_a_bound_are_refused(self, tmp_path: Path, method: int) -> None:
        path = self.write(tmp_path / "d.zip", {"a.png": bytes(1 << 20)}, method)
        with pytest.raises(DataError, match=r"neither stored nor deflated\. Unpack it"):
            list_members(str(path))

    def test_a_list_of_members_that_is_too_long_is_not_read(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "d.zip", {f"{number:050}.png": b"x" for number in range(100)})
        assert len(list_members(str(path), ArchiveLimits(max_directory_bytes=100 * (46 + 54)))) == 100
        path.touch()
        with pytest.raises(DataError, match="its list of members is too long"):
            list_members(str(path), ArchiveLimits(max_directory_bytes=100 * (46 + 54) - 1))

    def test_an_array_that_unpacks_to_more_than_it_says(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "d.npz", {"a.npy": npy_header("(2, 3, 4)") + bytes(1 << 20)})
        with pytest.raises(DataError, match="more than the limit"):
            read_array(str(path), "a", ArchiveLimits(max_array_bytes=1000))
        assert read_array(str(path), "a").shape == (2, 3, 4)

    @pytest.mark.parametrize("name", ["benign\\a.png", "./benign/a.png", "benign//a.png", "benign/./a.png"])
    def test_other_ways_to_write_a_name_lead_to_the_same_member(self, tmp_path: Path, name: str) -> None:
        image = seeds.encode(seeds.RGB, "PNG")
        path = self.write(tmp_path / "d.zip", {name: image})
        assert list_members(str(path)) == ["benign/a.png"]
        np.testing.assert_array_equal(read_image(path / "benign" / "a.png"), seeds.RGB)

    @pytest.mark.parametrize("twin", ["benign\\a.png", "benign//a.png"])
    def test_two_ways_to_write_one_name_refuse_the_archive(self, tmp_path: Path, twin: str) -> None:
        path = self.write(tmp_path / "d.zip", {"benign/a.png": b"x", twin: b"y"})
        with pytest.raises(DataError, match="two members are called"):
            list_members(str(path))

    def test_a_member_without_a_name_refuses_the_archive(self, tmp_path: Path) -> None:
        whole = seeds.zipped({"x": b"data"}, zipfile.ZIP_STORED)
        local, central = whole.index(b"PK\3\4"), whole.index(b"PK\1\2")
        changed = bytearray(whole)
        changed[local + 26], changed[central + 28] = 0, 0
        del changed[central + 46], changed[local + 30]
        end = changed.index(b"PK\5\6")
        struct.pack_into("<II", changed, end + 12, end - (central - 1), central - 1)
        (tmp_path / "d.zip").write_bytes(changed)
        with pytest.raises(DataError):
            list_members(str(tmp_path / "d.zip"))

    def test_a_name_longer_than_any_on_disk_is_read(self, tmp_path: Path) -> None:
        name = "a" * 60_000 + ".png"
        path = self.write(tmp_path / "d.zip", {name: seeds.encode(seeds.RGB, "PNG")})
        np.testing.assert_array_equal(read_image(f"{path}/{name}"), seeds.RGB)
        with pytest.raises(ImageError) as caught:
            read_image(f"{path}/b{name}")
        assert caught.value.kind == "missing"

    def test_a_member_that_is_called_like_a_part_of_another_is_itself(self, tmp_path: Path) -> None:
        other = seeds.encode(255 - seeds.RGB, "PNG")
        members = {"a.png": seeds.encode(seeds.RGB, "PNG"), "a.png#xywh=0,0,2,2": other}
        path = self.write(tmp_path / "d.zip", members)
        np.testing.assert_array_equal(read_image(f"{path}/a.png#xywh=0,0,2,2"), 255 - seeds.RGB)
        np.testing.assert_array_equal(read_image(f"{path}/a.png#xywh=0,0,2,3"), seeds.RGB[:3, :2])
        assert read_encoded(f"{path}/a.png#xywh=0,0,2,2").data == other

    @pytest.mark.parametrize("row", ["9" * 4, "9" * 300, "9" * 5_000, "٣", "0x1", "1_0", "-0", "²"])
    def test_a_row_that_is_no_row_is_missing(self, tmp_path: Path, row: str) -> None:
        path = self.write(tmp_path / "d.npz", {"a.npy": seeds.npy(np.zeros((2, 3, 4), np.uint8))})
        with pytest.raises(ImageError) as caught:
            read_image(f"{path}/a/{row}")
        assert caught.value.kind == "missing"

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -2), }",
            "{'descr': (), 'fortran_order': False, 'shape': (1, 2), }",
            "{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (1, 2), }",
            "{'descr': 'a5', 'fortran_order': False, 'shape': (1, 2), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2), 'more': 1}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "999999999, " * 800 + ")}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 5_000 + ",)}",
            "[" * 9_000,
            "__import__('os').abort()",
        ],
    )
    def test_a_header_is_never_run_and_never_warned_of(self, tmp_path: Path, header: str) -> None:
        data = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(64)
        with pytest.raises(ImageError, match="its header is damaged") as caught:
            decode_image(data, "a.npy")
        assert caught.value.kind == "unreadable"
        path = self.write(tmp_path / "d.npz", {"a.npy": data})
        with pytest.raises(DataError, match="is not an array"):
            read_array(str(path), "a")


class TestTwoThingsAtOnce:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @pytest.mark.parametrize(
        "other",
        [
            seeds.zipped({"b.png": seeds.encode(seeds.GREY, "PNG")}),
            b"<html><script>alert(1)</script></html>",
            b"%PDF-1.7",
        ],
        ids=["zip", "html", "pdf"],
    )
    def test_an_image_with_something_behind_it_is_that_image(self, tmp_path: Path, kind: str, other: bytes) -> None:
        image = seeds.encode(seeds.SMOOTH, kind)
        np.testing.assert_array_equal(decode_image(image + other, "a").pixels, decode_image(image, "a").pixels)

    def test_an_archive_with_an_image_before_it_is_what_it_is_asked_for_as(self, tmp_path: Path) -> None:
        archive = seeds.zipped({"b.png": seeds.encode(seeds.GREY, "PNG")})
        for name in ("a.zip", "a.png"):
            (tmp_path / name).write_bytes(seeds.encode(seeds.RGB, "PNG") + archive)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), seeds.RGB)
        np.testing.assert_array_equal(read_image(tmp_path / "a.zip" / "b.png")[:, :, 0], seeds.GREY)
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / "a.png" / "b.png")
        assert caught.value.kind == "missing"

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
    def test_another_image_in_the_preamble_of_a_dicom_file_is_refused(self, kind: str) -> None:
        both = bytearray(dicom())
        both[:128] = seeds.encode(seeds.RGB, kind)[:128].ljust(128, b"\0")
        with pytest.raises(ImageError, match=f"is a {kind} and a DICOM image at once"):
            decode_image(bytes(both), "a")

    @pytest.mark.parametrize(
        "content",
        [
            seeds.encode(seeds.GREY, "GIF"),
            seeds.encode(seeds.RGB, "WEBP"),
            b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            b"<!DOCTYPE html><html></html>",
            pickle.dumps({"a": 1}),
            b"\x89HDF\r\n\x1a\n" + bytes(100),
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
            seeds.zipped({"a.png": seeds.encode(seeds.RGB, "PNG")}),
            b"\x7fELF" + bytes(60),
            b"#!/bin/sh\nrm -rf /\n",
        ],
        ids=["gif", "webp", "pdf", "svg", "html", "pickle", "hdf5", "eps", "zip", "elf", "script"],
    )
    def test_what_is_no_image_by_another_name_is_no_image(self, tmp_path: Path, content: bytes) -> None:
        for name in ("a.png", "a.dcm", "a.npy", "a.tif"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ImageError) as caught:
                read_image(tmp_path / name)
            assert caught.value.kind == "not_an_image"


class TestDamage:
    @pytest.mark.parametrize("number", range(len(seeds.dicom_seeds())))
    def test_a_dicom_file_cut_at_any_length_is_an_error(self, number: int) -> None:
        data = seeds.dicom_seeds()[number]
        whole = decode_image(data, "a").pixels if number != len(seeds.dicom_seeds()) - 1 else None
        lengths = {*range(0, 400, 9), *range(400, len(data) - 40, 61), *range(len(data) - 40, len(data))}
        for length in sorted(lengths):
            try:
                read = decode_image(data[:length], "a").pixels
            except ImageError as error:
                assert error.kind in ("truncated", "unreadable", "not_an_image", "unsupported"), (length, error.kind)
            else:  # padding, and the end of the sequence of fragments
                assert len(data) - length <= 8, length
                np.testing.assert_array_equal(read, whole)

    @pytest.mark.parametrize("data", seeds.npy_seeds()[:5])
    def test_an_array_cut_at_any_length_is_an_error(self, data: bytes) -> None:
        for length in range(len(data)):
            with pytest.raises(ImageError) as caught:
                decode_image(data[:length], "a")
            assert caught.value.kind in ("truncated", "unreadable", "not_an_image"), length

    @pytest.mark.parametrize("data", [*seeds.tiff_seeds()[:9], *seeds.tiff_seeds()[10:]])
    def test_a_tiff_cut_at_any_length_is_an_error_or_the_same(self, data: bytes) -> None:
        try:
            whole = decode_image(data, "a", isolated=False).pixels
        except ImageError:
            whole = None
        for length in range(0, len(data), 3):
            try:
                read = decode_image(data[:length], "a", isolated=False).pixels
            except ImageError as error:
                assert error.kind != "too_large", length
            else:
                np.testing.assert_array_equal(read, whole)

    @pytest.mark.parametrize("number", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
    def test_wrong_lengths_anywhere_are_one_line(self, number: int) -> None:
        files = [seeds.png_seeds()[6], seeds.jpeg_seeds()[4], seeds.tiff_seeds()[0], seeds.bmp_seeds()[0]]
        for data in [*files, seeds.npy_seeds()[0], seeds.dicom_seeds()[1]]:
            for place in range(0, min(len(data) - 4, 200)):
                for form in "<>":
                    changed = bytearray(data)
                    struct.pack_into(f"{form}I", changed, place, number)
                    try:
                        pixels = decode_image(bytes(changed), "a", Limits(max_pixels=MEGA), isolated=False).pixels
                    except ImageError as error:
                        assert str(error).isprintable()
                    else:
                        assert pixels.dtype in (np.uint8, np.uint16)
                        assert pixels.shape[2] in (1, 3)

    def test_a_file_that_is_cut_while_it_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "a.png"
        file.write_bytes(b"x" * 1000)
        status = os.stat(file)
        file.write_bytes(b"x" * 10)
        monkeypatch.setattr(os, "fstat", lambda handle: status)
        with pytest.raises(ImageError, match="was cut while it was read"):
            read_bytes(file)

    def test_a_jpeg_2000_of_another_size_than_the_header_is_refused(self) -> None:
        data = bytearray(dicom_files.dicom_bytes(dicom_files.phantom(), JPEG2000))
        place = data.index(b"\xff\x4f\xff\x51") + 8
        struct.pack_into(">I", data, place, 0x7FFFFFFF)
        with pytest.raises(ImageError) as caught:
            decode_image(bytes(data), "a")
        assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    "name", ["a.png#&", "a.png#frame=1&", "a.png#frame=1\n", "a.png#frame=١", "a.png#xywh=٣,1,1,1"]
)
def test_a_name_that_resembles_a_part_of_an_image_is_a_file(name: str) -> None:
    assert parse_place(name).file == name


def test_an_image_is_read_the_same_through_any_number_of_links(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(seeds.encode(seeds.RGB, "PNG"))
    for number in range(5):
        (tmp_path / f"{number + 1}.png").symlink_to(tmp_path / f"{number}.png")
    np.testing.assert_array_equal(read_image(tmp_path / "5.png"), seeds.RGB)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image(tmp_path / "loop.png")


def test_an_image_of_one_row_or_one_column_is_an_image() -> None:
    for shape in ((1, 1), (1, 5000), (5000, 1)):
        stream = io.BytesIO()
        Image.fromarray(np.zeros(shape, np.uint8)).save(stream, "PNG")
        assert decode_image(stream.getvalue(), "a").pixels.shape == (*shape, 1)
