"""The size of an image from its first bytes: the same as that of its pixels, whatever the kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.layouts import zip_folder
from tests.images.dicom_files import dicom_bytes, phantom

from clearmargin.errors import ImageError
from clearmargin.images.read import read_bytes, read_image
from clearmargin.images.size import HEAD_BYTES, read_size


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM", "TIFF"])
@pytest.mark.parametrize("px", [(30, 20), (400, 300)])
def test_it_is_that_of_the_decoded_pixels(kind: str, px: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (px[1], px[0], 3)).astype(np.uint8)
    file = tmp_path / "image"
    Image.fromarray(pixels).save(file, kind)
    assert read_size(file) == px == read_image(file).shape[1::-1]


def test_a_jpeg_with_a_long_preamble_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(file, "JPEG", comment=b"x" * 60_000, icc_profile=b"y" * 90_000)
    assert file.stat().st_size > HEAD_BYTES
    assert read_size(file) == (30, 20)


def test_dicom_in_a_folder_and_in_a_zip_file(tmp_path: Path) -> None:
    file = tmp_path / "set" / "a"
    file.parent.mkdir()
    file.write_bytes(dicom_bytes(phantom(rows=300, columns=200)))
    archive = zip_folder(file.parent, tmp_path / "set.zip")
    assert read_size(file) == read_size(archive / "a") == (200, 300)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0" + bytes(100), b"\x89PNG\r\n\x1a\n"])
def test_what_has_no_size_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.jpg"):
        read_size(tmp_path / "a.jpg")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("at_most", "expected"), [(4, b"0123"), (10, b"0123456789"), (99, b"0123456789")])
def test_the_first_bytes_of_a_file_are_those(packed: bool, at_most: int, expected: bytes, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"0123456789")
    root = zip_folder(tmp_path / "set", tmp_path / "set.zip") if packed else tmp_path / "set"
    assert read_bytes(root / "a", at_most=at_most) == expected


def test_the_start_of_a_file_above_the_limit_can_be_read(tmp_path: Path) -> None:
    from clearmargin.images.limits import Limits

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((200, 300), np.uint8)).save(buffer, "BMP")
    (tmp_path / "a.bmp").write_bytes(buffer.getvalue() + bytes(HEAD_BYTES))
    limits = Limits(max_bytes=1000)
    assert len(read_bytes(tmp_path / "a.bmp", limits, at_most=10)) == 10
    with pytest.raises(ImageError, match="more than the limit"):
        read_bytes(tmp_path / "a.bmp", limits)
