"""Intervals from a bootstrap over patients: whole patients are drawn with replacement, all their images with them.

Images of one patient resemble each other, so resampling images would pretend to know more than the data
say. A resample is never built: a drawn patient is a multiplicity, the table is sorted once, and each figure
is a weighted sum. Ties are exact, and every count is an integer. The result depends on the seed and the
resample's number only, not on the number of threads; the definitions of the figures are in `metrics.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
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
    calls,
)
from clearmargin.types import MALIGNANT

Integers = NDArray[np.int64]

LEVEL = 0.95
QUANTILES = (0.025, 0.975)
LEAST_DEFINED = 0.9
"""An interval needs this share of the resamples to have a defined value."""

# Draws are held 16 MB at a time; the sorted table is walked in pieces of 2 MB, which stay in a core's cache.
_DRAWN_ELEMENTS = 2**21
_WALKED_ELEMENTS = 2**18
_MOST_ROWS = 256
# NumPy releases the lock inside the passes; beyond two threads memory is the limit.
_MOST_THREADS = 2

_RANKING_FIGURES = ("auroc", "auprc")


def patient_intervals(
    labels: Labels,
    probabilities: Probabilities,
    patients: NDArray[np.generic] | None,
    *,
    threshold: float,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float] | None]:
    """The 95 % percentile interval (low, high) of every figure in FIGURES; None where there is none.

    There is none when fewer than 90 % of the resamples have a defined value, or when the resamples agree
    (one patient, a perfect score): an interval without width would look like certainty.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].
        patients: (N,), any hashable id of the patient of each image; None makes every image its own unit.
        threshold: at or above it an image is called malignant.
        resamples: number of resamples, 1 or more; with 2,000 each end is known to about 1.5 % of the width.
        seed: 0 or more.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; drawing whole
    patients: Field and Welsh, J. R. Stat. Soc. B 69:369 (2007).

    >>> intervals = patient_intervals(
    ...     np.array([0, 0, 1, 1]), np.array([0.1, 0.7, 0.6, 0.9]), None, threshold=0.5, resamples=200, seed=0
    ... )
    >>> intervals["accuracy"], intervals["sensitivity"]
    ((0.5, 1.0), None)
    """
    values = resampled_figures(labels, probabilities, patients, threshold=threshold, resamples=resamples, seed=seed)
    return {name: percentile_interval(of_figure) for name, of_figure in values.items()}


def percentile_interval(values: Floats) -> tuple[float, float] | None:
    """The 2.5th and 97.5th percentile of the defined values, or None where they make no interval.

    Args:
        values: (resamples,), NaN where the figure is undefined in a resample.

    >>> percentile_interval(np.arange(0.0, 401.0))
    (10.0, 390.0)
    >>> percentile_interval(np.array([0.5, np.nan])) is None
    True
    """
    defined = values[np.isfinite(values)]
    if len(defined) == 0 or len(defined) < LEAST_DEFINED * len(values):
        return None
    low, high = np.quantile(defined, QUANTILES).tolist()
    return (low, high) if low < high else None


def agreement_interval(value: float, values: Floats, *, n_units: int) -> tuple[float, float] | None:
    """The exact binomial interval for a figure that is 0 or 1 in every resample, or None where it is not.

    A percentile interval would have no width and look like certainty. All that n units of one mind show is
    that the share of such units is at least 0.025 ** (1 / n) (Clopper and Pearson 1934).

    Args:
        value: the figure itself.
        values: (resamples,) the figure in each resample, NaN where it is undefined.
        n_units: number of units (patients, or images) behind it.

    >>> agreement_interval(1.0, np.ones(200), n_units=3)
    (0.2924017738212866, 1.0)
    """
    defined = values[np.isfinite(values)]
    if n_units < 2 or value not in (0.0, 1.0) or len(defined) < LEAST_DEFINED * len(values) or np.ptp(defined) > 0:
        return None
    bound = float(QUANTILES[0] ** (1 / n_units))
    return (bound, 1.0) if value == 1.0 else (0.0, 1.0 - bound)


def why_no_interval(values: Floats, *, n_units: int, unit: str) -> str:
    """Why `percentile_interval` gave None, in words.

    Args:
        values: (resamples,), as given to `percentile_interval`.
        n_units: number of patients (or images) that were resampled.
        unit: `patient` or `image`.

    >>> why_no_interval(np.ones(100), n_units=1, unit="patient")
    'one patient: an interval over patients cannot be computed'
    """
    if n_units == 1:
        return f"one {unit}: an interval over {unit}s cannot be computed"
    defined = int(np.isfinite(values).sum())
    if defined < LEAST_DEFINED * len(values):
        return f"defined in only {defined:,} of {len(values):,} resamples of {unit}s; {LEAST_DEFINED:.0%} are needed"
    return f"the resamples of {unit}s agree, and an interval without width would look like certainty"


def draw_units(n_units: int, *, resample: int, seed: int) -> Integers:
    """The units (patients, or images) of one resample: (n_units,) numbers in [0, n_units), with repeats.

    The same seed and resample always give the same draw, so figures of two models on the same patients can
    be compared resample by resample.
    """
    return np.random.default_rng((seed, resample)).integers(n_units, size=n_units)


def resampled_figures(
    labels: Labels,
    probabilities: Probabilities,
    patients: NDArray[np.generic] | None,
    *,
    threshold: float,
    resamples: int,
    seed: int,
    figures: Collection[str] = FIGURES,
) -> dict[str, Floats]:
    """Each figure's value in each resample, (resamples,), NaN where it is undefined there.

    Patients are numbered in the order of their ids, so the order of the rows does not matter; without
    patients, row i is unit i.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].
        patients: (N,), as in `patient_intervals`.
        threshold: at or above it an image is called malignant.
        resamples: number of resamples.
        seed: 0 or more.
        figures: names from FIGURES; leaving out `auroc` and `auprc` makes it many times faster.

    Raises:
        DataError: there is no image, or an image has no patient.
    """
    truth, scores = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    units, n_units = _number_units(patients, len(truth))
    sums = _unit_sums(truth, scores, units, n_units=n_units, threshold=threshold)
    ranks = _rank(truth, scores, units) if set(figures) & set(_RANKING_FIGURES) else None
    totals = np.empty((resamples, sums.shape[1]))
    ranking = np.full((len(_RANKING_FIGURES), resamples), np.nan)
    rows = _chunk_rows(n_units, _DRAWN_ELEMENTS)

    def fill(start: int) -> None:
        chunk = slice(start, min(start + rows, resamples))
        counts = _draw_counts(n_units, range(resamples)[chunk], seed=seed)
        totals[chunk] = counts.astype(np.float64) @ sums
        if ranks is not None:
            ranking[:, chunk] = _ranking_figures(ranks, counts)

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(0, resamples, rows)):
            pass
    values = dict(zip(_RANKING_FIGURES, ranking, strict=True)) | _figures_of_totals(totals)
    return {name: values[name] for name in FIGURES if name in figures}


def _number_units(patients: NDArray[np.generic] | None, n_images: int) -> tuple[Integers, int]:
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


def _chunk_rows(row_length: int, elements: int) -> int:
    """How many resamples to work on together: many of a short table, so that the cost of each call is shared."""
    return max(1, min(_MOST_ROWS, elements // row_length))


def _draw_counts(n_units: int, resamples: range, *, seed: int) -> Integers:
    """How often each unit was drawn, (len(resamples), n_units)."""
    counts = np.empty((len(resamples), n_units), dtype=np.int64)
    for row, resample in zip(counts, resamples, strict=True):
        row[:] = np.bincount(draw_units(n_units, resample=resample, seed=seed), minlength=n_units)
    return counts


def _unit_sums(
    labels: Integers, probabilities: Floats, units: Integers, *, n_units: int, threshold: float
) -> sparse.csr_array:
    """What each unit adds: (n_units, 4 + 1 + ECE_BINS), columns tn fp fn tp, squared error, gap in each bin.

    The gap is the sum of probability - label; its absolute value over all images of a bin is the bin's
    share of the ECE.
    """
    gaps = probabilities - labels
    columns = (
        2 * labels + calls(probabilities, threshold),
        np.full(len(labels), 4),
        5 + bin_index(probabilities, ECE_BINS),
    )
    entries = (np.ones(len(labels)), gaps**2, gaps)
    # Sparse, and not only for its size: BLAS has threads of its own, which stall when two of ours call it at once.
    return sparse.csr_array(
        (np.concatenate(entries), (np.tile(units, 3), np.concatenate(columns))), shape=(n_units, 5 + ECE_BINS)
    )


def _figures_of_totals(totals: Floats) -> dict[str, Floats]:
    tables = totals[:, :4].reshape(-1, 2, 2)
    n_images = totals[:, :4].sum(axis=1)
    values = {name: figure(tables) for name, figure in THRESHOLD_FIGURES.items()}
    values["brier"] = totals[:, 4] / n_images
    values["ece"] = np.abs(totals[:, 5:]).sum(axis=1) / n_images
    return values


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
