from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as oracle

from clearmargin.evaluation.delong import delong


def draw_scores(
    seed: int, *, n_malignant: int, n_benign: int, n_models: int, steps: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels in mixed order and correlated scores of several models; `steps` rounds them, which makes ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1, 0], [n_malignant, n_benign]))
    scores = labels + rng.normal(size=len(labels)) + rng.normal(size=(n_models, len(labels)))
    return labels, scores if steps is None else np.round(scores * steps) / steps


def by_all_pairs(
    labels: NDArray[np.int64], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The definition in the paper: a kernel for each pair of a malignant and a benign case, then its components."""
    malignant, benign = scores[:, labels == 1], scores[:, labels == 0]
    won = (malignant[:, :, None] > benign[:, None, :]) + 0.5 * (malignant[:, :, None] == benign[:, None, :])
    areas = won.mean(axis=(1, 2))
    of_malignant = won.mean(axis=2) - areas[:, None]
    of_benign = won.mean(axis=1) - areas[:, None]
    n_malignant, n_benign = malignant.shape[1], benign.shape[1]
    covariance = of_malignant @ of_malignant.T / (n_malignant - 1) / n_malignant
    return areas, covariance + of_benign @ of_benign.T / (n_benign - 1) / n_benign


@pytest.mark.parametrize("steps", [None, 3, 1])
@pytest.mark.parametrize("sizes", [(2, 2), (2, 40), (35, 3), (60, 90)])
def test_midranks_give_the_definition_over_all_pairs(sizes: tuple[int, int], steps: int | None) -> None:
    labels, scores = draw_scores(1, n_malignant=sizes[0], n_benign=sizes[1], n_models=3, steps=steps)
    areas, covariance = delong(labels, scores)
    expected_areas, expected_covariance = by_all_pairs(labels, scores)
    np.testing.assert_allclose(areas, expected_areas, rtol=0, atol=1e-13)
    np.testing.assert_allclose(covariance, expected_covariance, rtol=0, atol=1e-13)


@pytest.mark.parametrize("steps", [None, 2])
def test_areas_are_those_of_scikit_learn(steps: int | None) -> None:
    labels, scores = draw_scores(2, n_malignant=300, n_benign=700, n_models=4, steps=steps)
    areas, _ = delong(labels, scores)
    expected = [oracle.roc_auc_score(labels, of_model) for of_model in scores]
    np.testing.assert_allclose(areas, expected, rtol=0, atol=1e-12)


def test_two_equal_models_differ_by_nothing_for_certain() -> None:
    labels, scores = draw_scores(3, n_malignant=30, n_benign=50, n_models=1)
    areas, covariance = delong(labels, np.concatenate([scores, np.exp(scores)]))  # only the order matters
    assert areas[0] == areas[1]
    assert covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1] == pytest.approx(0, abs=1e-15)


def test_the_test_of_a_difference_rejects_equal_models_5_times_in_100() -> None:
    rejected = 0
    simulations = 1_000
    for simulation in range(simulations):
        labels, scores = draw_scores(100 + simulation, n_malignant=60, n_benign=80, n_models=2)
        areas, covariance = delong(labels, scores)
        spread = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        rejected += abs(areas[0] - areas[1]) / spread > stats.norm.ppf(0.975)
    # Three standard errors of the simulation are 0.021. Without the covariance it would be about 0.006.
    assert 0.03 <= rejected / simulations <= 0.071


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1, 1], [[0.1, 0.2, 0.3]], "2 malignant and 1 benign cases: at least two of each"),
        ([0, 1, 1], [0.1, 0.2, 0.3], r"shape \(3,\), and there are 3 labels"),
        ([0, 1], [[0.1, 0.2, 0.3]], r"shape \(1, 3\), and there are 2 labels"),
        ([0, 0, 1, 1], [[0.1, np.nan, 0.3, 0.4]], "not a number"),
    ],
)
def test_what_cannot_be_ranked_is_refused(labels: list[int], scores: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delong(np.array(labels), np.array(scores, dtype=np.float64))
