"""A block of figures: each value that of scikit-learn, each interval the one that `intervals.py` decides on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as oracle

from clearmargin.evaluation import bootstrap, metrics
from clearmargin.evaluation.bootstrap import draw_units, jackknife_figures, resampled_figures
from clearmargin.evaluation.figures import RATES, Cases, Resampling, describe_figures
from clearmargin.evaluation.intervals import Interval, delong_interval, figure_interval
from clearmargin.evaluation.operating_point import VALIDATION_STREAM, choose_operating_point, resampled_thresholds
from clearmargin.evaluation.units import degrees_of_freedom, units_behind

Draw = Callable[..., Any]

ORACLES: dict[str, Callable[[Any, Any, Any], float]] = {
    "auroc": lambda labels, probabilities, called: oracle.roc_auc_score(labels, probabilities),
    "auprc": lambda labels, probabilities, called: oracle.average_precision_score(labels, probabilities),
    "balanced_accuracy": lambda labels, probabilities, called: oracle.balanced_accuracy_score(labels, called),
    "accuracy": lambda labels, probabilities, called: oracle.accuracy_score(labels, called),
    "sensitivity": lambda labels, probabilities, called: oracle.recall_score(labels, called),
    "specificity": lambda labels, probabilities, called: oracle.recall_score(labels, called, pos_label=0),
    "ppv": lambda labels, probabilities, called: oracle.precision_score(labels, called),
    "npv": lambda labels, probabilities, called: oracle.precision_score(labels, called, pos_label=0),
    "f1": lambda labels, probabilities, called: oracle.f1_score(labels, called),
    "brier": lambda labels, probabilities, called: oracle.brier_score_loss(labels, probabilities),
    "ece": lambda labels, probabilities, called: naive_ece(labels, probabilities),
}


def naive_ece(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    total = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = (probabilities >= low) & ((probabilities < high) | ((number == 14) & (probabilities == 1.0)))
        if inside.any():
            total += inside.mean() * abs(probabilities[inside].mean() - labels[inside].mean())
    return total


def images_of(data: Any, threshold: float = 0.5) -> Cases:
    n_patients = len(np.unique(data.patients))
    called = data.probabilities >= threshold
    return Cases("image", "patient", data.labels, data.probabilities, called, data.patients, n_patients)


def alone(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Cases:
    """Every case a patient of its own."""
    return Cases("patient", "patient", labels, probabilities, probabilities >= 0.5, None, len(labels))


@pytest.mark.parametrize(("threshold", "steps"), [(0.37, None), (0.5, None), (0.8, 10)])
def test_every_value_is_that_of_an_independent_implementation(
    clustered: Draw, threshold: float, steps: int | None
) -> None:
    data = clustered(1, n_patients=15, steps=steps)
    called = data.probabilities >= threshold
    block = describe_figures(images_of(data, threshold), Resampling(100, 0))
    assert set(block) == {"confusion", *ORACLES} == {"confusion", *metrics.FIGURES}
    assert block["confusion"] == oracle.confusion_matrix(data.labels, called).tolist()
    for name, expected in ORACLES.items():
        assert block[name]["value"] == pytest.approx(expected(data.labels, data.probabilities, called), abs=1e-12)
    assert json.loads(json.dumps(block, allow_nan=False)) == block


def test_where_patients_have_several_images_the_interval_is_over_patients_by_the_jackknife(clustered: Draw) -> None:
    data = clustered(2, n_patients=30)
    block = describe_figures(images_of(data, 0.37), Resampling(300, 4))
    given = (data.labels, data.probabilities, data.patients)
    resampled = resampled_figures(*given, threshold=0.37, resamples=300, seed=4)
    without = jackknife_figures(*given, threshold=0.37)
    for name in metrics.FIGURES:
        called = data.probabilities >= 0.37
        n_units = units_behind(name, data.labels, data.patients, called=called)
        degrees = degrees_of_freedom(name, data.labels, data.patients, called=called)
        value = block[name]["value"]
        expected = figure_interval(value, resampled[name], n_units=n_units, degrees=degrees, jackknife=without[name])
        assert isinstance(expected, Interval)
        assert block[name]["ci"] == pytest.approx([expected.low, expected.high], abs=1e-9)
        assert block[name]["method"] == expected.method
        assert block[name]["ci"][0] <= value <= block[name]["ci"][1]
        assert "ci_fixed" not in block[name]
    assert block["auroc"]["method"] == block["npv"]["method"] == "jackknife"


def test_the_patients_are_what_an_interval_rests_on(clustered: Draw) -> None:
    """The same images as patients of their own would seem to know more."""
    data = clustered(3, n_patients=30, spread=1.5)
    by_patient = describe_figures(images_of(data), Resampling(200, 0))
    n_images = len(data.labels)
    single = Cases("image", "image", data.labels, data.probabilities, data.probabilities >= 0.5, None, n_images)
    by_image = describe_figures(single, Resampling(200, 0))
    for name in ("auroc", "accuracy", "specificity", "brier"):
        assert by_patient[name]["value"] == by_image[name]["value"]
        assert np.ptp(by_patient[name]["ci"]) > 1.3 * np.ptp(by_image[name]["ci"])


def test_where_each_case_is_its_own_patient_the_auroc_is_delongs_and_rates_are_wilsons(clustered: Draw) -> None:
    data = clustered(4, n_patients=80, images_each=1)
    block = describe_figures(alone(data.labels, data.probabilities), Resampling(200, 0))
    expected = delong_interval(data.labels, data.probabilities)
    assert isinstance(expected, Interval)
    assert block["auroc"]["ci"] == [expected.low, expected.high]
    assert block["auroc"]["method"] == "DeLong"
    (tn, fp), (fn, tp) = block["confusion"]
    shares = {
        "accuracy": (tn + tp, 80),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
    }
    assert set(shares) == set(RATES)
    for name, (right, n) in shares.items():
        interval = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert block[name]["ci"] == pytest.approx([interval.low, interval.high])
        assert block[name]["method"] == "Wilson"
    assert {block[name]["method"] for name in ("auprc", "balanced_accuracy", "f1", "brier")} == {"jackknife"}


def test_images_of_unknown_patients_are_not_taken_for_independent_cases(clustered: Draw) -> None:
    data = clustered(5, n_patients=40, images_each=2)
    unknown = Cases("image", "image", data.labels, data.probabilities, data.probabilities >= 0.5, None, 80)
    block = describe_figures(unknown, Resampling(200, 0))
    assert {block[name]["method"] for name in metrics.FIGURES} == {"jackknife"}


def test_with_too_many_patients_for_the_jackknife_the_resamples_alone_make_the_interval(
    clustered: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clustered(6, n_patients=30)
    monkeypatch.setattr("clearmargin.evaluation.figures.MOST_JACKKNIFED", 29)
    monkeypatch.setattr(bootstrap, "MOST_JACKKNIFED", 29)
    block = describe_figures(images_of(data), Resampling(200, 0))
    assert {block[name]["method"] for name in metrics.FIGURES} == {"widened percentile"}


@pytest.mark.parametrize("noun", ["image", "slide", "patient"])
def test_an_undefined_figure_is_null_with_the_reason(noun: str) -> None:
    patients = np.repeat(np.arange(21), 4)
    benign = np.zeros(84, dtype=np.int64)
    rest = (patients, 21)
    undefined = {"value": None, "ci": None}
    low = np.full(84, 0.1)
    block = describe_figures(Cases(noun, "patient", benign, low, low > 0.5, *rest), Resampling(100, 0))
    for name in ("auroc", "auprc", "balanced_accuracy", "sensitivity"):
        assert block[name] == undefined | {"reason": f"no malignant {noun}"}
    assert block["ppv"] == undefined | {"reason": "nothing was called malignant"}
    assert block["f1"] == undefined | {"reason": f"no malignant {noun}, and nothing was called malignant"}
    high = np.full(84, 0.9)
    block = describe_figures(Cases(noun, "patient", benign + 1, high, high > 0.5, *rest), Resampling(100, 0))
    for name in ("auroc", "balanced_accuracy", "specificity"):
        assert block[name] == undefined | {"reason": f"no benign {noun}"}
    assert block["npv"] == undefined | {"reason": "nothing was called benign"}
    assert block["auprc"]["value"] == 1.0


def test_a_perfect_figure_has_the_exact_binomial_interval_over_its_patients() -> None:
    patients = np.repeat(np.arange(21), 4)
    low = np.full(84, 0.1)
    cases = Cases("image", "patient", np.zeros(84, dtype=np.int64), low, low > 0.5, patients, 21)
    specificity = describe_figures(cases, Resampling(100, 0))["specificity"]
    assert specificity["value"] == 1.0
    assert specificity["ci"] == pytest.approx([0.025 ** (1 / 21), 1.0])
    assert specificity["method"] == "exact binomial"
    assert "exact binomial" in specificity["note"]


def test_one_patient_has_values_but_no_intervals(clustered: Draw) -> None:
    block = describe_figures(images_of(clustered(6, n_patients=1)), Resampling(100, 0))
    for name in metrics.FIGURES:
        assert block[name]["value"] is not None
        assert block[name]["ci"] is None
        assert block[name]["reason"] == "one patient: an interval over patients cannot be computed"


def test_a_figure_missing_from_too_many_resamples_has_no_interval(clustered: Draw) -> None:
    data = clustered(7, n_patients=30)
    labels = np.zeros(600, dtype=np.int64)
    labels[:5] = 1  # of the first patient alone, who is absent from about 36 % of the resamples
    cases = Cases("image", "patient", labels, data.probabilities, data.probabilities >= 0.5, data.patients, 30)
    sensitivity = describe_figures(cases, Resampling(200, 0))["sensitivity"]
    assert sensitivity["value"] is not None
    assert sensitivity["ci"] is None
    assert sensitivity["reason"].startswith("defined in only 1")
    assert sensitivity["reason"].endswith("of 200 resamples of patients; 90% are needed")


def test_an_interval_that_would_not_hold_its_own_value_is_widened_and_says_so(clustered: Draw) -> None:
    """Of a perfectly calibrated model the resampled ECE is larger than the ECE, in about a quarter of studies."""
    widened = 0
    patients = np.repeat(np.arange(50), 20)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        probabilities = rng.random(1_000)
        labels = (rng.random(1_000) < probabilities).astype(np.int64)
        cases = Cases("image", "patient", labels, probabilities, probabilities >= 0.5, patients, 50)
        figures = describe_figures(cases, Resampling(200, 0))
        for name in metrics.FIGURES:
            low, high = figures[name]["ci"]
            assert low <= figures[name]["value"] <= high
            if "note" in figures[name]:
                widened += 1
                assert name == "ece"
                assert low == figures[name]["value"]
                assert figures[name]["method"] == "widened percentile"
                assert figures[name]["note"].startswith("the resamples of patients lie above the value")
    assert 1 <= widened <= 12


def choosing(data: Any, resampling: Resampling) -> tuple[NDArray[np.float64], int]:
    thresholds = resampled_thresholds(
        data.labels,
        data.probabilities,
        data.patients,
        rule="balanced",
        resamples=resampling.resamples,
        seed=resampling.seed,
    )
    return thresholds, len(np.unique(data.patients))


def rows_of(data: Any, drawn: NDArray[np.int64]) -> NDArray[np.intp]:
    return np.concatenate([np.flatnonzero(data.patients == patient) for patient in drawn])


def test_the_interval_with_the_choice_is_that_of_choosing_anew_on_resampled_validation_patients(
    clustered: Draw,
) -> None:
    """By naive loops: validation patients are drawn and the threshold chosen on them, then test patients."""
    validation, test = clustered(8, n_patients=12, images_each=10), clustered(9, n_patients=15, images_each=10)
    threshold = choose_operating_point(validation.labels, validation.probabilities, rule="balanced").threshold
    resampling = Resampling(60, 5)
    block = describe_figures(images_of(test, threshold), resampling, chosen=choosing(validation, resampling))
    drawn: dict[str, list[float]] = {name: [] for name in metrics.THRESHOLD_FIGURES}
    for resample in range(60):
        fit = rows_of(validation, draw_units(12, resample=resample, seed=5, stream=VALIDATION_STREAM))
        point = choose_operating_point(validation.labels[fit], validation.probabilities[fit], rule="balanced")
        rows = rows_of(test, draw_units(15, resample=resample, seed=5))
        called = test.probabilities[rows] >= point.threshold
        for name, values in drawn.items():
            values.append(ORACLES[name](test.labels[rows], test.probabilities[rows], called))
    for name, values in drawn.items():
        called = test.probabilities >= threshold
        degrees = min(11, degrees_of_freedom(name, test.labels, test.patients, called=called))
        stretch = stats.t.isf(0.025, degrees) / stats.norm.isf(0.025) * math.sqrt((degrees + 1) / degrees)
        value = block[name]["value"]
        ends = value + (np.quantile(values, (0.025, 0.975)) - value) * stretch
        assert block[name]["ci"] == pytest.approx([max(0, min(ends[0], value)), min(1, max(ends[1], value))], abs=1e-9)
        assert block[name]["method"] == "widened percentile"


def test_the_interval_at_the_stored_threshold_is_the_one_without_the_choice(clustered: Draw) -> None:
    validation, test = clustered(10, n_patients=20), clustered(11, n_patients=25)
    resampling = Resampling(200, 1)
    without = describe_figures(images_of(test), resampling)
    block = describe_figures(images_of(test), resampling, chosen=choosing(validation, resampling))
    for name in metrics.FIGURES:
        assert block[name]["value"] == without[name]["value"]
        if name in metrics.THRESHOLD_FIGURES:
            assert block[name]["ci_fixed"] == without[name]["ci"]
            assert block[name]["ci"] != without[name]["ci"]
        else:  # what no threshold touches
            assert block[name] == without[name]


def test_the_choice_makes_intervals_wider_and_the_wider_the_fewer_patients_chose(clustered: Draw) -> None:
    names = ("sensitivity", "specificity")
    widths: dict[int, list[float]] = {10: [], 200: []}
    fixed: list[float] = []
    for seed in range(12):
        test = clustered(100 + seed, n_patients=40, images_each=10)
        for n_validation, found in widths.items():
            validation = clustered(200 + seed, n_patients=n_validation, images_each=10)
            point = choose_operating_point(validation.labels, validation.probabilities, rule="balanced")
            resampling = Resampling(200, seed)
            block = describe_figures(
                images_of(test, point.threshold), resampling, names=names, chosen=choosing(validation, resampling)
            )
            found += [np.ptp(block[name]["ci"]) for name in names]
            fixed += [np.ptp(block[name]["ci_fixed"]) for name in names]
    few, many, none = np.mean(widths[10]), np.mean(widths[200]), np.mean(fixed)
    assert few > 1.3 * many
    assert many > none


def test_study_after_study_the_interval_with_the_choice_holds_the_sensitivity_of_the_whole_procedure(
    clustered: Draw,
) -> None:
    """Validation and test patients anew each time: at a threshold taken as given, the promise would not be kept."""
    studies = []
    for seed in range(60):
        validation, test = clustered(500 + seed, n_patients=12), clustered(900 + seed, n_patients=30)
        point = choose_operating_point(validation.labels, validation.probabilities, rule="balanced")
        resampling = Resampling(200, seed)
        block = describe_figures(
            images_of(test, point.threshold),
            resampling,
            names=("sensitivity",),
            chosen=choosing(validation, resampling),
        )
        studies.append(block["sensitivity"])
    truth = np.mean([study["value"] for study in studies])
    held, fixed = (
        np.mean([study[name][0] <= truth <= study[name][1] for study in studies]) for name in ("ci", "ci_fixed")
    )
    assert held >= 0.9
    assert fixed < 0.8


def test_where_no_resample_could_choose_a_threshold_the_interval_is_missing_and_the_fixed_one_stays(
    clustered: Draw,
) -> None:
    cases = images_of(clustered(12, n_patients=25))
    block = describe_figures(cases, Resampling(100, 0), chosen=(np.full(100, np.nan), 8))
    for name in metrics.THRESHOLD_FIGURES:
        assert block[name]["ci"] is None
        assert block[name]["reason"] == "defined in only 0 of 100 resamples of patients; 90% are needed"
        assert block[name]["ci_fixed"] == describe_figures(cases, Resampling(100, 0))[name]["ci"]


def test_figures_that_are_not_asked_for_are_not_there(clustered: Draw) -> None:
    cases = images_of(clustered(13, n_patients=20))
    whole = describe_figures(cases, Resampling(100, 0))
    for names in (("auroc",), ("ppv", "sensitivity"), ("brier", "f1")):
        part = describe_figures(cases, Resampling(100, 0), names=names)
        assert part == {"confusion": whole["confusion"]} | {name: whole[name] for name in names}
