"""Pictures hold image, map and legend, and are legible whatever the name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from clearmargin.explanation import picture as module
from clearmargin.explanation.draw import show_image
from clearmargin.explanation.explainer import Explained, Explainer, Explanation
from clearmargin.explanation.lettering import Font
from clearmargin.explanation.picture import draw_picture
from clearmargin.images.limits import Pixels
from clearmargin.types import Decision, Record


@pytest.fixture(scope="module")
def explained(explainer: Explainer, records: list[Record]) -> list[Explained]:
    return list(explainer.explain_records(records, methods=["grad_cam", "occlusion"]))


@pytest.fixture(scope="module")
def pixels(explained: list[Explained]) -> Pixels:
    assert explained[0].pixels is not None
    return explained[0].pixels


@pytest.fixture(scope="module")
def one(explained: list[Explained]) -> Explanation:
    return explained[0].explanations[0]


def legend_of(pixels: Pixels, explanations: Sequence[Explanation], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the legend says."""
    said: list[str] = []

    def heard(text: str, width: float, font: Font) -> list[str]:
        said.append(text)
        return wrap(text, width, font)

    wrap = module.wrap
    with monkeypatch.context() as patch:
        patch.setattr(module, "wrap", heard)
        draw_picture(pixels, explanations)
    return "\n".join(said)


def test_the_picture_holds_image_map_and_legend(explained: list[Explained], pixels: Pixels) -> None:
    picture = draw_picture(pixels, explained[0].explanations)
    assert picture.width >= 3 * 384
    assert picture.height > 320 + 100
    drawn = np.asarray(picture)
    assert np.array_equal(drawn[16:336, 16:400], np.asarray(show_image(pixels)))
    assert (drawn[360:] < 128).any()
    assert (drawn[-8:] == 255).all()


@pytest.mark.parametrize("letter", ["a name ", "日本語", "ä"])
def test_a_long_name_is_cut_and_nothing_runs_over_the_edge(pixels: Pixels, one: Explanation, letter: str) -> None:
    long = replace(one, record=Record("folder/" + letter * 500 + "\n.png"))
    picture = draw_picture(pixels, [long])
    assert picture.width == 2 * 384 + 12 + 32
    assert (np.asarray(picture)[340:, -10:] == 255).all()


def test_a_narrow_image_has_its_whole_legend(explained: list[Explained]) -> None:
    narrow = np.zeros((400, 4, 1), np.uint8)
    picture = np.asarray(draw_picture(narrow, [replace(explained[0].explanations[1], record=Record("x.png"))]))
    assert picture.shape[1] == 640 + 32
    assert (picture[420:, -10:] == 255).all()


def test_it_says_that_it_was_not_gated_and_why_a_decision_is_withheld(
    pixels: Pixels, one: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = "Not gated: it was not checked whether this image is like those of training."
    assert stamp not in legend_of(pixels, [one], monkeypatch)
    assert stamp in legend_of(pixels, [replace(one, reason="not gated")], monkeypatch)
    both = legend_of(pixels, [replace(one, reason="too uncertain; not gated")], monkeypatch)
    assert f"Too uncertain.\n{stamp}" in both


def test_a_map_of_zeros_is_said_to_be_one(
    explained: list[Explained], pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each, said in zip(
        explained[0].explanations, ("No place spoke for malignant", "No place moved it"), strict=True
    ):
        assert each.map.any()
        assert said not in legend_of(pixels, [each], monkeypatch)
        zero = replace(each, map=np.zeros_like(each.map))
        assert f"{said}: the map is zero everywhere." in legend_of(pixels, [zero], monkeypatch)


@pytest.mark.parametrize(
    ("decision", "between", "said"),
    [
        ("malignant", None, "Malignant: probability of malignant 0.500, malignant from 0.460."),
        ("abstain", (0.3911, 0.6089), "Cannot tell: probability of malignant 0.500, undecided from 0.391 to 0.609."),
        (
            "benign",
            (0.7, 0.8),
            "Benign: probability of malignant 0.500, malignant from 0.460 (undecided from 0.700 to 0.800).",
        ),
    ],
)
def test_it_says_by_which_number_it_was_decided(
    *,
    decision: Decision,
    between: tuple[float, float] | None,
    said: str,
    pixels: Pixels,
    one: Explanation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    each = replace(one, decision=decision, probability=0.5, between=between)
    assert said in legend_of(pixels, [each], monkeypatch).splitlines()


def test_a_network_that_hardly_moves_is_said_to(
    explained: list[Explained], pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in explained[0].explanations:
        moves = replace(each, full_reach=4.7)
        assert "hardly moves" not in legend_of(pixels, [moves], monkeypatch)
        scale = each.scale.model_copy(update={"saturation": 0.00198})
        faint = replace(each, scale=scale, full_reach=0.097)
        said = "Full colour is 0.00198 logits, and all over the image 0.097: this network hardly moves."
        assert said in legend_of(pixels, [faint], monkeypatch)


def test_it_says_that_neighbours_are_left_out(
    pixels: Pixels, one: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "This is about the patch by itself, without its neighbours in the slide."
    assert said not in legend_of(pixels, [one], monkeypatch)
    assert said in legend_of(pixels, [replace(one, alone=True)], monkeypatch).splitlines()
