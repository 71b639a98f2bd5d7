"""A block of figures as metrics.json holds it: each with its interval, or the reason for none.

A block counts cases: images, slides or patients. What is resampled are the patients behind them. The figures
are defined in `metrics.py`, resampled in `bootstrap.py`, and their intervals chosen in `intervals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearmargin.evaluation import metrics
from clearmargin.evaluation.bootstrap import MOST_JACKKNIFED, jackknife_figures, resampled_figures
from clearmargin.evaluation.intervals import Interval, delong_interval, figure_interval, wilson_interval
from clearmargin.evaluation.units import degrees_of_freedom, units_behind
from clearmargin.types import BENIGN, LABEL_NAMES, MALIGNANT

Values = dict[str, Any]

RATES: Mapping[str, tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]] = {
    "accuracy": (((0, 0), (1, 1)), ((0, 1), (1, 0))),
    "sensitivity": (((1, 1),), ((1, 0),)),
    "specificity": (((0, 0),), ((0, 1),)),
    "ppv": (((1, 1),), ((0, 1),)),
    "npv": (((0, 0),), ((1, 0),)),
}
"""Figures that are one count as a share of two: the cells of the confusion that succeed and those that fail."""


@dataclass(frozen=True, slots=True)
class Cases:
    """What a block counts. `groups` (N,) is the patient of each case, None where each case is a unit of its own."""

    noun: str
    unit: str
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    called: NDArray[np.bool_]
    groups: NDArray[np.int64] | None
    n_units: int

    @property
    def are_patients(self) -> bool:
        """Each case is a patient of its own, so that the cases are independent."""
        return self.unit == "patient" and self.n_units == len(self.labels)

    def units_behind(self, name: str) -> int:
        """Number of units that a figure rests on."""
        return units_behind(name, self.labels, self._units, called=self.called)

    def degrees_of_freedom(self, name: str) -> float:
        """Degrees of freedom of a figure's spread over units."""
        return degrees_of_freedom(name, self.labels, self._units, called=self.called)

    @property
    def _units(self) -> NDArray[np.int64]:
        return np.arange(len(self.labels)) if self.groups is None else self.groups


@dataclass(frozen=True, slots=True)
class Resampling:
    """How resamples are drawn."""

    resamples: int
    seed: int


def describe_figures(
    cases: Cases,
    resampling: Resampling,
    *,
    names: tuple[str, ...] = metrics.FIGURES,
    chosen: tuple[NDArray[np.float64], int] | None = None,
) -> Values:
    """The confusion, and each figure with its interval or the reason for none.

    Args:
        cases: what is counted.
        resampling: how often, and the seed.
        names: of `metrics.FIGURES`.
        chosen: the threshold that each resample of validation would have chosen (resamples,), and the number of
            units there. The intervals of figures at the threshold then include the uncertainty of that choice, and
            `ci_fixed` is the interval at the stored threshold.
    """
    table = metrics.confusion(cases.labels, cases.called)
    at_threshold = tuple(name for name in names if name in metrics.THRESHOLD_FIGURES)
    of_probability = tuple(name for name in names if name not in at_threshold)
    # At the threshold a figure depends on the calls alone, whatever threshold made each of them.
    scores = {at_threshold: cases.called.astype(np.float64), of_probability: cases.probabilities}
    resampled: dict[str, NDArray[np.float64]] = {}
    without: dict[str, NDArray[np.float64]] = {}
    for some, values in scores.items():
        resampled |= _resample(cases, values, 0.5, resampling, some)
        without |= _jackknife(cases, values, some)
    choosing = _resample(cases, cases.probabilities, chosen[0], resampling, at_threshold) if chosen else {}
    block: Values = {"confusion": table.tolist()}
    for name in names:
        value = figure_value(name, cases, table)
        if math.isnan(value):
            block[name] = {"value": None, "ci": None, "reason": why_undefined(name, table, cases.noun)}
            continue
        fixed = _interval(name, value, resampled[name], without.get(name), cases=cases, table=table)
        if name in choosing and chosen is not None:
            n_units = min(cases.units_behind(name), chosen[1])
            degrees = min(cases.degrees_of_freedom(name), chosen[1] - 1)
            whole = figure_interval(value, choosing[name], n_units=n_units, degrees=degrees, unit=cases.unit)
            block[name] = as_figure(value, whole) | {"ci_fixed": as_figure(value, fixed)["ci"]}
        else:
            block[name] = as_figure(value, fixed)
    return block


def figure_value(name: str, cases: Cases, table: NDArray[np.int64]) -> float:
    """The figure itself, NaN where it is undefined."""
    if name in metrics.THRESHOLD_FIGURES:
        return float(metrics.THRESHOLD_FIGURES[name](table))
    return metrics.PROBABILITY_FIGURES[name](cases.labels, cases.probabilities)


def as_figure(value: float, interval: Interval | str) -> Values:
    """A value and its interval as metrics.json holds them; a text says why there is no interval."""
    if isinstance(interval, str):
        return {"value": value, "ci": None, "reason": interval}
    note = {"note": interval.note} if interval.note else {}
    return {"value": value, "ci": [interval.low, interval.high], "method": interval.method, **note}


def why_undefined(name: str, table: NDArray[np.int64], noun: str) -> str:
    """Why a figure has no value."""
    if name == "ppv":
        return "nothing was called malignant"
    if name == "npv":
        return "nothing was called benign"
    if name == "f1":
        return f"no malignant {noun}, and nothing was called malignant"
    absent = BENIGN if name == "specificity" or table[MALIGNANT].sum() > 0 else MALIGNANT
    return f"no {LABEL_NAMES[absent]} {noun}"


def _resample(
    cases: Cases,
    scores: NDArray[np.float64],
    threshold: float | NDArray[np.float64],
    resampling: Resampling,
    names: tuple[str, ...],
) -> dict[str, NDArray[np.float64]]:
    if not names:
        return {}
    return resampled_figures(
        cases.labels,
        scores,
        cases.groups,
        threshold=threshold,
        resamples=resampling.resamples,
        seed=resampling.seed,
        figures=names,
    )


def _jackknife(cases: Cases, scores: NDArray[np.float64], names: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    if not names or cases.n_units > MOST_JACKKNIFED:
        return {}
    return jackknife_figures(cases.labels, scores, cases.groups, threshold=0.5, figures=names)


def _interval(
    name: str,
    value: float,
    resampled: NDArray[np.float64],
    without: NDArray[np.float64] | None,
    *,
    cases: Cases,
    table: NDArray[np.int64],
) -> Interval | str:
    if cases.are_patients and name == "auroc":
        return delong_interval(cases.labels, cases.probabilities)
    if cases.are_patients and name in RATES:
        right, wrong = (sum(int(table[cell]) for cell in cells) for cells in RATES[name])
        return wilson_interval(right, right + wrong)
    return figure_interval(
        value,
        resampled,
        n_units=cases.units_behind(name),
        degrees=cases.degrees_of_freedom(name),
        unit=cases.unit,
        jackknife=without,
    )
