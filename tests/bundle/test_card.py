"""The model card says what model.json says."""

from __future__ import annotations

import pytest
from tests.bundle.small_bundle import every_choice, model_file

from clearmargin.bundle.card import model_card
from clearmargin.bundle.schema import Context, ModelFile, Recalibration
from clearmargin.context import Grid
from clearmargin.decision import Abstention, Beta, Isotonic, Level, Platt, Pooling
from clearmargin.types import INTENDED_USE, OPTIMISTIC_STAMP, OperatingPoint


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


@pytest.mark.parametrize(
    "text",
    [
        "sigmoid(0.8000 × logit − 0.2500), by Platt scaling",
        "benign, malignant or *cannot tell* (probabilities from 0.4123 to 0.5231)",
        "promised coverage 0.9: for a new patient like the 40",
        "A slide: a weighting of the mean and of the highest tenth",
        "malignant at or above 0.3700, and never *cannot tell* (best)",
        "A patient: the mean of its 3 highest probabilities; malignant at or above 0.6100",
    ],
)
def test_the_card_tells_what_was_chosen_on_validation(text: str) -> None:
    assert text in model_card(model_file(**every_choice()))


def test_the_card_says_why_a_choice_is_missing() -> None:
    reasons = {"no_abstention": "there are 5 patients", "no_levels": {"slide": "slides are unknown"}}
    card = model_card(model_file(**reasons))
    assert "It never answers *cannot tell*: there are 5 patients" in card
    assert "A slide is not decided: slides are unknown" in card
    assert "It decides images, not slides or patients" in model_card(model_file())


def test_an_image_level_split_is_stamped_and_another_is_not() -> None:
    assert OPTIMISTIC_STAMP in model_card(model_file(stamp=OPTIMISTIC_STAMP))
    assert "optimistic" not in model_card(model_file())


def test_without_patients_the_card_does_not_invent_a_number() -> None:
    model = model_file()
    metrics = model.lineage.metrics | {"n_patients": None}
    unknown = model.model_copy(update={"lineage": model.lineage.model_copy(update={"metrics": metrics})})
    assert "1,234 images of an unknown number of patients" in model_card(unknown)


LEVEL = Level(pooling=Pooling(method="top_k", k=3), threshold=0.25, reason="chosen on 40 patients")
REGION = Abstention(coverage=0.9, low=0.25, high=0.625, n_units=40, unit="patient")


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        (Platt(slope=1.5, intercept=-0.25), "sigmoid(1.5000 × logit − 0.2500), by Platt scaling"),
        (Beta(a=1.5, b=0.5, c=0.25), "sigmoid(1.5000 × ln p − 0.5000 × ln(1 − p) + 0.2500) with p = sigmoid(logit)"),
        (Isotonic(logits=(0.0, 1.0), probabilities=(0.2, 0.7)), "linear between 2 knots, by isotonic regression"),
    ],
)
def test_every_calibration_is_written_as_the_formula_it_is(calibration: Platt | Beta | Isotonic, text: str) -> None:
    card = model_card(changed(temperature=1.0, calibration=calibration))
    assert text in card
    assert "1.2345" not in card


def test_the_promise_of_abstention_is_told_with_its_region() -> None:
    card = model_card(changed(conformal=REGION))
    assert "Answers benign, malignant or *cannot tell* (probabilities from 0.2500 to 0.6250)" in card
    assert "promised coverage 0.9: for a new patient like the 40 that it was fitted on" in card
    assert "*Cannot tell* is no guard against images of another kind" in card


def test_without_abstention_the_card_says_why() -> None:
    card = model_card(changed(no_abstention="a coverage of 0.9 needs at least 9 validation patients, and there are 4"))
    assert "It never answers *cannot tell*: a coverage of 0.9 needs at least 9 validation patients" in card
    assert 'does not say "I cannot tell"' in card


def test_a_promise_that_holds_without_withholding_is_told_so() -> None:
    card = model_card(changed(conformal=REGION.model_copy(update={"low": None, "high": None})))
    assert "Answers benign or malignant, since the promise holds without *cannot tell*" in card


def test_levels_are_told_with_pooling_and_threshold_or_why_not() -> None:
    card = model_card(changed(levels={"slide": LEVEL}, no_levels={"patient": "patients are unknown"}))
    pooled = "the mean of its 3 highest probabilities; malignant at or above 0.2500, and never *cannot tell*"
    assert f"- A slide: {pooled} (chosen on 40 patients)" in card
    assert "- A patient is not decided: patients are unknown" in card
    assert "It decides images, not slides or patients" in model_card(model_file())


def test_an_ensemble_of_a_cross_validation_says_so() -> None:
    model = model_file()
    lineage = model.lineage.model_copy(update={"folds": 5})
    card = model_card(changed(architecture=model.architecture.model_copy(update={"ensemble": 5}), lineage=lineage))
    assert "the mean logit of 5 networks `cbis_ddsm`, 85,057 parameters in all" in card
    assert "into 5 folds. The mean of the networks, which this bundle is, has been tested on nobody" in card
    assert "Figures of each network on its own test fold" in card


def test_slope_and_intercept_are_told_where_the_bundle_has_them() -> None:
    model = model_file()
    metrics = model.lineage.metrics | {"calibration_slope": {"value": 0.9, "ci": [0.7, 1.1]}}
    metrics |= {"calibration_intercept": {"value": None, "ci": None, "reason": "one class"}}
    card = model_card(changed(lineage=model.lineage.model_copy(update={"metrics": metrics})))
    assert "| calibration slope | 0.900 | 0.700 to 1.100 |" in card
    assert "| calibration intercept | not defined: one class | |" in card


CONTEXT = Context(
    grid=Grid(step=50, scale=1.5, networks=2),
    temperature=0.8765,
    operating_points={"balanced": OperatingPoint("balanced", "largest balanced accuracy", 0.2468)},
    operating_point="balanced",
    conformal=REGION,
)


def test_both_ways_of_deciding_are_told_each_with_its_threshold_and_calibration() -> None:
    card = model_card(changed(context=CONTEXT))
    among, alone = card.split("## How it decides an image by itself")
    assert "the mean of the logits of a patch and of its field" in among
    assert "a Gaussian of 1.5 steps of 50 pixels" in among
    assert "at or above 0.2468" in among
    assert "sigmoid(logit / 0.8765)" in among
    assert "at or above 0.4321" in alone
    assert "sigmoid(logit / 1.2345)" in alone
    assert "*cannot tell* (probabilities from 0.2500 to 0.6250)" in among
    assert "It never answers *cannot tell*" in alone
    assert "Figures of the test part, in the context of its slides;" in alone
    assert "an image by itself has others" in alone


def test_the_second_network_is_told_where_context_weighs_it() -> None:
    made = model_file().architecture.model_copy(update={"field": 5, "thumbnail": 10})
    assert "one more sees the field of 5×5 patches" in model_card(changed(architecture=made, context=CONTEXT))
    patch_only = CONTEXT.model_copy(update={"grid": Grid(step=50, scale=1.5)})
    assert "field" not in model_card(changed(architecture=made, context=patch_only))


def test_why_neighbours_do_not_count_is_told_of_slides_only() -> None:
    told = "Neighbours in the slide do not count: patients left out gain nothing by it"
    reason = "patients left out gain nothing by it"
    assert told in model_card(changed(no_context=reason, content="histology"))
    assert told not in model_card(changed(no_context=reason, content="mammogram"))
    assert "Neighbours" not in model_card(model_file())


def test_cross_fitted_networks_are_told_until_decisions_are_chosen_anew() -> None:
    lineage = model_file().lineage.model_copy(update={"crossfit": 4})
    told = "What decides was chosen on train and validation out of fold"
    card = model_card(changed(lineage=lineage))
    assert "Cross-fitted: each network was trained without another part of train and validation" in card
    assert told in card
    anew = Recalibration(created="2026-01-02", data_sha256="f" * 64, images=80, patients=8)
    again = model_card(changed(lineage=lineage.model_copy(update={"recalibrated": anew}), context=CONTEXT))
    assert told not in again
    assert "in the context of its slides" not in again


def changed(**values: object) -> ModelFile:
    return model_file().model_copy(update=values)
