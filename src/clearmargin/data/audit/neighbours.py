"""Which few of many thumbnails may show the same picture: candidates, found without comparing all with all.

A thumbnail is described by its low frequencies (a spectrum), and these by numbers that the eight flips and quarter
turns leave as they are (invariants). Images whose invariants are near share a cell of the space, or probe each
other's; a second look with the margins cut away meets crops. Work and memory grow with the number of images times
`probes` times the size of a cell, whatever the images show. Whether a candidate is a copy is said in `alignment.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from clearmargin.types import Listener

Floats = NDArray[np.floating]
"""In fact float32, for speed and memory."""
Rows = NDArray[np.intp]

THUMBNAIL_PX = 32
"""A patch of 50 px keeps its nuclei; 277,524 thumbnails take 284 MB."""
CROPPED = 0.03
"""Share of each side that the second look cuts away: half way to the largest crop that is looked for."""

_BAND = 8
"""Frequencies in either direction; higher ones do not survive a crop of 5 % without being aligned first."""
_RADIUS = 0.3
"""Between invariants. Of real patches, 98 % of crops (turned, JPEG, brightened) lie nearer, and 0.005 % of others."""
_COARSE = 0.88
"""Least correlation of two spectra in their best orientation; of the same crops, 99 % reach 0.91."""
_CELL = 256
_PROBES = 24
_NEAREST = 6
_CHUNK = 4_096
_HITS = 5
"""Pairs that a cell may yield for each image that looks into it, on average, before only a few of each image count."""
_WAITING = 1_000_000
"""Pairs that may lie in memory until only the best of each image are kept."""


def spectra(thumbnails: NDArray[np.uint8], rows: Rows | None = None, *, cropped: float = 0.0) -> Floats:
    """(N, 8, 8): the low frequencies of each thumbnail, of norm 1 and without the mean, so blind to linear contrast.

    Args:
        thumbnails: (M, 32, 32).
        rows: (N,) which of them; all when None.
        cropped: share of each side that is cut away first.
    """
    place = (np.arange(THUMBNAIL_PX) + 0.5) / THUMBNAIL_PX
    inside = (cropped + (1 - 2 * cropped) * place) * THUMBNAIL_PX - 0.5
    look = np.maximum(0, 1 - np.abs(inside[:, None] - np.arange(THUMBNAIL_PX)))
    wave = np.cos(np.pi * np.outer(np.arange(_BAND), place)) @ look
    wave[0] /= np.sqrt(2)
    transform = wave.astype(np.float32)
    size = len(thumbnails) if rows is None else len(rows)
    result = np.empty((size, _BAND, _BAND), dtype=np.float32)
    for start, stop in _slices(size):
        chosen = thumbnails[start:stop] if rows is None else thumbnails[rows[start:stop]]
        part = transform @ chosen.astype(np.float32) @ transform.T
        part[:, 0, 0] = 0
        norm = np.sqrt(np.einsum("nuv,nuv->n", part, part))
        result[start:stop] = part / np.maximum(norm, 1e-6)[:, None, None]
    return result


def invariants(spectrum: Floats) -> Floats:
    """(N, 25): functions of the spectrum (N, 8, 8) that all eight flips and quarter turns leave as they are.

    A flip changes the sign of odd frequencies in one direction, a quarter turn swaps the directions as well. So sums
    of even pairs stay, differences of even pairs and what is odd twice change their sign, and the length
    of a pair odd once stays.
    """
    swapped = spectrum.transpose(0, 2, 1)
    total, difference = (spectrum + swapped) / np.sqrt(2), (spectrum - swapped) / np.sqrt(2)
    columns = []
    for u in range(_BAND):
        for v in range(u, _BAND):
            low = u + v <= 6
            if (u, v) == (0, 0):
                continue
            if u % 2 == 0 and v % 2 == 0:
                columns.append(spectrum[:, u, u] if u == v else total[:, u, v])
                if u != v and low:
                    columns.append(np.abs(difference[:, u, v]))
            elif u % 2 == 1 and v % 2 == 1 and low:
                columns.append(np.abs(spectrum[:, u, u]) if u == v else np.abs(total[:, u, v]))
                if u != v:
                    columns.append(np.abs(difference[:, u, v]))
            elif (u + v) % 2 == 1 and u + v <= 5:
                columns.append(np.hypot(spectrum[:, u, v], spectrum[:, v, u]))
    return np.stack(columns, axis=1)


def orientation_scores(first: Floats, second: Floats) -> Floats:
    """(P, 8): correlation of pairs of spectra (P, 8, 8), the second one turned in each of eight ways.

    Column 4 t + 2 y + x: transposed if t, then flipped upside down if y, left to right if x.
    """
    scores = np.empty((len(first), 8), dtype=np.float32)
    for transposed in (0, 1):
        product = first * (second.transpose(0, 2, 1) if transposed else second)
        rows = product[:, 0::2].sum(axis=1), product[:, 1::2].sum(axis=1)
        (ee, eo), (oe, oo) = ((part[:, 0::2].sum(axis=1), part[:, 1::2].sum(axis=1)) for part in rows)
        for column, (y, x) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
            scores[:, 4 * transposed + column] = ee + x * eo + y * oe + x * y * oo
    return scores


def find_candidates(
    plain: Floats,
    cropped: Floats,
    *,
    probes: int = _PROBES,
    nearest: int = _NEAREST,
    listener: Listener = Listener(),
) -> tuple[Rows, Rows]:
    """Pairs of rows that may be the same picture, (P,) and (P,), each pair once; P is at most `nearest` times N.

    Args:
        plain: (N, 8, 8) spectra.
        cropped: (N, 8, 8) spectra of the same images, cropped.
        probes: cells that an image looks into; 1 finds nearly exact copies only, and quickly.
        nearest: candidates kept for an image, the most alike.
        listener: hears of each cell that is done.
    """
    nothing = np.empty(0, dtype=np.intp)
    if len(plain) < 2:
        return nothing, nothing
    points = invariants(plain)
    cells = _cells(points)
    looks = ((plain, points), (cropped, invariants(cropped)))
    visits = [_visits(points, look, cells, probes) for _, look in looks]

    def search(cell: int) -> list[tuple[Rows, Rows, Floats]]:
        found = []
        for (spectrum, look), (order, starts) in zip(looks, visits, strict=True):
            for start in range(starts[cell], starts[cell + 1], _CHUNK):
                visitors = order[start : min(start + _CHUNK, starts[cell + 1])].astype(np.intp)
                first, second = _near(look, points, visitors, cells[cell])
                score = orientation_scores(spectrum[first], plain[second]).max(axis=1, initial=0)
                alike = score >= _COARSE
                found.append((first[alike], second[alike], score[alike]))
        return found

    results: list[tuple[Rows, Rows, Floats]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, found in enumerate(pool.map(search, range(len(cells))), start=1):
            results += found
            if done == len(cells) or sum(len(part[0]) for part in results) > _WAITING:
                results = [_most_alike(results, size=len(plain), nearest=nearest)]
            listener.advance(done, len(cells))
    first, second, _ = results[0]
    return first, second


def _cells(points: Floats) -> list[Rows]:
    """All rows in cells of at most 256, halved again and again across the longest direction."""
    stack, cells = [np.arange(len(points))], []
    while stack:
        rows = stack.pop()
        if len(rows) <= _CELL:
            cells.append(rows)
            continue
        sample = points[rows[:: max(1, len(rows) // 500)]]
        sample = sample - sample.mean(axis=0)
        direction = np.ascontiguousarray(np.linalg.eigh(sample.T @ sample)[1][:, -1])
        middle = len(rows) // 2
        order = np.argpartition(points[rows] @ direction, middle)
        stack += [rows[order[:middle]], rows[order[middle:]]]
    return cells


def _visits(points: Floats, look: Floats, cells: list[Rows], probes: int) -> tuple[NDArray[np.int32], Rows]:
    """Who looks into which cell: the rows in order of their cells, and where each cell begins in this order."""
    centres = np.stack([points[rows].mean(axis=0) for rows in cells])
    half = (centres * centres).sum(axis=1) / 2
    probes = min(probes, len(cells))
    nearest = np.empty((len(look), probes), dtype=np.int32)
    for start, stop in _slices(len(look)):
        away = half - look[start:stop] @ centres.T
        nearest[start:stop] = np.argpartition(away, probes - 1, axis=1)[:, :probes]
    order = np.argsort(nearest.ravel(), kind="stable")
    starts = np.concatenate([[0], np.bincount(nearest.ravel(), minlength=len(cells)).cumsum()])
    order //= probes
    return order.astype(np.int32), starts


def _near(look: Floats, points: Floats, visitors: Rows, rows: Rows) -> tuple[Rows, Rows]:
    """The pairs of a visitor and another row of the cell within the radius; a near few where they are very many."""
    mine, theirs = look[visitors], points[rows]
    distance = (mine * mine).sum(axis=1)[:, None] + (theirs * theirs).sum(axis=1) - 2 * (mine @ theirs.T)
    hits = np.flatnonzero(distance < _RADIUS**2)
    if len(hits) > _HITS * len(visitors):
        # The nearest of each of a few parts of the cell: among them the nearest of all, and far faster than a sort.
        parts = np.array_split(np.arange(len(rows)), min(_HITS, len(rows)))
        nearest = np.stack([part[0] + distance[:, part[0] : part[-1] + 1].argmin(axis=1) for part in parts], axis=1)
        within = np.take_along_axis(distance, nearest, axis=1) < _RADIUS**2
        hits = (nearest + len(rows) * np.arange(len(visitors))[:, None])[within]
    first, second = visitors[hits // len(rows)], rows[hits % len(rows)]
    other = first != second
    return first[other], second[other]


def _most_alike(found: list[tuple[Rows, Rows, Floats]], *, size: int, nearest: int) -> tuple[Rows, Rows, Floats]:
    """Each pair once, with its score, if it is among the best of either of its images."""
    first, second, score = (np.concatenate(part) for part in zip(*found, strict=True))
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((high, low, -score))
    low, high, score = low[order], high[order], score[order]
    _, once = np.unique(low * size + high, return_index=True)
    once.sort()  # the best first
    low, high, score = low[once], high[once], score[once]
    ends = np.concatenate([low, high])
    pair = np.tile(np.arange(len(low)), 2)
    order = np.lexsort((pair, ends))
    ends, pair = ends[order], pair[order]
    begins = np.flatnonzero(np.diff(ends, prepend=-1))
    rank = np.arange(len(ends)) - np.repeat(begins, np.diff(begins, append=len(ends)))
    kept = np.unique(pair[rank < nearest])
    return low[kept], high[kept], score[kept]


def _slices(size: int) -> Iterator[tuple[int, int]]:
    return pairwise([*range(0, size, _CHUNK), size])
