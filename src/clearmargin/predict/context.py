"""Which images can be decided in the context of their slide, and what the network says that sees their fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clearmargin.context import Cells, lay_out, neighbours, on_lattice
from clearmargin.images.fields import Fields
from clearmargin.predict.session import Session
from clearmargin.types import Record

_LARGEST_COORDINATE = 2**62
"""Of larger ones the differences are more than 64 bits hold; no slide has them."""


def find_slides(records: Sequence[Record], step: int) -> NDArray[np.int64]:
    """(N,) the number of each record's slide, -1 where the record is decided by itself.

    That is where its slide or its place is unknown, and where the slide's patches do not lie on the lattice of `step`.
    """
    slides = np.full(len(records), -1, dtype=np.int64)
    numbers: dict[tuple[str | None, str], int] = {}
    for row, record in enumerate(records):
        if record.slide_id is not None and _is_place(record.x) and _is_place(record.y):
            # Two patients may have slides of one name.
            slides[row] = numbers.setdefault((record.patient_id, record.slide_id), len(numbers))
    placed = np.flatnonzero(slides >= 0)
    good = on_lattice(slides[placed], *_coordinates(records, placed), step)
    slides[placed[~good]] = -1
    return slides


def _is_place(coordinate: int | None) -> bool:
    return coordinate is not None and abs(coordinate) <= _LARGEST_COORDINATE


def cells_of(records: Sequence[Record], step: int) -> Cells:
    """Where the patches of one slide lie."""
    rows = np.arange(len(records))
    return lay_out(np.zeros(len(records), dtype=np.int64), *_coordinates(records, rows), step)


def field_logits(session: Session, thumbnails: NDArray[np.uint8], cells: Cells, field: int) -> NDArray[np.float64]:
    """(N,) logits of the network that sees `field` patches a side around each, from the thumbnails of all."""
    return session.logits(Fields(thumbnails, neighbours(cells, field))).astype(np.float64)


def _coordinates(records: Sequence[Record], rows: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    x = np.array([records[row].x for row in rows], dtype=np.int64)
    y = np.array([records[row].y for row in rows], dtype=np.int64)
    return x, y
