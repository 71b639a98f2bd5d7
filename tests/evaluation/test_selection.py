from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearmargin.evaluation.selection import FEW_UNITS, Folds, deal_folds, simplest, standard_error


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), n_units=st.integers(2, 130))
def test_units_stay_whole_and_every_fold_leaves_both_classes(seed: int, n_units: int) -> None:
    rng = np.random.default_rng(seed)
    units = np.append(np.arange(n_units), rng.integers(n_units, size=3 * n_units))
    labels = rng.integers(0, 2, size=len(units))
    folds = deal_folds(labels, units, n_units, unit="patient", seed=1)
    if isinstance(folds, str):
        assert n_units < 10
        return
    assert len(folds.of_row) == (5 if n_units < FEW_UNITS else 1)
    for row in folds.of_row:
        assert all(len(np.unique(row[units == unit])) == 1 for unit in range(n_units))
    for held in folds.held_out():
        assert held.any()
        assert len(np.unique(labels[~held])) == 2
    order = rng.permutation(len(units))
    again = deal_folds(labels[order], units[order], n_units, unit="patient", seed=1)
    assert isinstance(again, Folds)
    np.testing.assert_array_equal(again.of_row, folds.of_row[:, order])


def test_thousands_of_patients_dealt_in_bundles_are_still_whole() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(20_000), 2)
    labels = rng.integers(0, 2, size=len(units))
    folds = deal_folds(labels, units, 20_000, unit="patient", seed=0)
    assert isinstance(folds, Folds)
    np.testing.assert_array_equal(folds.of_row[0, ::2], folds.of_row[0, 1::2])


@pytest.mark.parametrize(
    ("labels", "units", "reason"),
    [
        ([0, 1], [0, 0], "one patient cannot"),
        ([0, 0, 1], [0, 1, 1], "one patient has malignant images"),
        ([0, 1, 1], [0, 1, 2], "one patient has benign images"),
    ],
)
def test_what_cannot_be_dealt_is_said(labels: list[int], units: list[int], reason: str) -> None:
    folds = deal_folds(np.array(labels), np.array(units), max(units) + 1, unit="patient", seed=0)
    assert isinstance(folds, str)
    assert reason in folds


def test_the_standard_error_over_units_is_that_of_resampled_units() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 30, size=60)
    units = np.repeat(np.arange(60), sizes)
    values = rng.normal(size=60)[units] + rng.normal(size=len(units))
    means = []
    for _ in range(2_000):
        counts = np.bincount(rng.integers(60, size=60), minlength=60)[units]
        means.append(np.average(values, weights=counts))
    assert standard_error(values, units, 60) == pytest.approx(np.std(means), rel=0.1)
    assert standard_error(values, np.zeros(len(values), dtype=np.int64), 1) == float("inf")


def test_the_simplest_within_one_standard_error_is_taken_and_not_beyond() -> None:
    units = np.arange(100)
    noise = np.where(np.arange(100) % 2, 1.0, -1.0)  # its standard error is 0.1005
    best = np.zeros(100)
    assert simplest({"plain": best + noise + 0.09, "fancy": best}, units, 100) == ("plain", "fancy")
    assert simplest({"plain": best + noise + 0.11, "fancy": best}, units, 100) == ("fancy", "fancy")
