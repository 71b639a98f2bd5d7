"""scikit-learn's classification report, with null where a figure is undefined, and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from clearmargin.types import BENIGN, LABEL_NAMES, MALIGNANT

Values = dict[str, Any]


def classification_report(labels: NDArray[np.int64], called: NDArray[np.bool_]) -> Values:
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


def _null_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _two_digits(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
