"""The numbers that say how an image looks: against arithmetic by hand, and alike in any batch and orientation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clearmargin.images.look import COLOURS, LOOK, VISIBLE, is_blank, is_grey, measure_look


def one(images: NDArray[np.uint8], name: str) -> float:
    return float(measure_look(images)[0, LOOK.index(name)])


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (70, 20, 30, 3), dtype=np.uint8)


def test_statistics_are_those_worked_by_hand() -> None:
    image = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    image[:, :, ::2] = (200, 100, 50)  # stripes of one pixel, black between them
    grey = (200 * 77 + 100 * 150 + 50 * 29) >> 8
    assert one(image, "brightness") == pytest.approx(grey / 2 / 255)
    assert one(image, "contrast") == pytest.approx(grey / 2 / 255)
    assert one(image, "near_black") == pytest.approx(np.log(0.5 + 0.01))
    assert one(image, "near_white") == pytest.approx(np.log(0.01))
    assert one(image, "red_green") == pytest.approx(50 / 255)
    assert one(image, "blue_green") == pytest.approx(-25 / 255)
    assert one(image, "colour") == pytest.approx(np.log(75 / (255 - 25 + 8) + 0.01))
    assert one(image, "flat") == pytest.approx(0.5)  # along the stripes, not across
    fine = grey / 2
    assert one(image, "colour_noise") == pytest.approx(np.log((2 * 50 / 2 + 0.5) / (fine + 0.5)))
    assert one(image, "fine") == pytest.approx(np.log((fine + 0.5) / 0.5))  # four pixels apart all is alike
    assert one(image, "sharp") == pytest.approx(np.log((2 * grey / 2 + 0.5) / (fine + 0.5)))
    assert one(image, "skew") == pytest.approx(0, abs=1e-6)


def test_an_image_is_measured_alike_in_any_batch(images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure_look(images)
    monkeypatch.setattr("clearmargin.images.look._CHUNK_PIXELS", 1)
    np.testing.assert_allclose(measure_look(images), whole, rtol=1e-6)
    np.testing.assert_allclose(measure_look(images[::-1])[::-1], whole, rtol=1e-6)


@pytest.mark.parametrize("turn", [lambda x: x[:, ::-1], lambda x: x[:, :, ::-1], lambda x: x.transpose(0, 2, 1, 3)])
def test_flips_and_turns_change_nothing(images: NDArray[np.uint8], turn: object) -> None:
    assert callable(turn)
    square = images[:, :, :20]
    np.testing.assert_allclose(measure_look(turn(square)), measure_look(square), rtol=1e-4, atol=1e-5)


def test_no_images_give_an_empty_table() -> None:
    assert measure_look(np.empty((0, 5, 5, 3), dtype=np.uint8)).shape == (0, len(LOOK))


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 2, 1, 1), (1, 3, 3, 1), (1, 4, 90, 3)])
def test_images_of_any_size_have_finite_statistics(shape: tuple[int, ...]) -> None:
    assert np.isfinite(measure_look(np.full(shape, 7, dtype=np.uint8))).all()


def test_grey_in_three_channels_is_measured_as_grey_in_one(images: NDArray[np.uint8]) -> None:
    grey = images[:, :, :, :1]
    three, single = measure_look(np.repeat(grey, 3, axis=3)), measure_look(grey)
    assert is_grey(three).all()
    assert is_grey(single).all()
    assert not is_grey(measure_look(images)).any()
    np.testing.assert_allclose(three, single, rtol=0.05, atol=0.01)


def test_a_blank_image_is_told_from_a_faint_one() -> None:
    faint = np.full((1, 10, 10, 1), 100, dtype=np.uint8)
    faint[:, ::2] += 3
    assert is_blank(measure_look(np.full((1, 10, 10, 3), 100, dtype=np.uint8))).all()
    assert not is_blank(measure_look(faint)).any()


def test_every_statistic_has_a_visible_difference() -> None:
    assert len(VISIBLE) == len(LOOK)
    assert set(COLOURS) < set(LOOK)
