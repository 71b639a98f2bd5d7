"""Which figures a run has, with their captions; drawing one is elsewhere (`plots.py`, `evidence_plots.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from clearmargin.files import make_folder
from clearmargin.report import plots
from clearmargin.report.certainty import reliability_plot
from clearmargin.report.deciding import decision_plot, risk_coverage_plot
from clearmargin.report.document import Line, Plot, Shown, value_of
from clearmargin.report.patients import patient_table
from clearmargin.report.provenance import kept_epoch
from clearmargin.report.run_files import RunFiles
from clearmargin.report.words import DASH, NBSP, decimal, plural, read_figure

MOST_PATIENTS = 60
"""Drawn by name; of more, those on whom the model does worst."""


def write_figures(run: RunFiles, folder: Path) -> list[Path]:
    """Writes every figure of the run as SVG and as PDF, ready for a paper; the same run gives the same bytes.

    Args:
        run: as `read_run` gives it.
        folder: made where it is missing; other files in it are left alone.

    Returns:
        The files: `roc.svg`, `roc.pdf` and so on. A figure that is undefined here has none.
    """
    make_folder(folder)
    patients = patient_table(run.rows, run.thresholds)
    found = [*general_plots(run), *patient_plots(run, patients)]
    written = []
    for plot in found:
        if plot is None or plot.picture is None:
            continue
        for kind in ("svg", "pdf"):
            written.append(folder / f"{plot.name}.{kind}")
            plot.picture.save(written[-1])
    return written


def general_plots(run: RunFiles) -> list[Plot | None]:
    """Every figure of the run that names no patient; None, or one without a picture, where it is undefined here."""
    certainty = [reliability_plot(run), decision_plot(run), risk_coverage_plot(run)]
    return [*result_plots(run), *certainty, *training_plots(run)]


def result_plots(run: RunFiles) -> list[Plot]:
    """Confusion matrix, ROC, precision and recall, and the probabilities by class."""
    values, place, threshold = run.block["image"], f"{run.headline}.image", run.threshold
    labels = run.rows["label"].to_numpy(dtype=np.int64)
    probabilities = run.rows["probability"].to_numpy(dtype=np.float64)
    called = np.asarray(probabilities >= run.thresholds, dtype=np.bool_)
    auroc, auprc = (read_figure(values, name, place=place) for name in ("auroc", "auprc"))
    stored = Shown(decimal(threshold), "operating_point.threshold")
    matrix = plots.confusion(values["confusion"]) if values.get("confusion") else None
    where: Line = ("At the operating point, threshold ", stored, ".")
    if run.decides_by_fold:
        where = ("Each fold decided by the threshold that was chosen on the others.",)
    found = [Plot("confusion", "Confusion matrix", where, matrix)]
    if len(set(labels.tolist())) == 2:
        curve = plots.roc(
            labels,
            probabilities,
            called=called,
            sensitivity_interval=read_figure(values, "sensitivity").interval,
            specificity_interval=read_figure(values, "specificity").interval,
        )
        caption: Line = ("AUROC ", value_of(auroc), f". Whiskers: 95{NBSP}% intervals at the operating point.")
        found.append(Plot("roc", "ROC curve", caption, curve))
        curve = plots.precision_recall(labels, probabilities, called=called)
        caption = ("AUPRC ", value_of(auprc), ". Dashed: chance.")
        found.append(Plot("precision_recall", "Precision and recall", caption, curve))
    else:
        caption = (f"{DASH} {auroc.reason or 'only one class is present'}",)
        found.append(Plot("roc", "ROC curve", caption, None))
        found.append(Plot("precision_recall", "Precision and recall", caption, None))
    histogram = plots.probability_histogram(labels, probabilities, threshold=threshold)
    caption = ("What is right of the threshold is called malignant.",)
    if run.decides_by_fold:
        caption = ("The threshold is that of the bundle; each fold was decided by one of its own.",)
    return [*found, Plot("histogram", "Probabilities by class", caption, histogram)]


def training_plots(run: RunFiles) -> list[Plot]:
    """Loss and accuracy by epoch, where the run has its history."""
    if run.history is None:
        return []
    curves = plots.training_curves(run.history, kept_epoch=kept_epoch(run))
    caption: Line = ("A validation loss that rises while training falls is overfitting.",)
    if run.crossfit:
        number = Shown(str(run.crossfit), "protocol.crossfit")
        caption = ("The mean of ", number, " networks, each validated on the part that it left out. ", *caption)
    return [Plot("training", "Training", caption, curves)]


def patient_plots(run: RunFiles, patients: pd.DataFrame) -> list[Plot]:
    """Each patient's figure and share, of the worst `MOST_PATIENTS`.

    Args:
        run: as `read_run` gives it.
        patients: as `patient_table` gives them.
    """
    if len(patients) == 0:
        return []
    shown = patients.head(MOST_PATIENTS)
    only: Line = ()
    if len(shown) < len(patients):
        of_all = Shown(plural(len(patients), "patient"), f"{run.headline}.image.n_patients")
        only = (f" The {len(shown)} worst of ", of_all, ".")
    values = run.block["image"]
    if patients["auroc"].notna().any():
        column, title, overall = "auroc", "AUROC within each patient", read_figure(values, "auroc")
        caption = "Worst first; a row without a dot has one class only."
    else:
        column, title, overall = "correct_share", "Images judged rightly", read_figure(values, "accuracy")
        caption = "Worst first; no patient has images of both classes, so there is no AUROC within one."
    scores = plots.patient_scores(shown, column=column, label=title, overall=overall.value)
    shares = "A long line is a patient in whom the model finds too much or too little."
    return [
        Plot("patients", title, (caption, *only), scores),
        Plot("patient_shares", "Called and true share", (shares, *only), plots.patient_shares(shown)),
    ]
