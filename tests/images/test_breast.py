"""The breast is found whatever the size, the depth and the edge it comes in from; markers and tape are not it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clearmargin.images.breast import find_breast
from clearmargin.images.preprocess import Preprocessing
from clearmargin.images.read import read_image


def mammogram(
    *, height: int = 400, width: int = 320, side: str = "left", reach: float = 0.5, marker: bool = True
) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """A half ellipse of textured tissue at one edge, and the box that holds it (left, top, width, height)."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    a, b, middle = reach * width, 0.35 * height, height / 2
    inside = (x / a) ** 2 + ((y - middle) / b) ** 2 <= 1
    tissue = 90 + 80 * (1 - (x / a) ** 2 - ((y - middle) / b) ** 2) + generator.normal(0, 6, (height, width))
    image = np.where(inside, tissue, 5 + generator.normal(0, 1.5, (height, width))).clip(0, 255)
    if marker:
        image[10:30, width - 60 : width - 20] = 255
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = (int(columns[0]), int(rows[0]), len(columns), len(rows))
    if side == "right":
        image, box = image[:, ::-1], (width - box[0] - box[2], *box[1:])
    return image.astype(np.uint8)[:, :, np.newaxis], box


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    along = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0, across) * max(0, along)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("height", "width"), [(400, 320), (1500, 1200), (90, 60), (300, 600)])
@pytest.mark.parametrize("depth", [8, 16])
def test_the_box_holds_the_breast_and_not_the_marker(side: str, height: int, width: int, depth: int) -> None:
    pixels, truth = mammogram(height=height, width=width, side=side, marker=width > 100)
    found = find_breast(pixels if depth == 8 else pixels.astype(np.uint16) * 257)
    assert found is not None
    box, edge = found
    assert edge == side
    assert overlap(box, truth) > 0.85
    assert box[0] >= 0 and box[1] >= 0 and box[0] + box[2] <= width and box[1] + box[3] <= height


@pytest.mark.parametrize("value", [0, 7, 255])
def test_nothing_is_found_where_there_is_nothing(value: int) -> None:
    assert find_breast(np.full((200, 150, 1), value, np.uint8)) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 500, 3), (3, 2, 1), (500, 1, 1)])
def test_any_shape_is_answered(shape: tuple[int, int, int]) -> None:
    find_breast(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


class TestSpec:
    def test_the_region_is_what_is_kept_and_nothing_is_stretched(self) -> None:
        pixels, truth = mammogram()
        whole = Preprocessing(width=100, height=100, channels=1, padding="black")
        breast = whole.model_copy(update={"region": "breast"})
        kept = breast.apply(pixels)[:, :, 0] > 40
        rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
        assert len(columns) / len(rows) == pytest.approx(truth[2] / truth[3], rel=0.06)
        assert kept.sum() > 1.5 * (whole.apply(pixels)[:, :, 0] > 40).sum()

    def test_orientation_left_mirrors_what_comes_from_the_right_only(self) -> None:
        spec = Preprocessing(width=64, height=64, channels=1, padding="black", region="breast", orientation="left")
        left, right = (spec.apply(mammogram(side=side, marker=False)[0]) for side in ("left", "right"))
        assert np.abs(left.astype(int) - right.astype(int)).mean() < 3
        as_is = spec.model_copy(update={"orientation": "as_is"})
        np.testing.assert_array_equal(spec.apply(mammogram()[0]), as_is.apply(mammogram()[0]))

    def test_an_image_without_a_breast_is_taken_whole(self) -> None:
        blank = np.full((64, 64, 1), 9, np.uint8)
        spec = Preprocessing(width=64, height=64, channels=1, region="breast")
        np.testing.assert_array_equal(spec.apply(blank), blank)


@pytest.mark.real
def test_real_mammograms_come_in_from_the_side_of_their_number(real_data: Path) -> None:
    """mini-MIAS: odd numbers are right breasts, whose images show the chest at the right edge; even are left."""
    files = sorted((real_data / "mias").glob("mdb*.pgm"))
    assert len(files) == 14
    for file in files:
        found = find_breast(read_image(file))
        assert found is not None
        (_, _, width, height), edge = found
        assert edge == ("left" if int(file.stem[3:]) % 2 == 0 else "right"), file.name
        assert 0.3 < width / 1024 < 0.75, file.name
        assert height > 700, file.name


@pytest.mark.real
def test_a_real_16_bit_mammogram_keeps_its_breast_only(real_data: Path) -> None:
    found = find_breast(read_image(real_data / "mammo16" / "1_L_CC.png"))
    assert found is not None
    (left, top, width, height), edge = found
    assert edge == "left" and left == 0
    assert 1100 < width < 1500 and 2400 < height < 3000 and top > 50
