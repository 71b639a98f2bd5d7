"""Choosing among candidates on validation: patients dealt into folds, and the simplest that is good enough.

What is chosen among is elsewhere: calibrations in `calibration.py`, poolings in `pooling.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from clearmargin.evaluation.metrics import Floats, Labels
from clearmargin.types import LABEL_NAMES

MOST_FOLDS = 5
FEW_UNITS = 100
"""With fewer units the folds are dealt several times, since one deal is a lottery."""
DEALS = 5
_MOST_BUNDLES = 500


@dataclass(frozen=True, slots=True)
class Folds:
    """Each row's fold in each deal, (deals, N), and how many folds there are."""

    of_row: NDArray[np.int64]
    n_folds: int

    def held_out(self) -> list[NDArray[np.bool_]]:
        """True for the rows (N,) that are held out, one mask for each fold of each deal."""
        return [row == fold for row in self.of_row for fold in range(self.n_folds)]


def deal_folds(labels: Labels, units: NDArray[np.int64], n_units: int, *, unit: str, seed: int) -> Folds | str:
    """Folds that keep units whole and hold about equal shares of malignant rows; or why there are none.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        units: (N,), each in [0, n_units).
        n_units: number of units.
        unit: `patient`, `slide` or `image`, for the reason.
        seed: 0 or more; the folds depend on it and on the units, not on the order of the rows.
    """
    if n_units < 2:
        return f"one {unit} cannot be divided into folds"
    of_class = [len(np.unique(units[labels == label])) for label in (0, 1)]
    n_folds = min(MOST_FOLDS, *of_class)
    if n_folds < 2:
        rare = LABEL_NAMES[int(np.argmin(of_class))]
        return f"{'one' if n_folds else 'no'} {unit} has {rare} images, and folds need two"
    deals = DEALS if n_units < FEW_UNITS else 1
    of_row = np.empty((deals, len(labels)), dtype=np.int64)
    for deal in range(deals):
        generator = np.random.default_rng((seed, deal))
        # scikit-learn places group after group, which takes long for thousands: those go in bundles, still whole.
        bundles = generator.permutation(n_units) % _MOST_BUNDLES
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=int(generator.integers(2**31)))
        for fold, (kept, held) in enumerate(splitter.split(np.zeros(len(labels)), labels, bundles[units])):
            if len(np.unique(labels[kept])) < 2:
                return f"{n_units} {unit}s cannot be divided into folds that leave both classes to learn from"
            of_row[deal, held] = fold
    return Folds(of_row, n_folds)


def simplest(errors: Mapping[str, Floats], units: NDArray[np.int64], n_units: int) -> tuple[str, str]:
    """The first candidate whose mean error is within one standard error of the lowest: (it, the lowest).

    The standard error is that of the difference to the lowest, over units, since rows of one unit err alike.

    Args:
        errors: each candidate's error on each row (N,), the simplest candidate first.
        units: (N,), each in [0, n_units).
        n_units: number of units.

    Source: the one-standard-error rule of Breiman et al., Classification and Regression Trees (1984), paired.

    >>> errors = {"plain": np.array([1.0, 3.0, 2.0]), "fancy": np.array([1.0, 2.9, 2.0])}
    >>> simplest(errors, np.arange(3), 3)
    ('plain', 'fancy')
    """
    means = {name: float(np.mean(of_rows)) for name, of_rows in errors.items()}
    best = min(means, key=lambda name: means[name])
    for name, of_rows in errors.items():
        if means[name] - means[best] <= standard_error(of_rows - errors[best], units, n_units):
            return name, best
    return best, best


def standard_error(values: Floats, units: NDArray[np.int64], n_units: int) -> float:
    """The standard error of the mean of the values (N,) over units; infinite for one unit.

    >>> round(standard_error(np.array([1.0, 2.0, 3.0]), np.arange(3), 3), 6)  # 1 / sqrt 3
    0.57735
    """
    if n_units < 2:
        return float("inf")
    residuals = np.bincount(units, weights=values - np.mean(values), minlength=n_units)
    return float(np.sqrt(n_units / (n_units - 1) * np.sum(residuals**2)) / len(values))
