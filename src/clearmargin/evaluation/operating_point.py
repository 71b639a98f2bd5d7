"""The threshold, chosen by a stated rule on validation and never afterwards.

Its figures there are optimistic, since it was chosen to make them good; the honest ones are on test.
Applying a threshold is elsewhere (`decision.decide`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import NotAttainable, UnknownName, UsageError
from clearmargin.evaluation.bootstrap import draw_units
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
from clearmargin.evaluation.weighted import number_units
from clearmargin.types import LABEL_NAMES, MALIGNANT, OperatingPoint

Rule = Literal["balanced", "sensitivity", "specificity", "cost", "net_benefit"]
RULES: tuple[Rule, ...] = ("balanced", "sensitivity", "specificity", "cost", "net_benefit")

VALIDATION_STREAM = 1
"""Of `draw_units`, for resamples of the validation patients; those of the test patients are stream 0."""


def choose_operating_point(
    labels: Labels,
    probabilities: Probabilities,
    *,
    rule: Rule,
    target_sensitivity: float = 0.95,
    target_specificity: float = 0.95,
    cost_ratio: float = 10.0,
    threshold_probability: float = 0.1,
) -> OperatingPoint:
    """The operating point on validation that the rule asks for.

    `balanced` has the highest balanced accuracy (Youden's index). `sensitivity` is the highest threshold
    that calls at least `target_sensitivity` of the malignant images malignant, `specificity` the lowest
    that calls at least `target_specificity` of the benign images benign. `cost` has the least expected
    cost, false alarms + `cost_ratio` * missed malignant images. `net_benefit` has the highest net benefit,
    TP / n - FP / n * pt / (1 - pt) at the threshold probability pt; it is the cost rule with the ratio
    (1 - pt) / pt.

    Of several gaps between probabilities that do equally well, the widest is taken, then the lowest. The
    threshold lies halfway between two neighbouring distinct probabilities (or one of them and 0 or 1), so
    that no image stands on it; only where the two are neighbours in floating point is it the upper one. It
    is in (0, 1]. Where it calls all images the same, the point's `rule` says so.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), calibrated, in [0, 1].
        rule: one of RULES.
        target_sensitivity: in (0, 1]; used by the rule `sensitivity`.
        target_specificity: in (0, 1]; used by the rule `specificity`.
        cost_ratio: above 0, the cost of a missed malignant image in false alarms; used by the rule `cost`.
        threshold_probability: in (0, 1), the probability of malignancy from which on one would act; used by
            the rule `net_benefit`.

    Raises:
        DataError: one class only.
        NotAttainable: no threshold in (0, 1] reaches the target.
        UnknownName: no such rule.
        UsageError: a number out of its range.

    Source: Youden, Cancer 3:32 (1950); Vickers and Elkin, Med. Decis. Making 26:565 (2006).

    >>> point = choose_operating_point(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.7]), rule="balanced")
    >>> round(point.threshold, 3), point.achieved["sensitivity"]
    (0.4, 1.0)
    """
    goal = _goal(rule, target_sensitivity, target_specificity, cost_ratio, threshold_probability)
    truth, values = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    check_both_classes(truth, "an operating point cannot be chosen")
    edges, malignant, benign = _images_at(truth, values)
    threshold = _Gaps(edges, np.bincount(malignant, minlength=len(edges)), np.bincount(benign, minlength=len(edges)))
    return _describe(goal, truth, values, threshold=threshold.best_threshold(goal))


def resampled_thresholds(
    labels: Labels,
    probabilities: Probabilities,
    patients: NDArray[np.generic] | None,
    *,
    rule: Rule,
    resamples: int,
    seed: int,
    target_sensitivity: float = 0.95,
    target_specificity: float = 0.95,
    cost_ratio: float = 10.0,
    threshold_probability: float = 0.1,
) -> Floats:
    """The threshold that the rule chooses on each resample of the validation patients, (resamples,).

    NaN where it can choose none: a class is absent from the resample, or the target cannot be attained. As
    the `threshold` of `resampled_figures` on test, they put the uncertainty of the choice into the interval.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), calibrated, in [0, 1].
        patients: (N,), any hashable id of the patient of each image; None makes every image its own unit.
        rule: one of RULES; its numbers are those of `choose_operating_point`.
        resamples: number of resamples.
        seed: of the draws, which are independent of those of the test patients with the same seed.
        target_sensitivity: as in `choose_operating_point`.
        target_specificity: as in `choose_operating_point`.
        cost_ratio: as in `choose_operating_point`.
        threshold_probability: as in `choose_operating_point`.

    Raises:
        DataError: there is no image, or an image has no patient.
        UnknownName: no such rule.
        UsageError: a number out of its range.

    >>> labels, probabilities = np.array([0, 1, 0, 1]), np.array([0.2, 0.8, 0.4, 0.6])
    >>> patients = np.array(["a", "a", "b", "b"])
    >>> chosen = resampled_thresholds(labels, probabilities, patients, rule="balanced", resamples=50, seed=0)
    >>> np.unique(chosen.round(3)).tolist()  # of a alone, of b alone or of both, the middle is the same
    [0.5]
    """
    goal = _goal(rule, target_sensitivity, target_specificity, cost_ratio, threshold_probability)
    truth, values = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    units, n_units = number_units(patients, len(truth))
    edges, malignant, benign = _images_at(truth, values)
    units_malignant, units_benign = units[truth == MALIGNANT], units[truth != MALIGNANT]
    thresholds = np.full(resamples, np.nan)
    for resample in range(resamples):
        drawn = draw_units(n_units, resample=resample, seed=seed, stream=VALIDATION_STREAM)
        times = np.bincount(drawn, minlength=n_units)
        gaps = _Gaps(
            edges,
            np.bincount(malignant, weights=times[units_malignant], minlength=len(edges)).astype(np.int64),
            np.bincount(benign, weights=times[units_benign], minlength=len(edges)).astype(np.int64),
        )
        if gaps.n_malignant and gaps.n_benign:
            try:
                thresholds[resample] = gaps.best_threshold(goal)
            except NotAttainable:
                continue
    return thresholds


@dataclass(frozen=True, slots=True)
class _Goal:
    """What a rule asks for: `number` is its target, its cost ratio, or for `balanced` nothing."""

    rule: Rule
    number: float
    text: str


def _goal(
    rule: Rule, target_sensitivity: float, target_specificity: float, cost_ratio: float, threshold_probability: float
) -> _Goal:
    if rule not in RULES:
        raise UnknownName("operating point", rule, RULES)
    for name, target in (("target_sensitivity", target_sensitivity), ("target_specificity", target_specificity)):
        if not 0 < target <= 1:
            raise UsageError(f"{name} is {target:g}; it must be above 0 and at most 1.")
    if not 0 < cost_ratio < float("inf"):
        raise UsageError(f"cost_ratio is {cost_ratio:g}; it must be above 0 and finite.")
    if not 0 < threshold_probability < 1:
        raise UsageError(f"threshold_probability is {threshold_probability:g}; it must be above 0 and below 1.")
    odds_against = (1 - threshold_probability) / threshold_probability
    goals: dict[Rule, tuple[float, str]] = {
        "balanced": (0.0, "the threshold with the highest balanced accuracy"),
        "sensitivity": (
            target_sensitivity,
            f"the highest threshold whose sensitivity is at least {target_sensitivity:g}",
        ),
        "specificity": (
            target_specificity,
            f"the lowest threshold whose specificity is at least {target_specificity:g}",
        ),
        "cost": (
            cost_ratio,
            "the threshold with the least expected cost, a missed malignant image counting "
            f"as {cost_ratio:g} false alarms",
        ),
        "net_benefit": (
            odds_against,
            f"the threshold with the highest net benefit at the threshold probability {threshold_probability:g}",
        ),
    }
    return _Goal(rule, *goals[rule])


def _describe(goal: _Goal, labels: Labels, values: Floats, *, threshold: float) -> OperatingPoint:
    called = calls(values, threshold)
    table = confusion(labels, called)
    alike = (
        f"; it calls every validation image {LABEL_NAMES[int(called[0])]}" if np.ptp(called.astype(int)) == 0 else ""
    )
    achieved = {
        "sensitivity": float(sensitivity(table)),
        "specificity": float(specificity(table)),
        "balanced_accuracy": float(balanced_accuracy(table)),
    }
    return OperatingPoint(goal.rule, goal.text + alike, threshold, chosen_on="validation", achieved=achieved)


def _images_at(labels: Labels, values: Floats) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp]]:
    """The distinct probabilities with 0 and 1, and the place among them of each malignant and each benign image."""
    edges: Floats = np.unique(np.concatenate([[0.0], values, [1.0]]))
    places = np.searchsorted(edges, values)
    return edges, places[labels == MALIGNANT], places[labels != MALIGNANT]


class _Gaps:
    """Every gap between neighbouring distinct probabilities, 0 and 1 included, and what a threshold in it calls.

    Gap i lies between `edges[i]` and `edges[i + 1]`; a threshold inside calls `true[i]` malignant and
    `false[i]` benign images malignant. Counts stay integers, so that equal figures compare as equal.
    """

    def __init__(self, edges: Floats, malignant: NDArray[np.int64], benign: NDArray[np.int64]) -> None:
        """`malignant` and `benign` are the numbers of images at each edge; an edge without images is no edge."""
        is_edge = malignant + benign > 0
        is_edge[[0, -1]] = True
        self.edges = edges[is_edge]
        self.n_malignant, self.n_benign = int(malignant.sum()), int(benign.sum())
        self.true = self.n_malignant - np.cumsum(malignant[is_edge])[:-1]
        self.false = self.n_benign - np.cumsum(benign[is_edge])[:-1]

    def best_threshold(self, goal: _Goal) -> float:
        place = self._best(goal)
        low, high = float(self.edges[place]), float(self.edges[place + 1])
        middle = low + (high - low) / 2
        return middle if low < middle else high

    def _best(self, goal: _Goal) -> int:
        if goal.rule == "sensitivity":
            return self._highest_with_sensitivity(goal.number)
        if goal.rule == "specificity":
            return self._lowest_with_specificity(goal.number)
        if goal.rule == "balanced":
            youden = self.true * self.n_benign - self.false * self.n_malignant
            return self._widest(youden == youden.max())
        cost = self.false + goal.number * (self.n_malignant - self.true)
        # Equal costs may differ in the last digit, since the ratio is no integer.
        return self._widest(np.isclose(cost, cost.min(), rtol=1e-12, atol=0))

    def _widest(self, best: NDArray[np.bool_]) -> int:
        places = np.flatnonzero(best)
        return int(places[np.argmax(np.diff(self.edges)[places])])

    def _highest_with_sensitivity(self, target: float) -> int:
        reached = np.flatnonzero(self.true / self.n_malignant >= target)
        if len(reached) == 0:
            lost = self.n_malignant - int(self.true.max())
            raise NotAttainable(
                f"{lost:,} of {self.n_malignant:,} malignant validation images have probability 0, so no threshold "
                f"above 0 has a sensitivity of {target:g}: lower evaluate.target_sensitivity or choose the operating "
                "point 'balanced'."
            )
        return int(reached[-1])

    def _lowest_with_specificity(self, target: float) -> int:
        reached = np.flatnonzero((self.n_benign - self.false) / self.n_benign >= target)
        if len(reached) == 0:
            raise NotAttainable(
                f"{int(self.false.min()):,} of {self.n_benign:,} benign validation images have probability 1, so no "
                f"threshold has a specificity of {target:g}: lower evaluate.target_specificity or choose the operating "
                "point 'balanced'."
            )
        return int(reached[0])
