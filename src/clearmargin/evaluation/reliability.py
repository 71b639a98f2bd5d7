"""How well probabilities are calibrated: reliability bins, slope and intercept, and the ECE that chance alone makes.

Intervals are over patients, since images of one patient err alike. Making probabilities honest is elsewhere
(`calibration.py`), and so are the Brier score and the ECE (`metrics.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from clearmargin.decision import logit, sigmoid
from clearmargin.evaluation.bootstrap import agreement_interval, draw_units, percentile_interval
from clearmargin.evaluation.logistic import fit_logistic
from clearmargin.evaluation.metrics import ECE_BINS, Floats, Labels, Probabilities, bin_index
from clearmargin.evaluation.weighted import number_units
from clearmargin.types import LABEL_NAMES

METHOD = "cluster-robust t"
_BIN_RESAMPLES = 1_000
_CHANCE_ELEMENTS = 2**22


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; `reason` says why the value or the interval is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    method: str = ""

    def figure(self) -> dict[str, Any]:
        """As in metrics.json: value, ci, and the reason or the method."""
        ci = None if self.low is None or self.high is None else [self.low, self.high]
        rest = {"reason": self.reason} if self.reason else {"method": self.method}
        return {"value": self.value, "ci": ci, **rest}


@dataclass(frozen=True, slots=True)
class ReliabilityBins:
    """Probability against observed share of malignant in bins of equal width; every array is (n_bins,).

    `lower` and `upper` are the edges; `count` the images; `mean_probability` and `observed` the mean
    probability and the share of malignant images; `low` and `high` the 95 % interval of that share.
    The last four are NaN in an empty bin, and the last two where too few patients have images in the bin.
    """

    lower: Floats
    upper: Floats
    count: NDArray[np.int64]
    mean_probability: Floats
    observed: Floats
    low: Floats
    high: Floats

    def rows(self) -> list[dict[str, Any]]:
        """The filled bins as in metrics.json."""
        return [
            {
                "lower": float(self.lower[place]),
                "upper": float(self.upper[place]),
                "n": int(self.count[place]),
                "mean_probability": float(self.mean_probability[place]),
                "observed": float(self.observed[place]),
                "ci": None if np.isnan(self.low[place]) else [float(self.low[place]), float(self.high[place])],
            }
            for place in np.flatnonzero(self.count)
        ]


def reliability_bins(
    labels: Labels,
    probabilities: Probabilities,
    *,
    n_bins: int = 10,
    groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> ReliabilityBins:
    """The bins of a reliability diagram: [i / n_bins, (i + 1) / n_bins), the last one closed.

    With groups the intervals are percentiles over 1,000 resamples of whole patients; in a bin of one class
    they are exact binomial for its number of patients. Without, they are Wilson's, images being independent.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1].
        n_bins: 1 or more.
        groups: (N,), the patient of each image; None makes every image its own unit.
        seed: 0 or more; of the resamples.

    Raises:
        DataError: with groups, there is no image or one has no patient.

    Source: Wilson, J. Am. Stat. Assoc. 22:209 (1927), by SciPy.

    >>> bins = reliability_bins(np.array([0, 1, 1, 1]), np.array([0.1, 0.3, 0.8, 1.0]), n_bins=2)
    >>> bins.count.tolist(), bins.mean_probability.round(3).tolist(), bins.observed.tolist()
    ([2, 2], [0.2, 0.9], [0.5, 1.0])
    """
    bins = bin_index(probabilities, n_bins)
    count = np.bincount(bins, minlength=n_bins).astype(np.int64)
    malignant = np.bincount(bins, weights=labels, minlength=n_bins)
    summed = np.bincount(bins, weights=probabilities, minlength=n_bins)
    filled = count > 0
    mean_probability, observed = np.full((2, n_bins), np.nan)
    mean_probability[filled] = summed[filled] / count[filled]
    observed[filled] = malignant[filled] / count[filled]
    if groups is None:
        low, high = _wilson(malignant.astype(np.float64), count)
    else:
        units, n_units = number_units(groups, len(bins))
        low, high = _over_units(labels, bins, units, n_units=n_units, n_bins=n_bins, seed=seed)
    edges = np.arange(n_bins + 1) / n_bins
    return ReliabilityBins(edges[:-1], edges[1:], count, mean_probability, observed, low, high)


def calibration_slope_intercept(
    labels: Labels, probabilities: Probabilities, groups: NDArray[np.generic] | None
) -> tuple[Estimate, Estimate]:
    """The calibration slope and the calibration in the large, with 95 % intervals over patients.

    The slope is that of a logistic regression of the label on the logit of the probability: 1 is right,
    below 1 the probabilities are too extreme, above 1 too timid. The intercept is that of the same regression
    with the slope held at 1: 0 is right, above 0 malignant is more common than the probabilities say.
    The variance is the sandwich summed over patients with a one-step leave-one-patient-out correction, the
    quantile that of t with one degree of freedom fewer than patients.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), in [0, 1]; taken as at least 1e-12 from 0 and 1.
        groups: (N,), the patient of each image; None makes every image its own unit.

    Raises:
        DataError: there is no image, or one has no patient.

    Source: Van Calster et al., BMC Medicine 17:230 (2019); variance: Liang and Zeger, Biometrika 73:13
    (1986), corrected as in Bell and McCaffrey, Survey Methodology 28:169 (2002), the jackknife's form.

    >>> slope, intercept = calibration_slope_intercept(np.array([0, 1, 1, 1]), np.full(4, 0.5), None)
    >>> slope.reason, round(intercept.value, 4)  # ln 3
    ('all probabilities are equal', 1.0986)
    """
    truth, units_of = np.asarray(labels, dtype=np.int64), number_units(groups, len(labels))
    unit = "image" if groups is None else "patient"
    if np.ptp(truth) == 0:
        missing = Estimate(None, reason=f"all images are {LABEL_NAMES[int(truth[0])]}")
        return missing, missing
    values = logit(probabilities)
    ones = np.ones((len(values), 1))
    intercept = _estimate(ones, truth, units_of, offset=values, unit=unit)
    if np.ptp(values) == 0:
        return Estimate(None, reason="all probabilities are equal"), intercept
    benign, malignant = values[truth == 0], values[truth == 1]
    if benign.max() <= malignant.min() or malignant.max() <= benign.min():
        return Estimate(None, reason="the probabilities separate the classes, so no slope is too steep"), intercept
    return _estimate(
        np.column_stack([values, ones]), truth, units_of, offset=np.zeros(len(values)), unit=unit
    ), intercept


@dataclass(frozen=True, slots=True)
class ChanceEce:
    """The ECE of a perfectly calibrated model on so many images: its mean, its 95th percentile, in words."""

    mean: float
    high: float
    note: str


def expected_ece(probabilities: Probabilities, *, n_bins: int = ECE_BINS, seed: int, draws: int = 200) -> ChanceEce:
    """The ECE that chance alone would show if each probability were exactly right, by simulation.

    Images are drawn as independent; where patients have many images, chance makes still more.

    Args:
        probabilities: (N,), in [0, 1].
        n_bins: as in `metrics.ece`.
        seed: 0 or more; the result does not depend on the order of the images.
        draws: simulated sets of labels, 1 or more.

    >>> certain = expected_ece(np.array([0.0, 1.0]), seed=0)
    >>> certain.mean, certain.high
    (0.0, 0.0)
    """
    values = np.sort(np.asarray(probabilities, dtype=np.float64))
    if len(values) == 0:
        return ChanceEce(float("nan"), float("nan"), "no image")
    starts = np.flatnonzero(np.diff(bin_index(values, n_bins), prepend=-1) > 0)
    promised = np.add.reduceat(values, starts)
    generator = np.random.default_rng(seed)
    found = np.empty(draws)
    rows = max(1, _CHANCE_ELEMENTS // len(values))
    for start in range(0, draws, rows):
        chunk = slice(start, min(start + rows, draws))
        drawn = generator.random((chunk.stop - start, len(values)), dtype=np.float32) < values
        gaps = np.add.reduceat(drawn, starts, axis=1, dtype=np.int64) - promised
        found[chunk] = np.abs(gaps).sum(axis=1) / len(values)
    mean, high = float(found.mean()), float(np.quantile(found, 0.95))
    note = (
        f"A perfectly calibrated model would show an ECE of about {mean:.3f} on {len(values):,} such images by chance "
        f"alone, and up to {high:.3f} in 19 of 20 data sets; where patients have many images each, even more."
    )
    return ChanceEce(mean, high, note)


def _wilson(malignant: Floats, count: NDArray[np.integer]) -> tuple[Floats, Floats]:
    low, high = np.full((2, len(count)), np.nan)
    for place in np.flatnonzero(count):
        test = stats.binomtest(int(malignant[place]), int(count[place]))
        low[place], high[place] = test.proportion_ci(confidence_level=0.95, method="wilson")
    return low, high


def _over_units(
    labels: Labels, bins: NDArray[np.intp], units: NDArray[np.int64], *, n_units: int, n_bins: int, seed: int
) -> tuple[Floats, Floats]:
    shape = (n_units, n_bins)
    images = sparse.csr_array((np.ones(len(bins)), (units, bins)), shape=shape)
    malignant = sparse.csr_array((np.asarray(labels, dtype=np.float64), (units, bins)), shape=shape)
    shares = np.full((_BIN_RESAMPLES, n_bins), np.nan)
    for resample, row in enumerate(shares):
        drawn = draw_units(n_units, resample=resample, seed=seed)
        counts = np.bincount(drawn, minlength=n_units).astype(np.float64)
        n, found = np.asarray(counts @ images), np.asarray(counts @ malignant)
        np.divide(found, n, out=row, where=n > 0)
    low, high = np.full((2, n_bins), np.nan)
    patients_in = np.diff(images.tocsc().indptr)
    for place in np.flatnonzero(patients_in):
        of_bin = shares[:, place]
        value = float(malignant[:, [place]].sum() / images[:, [place]].sum())
        interval = percentile_interval(of_bin) or agreement_interval(value, of_bin, n_units=int(patients_in[place]))
        if interval is not None:
            low[place], high[place] = interval
    return low, high


def _estimate(
    features: Floats, labels: NDArray[np.int64], units_of: tuple[NDArray[np.int64], int], *, offset: Floats, unit: str
) -> Estimate:
    """The first weight of the logistic regression, with its interval over units."""
    units, n_units = units_of
    weights = fit_logistic(features, labels, offset=offset)
    value, n_weights = float(weights[0]), features.shape[1]
    if n_units <= n_weights:
        return Estimate(value, reason=f"{n_units} {unit}{'s' * (n_units > 1)}: too few for an interval over {unit}s")
    expected = sigmoid(offset + features @ weights)
    scores = _sum_by(units, n_units, features * (labels - expected)[:, None])
    information = np.einsum("ni,nj->nij", features, features) * (expected * (1 - expected))[:, None, None]
    of_unit = _sum_by(units, n_units, information.reshape(len(labels), -1)).reshape(n_units, n_weights, n_weights)
    whole = of_unit.sum(axis=0)
    rest = whole - of_unit
    if np.linalg.cond(rest).max() > 1e12:
        return Estimate(value, reason=f"one {unit} alone decides it, so there is no interval over {unit}s")
    # Leaving a unit out moves the weights by about this much: one Newton step from the fit to all.
    moves = np.linalg.solve(rest, scores[:, :, None])[:, 0, 0]
    half = float(stats.t.ppf(0.975, n_units - 1) * np.sqrt((n_units - 1) / n_units * np.sum(moves**2)))
    return Estimate(value, value - half, value + half, method=METHOD)


def _sum_by(units: NDArray[np.int64], n_units: int, values: Floats) -> Floats:
    """Sums of the rows (N, D) of each unit, (n_units, D)."""
    columns = [np.bincount(units, weights=column, minlength=n_units) for column in values.T]
    return np.stack(columns, axis=1)
