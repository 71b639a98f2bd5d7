from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearmargin.errors import DataError, UnknownName, UsageError
from clearmargin.evaluation.bootstrap import draw_units, percentile_interval, resampled_figures
from clearmargin.evaluation.operating_point import (
    RULES,
    NotAttainable,
    Rule,
    choose_operating_point,
    resampled_thresholds,
)

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


@given(cases(), st.sampled_from([0.05, 0.5, 0.55, 0.7, 0.95, 1.0]))
def test_specificity_is_the_lowest_threshold_that_reaches_the_target(case: Cases, target: float) -> None:
    labels, probabilities = case
    reaching = [
        threshold
        for threshold in every_threshold(probabilities)
        if rates(labels, probabilities, threshold)[1] >= target
    ]
    if not reaching:
        with pytest.raises(NotAttainable, match=r"have probability 1.*evaluate.target_specificity"):
            choose_operating_point(labels, probabilities, rule="specificity", target_specificity=target)
        return
    point = choose_operating_point(labels, probabilities, rule="specificity", target_specificity=target)
    assert 0 < point.threshold <= min(reaching) <= 1
    assert rates(labels, probabilities, point.threshold) == rates(labels, probabilities, min(reaching))
    assert point.achieved["specificity"] >= target


@given(cases(), st.sampled_from([0.01, 0.1, 1.0, 3.3, 10.0, 1e6]))
def test_cost_is_the_least_of_all_thresholds(case: Cases, ratio: float) -> None:
    labels, probabilities = case

    def cost(threshold: float) -> float:
        called = probabilities >= threshold
        return float((called & (labels == 0)).sum() + ratio * (~called & (labels == 1)).sum())

    point = choose_operating_point(labels, probabilities, rule="cost", cost_ratio=ratio)
    assert cost(point.threshold) == pytest.approx(min(map(cost, every_threshold(probabilities))), rel=1e-12)


@given(cases(), st.sampled_from([0.01, 0.1, 0.3, 0.5, 0.9]))
def test_net_benefit_is_the_highest_of_all_thresholds(case: Cases, act_from: float) -> None:
    labels, probabilities = case

    def net_benefit(threshold: float) -> float:
        called = probabilities >= threshold
        true, false = (called & (labels == 1)).sum(), (called & (labels == 0)).sum()
        return float(true / len(labels) - false / len(labels) * act_from / (1 - act_from))

    point = choose_operating_point(labels, probabilities, rule="net_benefit", threshold_probability=act_from)
    best = max(map(net_benefit, every_threshold(probabilities)))
    assert net_benefit(point.threshold) == pytest.approx(best, abs=1e-12)
    alike = choose_operating_point(labels, probabilities, rule="cost", cost_ratio=(1 - act_from) / act_from)
    assert point.threshold == alike.threshold


def test_costs_that_are_equal_but_for_rounding_count_as_equal() -> None:
    # Two malignant images with probability 0 are missed anyway. Above the benign one ten more are, at 0.1 each; below
    # it, it is a false alarm at 1. The wider gap decides between equal costs, not the last digit.
    assert 0.1 * (2 + 10) > 0.1 * 2 + 1
    labels = np.array([1] * (2 + 10) + [0] + [1])
    probabilities = np.array([0.0] * 2 + [0.1] * 10 + [0.2] + [0.9])
    point = choose_operating_point(labels, probabilities, rule="cost", cost_ratio=0.1)
    assert point.threshold == pytest.approx(0.55)


@given(cases(), st.sampled_from(RULES), st.sampled_from([0.3, 0.5, 0.9, 1.0]), st.integers(1, 8), st.booleans())
@settings(max_examples=60)
def test_thresholds_of_resamples_are_those_of_the_repeated_rows(
    case: Cases, rule: Rule, target: float, n_patients: int, known: bool
) -> None:
    labels, probabilities = case
    patients = np.arange(len(labels)) % n_patients
    numbers: dict[str, float] = {
        "target_sensitivity": target,
        "target_specificity": target,
        "cost_ratio": 4 * target,
        "threshold_probability": target / 2,
    }
    units = patients if known else np.arange(len(labels))
    expected = []
    for resample in range(12):
        drawn = draw_units(units.max() + 1, resample=resample, seed=5, stream=1)
        rows = np.concatenate([np.flatnonzero(units == unit) for unit in drawn])
        try:
            point = choose_operating_point(labels[rows], probabilities[rows], rule=rule, **numbers)
            expected.append(point.threshold)
        except DataError:
            expected.append(math.nan)
    found = resampled_thresholds(
        labels, probabilities, patients if known else None, rule=rule, resamples=12, seed=5, **numbers
    )
    np.testing.assert_array_equal(found, expected)


def test_the_interval_with_resampled_thresholds_holds_the_sensitivity_of_the_procedure(
    clustered: Callable[..., Any],
) -> None:
    """A fixed threshold hides that another validation split would have given another one."""
    population = clustered(0, n_patients=20_000)
    malignant = np.sort(population.probabilities[population.labels == 1])
    intervals: dict[str, list[tuple[float, float]]] = {"fixed": [], "resampled": []}
    procedure = []
    for study in range(1, 201):
        chosen_on, test = clustered(study, n_patients=40), clustered(10_000 + study, n_patients=40)
        rule: Rule = "sensitivity"
        point = choose_operating_point(chosen_on.labels, chosen_on.probabilities, rule=rule, target_sensitivity=0.9)
        procedure.append(1 - np.searchsorted(malignant, point.threshold) / len(malignant))
        again = resampled_thresholds(
            chosen_on.labels,
            chosen_on.probabilities,
            chosen_on.patients,
            rule=rule,
            target_sensitivity=0.9,
            resamples=150,
            seed=study,
        )
        for name, threshold in (("fixed", point.threshold), ("resampled", again)):
            values = resampled_figures(
                test.labels,
                test.probabilities,
                test.patients,
                threshold=threshold,
                resamples=150,
                seed=study,
                figures=["sensitivity"],
            )["sensitivity"]
            intervals[name].append(percentile_interval(values) or (1.0, 0.0))
    truth = np.mean(procedure)
    held = {name: np.mean([low <= truth <= high for low, high in of]) for name, of in intervals.items()}
    # 200 studies leave a standard error of 0.016.
    assert 0.90 <= held["resampled"] <= 0.99
    assert held["fixed"] < 0.88


def test_the_choice_does_not_move_with_the_draws_of_the_test_patients(clustered: Callable[..., Any]) -> None:
    data = clustered(3, n_patients=30)
    fixed = {"labels": data.labels, "probabilities": data.probabilities, "patients": data.patients}
    thresholds = resampled_thresholds(**fixed, rule="balanced", resamples=400, seed=1)
    figures = resampled_figures(**fixed, threshold=0.5, resamples=400, seed=1, figures=["specificity"])
    assert abs(np.corrcoef(thresholds, figures["specificity"])[0, 1]) < 0.15
    assert len(np.unique(thresholds)) > 20


@given(cases(), st.sampled_from(RULES), st.integers(0, 2**32 - 1))
def test_no_image_stands_on_the_threshold_and_order_does_not_matter(case: Cases, rule: Rule, seed: int) -> None:
    labels, probabilities = case
    probabilities = 0.01 + 0.98 * probabilities
    point = choose_operating_point(labels, probabilities, rule=rule)
    assert point.threshold not in probabilities
    order = np.random.default_rng(seed).permutation(len(labels))
    assert choose_operating_point(labels[order], probabilities[order], rule=rule) == point


def test_achieved_figures_are_those_of_the_threshold() -> None:
    labels = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    probabilities = np.array([0.1, 0.2, 0.3, 0.35, 0.6, 0.7, 0.8, 0.9])
    point = choose_operating_point(labels, probabilities, rule="balanced")
    assert point.threshold == pytest.approx(0.325)
    assert point.achieved == {"sensitivity": 1.0, "specificity": 0.75, "balanced_accuracy": 0.875}
    assert (point.name, point.chosen_on) == ("balanced", "validation")
    assert point.rule == "the threshold with the highest balanced accuracy"
    point = choose_operating_point(labels, probabilities, rule="sensitivity", target_sensitivity=0.75)
    assert point.threshold == pytest.approx(0.475)
    assert point.rule == "the highest threshold whose sensitivity is at least 0.75"


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


def test_a_model_worse_than_chance_calls_everything_the_same_and_the_rule_says_so() -> None:
    point = choose_operating_point(np.array([1, 1, 0, 0]), np.array([0.1, 0.2, 0.6, 0.7]), rule="balanced")
    assert point.achieved["balanced_accuracy"] == 0.5
    assert 0 < point.threshold <= 1
    assert point.rule.endswith("; it calls every validation image benign")


@pytest.mark.parametrize(("ratio", "word"), [(1000.0, "malignant"), (0.001, "benign")])
def test_a_cost_that_makes_the_model_useless_is_said(ratio: float, word: str) -> None:
    labels, probabilities = np.array([0, 1, 0, 1]), np.array([0.2, 0.3, 0.6, 0.5])
    point = choose_operating_point(labels, probabilities, rule="cost", cost_ratio=ratio)
    assert ("it calls every validation image" in point.rule) == (word == "benign")
    labels, probabilities = np.array([1, 0, 0, 0]), np.array([0.1, 0.2, 0.6, 0.5])
    point = choose_operating_point(labels, probabilities, rule="cost", cost_ratio=ratio)
    assert point.rule.endswith(f"counting as {ratio:g} false alarms; it calls every validation image {word}")


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
    with pytest.raises(UsageError, match=r"target_specificity is 0; it must be above 0 and at most 1"):
        choose_operating_point(labels, probabilities, rule="specificity", target_specificity=0)
    with pytest.raises(UsageError, match=r"cost_ratio is nan; it must be above 0 and finite"):
        choose_operating_point(labels, probabilities, rule="cost", cost_ratio=math.nan)
    with pytest.raises(UsageError, match=r"threshold_probability is 1; it must be above 0 and below 1"):
        resampled_thresholds(
            labels, probabilities, None, rule="net_benefit", threshold_probability=1, resamples=1, seed=0
        )


@pytest.mark.parametrize(
    ("labels", "probabilities", "rule", "words"),
    [
        ([1, 1, 0], [0.0, 0.5, 0.2], "sensitivity", "1 of 2 malignant validation images have probability 0"),
        ([0, 0, 1], [1.0, 0.5, 0.7], "specificity", "1 of 2 benign validation images have probability 1"),
    ],
)
def test_what_cannot_be_attained_is_said_in_one_line(
    labels: list[int], probabilities: list[float], rule: Rule, words: str
) -> None:
    with pytest.raises(NotAttainable, match=words) as caught:
        choose_operating_point(np.array(labels), np.array(probabilities), rule=rule)
    assert isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)
