"""Reading images: what every format gives, and that damage of any kind is one ImageError."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from clearmargin.errors import ImageError
from clearmargin.images.file_names import name_on_disk, written_name
from clearmargin.images.limits import Limits
from clearmargin.images.read import decode_image, read_bytes, read_image

# Under the settings of the test suite Pillow's warnings would become errors and hide what a user gets.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

GENERATOR = np.random.default_rng(5)
RGB = GENERATOR.integers(0, 256, (9, 11, 3)).astype(np.uint8)
GREY = RGB[:, :, 0]
GREY_16 = GENERATOR.integers(0, 65536, (9, 11)).astype(np.uint16)
SMOOTH = np.repeat((np.add.outer(np.arange(16), np.arange(24)) * 6).astype(np.uint8)[:, :, None], 3, axis=2)


def encode(image: Image.Image | NDArray[np.generic], image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, image_format, **options)
    return buffer.getvalue()


def tiff(pixels: NDArray[np.generic], *, order: str = "<", strips: int = 3) -> bytes:
    """A grey TIFF as libtiff lays it out: strips first, the directory last."""
    height, width = pixels.shape
    rows = -(-height // strips)
    data = [
        pixels[top : top + rows].astype(pixels.dtype.newbyteorder(order)).tobytes() for top in range(0, height, rows)
    ]
    body, starts = b"", []
    for strip in data:
        starts.append(8 + len(body))
        body += strip
    offsets_at = 8 + len(body)
    body += struct.pack(f"{order}{len(data)}I", *starts)
    counts_at = 8 + len(body)
    body += struct.pack(f"{order}{len(data)}I", *map(len, data))
    body += b"\0" * (len(body) % 2)
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, pixels.dtype.itemsize * 8), (259, 3, 1, 1)),
        *((262, 3, 1, 1), (273, 4, len(data), offsets_at), (277, 3, 1, 1), (278, 4, 1, rows)),
        (279, 4, len(data), counts_at),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value))
        for tag, kind, count, value in tags
    )
    signature = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    return signature + struct.pack(f"{order}I", 8 + len(body)) + body + directory


def bmp_rle8() -> bytes:
    """A 4 × 2 palette BMP with run lengths: rows of 7 and of 3."""
    palette = b"".join(bytes([value, 0, value // 2, 0]) for value in range(16))
    runs = bytes([4, 7, 0, 0, 4, 3, 0, 0, 0, 1])
    offset = 14 + 40 + len(palette)
    header = struct.pack("<2sIII", b"BM", offset + len(runs), 0, offset)
    header += struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(runs), 2835, 2835, 16, 16)
    return header + palette + runs


SAMPLES: dict[str, bytes] = {
    "png": encode(RGB, "PNG"),
    "png 16 bit": encode(GREY_16, "PNG"),
    "png palette": encode(Image.fromarray(RGB).quantize(8), "PNG"),
    "jpeg": encode(RGB, "JPEG"),
    "jpeg smooth": encode(SMOOTH, "JPEG"),
    "jpeg progressive": encode(RGB, "JPEG", progressive=True),
    "bmp": encode(RGB, "BMP"),
    "bmp grey": encode(GREY, "BMP"),
    "bmp run lengths": bmp_rle8(),
    "pgm": encode(GREY, "PPM"),
    "ppm": encode(RGB, "PPM"),
    "pgm 16 bit": encode(GREY_16, "PPM"),
    "pgm 12 bit": b"P5\n# twelve bits\n3 2\n4095\n" + bytes(range(12)),
    "pbm": b"P4\n9 2\n\xff\x80\x00\x80",
    "tiff": encode(RGB, "TIFF"),
    "tiff lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff deflate": encode(SMOOTH, "TIFF", compression="tiff_adobe_deflate"),
    "tiff jpeg": encode(SMOOTH, "TIFF", compression="jpeg"),
    "tiff directory last": tiff(GREY),
    "tiff big endian 16 bit": tiff(GREY_16, order=">"),
}


def kind_of(data: bytes, limits: Limits = Limits()) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, "x", limits)
    return caught.value.kind


class TestFormats:
    @pytest.mark.parametrize("image_format", ["PNG", "BMP", "PPM", "TIFF"])
    def test_lossless_colour_is_exact(self, image_format: str) -> None:
        decoded = decode_image(encode(RGB, image_format), "x")
        assert decoded.format == image_format
        assert decoded.pixels.dtype == np.uint8
        np.testing.assert_array_equal(decoded.pixels, RGB)

    @pytest.mark.parametrize("image_format", ["PNG", "BMP", "PPM", "TIFF"])
    def test_grey_stays_grey(self, image_format: str) -> None:
        pixels = decode_image(encode(GREY, image_format), "x").pixels
        np.testing.assert_array_equal(pixels, GREY[:, :, None])

    def test_jpeg_is_near_and_grey_jpeg_is_grey(self) -> None:
        pixels = decode_image(encode(SMOOTH, "JPEG", quality=95), "x").pixels.astype(int)
        assert np.abs(pixels - SMOOTH).max() < 12
        assert decode_image(encode(SMOOTH[:, :, 0], "JPEG"), "x").pixels.shape == (16, 24, 1)

    @pytest.mark.parametrize(
        "data",
        [
            encode(GREY_16, "PNG"),
            encode(GREY_16, "PPM"),
            encode(GREY_16, "TIFF"),
            tiff(GREY_16),
            tiff(GREY_16, order=">"),
        ],
        ids=["png", "pgm", "tiff", "tiff little endian", "tiff big endian"],
    )
    def test_16_bit_grey_keeps_its_exact_values(self, data: bytes) -> None:
        pixels = decode_image(data, "x").pixels
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels, GREY_16[:, :, None])

    def test_12_bit_pgm_fills_the_16_bit_range(self) -> None:
        pixels = decode_image(b"P5 2 1 4095\n\x00\x00\x0f\xff", "x").pixels
        assert (pixels.dtype, pixels.ravel().tolist()) == (np.uint16, [0, 65535])

    def test_palette_becomes_its_colours(self) -> None:
        image = Image.fromarray(RGB).quantize(8)
        np.testing.assert_array_equal(decode_image(encode(image, "PNG"), "x").pixels, np.asarray(image.convert("RGB")))

    def test_cmyk_becomes_rgb(self) -> None:
        image = Image.fromarray(SMOOTH).convert("CMYK")
        for image_format, tolerance in (("TIFF", 0), ("JPEG", 12)):
            pixels = decode_image(encode(image, image_format), "x").pixels.astype(int)
            assert np.abs(pixels - np.asarray(image.convert("RGB"))).max() <= tolerance

    def test_one_bit_becomes_black_and_white(self) -> None:
        bits = GREY > 127
        for image_format in ("PNG", "BMP", "TIFF", "PPM"):
            pixels = decode_image(encode(Image.fromarray(bits), image_format), "x").pixels
            np.testing.assert_array_equal(pixels[:, :, 0], np.where(bits, 255, 0))

    def test_run_length_bmp(self) -> None:
        pixels = decode_image(bmp_rle8(), "x").pixels
        assert pixels[:, :, 2].tolist() == [[3] * 4, [7] * 4]  # the rows of a BMP go from the bottom to the top

    def test_alpha_lies_over_white(self) -> None:
        alpha = GENERATOR.integers(0, 256, GREY.shape).astype(np.uint8)
        pixels = decode_image(encode(np.dstack([RGB, alpha]), "PNG"), "x").pixels
        weight = alpha[:, :, None] / 255
        np.testing.assert_allclose(pixels, RGB * weight + 255 * (1 - weight), atol=1)

    def test_grey_with_alpha_stays_grey(self) -> None:
        alpha = GENERATOR.integers(0, 256, GREY.shape).astype(np.uint8)
        image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
        pixels = decode_image(encode(image, "PNG"), "x").pixels
        assert pixels.shape == (9, 11, 1)
        np.testing.assert_allclose(pixels[:, :, 0], GREY * (alpha / 255) + 255 - alpha, atol=1)

    @pytest.mark.parametrize("pixels", [GREY, RGB, GREY_16], ids=["grey", "rgb", "16 bit"])
    def test_the_transparent_colour_of_a_png_becomes_white(self, pixels: NDArray[np.generic]) -> None:
        key = pixels[3, 4]
        option = tuple(map(int, key)) if pixels.ndim == 3 else int(key)
        read = decode_image(encode(pixels, "PNG", transparency=option), "x").pixels
        is_key = (pixels.reshape(*pixels.shape[:2], -1) == key).all(axis=2)
        assert (read[is_key] == np.iinfo(pixels.dtype).max).all()
        np.testing.assert_array_equal(read[~is_key], pixels.reshape(read.shape)[~is_key])

    @pytest.mark.parametrize("image_format", ["PNG", "TIFF", "JPEG"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied_once(self, image_format: str, orientation: int) -> None:
        upright = {
            1: lambda a: a,
            2: np.fliplr,
            3: lambda a: np.rot90(a, 2),
            4: np.flipud,
            5: np.transpose,
            6: lambda a: np.rot90(a, -1),
            7: lambda a: np.rot90(a, 2).T,
            8: np.rot90,
        }
        stored = np.kron(np.array([[0, 60, 120], [160, 200, 250]]), np.ones((8, 8))).astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = decode_image(encode(stored, image_format, exif=exif), "x").pixels[:, :, 0]
        expected = upright[orientation](stored)
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(int) - expected).max() <= (4 if image_format == "JPEG" else 0)

    @pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
    @pytest.mark.parametrize("block", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"])
    def test_damaged_exif_says_nothing_of_the_pixels(self, image_format: str, block: bytes) -> None:
        damaged = decode_image(encode(SMOOTH, image_format, exif=block), "x").pixels
        np.testing.assert_array_equal(damaged, decode_image(encode(SMOOTH, image_format), "x").pixels)

    def test_what_the_content_is_counts_and_not_the_name(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jpg"
        file.write_bytes(encode(RGB, "PNG"))
        np.testing.assert_array_equal(read_image(file), RGB)
        assert decode_image(file.read_bytes(), "a.jpg").format == "PNG"


class TestFilesThatAreNoImage:
    @pytest.mark.parametrize(
        ("name", "content", "kind", "words"),
        [
            ("a.png", b"", "empty", "0 bytes"),
            ("a.png", b"just some text, saved under a wrong name\n", "not_an_image", "not a PNG, JPEG"),
            ("a.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not_an_image", "not a PNG, JPEG"),
            ("a.bmp", b"BM", "not_an_image", "not a PNG, JPEG"),
            ("a.gif", encode(GREY, "GIF"), "not_an_image", "not a PNG, JPEG"),
            ("a.png", b"\0" * 5000, "not_an_image", "not a PNG, JPEG"),
            ("a.pgm", b"P5 0 5 255\n", "not_an_image", "not a PNG, JPEG"),
        ],
    )
    def test_each_is_named(self, tmp_path: Path, name: str, content: bytes, kind: str, words: str) -> None:
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(ImageError, match=words) as caught:
            read_image(file)
        assert caught.value.kind == kind
        assert caught.value.path == str(file)
        assert str(caught.value) == f"{file}: {caught.value.reason}"

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="no such file") as caught:
            read_image(tmp_path / "nowhere.png")
        assert caught.value.kind == "missing"

    def test_a_link_that_leads_nowhere_is_missing(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / "a.png")
        assert caught.value.kind == "missing"

    def test_a_folder_is_none_and_leaks_no_handle(self, tmp_path: Path) -> None:
        handles = Path("/proc/self/fd")
        before = len(list(handles.iterdir())) if handles.is_dir() else 0
        for _ in range(5):
            with pytest.raises(ImageError, match="is a folder") as caught:
                read_bytes(tmp_path)
            assert caught.value.kind == "unreadable"
        if before:
            assert len(list(handles.iterdir())) == before

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
    @pytest.mark.timeout(20)
    def test_a_named_pipe_is_refused_without_waiting_for_a_writer(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(ImageError, match="a pipe or a device"):
            read_image(tmp_path / "a.png")

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero here")
    @pytest.mark.timeout(20)
    def test_an_endless_device_is_refused_without_reading_it(self) -> None:
        with pytest.raises(ImageError, match="a pipe or a device"):
            read_bytes("/dev/zero")

    def test_a_null_byte_in_the_name(self) -> None:
        with pytest.raises(ImageError, match="cannot be opened"):
            read_bytes("a\0b.png")

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (encode(GREY.astype(np.float32), "TIFF"), "type 'F'; save it with 8 or 16 bits"),
            (encode(GREY.astype(np.int32) * 1000 * 1000, "TIFF"), "32-bit values; save it with 8 or 16 bits"),
            (encode(-GREY.astype(np.int32), "TIFF"), "32-bit values"),
        ],
        ids=["float", "32 bit", "negative"],
    )
    def test_values_of_another_kind_are_unsupported(self, data: bytes, words: str) -> None:
        with pytest.raises(ImageError, match=words) as caught:
            decode_image(data, "x")
        assert caught.value.kind == "unsupported"

    def test_a_tiff_of_several_pages_is_unsupported(self) -> None:
        pages = encode(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(RGB)])
        with pytest.raises(ImageError, match="several pages; save the page you mean") as caught:
            decode_image(pages, "x")
        assert caught.value.kind == "unsupported"


class TestLimits:
    def test_too_many_bytes(self, tmp_path: Path) -> None:
        file = tmp_path / "a.png"
        file.write_bytes(b"x" * 1001)
        with pytest.raises(ImageError, match=r"1,001 bytes, more than the limit of 1,000") as caught:
            read_bytes(file, Limits(max_bytes=1000))
        assert caught.value.kind == "too_large"
        assert len(read_bytes(file, Limits(max_bytes=1001))) == 1001

    def test_a_file_that_grows_while_it_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "a.png"
        file.write_bytes(b"x" * 10)
        status = os.stat(file)
        file.write_bytes(b"x" * 1000)
        monkeypatch.setattr(os, "fstat", lambda handle: status)
        with pytest.raises(ImageError, match="grew while it was read"):
            read_bytes(file)

    def test_too_many_pixels_and_exactly_enough(self) -> None:
        data = encode(RGB, "PNG")
        with pytest.raises(ImageError, match="11 × 9 pixels, more than the limit of 98") as caught:
            decode_image(data, "x", Limits(max_pixels=98))
        assert caught.value.kind == "too_large"
        assert decode_image(data, "x", Limits(max_pixels=99)).pixels.shape == (9, 11, 3)

    def test_a_decompression_bomb_is_refused_before_it_is_decoded(self) -> None:
        def chunk(name: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

        for side in (11_000, 60_000):  # above our limit; above the one at which Pillow itself raises
            header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
            bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9))
            assert kind_of(bomb + chunk(b"IEND", b"")) == "too_large"


class TestDamage:
    @pytest.mark.parametrize("name", SAMPLES)
    def test_a_file_cut_at_any_length_is_an_error(self, name: str) -> None:
        data = SAMPLES[name]
        whole = decode_image(data, name).pixels
        accepted = []
        for length in range(len(data)):
            try:
                read = decode_image(data[:length], name).pixels
            except ImageError as error:
                assert error.kind in ("truncated", "not_an_image", "empty", "unreadable"), (length, error.kind)
            else:
                accepted.append(length)
                np.testing.assert_array_equal(read, whole)
        # A BMP row is padded to four bytes, and its run lengths end in codes for "end of row" and "end of image":
        # the pixels are all there without them.
        meaningless = {"bmp": 3, "bmp grey": 3, "bmp run lengths": 4}.get(name, 0)
        assert len(data) - min(accepted, default=len(data)) <= meaningless

    @pytest.mark.parametrize("name", ["png", "jpeg", "tiff", "tiff directory last", "pgm", "ppm", "bmp"])
    def test_half_a_file_is_called_truncated(self, name: str) -> None:
        assert kind_of(SAMPLES[name][: len(SAMPLES[name]) // 2]) == "truncated"

    @pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
    def test_bytes_after_the_end_change_nothing(self, image_format: str) -> None:
        data = encode(SMOOTH, image_format)
        appended = data + b"\0\xff\xd8" * 50_000
        np.testing.assert_array_equal(decode_image(appended, "x").pixels, decode_image(data, "x").pixels)

    def test_the_end_of_a_preview_is_not_the_end_of_a_jpeg(self) -> None:
        preview = b"Exif\0\0" + encode(SMOOTH[:8, :8], "JPEG")
        data = encode(SMOOTH, "JPEG", exif=preview)
        assert decode_image(data, "x").pixels.shape == SMOOTH.shape
        start = data.index(preview) + len(preview)
        assert all(kind_of(data[:length]) == "truncated" for length in range(start, len(data)))

    def test_any_changed_byte_of_the_pixels_of_a_png_is_noticed(self) -> None:
        data = SAMPLES["png"]
        start, end = data.index(b"IDAT"), data.index(b"IEND") - 4
        for place in range(start, end):
            damaged = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
            assert kind_of(damaged) in ("unreadable", "truncated"), place

    def test_a_header_that_is_no_longer_one_is_unreadable_and_not_another_thing(self) -> None:
        data = bytearray(tiff(GREY))
        data[data.index(struct.pack("<HHI", 256, 4, 1)) + 8] = 0  # a width of 0
        with pytest.raises(ImageError, match="begins like a TIFF image, but its header is damaged") as caught:
            decode_image(bytes(data), "x")
        assert caught.value.kind == "unreadable"

    @settings(max_examples=4000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        name=st.sampled_from(sorted(SAMPLES)),
        flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=8),
    )
    def test_flipped_bytes_give_an_image_or_an_image_error(self, name: str, flips: list[tuple[int, int]]) -> None:
        damaged = bytearray(SAMPLES[name])
        for place, flip in flips:
            damaged[place % len(damaged)] ^= flip
        try:
            pixels = decode_image(bytes(damaged), name, Limits(max_pixels=10**6)).pixels
        except ImageError as error:
            assert error.reason
            assert "\n" not in str(error)
        else:
            assert pixels.ndim == 3
            assert pixels.shape[2] in (1, 3)
            assert pixels.size > 0
            assert pixels.dtype in (np.uint8, np.uint16)

    @settings(max_examples=400, deadline=None)
    @given(
        start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"P5 ", b"P2 ", b"II*\0", b"MM\0+"]),
        rest=st.binary(max_size=300),
    )
    def test_random_bytes_are_an_image_error(self, start: bytes, rest: bytes) -> None:
        try:
            decode_image(start + rest, "x", Limits(max_pixels=10**6))
        except ImageError as error:
            assert error.kind in ("not_an_image", "truncated", "unreadable", "unsupported", "too_large")

    def test_nothing_is_written_to_standard_error_and_no_warning_leaks(self, tmp_path: Path) -> None:
        exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"
        (tmp_path / "exif.jpg").write_bytes(encode(SMOOTH, "JPEG", exif=exif))
        (tmp_path / "cut.tif").write_bytes(tiff(GREY)[:-20])
        bomb = b"P5 10000 10000 255\n"
        (tmp_path / "large.pgm").write_bytes(bomb)
        script = (
            "import sys\n"
            "from clearmargin.data.audit.scan import scan_images\n"
            "print(*(file.kind or 'fine' for file in scan_images(sys.argv[1:]).files))\n"
        )
        files = [str(tmp_path / name) for name in ("exif.jpg", "cut.tif", "large.pgm")]
        for options in ([], ["-W", "error"], ["-W", "always"]):
            answer = subprocess.run(
                [sys.executable, *options, "-c", script, *files],
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            )
            assert answer.stdout.split() == ["fine", "truncated", "too_large"]
            assert answer.stderr == ""


class TestNames:
    @given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and b"/" not in name))
    def test_any_name_is_written_as_text_and_found_again(self, name: bytes) -> None:
        on_disk = os.fsdecode(name)
        written = written_name(on_disk)
        written.encode("utf-8")
        assert name_on_disk(written) == on_disk or "\\ud" in on_disk

    @pytest.mark.parametrize(
        "name",
        [b'it\'s "quoted".png', b"two\nlines.png", "größe 图 🎗.png".encode(), b"gew\xe4chs.png", b"a\xff\xfe.png"],
    )
    def test_a_file_of_any_name_is_read_under_its_written_name(self, tmp_path: Path, name: bytes) -> None:
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(encode(RGB, "PNG"))
        for known_as in (path, str(path), written_name(str(path))):
            np.testing.assert_array_equal(read_image(known_as), RGB)

    def test_a_message_is_one_line_of_text_whatever_the_name(self, tmp_path: Path) -> None:
        file = tmp_path / os.fsdecode(b"two\nlines \x1b[31m \xff.png")
        file.write_bytes(b"")
        with pytest.raises(ImageError) as caught:
            read_image(file)
        message = str(caught.value)
        assert message.isprintable()
        assert message.endswith(r"two\nlines \x1b[31m \udcff.png: the file is empty (0 bytes)")


@pytest.mark.real
def test_real_images_of_every_kind_are_read(real_data: Path) -> None:
    files: list[tuple[Path, Callable[[tuple[int, ...]], bool], type[np.generic]]] = [
        (next((real_data / "idc").glob("*/0/*.png")), lambda shape: shape[2] == 3, np.uint8),
        (next((real_data / "breakhis").glob("*.png")), lambda shape: shape == (460, 700, 3), np.uint8),
        (next((real_data / "mias").glob("*.pgm")), lambda shape: shape == (1024, 1024, 1), np.uint8),
        (next((real_data / "mammo16").glob("*.png")), lambda shape: shape[2] == 1, np.uint16),
        (next((real_data / "busi" / "benign").glob("*.png")), lambda shape: shape[2] in (1, 3), np.uint8),
    ]
    for file, fits, dtype in files:
        pixels = read_image(file)
        assert fits(pixels.shape), file
        assert pixels.dtype == dtype, file
        assert pixels.min() < pixels.max(), file
