"""The short way of plain PNG files is the long way: the same pixels, or none."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from clearmargin.errors import ImageError
from clearmargin.images import raster
from clearmargin.images.limits import Limits
from clearmargin.images.plain_png import decode_plain_png
from clearmargin.images.raster import decode_raster


def noise(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def part(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_pixels(data: bytes, *packed: bytes) -> bytes:
    """The file with these IDAT parts."""
    return data[:33] + b"".join(part(b"IDAT", each) for each in packed) + part(b"IEND", b"")


@pytest.mark.parametrize("shape", [(50, 50, 3), (1, 1, 3), (7, 301), (64, 3)])
def test_pixels_are_those_that_were_written(shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    found = decode_plain_png(png(Image.fromarray(pixels)))
    assert found is not None
    np.testing.assert_array_equal(found, pixels.reshape(*shape[:2], -1))


def test_in_several_parts_and_with_a_time() -> None:
    pixels = noise(20, 30, 3)
    data = png(Image.fromarray(pixels))
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    several = with_pixels(data, packed[:100], b"", packed[100:])
    timed = several[:33] + part(b"tIME", bytes(7)) + several[33:]
    for each in (several, timed):
        found = decode_plain_png(each)
        assert found is not None
        np.testing.assert_array_equal(found, pixels)


def test_whatever_may_change_the_look_goes_the_long_way() -> None:
    picture = Image.fromarray(noise(20, 30, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b")
    others = [
        png(picture.convert("RGBA")), png(picture.convert("P")), png(picture.convert("1")),
        png(Image.fromarray(noise(9, 9).astype(np.uint16))),
        png(picture, exif=exif), png(picture, transparency=(1, 2, 3)), png(picture, pnginfo=text),
        png(Image.fromarray(noise(513, 512))),
    ]  # fmt: skip
    assert [decode_plain_png(data) for data in others] == [None] * len(others)
    assert decode_plain_png(b"") is decode_plain_png(b"\xff\xd8\xff") is None


def test_limits_hold() -> None:
    with pytest.raises(ImageError, match="more than the limit of 99"):
        decode_raster(png(Image.fromarray(noise(10, 10))), "a.png", Limits(max_pixels=99))


def test_damaged_pixels_are_judged_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    whole = png(Image.fromarray(noise(12, 10, 3)))
    length = int.from_bytes(whole[33:37], "big")
    packed = whole[41 : 41 + length]
    files = [with_pixels(whole, packed[:end]) for end in (0, 1, 2, length // 2, length - 5, length - 1)]
    files.append(with_pixels(whole, packed + b"more"))
    for _ in range(300):
        changed = bytearray(packed)
        changed[generator.integers(length)] ^= 1 << int(generator.integers(8))
        files.append(with_pixels(whole, bytes(changed)))

    def judge(data: bytes) -> tuple[str, bytes]:
        try:
            return "", decode_raster(data, "a.png")[0].tobytes()
        except ImageError as error:
            return error.kind, error.reason.encode()

    short = [judge(data) for data in files]
    monkeypatch.setattr(raster, "decode_plain_png", lambda _: None)
    assert short == [judge(data) for data in files]
    assert len({kind for kind, _ in short}) >= 2
