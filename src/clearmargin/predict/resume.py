"""Predictions from a row on, bit for bit those of a run that began with the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from clearmargin.predict.context import find_slides
from clearmargin.predict.predictor import Predictor
from clearmargin.types import Prediction, Record


@dataclass(frozen=True, slots=True)
class _From:
    """The records from a row on, as often as they are asked for."""

    records: Iterable[Record]
    start: int

    def __iter__(self) -> Iterator[Record]:
        return islice(iter(self.records), self.start, None)


def find_start(predictor: Predictor, records: Iterable[Record], done: int, *, context: bool = True) -> int:
    """The row to go on from when `done` rows are there: `done`, or before a slide of which only a part is there.

    Args:
        predictor: of the bundle.
        records: all of them; they are gone through.
        done: rows whose predictions are known.
        context: as for `Predictor.predict_records`.
    """
    grid = predictor.bundle.model.context
    if not context or grid is None:
        return done
    slides = find_slides(records, grid.grid.step)
    rows = np.flatnonzero(slides >= 0)
    if not len(rows):
        return done
    number = slides[rows]
    first, last = np.full((2, number.max() + 1), -1)
    first[number[::-1]], last[number] = rows[::-1], rows
    change = np.zeros(len(slides) + 2, dtype=np.int64)
    seen = first >= 0
    np.add.at(change, first[seen] + 1, 1)
    np.add.at(change, last[seen] + 1, -1)
    return int(np.flatnonzero(np.cumsum(change)[: done + 1] == 0)[-1])


def predict_from(
    predictor: Predictor, records: Iterable[Record], start: int, *, context: bool = True, similar: int = 0
) -> Iterator[Prediction]:
    """The predictions of all rows from `start` on, which `find_start` gave.

    Args:
        predictor: of the bundle.
        records: all of them.
        start: the first row that is wanted.
        context: as for `Predictor.predict_records`.
        similar: so many training images that the network finds most like each come along.
    """
    # The last digit of a logit may differ with the place in a batch, so batches begin where they did.
    begin = start // predictor.batch * predictor.batch
    rest = _From(records, begin) if begin else records
    return islice(predictor.predict_records(rest, context=context, similar=similar), start - begin, None)
