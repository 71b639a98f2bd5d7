"""metrics.json as a whole: every split, every level, one decision rule, and clean JSON whatever the table."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from tests.evaluation.conftest import PROTOCOL, build_choices, evaluate_frame

from clearmargin.decision import Abstention, Level, Platt, Pooling, Temperature, decide, probability
from clearmargin.errors import DataError
from clearmargin.evaluation import metrics
from clearmargin.evaluation.bootstrap import jackknife_figures, resampled_figures
from clearmargin.evaluation.choices import Choices
from clearmargin.evaluation.classification_report import classification_report
from clearmargin.evaluation.intervals import Interval, figure_interval
from clearmargin.evaluation.units import degrees_of_freedom, units_behind
from clearmargin.types import MANIFEST_COLUMNS, Listener

Draw = Callable[..., Any]
Build = Callable[..., pd.DataFrame]
At = Callable[..., Choices]
Evaluate = Callable[..., dict[str, Any]]

HEADLINE = ["within_patients", "calibration", "abstention", "risk_coverage", "decision_curve"]
BLOCK = ["interval", "image", "slide", "patient", "image_at_0.5", "classification_report"]


def splits(clustered: Draw, frame_of: Build, *, threshold: float = 0.5, **sizes: int) -> pd.DataFrame:
    parts = [
        frame_of(clustered(seed, n_patients=n), split=split, threshold=threshold)
        for seed, (split, n) in enumerate(sizes.items())
    ]
    return pd.concat(parts, ignore_index=True)


def expected_intervals(rows: pd.DataFrame, patients: Any, *, threshold: float, resamples: int) -> dict[str, Any]:
    """Of each figure, what `intervals.py` makes of the resampled and the jackknifed figure."""
    labels, values = rows["label"].to_numpy(), rows["probability"].to_numpy()
    resampled = resampled_figures(labels, values, patients, threshold=threshold, resamples=resamples, seed=0)
    without = jackknife_figures(labels, values, patients, threshold=threshold)
    whole = evaluate_frame(rows, build_choices(threshold), resamples=resamples)["test"]["image"]
    intervals = {}
    for name in metrics.FIGURES:
        behind = {
            "n_units": units_behind(name, labels, patients, called=values >= threshold),
            "degrees": degrees_of_freedom(name, labels, patients, called=values >= threshold),
        }
        found = figure_interval(whole[name]["value"], resampled[name], **behind, jackknife=without[name])
        assert isinstance(found, Interval)
        intervals[name] = [found.low, found.high]
    return intervals


def test_the_dictionary_has_the_shape_of_the_contract_and_is_clean_json(
    clustered: Draw, frame_of: Build, evaluate: Evaluate, choices_at: At
) -> None:
    sizes = {"train": 30, "validation": 5, "test": 25}
    frame = splits(clustered, frame_of, **sizes)
    manifest = frame[["path"]].reindex(columns=MANIFEST_COLUMNS).assign(site=["a", "b"] * 600)
    result = evaluate(
        frame, choices_at(calibration=Temperature(temperature=1.5)), resamples=200, prevalence=0.01, columns=manifest
    )
    assert list(result) == [
        "schema", "protocol", "operating_point", "calibration", "abstention", "levels", "interval",
        "train", "validation", "test",
    ]  # fmt: skip
    assert result["schema"] == 1
    assert result["protocol"] == PROTOCOL
    assert result["operating_point"] == {
        "name": "balanced",
        "rule": "chosen for a test",
        "threshold": 0.5,
        "chosen_on": "validation",
        "achieved": {"sensitivity": 0.9},
    }
    assert result["calibration"] == {"method": "temperature", "temperature": 1.5}
    note = "only 5 patients: intervals from fewer than 20 are not to be trusted"
    assert result["interval"] == {
        "level": 0.95,
        "method": "widened percentile",
        "unit": "patient",
        "resamples": 200,
        "seed": 0,
        "note": f"validation: {note}",
    }
    assert result["validation"]["interval"] == {"unit": "patient", "n_units": 5, "note": note}
    for split, n_patients in sizes.items():
        block = result[split]["image"]
        assert (block["n_images"], block["n_patients"]) == (20 * n_patients, n_patients)
        about = {"n_images", "n_patients", "confusion"}
        slope = {"calibration_slope", "calibration_intercept"}
        assert set(block) == {*about, "loss", *metrics.FIGURES, *slope}
        assert set(result[split]["image_at_0.5"]) == {*about, *metrics.THRESHOLD_FIGURES}
        assert list(result[split]) == [*BLOCK, *([*HEADLINE, "at_prevalence", "subgroups"] if split == "test" else [])]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_without_a_test_split_the_last_one_is_the_headline(
    clustered: Draw, frame_of: Build, evaluate: Evaluate
) -> None:
    result = evaluate(splits(clustered, frame_of, train=6, validation=6))
    assert set(result["validation"]) - set(result["train"]) == set(HEADLINE)


def test_figures_and_intervals_are_those_of_the_pure_functions(
    clustered: Draw, frame_of: Build, evaluate: Evaluate, choices_at: At
) -> None:
    data = clustered(1, n_patients=30)
    frame = frame_of(data, threshold=0.37)
    result = evaluate(frame, choices_at(0.37), resamples=300)["test"]
    block, called = result["image"], data.probabilities >= 0.37
    assert block["confusion"] == oracle.confusion_matrix(data.labels, called).tolist()
    assert block["loss"] == pytest.approx(oracle.log_loss(data.labels, data.probabilities))
    assert block["auroc"]["value"] == pytest.approx(oracle.roc_auc_score(data.labels, data.probabilities))
    assert block["sensitivity"]["value"] == pytest.approx(oracle.recall_score(data.labels, called))
    assert block["ece"]["value"] == pytest.approx(metrics.ece(data.labels, data.probabilities))
    for name, ends in expected_intervals(frame, data.patients, threshold=0.37, resamples=300).items():
        assert block[name]["ci"] == pytest.approx(ends, abs=1e-9)
        assert ends[0] <= block[name]["value"] <= ends[1]
    naive = result["image_at_0.5"]
    assert naive["confusion"] == oracle.confusion_matrix(data.labels, data.probabilities >= 0.5).tolist()
    at_half = expected_intervals(frame_of(data), data.patients, threshold=0.5, resamples=300)
    for name in metrics.THRESHOLD_FIGURES:
        assert naive[name]["ci"] == pytest.approx(at_half[name], abs=1e-9)
    assert result["classification_report"] == classification_report(data.labels, called)


def test_the_calibration_slope_and_intercept_are_those_of_a_logistic_regression(
    clustered: Draw, frame_of: Build, evaluate: Evaluate
) -> None:
    from sklearn.linear_model import LogisticRegression

    data = clustered(12, n_patients=30)
    block = evaluate(frame_of(data))["test"]["image"]
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(data.logits[:, None], data.labels)
    assert block["calibration_slope"]["value"] == pytest.approx(fit.coef_[0, 0], rel=1e-4)
    shifts = np.linspace(-3, 3, 6001)
    losses = [oracle.log_loss(data.labels, probability(data.logits + shift)) for shift in shifts[::100]]
    near = shifts[::100][int(np.argmin(losses))]
    assert block["calibration_intercept"]["value"] == pytest.approx(near, abs=0.06)


def test_order_of_rows_does_not_matter_to_the_last_bit(
    clustered: Draw, frame_of: Build, evaluate: Evaluate, choices_at: At
) -> None:
    region = Abstention(coverage=0.9, low=0.4, high=0.6, n_units=22, unit="patient")
    choices = choices_at(abstention=region)
    frame = splits(clustered, frame_of, validation=8, test=22)
    frame["decision"] = choices.decide(frame["probability"].to_numpy())
    manifest = frame[["path"]].reindex(columns=MANIFEST_COLUMNS).assign(site=["a", "b"] * 300)
    asked = {"prevalence": 0.1, "columns": manifest}
    shuffled = frame.sample(frac=1, random_state=1)
    assert evaluate(shuffled, choices, **asked) == evaluate(frame, choices, **asked)
    frame["patient_id"], shuffled["patient_id"] = None, None
    assert evaluate(shuffled, choices, **asked) == evaluate(frame, choices, **asked)


def test_the_table_that_is_given_stays_as_it_was(clustered: Draw, frame_of: Build, evaluate: Evaluate) -> None:
    frame = splits(clustered, frame_of, validation=5, test=5).sample(frac=1, random_state=2)
    before = frame.copy()
    evaluate(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_only_test_figures_at_the_threshold_carry_the_uncertainty_of_its_choice(
    clustered: Draw, frame_of: Build, evaluate: Evaluate, choices_at: At
) -> None:
    frame = splits(clustered, frame_of, train=8, validation=20, test=25)
    result = evaluate(frame, resamples=200)
    alone = evaluate(frame[frame["split"] == "test"], resamples=200)["test"]["image"]
    for split in ("train", "validation", "test"):
        for name in metrics.FIGURES:
            figure = result[split]["image"][name]
            assert ("ci_fixed" in figure) == (split == "test" and name in metrics.THRESHOLD_FIGURES)
            assert "ci_fixed" not in result[split]["image_at_0.5"].get(name, {})
    for name in metrics.FIGURES:
        figure = result["test"]["image"][name]
        assert figure["value"] == alone[name]["value"]
        assert figure.get("ci_fixed", figure["ci"]) == alone[name]["ci"]
    elsewhere = choices_at()
    object.__setattr__(elsewhere.point, "chosen_on", "out-of-fold predictions")
    block = evaluate(frame, elsewhere, resamples=200)["test"]["image"]
    assert block == alone  # validation did not choose, so it has no part in it


def test_the_choice_in_the_interval_is_by_the_rule_that_was_set(
    clustered: Draw, frame_of: Build, evaluate: Evaluate, choices_at: At
) -> None:
    frame = splits(clustered, frame_of, validation=20, test=25)
    balanced = evaluate(frame)["test"]["image"]["sensitivity"]
    careful = {"operating_point": "sensitivity", "target_sensitivity": 0.98}
    sensitive = evaluate(frame, **careful)["test"]["image"]["sensitivity"]
    assert sensitive["ci_fixed"] == balanced["ci_fixed"]
    assert sensitive["ci"][1] > balanced["ci"][1]
    instead = evaluate(frame, choices_at(not_attained="no threshold reaches it"), **careful)
    assert instead["test"]["image"]["sensitivity"] == balanced


def test_patients_are_judged_by_the_images_mean_where_no_rule_was_chosen(
    one_class_patients: pd.DataFrame, evaluate: Evaluate
) -> None:
    block = evaluate(one_class_patients)["test"]["patient"]
    by_patient = one_class_patients.groupby("patient_id").agg(
        label=("label", "first"), probability=("probability", "mean")
    )
    labels, called = by_patient["label"], by_patient["probability"] >= 0.5
    assert (block["n_images"], block["n_cases"], block["n_patients"]) == (72, 24, 24)
    assert block["confusion"] == oracle.confusion_matrix(labels, called).tolist()
    assert block["auroc"]["value"] == pytest.approx(oracle.roc_auc_score(labels, by_patient["probability"]))
    assert block["loss"] == pytest.approx(oracle.log_loss(labels, by_patient["probability"]))
    assert block["auroc"]["method"] == "DeLong"
    assert {block[name]["method"] for name in ("accuracy", "sensitivity", "specificity")} == {"Wilson"}


def test_patients_are_judged_by_the_rule_of_their_level(
    one_class_patients: pd.DataFrame, evaluate: Evaluate, choices_at: At
) -> None:
    level = Level(
        pooling=Pooling(method="top_k", k=2),
        calibration=Platt(slope=1.4, intercept=-0.6),
        threshold=0.42,
        reason="best",
    )
    result = evaluate(one_class_patients, choices_at(levels={"patient": level}))
    assert result["levels"] == {"patient": level.model_dump(mode="json")}
    labels, values = [], []
    for _, rows in one_class_patients.groupby("patient_id"):
        pooled = rows["probability"].nlargest(2).mean()
        labels.append(rows["label"].iloc[0])
        values.append(1 / (1 + math.exp(-(1.4 * math.log(pooled / (1 - pooled)) - 0.6))))
    block, called = result["test"]["patient"], np.array(values) >= 0.42
    assert block["confusion"] == oracle.confusion_matrix(labels, called).tolist()
    assert block["brier"]["value"] == pytest.approx(oracle.brier_score_loss(labels, values))
    assert block["auprc"]["value"] == pytest.approx(oracle.average_precision_score(labels, values))


def test_slides_of_one_name_are_those_of_their_patients_and_rest_on_patients(
    one_class_patients: pd.DataFrame, evaluate: Evaluate, choices_at: At
) -> None:
    """Each patient has a slide A and a slide B."""
    frame = pd.concat([one_class_patients, one_class_patients.assign(path=lambda rows: "again/" + rows["path"])])
    frame["slide_id"] = np.repeat(["A", "B"], 72)
    frame.loc[frame["slide_id"] == "B", "probability"] *= 0.9
    frame["decision"] = decide(frame["probability"].to_numpy(), 0.5)
    result = evaluate(frame, choices_at(levels={"slide": Level(threshold=0.4)}), resamples=200)["test"]
    by_slide = frame.groupby(["patient_id", "slide_id"]).agg(
        label=("label", "first"), probability=("probability", "mean")
    )
    block = result["slide"]
    assert (block["n_images"], block["n_cases"], block["n_patients"]) == (144, 48, 24)
    assert block["confusion"] == oracle.confusion_matrix(by_slide["label"], by_slide["probability"] >= 0.4).tolist()
    assert block["auroc"]["value"] == pytest.approx(oracle.roc_auc_score(by_slide["label"], by_slide["probability"]))
    # Two slides of a patient are not two independent cases.
    assert {block[name]["method"] for name in metrics.FIGURES} <= {"jackknife", "exact binomial"}
    patients = by_slide.index.get_level_values(0).to_numpy()
    labels, values = by_slide["label"].to_numpy(), by_slide["probability"].to_numpy()
    resampled = resampled_figures(labels, values, patients, threshold=0.4, resamples=200, seed=0)["auroc"]
    without = jackknife_figures(labels, values, patients, threshold=0.4)["auroc"]
    # Twelve patients of either class, two slides each: Welch's degrees of freedom for two samples of twelve.
    expected = figure_interval(block["auroc"]["value"], resampled, n_units=12, degrees=22, jackknife=without)
    assert isinstance(expected, Interval)
    assert block["auroc"]["ci"] == pytest.approx([expected.low, expected.high])
    frame["patient_id"] = None
    alone = evaluate(frame)["test"]["slide"]  # without patients, slides of one name are one
    assert alone == {
        "not_applicable": "2 of 2 slides have both benign and malignant images, so a slide has no single label"
    }


def test_patients_with_both_labels_have_no_patient_figures(
    clustered: Draw, frame_of: Build, evaluate: Evaluate
) -> None:
    frame = frame_of(clustered(3, n_patients=3, images_each=4))
    frame["label"] = [0, 1, 0, 1] * 2 + [0, 0, 0, 0]
    assert evaluate(frame)["test"]["patient"] == {
        "not_applicable": "2 of 3 patients have both benign and malignant images, so a patient has no single label"
    }


def test_without_every_patient_the_unit_is_the_image_and_the_note_says_so(
    clustered: Draw, frame_of: Build, evaluate: Evaluate
) -> None:
    data = clustered(4, n_patients=30)
    frame = frame_of(data)
    frame.loc[[0, 7], "patient_id"] = [None, ""]
    result = evaluate(frame, resamples=200)
    test = result["test"]
    assert test["patient"] == {"not_applicable": "patients are unknown: 2 of 600 images have no patient_id"}
    assert test["slide"] == {"not_applicable": "slides are unknown: 600 of 600 images have no slide_id"}
    assert test["image"]["n_patients"] is None
    assert result["interval"]["unit"] == test["interval"]["unit"] == "image"
    assert "patients are unknown" in test["interval"]["note"]
    assert result["interval"]["note"] == f"test: {test['interval']['note']}"
    for name, ends in expected_intervals(frame, np.arange(600), threshold=0.5, resamples=200).items():
        assert test["image"][name]["ci"] == pytest.approx(ends)


def test_one_patient_has_values_but_no_intervals(clustered: Draw, frame_of: Build, evaluate: Evaluate) -> None:
    result = evaluate(frame_of(clustered(6, n_patients=1)))
    test = result["test"]
    for name in metrics.FIGURES:
        assert test["image"][name]["value"] is not None
        assert test["image"][name]["ci"] is None
        assert test["image"][name]["reason"] == "one patient: an interval over patients cannot be computed"
    assert test["interval"]["note"] == "only 1 patient: intervals from fewer than 20 are not to be trusted"
    json.dumps(result, allow_nan=False)


def test_undefined_figures_are_null_with_a_reason_and_the_rest_is_clean_json(
    clustered: Draw, frame_of: Build, evaluate: Evaluate
) -> None:
    frame = frame_of(clustered(5, n_patients=21))
    for label, value, absent in ((0, 0.1, "malignant"), (1, 0.9, "benign")):
        word = "malignant" if label else "benign"
        test = evaluate(frame.assign(label=label, probability=value, decision=word))["test"]
        for block, noun in ((test["image"], "image"), (test["patient"], "patient")):
            assert block["auroc"] == {"value": None, "ci": None, "reason": f"no {absent} {noun}"}
        assert test["image"]["calibration_slope"] == {"value": None, "ci": None, "reason": f"all images are {word}"}
        json.dumps(test, allow_nan=False)


@settings(max_examples=25)
@given(st.data())
def test_whatever_the_table_the_dictionary_is_clean_json_and_holds_its_values(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 12))

    def some(*values: Any) -> list[Any]:
        return data.draw(st.lists(st.sampled_from(values), min_size=number, max_size=number))

    region = Abstention(coverage=0.8, low=0.2, high=0.6, n_units=9, unit="patient")
    withheld: Abstention | str = region if data.draw(st.booleans()) else "there is 1 patient"
    choices = build_choices(data.draw(st.sampled_from([0.1, 0.5, 1.0])), abstention=withheld)
    logits = np.array(some(-800.0, -3.0, -1.0, 0.0, 0.2, 2.0, 40.0, 800.0))
    probabilities = probability(logits)
    frame = pd.DataFrame(
        {
            "path": [f"{place}.png" for place in range(number)],
            "patient_id": some("P1", "P2", "P3"),
            "slide_id": some("S1", "S2"),
            "x": None,
            "y": None,
            "split": some("train", "validation", "test"),
            "label": some(0, 1),
            "logit": logits,
            "probability": probabilities,
            "decision": choices.decide(probabilities),
        }
    )
    result = evaluate_frame(frame, choices, prevalence=0.2)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    check_figures(result)


def check_figures(block: Any) -> None:
    """Every figure has a value and an interval that holds it, or a reason."""
    if isinstance(block, list):
        for entry in block:
            check_figures(entry)
    elif isinstance(block, dict) and "value" in block and "ci" in block:
        assert (block["value"] is not None and block["ci"] is not None) or block["reason"]
        if block["ci"] is not None:
            assert block["method"]
            assert block["ci"][0] - 1e-9 <= block["value"] <= block["ci"][1] + 1e-9
    elif isinstance(block, dict):
        for entry in block.values():
            check_figures(entry)


def test_a_decision_that_contradicts_its_probability_is_refused(
    clustered: Draw, frame_of: Build, evaluate: Evaluate
) -> None:
    frame = frame_of(clustered(8, n_patients=20))
    abstaining = frame.copy()
    abstaining.loc[3:9, "decision"] = "abstain"
    assert evaluate(abstaining) == evaluate(frame)  # an abstention counts by its probability
    frame.loc[3, ["probability", "decision"]] = [0.7, "benign"]
    with pytest.raises(
        DataError,
        match=r"1 of 400 decisions contradict the threshold 0.5, the first is of 'test/00003.png' \('benign' at "
        r"probability 0.7\): give the operating point",
    ):
        evaluate(frame)


def test_a_table_that_is_refused_is_not_evaluated(clustered: Draw, frame_of: Build, evaluate: Evaluate) -> None:
    frame = frame_of(clustered(9, n_patients=20))
    frame.loc[2, "probability"] = math.nan
    with pytest.raises(DataError, match="probability in row 3"):
        evaluate(frame)


@pytest.fixture
def folds(one_class_patients: pd.DataFrame, choices_at: At) -> tuple[pd.DataFrame, dict[int, Choices]]:
    """A cross-validated table of three folds, each with a threshold, a region and levels of its own."""
    by_fold = {
        fold: choices_at(
            threshold,
            abstention=Abstention(coverage=0.9, low=low, high=low + 0.1, n_units=16, unit="patient"),
            levels={"patient": Level(threshold=level, calibration=Platt(slope=1 + fold, intercept=0.1 * fold))},
        )
        for fold, (threshold, low, level) in enumerate([(0.3, 0.25, 0.5), (0.5, 0.45, 0.4), (0.7, 0.65, 0.8)])
    }
    frame = one_class_patients.assign(fold=one_class_patients["patient_id"].str[1:].astype(int) % 3)
    parts = [rows.assign(decision=by_fold[fold].decide(rows["probability"].to_numpy()))
             for fold, rows in frame.groupby("fold")]  # fmt: skip
    return pd.concat(parts).sample(frac=1, random_state=4), by_fold


def test_in_a_cross_validation_each_image_is_judged_by_the_threshold_of_its_fold(
    folds: tuple[pd.DataFrame, dict[int, Choices]], evaluate: Evaluate, choices_at: At
) -> None:
    frame, by_fold = folds
    test = evaluate(frame, choices_at(0.55), by_fold=by_fold)["test"]
    thresholds = frame["fold"].map({0: 0.3, 1: 0.5, 2: 0.7})
    called = frame["probability"] >= thresholds
    assert test["image"]["confusion"] == oracle.confusion_matrix(frame["label"], called).tolist()
    for name, expected in (
        ("accuracy", oracle.accuracy_score(frame["label"], called)),
        ("sensitivity", oracle.recall_score(frame["label"], called)),
        ("ppv", oracle.precision_score(frame["label"], called)),
        ("auroc", oracle.roc_auc_score(frame["label"], frame["probability"])),
    ):
        assert test["image"][name]["value"] == pytest.approx(expected)
        assert test["image"][name]["ci"][0] <= expected <= test["image"][name]["ci"][1]
        assert "ci_fixed" not in test["image"][name]
    report = oracle.classification_report(frame["label"], called, output_dict=True)
    assert test["classification_report"]["malignant"] == pytest.approx(report["1"])
    assert test["risk_coverage"]["error"][0] == pytest.approx(1 - test["image"]["accuracy"]["value"])
    withheld = (frame["decision"] == "abstain").mean()
    region = Abstention(coverage=0.9, low=0.5, high=0.5, n_units=24, unit="patient")
    abstention = evaluate(frame, choices_at(0.55, abstention=region), by_fold=by_fold)["test"]["abstention"]
    assert abstention["deferred"]["value"] == pytest.approx(withheld)
    assert abstention["error_all"]["value"] == pytest.approx(1 - test["image"]["accuracy"]["value"])


def test_folds_that_could_withhold_nothing_show_nothing_of_the_promise(
    folds: tuple[pd.DataFrame, dict[int, Choices]], evaluate: Evaluate, choices_at: At
) -> None:
    frame, by_fold = folds
    few = "a coverage of 0.9 needs at least 9 validation patients, and there are 8"
    by_fold = {fold: replace(choices, abstention=few) for fold, choices in by_fold.items()}
    region = Abstention(coverage=0.9, low=0.5, high=0.5, n_units=10, unit="patient")
    result = evaluate(frame, choices_at(0.55, abstention=region), by_fold=by_fold)
    assert result["abstention"]["coverage"] == 0.9
    assert result["test"]["abstention"] == {
        "not_applicable": f"in 3 of 3 folds nothing was withheld, since the others were too few ({few})"
    }


def test_there_are_no_figures_of_a_level_that_the_model_does_not_decide(
    one_class_patients: pd.DataFrame, evaluate: Evaluate, choices_at: At
) -> None:
    block = evaluate(one_class_patients, choices_at(levels={"patient": "there is one patient in the validation split"}))
    assert block["test"]["patient"] == {
        "not_applicable": "the model has no rule for a patient: there is one patient in the validation split"
    }


def test_in_a_cross_validation_each_patient_is_judged_by_the_level_of_its_fold(
    folds: tuple[pd.DataFrame, dict[int, Choices]], evaluate: Evaluate
) -> None:
    frame, by_fold = folds
    block = evaluate(frame, by_fold=by_fold)["test"]["patient"]
    labels, values, called = [], [], []
    for _, rows in frame.groupby("patient_id"):
        fold, mean = int(rows["fold"].iloc[0]), rows["probability"].mean()
        labels.append(rows["label"].iloc[0])
        values.append(1 / (1 + math.exp(-((1 + fold) * math.log(mean / (1 - mean)) + 0.1 * fold))))
        called.append(values[-1] >= [0.5, 0.4, 0.8][fold])
    assert block["confusion"] == oracle.confusion_matrix(labels, called).tolist()
    assert block["auroc"]["value"] == pytest.approx(oracle.roc_auc_score(labels, values))
    assert block["brier"]["value"] == pytest.approx(oracle.brier_score_loss(labels, values))


def test_in_a_cross_validation_a_decision_must_be_that_of_its_own_fold(
    folds: tuple[pd.DataFrame, dict[int, Choices]], evaluate: Evaluate
) -> None:
    frame, by_fold = folds
    rows = frame[(frame["fold"] == 2) & frame["probability"].between(0.5, 0.64)]
    assert (rows["decision"] == "benign").all()  # at one half they would be malignant
    path = rows["path"].min()
    frame.loc[frame["path"] == path, "decision"] = "malignant"
    with pytest.raises(DataError, match=rf"1 of 72 decisions contradict the threshold 0.7, the first is of '{path}'"):
        evaluate(frame, by_fold=by_fold)


def test_patients_whose_images_are_in_several_folds_are_decided_by_no_network(
    folds: tuple[pd.DataFrame, dict[int, Choices]], evaluate: Evaluate
) -> None:
    frame, by_fold = folds
    frame = frame.assign(fold=frame["path"].str[:3].astype(int) % 3, decision="abstain")
    assert evaluate(frame, by_fold=by_fold)["test"]["patient"] == {
        "not_applicable": "24 of 24 patients have images in several folds, so no one network decides on a whole patient"
    }


def test_what_is_stored_is_described_and_what_could_not_be_had_says_why(
    clustered: Draw, frame_of: Build, evaluate: Evaluate, choices_at: At
) -> None:
    frame = frame_of(clustered(14, n_patients=20))
    region = Abstention(coverage=0.9, low=0.4, high=0.6, n_units=20, unit="patient")
    assert evaluate(frame, choices_at(abstention=region))["abstention"] == region.model_dump(mode="json")
    reason = "a coverage of 0.9 needs at least 9 validation patients, and there are 3"
    result = evaluate(frame, choices_at(abstention=reason, not_attained="no threshold reaches it"))
    assert result["abstention"] == {"not_attainable": reason}
    assert result["test"]["abstention"] == {"not_applicable": reason}
    assert result["operating_point"]["not_attained"] == "no threshold reaches it"
    assert result["levels"] == {}


def test_the_listener_hears_every_split_and_every_note(clustered: Draw, frame_of: Build, evaluate: Evaluate) -> None:
    heard: list[object] = []

    class Recorder(Listener):
        def stage(self, name: str) -> None:
            heard.append(name)

        def advance(self, done: int, total: int) -> None:
            heard.append((done, total))

        def note(self, text: str) -> None:
            heard.append(text)

    evaluate(splits(clustered, frame_of, train=20, test=2), listener=Recorder())
    note = "test: only 2 patients: intervals from fewer than 20 are not to be trusted"
    assert heard == ["evaluate", (1, 2), note, (2, 2)]


def test_evaluation_never_imports_torch() -> None:
    code = (
        "import sys, clearmargin.evaluation; assert 'sklearn' not in sys.modules and 'numpy' not in sys.modules\n"
        "from clearmargin.evaluation import assemble, bootstrap, calibration, choices, headline, predictions\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
