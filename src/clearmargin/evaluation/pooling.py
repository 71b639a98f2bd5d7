"""How slides and patients are decided, chosen on validation: the pooling of their images, and a threshold of their own.

Applying the choice is elsewhere (`decision.Level`). A slide or patient has a label only where all its images
share one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearmargin.decision import (
    MEAN,
    Level,
    Platt,
    Pooling,
    logit,
    pool,
    pool_mean,
    pool_top_tenth,
    probability,
    sigmoid,
)
from clearmargin.errors import UnknownName
from clearmargin.evaluation.calibration import fit_platt
from clearmargin.evaluation.logistic import fit_logistic
from clearmargin.evaluation.metrics import Floats, Labels, Probabilities
from clearmargin.evaluation.operating_point import choose_operating_point
from clearmargin.evaluation.selection import Folds, deal_folds, simplest
from clearmargin.evaluation.weighted import number_units
from clearmargin.types import LABEL_NAMES

Method = Literal["auto", "mean", "noisy_or", "top_k", "learned"]
METHODS: tuple[Method, ...] = ("auto", "mean", "noisy_or", "top_k", "learned")

LEAST_UNITS = 10
"""Of each class: with fewer slides (or patients) a choice among poolings would be chance."""
TOP_KS = (10, 5, 3, 1)
_RIDGE = 1.0


def choose_level(
    labels: Labels,
    probabilities: Probabilities,
    groups: NDArray[np.generic],
    patients: NDArray[np.generic] | None,
    *,
    level: Literal["slide", "patient"],
    pooling: Method = "auto",
    image_threshold: float,
    seed: int,
) -> Level | str:
    """How the units (slides, or patients) are decided, or why this level does not apply.

    Each pooling is followed by a Platt calibration of the pooled logit. `auto` takes the first of mean, noisy-or,
    top-k (large k first) and learned whose Brier score, cross-validated over whole patients, is within one
    standard error of the lowest. The threshold has the highest balanced accuracy on the units. With fewer
    than LEAST_UNITS of either class nothing is fitted: the pooled probability is compared with the images'
    threshold. So is it where every unit has one image, and then the unit's decision is the image's. The
    result depends on the seed, not on the order of the rows.

    Args:
        labels: (N,), 0 benign or 1 malignant, of images of the validation split.
        probabilities: (N,), calibrated, in [0, 1].
        groups: (N,), the unit of each image.
        patients: (N,), the patient of each image, for the folds; None makes each unit its own patient.
        level: what a unit is.
        pooling: `auto`, or the one that is asked for; `top_k` still chooses its k.
        image_threshold: in (0, 1], that of images.
        seed: 0 or more; deals the patients into folds.

    Raises:
        DataError: there is no image, or one has no unit or no patient.
        UnknownName: no such pooling.
    """
    if pooling not in METHODS:
        raise UnknownName("pooling", pooling, METHODS)
    units, n_units = number_units(groups, len(labels))
    shares = pool_mean(np.asarray(labels, dtype=np.float64), units, n_units)
    if mixed := int(((shares > 0) & (shares < 1)).sum()):
        return f"{mixed:,} of {n_units:,} {level}s have images of both classes, so they have no label of their own"
    if n_units < 2:
        return f"it was chosen on one {level} only"
    values = np.asarray(probabilities, dtype=np.float64)
    order = np.lexsort((values, units))  # sums differ in the last digit with the order of the rows
    validation = _Units(level, shares.astype(np.int64), values[order], units[order])
    n_images = np.bincount(units)
    if n_images.max() == 1:
        reason = f"each {level} has one image, and is decided as that image is"
        return Level(threshold=image_threshold, reason=reason)
    candidates = _candidates(pooling, int(np.median(n_images)))
    missing = _why_unfitted(validation.labels, level)
    if missing is None and len(candidates) > 1:
        owners, n_owners, owner = _owners(units, n_units, patients, level)
        folds = deal_folds(validation.labels, owners, n_owners, unit=owner, seed=seed)
        if isinstance(folds, Folds):
            chosen, reason = _choose(candidates, validation, folds, owners=owners, n_owners=n_owners)
            return _fitted(chosen, validation, f"{reason}, cross-validated over {n_owners:,} {owner}s")
        missing = folds
    if missing is None:
        return _fitted(candidates[0], validation, f"{_name(candidates[0])} was asked for")
    rule = MEAN if pooling in ("auto", "learned") else candidates[0]
    reason = f"{_name(rule)} and the images' threshold, because no more can be fitted: {missing}"
    return Level(pooling=rule, threshold=image_threshold, reason=reason)


@dataclass(frozen=True, slots=True)
class _Units:
    """Slides or patients: `labels` (U,) theirs; `probabilities` and `of_image` (N,) each image's, and its unit."""

    level: str
    labels: NDArray[np.int64]
    probabilities: Floats
    of_image: NDArray[np.int64]

    def features(self, pooling: Pooling) -> Floats:
        """(U, 1), the pooled logit, or (U, 2), the two that `learned` weighs."""
        n_units = len(self.labels)
        if pooling.method != "learned":
            return logit(pool(self.probabilities, self.of_image, n_units, pooling))[:, None]
        means = pool_mean(self.probabilities, self.of_image, n_units)
        tops = pool_top_tenth(self.probabilities, self.of_image, n_units)
        return np.stack([logit(means), logit(tops)], axis=1)


def _candidates(method: Method, most: int) -> list[Pooling]:
    """The simplest first. Of top-k those whose k half of the units have; the smallest always."""
    tops = [Pooling(method="top_k", k=k) for k in TOP_KS if k <= max(most, min(TOP_KS))]
    every = [MEAN, Pooling(method="noisy_or"), *tops, Pooling(method="learned")]
    return every if method == "auto" else [pooling for pooling in every if pooling.method == method]


def _why_unfitted(labels: NDArray[np.int64], level: str) -> str | None:
    counts = np.bincount(labels, minlength=2)
    rare = int(np.argmin(counts))
    if counts[rare] >= LEAST_UNITS:
        return None
    return f"it was chosen on {counts[rare]} {LABEL_NAMES[rare]} {level}s, and {LEAST_UNITS} of each are needed"


def _owners(
    units: NDArray[np.int64], n_units: int, patients: NDArray[np.generic] | None, level: str
) -> tuple[NDArray[np.int64], int, str]:
    """Each unit's patient (U,), how many there are, and what they are called; the unit itself without patients."""
    if patients is None or level == "patient":
        return np.arange(n_units), n_units, level
    numbers, n_patients = number_units(patients, len(units))
    owners = np.full(n_units, n_patients)
    np.minimum.at(owners, units, numbers)
    return owners, n_patients, "patient"


def _choose(
    candidates: list[Pooling], validation: _Units, folds: Folds, *, owners: NDArray[np.int64], n_owners: int
) -> tuple[Pooling, str]:
    labels = validation.labels
    errors: dict[str, Floats] = {}
    for candidate in candidates:
        features = validation.features(candidate)
        summed = np.zeros(len(labels))
        for held in folds.held_out():
            pooling, calibration = _fit(candidate, features[~held], labels[~held])
            expected = probability(_pooled_logit(pooling, features[held]), calibration)
            summed[held] += (expected - labels[held]) ** 2
        errors[_name(candidate)] = summed / len(folds.of_row)
    name, best = simplest(errors, owners, n_owners)
    chosen = next(candidate for candidate in candidates if _name(candidate) == name)
    score, lowest = float(np.mean(errors[name])), float(np.mean(errors[best]))
    if name == best:
        return chosen, f"{name} has the lowest Brier score ({score:.4f})"
    return chosen, (
        f"{name} is the simplest whose Brier score ({score:.4f}) is within one standard error of the lowest "
        f"({best}, {lowest:.4f})"
    )


def _fitted(candidate: Pooling, validation: _Units, reason: str) -> Level:
    """The level with all that can be fitted on all units: weights, calibration, threshold."""
    pooling, calibration = _fit(candidate, validation.features(candidate), validation.labels)
    unfinished = Level(pooling=pooling, calibration=calibration, threshold=0.5, reason=reason)
    values = unfinished.probability(validation.probabilities, validation.of_image, len(validation.labels))
    point = choose_operating_point(validation.labels, values, rule="balanced")
    return unfinished.model_copy(update={"threshold": point.threshold})


def _fit(candidate: Pooling, features: Floats, labels: NDArray[np.int64]) -> tuple[Pooling, Platt]:
    pooling = candidate
    if candidate.method == "learned":
        ridge = np.append(_RIDGE * np.var(features, axis=0), 0.0)  # as if each feature had the standard deviation 1
        weighed = np.column_stack([features, np.ones(len(features))])
        lowest = np.array([0.0, 0.0, -np.inf])
        mean_weight, top_weight, intercept = fit_logistic(weighed, labels, ridge=ridge, lowest=lowest).tolist()
        pooling = Pooling(
            method="learned",
            intercept=intercept,
            mean_weight=max(mean_weight, 0.0),
            top_weight=max(top_weight, 0.0),
        )
    return pooling, fit_platt(labels, _pooled_logit(pooling, features))


def _pooled_logit(pooling: Pooling, features: Floats) -> Floats:
    if pooling.method != "learned":
        return features[:, 0]
    weights = np.array([pooling.mean_weight, pooling.top_weight])
    return logit(sigmoid(pooling.intercept + features @ weights))  # within the bounds that `Level` keeps, too


def _name(pooling: Pooling) -> str:
    return f"top_k (k = {pooling.k})" if pooling.method == "top_k" else pooling.method
