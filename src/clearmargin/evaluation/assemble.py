"""metrics.json: every figure of every split, by image and by patient, each with its interval or the reason for none.

Invariant: the dictionary is clean JSON, and a figure that cannot be had is null with a reason. The figures
are defined in `metrics.py`, their intervals made in `bootstrap.py`; drawing and wording a report is
elsewhere (`report/`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from clearmargin.decision import decide, pool_mean
from clearmargin.errors import DataError
from clearmargin.evaluation import metrics
from clearmargin.evaluation.bootstrap import (
    LEVEL,
    agreement_interval,
    percentile_interval,
    resampled_figures,
    why_no_interval,
)
from clearmargin.evaluation.predictions import check_predictions
from clearmargin.types import BENIGN, LABEL_NAMES, MALIGNANT, SPLITS, Listener, OperatingPoint

SCHEMA = 1
NAIVE_THRESHOLD = 0.5
FEW_PATIENTS = 20
"""With fewer patients than this, percentile intervals are known to be too narrow."""
ROUNDING = 1e-9
"""By so much the value may leave its interval, since it is computed another way than the resampled ones."""

Values = dict[str, Any]


def evaluate_predictions(
    frame: pd.DataFrame,
    operating_point: OperatingPoint,
    *,
    protocol: Mapping[str, Any],
    temperature: float,
    resamples: int,
    seed: int,
    listener: Listener | None = None,
) -> Values:
    """The contents of metrics.json for a predictions table; the order of its rows does not matter.

    Each split that has rows is a key, with `interval` (what was resampled there, and a note where its
    intervals are not to be trusted), `image`, `patient`, `image_at_0.5` and `classification_report`; the
    top-level `interval` sums these notes up. An abstention counts by its probability: the figures describe
    the model with no decision withheld. By patient means the mean probability of the patient's images at
    the same threshold.

    Args:
        frame: a table that `check_predictions` accepts.
        operating_point: whose threshold made the table's decisions.
        protocol: how the data were split; passed through, and must be clean JSON.
        temperature: with which the table's probabilities were made; passed through.
        resamples: bootstrap resamples behind each interval, 1 or more.
        seed: of the bootstrap.
        listener: hears one step for each block of figures, and each note.

    Raises:
        DataError: the table is refused, or a decision contradicts its probability.
    """
    listener = listener or Listener()
    check_predictions(frame)
    _check_decisions(frame, operating_point)
    # A fixed order of the rows makes sums, and images as units, come out the same for any order given.
    table = frame.assign(path=frame["path"].astype("str")).sort_values("path", ignore_index=True)
    present = [split for split in SPLITS if (table["split"] == split).any()]
    settings = _Settings(operating_point.threshold, resamples, seed)
    listener.stage("evaluate")
    splits: Values = {}
    for done, split in enumerate(present, start=1):
        splits[split] = _split_metrics(table[table["split"] == split], settings)
        if note := splits[split]["interval"]["note"]:
            listener.note(f"{split}: {note}")
        listener.advance(done, len(present))
    return {
        "schema": SCHEMA,
        "protocol": dict(protocol),
        "operating_point": {
            "name": operating_point.name,
            "rule": operating_point.rule,
            "threshold": float(operating_point.threshold),
            "chosen_on": operating_point.chosen_on,
            "achieved": {name: float(value) for name, value in operating_point.achieved.items()},
        },
        "calibration": {"method": "temperature", "temperature": float(temperature)},
        "interval": _interval_of_run(splits, settings),
        **splits,
    }


def format_classification_report(metrics_of_split: Mapping[str, Any]) -> str:
    """The classification report of one split as plain text, laid out as scikit-learn's; `n/a` is undefined.

    Args:
        metrics_of_split: the value of `train`, `validation` or `test` in metrics.json.
    """
    report = metrics_of_split["classification_report"]
    columns = ("precision", "recall", "f1-score")
    width = max(len(name) for name in report)
    rows = {
        name: [_two_digits(entry[column]) for column in columns] for name, entry in report.items() if name != "accuracy"
    }
    rows["accuracy"] = ["", "", _two_digits(report["accuracy"])]
    n_images = report["macro avg"]["support"]

    def line(name: str, support: int) -> str:
        return f"{name:>{width}} " + "".join(f" {text:>9}" for text in (*rows[name], support))

    return "\n".join(
        [
            f"{'':>{width}} " + "".join(f" {column:>9}" for column in (*columns, "support")),
            "",
            *(line(name, report[name]["support"]) for name in LABEL_NAMES),
            "",
            *(line(name, n_images) for name in ("accuracy", "macro avg", "weighted avg")),
            "",
        ]
    )


@dataclass(frozen=True, slots=True)
class _Settings:
    threshold: float
    resamples: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Cases:
    """What one block of figures counts: images, or patients; `groups` are the bootstrap's units, None for each case."""

    noun: str
    unit: str
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: NDArray[np.int64] | None
    n_units: int

    def least_units(self) -> int:
        """Number of units that have a case of the class, of those present, that fewest have."""
        groups = np.arange(self.n_units) if self.groups is None else self.groups
        return min(len(np.unique(groups[self.labels == label])) for label in np.unique(self.labels))


def _check_decisions(frame: pd.DataFrame, operating_point: OperatingPoint) -> None:
    given = frame["decision"].to_numpy(dtype=str)
    expected = decide(frame["probability"].to_numpy(dtype=np.float64), operating_point.threshold)
    wrong = np.flatnonzero((given != expected) & (given != "abstain"))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{len(wrong):,} of {len(given):,} decisions contradict the threshold {operating_point.threshold:g}, "
            f"the first in row {first + 1} ('{frame['path'].iloc[first]}': '{given[first]}' at probability "
            f"{frame['probability'].iloc[first]:g}): give the operating point that the table was made with, or decide "
            "again."
        )


def _split_metrics(rows: pd.DataFrame, settings: _Settings) -> Values:
    labels = rows["label"].to_numpy(dtype=np.int64)
    probabilities = rows["probability"].to_numpy(dtype=np.float64)
    known = (rows["patient_id"].notna() & (rows["patient_id"] != "")).to_numpy(dtype=bool)
    if known.all():
        codes, names = pd.factorize(rows["patient_id"].to_numpy(), sort=True)
        images = _Cases("image", "patient", labels, probabilities, codes.astype(np.int64), len(names))
        by_patient = _patient_metrics(images, codes.astype(np.int64), settings)
    else:
        images = _Cases("image", "image", labels, probabilities, None, len(labels))
        missing = int((~known).sum())
        by_patient = {
            "not_applicable": f"patients are unknown: {missing:,} of {len(known):,} images have no patient_id"
        }
    counts = {"n_images": len(labels), "n_patients": images.n_units if images.unit == "patient" else None}
    naive = _Settings(NAIVE_THRESHOLD, settings.resamples, settings.seed)
    return {
        "interval": {"unit": images.unit, "n_units": images.n_units, "note": _note(images)},
        "image": counts | _all_figures(images, settings),
        "patient": by_patient,
        "image_at_0.5": counts | _figures(images, naive, tuple(metrics.THRESHOLD_FIGURES)),
        "classification_report": _classification_report(labels, metrics.calls(probabilities, settings.threshold)),
    }


def _patient_metrics(images: _Cases, patients: NDArray[np.int64], settings: _Settings) -> Values:
    """Figures of whole patients, or why a patient has no single label."""
    share = pool_mean(images.labels.astype(np.float64), patients, images.n_units)
    mixed = int(((share > 0) & (share < 1)).sum())
    if mixed:
        return {
            "not_applicable": f"{mixed:,} of {images.n_units:,} patients have both benign and malignant images, so a "
            "patient has no single label"
        }
    pooled = pool_mean(images.probabilities, patients, images.n_units)
    whole = _Cases("patient", "patient", share.astype(np.int64), pooled, None, images.n_units)
    return {"n_images": len(images.labels), "n_patients": images.n_units} | _all_figures(whole, settings)


def _all_figures(cases: _Cases, settings: _Settings) -> Values:
    loss = metrics.log_loss(cases.labels, cases.probabilities)
    return {"loss": loss} | _figures(cases, settings, metrics.FIGURES)


def _figures(cases: _Cases, settings: _Settings, names: tuple[str, ...]) -> Values:
    """The confusion, and each figure with its interval or the reason for none."""
    table = metrics.confusion(cases.labels, metrics.calls(cases.probabilities, settings.threshold))
    resampled = resampled_figures(
        cases.labels,
        cases.probabilities,
        cases.groups,
        threshold=settings.threshold,
        resamples=settings.resamples,
        seed=settings.seed,
        figures=names,
    )
    figures: Values = {"confusion": table.tolist()}
    for name in names:
        if name in metrics.THRESHOLD_FIGURES:
            value = float(metrics.THRESHOLD_FIGURES[name](table))
        else:
            value = metrics.PROBABILITY_FIGURES[name](cases.labels, cases.probabilities)
        if math.isnan(value):
            figures[name] = {"value": None, "ci": None, "reason": _why_undefined(name, table, cases.noun)}
        else:
            figures[name] = {"value": value} | _interval(value, resampled[name], cases)
    return figures


def _interval(value: float, resampled: NDArray[np.float64], cases: _Cases) -> Values:
    interval = percentile_interval(resampled)
    if interval is None:
        exact = agreement_interval(value, resampled, n_units=cases.least_units())
        if exact is None:
            return {"ci": None, "reason": why_no_interval(resampled, n_units=cases.n_units, unit=cases.unit)}
        note = f"the same in every resample of {cases.unit}s: the exact binomial interval over {cases.unit}s"
        return {"ci": list(exact), "note": note}
    low, high = interval
    widened = [min(low, value), max(high, value)]
    if low - ROUNDING <= value <= high + ROUNDING:
        return {"ci": widened}
    side = "above" if value < low else "below"
    note = f"the resamples of {cases.unit}s lie {side} the value: resampling biases this figure; widened to hold it"
    return {"ci": widened, "note": note}


def _why_undefined(name: str, table: NDArray[np.int64], noun: str) -> str:
    if name == "ppv":
        return "nothing was called malignant"
    if name == "npv":
        return "nothing was called benign"
    if name == "f1":
        return f"no malignant {noun}, and nothing was called malignant"
    absent = BENIGN if name == "specificity" or table[MALIGNANT].sum() > 0 else MALIGNANT
    return f"no {LABEL_NAMES[absent]} {noun}"


def _note(images: _Cases) -> str | None:
    if images.unit == "image":
        return (
            "patients are unknown, so images were resampled: the intervals are too narrow where a patient has several"
        )
    if images.n_units < FEW_PATIENTS:
        plural = "" if images.n_units == 1 else "s"
        return f"only {images.n_units} patient{plural}: intervals from fewer than {FEW_PATIENTS} are not to be trusted"
    return None


def _interval_of_run(splits: Mapping[str, Any], settings: _Settings) -> Values:
    units = {block["interval"]["unit"] for block in splits.values()}
    notes = [f"{split}: {note}" for split, block in splits.items() if (note := block["interval"]["note"])]
    return {
        "level": LEVEL,
        "method": "percentile bootstrap",
        "unit": "patient" if units == {"patient"} else "image",
        "resamples": settings.resamples,
        "seed": settings.seed,
        "note": "; ".join(notes) or None,
    }


def _classification_report(labels: NDArray[np.int64], called: NDArray[np.bool_]) -> Values:
    """scikit-learn's `classification_report(output_dict=True)`, with null where a figure is undefined."""
    report = sklearn_metrics.classification_report(
        labels,
        called.astype(np.int64),
        labels=[BENIGN, MALIGNANT],
        target_names=list(LABEL_NAMES),
        output_dict=True,
        zero_division=np.nan,
    )
    clean: Values = {}
    for row, entry in report.items():
        if row == "accuracy":
            clean[row] = float(entry)
            continue
        clean[row] = {name: _null_if_nan(value) for name, value in entry.items()}
        clean[row]["support"] = int(entry["support"])
    for column in ("precision", "recall", "f1-score"):
        undefined = [name for name in LABEL_NAMES if clean[name][column] is None]
        # scikit-learn would average what is left, which is the figure of the other class under a wrong name.
        if undefined:
            clean["macro avg"][column] = None
        if any(clean[name]["support"] > 0 for name in undefined):
            clean["weighted avg"][column] = None
    return clean


def _null_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _two_digits(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
