"""Every figure where each patient counts as often as a row of counts says: resamples, and leaving one out.

The table is sorted once and summed by patient once; each figure is then a weighted sum. Ties are exact, and
every count is an integer. What is drawn is decided in `bootstrap.py`; the definitions of the figures are in
`metrics.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from clearmargin.errors import DataError
from clearmargin.evaluation.metrics import (
    ECE_BINS,
    FIGURES,
    THRESHOLD_FIGURES,
    Floats,
    Labels,
    Probabilities,
    bin_index,
)
from clearmargin.types import MALIGNANT

Integers = NDArray[np.int64]

# Draws are held 16 MB at a time; the sorted table is walked in pieces of 2 MB, which stay in a core's cache.
_DRAWN_ELEMENTS = 2**21
_WALKED_ELEMENTS = 2**18
_MOST_ROWS = 256
# NumPy releases the lock inside the passes; beyond two threads memory is the limit.
_MOST_THREADS = 2

_RANKING_FIGURES = ("auroc", "auprc")


def weighted_figures(
    labels: Labels,
    probabilities: Probabilities,
    patients: NDArray[np.generic] | None,
    counts: Integers,
    *,
    threshold: float | Floats,
    figures: Collection[str] = FIGURES,
) -> dict[str, Floats]:
    """Each figure's value where each patient counts as often as a row says, (rows,), NaN where it is undefined.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].
        patients: (N,), as in `patient_intervals`; they are numbered in the order of their ids.
        counts: (rows, n_units), 0 or more.
        threshold: one number, or (rows,), as in `resampled_figures`.
        figures: names from FIGURES.

    Raises:
        DataError: there is no image, or an image has no patient.
        ValueError: a probability is NaN, or a shape does not fit.

    >>> twice_the_first = np.array([[2, 1, 0]])
    >>> weighted_figures(np.array([0, 1, 1]), np.array([0.1, 0.7, 0.2]), None, twice_the_first, threshold=0.5)[
    ...     "accuracy"
    ... ].tolist()
    [1.0]
    """
    units, n_units = number_units(patients, len(labels))
    if counts.ndim != 2 or counts.shape[1] != n_units:
        raise ValueError(f"counts have the shape {counts.shape}, and there are {n_units} units")
    table = build_table(labels, probabilities, units, n_units=n_units, threshold=threshold, figures=figures)
    return figures_in_chunks(table, len(counts), lambda rows: counts[rows.start : rows.stop], threshold=threshold)


def number_units(patients: NDArray[np.generic] | None, n_images: int) -> tuple[Integers, int]:
    """Each image's unit (n_images,), numbered in the order of their ids, and how many units there are.

    Without patients, image i is unit i.

    Raises:
        DataError: there is no image, or an image has no patient.

    >>> number_units(np.array(["b", "a", "b"]), 3)
    (array([1, 0, 1]), 2)
    """
    if n_images == 0:
        raise DataError("there is no image to resample: give at least one prediction.")
    if patients is None:
        return np.arange(n_images), n_images
    codes, names = pd.factorize(np.asarray(patients), sort=True)
    if missing := int((codes < 0).sum()):
        raise DataError(
            f"{missing} of {n_images} images have no patient: give every patient_id, or no patients to resample images."
        )
    return codes.astype(np.int64), len(names)


@dataclass(frozen=True, slots=True)
class Table:
    """What the figures of any counts need: each unit's sums, and the ranks where a ranking figure is asked for.

    `thresholds` (T,) are the distinct ones, rising. `sums` (n_units, 2 (T + 1) + 1 + ECE_BINS) has, for the
    benign and then for the malignant, how many images reach just the first s thresholds, s from 0 to T; then
    the squared error, and the gap in each bin: the sum of probability - label, whose absolute value over all
    images of a bin is the bin's share of the ECE.
    """

    n_units: int
    thresholds: Floats
    sums: sparse.csr_array
    ranks: _Ranks | None
    figures: tuple[str, ...]


def build_table(
    labels: Labels,
    probabilities: Probabilities,
    units: Integers,
    *,
    n_units: int,
    threshold: float | Floats,
    figures: Collection[str],
) -> Table:
    truth, scores = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError("a probability is not a number, which no threshold can decide")
    given = np.atleast_1d(np.asarray(threshold, dtype=np.float64))
    thresholds = np.unique(given[~np.isnan(given)])
    ranks = _rank(truth, scores, units) if set(figures) & set(_RANKING_FIGURES) else None
    sums = _unit_sums(truth, scores, units, n_units=n_units, thresholds=thresholds)
    return Table(n_units, thresholds, sums, ranks, tuple(name for name in FIGURES if name in figures))


def figures_in_chunks(
    table: Table, n_rows: int, counts_of: Callable[[range], Integers], *, threshold: float | Floats
) -> dict[str, Floats]:
    """Each figure of each row of counts, which are made a chunk at a time."""
    own = np.broadcast_to(np.asarray(threshold, dtype=np.float64), (n_rows,))
    totals = np.empty((n_rows, 5 + ECE_BINS))
    ranking = np.full((len(_RANKING_FIGURES), n_rows), np.nan)
    rows = _chunk_rows(max(table.n_units, table.sums.shape[1]), _DRAWN_ELEMENTS)

    def fill(start: int) -> None:
        chunk = slice(start, min(start + rows, n_rows))
        counts = counts_of(range(n_rows)[chunk])
        totals[chunk] = _totals(table, counts, own[chunk])
        if table.ranks is not None:
            ranking[:, chunk] = _ranking_figures(table.ranks, counts)

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(0, n_rows, rows)):
            pass
    values = dict(zip(_RANKING_FIGURES, ranking, strict=True)) | _figures_of_totals(totals, decided=~np.isnan(own))
    return {name: values[name] for name in table.figures}


def _chunk_rows(row_length: int, elements: int) -> int:
    """How many resamples to work on together: many of a short table, so that the cost of each call is shared."""
    return max(1, min(_MOST_ROWS, elements // row_length))


def _unit_sums(
    labels: Integers, probabilities: Floats, units: Integers, *, n_units: int, thresholds: Floats
) -> sparse.csr_array:
    """The `sums` of `Table`."""
    n_steps = len(thresholds) + 1
    gaps = probabilities - labels
    columns = (
        n_steps * labels + np.searchsorted(thresholds, probabilities, side="right"),
        np.full(len(labels), 2 * n_steps),
        2 * n_steps + 1 + bin_index(probabilities, ECE_BINS),
    )
    entries = (np.ones(len(labels)), gaps**2, gaps)
    # Sparse, and not only for its size: BLAS has threads of its own, which stall when two of ours call it at once.
    return sparse.csr_array(
        (np.concatenate(entries), (np.tile(units, 3), np.concatenate(columns))),
        shape=(n_units, 2 * n_steps + 1 + ECE_BINS),
    )


def _totals(table: Table, counts: Integers, own: Floats) -> Floats:
    """(rows, 5 + ECE_BINS): tn fp fn tp of each row at its own threshold, squared error, gap in each bin."""
    n_steps = len(table.thresholds) + 1
    sums = counts.astype(np.float64) @ table.sums
    steps = sums[:, : 2 * n_steps].reshape(-1, 2, n_steps)
    if n_steps == 2:  # one threshold for all
        return np.concatenate([steps.reshape(-1, 4), sums[:, 4:]], axis=1)
    below = np.cumsum(steps, axis=2)
    # An image below threshold t, which is number j, reaches j of them at most. NaN sorts last, and is not used.
    place = np.minimum(np.searchsorted(table.thresholds, own), n_steps - 1)
    uncalled = np.take_along_axis(below, place[:, None, None], axis=2)[:, :, 0]
    cells = np.stack([uncalled, below[:, :, -1] - uncalled], axis=2)
    return np.concatenate([cells.reshape(-1, 4), sums[:, 2 * n_steps :]], axis=1)


def _figures_of_totals(totals: Floats, *, decided: NDArray[np.bool_]) -> dict[str, Floats]:
    tables = totals[:, :4].reshape(-1, 2, 2)
    n_images = totals[:, :4].sum(axis=1)
    values = {name: np.where(decided, figure(tables), np.nan) for name, figure in THRESHOLD_FIGURES.items()}
    values["brier"] = _mean(totals[:, 4], n_images)
    values["ece"] = _mean(np.abs(totals[:, 5:]).sum(axis=1), n_images)
    return values


def _mean(sums: Floats, n_images: Floats) -> Floats:
    """The sums by images, NaN where there is none."""
    means: Floats = np.divide(sums, n_images, out=np.full(len(sums), np.nan), where=n_images > 0)
    return means


@dataclass(frozen=True, slots=True)
class _Ranks:
    """The table sorted once by falling probability; K is the number of distinct probabilities of malignant images.

    `malignant` (n_malignant,) and `benign` (n_benign,) are the images' units; `ends` (K,) is where each
    group of equal probabilities ends among the malignant; `above` and `reached` (K,) are how many benign
    images rank above the group, and above or level with it.
    """

    malignant: Integers
    benign: Integers
    ends: Integers
    above: Integers
    reached: Integers


def _rank(labels: Integers, probabilities: Floats, units: Integers) -> _Ranks:
    order = np.argsort(-probabilities, kind="stable")
    is_malignant = labels[order] == MALIGNANT
    malignant, benign = order[is_malignant], order[~is_malignant]
    falling, among = -probabilities[malignant], -probabilities[benign]
    ends = np.flatnonzero(np.append(np.diff(falling) > 0, True)) if len(falling) else np.empty(0, dtype=np.int64)
    return _Ranks(
        malignant=units[malignant],
        benign=units[benign],
        ends=ends,
        above=np.searchsorted(among, falling[ends], side="left"),
        reached=np.searchsorted(among, falling[ends], side="right"),
    )


def _ranking_figures(ranks: _Ranks, counts: Integers) -> Floats:
    """AUROC and AUPRC of each resample, (2, len(counts)); counts is (rows, n_units)."""
    figures = np.full((len(_RANKING_FIGURES), len(counts)), np.nan)
    if len(ranks.malignant) == 0:
        return figures
    rows = _chunk_rows(len(ranks.malignant) + len(ranks.benign), _WALKED_ELEMENTS)
    for start in range(0, len(counts), rows):
        chunk = slice(start, start + rows)
        figures[:, chunk] = _ranking_figures_of_rows(ranks, counts[chunk])
    return figures


def _ranking_figures_of_rows(ranks: _Ranks, counts: Integers) -> Floats:
    found = np.cumsum(np.take(counts, ranks.malignant, axis=1), axis=1)
    alarms = np.zeros((len(counts), len(ranks.benign) + 1), dtype=np.int64)
    np.cumsum(np.take(counts, ranks.benign, axis=1), axis=1, out=alarms[:, 1:])
    n_malignant, n_benign = found[:, -1], alarms[:, -1]
    true = np.take(found, ranks.ends, axis=1)
    false = np.take(alarms, ranks.reached, axis=1)
    gained = np.diff(true, axis=1, prepend=0)
    with np.errstate(invalid="ignore"):
        # einsum and not a dot product, which is BLAS again.
        # Before the first drawn image both counts are 0; nothing is gained there, so the quotient may be anything.
        auprc = np.einsum("ri,ri->r", gained, true / np.maximum(true + false, 1)) / n_malignant
        lost = np.einsum("ri,ri->r", gained, false + np.take(alarms, ranks.above, axis=1))
        auroc = 1 - lost / (2 * n_malignant * n_benign)
    return np.stack([auroc, auprc])
