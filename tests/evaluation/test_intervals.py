from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from sklearn import metrics as oracle

from clearmargin.evaluation import metrics
from clearmargin.evaluation.bootstrap import jackknife_figures, resampled_figures
from clearmargin.evaluation.intervals import (
    LEAST_RESAMPLES,
    Interval,
    delong_interval,
    difference_interval,
    figure_interval,
    p_value,
    wilson_interval,
)

Draw = Callable[..., Any]


def have_interval(found: Interval | str) -> Interval:
    assert isinstance(found, Interval), found
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_gets_a_jackknife_interval_that_holds_it(clustered: Draw, seed: int) -> None:
    data = clustered(seed, n_patients=25, images_each=10)
    resampled = resampled_figures(
        data.labels, data.probabilities, data.patients, threshold=0.4, resamples=300, seed=seed
    )
    jackknife = jackknife_figures(data.labels, data.probabilities, data.patients, threshold=0.4)
    table = metrics.confusion(data.labels, data.probabilities >= 0.4)
    for name in metrics.FIGURES:
        value = float(
            metrics.THRESHOLD_FIGURES[name](table)
            if name in metrics.THRESHOLD_FIGURES
            else metrics.PROBABILITY_FIGURES[name](data.labels, data.probabilities)
        )
        interval = have_interval(figure_interval(value, resampled[name], n_units=25, jackknife=jackknife[name]))
        assert 0 < interval.low <= value <= interval.high < 1, name
        if name != "ece":  # which resampling biases
            assert (interval.method, interval.note) == ("jackknife", None)


def test_the_jackknife_interval_of_a_mean_is_that_of_student() -> None:
    # For a mean the jackknife's spread is the standard error itself; near 0.5 the logit scale is straight.
    values = 0.5 + 0.001 * np.random.default_rng(0).normal(size=12)
    without = (values.sum() - values) / 11
    drawn = np.random.default_rng(1).choice(values, size=(500, 12)).mean(axis=1)
    interval = have_interval(figure_interval(float(values.mean()), drawn, n_units=12, jackknife=without))
    expected = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-8)


def test_degrees_of_freedom_may_be_any_number_and_are_one_less_than_the_units_unless_given() -> None:
    values = np.linspace(0.4, 0.8, 401)
    without = 0.6 + 0.002 * np.random.default_rng(0).normal(size=20)
    for jackknife in (None, without):
        same = (
            figure_interval(0.6, values, n_units=20, jackknife=jackknife),
            figure_interval(0.6, values, n_units=20, degrees=19.0, jackknife=jackknife),
        )
        assert same[0] == same[1]
        fewer = have_interval(figure_interval(0.6, values, n_units=20, degrees=7.5, jackknife=jackknife))
        reach = special.logit(fewer.high) - special.logit(0.6) if jackknife is not None else fewer.high - 0.6
        usual = have_interval(same[0]).high
        expected = special.logit(usual) - special.logit(0.6) if jackknife is not None else usual - 0.6
        ratio = stats.t.ppf(0.975, 7.5) / stats.t.ppf(0.975, 19)
        if jackknife is None:
            ratio *= math.sqrt(8.5 / 7.5) / math.sqrt(20 / 19)
        assert reach / expected == pytest.approx(ratio)


@pytest.mark.parametrize("n_units", [10, 100])
def test_one_patient_with_all_the_errors_leaves_an_interval_of_use(n_units: int) -> None:
    value = 1 - 1 / n_units
    without = np.append(np.full(n_units - 1, 1 - 1 / (n_units - 1)), 1.0)
    drawn = np.random.default_rng(0).binomial(n_units, value, size=400) / n_units
    interval = have_interval(figure_interval(value, drawn, n_units=n_units, jackknife=without))
    assert interval.method == "jackknife"
    exact = stats.binomtest(n_units - 1, n_units).proportion_ci(method="exact")
    assert interval.low == pytest.approx(exact.low, abs=0.2)
    assert exact.high - 0.02 < interval.high < 1


@pytest.mark.parametrize("jackknife", [None, np.r_[np.nan, np.full(29, 0.6)], np.full(30, 0.6)])
def test_without_a_jackknife_of_use_percentiles_are_widened(jackknife: Any) -> None:
    values = np.linspace(0.4, 0.8, 401)
    interval = have_interval(figure_interval(0.6, values, n_units=30, jackknife=jackknife))
    reach = 0.19 * stats.t.ppf(0.975, 29) / stats.norm.ppf(0.975) * math.sqrt(30 / 29)
    assert (interval.low, interval.high) == pytest.approx((0.6 - reach, 0.6 + reach))
    assert (interval.method, interval.note) == ("widened percentile", None)


def test_widening_fades_with_units_and_stays_within_0_and_1() -> None:
    values = np.linspace(0.8, 1.0, 401)
    widths = []
    for n_units in (2, 5, 30, 1_000, 1_000_000):
        interval = have_interval(figure_interval(0.92, values, n_units=n_units))
        assert 0 <= interval.low < interval.high <= 1
        widths.append(interval.high - interval.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(0.19, abs=1e-5)


def test_figures_of_one_mind_get_the_exact_binomial_interval_and_a_note() -> None:
    exact = stats.binomtest(12, 12).proportion_ci(method="exact")
    interval = have_interval(figure_interval(1.0, np.ones(200), n_units=12, jackknife=np.ones(12)))
    assert (interval.low, interval.high) == pytest.approx((exact.low, 1.0))
    assert interval.method == "exact binomial"
    assert interval.note == "the same in every resample of patients: the exact binomial interval over patients"


@pytest.mark.parametrize(
    ("values", "n_units", "reason"),
    [
        (np.ones(50), 1, "one image: an interval over images cannot be computed"),
        (np.full(50, 0.5), 9, "the resamples of images agree, and an interval without width would look like certainty"),
        (np.r_[np.full(5, 0.4), np.full(4, np.nan)], 9, "defined in only 5 of 9 resamples of images; 90% are needed"),
        (np.r_[np.full(6, 0.4), np.full(4, np.nan)], 1, "defined in only 6 of 10 resamples of images; 90% are needed"),
    ],
)
def test_the_reason_for_no_interval_is_given_in_words(values: Any, n_units: int, reason: str) -> None:
    assert figure_interval(float(values[0]), values, n_units=n_units, unit="image") == reason


@pytest.mark.parametrize(("value", "side"), [(0.1, "above"), (0.9, "below")])
def test_an_interval_of_a_biased_figure_is_widened_to_hold_it_and_says_so(value: float, side: str) -> None:
    jackknife = np.linspace(value - 0.01, value + 0.01, 40)
    found = figure_interval(value, np.linspace(0.3, 0.7, 200), n_units=40, jackknife=jackknife)
    interval = have_interval(found)
    assert value in (interval.low, interval.high)
    assert f"lie {side} the value" in str(interval.note)
    assert interval.method == "widened percentile"


def test_delong_interval_holds_the_truth_about_95_times_in_100() -> None:
    held, simulations = 0, 1_000
    distance = math.sqrt(2) * stats.norm.ppf(0.85)
    labels = np.repeat([0, 1], [40, 25])
    for simulation in range(simulations):
        scores = special.expit(distance * labels + np.random.default_rng(simulation).normal(size=65))
        interval = delong_interval(labels, scores)
        held += isinstance(interval, Interval) and interval.low <= 0.85 <= interval.high
    assert abs(held / simulations - 0.95) < 0.02  # three standard errors of the simulation


def test_delong_interval_surrounds_the_auroc_of_scikit_learn_within_0_and_1() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [12, 5])
    scores = np.round(special.expit(3 * labels + rng.normal(size=17)), 1)
    interval = have_interval(delong_interval(labels, scores))
    assert 0 < interval.low < oracle.roc_auc_score(labels, scores) < interval.high < 1
    assert (interval.method, interval.note) == ("DeLong", None)


@pytest.mark.parametrize("turned", [False, True])
def test_classes_that_do_not_overlap_get_the_exact_binomial_interval(turned: bool) -> None:
    labels = np.repeat([0, 1], [4, 10])
    scores = np.linspace(1, 0, 14) if turned else np.linspace(0, 1, 14)
    interval = have_interval(delong_interval(labels, scores))
    exact = stats.binomtest(0 if turned else 4, 4).proportion_ci(method="exact")
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high))
    assert interval.note == "the classes do not overlap: the exact binomial interval over benign cases"


@pytest.mark.parametrize(
    ("labels", "scores", "reason"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], "no benign case"),
        ([0, 0, 1], [0.1, 0.2, 0.3], "one malignant case: the spread of one cannot be known"),
        ([0, 0, 1, 1], [0.5] * 4, "all probabilities are alike, and an interval without width"),
    ],
)
def test_why_delong_gives_no_interval_is_said_in_words(labels: list[int], scores: list[float], reason: str) -> None:
    assert str(delong_interval(np.array(labels), np.array(scores))).startswith(reason)


def test_wilson_interval_solves_the_score_equation() -> None:
    for successes, n in ((0, 7), (3, 11), (19, 20), (50, 50)):
        interval = wilson_interval(successes, n)
        for end in (interval.low, interval.high):
            distance = (successes / n - end) ** 2 - stats.norm.ppf(0.975) ** 2 * end * (1 - end) / n
            assert distance == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="n"):
        wilson_interval(3, 2)


def test_difference_interval_is_not_cut_at_0_or_1() -> None:
    interval = have_interval(difference_interval(0.9, np.linspace(0.5, 1.3, 401), n_units=1_000))
    assert interval.high > 1
    interval = have_interval(difference_interval(-0.9, np.linspace(-1.3, -0.5, 401), n_units=1_000))
    assert interval.low < -1


def test_a_difference_of_means_has_the_interval_and_p_value_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.3, 1, size=15), rng.normal(size=15)
    gaps = first - second
    drawn = rng.choice(gaps, size=(400, 15)).mean(axis=1)
    without = (gaps.sum() - gaps) / 14
    expected = stats.ttest_rel(first, second)
    interval = have_interval(difference_interval(float(gaps.mean()), drawn, n_units=15, jackknife=without))
    assert (interval.low, interval.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert p_value(float(gaps.mean()), drawn, n_units=15, jackknife=without) == pytest.approx(expected.pvalue)


@given(
    difference=st.floats(-0.4, 0.4),
    spread=st.floats(0.01, 0.3),
    skew=st.floats(0.1, 3),
    n_units=st.integers(2, 3_000),
    degrees=st.none() | st.floats(1, 3_000),
    resamples=st.integers(LEAST_RESAMPLES, 500),
    with_jackknife=st.booleans(),
)
def test_p_is_below_5_in_100_exactly_when_the_interval_excludes_0(
    *,
    difference: float,
    spread: float,
    skew: float,
    n_units: int,
    degrees: float | None,
    resamples: int,
    with_jackknife: bool,
) -> None:
    rng = np.random.default_rng(0)
    drawn = difference + spread * (rng.gamma(skew, size=resamples) - skew)
    jackknife = difference + spread / 10 * rng.normal(size=min(n_units, 50)) if with_jackknife else None
    settings: dict[str, Any] = {"n_units": n_units, "degrees": degrees, "jackknife": jackknife}
    interval = have_interval(difference_interval(difference, drawn, **settings))
    p = p_value(difference, drawn, **settings)
    assert 0 <= p <= 1
    assert (p < 0.05) == (interval.low > 0 or interval.high < 0)


def test_the_p_value_of_many_units_is_twice_the_share_of_resamples_beyond_0() -> None:
    drawn = np.random.default_rng(0).normal(0.15, 0.1, size=2_000)
    for_shares = p_value(0.15, drawn, n_units=1_000_000)
    assert for_shares == pytest.approx(2 * (drawn <= 0).mean(), abs=2 / 2_000)
    assert p_value(0.9, drawn + 0.75, n_units=1_000_000) == pytest.approx(2 / 2_001)
    assert p_value(0.0, drawn - drawn.mean(), n_units=1_000_000) > 0.9


def test_turning_the_difference_round_turns_the_interval_and_keeps_p() -> None:
    drawn = np.random.default_rng(0).gamma(2, 0.1, size=300) - 0.1
    forth, back = difference_interval(0.1, drawn, n_units=20), difference_interval(-0.1, -drawn, n_units=20)
    assert (have_interval(forth).low, have_interval(forth).high) == pytest.approx(
        (-have_interval(back).high, -have_interval(back).low)
    )
    assert p_value(0.1, drawn, n_units=20) == pytest.approx(p_value(-0.1, -drawn, n_units=20))


@pytest.mark.parametrize(
    ("values", "n_units", "reason"),
    [
        (np.zeros(100), 9, "the resamples of patients agree"),
        (np.linspace(0, 1, 100), 1, "one patient: an interval over patients cannot be computed"),
        (np.linspace(0, 1, 39), 9, "39 resamples: a 95% interval needs 40 or more"),
        (np.r_[np.full(80, np.nan), np.linspace(0, 1, 20)], 9, "defined in only 20 of 100 resamples"),
    ],
)
def test_without_an_interval_of_the_difference_there_is_a_reason_and_no_p_value(
    values: Any, n_units: int, reason: str
) -> None:
    assert str(difference_interval(0.1, values, n_units=n_units)).startswith(reason)
    assert math.isnan(p_value(0.1, values, n_units=n_units))
