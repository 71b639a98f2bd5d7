"""Slides, patients, and groups of patients: each counted by itself."""

from __future__ import annotations

from typing import Any

from clearmargin.report.document import (
    Line,
    Part,
    Row,
    Section,
    Shown,
    Table,
    clause,
    counted,
    interval_of,
    missing_reasons,
    quoted,
    value_of,
)
from clearmargin.report.results import NAMES, figure_table
from clearmargin.report.run_files import RunFiles, Values
from clearmargin.report.words import NBSP, decimal, read_figure

POOLINGS = {
    "mean": "the mean probability of its images",
    "noisy_or": "one minus the product of its images' probabilities of benign",
    "top_k": "the mean of its highest probabilities",
    "learned": "a weighting, fitted where its threshold was chosen, of the mean and of the highest tenth of its images",
}
IN_ORDER = (
    "Groups stand in the order of their names: the lowest of many small groups is low by chance. Whether a figure "
    "differs between groups is told by the test over patients in the sentences below, not by whether intervals overlap."
)
_LEVELS = ("slide", "patient")
_SPREAD = ("min", "q1", "median", "q3", "max")


def levels(run: RunFiles) -> tuple[Part, ...]:
    """Slides and patients, each counted once, or why they cannot be; then how patients differ within."""
    parts = [part for level in _LEVELS if (part := _level(run, level))]
    if within := _within(run):
        parts.append(within)
    return tuple(parts)


def _level(run: RunFiles, level: str) -> Part | None:
    values: Values = run.block.get(level) or {}
    if not values and level == "slide":
        return None
    if not values or "not_applicable" in values:
        reason = values.get("not_applicable") or "not recorded in this run"
        key = f"{run.headline}.{level}.not_applicable"
        return Part(lines=((f"— No figures by {level}: ", clause(reason, key)),))
    stored: Values = (run.metrics.get("levels") or {}).get(level) or {}
    lines: list[Line] = [_counts(run, level, values)]
    if stored:
        lines.append(_pooling(stored, level))
    table = figure_table(values, place=f"{run.headline}.{level}", noun=level)
    return Part(f"Each {level} counted once", tuple(lines), (table,))


def _counts(run: RunFiles, level: str, values: Values) -> Line:
    place = f"{run.headline}.{level}"
    number = values.get("n_cases") if level == "slide" else values.get("n_patients")
    key = f"{place}.n_cases" if level == "slide" else f"{place}.n_patients"
    line: Line = (counted(number, key), f" {level}s, ", counted(values.get("n_images"), f"{place}.n_images"), " images")
    if level == "slide" and values.get("n_patients"):
        line = (*line, ", ", counted(values["n_patients"], f"{place}.n_patients"), " patients")
    return (*line, ".")


def _pooling(stored: Values, level: str) -> Line:
    pooling, place = stored.get("pooling") or {}, f"levels.{level}"
    line: Line = (f"A {level}'s probability is {POOLINGS.get(str(pooling.get('method')), 'pooled from its images')}",)
    if pooling.get("k"):
        line = (*line, " (", Shown(str(pooling["k"]), f"{place}.pooling.k"), " of them)")
    if stored.get("threshold") is not None:
        line = (*line, "; the threshold is ", Shown(decimal(stored["threshold"]), f"{place}.threshold"))
    line = (*line, ".")
    return (*line, " ", quoted(stored["reason"], f"{place}.reason")) if stored.get("reason") else line


def _within(run: RunFiles) -> Part | None:
    """How a figure within one patient varies from patient to patient."""
    entry, place = run.block.get("within_patients") or {}, f"{run.headline}.within_patients"
    if not entry:
        return None
    if "not_applicable" in entry:
        line: Line = (
            "Within patients nothing can be said: ",
            clause(entry["not_applicable"], f"{place}.not_applicable"),
        )
        return Part(lines=(line,))
    rows = [
        Row(
            NAMES[name][0],
            (
                counted(values["n"], f"{place}.{name}.n"),
                *(Shown(decimal(values[end]), f"{place}.{name}.{end}") for end in _SPREAD),
            ),
        )
        for name, values in entry.items()
        if name in NAMES and values["n"]
    ]
    table = Table(
        columns=("Figure", "Patients", "Lowest", "Lower quarter", "Median", "Upper quarter", "Highest"),
        rows=tuple(rows),
        note="Each patient's own figure, where that patient has the images that it needs.",
        stress=3,
        wide=True,
    )
    return Part("Within each patient", tables=(table,))


def subgroups(run: RunFiles) -> Section | None:
    """Figures of each group, in the order of names; None where no column has groups."""
    columns: Values = run.block.get("subgroups") or {}
    parts = [_column(run, name, entry) for name, entry in sorted(columns.items()) if entry.get("groups")]
    if not parts:
        return None
    return Section("groups", "Subgroups", (Part(lines=((IN_ORDER,),)), *parts))


def _column(run: RunFiles, name: str, entry: Values) -> Part:
    place = f"{run.headline}.subgroups.{name}"
    rows, reasons = [], []
    for number, group in enumerate(entry["groups"]):
        row, found = _group(group, f"{place}.groups.{number}")
        rows.append(row)
        reasons.append((str(group["value"]), found))
    lines: list[Line] = []
    for figure, difference in (entry.get("difference") or {}).items():
        lines.append((quoted(difference["text"], f"{place}.difference.{figure}.text"),))
    if note := entry.get("note"):
        lines.append((quoted(note, f"{place}.note"),))
    figures = tuple(label for key in ("auroc", "sensitivity", "specificity") for label in (NAMES[key][0], f"95{NBSP}%"))
    table = Table(
        columns=("Group", "Images", "Patients", "Malignant", *figures),
        rows=tuple(rows),
        reasons=missing_reasons(reasons),
        wide=True,
    )
    return Part(f"By {name}", tuple(lines), (table,))


def _group(group: Values, place: str) -> tuple[Row, list[Any]]:
    figures = [read_figure(group, name, place=place) for name in ("auroc", "sensitivity", "specificity")]
    cells = [counted(group.get(f"n_{what}"), f"{place}.n_{what}") for what in ("images", "patients", "malignant")]
    for figure in figures:
        cells += [value_of(figure), interval_of(figure)]
    return Row(Shown(str(group["value"]), f"{place}.value"), tuple(cells)), figures
