"""Slide context: where the patches of a slide lie, what surrounds each, and how their logits become one.

A patch is cut from a slide at (x, y); the patches of a slide lie on a lattice whose step is the same in both
directions. Evaluation and prediction place and average them with this code. Nothing is chosen here: how far neighbours
count is, in `evaluation/context.py`, and the second network is trained like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float64]

_BITS = 12
_FARTHEST = 2**_BITS - 1
"""Steps a side that a slide may have; one of 200,000 pixels has as many of 50."""
_LONGEST_STEP = 2**20


class Grid(BaseModel):
    """From the logits of a slide's patches to the logit of each in its context.

    It is the mean logit of the networks, averaged over the neighbourhood by a Gaussian. The average counts the patches
    that are there, so that the edge of a slide is no evidence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: Annotated[int, Field(ge=1, le=_LONGEST_STEP)]
    """Pixels from one patch to the next, in the unit of x and y."""
    scale: Annotated[float, Field(gt=0, le=100)]
    """Standard deviation of the Gaussian, in steps."""
    networks: Literal[1, 2] = 1
    """2 where another network sees the field around each patch."""

    def apply(self, logits: Sequence[Floats], cells: Cells) -> Floats:
        """The logits in context (N,).

        Args:
            logits: of each network, (N,).
            cells: where the patches lie.
        """
        return smooth(mean_logit(logits), cells, self.scale)


@dataclass(frozen=True, slots=True)
class Cells:
    """Where patches lie: `slides` (N,) numbers from 0, `rows` and `columns` (N,) on each slide's lattice from 0."""

    slides: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.slides)


def mean_logit(logits: Sequence[Floats]) -> Floats:
    """The mean (N,) of what each network says, (N,)."""
    result: Floats = np.mean(np.stack(logits), axis=0, dtype=np.float64)
    return result


def find_step(slides: NDArray[np.integer], x: NDArray[np.integer], y: NDArray[np.integer]) -> int | None:
    """The step of the lattice on which the patches of all slides lie, in the unit of x and y; None where there is none.

    It is the most common distance between neighbours along a row or a column of a slide; patches must lie on the
    lattice of that step, no two of a slide at one place.

    Args:
        slides: (N,) numbers of the slides.
        x: (N,) of the patches' left edges.
        y: (N,) of their upper edges.
    """
    distances = []
    for along, across in ((x, y), (y, x)):
        order = np.lexsort((along, across, slides))
        apart = np.diff(along[order])
        same = (np.diff(across[order]) == 0) & (np.diff(slides[order]) == 0)
        distances.append(apart[same & (apart > 0)])
    every = np.concatenate(distances)
    if len(every) == 0:
        return None
    values, counts = np.unique(every, return_counts=True)
    step = int(values[np.argmax(counts)])
    return step if step <= _LONGEST_STEP and on_lattice(slides, x, y, step).all() else None


def on_lattice(
    slides: NDArray[np.integer], x: NDArray[np.integer], y: NDArray[np.integer], step: int
) -> NDArray[np.bool_]:
    """(N,) true for the patches of slides that lie on the lattice of this step as a whole.

    A slide does where it has two patches or more, no two at one place, and all distances are multiples of the step.
    """
    n = int(slides.max(initial=-1)) + 1
    good = np.bincount(slides, minlength=n) >= 2
    for values in (x, y):
        apart = _from_first(values, slides, n)  # below 0 where it is more than 64 bits hold
        good[np.unique(slides[(apart < 0) | (apart % step != 0) | (apart // step > _FARTHEST)])] = False
    order = np.lexsort((x, y, slides))
    same = (np.diff(slides[order]) == 0) & (np.diff(x[order]) == 0) & (np.diff(y[order]) == 0)
    good[np.unique(slides[order[1:][same]])] = False
    return np.asarray(good[slides])


def lay_out(slides: NDArray[np.integer], x: NDArray[np.integer], y: NDArray[np.integer], step: int) -> Cells:
    """The cells of patches that lie on the lattice, see `on_lattice`."""
    numbers = np.unique(slides, return_inverse=True)[1].astype(np.int64)
    n = int(numbers.max(initial=-1)) + 1
    rows, columns = (_from_first(values, numbers, n) // step for values in (y, x))
    return Cells(numbers, rows, columns)


def _from_first(values: NDArray[np.integer], slides: NDArray[np.integer], n: int) -> NDArray[np.int64]:
    """(N,) how far each value lies from the lowest of its slide; `slides` are numbers below n."""
    first = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(first, slides, values)
    return np.asarray(values - first[slides], dtype=np.int64)


def neighbours(cells: Cells, field: int) -> NDArray[np.int64]:
    """(N, field, field) row numbers of the patches around each, itself in the middle; -1 where there is none.

    The first axis goes down the slide, the second to the right. Bounded by the search, N log N for each place.
    """
    # Two spare bits, so that a place beyond an edge is no place on the other side.
    keys = _key(cells.slides, cells.rows, cells.columns)
    order = np.argsort(keys)
    ordered = keys[order]
    half = field // 2
    result = np.empty((len(cells), field, field), dtype=np.int64)
    for i in range(field):
        for j in range(field):
            wanted = _key(cells.slides, cells.rows + i - half, cells.columns + j - half)
            at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
            result[:, i, j] = np.where(ordered[at] == wanted, order[at], -1)
    return result


def _key(slides: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    return (slides << (2 * (_BITS + 1))) + ((rows + 16) << (_BITS + 1)) + (columns + 16)


def smooth(values: Floats, cells: Cells, scale: float) -> Floats:
    """The Gaussian average (N,) of the values (N,) around each patch, over the patches that are there.

    Exact: the Gaussian is not cut off. Bounded by two products of matrices for each slide.

    Args:
        values: finite.
        cells: where the patches lie.
        scale: standard deviation in steps.
    """
    result = np.empty(len(values))
    order = np.argsort(cells.slides, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(cells.slides[order])) + 1):
        # Rows and columns without any patch cost nothing.
        rows, at_row = np.unique(cells.rows[members], return_inverse=True)
        columns, at_column = np.unique(cells.columns[members], return_inverse=True)
        sums, counts = np.zeros((2, len(rows), len(columns)))
        sums[at_row, at_column] = values[members]
        counts[at_row, at_column] = 1.0
        down, across = _gaussian(rows, scale), _gaussian(columns, scale)
        total, weight = down @ sums @ across, down @ counts @ across
        # Only where there is a patch: far from all of them both may be 0.
        result[members] = total[at_row, at_column] / weight[at_row, at_column]
    return result


def _gaussian(places: NDArray[np.int64], scale: float) -> Floats:
    apart = (places[:, None] - places[None, :]) / scale
    result: Floats = np.exp(-0.5 * apart**2)
    return result
