"""Fields: mosaics of thumbnails, against mosaics put together by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clearmargin.context import Cells, neighbours
from clearmargin.images.fields import Fields, make_thumbnails

WHITE = 240


def pictures(n: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_thumbnail_is_the_mean_of_what_each_pixel_covers(channels: int) -> None:
    images = pictures(5, 24, 24, channels)
    expected = images.reshape(5, 6, 4, 6, 4, channels).mean(axis=(2, 4))
    found = make_thumbnails(images, 6)
    assert (found.shape, found.dtype) == ((5, 6, 6, channels), np.uint8)
    assert np.abs(found - expected).max() <= 1  # rounded along either side


def test_where_sizes_do_not_divide_each_pixel_counts_where_its_middle_lies() -> None:
    images = pictures(3, 16, 26).astype(np.float64)
    cell = [((np.arange(length) + 0.5) * 10 / length).astype(int) for length in (16, 26)]
    expected = np.array(
        [[images[:, cell[0] == y][:, :, cell[1] == x].mean(axis=(1, 2)) for x in range(10)] for y in range(10)]
    ).transpose(2, 0, 1, 3)
    assert np.abs(make_thumbnails(images.astype(np.uint8), 10) - expected).max() <= 1


def test_an_image_of_the_size_is_its_own_thumbnail() -> None:
    images = pictures(4, 10, 10)
    np.testing.assert_array_equal(make_thumbnails(images, 10), images)


def test_a_thumbnail_is_the_same_alone_as_among_others() -> None:
    images = pictures(6, 50, 50)
    together = make_thumbnails(images, 10)
    for number in range(6):
        np.testing.assert_array_equal(make_thumbnails(images[number][None], 10)[0], together[number])
    backwards = make_thumbnails(images[::-1], 10)  # not contiguous
    np.testing.assert_array_equal(backwards[::-1], together)


def test_a_field_is_the_mosaic_that_a_hand_puts_together() -> None:
    # 0 1 .      a, b, c, d and nothing else; slide 1 has one patch at the same place as b
    # . 2 3
    cells = Cells(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 1, 1, 0]), np.array([0, 1, 1, 2, 1]))
    a, b, c, d, other = thumbnails = pictures(5, 2, 2)
    n = np.full((2, 2, 3), WHITE, dtype=np.uint8)
    by_hand = {
        0: [[n, n, n], [n, a, b], [n, n, c]],
        1: [[n, n, n], [a, b, n], [n, c, d]],
        2: [[a, b, n], [n, c, d], [n, n, n]],
        3: [[b, n, n], [c, d, n], [n, n, n]],
        4: [[n, n, n], [n, other, n], [n, n, n]],
    }
    fields = Fields(thumbnails, neighbours(cells, 3))
    assert (len(fields), fields.shape) == (5, (5, 6, 6, 3))
    for row, parts in by_hand.items():
        expected = np.concatenate([np.concatenate(line, axis=1) for line in parts], axis=0)
        np.testing.assert_array_equal(fields[np.array([row])][0], expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("field", [3, 5, 9])
def test_the_fields_of_a_whole_slide_are_cut_out_of_its_picture(field: int, channels: int) -> None:
    rows, columns = (values.ravel() for values in np.mgrid[:7, :8])
    thumbnails = pictures(56, 4, 4, channels)
    slide = thumbnails.reshape(7, 8, 4, 4, channels).transpose(0, 2, 1, 3, 4).reshape(28, 32, channels)
    edge = 4 * (field // 2)
    framed = np.pad(slide, ((edge, edge), (edge, edge), (0, 0)), constant_values=WHITE)
    order = np.random.default_rng(1).permutation(56)
    cells = Cells(np.zeros(56, dtype=np.int64), rows[order], columns[order])
    found = Fields(thumbnails[order], neighbours(cells, field))[np.arange(56)]
    assert (found.dtype, found.flags.c_contiguous) == (np.uint8, True)
    for row, column, picture in zip(cells.rows, cells.columns, found, strict=True):
        expected = framed[4 * row : 4 * row + 4 * field, 4 * column : 4 * column + 4 * field]
        np.testing.assert_array_equal(picture, expected)


def test_rows_are_asked_for_as_of_an_array() -> None:
    cells = Cells(np.zeros(6, dtype=np.int64), np.arange(6) // 3, np.arange(6) % 3)
    fields = Fields(pictures(6, 3, 3), neighbours(cells, 3))
    every = fields[0:6]
    np.testing.assert_array_equal(fields[np.array([4, 0, 4])], every[[4, 0, 4]])
    np.testing.assert_array_equal(fields[2:5], every[2:5])
    assert fields[np.array([], dtype=np.intp)].shape == (0, 9, 9, 3)
    assert fields[6:9].shape == (0, 9, 9, 3)
