from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from clearmargin.evaluation.logistic import fit_logistic


@given(seed=st.integers(0, 2**32 - 1), bounded=st.integers(0, 2), scale=st.sampled_from([1e-4, 1.0, 1e4]))
def test_equals_the_bounded_optimum_of_scipy(seed: int, bounded: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.normal(size=(40, 2)), np.ones(40)])
    targets, offset = rng.random(40), rng.normal(size=40)
    ridge = np.array([rng.random(), 0.5, 0.0])
    lowest = np.where(np.arange(3) < bounded, 0.0, -np.inf)

    def loss(weights: np.ndarray) -> float:
        scores = offset + features @ weights
        return float(np.sum(np.logaddexp(0, scores) - targets * scores) + ridge @ weights**2 / 2)

    bounds = [(low if np.isfinite(low) else None, None) for low in lowest]
    reference = optimize.minimize(loss, np.zeros(3), bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-14})
    stretch = np.array([scale, 1.0, 1.0])
    found = fit_logistic(features * stretch, targets, offset=offset, ridge=ridge * stretch**2, lowest=lowest) * stretch
    assert (found >= lowest).all()
    np.testing.assert_allclose(found, reference.x, atol=2e-4)
    assert loss(found) <= reference.fun + 1e-10


def test_equals_scikit_learn_with_its_ridge() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 2))
    labels = (rng.random(200) < 1 / (1 + np.exp(-features @ [2.0, -1.0]))).astype(np.int64)
    reference = LogisticRegression(C=0.25, tol=1e-10).fit(features, labels)
    found = fit_logistic(np.column_stack([features, np.ones(200)]), labels, ridge=np.array([4.0, 4.0, 0.0]))
    np.testing.assert_allclose(found, [*reference.coef_[0], reference.intercept_[0]], atol=1e-5)


def test_features_that_say_the_same_or_nothing_are_no_error() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=50)
    targets = rng.random(50)
    features = np.column_stack([one, one, np.zeros(50), np.ones(50)])
    found = fit_logistic(features, targets)
    alone = fit_logistic(np.column_stack([one, np.ones(50)]), targets)
    assert found[0] + found[1] == pytest.approx(alone[0], abs=1e-6)
    assert found[2:] == pytest.approx([0, alone[1]], abs=1e-6)


def test_far_offsets_do_not_overflow() -> None:
    found = fit_logistic(np.ones((4, 1)), np.array([0.2, 0.4, 0.6, 0.8]), offset=np.full(4, 5000.0))
    assert found[0] == pytest.approx(-5000, abs=1e-3)
