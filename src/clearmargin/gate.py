"""What a bundle remembers of its training images so as to tell others, and how far from them an image lies.

The same arithmetic fits the gate (`evaluation/gate.py`) and decides by it (`predict/gate.py`). It is NumPy only. Two
things are looked at, each with a threshold of its own: how an image looks in a few numbers (`images/look.py`), and
what the network sees in it. Each statistic is measured in units of its own tail: 0 is the typical training image, 1
is as far from it as almost no training image goes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = NDArray[np.float64]

FALSE_REFUSALS = 0.01
"""The share of images of new patients, like those of training, that a gate may refuse for their look."""
MOST_FEATURES = 256
"""Features of one network that are told apart; of more, every 256th are added up."""
_MOST_VALUES = 2**20

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Side = Annotated[int, Field(ge=1)]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Matrix(_Value):
    """Numbers in rows and columns, as base64 of little-endian float32: digits would fill pages of model.json."""

    rows: Annotated[int, Field(ge=1, le=_MOST_VALUES)]
    columns: Annotated[int, Field(ge=1, le=_MOST_VALUES)]
    base64: Annotated[str, Field(max_length=6 * _MOST_VALUES)]

    @classmethod
    def of(cls, values: ArrayLike) -> Matrix:
        """The matrix of a table (rows, columns), or of one row."""
        table = np.atleast_2d(np.asarray(values, dtype="<f4"))
        return cls(rows=table.shape[0], columns=table.shape[1], base64=base64.b64encode(table.tobytes()).decode())

    @model_validator(mode="after")
    def _whole(self) -> Self:
        try:
            data = base64.b64decode(self.base64, validate=True)
        except binascii.Error:
            raise ValueError("input_gate: a matrix is not base64") from None
        if len(data) != 4 * self.rows * self.columns or not np.isfinite(np.frombuffer(data, "<f4")).all():
            raise ValueError("input_gate: a matrix does not hold the numbers that it promises")
        return self

    @cached_property
    def values(self) -> Floats:
        """(rows, columns), to be read only."""
        flat = np.frombuffer(base64.b64decode(self.base64), dtype="<f4")
        return flat.reshape(self.rows, self.columns).astype(np.float64)


class Evidence(_Value):
    """On what a threshold was chosen."""

    chosen_on: str
    unit: Literal["patient", "image"]
    n_units: Annotated[int, Field(ge=1)]
    n_images: Annotated[int, Field(ge=1)]
    share: Annotated[float, Field(ge=0, le=1)]
    """Of those images, patients counting alike, that it would refuse."""


class Tail(_Value):
    """One statistic in training: the typical value, and those that few images of a new patient go below or above."""

    low: _Finite
    middle: _Finite
    high: _Finite

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.low < self.middle < self.high:
            raise ValueError("input_gate: the low, middle and high value of a statistic must rise")
        return self


class Look(_Value):
    """How the training images look; `joint` says which combinations of statistics are common there."""

    statistics: dict[str, Tail]
    joint: Matrix
    """(S, S): deviations from the middle times this are of unit variance and uncorrelated in training."""
    joint_edge: _Positive
    """The root mean square of those which almost no training image exceeds."""
    threshold: _Positive
    evidence: Evidence

    @model_validator(mode="after")
    def _fits(self) -> Self:
        size = len(self.statistics)
        if size == 0 or (self.joint.rows, self.joint.columns) != (size, size):
            raise ValueError("input_gate: joint must have a row and a column for each statistic")
        return self

    def distances(self, values: Floats) -> Floats:
        """(N, S + 1) how far each statistic lies from the typical one, negative below it, and their combination last.

        Args:
            values: (N, S), in the order of `statistics`.
        """
        low, middle, high = np.array([(each.low, each.middle, each.high) for each in self.statistics.values()]).T
        deviation = values - middle
        single = deviation / np.where(deviation > 0, high - middle, middle - low)
        together = np.sqrt(np.mean((deviation @ self.joint.values) ** 2, axis=1)) / self.joint_edge
        return np.column_stack([single, together])


class Block(_Value):
    """The features of one network on its training images: probabilistic principal components.

    Tipping & Bishop (1999): along the directions of the largest variance each has its own, and all others share one.
    """

    centre: Matrix
    scale: Matrix
    """What deviations are multiplied with, so that each feature has about unit spread."""
    axes: Matrix
    """(D, d), orthonormal: the directions of the largest variance."""
    weights: Matrix
    """(1, d) inverse variances along them, and the last that of every other direction."""
    edge: _Positive
    """The distance that almost no training image exceeds."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        n = self.centre.columns
        shapes = [(each.rows, each.columns) for each in (self.centre, self.scale, self.axes, self.weights)]
        if shapes != [(1, n), (1, n), (n, self.axes.columns), (1, self.axes.columns + 1)]:
            raise ValueError("input_gate: the parts of the features do not fit each other")
        return self

    def distances(self, features: Floats) -> Floats:
        """(N,) Mahalanobis distances of folded features (N, D), 1 at the edge of training."""
        deviation = (features - self.centre.values) * self.scale.values
        along = (deviation @ self.axes.values) ** 2
        weights = self.weights.values[0]
        rest = np.maximum((deviation**2).sum(axis=1) - along.sum(axis=1), 0)
        squared: Floats = (along @ weights[:-1] + rest * weights[-1]) / features.shape[1]
        return np.sqrt(squared) / self.edge


class Features(_Value):
    """What the networks see in their training images; the distance is the mean over the networks."""

    width: Annotated[int, Field(ge=1)]
    """Features that the ONNX network gives, those of several networks side by side."""
    blocks: Annotated[tuple[Block, ...], Field(min_length=1, max_length=100)]
    threshold: _Positive
    evidence: Evidence

    @model_validator(mode="after")
    def _fits(self) -> Self:
        each, rest = divmod(self.width, len(self.blocks))
        if rest or any(block.centre.columns != min(each, MOST_FEATURES) for block in self.blocks):
            raise ValueError("input_gate: the networks do not share the features evenly")
        return self

    def distances(self, features: NDArray[np.floating]) -> Floats:
        """(N,) how far the features (N, width) lie from those of training."""
        parts = fold_features(features, len(self.blocks))
        each = [block.distances(part) for block, part in zip(self.blocks, parts, strict=True)]
        mean: Floats = np.mean(each, axis=0)
        return mean


class Sizes(_Value):
    """The sizes that training images had before they were fitted, and how far beyond them others may go."""

    smallest: tuple[_Side, _Side]
    """Of the image with the shortest longer side: width and height."""
    largest: tuple[_Side, _Side]
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)]


class TestShare(_Value):
    """How many images of test the gate refuses."""

    images: Annotated[int, Field(ge=1)]
    refused: Annotated[int, Field(ge=0)]


class Gate(_Value):
    """What an image must be like. A text says why a part is missing."""

    sizes: Sizes
    grey: bool | None
    """All training images are in shades of grey, or none is; None where some are, or where it cannot be told."""
    blank: bool
    """Some training images are of one shade."""
    look: Look | None = None
    no_look: str | None = None
    features: Features | None = None
    no_features: str | None = None
    chosen_on: str
    on_test: TestShare | None = None
    """What it refuses of images that it was not chosen on."""

    @property
    def parts(self) -> list[Look | Features]:
        """The parts that have a threshold."""
        return [part for part in (self.look, self.features) if part is not None]


def fold_features(features: NDArray[np.floating], n_blocks: int) -> list[Floats]:
    """The features (N, width) of each network, (N, at most MOST_FEATURES): of more, every 256th are added up."""
    return [_folded(part) for part in np.split(np.asarray(features, dtype=np.float64), n_blocks, axis=1)]


def weighted_quantiles(values: Floats, weights: Floats, levels: Sequence[float]) -> Floats:
    """The quantiles of weighted values (N,): the smallest value up to which the share is at least the level.

    >>> weighted_quantiles(np.array([3.0, 1.0, 2.0]), np.array([0.25, 0.5, 0.25]), [0.5, 0.6]).tolist()
    [1.0, 2.0]
    """
    order = np.argsort(values, kind="stable")
    shares = np.cumsum(weights[order]) / weights.sum()
    places = np.searchsorted(shares, np.asarray(levels) - 1e-12)
    quantiles: Floats = values[order][np.minimum(places, len(values) - 1)]
    return quantiles


def _folded(part: Floats) -> Floats:
    if part.shape[1] <= MOST_FEATURES:
        return part
    missing = -part.shape[1] % MOST_FEATURES
    padded = np.pad(part, ((0, 0), (0, missing)))
    folded: Floats = padded.reshape(len(part), -1, MOST_FEATURES).sum(axis=1)
    return folded
