"""Which 95 % interval a figure gets: the one place that decides.

Where units (patients) have several images: Student's t around the figure on the logit scale, with the spread
of the jackknife over units. Where there is no jackknife (a threshold chosen anew in each resample, or very
many units), or the value lies outside its resamples: the percentiles of the bootstrap, widened. Either knows,
by the degrees of freedom that `units.py` counts, that few units may have most of the images. Where each case is
its own unit: DeLong for the AUROC, Wilson for simple rates. The methods were chosen by simulated coverage
(`benchmarks/coverage.py`); resamples and the jackknife are made in `bootstrap.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from clearmargin.evaluation.bootstrap import (
    LEAST_DEFINED,
    LEVEL,
    agreement_interval,
    percentile_interval,
    why_no_interval,
)
from clearmargin.evaluation.delong import delong
from clearmargin.evaluation.metrics import Floats, Labels, Probabilities
from clearmargin.types import BENIGN, LABEL_NAMES, MALIGNANT

Method = Literal["jackknife", "widened percentile", "DeLong", "Wilson", "exact binomial"]

FEW_UNITS = 20
"""With fewer units than this behind a figure, no method holds its promise everywhere: say so beside the interval."""
LEAST_RESAMPLES = 40
"""Below it not one resample would lie beyond each end of a 95 % interval."""
ROUNDING = 1e-9
"""By so much a value may leave its interval, since it is computed another way than the resampled ones."""

_TAIL = (1 - LEVEL) / 2
_LEAST_LEVEL = 1e-6


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval: its ends, how it was made, and what must be said beside it."""

    low: float
    high: float
    method: Method
    note: str | None = None


def figure_interval(
    value: float,
    resampled: Floats,
    *,
    n_units: int,
    degrees: float | None = None,
    unit: str = "patient",
    jackknife: Floats | None = None,
) -> Interval | str:
    """The 95 % interval of a figure in [0, 1], within [0, 1], or why there is none, in words.

    Args:
        value: the figure itself, in [0, 1].
        resampled: (resamples,) the figure in each resample, NaN where it is undefined.
        n_units: number of units behind the figure, as `units_behind` counts them.
        degrees: of freedom, above 0, as `degrees_of_freedom` counts them; n_units - 1 unless given.
        unit: `patient` or `image`, for the words.
        jackknife: (units,) the figure without each unit in turn, as `jackknife_figures` gives it; leave it out
            where each resample has its own threshold, since it would leave out the threshold's uncertainty.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11 (jackknife) and 13
    (percentiles); widening: Hesterberg, The American Statistician 69:371 (2015).

    >>> figure_interval(0.5, np.linspace(0.3, 0.7, 401), n_units=1)
    'one patient: an interval over patients cannot be computed'
    >>> interval = figure_interval(0.5, np.linspace(0.3, 0.7, 401), n_units=30)
    >>> interval.method, round(interval.low, 3), round(interval.high, 3)  # 0.31 and 0.69, and 6 % further out
    ('widened percentile', 0.298, 0.702)
    """
    ends = percentile_interval(resampled)
    if ends is None or n_units < 2:
        exact = agreement_interval(value, resampled, n_units=n_units)
        if exact is None:
            return _why_none(resampled, n_units=n_units, unit=unit)
        note = f"the same in every resample of {unit}s: the exact binomial interval over {unit}s"
        return Interval(*exact, "exact binomial", note)
    degrees = n_units - 1 if degrees is None else degrees
    is_inside = ends[0] - ROUNDING <= value <= ends[1] + ROUNDING
    spread = _jackknife_spread(jackknife)
    if is_inside and spread is not None and 0 < value < 1:
        return Interval(*_on_logit_scale(value, spread * float(stats.t.isf(_TAIL, degrees))), "jackknife")
    low, high = _widened(value, ends, degrees=degrees, level=LEVEL)
    low, high = max(0.0, min(low, value)), min(1.0, max(high, value))
    if is_inside:
        return Interval(low, high, "widened percentile")
    side = "above" if value < ends[0] else "below"
    note = f"the resamples of {unit}s lie {side} the value: resampling biases this figure; widened to hold it"
    return Interval(low, high, "widened percentile", note)


def delong_interval(labels: Labels, probabilities: Probabilities) -> Interval | str:
    """The 95 % interval of the AUROC of independent cases, or why there is none, in words.

    Made on the logit scale, so it stays within [0, 1]. Where the classes are apart without one exception, the
    variance is 0 and says nothing; then it is the exact binomial interval over the rarer class.

    Args:
        labels: (N,), 0 benign or 1 malignant; each case its own unit.
        probabilities: (N,), in [0, 1]; only their order matters.

    Source: as `delong`; the scale: Pepe, The Statistical Evaluation of Medical Tests (2003).

    >>> delong_interval(np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3]))
    'one malignant case: the spread of one cannot be known'
    """
    counts = [int((np.asarray(labels) == label).sum()) for label in (BENIGN, MALIGNANT)]
    rarer = int(np.argmin(counts))
    if counts[rarer] == 0:
        return f"no {LABEL_NAMES[rarer]} case"
    if counts[rarer] == 1:
        return f"one {LABEL_NAMES[rarer]} case: the spread of one cannot be known"
    areas, covariance = delong(labels, np.asarray(probabilities, dtype=np.float64)[None])
    area, spread = float(areas[0]), math.sqrt(covariance[0, 0])
    if area in (0.0, 1.0):
        bound = _TAIL ** (1 / counts[rarer])
        note = f"the classes do not overlap: the exact binomial interval over {LABEL_NAMES[rarer]} cases"
        low, high = (bound, 1.0) if area == 1.0 else (0.0, 1.0 - bound)
        return Interval(low, high, "exact binomial", note)
    if spread == 0.0:
        return "all probabilities are alike, and an interval without width would look like certainty"
    return Interval(*_on_logit_scale(area, spread * float(stats.norm.isf(_TAIL))), "DeLong")


def wilson_interval(successes: int, n: int) -> Interval:
    """The 95 % interval of a rate of independent cases.

    Args:
        successes: how many of them, from 0 to n.
        n: number of cases, 1 or more.

    Raises:
        ValueError: n is below 1, or successes are not from 0 to n.

    Source: Wilson, J. Am. Stat. Assoc. 22:209 (1927); computed by SciPy.

    >>> interval = wilson_interval(9, 10)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.596, 0.982)
    """
    found = stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high), "Wilson")


def difference_interval(
    difference: float,
    resampled: Floats,
    *,
    n_units: int,
    degrees: float | None = None,
    unit: str = "patient",
    jackknife: Floats | None = None,
) -> Interval | str:
    """The 95 % interval of the difference of two figures of the same units, or why there is none, in words.

    Args:
        difference: of the two figures, any sign.
        resampled: (resamples,) the difference in each resample, both figures from the same draw.
        n_units: the fewer of the units behind the two figures.
        degrees: the fewer degrees of freedom of the two; n_units - 1 unless given.
        unit: `patient` or `image`, for the words.
        jackknife: (units,) the difference without each unit in turn, where it can be had.

    >>> interval = difference_interval(0.1, np.linspace(-0.1, 0.3, 401), n_units=30)
    >>> round(interval.low, 3), round(interval.high, 3)
    (-0.102, 0.302)
    """
    degrees = n_units - 1 if degrees is None else degrees
    ends = _difference_ends(difference, resampled, degrees=degrees, jackknife=jackknife, level=LEVEL)
    if ends is None or n_units < 2:
        if n_units > 1 and len(resampled) < LEAST_RESAMPLES:
            return f"{len(resampled)} resamples: a {LEVEL:.0%} interval needs {LEAST_RESAMPLES} or more"
        return _why_none(resampled, n_units=n_units, unit=unit)
    return Interval(*ends, "widened percentile" if _jackknife_spread(jackknife) is None else "jackknife")


def p_value(
    difference: float,
    resampled: Floats,
    *,
    n_units: int,
    degrees: float | None = None,
    jackknife: Floats | None = None,
) -> float:
    """The two-sided p-value of no difference, in [0, 1]: 1 minus the level at which the interval first holds 0.

    Below 0.05 exactly when `difference_interval` of the same arguments excludes 0; NaN where that has none.
    From resamples it is at least 2 / (resamples + 1), which is as small as they can show.

    Args:
        difference: of the two figures, any sign.
        resampled: (resamples,) the difference in each resample.
        n_units: as in `difference_interval`.
        degrees: as in `difference_interval`.
        jackknife: as in `difference_interval`.

    >>> round(p_value(0.1, np.linspace(-0.1, 0.3, 401), n_units=10_000), 2)  # twice the quarter below 0
    0.5
    """
    freedom = n_units - 1 if degrees is None else degrees
    ends = _difference_ends(difference, resampled, degrees=freedom, jackknife=jackknife, level=LEVEL)
    if ends is None or n_units < 2:
        return math.nan
    spread = _jackknife_spread(jackknife)
    if spread is not None:
        return float(2 * stats.t.sf(abs(difference) / spread, freedom))

    def beyond(level: float) -> float:
        """How far the interval is from holding 0: above 0 where it excludes it."""
        ends = _difference_ends(difference, resampled, degrees=freedom, jackknife=None, level=level)
        return max(ends[0], -ends[1]) if ends is not None else -1.0

    # Which side of 0.05 it is on is known first, so that neither rounding nor odd resamples can contradict it.
    if beyond(LEVEL) > 0:
        least = 2 / (len(resampled) + 1)
        if beyond(1 - least) > 0:
            return least
        return min(1 - float(optimize.brentq(beyond, LEVEL, 1 - least)), math.nextafter(0.05, 0))
    if beyond(_LEAST_LEVEL) <= 0:
        return 1.0
    return max(1 - float(optimize.brentq(beyond, _LEAST_LEVEL, LEVEL)), 0.05)


def _why_none(resampled: Floats, *, n_units: int, unit: str) -> str:
    # One unit of many behind a figure leaves resamples without it, which says more than that it is one.
    is_defined = np.isfinite(resampled).mean() >= LEAST_DEFINED
    return why_no_interval(resampled, n_units=1 if is_defined and n_units < 2 else 2, unit=unit)


def _jackknife_spread(jackknife: Floats | None) -> float | None:
    """The standard error by the jackknife, or None where a value is undefined or all agree."""
    if jackknife is None or len(jackknife) < 2 or not np.isfinite(jackknife).all() or np.ptp(jackknife) == 0:
        return None
    return float(np.std(jackknife) * math.sqrt(len(jackknife) - 1))


def _on_logit_scale(value: float, reach: float) -> tuple[float, float]:
    """The ends of value +- reach, laid out on the logit scale by its slope at the value; within [0, 1]."""
    place, step = float(special.logit(value)), reach / (value * (1 - value))
    return float(special.expit(place - step)), float(special.expit(place + step))


def _widened(value: float, ends: tuple[float, float], *, degrees: float, level: float) -> tuple[float, float]:
    """The ends moved away from the value: resamples of n vary too little by sqrt(1 - 1 / n), and t replaces z."""
    tail = (1 - level) / 2
    stretch = float(stats.t.isf(tail, degrees) / stats.norm.isf(tail)) * math.sqrt((degrees + 1) / degrees)
    return value + (ends[0] - value) * stretch, value + (ends[1] - value) * stretch


def _difference_ends(
    difference: float, resampled: Floats, *, degrees: float, jackknife: Floats | None, level: float
) -> tuple[float, float] | None:
    defined = resampled[np.isfinite(resampled)]
    too_few = len(resampled) < LEAST_RESAMPLES or len(defined) < LEAST_DEFINED * len(resampled)
    if degrees <= 0 or too_few or np.ptp(defined) == 0:
        return None
    tail = (1 - level) / 2
    spread = _jackknife_spread(jackknife)
    if spread is not None:
        reach = spread * float(stats.t.isf(tail, degrees))
        return difference - reach, difference + reach
    low, high = np.quantile(defined, (tail, 1 - tail)).tolist()
    return _widened(difference, (low, high), degrees=degrees, level=level)
