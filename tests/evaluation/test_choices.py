"""What is chosen on validation: each choice by its own module, in the one order that fits together."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from clearmargin.decision import Abstention, Level, Temperature, decide, probability
from clearmargin.errors import DataError
from clearmargin.evaluation.calibration import choose_calibration
from clearmargin.evaluation.choices import ALWAYS_DECIDES, Choices, choose, known_ids, level_ids, point_arguments
from clearmargin.evaluation.conformal import fit_abstention
from clearmargin.evaluation.operating_point import RULES, choose_operating_point
from clearmargin.evaluation.pooling import choose_level
from clearmargin.settings import EvaluateSettings

Draw = Callable[..., Any]
Build = Callable[..., pd.DataFrame]


@pytest.fixture
def validation(clustered: Draw, frame_of: Build) -> pd.DataFrame:
    """Forty patients, each with one label, a slide for every ten images, and overconfident logits."""
    data = clustered(1, n_patients=40)
    frame = frame_of(data, split="validation")
    labels = np.repeat(np.arange(40) % 2, 20)
    logits = 3 * (np.where(labels == 1, 0.8, -0.8) + data.logits - 2 * data.labels + 1)
    slides = [f"S{number % 20 // 10}" for number in range(800)]
    return frame.assign(label=labels, logit=logits, probability=probability(logits), slide_id=slides)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"calibration": "temperature", "operating_point": "sensitivity", "target_sensitivity": 0.9, "pooling": "mean"},
        {"calibration": "beta", "operating_point": "cost", "cost_ratio": 4.0, "pooling": "noisy_or", "coverage": 0.8},
    ],
    ids=str,
)
def test_each_choice_is_that_of_its_module_on_what_the_ones_before_it_chose(
    validation: pd.DataFrame, changes: dict[str, Any]
) -> None:
    settings = EvaluateSettings(**changes)
    choices = choose(validation, settings, seed=3)
    labels, logits, patients = (validation[name].to_numpy() for name in ("label", "logit", "patient_id"))
    how = choose_calibration(labels, logits, patients, method=settings.calibration, seed=3)
    probabilities = probability(logits, how.calibration)
    point = choose_operating_point(labels, probabilities, **point_arguments(settings))
    assert (choices.calibration, choices.how, choices.point) == (how.calibration, how, point)
    assert choices.not_attained is None
    assert choices.abstention == fit_abstention(
        labels, logits, patients, coverage=settings.coverage, calibration=how.calibration, threshold=point.threshold
    )
    slides = np.array([f"{patient} {slide}" for patient, slide in zip(patients, validation["slide_id"], strict=True)])
    for level, ids in (("slide", slides), ("patient", patients)):
        assert choices.levels[level] == choose_level(  # type: ignore[index]
            labels,
            probabilities,
            ids,
            patients,
            level=level,  # type: ignore[arg-type]
            pooling=settings.pooling,
            image_threshold=point.threshold,
            seed=3,
        )
    assert list(choices.kept_levels()) == ["slide", "patient"]


def test_probabilities_and_decisions_are_those_of_the_one_decision_rule(validation: pd.DataFrame) -> None:
    choices = choose(validation, EvaluateSettings(), seed=0)
    assert isinstance(choices.abstention, Abstention)
    assert choices.abstention.between is not None
    logits = validation["logit"].to_numpy()
    values = choices.probabilities(logits)
    np.testing.assert_array_equal(values, probability(logits, choices.calibration))
    expected = decide(values, choices.point.threshold, abstain_between=choices.abstention.between)
    decisions = choices.decide(values)
    assert decisions.tolist() == expected.tolist()
    assert set(decisions) == {"benign", "malignant", "abstain"}
    always = Choices(choices.calibration, choices.point, "not here")
    assert always.decide(values).tolist() == decide(values, choices.point.threshold).tolist()


def test_the_order_of_the_rows_does_not_matter(validation: pd.DataFrame) -> None:
    one = choose(validation, EvaluateSettings(), seed=0)
    other = choose(validation.sample(frac=1, random_state=1), EvaluateSettings(), seed=0)
    assert other.point.threshold == pytest.approx(one.point.threshold, abs=1e-6)
    assert other.calibration.method == one.calibration.method
    assert isinstance(one.abstention, Abstention)
    assert isinstance(other.abstention, Abstention)
    assert other.abstention.between == pytest.approx(one.abstention.between, abs=1e-6)


def test_an_operating_point_that_cannot_be_had_is_replaced_by_the_balanced_one_and_says_why(
    validation: pd.DataFrame,
) -> None:
    # As certain as can be of benign, in three malignant images.
    validation.loc[validation.index[validation["label"] == 1][:3], "logit"] = -50_000.0
    asked = EvaluateSettings(operating_point="sensitivity", target_sensitivity=1.0, calibration="temperature")
    choices = choose(validation, asked, seed=0)
    balanced = choose(validation, EvaluateSettings(calibration="temperature"), seed=0)
    assert choices.point == balanced.point
    assert choices.point.name == "balanced"
    assert choices.not_attained is not None
    assert choices.not_attained.startswith("3 of 400 malignant validation images have probability 0")
    assert choices.describe()["operating_point"]["not_attained"] == choices.not_attained
    assert "not_attained" not in balanced.describe()["operating_point"]


def test_a_coverage_of_0_always_decides(validation: pd.DataFrame) -> None:
    choices = choose(validation, EvaluateSettings(coverage=0), seed=0)
    assert choices.abstention == ALWAYS_DECIDES
    assert choices.describe()["abstention"] == {"not_attainable": ALWAYS_DECIDES}
    assert set(choices.decide(choices.probabilities(validation["logit"].to_numpy()))) == {"benign", "malignant"}


def test_with_too_few_patients_for_the_coverage_the_reason_stands_in_its_place(validation: pd.DataFrame) -> None:
    few = validation[validation["patient_id"] < "0008"]
    choices = choose(few, EvaluateSettings(coverage=0.9), seed=0)
    assert choices.abstention == "a coverage of 0.9 needs at least 9 validation patients, and there are 8"


def test_levels_that_do_not_apply_say_why(validation: pd.DataFrame) -> None:
    unknown = validation.copy()
    unknown.loc[5, "slide_id"] = None
    unknown.loc[9, "patient_id"] = ""
    choices = choose(unknown, EvaluateSettings(), seed=0)
    assert choices.levels == {"slide": "slides are unknown", "patient": "patients are unknown"}
    assert choices.describe()["levels"] == choices.kept_levels() == {}
    assert isinstance(choices.abstention, Abstention)
    assert choices.abstention.unit == "image"
    validation.loc[:4, "label"] = 1
    mixed = choose(validation, EvaluateSettings(), seed=0).levels
    assert mixed["patient"] == "1 of 40 patients have images of both classes, so they have no label of their own"


@pytest.mark.parametrize("label", [0, 1])
def test_of_one_class_nothing_can_be_chosen(validation: pd.DataFrame, label: int) -> None:
    with pytest.raises(DataError):
        choose(validation[validation["label"] == label], EvaluateSettings(), seed=0)


def test_what_is_described_is_clean_json_and_can_be_read_back(validation: pd.DataFrame) -> None:
    choices = choose(validation, EvaluateSettings(), seed=0)
    described = choices.describe()
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert list(described) == ["operating_point", "calibration", "abstention", "levels"]
    point = described["operating_point"]
    assert (point["threshold"], point["chosen_on"]) == (choices.point.threshold, "validation")
    assert set(point["achieved"]) == {"sensitivity", "specificity", "balanced_accuracy"}
    assert choices.how is not None
    assert described["calibration"]["reason"] == choices.how.reason
    assert [entry["method"] for entry in described["calibration"]["candidates"]] == [
        "temperature", "platt", "beta", "isotonic",
    ]  # fmt: skip
    own = {name: value for name, value in described["calibration"].items() if name not in ("reason", "candidates")}
    assert type(choices.calibration).model_validate_json(json.dumps(own)) == choices.calibration
    assert Abstention.model_validate_json(json.dumps(described["abstention"])) == choices.abstention
    for name, level in choices.kept_levels().items():
        assert Level.model_validate_json(json.dumps(described["levels"][name])) == level
    loaded = Choices(Temperature(temperature=2.0), choices.point, choices.abstention)
    assert loaded.describe()["calibration"] == {"method": "temperature", "temperature": 2.0}


def test_ids_are_known_only_where_every_image_has_one() -> None:
    frame = pd.DataFrame({"patient_id": ["a", "b", "a"], "slide_id": ["1", "1", "2"], "other": ["a", None, ""]})
    patients = known_ids(frame, "patient_id")
    assert patients is not None
    assert patients.tolist() == ["a", "b", "a"]
    assert known_ids(frame, "other") is None
    for missing in (None, "", np.nan):
        assert known_ids(frame.assign(patient_id=["a", missing, "b"]), "patient_id") is None


def test_slides_of_two_patients_are_never_one() -> None:
    frame = pd.DataFrame({"patient_id": ["a", "b", "a", "a1"], "slide_id": ["12", "12", "12", "2"]})
    slides = level_ids(frame, "slide")
    assert slides is not None
    assert pd.factorize(slides)[0].tolist() == [0, 1, 0, 2]
    patients = level_ids(frame, "patient")
    assert patients is not None
    assert patients.tolist() == ["a", "b", "a", "a1"]
    unknown = frame.assign(patient_id=["a", None, "a", "a"])
    assert level_ids(unknown, "patient") is None
    assert pd.Series(level_ids(unknown, "slide")).factorize()[0].tolist() == [0, 0, 0, 1]
    assert level_ids(frame.assign(slide_id=["12", "", "12", "2"]), "slide") is None


def test_the_settings_of_the_threshold_are_all_handed_on(validation: pd.DataFrame) -> None:
    rules = get_args(EvaluateSettings.model_fields["operating_point"].annotation)
    assert set(rules) == set(RULES)
    numbers = {
        "sensitivity": {"target_sensitivity": 0.7},
        "specificity": {"target_specificity": 0.7},
        "cost": {"cost_ratio": 30.0},
        "net_benefit": {"threshold_probability": 0.6},
    }
    labels, logits = validation["label"].to_numpy(), validation["logit"].to_numpy()
    for rule, number in numbers.items():
        settings = EvaluateSettings(operating_point=rule, **number)
        point = choose_operating_point(labels, probability(logits), **point_arguments(settings))
        usual = choose_operating_point(labels, probability(logits), rule=rule)  # type: ignore[arg-type]
        assert point.name == rule
        assert point.threshold != usual.threshold


def test_levels_too_few_to_fit_take_the_threshold_of_the_images(validation: pd.DataFrame) -> None:
    choices = choose(validation[validation["patient_id"] < "0012"], EvaluateSettings(), seed=0)
    level = choices.levels["patient"]
    assert isinstance(level, Level)
    assert level.threshold == choices.point.threshold != 0.5
