"""Logistic regression for a few features, by Newton's method: bounds, fractional targets, an offset, a ridge.

scikit-learn has no lower bounds, no fractional targets and no offset, which calibration needs. The
log loss is convex, and each step is halved until it falls, so the result does not depend on a start.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from clearmargin.decision import sigmoid
from clearmargin.evaluation.metrics import Floats

_MOST_STEPS = 100
_MOST_HALVINGS = 40


def fit_logistic(
    features: Floats,
    targets: NDArray[np.floating] | NDArray[np.integer],
    *,
    offset: Floats | float = 0.0,
    ridge: Floats | None = None,
    lowest: Floats | None = None,
) -> Floats:
    """The weights (D,) of the lowest log loss of sigmoid(offset + features @ weights), none below its bound.

    Args:
        features: (N, D), finite; a column of ones makes an intercept.
        targets: (N,), in [0, 1]; without a ridge they must not be separable, or the weights only grow.
        offset: (N,) or one number, added to the linear score.
        ridge: (D,), 0 or more; half of it times the squared weight is added to the summed loss.
        lowest: (D,), -inf where there is no bound.

    >>> fit_logistic(np.ones((4, 1)), np.array([0, 1, 1, 1])).round(6).tolist()  # ln 3
    [1.098612]
    """
    # Newton's method does not mind the scale of a feature, but rounding does.
    scale = np.max(np.abs(features), axis=0, initial=0.0)
    scale[scale == 0] = 1.0
    problem = _Problem(
        features / scale,
        np.asarray(targets, dtype=np.float64),
        np.broadcast_to(np.asarray(offset, dtype=np.float64), (len(features),)),
        np.zeros(len(scale)) if ridge is None else ridge / scale**2,
    )
    bounds = np.full(len(scale), -np.inf) if lowest is None else lowest * scale
    weights: Floats = problem.solve(bounds) / scale
    return weights


class _Problem:
    def __init__(self, features: Floats, targets: Floats, offset: Floats, ridge: Floats) -> None:
        self.features, self.targets, self.offset, self.ridge = features, targets, offset, ridge

    def solve(self, lowest: Floats) -> Floats:
        """The best weights within the bounds: the best of those with some weights held at their bound."""
        bounded = np.flatnonzero(np.isfinite(lowest))
        best, best_loss = np.where(np.isfinite(lowest), lowest, 0.0), np.inf
        for n_held in range(len(bounded) + 1):
            for held in combinations(bounded.tolist(), n_held):
                free = np.setdiff1d(np.arange(len(lowest)), held)
                weights = np.where(np.isfinite(lowest), lowest, 0.0)
                weights[free] = 0.0
                weights = self._newton(weights, free)
                if (weights < lowest).any():
                    continue
                if n_held == 0:
                    return weights
                if (loss := self._loss(weights)) < best_loss:
                    best, best_loss = weights, loss
        return best

    def _score(self, weights: Floats) -> Floats:
        # einsum and not a matrix product: BLAS may add in another order on another machine.
        scores: Floats = self.offset + np.einsum("nd,d->n", self.features, weights)
        return scores

    def _loss(self, weights: Floats) -> float:
        scores = self._score(weights)
        losses = np.logaddexp(0, scores) - self.targets * scores
        return float(losses.sum() + self.ridge @ weights**2 / 2)

    def _newton(self, weights: Floats, free: NDArray[np.intp]) -> Floats:
        """The weights of the lowest loss when only the free ones may change."""
        if len(free) == 0:
            return weights
        columns = self.features[:, free]
        loss = self._loss(weights)
        for _ in range(_MOST_STEPS):
            expected = sigmoid(self._score(weights))
            gradient = np.einsum("nd,n->d", columns, expected - self.targets) + (self.ridge * weights)[free]
            # Where every score is far out the curvature is 0 in floating point, and the step would have no length.
            spread = np.maximum(expected * (1 - expected), 1e-9)
            curvature = np.einsum("ni,n,nj->ij", columns, spread, columns)
            curvature += np.diag(self.ridge[free])
            # Where features say the same, the curvature has no inverse; so little more does not move the solution.
            curvature += np.eye(len(free)) * (1e-12 * np.trace(curvature) + 1e-300)
            step = np.linalg.solve(curvature, gradient)
            if float(gradient @ step) <= 1e-16 * len(self.targets):
                weights = weights.copy()
                weights[free] -= step  # the last step is as exact as the arithmetic, and its gain too small to measure
                return weights
            for _ in range(_MOST_HALVINGS):
                trial = weights.copy()
                trial[free] -= step
                trial_loss = self._loss(trial)
                if trial_loss < loss:
                    break
                step = step / 2
            else:
                return weights
            weights, loss = trial, trial_loss
        return weights
