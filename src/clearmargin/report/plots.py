"""One function a figure; each returns a picture that is the same for the same numbers.

Malignant and validation are drawn in the accent colour, benign and train in the neutral one, the
operating point as a filled dot and the naive threshold of 0.5 as a hollow one, in every figure. The
canvas is elsewhere (`svg.py`); so are the figures of calibration, abstention and usefulness
(`evidence_plots.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from clearmargin.report.svg import ACCENT, GRID, INK, MUTED, NEUTRAL, Picture, drawing, legend_above, render
from clearmargin.types import LABEL_NAMES

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Interval = tuple[float, float]
Mask = NDArray[np.bool_]

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
TICK_TEXTS = ("0", "0.25", "0.5", "0.75", "1")
_DOT: dict[str, Any] = {"markersize": 5.5, "clip_on": False}
_TICK: dict[str, Any] = {"markersize": 9, "markeredgewidth": 2, "clip_on": False}
_UPPER_TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_UPPER_TICK_TEXTS = ("0.5", "0.6", "0.7", "0.8", "0.9", "1")


def training_curves(history: pd.DataFrame, *, kept_epoch: int | None = None) -> Picture:
    """Loss and accuracy by epoch, training and validation, the epoch whose weights were kept marked.

    Args:
        history: columns `epoch` (from 1) and, for loss and accuracy, `train_…` and `validation_…`; an
            accuracy panel also shows `validation_auroc` where it was recorded.
        kept_epoch: marked in both panels; None marks nothing.
    """
    with drawing() as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        _epoch_lines(upper, history, "loss", kept_epoch=kept_epoch)
        _epoch_lines(lower, history, "accuracy", kept_epoch=kept_epoch)
        auroc = history.get("validation_auroc")
        if auroc is not None and auroc.notna().any():
            lower.plot(history["epoch"], auroc, color=ACCENT, linewidth=1.25, linestyle=(0, (1, 1.6)), label="AUROC")
            handles, names = lower.get_legend_handles_labels()
            upper.legend(handles, names, loc="lower right", bbox_to_anchor=(1.0, 1.04), ncols=3)
        else:
            upper.legend(loc="lower right", bbox_to_anchor=(1.0, 1.04), ncols=2)
        upper.tick_params(labelbottom=False)
        lower.set_ylim(top=1.0)
        lower.set_xlabel("epoch" if kept_epoch is None else f"epoch (weights kept: {kept_epoch})")
        return render(figure, "training", title="Loss and accuracy by epoch, training and validation")


def _epoch_lines(axes: Axes, history: pd.DataFrame, figure_name: str, *, kept_epoch: int | None) -> None:
    epochs = history["epoch"]
    marker = "o" if len(history) == 1 else None
    for part, colour in (("train", NEUTRAL), ("validation", ACCENT)):
        axes.plot(epochs, history[f"{part}_{figure_name}"], color=colour, label=part, marker=marker, markersize=4)
    if kept_epoch is not None:
        axes.axvline(kept_epoch, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        kept = history.loc[epochs == kept_epoch, f"validation_{figure_name}"]
        axes.plot([kept_epoch] * len(kept), kept, "o", color=ACCENT, markersize=5.5)
    axes.set_title(figure_name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.margins(x=0.03)


def roc(
    labels: Labels,
    probabilities: Floats,
    *,
    called: Mask,
    sensitivity_interval: Interval | None = None,
    specificity_interval: Interval | None = None,
) -> Picture:
    """ROC curve with the operating point (its intervals as whiskers) and the naive threshold 0.5.

    Args:
        labels: (N,), 0 or 1, both present.
        probabilities: (N,), calibrated, of malignant.
        called: (N,), True where the image was called malignant at the operating point.
        sensitivity_interval: 95 %, in [0, 1].
        specificity_interval: the same.
    """
    false_alarms, found, _ = roc_curve(labels, probabilities)
    with drawing() as figure:
        axes = unit_square(figure.add_subplot())
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.plot(false_alarms, found, color=ACCENT)
        x, y = _rates(labels, probabilities >= 0.5)
        axes.plot([x], [y], "o", markerfacecolor="none", color=INK, markersize=7, clip_on=False, label="0.5")
        x, y = _rates(labels, called)
        if specificity_interval:
            axes.plot([1 - specificity_interval[1], 1 - specificity_interval[0]], [y, y], color=INK, linewidth=1.25)
        if sensitivity_interval:
            axes.plot([x, x], sensitivity_interval, color=INK, linewidth=1.25)
        axes.plot([x], [y], "o", color=INK, markersize=6, clip_on=False, label="operating point")
        axes.set_xlabel("false alarms (1 − specificity)")
        axes.set_title("sensitivity")
        axes.legend(loc="lower right", bbox_to_anchor=(0.98, 0.04))
        return render(figure, "roc", title="ROC curve with the operating point and the naive threshold 0.5")


def _rates(labels: Labels, called: Mask) -> tuple[float, float]:
    """(false positive rate, true positive rate) of the calls."""
    return float(called[labels == 0].mean()), float(called[labels == 1].mean())


def precision_recall(labels: Labels, probabilities: Floats, *, called: Mask) -> Picture:
    """Precision (PPV) against recall (sensitivity), with the operating point and the share of malignant.

    Args:
        labels: (N,), 0 or 1, both present.
        probabilities: (N,), calibrated, of malignant.
        called: (N,), True where the image was called malignant at the operating point.
    """
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    prevalence = float(labels.mean())
    with drawing() as figure:
        axes = unit_square(figure.add_subplot())
        axes.axhline(prevalence, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.text(0.02, prevalence + 0.015, "share of malignant", fontsize=9.5, color=MUTED)
        axes.plot(recall, precision, color=ACCENT)
        if called.any():
            point = float(called[labels == 1].mean()), float(labels[called].mean())
            axes.plot([point[0]], [point[1]], "o", color=INK, markersize=6, clip_on=False, label="operating point")
            axes.legend(loc="upper right", bbox_to_anchor=(1.0, 1.12))
        axes.set_xlabel("recall (sensitivity)")
        axes.set_title("precision (PPV)")
        return render(figure, "precision-recall", title="Precision–recall curve with the operating point")


def confusion(matrix: Sequence[Sequence[int]]) -> Picture:
    """Counts and row percentages at the operating point.

    Args:
        matrix: [[tn, fp], [fn, tp]].
    """
    with drawing() as figure:
        axes = figure.add_subplot()
        axes.grid(visible=False)
        for row, counts in enumerate(matrix):
            total = sum(counts)
            for column, count in enumerate(counts):
                share = count / total if total else 0.0
                colour = ACCENT if row == column else NEUTRAL
                corner, tint = (column + 0.02, row + 0.02), 0.08 + 0.42 * share
                axes.add_patch(Rectangle(corner, 0.96, 0.96, color=colour, alpha=tint, linewidth=0))
                percent = f"{share:.1%}".replace("%", " %") if total else "—"
                axes.text(column + 0.5, row + 0.45, f"{count:,}", ha="center", va="center", fontsize=21)
                axes.text(column + 0.5, row + 0.68, percent, ha="center", va="center", fontsize=11)
        axes.set_xlim(0, 2)
        axes.set_ylim(2, 0)
        axes.set_xticks([0.5, 1.5], [f"called {name}" for name in LABEL_NAMES])
        axes.set_yticks([0.5, 1.5], [f"truly\n{name}" for name in LABEL_NAMES])
        axes.tick_params(labelcolor=INK)
        axes.xaxis.tick_top()
        axes.spines[:].set_visible(False)
        return render(figure, "confusion", title="Confusion matrix: counts and shares of each true class")


def probability_histogram(labels: Labels, probabilities: Floats, *, threshold: float, n_bins: int = 40) -> Picture:
    """Share of each class's images by probability, malignant upwards and benign downwards, with the threshold."""
    edges = np.linspace(0, 1, n_bins + 1)
    with drawing() as figure:
        axes = figure.add_subplot()
        highest = 0.0
        for label, colour, side in ((1, ACCENT, 1), (0, NEUTRAL, -1)):
            values = probabilities[labels == label]
            shares = np.histogram(values, edges)[0] / max(len(values), 1)
            highest = max(highest, float(shares.max(initial=0.0)))
            axes.bar(edges[:-1], side * shares, width=np.diff(edges) * 0.92, align="edge", color=colour, alpha=0.8)
        limit = highest * 1.12 or 1.0
        axes.set_ylim(-limit, limit)
        axes.set_xlim(0, 1)
        axes.axhline(0, color=MUTED, linewidth=0.75)
        axes.axvline(threshold, color=INK, linewidth=1.25)
        left = threshold > 0.5
        axes.annotate(
            f"threshold {threshold:.3f}",
            (threshold, limit),
            textcoords="offset points",
            xytext=(-5 if left else 5, -4),
            ha="right" if left else "left",
            va="top",
        )
        axes.set_title(f"share of {LABEL_NAMES[1]} ↑ and of {LABEL_NAMES[0]} ↓ images")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, symmetric=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value) * 100:.3g} %")
        axes.set_xticks(TICKS, TICK_TEXTS)
        axes.set_xlabel("probability of malignant")
        return render(figure, "histogram", title="Histogram of the probabilities by class with the threshold")


def patient_shares(patients: pd.DataFrame) -> Picture:
    """For each patient the share of images called malignant (dot) against the true share (bar).

    Args:
        patients: columns `patient_id, true_share, called_share`; drawn from the top in the order given.
    """
    names = [f"@patient{index}@" for index in range(len(patients))]
    rows = np.arange(len(patients))
    with drawing(height=_height(len(patients))) as figure:
        axes = _patient_rows(figure.add_subplot(), names)
        axes.hlines(rows, patients["true_share"], patients["called_share"], color=ACCENT, linewidth=1.5, alpha=0.5)
        axes.plot(patients["true_share"], rows, "|", color=INK, label="true", **_TICK)
        axes.plot(patients["called_share"], rows, "o", color=ACCENT, label="called", **_DOT)
        axes.set_xlabel("share of malignant images")
        legend_above(axes)
        title = "Share of images called malignant and truly malignant, by patient"
        return render(figure, "patient-shares", title=title, texts=_shorten(names, patients["patient_id"]))


def patient_scores(patients: pd.DataFrame, *, column: str, label: str, overall: float | None) -> Picture:
    """One figure for each patient; hollow where it rests on few images.

    Args:
        patients: columns `patient_id, few` and `column`; drawn from the top in the order given.
        column: holds the figure, in [0, 1], NaN where it is undefined for that patient.
        label: of the axis.
        overall: the figure over all images, drawn as a line.
    """
    names = [f"@patient{index}@" for index in range(len(patients))]
    rows = np.arange(len(patients))
    few = patients["few"].to_numpy(dtype=bool)
    with drawing(height=_height(len(patients))) as figure:
        axes = _patient_rows(figure.add_subplot(), names)
        if overall is not None:
            axes.axvline(overall, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), label="all images")
        values = patients[column].to_numpy(dtype=np.float64)
        if np.nanmin(values, initial=1.0) >= 0.5:
            axes.set_xlim(0.5, 1)
            axes.set_xticks(_UPPER_TICKS, _UPPER_TICK_TEXTS)
        for chosen, face, name in ((~few, ACCENT, "patient"), (few, "none", "few images")):
            if chosen.any():
                axes.plot(values[chosen], rows[chosen], "o", color=ACCENT, markerfacecolor=face, label=name, **_DOT)
        axes.set_xlabel(label)
        legend_above(axes)
        return render(
            figure, "patient-scores", title=f"{label}, by patient", texts=_shorten(names, patients["patient_id"])
        )


def _patient_rows(axes: Axes, names: Sequence[str]) -> Axes:
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9.5)
    axes.set_xlim(0, 1)
    axes.set_xticks(TICKS, TICK_TEXTS)
    axes.spines["left"].set_visible(False)
    return axes


def _height(n_patients: int) -> float:
    return 68 + 15.0 * max(n_patients, 4)


def _shorten(names: Sequence[str], patient_ids: pd.Series[str], longest: int = 11) -> dict[str, str]:
    """What stands in the place of each name: the patient's id, its middle left out where it is long."""
    short = [text if len(text) <= longest else f"{text[: longest - 5]}…{text[-4:]}" for text in map(str, patient_ids)]
    return dict(zip(names, short, strict=True))


def unit_square(axes: Axes) -> Axes:
    """The axes with both scales from 0 to 1."""
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.005)
    axes.set_xticks(TICKS, TICK_TEXTS)
    axes.set_yticks(TICKS, TICK_TEXTS)
    axes.spines["bottom"].set_color(GRID)
    return axes
