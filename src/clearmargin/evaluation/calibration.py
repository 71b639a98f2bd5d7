"""Calibration: the maps that make probabilities honest, fitted on validation, and the choice among them.

The maps themselves and their application are elsewhere (`decision.py`); so are the figures that show
whether probabilities are honest (`reliability.py`, `metrics.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from clearmargin.decision import Beta, Calibration, Isotonic, Platt, Temperature, logit, probability
from clearmargin.errors import DataError, UnknownName, counted
from clearmargin.evaluation.logistic import fit_logistic
from clearmargin.evaluation.metrics import Floats, Labels
from clearmargin.evaluation.selection import Folds, deal_folds, simplest
from clearmargin.evaluation.weighted import number_units
from clearmargin.types import LABEL_NAMES

Method = Literal["auto", "temperature", "platt", "beta", "isotonic"]

TEMPERATURE_RANGE = (0.05, 20.0)
LEAST_SLOPE = 1e-3
"""Of Platt's map: a higher logit never has a lower probability, whatever the data say."""
LEAST_UNITS = 5
"""With fewer patients a cross-validated choice would be a lottery."""
MOST_KNOTS = 200


def fit_temperature(labels: Labels, logits: NDArray[np.floating]) -> Temperature:
    """The temperature T that minimises the log loss of sigmoid(logit / T), within [0.05, 20].

    Above 1 the model was too certain, below 1 too hesitant; the order of the images never changes. The
    lower bound is met when the logits separate the classes, the upper when they know nothing of them; when
    all logits are 0 no T changes anything, and it is 1.

    Args:
        labels: (N,), 0 benign or 1 malignant, of images that the model was not trained on.
        logits: (N,), finite.

    Raises:
        DataError: one class only, or a logit that is not finite.

    Source: Guo et al., ICML 2017. The loss is convex in 1 / T, so its minimum is the one zero of its slope.

    >>> round(fit_temperature(np.array([0, 0, 0, 1]), np.full(4, -2.0)).temperature, 3)  # 2 / ln 3
    1.82
    """
    truth, values = _checked(labels, logits, "a temperature cannot be fitted")
    if not values.any():
        return Temperature()
    lowest, highest = (math.log(bound) for bound in TEMPERATURE_RANGE)

    def slope(log_temperature: float) -> float:
        """Of the log loss in 1 / T: below 0 where the temperature is too high."""
        map_ = Temperature(temperature=math.exp(log_temperature))
        return float(np.mean((probability(values, map_) - truth) * values))

    if slope(lowest) <= 0:
        return Temperature(temperature=TEMPERATURE_RANGE[0])
    if slope(highest) >= 0:
        return Temperature(temperature=TEMPERATURE_RANGE[1])
    return Temperature(temperature=math.exp(optimize.brentq(slope, lowest, highest, xtol=1e-12)))


def fit_platt(labels: Labels, logits: NDArray[np.floating]) -> Platt:
    """The slope (at least LEAST_SLOPE) and intercept of highest likelihood.

    As in the source, the labels are first moved from 0 and 1 by one part in their class's number of images
    + 2, so that logits which separate the classes have a finite slope. Equal logits have the slope 1.

    Args:
        labels: (N,), 0 benign or 1 malignant, of images that the model was not trained on.
        logits: (N,), finite.

    Raises:
        DataError: one class only, or a logit that is not finite.

    Source: Platt, Probabilistic outputs for support vector machines (1999).

    >>> fit = fit_platt(np.array([0, 0, 0, 1]), np.full(4, -2.0))
    >>> fit.slope, round(fit.intercept, 3)  # targets of 1/5 and 2/3 have the mean 0.317
    (1.0, 1.231)
    """
    truth, values = _checked(labels, logits, "a slope cannot be fitted")
    targets = _moved(truth)
    if np.ptp(values) == 0:
        return Platt(slope=1.0, intercept=float(logit(targets.mean(keepdims=True))[0] - values[0]))
    features = np.stack([values, np.ones(len(values))], axis=1)
    slope, intercept = fit_logistic(features, targets, lowest=np.array([LEAST_SLOPE, -np.inf])).tolist()
    return Platt(slope=max(slope, LEAST_SLOPE), intercept=intercept)


def fit_beta(labels: Labels, logits: NDArray[np.floating]) -> Beta:
    """The a, b (0 or more) and c of highest likelihood; labels are moved from 0 and 1 as in `fit_platt`.

    Unlike a slope, a and b bend the two ends apart: a model can be too certain of malignant only. Where the
    logits know nothing both are LEAST_SLOPE, so that the order of the images stays.

    Args:
        labels: (N,), 0 benign or 1 malignant, of images that the model was not trained on.
        logits: (N,), finite.

    Raises:
        DataError: one class only, or a logit that is not finite.

    Source: Kull, Silva Filho and Flach, AISTATS 2017.
    """
    truth, values = _checked(labels, logits, "a beta map cannot be fitted")
    targets = _moved(truth)
    if np.ptp(values) == 0:
        return Beta(a=1.0, b=1.0, c=float(logit(targets.mean(keepdims=True))[0] - values[0]))
    features = np.stack([-np.logaddexp(0, -values), np.logaddexp(0, values), np.ones(len(values))], axis=1)
    a, b, c = fit_logistic(features, targets, lowest=np.array([0.0, 0.0, -np.inf])).tolist()
    if a + b < LEAST_SLOPE:
        return Beta(a=LEAST_SLOPE, b=LEAST_SLOPE, c=c)
    return Beta(a=max(a, 0.0), b=max(b, 0.0), c=c)


def fit_isotonic(labels: Labels, logits: NDArray[np.floating]) -> Isotonic:
    """The rising step function of the lowest squared error, drawn as a line through the middle of its steps.

    A step's knot is at its mean logit, so the map is continuous. A share of 0 or 1 of n images becomes
    0.5 / (n + 1) or (n + 0.5) / (n + 1): no number of images shows that the next is certain. Beyond the first
    and the last knot, and within a step, images tie; their order is in the logits. More than MOST_KNOTS
    steps are joined with their neighbours.

    Args:
        labels: (N,), 0 benign or 1 malignant, of images that the model was not trained on.
        logits: (N,), finite.

    Raises:
        DataError: one class only, or a logit that is not finite.

    Source: Zadrozny and Elkan, KDD 2002; computed by SciPy.

    >>> fit_isotonic(np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, 0.0, 3.0]))
    Isotonic(method='isotonic', logits=(-2.0, -0.5, 3.0), probabilities=(0.25, 0.5, 0.75))
    """
    truth, values = _checked(labels, logits, "an isotonic map cannot be fitted")
    distinct, place = np.unique(values, return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    malignant = np.bincount(place, weights=truth)
    steps = optimize.isotonic_regression(malignant / counts, weights=counts).blocks[:-1]
    if len(steps) > MOST_KNOTS:
        before = np.cumsum(np.add.reduceat(counts, steps)) - np.add.reduceat(counts, steps)
        joined = np.minimum(before * MOST_KNOTS / len(values), MOST_KNOTS - 1).astype(np.int64)
        steps = steps[np.append(True, np.diff(joined) > 0)]
    n = np.add.reduceat(counts, steps)
    shares = np.add.reduceat(malignant, steps) / n
    knots = np.add.reduceat(distinct * counts, steps) / n
    shares[0] = max(shares[0], min(0.5 / (n[0] + 1), shares[1] if len(n) > 1 else 1.0))
    shares[-1] = min(shares[-1], max((n[-1] + 0.5) / (n[-1] + 1), shares[-2] if len(n) > 1 else 0.0))
    apart = np.append(True, np.diff(knots) > 0)  # neighbours in floating point can have the same mean
    # The mean of a rising step function rises, but for rounding.
    return Isotonic(
        logits=tuple(knots[apart].tolist()), probabilities=tuple(np.maximum.accumulate(shares[apart]).tolist())
    )


CALIBRATIONS: Mapping[str, Callable[[Labels, NDArray[np.floating]], Calibration]] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "beta": fit_beta,
    "isotonic": fit_isotonic,
}
"""Every way to fit a calibration, the simplest first."""


class Candidate(NamedTuple):
    """A method that was considered, its cross-validated Brier score, or the reason why it has none."""

    method: str
    brier: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class CalibrationChoice:
    """The calibration, why it is this one, and what else was considered."""

    calibration: Calibration
    reason: str
    candidates: tuple[Candidate, ...] = ()


def choose_calibration(
    labels: Labels,
    logits: NDArray[np.floating],
    groups: NDArray[np.generic] | None,
    *,
    method: Method = "auto",
    seed: int,
) -> CalibrationChoice:
    """The calibration fitted on all images, of the method that is asked for or, with `auto`, chosen.

    `auto` takes the simplest method whose Brier score, cross-validated over whole patients, is within one
    standard error of the lowest; with fewer than LEAST_UNITS patients, or where they cannot be divided into folds,
    a temperature. Every image counts the same. The result depends on the seed, not on the order of the rows.

    Args:
        labels: (N,), 0 benign or 1 malignant, of images that the model was not trained on.
        logits: (N,), finite.
        groups: (N,), the patient of each image; None makes every image its own unit.
        method: a name from CALIBRATIONS, or `auto`.
        seed: 0 or more; deals the patients into folds.

    Raises:
        DataError: one class only, a logit that is not finite, or an image without patient.
        UnknownName: no such method.
    """
    if method != "auto" and method not in CALIBRATIONS:
        raise UnknownName("calibration", method, ("auto", *CALIBRATIONS))
    truth, values = _checked(labels, logits, "probabilities cannot be calibrated")
    units, n_units = number_units(groups, len(truth))
    order = np.lexsort((units, truth, values))  # sums differ in the last digit with the order of the rows
    truth, values, units = truth[order], values[order], units[order] if groups is not None else units
    if method != "auto":
        return CalibrationChoice(CALIBRATIONS[method](truth, values), f"{method} was asked for")
    unit = "image" if groups is None else "patient"
    folds = deal_folds(truth, units, n_units, unit=unit, seed=seed)
    if n_units < LEAST_UNITS and not isinstance(folds, str):
        folds = f"there are {counted(n_units, unit, f'{unit}s')}, and {LEAST_UNITS} are the least"
    if isinstance(folds, str):
        untried = tuple(Candidate(name, None, folds) for name in CALIBRATIONS)
        reason = f"temperature, the simplest, because the choice cannot be cross-validated: {folds}"
        return CalibrationChoice(fit_temperature(truth, values), reason, untried)
    errors = {name: _held_out_errors(name, truth, values, folds) for name in CALIBRATIONS}
    name, best = simplest(errors, units, n_units)
    scores = {candidate: float(np.mean(of_rows)) for candidate, of_rows in errors.items()}
    reason = f"{name} has the lowest Brier score ({scores[name]:.4f})"
    if name != best:
        reason = (
            f"{name} is the simplest whose Brier score ({scores[name]:.4f}) is within one standard error of the "
            f"lowest ({best}, {scores[best]:.4f})"
        )
    reason += f", cross-validated over {n_units:,} {unit}s"
    candidates = tuple(Candidate(candidate, score, None) for candidate, score in scores.items())
    fitted = CALIBRATIONS[name](truth, values)
    if np.ptp(fitted.apply(values)) == 0 and np.ptp(values) > 0:
        reason += f"; but fitted to all it gives every image one probability, so temperature is taken instead of {name}"
        fitted = fit_temperature(truth, values)
    return CalibrationChoice(fitted, reason, candidates)


def check_both_classes(labels: Labels, consequence: str) -> None:
    """Nothing, when both classes are there.

    Raises:
        DataError: otherwise; its line begins with the consequence.
    """
    present = np.unique(labels)
    if len(present) == 0:
        raise DataError(f"{consequence} without images: give the validation split some.")
    if len(present) == 1:
        raise DataError(
            f"{consequence} on one class (all {len(labels):,} images are {LABEL_NAMES[int(present[0])]}): put patients "
            "of both classes into the validation split, for example with a larger share (--set "
            "split.fractions=[0.6,0.2,0.2])."
        )


def _held_out_errors(name: str, labels: Labels, logits: Floats, folds: Folds) -> Floats:
    """Each image's squared error (N,) by maps fitted without its patient, the mean over deals."""
    summed = np.zeros(len(labels))
    for held in folds.held_out():
        fitted = CALIBRATIONS[name](labels[~held], logits[~held])
        summed[held] += (probability(logits[held], fitted) - labels[held]) ** 2
    return summed / len(folds.of_row)


def _checked(labels: Labels, logits: NDArray[np.floating], consequence: str) -> tuple[NDArray[np.int64], Floats]:
    truth, values = np.asarray(labels, dtype=np.int64), np.asarray(logits, dtype=np.float64)
    check_both_classes(truth, consequence)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(
            f"the logit of row {row + 1} is {values[row]}, so {consequence}: the training diverged; "
            "try a lower train.learning_rate."
        )
    return truth, values


def _moved(labels: NDArray[np.int64]) -> Floats:
    """Platt's targets: a little inside of 0 and 1, the less the more images the class has."""
    n_malignant = int(labels.sum())
    n_benign = len(labels) - n_malignant
    return np.where(labels == 1, (n_malignant + 1) / (n_malignant + 2), 1 / (n_benign + 2))
