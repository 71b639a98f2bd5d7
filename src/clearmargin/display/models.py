"""Models and how good they are: a finished run, a predictor, a comparison."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from clearmargin.display.page import bar, block, drawing, facts, figure, table, tag
from clearmargin.errors import counted
from clearmargin.evaluation.verdict import spell_figure
from clearmargin.files import seen_from_here
from clearmargin.report.document import plain, text_of
from clearmargin.report.findings import clean
from clearmargin.report.pictures import result_plots, training_plots
from clearmargin.report.results import NAMES, answer, banner, figure_table
from clearmargin.report.run_files import RunFiles, read_run
from clearmargin.report.words import DASH, NBSP, count, decimal, percent, read_figure, signed, span
from clearmargin.types import LABEL_NAMES, OPTIMISTIC_STAMP

if TYPE_CHECKING:
    from clearmargin.predict.predictor import Predictor
    from clearmargin.tables import ComparisonTable
    from clearmargin.workflow import Run

_FIGURES = ("auroc", "sensitivity", "specificity", "balanced_accuracy", "accuracy", "ppv", "npv", "f1", "brier", "ece")
_MOST_PAIRS = 6


def show_run(run: Run) -> str:
    """The answer in a sentence, the figures with their intervals, the stamp, curves, and where the report is."""
    files = read_run(run.folder)
    warned = banner(files, stamp=OPTIMISTIC_STAMP)
    unit = files.interval.get("unit") or "patient"
    return block(
        tag("p", f"Run in {clean(seen_from_here(run.folder), 200)}", class_="title"),
        *([tag("p", warned.title, class_="warn"), tag("p", plain(warned.text), class_="muted")] if warned else []),
        tag("p", plain(answer(files))),
        tag("div", _figures(files, unit), confusion(files.block["image"]["confusion"]), class_="row"),
        tag("div", *_curves(files), class_="row"),
        tag("p", *_where(run.report), class_="muted"),
    )


def _figures(files: RunFiles, unit: str) -> Markup:
    found = figure_table(files.block["image"], _FIGURES, place=f"{files.headline}.image")
    rows = [(text_of(row.label), *(text_of(cell) for cell in row.cells)) for row in found.rows]
    columns = (files.headline, "value", f"95{NBSP}% over {unit}s")
    reasons = [tag("p", f"{names}: {DASH} {clean(why, 200)}", class_="muted") for names, why in found.reasons]
    return tag("div", table(columns, rows, numbers=(1, 2)), *reasons)


def _curves(files: RunFiles) -> list[Markup]:
    plots = [*training_plots(files), *(plot for plot in result_plots(files) if plot.name == "roc")]
    return [
        figure(drawing(plot.picture, alt=plot.title, px=290), plain(plot.caption), wide=True)
        for plot in plots
        if plot.picture is not None
    ]


def confusion(matrix: Sequence[Sequence[int]]) -> Markup:
    """Counts and shares of each true class at the operating point, the right ones in colour.

    Args:
        matrix: [[tn, fp], [fn, tp]].
    """
    rows = []
    for label, counts in enumerate(matrix):
        cells = []
        for called, number in enumerate(counts):
            share = number / sum(counts) if sum(counts) else 0.0
            shade = f"background:rgba({'201,58,120' if called == label else '123,135,148'},{0.06 + 0.4 * share:.2f})"
            cells.append(tag("td", tag("b", count(number)), tag("br"), percent(share), class_="cell", style=shade))
        rows.append(tag("tr", tag("th", f"truly {LABEL_NAMES[label]}", scope="row", class_="muted"), *cells))
    head = tag("tr", tag("th"), *(tag("th", f"called {name}", scope="col") for name in LABEL_NAMES))
    return tag("table", tag("thead", head), tag("tbody", *rows))


def _where(report: Path) -> list[str]:
    if not report.is_file():
        return ["No report was written."]
    name = seen_from_here(report)
    shown = clean(name, 200)
    if Path(name).is_absolute():  # a page of a notebook server cannot link to where it does not serve
        return [f"The whole report: {shown}"]
    return ["The whole report: ", tag("a", shown, href=quote(name.replace(os.sep, "/")), target="_blank")]


def show_predictor(predictor: Predictor) -> str:
    """What the model is, how it decides, how good it was, and what it refuses."""
    model = predictor.bundle.model
    spec, lineage = model.preprocessing, model.lineage
    between = model.conformal.between if model.conformal else None
    threshold = model.decision_point.threshold
    network = model.architecture
    several = f"{network.ensemble} times " if network.ensemble > 1 else ""
    pairs = [
        ("network", f"{several}{clean(network.name, 60)}, {network.parameters:,} parameters"),
        ("input", f"{spec.width} × {spec.height} pixels, {'colour' if spec.channels == 3 else 'grey'}"),
        ("recipe", clean(lineage.recipe or "not known", 60)),
        ("split", lineage.split),
        ("decides", tag("span", bar(None, threshold, between), f" {say_rule(threshold, between)}")),
        ("gate", "refuses what is unlike its training images" if predictor.is_gated else "off: any image is decided"),
    ]
    if model.context is not None:
        inside = model.context.conformal.between if model.context.conformal else None
        text = say_rule(model.context.decision_point.threshold, inside)
        pairs.append(("in context", f"where places on a slide are known, neighbours count: {text}"))
    if lineage.metrics is not None:
        auroc = read_figure(lineage.metrics, "auroc")
        pairs.append(("AUROC on test", f"{decimal(auroc.value)} (95{NBSP}% interval {span(auroc.interval)})"))
    return block(
        tag("p", f"Predictor of {clean(seen_from_here(predictor.bundle.folder), 200)}", class_="title"),
        *([tag("p", clean(lineage.stamp, 120), class_="warn")] if lineage.stamp else []),
        facts(pairs),
        tag("p", model.intended_use, class_="muted"),
    )


def say_rule(threshold: float, between: tuple[float, float] | None) -> str:
    """How a probability is decided, in words."""
    withheld = f"; cannot tell from {decimal(between[0])} to {decimal(between[1])} (dashed)" if between else ""
    return f"malignant from {decimal(threshold)}{withheld}"


def show_comparison(comparison: ComparisonTable) -> str | None:
    """The verdict on each pair of models, and its figures."""
    if "pairs" not in comparison.attrs or not {"a", "b", "figure", "difference", "low", "high"} <= set(comparison):
        return None
    frame, letters = comparison.plain(), {model["name"]: model["letter"] for model in comparison.attrs["models"]}
    parts: list[str] = []
    for pair in comparison.attrs["pairs"][:_MOST_PAIRS]:
        a, b = letters[pair["a"]], letters[pair["b"]]
        rows = frame[(frame["a"] == pair["a"]) & (frame["b"] == pair["b"])]
        n_patients = pair["n_patients"]
        patients = "unknown patients" if n_patients is None else counted(n_patients, "patient", "patients")
        images = counted(pair["n_images"], "test image", "test images")
        parts += [
            tag("p", f"{a} and {b}, on {images} of {patients}", class_="title"),
            tag("p", clean(pair["verdict"])),
            table(("", a, b, f"{a} − {b}", f"95{NBSP}% interval"), map(_differs, rows.iloc), numbers=(1, 2, 3, 4)),
            *(tag("p", f"{clean(note, 300)}.", class_="muted") for note in pair["notes"]),
        ]
    names = [(letter, clean(name, 120)) for name, letter in letters.items()]
    return block(facts(names), *parts)


def _differs(row: pd.Series) -> tuple[str, ...]:
    name = NAMES[row["figure"]][0] if row["figure"] in NAMES else spell_figure(str(row["figure"]))
    values = [None if pd.isna(row[column]) else float(row[column]) for column in ("value_a", "value_b")]
    if pd.isna(row["difference"]):
        return (name, *map(decimal, values), DASH, clean(row["note"], 120))
    interval = None if pd.isna(row["low"]) else (float(row["low"]), float(row["high"]))
    return (name, *map(decimal, values), signed(float(row["difference"])), span(interval))
