"""The threshold, chosen by a stated rule on validation and never afterwards.

Its figures there are optimistic, since it was chosen to make them good; the honest ones are on test.
Applying a threshold is elsewhere (`decision.decide`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import DataError, UnknownName, UsageError
from clearmargin.evaluation.calibration import check_both_classes
from clearmargin.evaluation.metrics import (
    Floats,
    Labels,
    Probabilities,
    balanced_accuracy,
    calls,
    confusion,
    sensitivity,
    specificity,
)
from clearmargin.types import MALIGNANT, OperatingPoint

Rule = Literal["balanced", "sensitivity"]
RULES: tuple[Rule, ...] = ("balanced", "sensitivity")


def choose_operating_point(
    labels: Labels, probabilities: Probabilities, *, rule: Rule, target_sensitivity: float = 0.95
) -> OperatingPoint:
    """The operating point on validation that the rule asks for.

    `balanced` has the highest balanced accuracy (Youden's index); of several gaps between probabilities
    that reach it, the widest is taken, then the lowest. `sensitivity` is the highest threshold that calls
    at least `target_sensitivity` of the malignant images malignant. The threshold lies halfway between two
    neighbouring distinct probabilities (or one of them and 0 or 1), so that no image stands on it; only
    where the two are neighbours in floating point is it the upper one. It is in (0, 1].

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), calibrated, in [0, 1].
        rule: `balanced` or `sensitivity`.
        target_sensitivity: in (0, 1]; used by the rule `sensitivity`.

    Raises:
        DataError: one class only, or no threshold above 0 reaches the target.
        UnknownName: no such rule.
        UsageError: a target outside (0, 1].

    Source: Youden, Cancer 3:32 (1950).

    >>> point = choose_operating_point(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.7]), rule="balanced")
    >>> round(point.threshold, 3), point.achieved["sensitivity"]
    (0.4, 1.0)
    """
    if rule not in RULES:
        raise UnknownName("operating point", rule, RULES)
    if not 0 < target_sensitivity <= 1:
        raise UsageError(f"target_sensitivity is {target_sensitivity:g}; it must be above 0 and at most 1.")
    truth, values = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    check_both_classes(truth, "an operating point cannot be chosen")
    gaps = _Gaps(truth, values)
    if rule == "balanced":
        place = gaps.most_balanced()
        text = "the threshold with the highest balanced accuracy on the validation split"
    else:
        place = gaps.highest_with_sensitivity(target_sensitivity)
        text = f"the highest threshold whose sensitivity on the validation split is at least {target_sensitivity:g}"
    threshold = gaps.threshold(place)
    table = confusion(truth, calls(values, threshold))
    achieved = {
        "sensitivity": float(sensitivity(table)),
        "specificity": float(specificity(table)),
        "balanced_accuracy": float(balanced_accuracy(table)),
    }
    return OperatingPoint(name=rule, rule=text, threshold=threshold, chosen_on="validation", achieved=achieved)


class _Gaps:
    """Every gap between neighbouring distinct probabilities, 0 and 1 included, and what a threshold in it calls.

    Gap i lies between `edges[i]` and `edges[i + 1]`; a threshold inside calls `true[i]` malignant and
    `false[i]` benign images malignant. Counts stay integers, so that equal figures compare as equal.
    """

    def __init__(self, labels: Labels, values: Floats) -> None:
        self.edges: Floats = np.unique(np.concatenate([[0.0], values, [1.0]]))
        self.n_malignant = int((labels == MALIGNANT).sum())
        self.n_benign = len(labels) - self.n_malignant
        self.true = _at_or_above(values[labels == MALIGNANT], self.edges[1:])
        self.false = _at_or_above(values[labels != MALIGNANT], self.edges[1:])

    def most_balanced(self) -> int:
        youden = self.true * self.n_benign - self.false * self.n_malignant
        best = np.flatnonzero(youden == youden.max())
        return int(best[np.argmax(np.diff(self.edges)[best])])

    def highest_with_sensitivity(self, target: float) -> int:
        reached = np.flatnonzero(self.true / self.n_malignant >= target)
        if len(reached) == 0:
            lost = self.n_malignant - int(self.true.max())
            raise DataError(
                f"{lost:,} of {self.n_malignant:,} malignant validation images have probability 0, so no threshold "
                f"above 0 has a sensitivity of {target:g}: lower evaluate.target_sensitivity or choose the operating "
                "point 'balanced'."
            )
        return int(reached[-1])

    def threshold(self, place: int) -> float:
        low, high = float(self.edges[place]), float(self.edges[place + 1])
        middle = low + (high - low) / 2
        return middle if low < middle else high


def _at_or_above(values: Floats, edges: Floats) -> NDArray[np.int64]:
    return (len(values) - np.searchsorted(np.sort(values), edges, side="left")).astype(np.int64)
