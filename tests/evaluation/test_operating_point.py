from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearmargin.errors import DataError, UnknownName, UsageError
from clearmargin.evaluation.operating_point import choose_operating_point

Cases = tuple[NDArray[np.int64], NDArray[np.float64]]


@st.composite
def cases(draw: st.DrawFn) -> Cases:
    """Both classes, many ties, 0 and 1 among the probabilities."""
    n_images = draw(st.integers(2, 40))
    steps = draw(st.sampled_from([1, 2, 7, 50, 10**6]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = (rng.random(n_images) < draw(st.sampled_from([0.1, 0.5, 0.9]))).astype(np.int64)
    labels[:2] = [0, 1]
    return labels, rng.integers(0, steps + 1, size=n_images) / steps


def rates(labels: NDArray[np.int64], probabilities: NDArray[np.float64], threshold: float) -> tuple[float, float]:
    called = probabilities >= threshold
    return float(called[labels == 1].mean()), float((~called)[labels == 0].mean())


def every_threshold(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """One threshold in (0, 1] for each set of images that can be called malignant."""
    edges = np.unique(np.concatenate([[0.0], probabilities, [1.0]]))
    return edges[1:]


@given(cases())
@example((np.array([0, 1]), np.array([0.0, 0.0])))
@example((np.array([0, 1]), np.array([1.0, 1.0])))
@example((np.array([1, 0]), np.array([0.2, 0.8])))
def test_balanced_reaches_the_best_balanced_accuracy_of_all_thresholds(case: Cases) -> None:
    labels, probabilities = case
    point = choose_operating_point(labels, probabilities, rule="balanced")
    best = max(sum(rates(labels, probabilities, threshold)) / 2 for threshold in every_threshold(probabilities))
    assert 0 < point.threshold <= 1
    assert sum(rates(labels, probabilities, point.threshold)) / 2 == pytest.approx(best, abs=1e-12)
    assert point.achieved["balanced_accuracy"] == pytest.approx(best, abs=1e-12)


@given(cases(), st.sampled_from([0.05, 0.5, 0.55, 0.7, 0.95, 1.0]))
def test_sensitivity_is_the_highest_threshold_that_reaches_the_target(case: Cases, target: float) -> None:
    labels, probabilities = case
    reaching = [
        threshold
        for threshold in every_threshold(probabilities)
        if rates(labels, probabilities, threshold)[0] >= target
    ]
    if not reaching:
        with pytest.raises(DataError, match=r"have probability 0.*evaluate.target_sensitivity"):
            choose_operating_point(labels, probabilities, rule="sensitivity", target_sensitivity=target)
        return
    point = choose_operating_point(labels, probabilities, rule="sensitivity", target_sensitivity=target)
    assert 0 < point.threshold <= max(reaching) <= 1
    assert rates(labels, probabilities, point.threshold) == rates(labels, probabilities, max(reaching))
    assert point.achieved["sensitivity"] >= target


@given(cases(), st.sampled_from(["balanced", "sensitivity"]), st.integers(0, 2**32 - 1))
def test_no_image_stands_on_the_threshold_and_order_does_not_matter(case: Cases, rule: str, seed: int) -> None:
    labels, probabilities = case
    probabilities = 0.01 + 0.98 * probabilities
    point = choose_operating_point(labels, probabilities, rule=rule)  # type: ignore[arg-type]
    assert point.threshold not in probabilities
    order = np.random.default_rng(seed).permutation(len(labels))
    assert choose_operating_point(labels[order], probabilities[order], rule=rule) == point  # type: ignore[arg-type]


def test_achieved_figures_are_those_of_the_threshold() -> None:
    labels = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    probabilities = np.array([0.1, 0.2, 0.3, 0.35, 0.6, 0.7, 0.8, 0.9])
    point = choose_operating_point(labels, probabilities, rule="balanced")
    assert point.threshold == pytest.approx(0.325)
    assert point.achieved == {"sensitivity": 1.0, "specificity": 0.75, "balanced_accuracy": 0.875}
    assert (point.name, point.chosen_on) == ("balanced", "validation")
    assert point.rule == "the threshold with the highest balanced accuracy on the validation split"
    point = choose_operating_point(labels, probabilities, rule="sensitivity", target_sensitivity=0.75)
    assert point.threshold == pytest.approx(0.475)
    assert point.rule == "the highest threshold whose sensitivity on the validation split is at least 0.75"


def test_of_equally_good_gaps_the_widest_is_taken() -> None:
    # Between 0.2 and 0.3, and between 0.4 and 0.8, the balanced accuracy is 0.75.
    labels = np.array([0, 1, 0, 1])
    probabilities = np.array([0.2, 0.3, 0.4, 0.8])
    assert choose_operating_point(labels, probabilities, rule="balanced").threshold == pytest.approx(0.6)


@pytest.mark.parametrize("low", [0.0, 0.3, 0.5, 5e-324])
def test_neighbours_in_floating_point_are_still_told_apart(low: float) -> None:
    high = math.nextafter(low, 1)
    point = choose_operating_point(np.array([0, 1]), np.array([low, high]), rule="balanced")
    assert point.achieved["balanced_accuracy"] == 1.0
    assert point.threshold == high


def test_a_model_worse_than_chance_calls_everything_the_same() -> None:
    point = choose_operating_point(np.array([1, 1, 0, 0]), np.array([0.1, 0.2, 0.6, 0.7]), rule="balanced")
    assert point.achieved["balanced_accuracy"] == 0.5
    assert 0 < point.threshold <= 1


@pytest.mark.parametrize(("label", "word"), [(0, "benign"), (1, "malignant")])
def test_one_class_is_an_error_that_names_it_and_the_fix(label: int, word: str) -> None:
    with pytest.raises(DataError, match=f"operating point cannot be chosen.*all 3 images are {word}.*split.fractions"):
        choose_operating_point(np.full(3, label), np.array([0.1, 0.2, 0.3]), rule="balanced")


def test_an_unknown_rule_and_an_impossible_target_are_named() -> None:
    labels, probabilities = np.array([0, 1]), np.array([0.1, 0.9])
    with pytest.raises(UnknownName, match=r"'balance'; did you mean 'balanced'"):
        choose_operating_point(labels, probabilities, rule="balance")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"target_sensitivity is 1.2; it must be above 0 and at most 1"):
        choose_operating_point(labels, probabilities, rule="sensitivity", target_sensitivity=1.2)
