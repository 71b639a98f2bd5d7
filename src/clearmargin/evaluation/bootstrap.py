"""Figures of resampled patients: whole patients are drawn with replacement, all their images with them.

Images of one patient resemble each other, so resampling images would pretend to know more than the data
say. A resample is never built: a drawn patient is a multiplicity, the table is sorted once, and each figure
is a weighted sum. Ties are exact, and every count is an integer. The result depends on the seed, the stream
and the resample's number only, not on the number of threads. The definitions of the figures are in
`metrics.py`; which interval a figure gets from its resamples is decided in `intervals.py`.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from clearmargin.evaluation.metrics import FIGURES, Floats, Labels, Probabilities
from clearmargin.evaluation.weighted import Integers, build_table, figures_in_chunks, number_units

LEVEL = 0.95
QUANTILES = (0.025, 0.975)
LEAST_DEFINED = 0.9
"""An interval needs this share of the resamples to have a defined value."""
MOST_JACKKNIFED = 2_000
"""The jackknife takes at most so many units: its cost is units times images, and what it corrects fades with units."""


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


def draw_units(n_units: int, *, resample: int, seed: int, stream: int = 0) -> Integers:
    """The units (patients, or images) of one resample: (n_units,) numbers in [0, n_units), with repeats.

    The same seed, stream and resample always give the same draw, so figures of two models on the same
    patients can be compared resample by resample. Patients of two splits need a stream each: with one, their
    draws would be the same numbers.
    """
    sequence = np.random.SeedSequence((seed, resample), spawn_key=(stream,) if stream else ())
    return np.random.default_rng(sequence).integers(n_units, size=n_units)


def resampled_figures(
    labels: Labels,
    probabilities: Probabilities,
    patients: NDArray[np.generic] | None,
    *,
    threshold: float | Floats,
    resamples: int,
    seed: int,
    stream: int = 0,
    figures: Collection[str] = FIGURES,
) -> dict[str, Floats]:
    """Each figure's value in each resample, (resamples,), NaN where it is undefined there.

    Patients are numbered in the order of their ids, so the order of the rows does not matter; without
    patients, row i is unit i.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].
        patients: (N,), as in `patient_intervals`.
        threshold: at or above it an image is called malignant. With (resamples,) thresholds each resample has
            its own, so that the choice of the threshold is part of the uncertainty; where one is NaN, the
            figures at the threshold are undefined.
        resamples: number of resamples.
        seed: 0 or more.
        stream: 0 or more, as in `draw_units`.
        figures: names from FIGURES; leaving out `auroc` and `auprc` makes it many times faster.

    Raises:
        DataError: there is no image, or an image has no patient.
        ValueError: a probability is NaN, or there is not one threshold for each resample.
    """
    units, n_units = number_units(patients, len(labels))

    def counts_of(rows: range) -> Integers:
        return _draw_counts(n_units, rows, seed=seed, stream=stream)

    table = build_table(labels, probabilities, units, n_units=n_units, threshold=threshold, figures=figures)
    return figures_in_chunks(table, resamples, counts_of, threshold=threshold)


def jackknife_figures(
    labels: Labels,
    probabilities: Probabilities,
    patients: NDArray[np.generic] | None,
    *,
    threshold: float,
    figures: Collection[str] = FIGURES,
) -> dict[str, Floats]:
    """Each figure without each patient in turn, (n_units,), NaN where it is then undefined.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].
        patients: (N,), as in `patient_intervals`; at most MOST_JACKKNIFED of them.
        threshold: at or above it an image is called malignant.
        figures: names from FIGURES.

    Raises:
        DataError: there is no image, or an image has no patient.
        ValueError: a probability is NaN, or there are more units than MOST_JACKKNIFED.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.

    >>> jackknife_figures(np.array([0, 1, 1]), np.array([0.1, 0.7, 0.2]), None, threshold=0.5)["accuracy"].tolist()
    [0.5, 0.5, 1.0]
    """
    units, n_units = number_units(patients, len(labels))
    if n_units > MOST_JACKKNIFED:
        raise ValueError(f"the jackknife takes at most {MOST_JACKKNIFED:,} units, and there are {n_units:,}")

    def counts_of(rows: range) -> Integers:
        counts = np.ones((len(rows), n_units), dtype=np.int64)
        counts[np.arange(len(rows)), rows] = 0
        return counts

    table = build_table(labels, probabilities, units, n_units=n_units, threshold=threshold, figures=figures)
    return figures_in_chunks(table, n_units, counts_of, threshold=threshold)


def _draw_counts(n_units: int, resamples: range, *, seed: int, stream: int) -> Integers:
    """How often each unit was drawn, (len(resamples), n_units)."""
    counts = np.empty((len(resamples), n_units), dtype=np.int64)
    for row, resample in zip(counts, resamples, strict=True):
        drawn = draw_units(n_units, resample=resample, seed=seed, stream=stream)
        row[:] = np.bincount(drawn, minlength=n_units)
    return counts
