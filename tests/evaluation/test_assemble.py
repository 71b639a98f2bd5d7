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
from sklearn import metrics as oracle

from clearmargin.decision import decide
from clearmargin.errors import DataError
from clearmargin.evaluation import metrics
from clearmargin.evaluation.assemble import evaluate_predictions, format_classification_report
from clearmargin.evaluation.bootstrap import patient_intervals
from clearmargin.types import Listener, OperatingPoint

PROTOCOL = {"split": "patient", "seed": 0, "patients": {"train": 30, "validation": 5, "test": 25}}

Draw = Callable[..., Any]
Build = Callable[..., pd.DataFrame]


def evaluate(frame: pd.DataFrame, point: OperatingPoint, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"protocol": PROTOCOL, "temperature": 1.5, "resamples": 200, "seed": 0} | changes
    return evaluate_predictions(frame, point, **options)


@pytest.fixture(scope="module")
def one_class_patients() -> pd.DataFrame:
    """Twenty-four patients of three images each, every one benign or malignant as a whole."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(24) % 2, 3)
    probabilities = np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0.01, 0.99)
    return pd.DataFrame(
        {
            "path": [f"{number:03d}.png" for number in range(72)],
            "patient_id": [f"P{number // 3:02d}" for number in range(72)],
            "slide_id": None,
            "x": None,
            "y": None,
            "split": "test",
            "label": labels,
            "logit": np.log(probabilities / (1 - probabilities)),
            "probability": probabilities,
            "decision": decide(probabilities, 0.5),
        }
    )


def test_the_dictionary_has_the_shape_of_the_contract_and_is_clean_json(
    clustered: Draw, frame_of: Build, point: OperatingPoint
) -> None:
    sizes = {"train": 30, "validation": 5, "test": 25}
    frame = pd.concat(
        [frame_of(clustered(seed, n_patients=n), split=split) for seed, (split, n) in enumerate(sizes.items())]
    )
    result = evaluate(frame, point)
    assert list(result) == [
        "schema", "protocol", "operating_point", "calibration", "interval", "train", "validation", "test",
    ]  # fmt: skip
    assert result["schema"] == 1
    assert result["protocol"] == PROTOCOL
    assert result["operating_point"] == {
        "name": "balanced",
        "rule": "chosen for a test",
        "threshold": 0.5,
        "chosen_on": "validation",
        "achieved": {"sensitivity": 0.9, "specificity": 0.8},
    }
    assert result["calibration"] == {"method": "temperature", "temperature": 1.5}
    note = "only 5 patients: intervals from fewer than 20 are not to be trusted"
    assert result["interval"] == {
        "level": 0.95,
        "method": "percentile bootstrap",
        "unit": "patient",
        "resamples": 200,
        "seed": 0,
        "note": f"validation: {note}",
    }
    assert result["validation"]["interval"] == {"unit": "patient", "n_units": 5, "note": note}
    for split, n_patients in sizes.items():
        block = result[split]["image"]
        assert (block["n_images"], block["n_patients"]) == (20 * n_patients, n_patients)
        assert set(block) == {"n_images", "n_patients", "loss", "confusion", *metrics.FIGURES}
        naive = result[split]["image_at_0.5"]
        assert set(naive) == {"n_images", "n_patients", "confusion", *metrics.THRESHOLD_FIGURES}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_figures_and_intervals_are_those_of_the_pure_functions(clustered: Draw, frame_of: Build) -> None:
    data = clustered(1, n_patients=30)
    point = OperatingPoint("balanced", "", 0.37)
    result = evaluate(frame_of(data, threshold=0.37), point, resamples=300, seed=4)["test"]
    block = result["image"]
    called = data.probabilities >= 0.37
    assert block["confusion"] == oracle.confusion_matrix(data.labels, called).tolist()
    assert block["loss"] == pytest.approx(oracle.log_loss(data.labels, data.probabilities))
    assert block["auroc"]["value"] == pytest.approx(oracle.roc_auc_score(data.labels, data.probabilities))
    assert block["sensitivity"]["value"] == pytest.approx(oracle.recall_score(data.labels, called))
    assert block["ece"]["value"] == pytest.approx(metrics.ece(data.labels, data.probabilities))
    intervals = patient_intervals(data.labels, data.probabilities, data.patients, threshold=0.37, resamples=300, seed=4)
    for name, interval in intervals.items():
        assert interval is not None
        assert block[name]["ci"] == pytest.approx(list(interval), abs=1e-12)
        assert interval[0] <= block[name]["value"] <= interval[1]
    naive = patient_intervals(data.labels, data.probabilities, data.patients, threshold=0.5, resamples=300, seed=4)
    assert result["image_at_0.5"]["ppv"]["ci"] == pytest.approx(list(naive["ppv"] or ()))
    assert result["image_at_0.5"]["confusion"] == (
        oracle.confusion_matrix(data.labels, data.probabilities >= 0.5).tolist()
    )


def test_order_of_rows_does_not_matter_to_the_last_bit(clustered: Draw, frame_of: Build, point: OperatingPoint) -> None:
    frame = frame_of(clustered(2, n_patients=22))
    assert evaluate(frame.sample(frac=1, random_state=1), point) == evaluate(frame, point)
    frame["patient_id"] = None
    assert evaluate(frame.sample(frac=1, random_state=1), point) == evaluate(frame, point)


def test_patients_are_judged_by_their_mean_probability(one_class_patients: pd.DataFrame, point: OperatingPoint) -> None:
    block = evaluate(one_class_patients, point)["test"]["patient"]
    by_patient = one_class_patients.groupby("patient_id").agg(
        label=("label", "first"), probability=("probability", "mean")
    )
    called = by_patient["probability"] >= 0.5
    assert (block["n_images"], block["n_patients"]) == (72, 24)
    assert block["confusion"] == oracle.confusion_matrix(by_patient["label"], called).tolist()
    assert block["auroc"]["value"] == pytest.approx(
        oracle.roc_auc_score(by_patient["label"], by_patient["probability"])
    )
    labels, means = by_patient["label"].to_numpy(), by_patient["probability"].to_numpy()
    intervals = patient_intervals(labels, means, np.arange(24), threshold=0.5, resamples=200, seed=0)
    assert block["auroc"]["ci"] == pytest.approx(list(intervals["auroc"] or ()))


def test_patients_with_both_labels_have_no_patient_figures(
    clustered: Draw, frame_of: Build, point: OperatingPoint
) -> None:
    frame = frame_of(clustered(3, n_patients=3, images_each=4))
    frame["label"] = [0, 1, 0, 1] * 2 + [0, 0, 0, 0]
    assert evaluate(frame, point)["test"]["patient"] == {
        "not_applicable": "2 of 3 patients have both benign and malignant images, so a patient has no single label"
    }


def test_without_every_patient_the_unit_is_the_image_and_the_note_says_so(
    clustered: Draw, frame_of: Build, point: OperatingPoint
) -> None:
    data = clustered(4, n_patients=30)
    frame = frame_of(data)
    frame.loc[[0, 7], "patient_id"] = [None, ""]
    result = evaluate(frame, point)
    test = result["test"]
    assert test["patient"] == {"not_applicable": "patients are unknown: 2 of 600 images have no patient_id"}
    assert test["image"]["n_patients"] is None
    assert result["interval"]["unit"] == test["interval"]["unit"] == "image"
    assert "patients are unknown" in test["interval"]["note"]
    assert result["interval"]["note"] == f"test: {test['interval']['note']}"
    each = np.arange(600)
    intervals = patient_intervals(data.labels, data.probabilities, each, threshold=0.5, resamples=200, seed=0)
    assert test["image"]["auroc"]["ci"] == pytest.approx(list(intervals["auroc"] or ()))


def test_undefined_figures_are_null_with_a_reason(clustered: Draw, frame_of: Build, point: OperatingPoint) -> None:
    frame = frame_of(clustered(5, n_patients=21))
    frame = frame.assign(label=0, probability=0.1, decision="benign")
    test = evaluate(frame, point)["test"]
    undefined = {"value": None, "ci": None}
    for block, noun in ((test["image"], "image"), (test["patient"], "patient")):
        for name in ("auroc", "auprc", "balanced_accuracy", "sensitivity"):
            assert block[name] == undefined | {"reason": f"no malignant {noun}"}
        assert block["ppv"] == undefined | {"reason": "nothing was called malignant"}
        assert block["f1"] == undefined | {"reason": f"no malignant {noun}, and nothing was called malignant"}
        assert block["specificity"]["value"] == 1.0
        assert block["specificity"]["ci"] == pytest.approx([0.025 ** (1 / 21), 1.0])
        assert "exact binomial" in block["specificity"]["note"]
    frame = frame.assign(label=1, probability=0.9, decision="malignant")
    block = evaluate(frame, point)["test"]["image"]
    for name in ("auroc", "balanced_accuracy", "specificity"):
        assert block[name] == undefined | {"reason": "no benign image"}
    assert block["npv"] == undefined | {"reason": "nothing was called benign"}
    assert block["auprc"]["value"] == 1.0
    json.dumps(evaluate(frame, point), allow_nan=False)


def test_one_patient_has_values_but_no_intervals(clustered: Draw, frame_of: Build, point: OperatingPoint) -> None:
    test = evaluate(frame_of(clustered(6, n_patients=1)), point)["test"]
    for name in metrics.FIGURES:
        assert test["image"][name]["value"] is not None
        assert test["image"][name]["ci"] is None
        assert test["image"][name]["reason"] == "one patient: an interval over patients cannot be computed"
    assert test["interval"]["note"] == "only 1 patient: intervals from fewer than 20 are not to be trusted"


def test_a_figure_missing_from_too_many_resamples_has_no_interval(
    clustered: Draw, frame_of: Build, point: OperatingPoint
) -> None:
    frame = frame_of(clustered(7, n_patients=30)).assign(label=0)
    frame.loc[:4, "label"] = 1  # all of the first patient, who is absent from about 36 % of the resamples
    sensitivity = evaluate(frame, point)["test"]["image"]["sensitivity"]
    assert sensitivity["value"] is not None
    assert sensitivity["ci"] is None
    assert sensitivity["reason"].startswith("defined in only 1")
    assert sensitivity["reason"].endswith("of 200 resamples of patients; 90% are needed")


def test_an_interval_that_would_not_hold_its_own_value_is_widened_and_says_so(
    clustered: Draw, frame_of: Build, point: OperatingPoint
) -> None:
    """Of a perfectly calibrated model the resampled ECE is larger than the ECE, in about a quarter of studies."""
    widened = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        probabilities = rng.random(1_000)
        labels = (rng.random(1_000) < probabilities).astype(np.int64)
        data = replace(clustered(0), labels=labels, probabilities=probabilities)
        figures = evaluate(frame_of(data), point)["test"]["image"]
        for name in metrics.FIGURES:
            low, high = figures[name]["ci"]
            assert low <= figures[name]["value"] <= high
            if "note" in figures[name]:
                widened += 1
                assert name == "ece"
                assert low == figures[name]["value"]
                assert figures[name]["note"].startswith("the resamples of patients lie above the value")
    assert 1 <= widened <= 12


def test_a_decision_that_contradicts_its_probability_is_refused(
    clustered: Draw, frame_of: Build, point: OperatingPoint
) -> None:
    frame = frame_of(clustered(8, n_patients=20))
    abstaining = frame.copy()
    abstaining.loc[3:9, "decision"] = "abstain"
    figures = evaluate(frame, point)
    assert evaluate(abstaining, point) == figures  # an abstention counts by its probability
    frame.loc[3, ["probability", "decision"]] = [0.7, "benign"]
    with pytest.raises(
        DataError,
        match=r"1 of 400 decisions contradict the threshold 0.5, the first in row 4 \('test/00003.png': 'benign' at",
    ):
        evaluate(frame, point)


def test_a_table_that_is_refused_is_not_evaluated(clustered: Draw, frame_of: Build, point: OperatingPoint) -> None:
    frame = frame_of(clustered(9, n_patients=20))
    frame.loc[2, "probability"] = math.nan
    with pytest.raises(DataError, match="probability in row 3"):
        evaluate(frame, point)


def test_the_listener_hears_every_split_and_every_note(clustered: Draw, frame_of: Build, point: OperatingPoint) -> None:
    heard: list[object] = []

    class Recorder(Listener):
        def stage(self, name: str) -> None:
            heard.append(name)

        def advance(self, done: int, total: int) -> None:
            heard.append((done, total))

        def note(self, text: str) -> None:
            heard.append(text)

    frame = pd.concat(
        [frame_of(clustered(1, n_patients=20), split="train"), frame_of(clustered(2, n_patients=2), split="test")]
    )
    evaluate(frame, point, listener=Recorder())
    note = "test: only 2 patients: intervals from fewer than 20 are not to be trusted"
    assert heard == ["evaluate", (1, 2), note, (2, 2)]


def test_the_classification_report_is_scikit_learns(clustered: Draw, frame_of: Build, point: OperatingPoint) -> None:
    data = clustered(10, n_patients=30)
    test = evaluate(frame_of(data), point)["test"]
    called = (data.probabilities >= 0.5).astype(int)
    names = ["benign", "malignant"]
    expected = oracle.classification_report(data.labels, called, target_names=names, output_dict=True)
    report = test["classification_report"]
    assert list(report) == list(expected)
    for row, entry in expected.items():
        assert report[row] == pytest.approx(entry)
    assert format_classification_report(test) == oracle.classification_report(data.labels, called, target_names=names)


def test_the_classification_report_never_shows_a_made_up_number(
    clustered: Draw, frame_of: Build, point: OperatingPoint
) -> None:
    data = clustered(11, n_patients=20)
    frame = frame_of(data).assign(probability=0.2, decision="benign")
    test = evaluate(frame, point)["test"]
    report = test["classification_report"]
    assert report["malignant"]["precision"] is None
    assert report["malignant"]["recall"] == 0.0
    assert report["macro avg"]["precision"] is report["weighted avg"]["precision"] is None
    assert report["macro avg"]["recall"] == 0.5
    text = format_classification_report(test)
    assert [line.split() for line in text.splitlines() if "n/a" in line] == [
        ["malignant", "n/a", "0.00", "0.00", str(data.labels.sum())],
        ["macro", "avg", "n/a", "0.50", f"{report['macro avg']['f1-score']:.2f}", "400"],
        ["weighted", "avg", "n/a", *(f"{report['weighted avg'][name]:.2f}" for name in ("recall", "f1-score")), "400"],
    ]
    only_benign = evaluate(frame.assign(label=0), point)["test"]["classification_report"]
    assert only_benign["malignant"] == {"precision": None, "recall": None, "f1-score": None, "support": 0}
    assert only_benign["macro avg"]["recall"] is None
    assert only_benign["weighted avg"]["recall"] == 1.0


def test_evaluation_never_imports_torch() -> None:
    code = (
        "import sys, clearmargin.evaluation; assert 'sklearn' not in sys.modules and 'numpy' not in sys.modules\n"
        "from clearmargin.evaluation import assemble, bootstrap, calibration, operating_point, predictions\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
