from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as oracle

from clearmargin.evaluation import metrics

Cases = tuple[NDArray[np.int64], NDArray[np.float64]]


@st.composite
def cases(draw: st.DrawFn) -> Cases:
    """Labels and probabilities with many ties, any imbalance, and a class that may be absent."""
    n_images = draw(st.integers(1, 60))
    share = draw(st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.98, 1.0]))
    steps = draw(st.sampled_from([1, 2, 5, 20, 10**6]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = (rng.random(n_images) < share).astype(np.int64)
    return labels, rng.integers(0, steps + 1, size=n_images) / steps


def same(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-12, abs_tol=1e-12)


@given(cases())
def test_auroc_is_the_share_of_pairs_won_with_ties_as_half(case: Cases) -> None:
    labels, probabilities = case
    malignant, benign = probabilities[labels == 1], probabilities[labels == 0]
    if len(malignant) == 0 or len(benign) == 0:
        assert math.isnan(metrics.auroc(labels, probabilities))
        return
    difference = malignant[:, None] - benign[None, :]
    won = ((difference > 0) + 0.5 * (difference == 0)).mean()
    assert same(metrics.auroc(labels, probabilities), float(won))
    assert same(metrics.auroc(labels, probabilities), float(oracle.roc_auc_score(labels, probabilities)))


@given(cases())
def test_auprc_is_precision_summed_over_gains_in_recall(case: Cases) -> None:
    labels, probabilities = case
    if labels.sum() == 0:
        assert math.isnan(metrics.auprc(labels, probabilities))
        return
    area, before = 0.0, 0.0
    for threshold in np.unique(probabilities)[::-1]:
        called = probabilities >= threshold
        recall = labels[called].sum() / labels.sum()
        area += (recall - before) * labels[called].mean()
        before = recall
    assert same(metrics.auprc(labels, probabilities), area)


@given(cases(), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_figures_at_a_threshold_equal_scikit_learn(case: Cases, threshold: float) -> None:
    labels, probabilities = case
    called = metrics.calls(probabilities, threshold)
    table = metrics.confusion(labels, called)
    assert table.tolist() == oracle.confusion_matrix(labels, called, labels=[0, 1]).tolist()
    nan = np.nan
    expected = {
        "accuracy": oracle.accuracy_score(labels, called),
        "sensitivity": oracle.recall_score(labels, called, zero_division=nan),
        "specificity": oracle.recall_score(labels, called, pos_label=0, zero_division=nan),
        "ppv": oracle.precision_score(labels, called, zero_division=nan),
        "npv": oracle.precision_score(labels, called, pos_label=0, zero_division=nan),
        "f1": oracle.f1_score(labels, called, zero_division=nan),
    }
    both = 0 < labels.sum() < len(labels)
    expected["balanced_accuracy"] = oracle.balanced_accuracy_score(labels, called) if both else nan
    for name, figure in metrics.THRESHOLD_FIGURES.items():
        value = float(figure(table))
        assert same(value, expected[name]) or (math.isnan(value) and math.isnan(expected[name])), name


@given(cases())
def test_brier_and_log_loss_equal_scikit_learn(case: Cases) -> None:
    labels, probabilities = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = oracle.brier_score_loss(labels, probabilities, labels=[0, 1])
    assert same(metrics.brier(labels, probabilities), float(expected))
    clipped = np.clip(probabilities, np.finfo(float).eps, 1 - np.finfo(float).eps)
    by_hand = -np.mean(np.where(labels == 1, np.log(clipped), np.log1p(-clipped)))
    assert metrics.log_loss(labels, probabilities) == pytest.approx(float(by_hand), rel=1e-9, abs=1e-12)


@given(cases(), st.sampled_from([1, 2, 10, 15]))
def test_ece_is_the_weighted_gap_of_the_bins(case: Cases, n_bins: int) -> None:
    labels, probabilities = case
    total = 0.0
    for place in range(n_bins):
        inside = (probabilities >= place / n_bins) & (probabilities < (place + 1) / n_bins)
        if place == n_bins - 1:
            inside |= probabilities == 1.0
        if inside.any():
            total += inside.mean() * abs(probabilities[inside].mean() - labels[inside].mean())
    assert same(metrics.ece(labels, probabilities, n_bins=n_bins), total)


@given(cases(), st.integers(0, 2**32 - 1))
def test_order_of_rows_does_not_matter(case: Cases, seed: int) -> None:
    labels, probabilities = case
    order = np.random.default_rng(seed).permutation(len(labels))
    for name, figure in metrics.PROBABILITY_FIGURES.items():
        first, second = figure(labels, probabilities), figure(labels[order], probabilities[order])
        assert same(first, second) or (math.isnan(first) and math.isnan(second)), name


def test_a_table_worked_by_hand() -> None:
    """Six images at the threshold 0.5, ranked 0.9 (1), 0.8 (1), 0.6 (0), 0.4 (1), 0.2 (0), 0.1 (0)."""
    labels = np.array([1, 1, 0, 1, 0, 0])
    probabilities = np.array([0.9, 0.8, 0.6, 0.4, 0.2, 0.1])
    table = metrics.confusion(labels, metrics.calls(probabilities, 0.5))
    assert table.tolist() == [[2, 1], [1, 2]]
    figures = {name: float(figure(table)) for name, figure in metrics.THRESHOLD_FIGURES.items()}
    assert figures == pytest.approx(dict.fromkeys(figures, 2 / 3))
    assert metrics.auroc(labels, probabilities) == pytest.approx(8 / 9)  # one of nine pairs is lost
    assert metrics.auprc(labels, probabilities) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert metrics.brier(labels, probabilities) == pytest.approx((0.01 + 0.04 + 0.36 + 0.36 + 0.04 + 0.01) / 6)
    assert metrics.log_loss(labels, probabilities) == pytest.approx(-math.log(0.9 * 0.8 * 0.4 * 0.4 * 0.8 * 0.9) / 6)
    # Halves: low 0.4 0.2 0.1 with one malignant, high 0.9 0.8 0.6 with two.
    assert metrics.ece(labels, probabilities, n_bins=2) == pytest.approx((abs(0.7 - 1) + abs(2.3 - 2)) / 6)


def test_undefined_figures_are_nan_and_never_zero() -> None:
    none_called = np.array([[5, 0], [0, 0]])
    for name in ("sensitivity", "ppv", "f1", "balanced_accuracy"):
        assert math.isnan(float(metrics.THRESHOLD_FIGURES[name](none_called))), name
    all_called = np.array([[0, 0], [0, 5]])
    for name in ("specificity", "npv", "balanced_accuracy"):
        assert math.isnan(float(metrics.THRESHOLD_FIGURES[name](all_called))), name
    nothing = np.array([], dtype=np.int64)
    for figure in (*metrics.PROBABILITY_FIGURES.values(), metrics.log_loss):
        assert math.isnan(figure(nothing, nothing.astype(np.float64)))


def test_figures_of_many_tables_are_those_of_each() -> None:
    tables = np.random.default_rng(0).integers(0, 4, size=(7, 3, 2, 2))
    for name, figure in metrics.THRESHOLD_FIGURES.items():
        each = np.array([[float(figure(table)) for table in row] for row in tables])
        np.testing.assert_array_equal(figure(tables), each, err_msg=name)


def test_ece_of_a_perfectly_calibrated_model_is_above_zero_on_few_images() -> None:
    rng = np.random.default_rng(0)
    few, many = [], []
    for _ in range(50):
        probabilities = rng.random(100)
        few.append(metrics.ece((rng.random(100) < probabilities).astype(int), probabilities))
    probabilities = rng.random(1_000_000)
    many.append(metrics.ece((rng.random(1_000_000) < probabilities).astype(int), probabilities))
    assert min(few) > 0.03
    assert max(many) < 0.003


def test_a_probability_of_exactly_zero_or_one_leaves_the_loss_finite() -> None:
    assert math.isfinite(metrics.log_loss(np.array([1, 0]), np.array([0.0, 1.0])))
