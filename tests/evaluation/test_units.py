from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clearmargin.evaluation import metrics
from clearmargin.evaluation.units import degrees_of_freedom, units_behind

OF_ONE_COUNT = ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy", "brier", "ece")


def test_units_behind_a_figure_are_those_that_have_what_it_counts() -> None:
    patients = np.array([7, 7, 3, 3, 5, 9])
    labels = np.array([1, 0, 0, 0, 0, 1])
    called = np.array([True, False, True, False, True, True])
    counted = {name: units_behind(name, labels, patients, called=called) for name in metrics.FIGURES}
    assert counted == {
        "auroc": 2,
        "auprc": 2,
        "balanced_accuracy": 2,
        "accuracy": 4,
        "sensitivity": 2,
        "specificity": 3,
        "ppv": 4,
        "npv": 2,
        "f1": 2,
        "brier": 4,
        "ece": 4,
    }


@pytest.mark.parametrize("count", [units_behind, degrees_of_freedom])
@pytest.mark.parametrize("figure", ["ppv", "npv"])
def test_what_was_called_must_be_given_to_count_behind_it(count: Any, figure: str) -> None:
    with pytest.raises(ValueError, match=f"{figure} rests on what was called"):
        count(figure, np.array([0, 1]), np.array([0, 1]))


def test_patients_alike_in_size_have_one_degree_of_freedom_less_than_there_are() -> None:
    patients = np.repeat(np.arange(9), 8)
    labels, called = np.tile([0, 0, 1, 1, 0, 0, 1, 1], 9), np.tile([0, 1] * 4, 9).astype(bool)
    found = {name: degrees_of_freedom(name, labels, patients, called=called) for name in metrics.FIGURES}
    assert found == pytest.approx(dict.fromkeys(metrics.FIGURES, 8))


def test_the_images_that_a_figure_counts_make_the_degrees_of_freedom() -> None:
    # Malignant images of the patients: 1, 2, 3, 0; benign ones: 0, 1, 1, 4; called malignant: 1, 0, 2, 4.
    patients = np.repeat([0, 1, 2, 3], [1, 3, 4, 4])
    labels = np.array([1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0])
    called = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1], dtype=bool)
    found = {name: degrees_of_freedom(name, labels, patients, called=called) for name in OF_ONE_COUNT}
    assert found == pytest.approx(
        {
            "sensitivity": 2,  # 6 ** 2 / 14 is above one less than three
            "f1": 2,
            "specificity": 2,  # 6 ** 2 / 18
            "ppv": 2,  # 7 ** 2 / 21 is above it again
            "npv": 1,  # 5 ** 2 / 13 is above one less than two
            **dict.fromkeys(("accuracy", "brier", "ece"), 3),  # 12 ** 2 / 42 is 3.4
        }
    )
    one_large = np.repeat(np.arange(10), [60, 4, 4, 4, 4, 4, 4, 4, 4, 4])
    few = degrees_of_freedom("brier", np.zeros(96, dtype=np.int64), one_large)
    assert few == pytest.approx(96**2 / (60**2 + 9 * 4**2))


def test_two_classes_are_joined_as_welch_joins_two_samples() -> None:
    labels = np.repeat([0, 1], [3 * 11, 3 * 4])
    patients = np.repeat(np.arange(15), 3)
    samples = [stats.zscore(np.arange(float(n)), ddof=1) for n in (11, 4)]
    expected = stats.ttest_ind(*samples, equal_var=False).df
    for figure in ("auroc", "auprc", "balanced_accuracy"):
        assert degrees_of_freedom(figure, labels, patients) == pytest.approx(expected)


def test_a_rare_class_leaves_few_degrees_of_freedom_however_many_patients_the_other_has() -> None:
    labels = np.repeat([1, 0], [3, 1_000])
    assert 2 <= degrees_of_freedom("auroc", labels, np.arange(1_003)) < 2.05


@pytest.mark.parametrize(("figure", "units"), [("sensitivity", 0), ("auroc", 0), ("specificity", 1)])
def test_without_two_units_behind_there_is_no_degree_of_freedom(figure: str, units: int) -> None:
    patients = np.array([4, 4, 4])
    assert units_behind(figure, np.zeros(3, dtype=np.int64), patients) == units
    assert degrees_of_freedom(figure, np.zeros(3, dtype=np.int64), patients) == 0


@given(data=st.data(), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_degrees_of_freedom_lie_between_those_of_two_units_and_of_all(data: Any, sizes: list[int]) -> None:
    patients = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    labels, called = rng.integers(2, size=len(patients)), rng.random(len(patients)) < 0.5
    for name in metrics.FIGURES:
        behind = units_behind(name, labels, patients, called=called)
        found = degrees_of_freedom(name, labels, patients, called=called)
        assert 0 <= found <= len(sizes) - 1
        assert found >= 1 if behind > 1 else found == 0
        if name in OF_ONE_COUNT:
            assert found <= max(behind - 1, 0)
