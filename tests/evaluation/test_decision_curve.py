from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearmargin.errors import DataError
from clearmargin.evaluation.bootstrap import draw_units
from clearmargin.evaluation.decision_curve import decision_curve

STEPS = np.arange(1, 100) / 100


def net_benefit(labels: NDArray[np.int64], called: NDArray[np.bool_], act_from: float) -> float:
    """As the textbook has it."""
    true, false = (called & (labels == 1)).sum(), (called & (labels == 0)).sum()
    return float(true / len(labels) - false / len(labels) * act_from / (1 - act_from))


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([2, 100, 10**6]), st.booleans())
def test_the_curve_is_the_textbook_formula_at_each_threshold(
    seed: int, n_images: int, levels: int, known: bool
) -> None:
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, size=n_images), rng.integers(0, levels + 1, size=n_images) / levels
    patients = rng.integers(0, 5, size=n_images) if known else None
    curve = decision_curve(labels, probabilities, patients, thresholds=STEPS, resamples=1, seed=0)
    everything = np.ones(n_images, dtype=bool)
    for place, step in enumerate(STEPS):
        assert curve.model[place] == pytest.approx(net_benefit(labels, probabilities >= step, step), abs=1e-12)
        assert curve.treat_all[place] == pytest.approx(net_benefit(labels, everything, step), abs=1e-12)


def test_a_table_worked_by_hand() -> None:
    # 100 patients, 20 of them malignant. At 0.1: 18 found, 40 false alarms; at 0.25: 15 found, 12 false alarms.
    labels = np.array([1] * 20 + [0] * 80)
    probabilities = np.array([0.3] * 15 + [0.2] * 3 + [0.05] * 2 + [0.3] * 12 + [0.2] * 28 + [0.05] * 40)
    curve = decision_curve(labels, probabilities, None, thresholds=np.array([0.1, 0.25]), resamples=1, seed=0)
    np.testing.assert_allclose(curve.model, [0.18 - 0.40 / 9, 0.15 - 0.12 / 3])
    np.testing.assert_allclose(curve.treat_all, [0.20 - 0.80 / 9, 0.20 - 0.80 / 3])


def test_a_perfect_model_is_worth_the_share_of_malignant_images_everywhere() -> None:
    labels = np.array([0, 1, 0, 0, 1])
    curve = decision_curve(labels, labels.astype(np.float64), None, thresholds=STEPS, resamples=1, seed=0)
    np.testing.assert_allclose(curve.model, 0.4)
    assert (curve.model >= curve.treat_all).all()


@pytest.mark.parametrize("known", [True, False])
def test_the_interval_is_that_of_the_repeated_rows(clustered: Callable[..., Any], known: bool) -> None:
    data = clustered(5, n_patients=8, images_each=5, steps=20)
    steps = np.array([0.1, 0.35, 0.6])
    units = data.patients if known else np.arange(len(data.labels))
    curve = decision_curve(
        data.labels, data.probabilities, data.patients if known else None, thresholds=steps, resamples=80, seed=9
    )
    values = []
    for resample in range(80):
        drawn = draw_units(units.max() + 1, resample=resample, seed=9)
        rows = np.concatenate([np.flatnonzero(units == unit) for unit in drawn])
        values.append([net_benefit(data.labels[rows], data.probabilities[rows] >= step, step) for step in steps])
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(curve.low, low)
    np.testing.assert_allclose(curve.high, high)


def test_where_nothing_is_ever_called_there_is_no_interval(clustered: Callable[..., Any]) -> None:
    data = clustered(6)
    steps = np.array([0.3, 0.8])
    curve = decision_curve(data.labels, data.probabilities / 2, data.patients, thresholds=steps, resamples=100, seed=0)
    assert curve.model[1] == 0
    assert np.isnan([curve.low[1], curve.high[1]]).all()
    assert curve.low[0] < curve.model[0] < curve.high[0]


def test_the_interval_over_patients_holds_the_truth_about_95_times_in_100(clustered: Callable[..., Any]) -> None:
    steps = np.array([0.2, 0.4])
    population = clustered(0, n_patients=20_000)
    truth = decision_curve(
        population.labels, population.probabilities, None, thresholds=steps, resamples=1, seed=0
    ).model
    held: dict[str, list[NDArray[np.bool_]]] = {"patient": [], "image": []}
    for simulation in range(1, 201):
        study = clustered(simulation, n_patients=60)
        for unit, patients in (("patient", study.patients), ("image", None)):
            curve = decision_curve(
                study.labels, study.probabilities, patients, thresholds=steps, resamples=200, seed=simulation
            )
            held[unit].append((curve.low <= truth) & (truth <= curve.high))
    # 200 simulations leave a standard error of 0.015.
    assert np.all(np.abs(np.mean(held["patient"], axis=0) - 0.94) < 0.05)
    assert np.all(np.mean(held["image"], axis=0) < 0.80)


def test_thresholds_that_make_no_curve_are_refused() -> None:
    labels, probabilities = np.array([0, 1]), np.array([0.2, 0.8])
    for steps in ([0.0, 0.5], [0.5, 1.0], [0.5, 0.4], [np.nan]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            decision_curve(labels, probabilities, None, thresholds=np.array(steps), resamples=1, seed=0)
    with pytest.raises(ValueError, match="not a number"):
        decision_curve(labels, np.array([0.2, np.nan]), None, thresholds=STEPS, resamples=1, seed=0)
    with pytest.raises(DataError, match="no image"):
        decision_curve(labels[:0], probabilities[:0], None, thresholds=STEPS, resamples=1, seed=0)
