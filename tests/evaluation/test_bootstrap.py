from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as oracle

from clearmargin.errors import DataError
from clearmargin.evaluation import metrics, weighted
from clearmargin.evaluation.bootstrap import (
    MOST_JACKKNIFED,
    agreement_interval,
    draw_units,
    jackknife_figures,
    patient_intervals,
    percentile_interval,
    resampled_figures,
    why_no_interval,
)

Draw = Callable[..., Any]


def resample_rows(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    patients: NDArray[Any],
    *,
    threshold: float,
    resamples: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """The straightforward bootstrap: really copies the rows of each drawn patient, then computes each figure."""
    names = np.unique(patients)
    values: dict[str, list[float]] = {name: [] for name in metrics.FIGURES}
    for resample in range(resamples):
        drawn = draw_units(len(names), resample=resample, seed=seed)
        rows = np.concatenate([np.flatnonzero(patients == names[unit]) for unit in drawn])
        table = metrics.confusion(labels[rows], probabilities[rows] >= threshold)
        for name, at_threshold in metrics.THRESHOLD_FIGURES.items():
            values[name].append(float(at_threshold(table)))
        for name, figure in metrics.PROBABILITY_FIGURES.items():
            values[name].append(figure(labels[rows], probabilities[rows]))
    return {name: np.array(of_figure) for name, of_figure in values.items()}


def assert_same(values: dict[str, NDArray[np.float64]], expected: dict[str, NDArray[np.float64]]) -> None:
    assert set(values) == set(expected) == set(metrics.FIGURES)
    for name, of_figure in expected.items():
        np.testing.assert_allclose(values[name], of_figure, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("steps", [None, 10, 2])
@pytest.mark.parametrize(("n_patients", "images_each"), [(2, 3), (12, 7), (40, 25)])
def test_figures_equal_those_of_really_resampled_rows(
    clustered: Draw, n_patients: int, images_each: int, steps: int | None
) -> None:
    data = clustered(3, n_patients=n_patients, images_each=images_each, steps=steps)
    settings: dict[str, Any] = {"threshold": 0.4, "resamples": 60, "seed": 11}
    assert_same(
        resampled_figures(data.labels, data.probabilities, data.patients, **settings),
        resample_rows(data.labels, data.probabilities, data.patients, **settings),
    )


def test_without_patients_every_image_is_its_own_unit(clustered: Draw) -> None:
    data = clustered(4, n_patients=10, images_each=12, steps=20)
    settings: dict[str, Any] = {"threshold": 0.5, "resamples": 60, "seed": 1}
    each = np.arange(len(data.labels))
    expected = resample_rows(data.labels, data.probabilities, each, **settings)
    assert_same(resampled_figures(data.labels, data.probabilities, None, **settings), expected)


@pytest.mark.parametrize("common", [0, 1])
def test_figures_under_extreme_imbalance_equal_those_of_really_resampled_rows(common: int) -> None:
    rng = np.random.default_rng(5)
    labels = np.full(600, common)
    labels[:2] = 1 - common
    probabilities = rng.integers(0, 8, size=600) / 7  # includes exactly 0 and 1
    patients = rng.integers(0, 15, size=600)
    settings: dict[str, Any] = {"threshold": 1.0, "resamples": 80, "seed": 2}
    expected = resample_rows(labels, probabilities, patients, **settings)
    assert np.isnan(expected["auroc"]).any()
    assert_same(resampled_figures(labels, probabilities, patients, **settings), expected)


def test_ranking_figures_with_ties_equal_weighted_scikit_learn(clustered: Draw) -> None:
    data = clustered(6, n_patients=30, images_each=40, steps=15)
    values = resampled_figures(
        data.labels, data.probabilities, data.patients, threshold=0.5, resamples=50, seed=9, figures=("auroc", "auprc")
    )
    assert list(values) == ["auroc", "auprc"]
    for resample in range(50):
        counts = np.bincount(draw_units(30, resample=resample, seed=9), minlength=30)
        weights = counts[data.patients].astype(float)
        auroc = oracle.roc_auc_score(data.labels, data.probabilities, sample_weight=weights)
        auprc = oracle.average_precision_score(data.labels, data.probabilities, sample_weight=weights)
        assert values["auroc"][resample] == pytest.approx(auroc, abs=1e-12)
        assert values["auprc"][resample] == pytest.approx(auprc, abs=1e-12)


def test_order_of_rows_and_names_of_patients_in_order_do_not_matter(clustered: Draw) -> None:
    data = clustered(7, steps=50)
    order = np.random.default_rng(0).permutation(len(data.labels))
    named = np.array([f"patient {patient:03d}" for patient in data.patients], dtype=object)
    settings: dict[str, Any] = {"threshold": 0.5, "resamples": 300, "seed": 0}
    first = resampled_figures(data.labels, data.probabilities, data.patients, **settings)
    assert_same(resampled_figures(data.labels[order], data.probabilities[order], named[order], **settings), first)


def test_result_depends_on_neither_chunks_nor_threads(clustered: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clustered(8)
    settings: dict[str, Any] = {"threshold": 0.5, "resamples": 301, "seed": 0}
    first = resampled_figures(data.labels, data.probabilities, data.patients, **settings)
    monkeypatch.setattr(weighted, "_MOST_ROWS", 7)
    monkeypatch.setattr(weighted, "_MOST_THREADS", 1)
    second = resampled_figures(data.labels, data.probabilities, data.patients, **settings)
    assert_same(second, first)
    with ThreadPoolExecutor(2) as pool:
        run = lambda _: resampled_figures(data.labels, data.probabilities, data.patients, **settings)  # noqa: E731
        for again in pool.map(run, range(2)):
            assert_same(again, second)


def test_fewer_figures_have_the_same_values(clustered: Draw) -> None:
    data = clustered(9)
    settings: dict[str, Any] = {"threshold": 0.5, "resamples": 100, "seed": 3}
    everything = resampled_figures(data.labels, data.probabilities, data.patients, **settings)
    some = resampled_figures(data.labels, data.probabilities, data.patients, **settings, figures=("ece", "ppv"))
    assert list(some) == ["ppv", "ece"]
    for name, values in some.items():
        np.testing.assert_array_equal(values, everything[name])


def test_another_seed_gives_other_resamples(clustered: Draw) -> None:
    data = clustered(10)
    first, second = (
        resampled_figures(data.labels, data.probabilities, data.patients, threshold=0.5, resamples=50, seed=seed)
        for seed in (0, 1)
    )
    assert not np.array_equal(first["auroc"], second["auroc"])


@pytest.mark.parametrize("steps", [None, 10])
@pytest.mark.parametrize("by_image", [False, True])
def test_own_thresholds_give_the_figures_of_one_threshold_at_a_time(
    clustered: Draw, by_image: bool, steps: int | None
) -> None:
    data = clustered(13, n_patients=15, images_each=9, steps=steps)
    groups = None if by_image else data.patients
    # Thresholds that repeat, that equal a probability, and that call everything or nothing malignant.
    thresholds = np.random.default_rng(0).choice(np.r_[data.probabilities[:20], 0.0, 0.5, 1.5], size=70)
    values = resampled_figures(data.labels, data.probabilities, groups, threshold=thresholds, resamples=70, seed=4)
    for resample, threshold in enumerate(thresholds):
        alone = resampled_figures(
            data.labels, data.probabilities, groups, threshold=float(threshold), resamples=70, seed=4
        )
        for name in metrics.FIGURES:
            np.testing.assert_array_equal(values[name][resample], alone[name][resample], err_msg=name)


def test_own_thresholds_give_the_figures_of_really_resampled_rows(clustered: Draw) -> None:
    data = clustered(14, n_patients=12, images_each=8, steps=12)
    thresholds = np.random.default_rng(1).random(40)
    values = resampled_figures(
        data.labels, data.probabilities, data.patients, threshold=thresholds, resamples=40, seed=3
    )
    for resample, threshold in enumerate(thresholds):
        rows = np.concatenate(
            [np.flatnonzero(data.patients == unit) for unit in draw_units(12, resample=resample, seed=3)]
        )
        table = metrics.confusion(data.labels[rows], data.probabilities[rows] >= threshold)
        for name, figure in metrics.THRESHOLD_FIGURES.items():
            np.testing.assert_array_equal(values[name][resample], figure(table), err_msg=name)


def test_a_resample_without_a_threshold_lacks_the_figures_at_the_threshold_only(clustered: Draw) -> None:
    data = clustered(15)
    settings: dict[str, Any] = {"resamples": 3, "seed": 0}
    values = resampled_figures(
        data.labels, data.probabilities, data.patients, threshold=np.array([0.5, np.nan, 0.4]), **settings
    )
    full = resampled_figures(data.labels, data.probabilities, data.patients, threshold=0.5, **settings)
    for name in metrics.FIGURES:
        undefined = name in metrics.THRESHOLD_FIGURES
        np.testing.assert_array_equal(np.isnan(values[name]), [False, undefined, False])
    for name in metrics.PROBABILITY_FIGURES:
        np.testing.assert_array_equal(values[name], full[name])


def test_too_few_thresholds_are_refused(clustered: Draw) -> None:
    data = clustered(16)
    with pytest.raises(ValueError, match="broadcast"):
        resampled_figures(
            data.labels, data.probabilities, data.patients, threshold=np.array([0.5, 0.4]), resamples=3, seed=0
        )


def test_a_probability_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no threshold can decide"):
        resampled_figures(np.array([0, 1]), np.array([0.5, np.nan]), None, threshold=0.5, resamples=3, seed=0)


@pytest.mark.parametrize("steps", [None, 10])
def test_the_jackknife_really_leaves_each_patient_out(clustered: Draw, steps: int | None) -> None:
    data = clustered(17, n_patients=25, images_each=6, steps=steps)
    named = np.array([f"patient {patient:03d}" for patient in data.patients], dtype=object)
    values = jackknife_figures(data.labels, data.probabilities, named, threshold=0.4)
    assert list(values) == list(metrics.FIGURES)
    for unit in range(25):
        rows = data.patients != unit
        table = metrics.confusion(data.labels[rows], data.probabilities[rows] >= 0.4)
        for name, figure in metrics.THRESHOLD_FIGURES.items():
            assert values[name][unit] == pytest.approx(float(figure(table)), abs=1e-12), name
        for name, figure in metrics.PROBABILITY_FIGURES.items():
            assert values[name][unit] == pytest.approx(figure(data.labels[rows], data.probabilities[rows]), abs=1e-12)


def test_the_jackknife_is_undefined_without_the_only_malignant_patient() -> None:
    labels, patients = np.array([0, 1, 0, 0]), np.array([0, 0, 1, 2])
    values = jackknife_figures(labels, np.array([0.1, 0.9, 0.4, 0.6]), patients, threshold=0.5)
    np.testing.assert_array_equal(np.isnan(values["auroc"]), [True, False, False])
    np.testing.assert_array_equal(values["specificity"], [1 / 2, 1 / 2, 1.0])
    alone = jackknife_figures(np.array([0, 1]), np.array([0.1, 0.9]), np.array([0, 0]), threshold=0.5)
    assert all(np.isnan(of_figure).all() for of_figure in alone.values())


def test_the_jackknife_refuses_more_units_than_it_is_made_for() -> None:
    n_units = MOST_JACKKNIFED + 1
    with pytest.raises(ValueError, match="at most 2,000 units, and there are 2,001"):
        jackknife_figures(np.arange(n_units) % 2, np.full(n_units, 0.5), None, threshold=0.5)


def test_weighted_figures_count_each_patient_as_often_as_told(clustered: Draw) -> None:
    data = clustered(18, n_patients=8, images_each=10, steps=9)
    counts = np.random.default_rng(0).integers(0, 4, size=(30, 8))
    values = weighted.weighted_figures(data.labels, data.probabilities, data.patients, counts, threshold=0.4)
    for row, of_row in enumerate(counts):
        rows = np.repeat(np.arange(80), of_row[data.patients])
        table = metrics.confusion(data.labels[rows], data.probabilities[rows] >= 0.4)
        assert values["f1"][row] == pytest.approx(float(metrics.f1(table)), abs=1e-12)
        assert values["ece"][row] == pytest.approx(metrics.ece(data.labels[rows], data.probabilities[rows]), abs=1e-12)
    with pytest.raises(ValueError, match=r"shape \(30, 7\), and there are 8 units"):
        weighted.weighted_figures(data.labels, data.probabilities, data.patients, counts[:, 1:], threshold=0.4)


def test_stream_0_draws_what_a_generator_of_seed_and_resample_draws() -> None:
    for seed, resample in ((0, 0), (7, 3), (2**40, 1_999)):
        expected = np.random.default_rng((seed, resample)).integers(50, size=50)
        np.testing.assert_array_equal(draw_units(50, resample=resample, seed=seed), expected)


def test_streams_draw_independently(clustered: Draw) -> None:
    streams = [
        np.concatenate([draw_units(20, resample=number, seed=5, stream=stream) for number in range(1_000)])
        for stream in range(3)
    ]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        agreeing = int((streams[first] == streams[second]).sum())
        assert abs(agreeing - 1_000) < 5 * math.sqrt(20_000 * 0.05 * 0.95)
    data = clustered(19)
    settings: dict[str, Any] = {"threshold": 0.5, "resamples": 50, "seed": 0}
    values = [
        resampled_figures(data.labels, data.probabilities, data.patients, **settings, stream=stream)["auroc"]
        for stream in (0, 1)
    ]
    assert abs(np.corrcoef(values)[0, 1]) < 0.5


def test_draws_are_uniform_over_patients_with_replacement() -> None:
    draws = np.concatenate([draw_units(10, resample=number, seed=0) for number in range(2_000)])
    counts = np.bincount(draws, minlength=10)
    assert len(counts) == 10
    assert abs(counts - 2_000).max() < 5 * math.sqrt(20_000 * 0.1 * 0.9)
    assert len(np.unique(draw_units(10, resample=0, seed=0))) < 10


def test_intervals_are_the_percentiles_of_the_resamples(clustered: Draw) -> None:
    data = clustered(11)
    settings: dict[str, Any] = {"threshold": 0.5, "resamples": 400, "seed": 5}
    values = resampled_figures(data.labels, data.probabilities, data.patients, **settings)
    intervals = patient_intervals(data.labels, data.probabilities, data.patients, **settings)
    assert list(intervals) == list(metrics.FIGURES)
    for name, interval in intervals.items():
        assert interval == tuple(np.quantile(values[name], [0.025, 0.975]))


def test_one_patient_has_no_interval_and_the_reason_says_so(clustered: Draw) -> None:
    data = clustered(12, n_patients=1, images_each=30)
    settings: dict[str, Any] = {"threshold": 0.5, "resamples": 100, "seed": 0}
    assert set(patient_intervals(data.labels, data.probabilities, data.patients, **settings).values()) == {None}
    values = resampled_figures(data.labels, data.probabilities, data.patients, **settings)["auroc"]
    text = why_no_interval(values, n_units=1, unit="patient")
    assert text == "one patient: an interval over patients cannot be computed"


def test_an_interval_needs_nine_tenths_of_the_resamples() -> None:
    values = np.linspace(0.0, 1.0, 1_000)
    values[:100] = np.nan
    low, high = percentile_interval(values) or (math.nan, math.nan)
    np.testing.assert_allclose((low, high), np.quantile(values[100:], [0.025, 0.975]))
    values[100] = np.nan
    assert percentile_interval(values) is None
    text = why_no_interval(values, n_units=9, unit="patient")
    assert text == "defined in only 899 of 1,000 resamples of patients; 90% are needed"


def test_a_perfect_score_has_no_interval_without_width() -> None:
    labels = np.repeat([0, 1], 40)
    patients = np.arange(80) // 4
    intervals = patient_intervals(labels, np.linspace(0.01, 0.99, 80), patients, threshold=0.5, resamples=200, seed=0)
    assert intervals["auroc"] is None
    assert intervals["brier"] is not None
    assert "without width" in why_no_interval(np.ones(200), n_units=20, unit="patient")


def test_figures_of_one_mind_get_the_exact_binomial_interval() -> None:
    exact = stats.binomtest(12, 12).proportion_ci(method="exact")
    assert agreement_interval(1.0, np.ones(200), n_units=12) == pytest.approx((exact.low, 1.0))
    none = stats.binomtest(0, 12).proportion_ci(method="exact")
    assert agreement_interval(0.0, np.zeros(200), n_units=12) == pytest.approx((0.0, none.high))
    for value, values, n_units in (
        (0.5, np.full(200, 0.5), 12),
        (1.0, np.ones(200), 1),
        (1.0, np.r_[0.9, np.ones(9)], 12),
    ):
        assert agreement_interval(value, values, n_units=n_units) is None


def test_one_class_leaves_the_other_figures_their_intervals() -> None:
    rng = np.random.default_rng(0)
    intervals = patient_intervals(
        np.zeros(200, dtype=np.int64), rng.random(200), np.arange(200) // 10, threshold=0.5, resamples=200, seed=0
    )
    undefined = {"auroc", "auprc", "balanced_accuracy", "sensitivity"}
    assert all(intervals[name] is None for name in undefined)
    assert all(intervals[name] is not None for name in ("specificity", "accuracy", "brier", "ece"))


def test_a_missing_patient_is_named_and_never_guessed() -> None:
    patients = np.array(["a", None, "b"], dtype=object)
    with pytest.raises(DataError, match="1 of 3 images have no patient: give every patient_id"):
        resampled_figures(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]), patients, threshold=0.5, resamples=10, seed=0)


def test_no_image_is_an_error_that_says_so() -> None:
    nothing = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="no image to resample"):
        resampled_figures(nothing, nothing.astype(float), None, threshold=0.5, resamples=10, seed=0)
