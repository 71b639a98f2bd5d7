"""From logit to decision: calibration, threshold, abstention, pooling to slide and patient.

Evaluation, the command line, Python, REST and slides all decide with this code, so that a figure in
the report and a decision on a new image can never disagree. Choosing a calibration, a threshold, a pooling
or a region of abstention is elsewhere (`evaluation/`); here they are only applied.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clearmargin.types import LABEL_NAMES

Floats = NDArray[np.float64]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

NO_MORE_CERTAIN = 1e-12
"""Probabilities are kept so far from 0 and 1 when a logit is made of them."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Temperature(_Value):
    """Sigmoid of logit / temperature; 1 leaves the model's own probability. Source: Guo et al., ICML 2017."""

    method: Literal["temperature"] = "temperature"
    temperature: Positive = 1.0

    def apply(self, logits: Floats) -> Floats:
        with np.errstate(over="ignore"):  # an infinite quotient has the probability 0 or 1, as it should
            return sigmoid(logits / self.temperature)


class Platt(_Value):
    """Sigmoid of slope * logit + intercept. Source: Platt (1999)."""

    method: Literal["platt"] = "platt"
    slope: Positive
    intercept: Finite

    def apply(self, logits: Floats) -> Floats:
        with np.errstate(over="ignore"):
            return sigmoid(self.slope * logits + self.intercept)


class Beta(_Value):
    """Sigmoid of a * ln p - b * ln(1 - p) + c, p the model's own probability. Source: Kull et al., AISTATS 2017."""

    method: Literal["beta"] = "beta"
    a: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    b: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    c: Finite

    @model_validator(mode="after")
    def _tells_apart(self) -> Beta:
        if self.a == 0 and self.b == 0:
            raise ValueError("beta: a and b are both 0, which would give every image one probability")
        return self

    def apply(self, logits: Floats) -> Floats:
        # ln p is -ln(1 + exp(-logit)), which logaddexp computes without overflow.
        with np.errstate(over="ignore", invalid="ignore"):  # NaN is that of a group without images, and stays
            return sigmoid(self.b * np.logaddexp(0, logits) - self.a * np.logaddexp(0, -logits) + self.c)


class Isotonic(_Value):
    """Linear between knots whose probabilities never fall, flat beyond them.

    Source: Zadrozny and Elkan, KDD 2002.
    """

    method: Literal["isotonic"] = "isotonic"
    logits: Annotated[tuple[Finite, ...], Field(min_length=1, max_length=1000)]
    probabilities: Annotated[tuple[Share, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _rises(self) -> Isotonic:
        if len(self.logits) != len(self.probabilities):
            raise ValueError("isotonic: each knot needs a logit and a probability")
        if any(np.diff(self.logits) <= 0) or any(np.diff(self.probabilities) < 0):
            raise ValueError("isotonic: the knots must rise")
        return self

    def apply(self, logits: Floats) -> Floats:
        return np.interp(logits, self.logits, self.probabilities)


Calibration = Annotated[Temperature | Platt | Beta | Isotonic, Field(discriminator="method")]
"""How a logit becomes a probability; none of them ever lets a higher logit have a lower probability."""

UNCALIBRATED = Temperature()
"""The model's own probability."""


class Pooling(_Value):
    """How the images of a slide or patient become one probability.

    `mean` is the mean probability; `noisy_or` one minus the product of the benign probabilities; `top_k` the
    mean of the `k` highest probabilities (of all, where there are fewer); `learned` the sigmoid of
    intercept + mean_weight * logit of the mean + top_weight * logit of the mean of the highest tenth.
    """

    method: Literal["mean", "noisy_or", "top_k", "learned"] = "mean"
    k: Annotated[int, Field(ge=1)] | None = None
    intercept: Finite = 0.0
    mean_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    top_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _complete(self) -> Pooling:
        if (self.method == "top_k") != (self.k is not None):
            raise ValueError("pooling: k belongs to top_k, and top_k needs it")
        return self


MEAN = Pooling()
"""The mean probability."""


class Level(_Value):
    """How slides or patients are decided: images pooled, calibrated, and compared with a threshold of their own."""

    pooling: Pooling = MEAN
    calibration: Calibration = UNCALIBRATED
    """Of the pooled logit."""
    threshold: Annotated[float, Field(gt=0, le=1)]
    reason: str = ""
    """Why this pooling: how it was chosen, or why no choice was possible."""

    def probability(self, probabilities: NDArray[np.floating], groups: NDArray[np.integer], n_groups: int) -> Floats:
        """The calibrated probability of each group (n_groups,), NaN for one without images.

        Args:
            probabilities: (N,), calibrated, one an image.
            groups: (N,), each in [0, n_groups).
            n_groups: length of the result.
        """
        pooled = pool(probabilities, groups, n_groups, self.pooling)
        if self.calibration == UNCALIBRATED:
            return pooled
        return probability(logit(pooled), self.calibration)


class Abstention(_Value):
    """Where the decision is withheld: calibrated probabilities from `low` to `high`, both included.

    Both are None where the promise holds without withholding anything.
    """

    coverage: Annotated[float, Field(gt=0, lt=1)]
    """Share of images of a new patient for which the answer, with *cannot tell* counted as right, is right."""
    low: Share | None
    high: Share | None
    n_units: Annotated[int, Field(ge=1)]
    """Patients (or images, where patients are unknown) behind the promise."""
    unit: Literal["patient", "image"]

    @model_validator(mode="after")
    def _ordered(self) -> Abstention:
        if (self.low is None) != (self.high is None) or (
            self.low is not None and self.high is not None and self.low > self.high
        ):
            raise ValueError("abstention: low and high belong together, and low is not above high")
        return self

    @property
    def between(self) -> tuple[float, float] | None:
        """(low, high), or None where nothing is withheld."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-value)), without overflow."""
    # The two-sided form never overflows: exp is taken of non-positive numbers only.
    decay = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, decay) / (1.0 + decay)


def logit(probabilities: NDArray[np.floating]) -> Floats:
    """The inverse of `sigmoid`, finite: 0 and 1 are taken as 1e-12 from there; NaN stays."""
    share = np.clip(np.asarray(probabilities, dtype=np.float64), NO_MORE_CERTAIN, 1 - NO_MORE_CERTAIN)
    return np.log(share) - np.log1p(-share)


def probability(logits: NDArray[np.floating], calibration: Calibration = UNCALIBRATED) -> Floats:
    """Calibrated probability of malignant.

    Args:
        logits: any shape, any float dtype.
        calibration: the map; by default the sigmoid.

    >>> probability(np.array([0.0, 2.0]), Temperature(temperature=2.0)).round(3).tolist()
    [0.5, 0.731]
    """
    return calibration.apply(np.asarray(logits, dtype=np.float64))


def decide(
    probabilities: NDArray[np.floating],
    threshold: float,
    *,
    abstain_between: tuple[float, float] | None = None,
) -> NDArray[np.str_]:
    """Decision for each probability: `benign`, `malignant` or `abstain`.

    Args:
        probabilities: (N,), calibrated, in [0, 1].
        threshold: at or above it an image is called malignant.
        abstain_between: (low, high), both included; there the decision is withheld.

    Raises:
        ValueError: a probability is NaN; it would otherwise pass for benign.

    >>> decide(np.array([0.1, 0.5, 0.9]), 0.5).tolist()
    ['benign', 'malignant', 'malignant']
    >>> decide(np.array([0.1, 0.5, 0.9]), 0.5, abstain_between=(0.2, 0.8)).tolist()
    ['benign', 'abstain', 'malignant']
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("a probability is not a number, which no threshold can decide")
    decisions = np.where(values >= threshold, LABEL_NAMES[1], LABEL_NAMES[0])
    if abstain_between is not None:
        low, high = abstain_between
        decisions = np.where((values >= low) & (values <= high), "abstain", decisions)
    return decisions


def pool(
    probabilities: NDArray[np.floating], groups: NDArray[np.integer], n_groups: int, pooling: Pooling = MEAN
) -> Floats:
    """One probability for each group (a slide, a patient), (n_groups,); NaN for a group without images.

    Args:
        probabilities: (N,), in [0, 1].
        groups: (N,), each in [0, n_groups).
        n_groups: length of the result.
        pooling: the rule.

    >>> values, groups = np.array([0.2, 0.4, 1.0]), np.array([0, 0, 1])
    >>> pool(values, groups, 3).round(3).tolist()
    [0.3, 1.0, nan]
    >>> pool(values, groups, 2, Pooling(method="noisy_or")).round(3).tolist()
    [0.52, 1.0]
    >>> pool(values, groups, 2, Pooling(method="top_k", k=1)).tolist()
    [0.4, 1.0]
    """
    values, units = np.asarray(probabilities, dtype=np.float64), np.asarray(groups)
    if pooling.method == "noisy_or":
        with np.errstate(divide="ignore"):
            benign = np.bincount(units, weights=np.log1p(-values), minlength=n_groups)
        counts = np.bincount(units, minlength=n_groups)
        return np.where(counts > 0, -np.expm1(benign), np.nan)
    if pooling.method == "top_k":
        counts = np.bincount(units, minlength=n_groups)
        return _top_mean(values, units, np.minimum(counts, pooling.k or 1))
    mean = pool_mean(values, units, n_groups)
    if pooling.method == "mean":
        return mean
    tops = pool_top_tenth(values, units, n_groups)
    return sigmoid(pooling.intercept + pooling.mean_weight * logit(mean) + pooling.top_weight * logit(tops))


def pool_mean(values: NDArray[np.floating], groups: NDArray[np.integer], n_groups: int) -> Floats:
    """Mean of the values in each group (n_groups,); NaN for a group without values.

    Args:
        values: (N,).
        groups: (N,), each in [0, n_groups).
        n_groups: length of the result.
    """
    sums = np.bincount(groups, weights=np.asarray(values, dtype=np.float64), minlength=n_groups)
    counts = np.bincount(groups, minlength=n_groups)
    means: Floats = np.divide(sums, counts, out=np.full(n_groups, np.nan), where=counts > 0)
    return means


def pool_top_tenth(values: NDArray[np.floating], groups: NDArray[np.integer], n_groups: int) -> Floats:
    """Mean of the highest tenth of the values in each group, one value at least; NaN for an empty group."""
    counts = np.bincount(groups, minlength=n_groups)
    return _top_mean(np.asarray(values, dtype=np.float64), np.asarray(groups), -(-counts // 10))


def _top_mean(values: Floats, groups: NDArray[np.integer], take: NDArray[np.integer]) -> Floats:
    """Mean of the `take` (n_groups,) highest values of each group."""
    order = np.lexsort((-values, groups))
    counts = np.bincount(groups, minlength=len(take))
    rank = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = order[rank < take[groups[order]]]
    return pool_mean(values[chosen], groups[chosen], len(take))
