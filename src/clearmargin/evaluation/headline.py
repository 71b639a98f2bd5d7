"""What metrics.json says of the headline split besides its figures: of the test split, or of the last there is.

How calibrated the probabilities are, what withholding decisions does, whether using the model would help, and how
the figures differ within patients and between groups of images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.decision import Abstention, logit, sigmoid
from clearmargin.evaluation import metrics
from clearmargin.evaluation.bootstrap import resampled_figures
from clearmargin.evaluation.choices import Choices
from clearmargin.evaluation.decision_curve import decision_curve
from clearmargin.evaluation.figures import Cases, Resampling, Values, as_figure
from clearmargin.evaluation.intervals import figure_interval
from clearmargin.evaluation.prevalence import ppv_npv_at
from clearmargin.evaluation.reliability import expected_ece, reliability_bins
from clearmargin.evaluation.selective import resampled_abstention, risk_coverage
from clearmargin.evaluation.subgroups import subgroup_figures
from clearmargin.evaluation.units import degrees_of_freedom, units_behind
from clearmargin.settings import EvaluateSettings
from clearmargin.types import BENIGN, MALIGNANT

CURVE_RESAMPLES = 500
"""Behind the bands of curves, which are looked at and not read off."""
CURVE_THRESHOLDS: NDArray[np.float64] = np.arange(1, 100) / 100
RELIABILITY_BINS = 10
WITHIN_PATIENTS = ("auroc", "sensitivity", "specificity", "accuracy")


def describe_headline(
    rows: pd.DataFrame,
    images: Cases,
    choices: Choices,
    *,
    settings: EvaluateSettings,
    resampling: Resampling,
    columns: pd.DataFrame | None,
    by_fold: Mapping[int, Choices] | None = None,
) -> Values:
    """The blocks `within_patients`, `calibration`, `abstention`, `risk_coverage`, `decision_curve`, and where they \
are asked for `at_prevalence` and `subgroups`.

    Args:
        rows: of the predictions table, with the column `threshold`.
        images: the same as cases.
        choices: what decided.
        settings: the section `evaluate`.
        resampling: how often, and the seed.
        columns: the manifest's columns, one row an image; no subgroups without it.
        by_fold: of a cross-validation, what decided in each fold.
    """
    curves = Resampling(min(CURVE_RESAMPLES, resampling.resamples), resampling.seed)
    blocks: Values = {
        "within_patients": _within_patients(images),
        "calibration": _calibration(images, curves),
        "abstention": _abstention(rows, images, [*(by_fold or {}).values(), choices], resampling),
        "risk_coverage": _risk_coverage(rows, images, curves),
        "decision_curve": _decision_curve(images, curves),
    }
    if settings.prevalence is not None:
        blocks["at_prevalence"] = at_prevalence(images, settings.prevalence, resampling)
    if columns is not None and settings.subgroups:
        asked = settings.subgroups
        blocks["subgroups"] = subgroup_figures(
            rows,
            columns,
            threshold=rows["threshold"],
            columns="auto" if asked == ("auto",) else asked,
            resamples=resampling.resamples,
            seed=resampling.seed,
        )
    return blocks


def at_prevalence(images: Cases, prevalence: float, resampling: Resampling) -> Values:
    """PPV and NPV that a population with this share of malignant images would see, from sensitivity and specificity.

    Args:
        images: the cases.
        prevalence: in (0, 1).
        resampling: how often, and the seed.
    """
    table = metrics.confusion(images.labels, images.called)
    resampled = resampled_figures(
        images.labels,
        images.called.astype(np.float64),
        images.groups,
        threshold=0.5,
        resamples=resampling.resamples,
        seed=resampling.seed,
        figures=("sensitivity", "specificity"),
    )
    values = ppv_npv_at(metrics.sensitivity(table), metrics.specificity(table), prevalence)
    draws = ppv_npv_at(resampled["sensitivity"], resampled["specificity"], prevalence)
    block: Values = {"prevalence": prevalence, "observed": float(np.mean(images.labels))}
    for name, value, of_draws in zip(("ppv", "npv"), values, draws, strict=True):
        block[name] = _figure(float(value), of_draws, images, behind=("sensitivity", "specificity"))
    return block


def _figure(
    value: float, resampled: NDArray[np.float64], images: Cases, *, behind: tuple[str, ...] = ("accuracy",)
) -> Values:
    """A value and its interval, which rests on the units behind the figures named."""
    n_units = min(images.units_behind(name) for name in behind)
    degrees = min(images.degrees_of_freedom(name) for name in behind)
    return _interval(value, resampled, images, n_units=n_units, degrees=degrees)


def _interval(value: float, resampled: NDArray[np.float64], images: Cases, *, n_units: int, degrees: float) -> Values:
    if math.isnan(value):
        return {"value": None, "ci": None, "reason": "undefined here: there is nothing to share"}
    return as_figure(value, figure_interval(value, resampled, n_units=n_units, degrees=degrees, unit=images.unit))


def _within_patients(images: Cases) -> Values:
    """How the figures of images are spread over patients, each taken alone."""
    if images.groups is None:
        return {"not_applicable": "patients are unknown"}
    found: dict[str, list[float]] = {name: [] for name in WITHIN_PATIENTS}
    order = np.argsort(images.groups, kind="stable")
    for place in np.split(order, np.flatnonzero(np.diff(images.groups[order])) + 1):
        labels = images.labels[place]
        table = metrics.confusion(labels, images.called[place])
        found["auroc"].append(metrics.auroc(labels, images.probabilities[place]))
        for name in WITHIN_PATIENTS[1:]:
            found[name].append(float(metrics.THRESHOLD_FIGURES[name](table)))
    return {name: _quartiles(np.array(values)) for name, values in found.items()}


def _quartiles(values: NDArray[np.float64]) -> Values:
    defined = values[np.isfinite(values)]
    if len(defined) == 0:
        return {"n": 0, "reason": "defined for no patient"}
    names = ("min", "q1", "median", "q3", "max")
    quantiles = np.quantile(defined, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return {"n": len(defined), **dict(zip(names, quantiles, strict=True))}


def _calibration(images: Cases, resampling: Resampling) -> Values:
    chance = expected_ece(images.probabilities, seed=resampling.seed)
    bins = reliability_bins(
        images.labels, images.probabilities, n_bins=RELIABILITY_BINS, groups=images.groups, seed=resampling.seed
    )
    return {
        "ece_expected": chance.mean,
        "ece_expected_high": chance.high,
        "ece_note": chance.note,
        "reliability": bins.rows(),
    }


def _abstention(rows: pd.DataFrame, images: Cases, deciding: Sequence[Choices], resampling: Resampling) -> Values:
    """What withholding did; `deciding` are the choices of the folds, if there are any, and last those of the run."""
    promise = deciding[-1].abstention
    if not isinstance(promise, Abstention):
        return {"not_applicable": promise}
    if unable := [part.abstention for part in deciding if isinstance(part.abstention, str)]:
        # Those folds never withheld, so that their answers show nothing of the promise.
        folds = f"{len(unable)} of {len(deciding) - 1} folds"
        return {"not_applicable": f"in {folds} nothing was withheld, since the others were too few ({unable[0]})"}
    decisions = rows["decision"].to_numpy(dtype=str)
    figures = resampled_abstention(
        images.labels,
        images.called.astype(np.float64),  # at one half, these are the calls, whatever threshold made them
        decisions,
        images.groups,
        threshold=0.5,
        resamples=resampling.resamples,
        seed=resampling.seed,
    )
    every = np.full(len(rows), True)
    malignant, benign = images.labels == MALIGNANT, images.labels == BENIGN
    counted = {"covered_malignant": malignant, "covered_benign": benign, "error_decided": decisions != "abstain"}
    units = np.arange(len(rows)) if images.groups is None else images.groups
    block: Values = {"coverage": promise.coverage}
    for name, (value, draws) in figures.items():
        of, labels = units[counted.get(name, every)], images.labels[counted.get(name, every)]
        n_units = units_behind("accuracy", labels, of)
        # Each unit has the same weight in a mean over units, however many images it has.
        degrees = n_units - 1.0 if name.startswith("covered") else degrees_of_freedom("accuracy", labels, of)
        block[name] = _interval(value, draws, images, n_units=n_units, degrees=degrees)
    return block


def _risk_coverage(rows: pd.DataFrame, images: Cases, resampling: Resampling) -> Values:
    thresholds = rows["threshold"].to_numpy(dtype=np.float64)
    probabilities, threshold = images.probabilities, float(thresholds[0])
    if np.ptp(thresholds) > 0:  # each fold has its own: the same distances from it, laid around one half
        probabilities, threshold = sigmoid(logit(probabilities) - logit(thresholds)), 0.5
    curve = risk_coverage(
        images.labels,
        probabilities,
        threshold,
        images.groups,
        resamples=resampling.resamples,
        seed=resampling.seed,
    )
    entries = [
        _figure(float(error), draws, images) for error, draws in zip(curve.error, curve.resampled_error.T, strict=True)
    ]
    return {
        "decided": curve.decided.tolist(),
        "error": curve.error.tolist(),
        "ci": [entry["ci"] for entry in entries],
        "area": _figure(curve.area, curve.resampled_area, images),
    }


def _decision_curve(images: Cases, resampling: Resampling) -> dict[str, Any]:
    curve = decision_curve(
        images.labels,
        images.probabilities,
        images.groups,
        thresholds=CURVE_THRESHOLDS,
        resamples=resampling.resamples,
        seed=resampling.seed,
    )
    ends = zip(curve.low.tolist(), curve.high.tolist(), strict=True)
    return {
        "threshold": curve.threshold.tolist(),
        "model": curve.model.tolist(),
        "ci": [None if math.isnan(low) else [low, high] for low, high in ends],
        "treat_all": curve.treat_all.tolist(),
    }
