"""The model card says what model.json says."""

from __future__ import annotations

import pytest
from tests.bundle.small_bundle import model_file

from clearmargin.bundle.card import model_card
from clearmargin.types import INTENDED_USE, OPTIMISTIC_STAMP


def test_every_figure_is_that_of_the_test_part() -> None:
    card = model_card(model_file())
    for name, value in [
        ("AUROC", 0.501),
        ("AUPRC", 0.502),
        ("balanced accuracy", 0.503),
        ("sensitivity", 0.505),
        ("specificity", 0.506),
        ("NPV", 0.508),
        ("Brier score", 0.510),
    ]:
        assert f"| {name} | {value:.3f} | {value - 0.1:.3f} to {value + 0.1:.3f} |" in card
    assert "1,234 images of 17 patients" in card


def test_an_undefined_figure_and_a_missing_interval_say_why() -> None:
    card = model_card(model_file())
    assert "| PPV | not defined: no image was called malignant | |" in card
    assert "| ECE | 0.511 | none: fewer than 2 patients |" in card


@pytest.mark.parametrize(
    "text",
    [
        INTENDED_USE,
        "`cbis_ddsm`, 85,057 parameters",
        "seed 7",
        "16×16 pixels, RGB, 8 bit",
        "`pad` (padding mirror, interpolation area)",
        "sigmoid(logit / 1.2345)",
        "at or above 0.4321",
        "`balanced`, largest balanced accuracy",
        "Split by **patient**",
        "d" * 64,
        "e" * 64,
        "numpy 2.4, torch 2.13",
        "precision 32-true",
    ],
)
def test_the_card_tells_what_the_bundle_holds(text: str) -> None:
    assert text in model_card(model_file())


def test_an_image_level_split_is_stamped_and_another_is_not() -> None:
    assert OPTIMISTIC_STAMP in model_card(model_file(stamp=OPTIMISTIC_STAMP))
    assert "optimistic" not in model_card(model_file())


def test_without_patients_the_card_does_not_invent_a_number() -> None:
    model = model_file()
    metrics = model.lineage.metrics | {"n_patients": None}
    unknown = model.model_copy(update={"lineage": model.lineage.model_copy(update={"metrics": metrics})})
    assert "1,234 images of an unknown number of patients" in model_card(unknown)
