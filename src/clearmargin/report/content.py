"""The sections of a report in their order, the same for the page and for Markdown."""

from __future__ import annotations

import math

import pandas as pd

from clearmargin.report.certainty import certainty
from clearmargin.report.context import context
from clearmargin.report.deciding import abstention, usefulness
from clearmargin.report.document import Line, Part, Row, Section, Shown, Table, counted
from clearmargin.report.elsewhere import elsewhere
from clearmargin.report.groups import levels, subgroups
from clearmargin.report.patients import FEW_IMAGES, patient_table
from clearmargin.report.pictures import patient_plots, result_plots, training_plots
from clearmargin.report.run_files import RunFiles
from clearmargin.report.words import DASH, decimal, percent, plural

_FEW_ROWS = 12
"""A table of so many patients is shown unfolded."""


def evidence(run: RunFiles) -> list[Section]:
    """Everything between the answer and the data."""
    curves = Section("curves", "Curves", (Part(plots=(*result_plots(run), *training_plots(run))),))
    found = [context(run), certainty(run), curves, abstention(run), usefulness(run), _patients(run), subgroups(run)]
    found.append(elsewhere(run))
    return [section for section in found if section is not None]


def _patients(run: RunFiles) -> Section:
    patients = patient_table(run.rows, run.thresholds)
    parts = list(levels(run))
    if len(patients):
        parts.append(Part(tables=(_patient_rows(patients),), plots=tuple(patient_plots(run, patients))))
    else:
        line: Line = ("The patients of these images are not known, so nothing can be said about any one of them.",)
        parts.append(Part(lines=(line,)))
    return Section("patients", "By slide and patient", tuple(parts))


def _patient_rows(patients: pd.DataFrame) -> Table:
    rows = []
    for row in patients.to_dict("records"):
        place, value = f"patients.{row['patient_id']}", float(row["auroc"])
        reason = "one class only" if math.isnan(value) else None
        auroc = Shown(DASH if reason else decimal(value), f"{place}.auroc", reason)
        shares = [Shown(percent(float(row[name])), f"{place}.{name}") for name in _SHARES]
        label = Shown(str(row["patient_id"]), f"{place}.id")
        rows.append(Row(label, (counted(int(row["n_images"]), f"{place}.n_images"), *shares, auroc)))
    return Table(
        columns=("Patient", "Images", "Malignant", "Called so", "Right", "AUROC"),
        rows=tuple(rows),
        note=f"Hollow dots: fewer than {FEW_IMAGES} images of the rarer class. AUROC {DASH}: images of one class only.",
        wide=True,
        folded=f"{plural(len(patients), 'patient')} in numbers",
        unfolded=len(patients) <= _FEW_ROWS,
    )


_SHARES = ("true_share", "called_share", "correct_share")
