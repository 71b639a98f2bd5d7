"""The loss against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearmargin.training.objective import class_weights, cross_entropy

LOGITS = np.array([-3.0, -0.5, 0.0, 0.2, 1.5, 4.0])
LABELS = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])


def by_hand(weights: tuple[float, float], smoothing: float) -> float:
    probability = 1 / (1 + np.exp(-LOGITS))
    target: NDArray[np.float64] = np.where(LABELS == 1, 1 - smoothing / 2, smoothing / 2)
    each = -(target * np.log(probability) + (1 - target) * np.log(1 - probability))
    return float(np.mean(each * np.where(LABELS == 1, weights[1], weights[0])))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.6, 3.0), (2.0, 0.5), (2.0, 2.0)])
def test_weighted_and_smoothed_loss_is_that_of_numpy(weights: tuple[float, float], smoothing: float) -> None:
    loss = cross_entropy(torch.tensor(LOGITS), torch.tensor(LABELS), weights=weights, smoothing=smoothing)
    assert loss.ndim == 0
    assert float(loss) == pytest.approx(by_hand(weights, smoothing), rel=1e-12)


def test_the_loss_of_knowing_nothing_is_ln_2() -> None:
    assert float(cross_entropy(torch.zeros(4), torch.tensor([0.0, 1.0, 1.0, 0.0]))) == pytest.approx(np.log(2))


def test_extreme_logits_give_a_finite_loss() -> None:
    loss = cross_entropy(torch.tensor([1e4, -1e4]), torch.tensor([0.0, 1.0]), smoothing=0.1)
    assert float(loss) == pytest.approx(0.95 * 1e4)


@given(benign=st.integers(1, 500), malignant=st.integers(1, 500))
def test_class_weights_have_mean_one_and_make_the_classes_weigh_the_same(benign: int, malignant: int) -> None:
    labels = np.repeat(np.array([0, 1], dtype=np.int8), [benign, malignant])
    weights = np.array(class_weights(labels))
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[0] * benign == pytest.approx(weights[1] * malignant)


def test_equal_classes_have_weight_one() -> None:
    assert class_weights(np.array([1, 0, 0, 1], dtype=np.int8)) == (1.0, 1.0)
