from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearmargin.decision import decide, logit
from clearmargin.errors import DataError
from clearmargin.evaluation.bootstrap import draw_units, percentile_interval
from clearmargin.evaluation.selective import ABSTENTION_FIGURES, resampled_abstention, risk_coverage

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


def share(which: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return float(which[among].mean()) if among.any() else np.nan


def naive_abstention(
    labels: Labels,
    probabilities: Floats,
    decisions: NDArray[np.str_],
    copies: list[NDArray[np.int64]],
    threshold: float,
) -> dict[str, float]:
    """Row by row; `copies` are the rows of each patient, one entry a patient drawn."""
    said_right = (decisions == "abstain") | ((decisions == "malignant") == (labels == 1))

    def by_patient(among: NDArray[np.bool_]) -> float:
        shares = [said_right[rows][among[rows]].mean() for rows in copies if among[rows].any()]
        return float(np.mean(shares)) if shares else np.nan

    rows = np.concatenate(copies)
    decided = decisions[rows] != "abstain"
    every = np.ones(len(rows), dtype=bool)
    return {
        "covered": by_patient(labels >= 0),
        "covered_malignant": by_patient(labels == 1),
        "covered_benign": by_patient(labels == 0),
        "deferred": share(~decided, every),
        "error_decided": share(~said_right[rows], decided),
        "error_all": share((probabilities[rows] >= threshold) != (labels[rows] == 1), every),
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 6), st.booleans())
def test_figures_of_abstention_are_those_of_the_repeated_rows(
    seed: int, n_images: int, n_patients: int, known: bool
) -> None:
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, size=n_images), rng.integers(0, 11, size=n_images) / 10
    patients = rng.integers(0, n_patients, size=n_images)
    decisions = decide(probabilities, 0.5, abstain_between=(0.3, 0.6))
    units = np.unique(patients, return_inverse=True)[1] if known else np.arange(n_images)
    rows_of = [np.flatnonzero(units == unit) for unit in range(units.max() + 1)]
    found = resampled_abstention(
        labels, probabilities, decisions, patients if known else None, threshold=0.5, resamples=6, seed=3
    )
    assert tuple(found) == ABSTENTION_FIGURES
    whole = naive_abstention(labels, probabilities, decisions, rows_of, 0.5)
    for resample in range(6):
        drawn = [rows_of[unit] for unit in draw_units(len(rows_of), resample=resample, seed=3)]
        expected = naive_abstention(labels, probabilities, decisions, drawn, 0.5)
        for name in ABSTENTION_FIGURES:
            assert found[name][1][resample] == pytest.approx(expected[name], nan_ok=True)
            assert found[name][0] == pytest.approx(whole[name], nan_ok=True)


def test_decisions_as_pandas_gives_them_are_understood() -> None:
    labels, probabilities = np.array([0, 1, 1]), np.array([0.2, 0.5, 0.1])
    decisions = np.array(["benign", "abstain", "benign"], dtype=object)
    found = resampled_abstention(labels, probabilities, decisions, None, threshold=0.5, resamples=1, seed=0)
    assert found["error_decided"][0] == 0.5


def test_an_image_without_patient_is_an_error() -> None:
    patients = np.array(["a", None], dtype=object)
    labels, probabilities, decisions = np.array([0, 1]), np.array([0.2, 0.8]), np.array(["benign", "malignant"])
    with pytest.raises(DataError, match="1 of 2 images have no patient"):
        resampled_abstention(labels, probabilities, decisions, patients, threshold=0.5, resamples=1, seed=0)
    with pytest.raises(DataError, match="1 of 2 images have no patient"):
        risk_coverage(labels, probabilities, 0.5, patients, resamples=1, seed=0)


def test_the_interval_of_what_abstention_achieves_holds_the_truth_about_95_times_in_100(
    clustered: Callable[..., Any],
) -> None:
    def figures(seed: int, n_patients: int, resamples: int) -> dict[str, tuple[float, Floats]]:
        study = clustered(seed, n_patients=n_patients)
        decisions = decide(study.probabilities, 0.5, abstain_between=(0.3, 0.7))
        return resampled_abstention(
            study.labels, study.probabilities, decisions, study.patients, threshold=0.5, resamples=resamples, seed=seed
        )

    truth = {name: value for name, (value, _) in figures(0, 20_000, 0).items()}
    held = dict.fromkeys(ABSTENTION_FIGURES, 0)
    for simulation in range(1, 201):
        for name, (_, values) in figures(simulation, 60, 300).items():
            low, high = percentile_interval(values) or (1.0, 0.0)
            held[name] += low <= truth[name] <= high
    # 200 simulations leave a standard error of 0.015; percentile intervals of 60 patients are a little narrow.
    for name, count in held.items():
        assert 0.88 <= count / 200 <= 0.985, name


def naive_errors(wrong: list[bool], doubt: list[float]) -> Floats:
    """Mean number of errors among the surest k, k from 0 to n, over every order that respects the doubt."""
    orders = [
        order
        for order in itertools.permutations(range(len(wrong)))
        if all(doubt[a] <= doubt[b] for a, b in itertools.pairwise(order))
    ]
    return np.mean([[0, *itertools.accumulate(wrong[place] for place in order)] for order in orders], axis=0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([0.3, 0.5, 1.0]), st.sampled_from([2, 4, 20]))
@settings(max_examples=60)
def test_the_curve_is_the_mean_over_every_order_of_the_equally_sure(
    seed: int, n_images: int, threshold: float, points: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size=n_images)
    probabilities = rng.choice([0.0, 0.1, 0.3, 0.5, 0.9], size=n_images)
    patients = rng.integers(0, 3, size=n_images)
    curve = risk_coverage(labels, probabilities, threshold, patients, resamples=8, seed=2, points=points)
    np.testing.assert_allclose(curve.decided, 1 - np.arange(points) / points)

    def expected(rows: NDArray[np.int64]) -> tuple[Floats, float]:
        doubt = -np.abs(logit(probabilities[rows]) - logit(np.array([threshold])))
        wrong = (probabilities[rows] >= threshold) != (labels[rows] == 1)
        errors = naive_errors(wrong.tolist(), doubt.tolist())
        numbers = curve.decided * len(rows)
        below = np.minimum(np.floor(numbers + 1e-9).astype(int), len(rows) - 1)
        # A number of images that is not whole lies between two that are.
        at = errors[below] + (numbers - below) * (errors[below + 1] - errors[below])
        return at / numbers, float(np.mean(errors[1:] / np.arange(1, len(rows) + 1)))

    error, area = expected(np.arange(n_images))
    np.testing.assert_allclose(curve.error, error, atol=1e-9)
    assert curve.area == pytest.approx(area)
    units = np.unique(patients, return_inverse=True)[1]
    for resample in range(8):
        drawn = draw_units(units.max() + 1, resample=resample, seed=2)
        rows = np.concatenate([np.flatnonzero(units == unit) for unit in drawn])
        if len(rows) <= 6:  # the orders of more are too many to list
            error, area = expected(rows)
            np.testing.assert_allclose(curve.resampled_error[resample], error, atol=1e-9)
            assert curve.resampled_area[resample] == pytest.approx(area)


def test_deciding_all_has_the_error_of_the_threshold(clustered: Callable[..., Any]) -> None:
    data = clustered(4)
    curve = risk_coverage(data.labels, data.probabilities, 0.4, data.patients, resamples=50, seed=0)
    decisions = decide(data.probabilities, 0.4)
    value, values = resampled_abstention(
        data.labels, data.probabilities, decisions, data.patients, threshold=0.4, resamples=50, seed=0
    )["error_all"]
    assert curve.error[0] == pytest.approx(value)
    np.testing.assert_allclose(curve.resampled_error[:, 0], values)


def test_the_curve_falls_where_the_model_knows_its_errors_and_is_flat_where_it_does_not() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(40_000)
    honest = (rng.random(40_000) < probabilities).astype(np.int64)
    ignorant = np.where(rng.random(40_000) < 0.25, probabilities < 0.5, probabilities >= 0.5).astype(np.int64)
    falling = risk_coverage(honest, probabilities, 0.5, None, resamples=0, seed=0)
    flat = risk_coverage(ignorant, probabilities, 0.5, None, resamples=0, seed=0)
    # Deciding the share c, the error of an honest model with even probabilities is c / 4; its area is 1 / 8.
    np.testing.assert_allclose(falling.error, falling.decided / 4, atol=0.01)
    assert falling.area == pytest.approx(1 / 8, abs=0.005)
    np.testing.assert_allclose(flat.error, 0.25, atol=0.03)
