"""Colour means the map and nothing else, on one scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.explanation.conftest import FULL

from clearmargin.explanation.draw import draw_overlay, paint, show_image
from clearmargin.explanation.explainer import Explained, Explainer, Explanation
from clearmargin.explanation.place import lay_over
from clearmargin.images.preprocess import Placement, Preprocessing
from clearmargin.types import Record


@pytest.fixture(scope="module")
def explained(explainer: Explainer, records: list[Record]) -> list[Explained]:
    return list(explainer.explain_records(records, methods=["grad_cam", "occlusion"]))


def blank(explanation: Explanation, value: float = 0.0) -> Explanation:
    return replace(explanation, map=np.full_like(explanation.map, value))


def test_zero_has_no_colour_and_more_is_never_less() -> None:
    values = np.linspace(-1, 1, 201, dtype=np.float32)
    colour, cover = paint(values)
    assert cover[100] == 0
    assert (np.diff(cover[100:]) >= 0).all()
    np.testing.assert_allclose(cover, cover[::-1], atol=1e-6)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luma[101:]) < 0).all()
    assert (np.diff(luma[:100]) > 0).all()
    warm, cool = colour[101:], colour[:100]
    assert (warm[:, 0] > warm[:, 2]).all()
    assert (cool[:, 2] > cool[:, 0]).all()


def test_warm_and_cool_stay_apart_without_red_and_green() -> None:
    colour, _ = paint(np.array([-1, -0.5, 0.5, 1], np.float32))
    linear = (colour / 255) ** 2.2
    # Viénot, Brettel & Mollon 1999: what a deuteranope sees, in linear RGB.
    seen = linear @ np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]).T
    cool, warm = seen[:2], seen[2:]
    assert (cool[:, 2] > 1.5 * cool[:, 0]).all()
    assert (warm[:, 0] > 1.5 * warm[:, 2]).all()


def test_an_image_without_evidence_has_no_colour(explained: list[Explained]) -> None:
    image = explained[0]
    assert image.pixels is not None
    for each in image.explanations:
        pixels = np.asarray(draw_overlay(image.pixels, blank(each)))
        assert (pixels == pixels[:, :, :1]).all()
        pixels = np.asarray(draw_overlay(image.pixels, blank(each, FULL), alpha=1.0))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 1


def test_the_same_value_has_the_same_colour_whatever_else_the_map_holds(explained: list[Explained]) -> None:
    image, each = explained[0], explained[0].explanations[1]
    assert image.pixels is not None
    plain = np.asarray(draw_overlay(image.pixels, blank(each, FULL / 3), alpha=1.0))
    values = np.full_like(each.map, FULL / 3)
    values[-1, -1] = 100 * FULL
    other = np.asarray(draw_overlay(image.pixels, replace(each, map=values), alpha=1.0))
    assert np.array_equal(plain[:200, :200], other[:200, :200])


def test_small_images_are_enlarged_crisply_and_large_ones_reduced(explained: list[Explained]) -> None:
    patch, large = explained[0].pixels, explained[2].pixels
    assert patch is not None and large is not None
    shown = np.asarray(show_image(patch))
    assert shown.shape == (320, 384, 3)
    assert np.array_equal(shown[::16, ::16], patch)
    assert show_image(large).size == (1024, 597)
    assert draw_overlay(large, explained[2].explanations[0]).size == (1024, 597)


def test_the_map_lies_where_the_network_looked() -> None:
    spec = Preprocessing(width=8, height=8, fit="pad")
    place = spec.place(np.zeros((4, 16, 3), np.uint8))
    values = np.zeros((8, 8), np.float32)
    values[:2, 4:] = 1  # the right half of what is seen
    values[2:] = 9  # padding
    laid = lay_over(values, place)
    assert laid.shape == (4, 16)
    assert laid.max() == 1
    assert (laid[:, :7] == 0).all()
    assert (laid[:, 10:] == 1).all()


def test_a_mirrored_breast_is_turned_back() -> None:
    spec = Preprocessing(width=32, height=32, region="breast", orientation="left")
    pixels = np.zeros((64, 64, 1), np.uint8)
    pixels[10:50, 40:] = 200
    place = spec.place(pixels)
    assert place.mirrored
    left, top, width, height = place.box
    seen = spec.apply(pixels)[:, :, 0].astype(np.float32)
    laid = lay_over(seen, place)
    assert abs(laid - pixels[:, :, 0])[top : top + height, left : left + width].mean() < 20
    assert laid[:, : left - 1].max() == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (5000, 7)])
def test_any_shape_of_image_is_shown(size: tuple[int, int]) -> None:
    width, height = size
    pixels = np.zeros((height, width, 1), np.uint8)
    place = Preprocessing(width=16, height=16).place(pixels)
    shown = show_image(pixels).size
    assert max(shown) <= 1024
    assert lay_over(np.ones((16, 16), np.float32), place, shown).shape == (shown[1], shown[0])
    assert isinstance(place, Placement)
