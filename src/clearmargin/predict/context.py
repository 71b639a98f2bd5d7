"""Which images can be decided in the context of their slide, and what the network says that sees their fields."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from clearmargin.context import Cells, lay_out, neighbours, on_lattice
from clearmargin.images.fields import Fields
from clearmargin.predict.session import Session
from clearmargin.types import Record

_LARGEST_COORDINATE = 2**62
"""Of larger ones the differences are more than 64 bits hold; no slide has them."""


def find_slides(records: Iterable[Record], step: int) -> NDArray[np.int64]:
    """(N,) the number of each record's slide, -1 where the record is decided by itself.

    That is where its slide or its place is unknown, and where the slide's patches do not lie on the lattice of `step`.
    """
    # Arrays of machine words: of a million records no more than 24 bytes each.
    numbers: dict[tuple[str | None, str], int] = {}
    slide_of, x, y = array("q"), array("q"), array("q")
    for record in records:
        if record.slide_id is not None and _is_place(record.x) and _is_place(record.y):
            # Two patients may have slides of one name.
            slide_of.append(numbers.setdefault((record.patient_id, record.slide_id), len(numbers)))
            x.append(record.x)
            y.append(record.y)
        else:
            slide_of.append(-1)
    slides = np.array(slide_of, dtype=np.int64)
    placed = np.flatnonzero(slides >= 0)
    good = on_lattice(slides[placed], np.array(x, dtype=np.int64), np.array(y, dtype=np.int64), step)
    slides[placed[~good]] = -1
    return slides


def _is_place(coordinate: int | None) -> TypeGuard[int]:
    return coordinate is not None and abs(coordinate) <= _LARGEST_COORDINATE


def cells_of(records: Sequence[Record], step: int) -> Cells:
    """Where the patches of one slide lie."""
    x = np.array([record.x for record in records], dtype=np.int64)
    y = np.array([record.y for record in records], dtype=np.int64)
    return lay_out(np.zeros(len(records), dtype=np.int64), x, y, step)


def field_logits(session: Session, thumbnails: NDArray[np.uint8], cells: Cells, field: int) -> NDArray[np.float64]:
    """(N,) logits of the network that sees `field` patches a side around each, from the thumbnails of all."""
    return session.logits(Fields(thumbnails, neighbours(cells, field))).astype(np.float64)
