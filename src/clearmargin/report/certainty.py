"""How sure the answer is: what the intervals mean, how folds and seeds scatter, whether probabilities are honest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clearmargin.evaluation.reliability import reliability_bins
from clearmargin.report import evidence_plots
from clearmargin.report.document import (
    Line,
    Part,
    Plot,
    Row,
    Section,
    Shown,
    Table,
    counted,
    interval_of,
    missing_reasons,
    quoted,
    value_of,
)
from clearmargin.report.results import HEADLINE, NAMES, given_threshold_table, splits_table, threshold_table
from clearmargin.report.run_files import RunFiles, Values
from clearmargin.report.words import DASH, NBSP, Figure, decimal, percent, read_figure, signed, span

METHODS: Mapping[str, str] = {
    "temperature": "temperature scaling",
    "platt": "Platt scaling",
    "beta": "beta calibration",
    "isotonic": "isotonic regression",
}


def certainty(run: RunFiles) -> Section:
    """The section that says how far to trust the answer."""
    tables = [each for each in (splits_table(run), threshold_table(run), given_threshold_table(run)) if each]
    parts = [Part(lines=how_sure(run), tables=tuple(tables))]
    if spread := _spread(run):
        parts.append(spread)
    parts.append(_calibration(run))
    return Section("sure", "How sure", tuple(parts))


def how_sure(run: RunFiles) -> tuple[Line, ...]:
    """Plain sentences about what the intervals mean and how far to trust them."""
    values, interval = run.block["image"], run.interval
    lines: list[Line] = []
    if run.headline == "validation":
        lines.append((
            f"There is no test split: {'what decides was' if run.crossfit else 'the threshold and the weights were'} "
            "chosen on these very images, so the figures are optimistic.",
        ))  # fmt: skip
    if interval.get("unit") == "patient":
        lines.append((
            "The intervals are over patients, not images: images of one patient are alike, and counting each as new "
            "evidence would make every interval too narrow.",
        ))  # fmt: skip
    if methods := _interval_methods(run):
        lines.append(methods)
    if note := interval.get("note"):
        own = run.block.get("interval") or {}
        lines.append((quoted(note, f"{run.headline}.interval.note" if own.get("note") else "interval.note"),))
    confusion = values.get("confusion")
    if confusion and values["n_images"]:
        share = sum(confusion[1]) / values["n_images"]
        lines.append((
            Shown(percent(share, 1), f"{run.headline}.image.malignant_share"),
            " of these images are malignant. PPV, NPV, F1, accuracy and AUPRC change with that share; sensitivity, "
            "specificity and AUROC do not.",
        ))  # fmt: skip
    return tuple(lines)


def _interval_methods(run: RunFiles) -> Line:
    """Which figures have their interval by which method, where the run recorded it."""
    names: dict[str, list[str]] = {}
    for name in HEADLINE:
        figure = read_figure(run.block["image"], name)
        if figure.interval and figure.method:
            names.setdefault(figure.method.replace("_", " "), []).append(NAMES[name][0])
    if not names:
        return ()
    if len(names) == 1:
        return (f"Method of every interval: {next(iter(names))}.",)
    return ("Methods: " + "; ".join(f"{method} for {', '.join(labels)}" for method, labels in names.items()) + ".",)


def _spread(run: RunFiles) -> Part | None:
    """The patient interval beside the scatter of folds and of seeds."""
    folds, seeds = run.metrics.get("across_folds"), (run.metrics.get("seeds") or {}).get("figures")
    if not folds and not seeds:
        return None
    values, place = run.block["image"], f"{run.headline}.image"
    columns: list[str | Shown] = ["Figure", "Value", f"95{NBSP}% over patients"]
    columns += ["Folds: mean", "sd", f"95{NBSP}% over folds"] if folds else []
    columns += ["Seeds: mean", "lowest to highest"] if seeds else []
    rows = []
    for name in HEADLINE:
        if name not in (folds or {}) and name not in (seeds or {}):
            continue
        figure = read_figure(values, name, place=place)
        cells = [value_of(figure), interval_of(figure)]
        cells += _of_folds((folds or {}).get(name) or {}, f"across_folds.{name}") if folds else []
        cells += _of_seeds((seeds or {}).get(name) or {}, f"seeds.figures.{name}") if seeds else []
        rows.append(Row(NAMES[name][0], tuple(cells)))
    lines: list[Line] = []
    if folds:
        lines.append((
            "The interval over patients says how far the figure would move with other patients of the same kind, the "
            "model given; the folds also train anew each time, on other patients. Folds share training images, and "
            "the interval over folds is widened for that (Nadeau and Bengio).",
        ))  # fmt: skip
    if seeds:
        number = len(run.metrics["seeds"].get("seeds") or [])
        lines.append((
            "The seeds train the same recipe on the same split ",
            Shown(f"{number}", "seeds.seeds.length"),
            " times: a difference between two models that is smaller than this scatter says nothing.",
        ))  # fmt: skip
    table = Table(columns=tuple(columns), rows=tuple(rows), stress=0, wide=True)
    every_fold = _every_fold(run)
    return Part("Folds and seeds", tuple(lines), (table, every_fold) if every_fold else (table,))


def _of_folds(entry: Values, place: str) -> list[Shown]:
    ci = entry.get("ci")
    return [
        Shown(decimal(entry.get("mean")), f"{place}.mean"),
        Shown(decimal(entry.get("sd")), f"{place}.sd"),
        Shown(span(None if ci is None else (ci[0], ci[1])), f"{place}.ci"),
    ]


def _of_seeds(entry: Values, place: str) -> list[Shown]:
    ends = (entry["min"], entry["max"]) if entry.get("min") is not None else None
    return [Shown(decimal(entry.get("mean")), f"{place}.mean"), Shown(span(ends), f"{place}.range")]


def _every_fold(run: RunFiles) -> Table | None:
    folds = run.metrics.get("folds") or []
    if not folds:
        return None
    names = [name for name in ("auroc", "sensitivity", "specificity", "brier") if name in folds[0]["figures"]]
    rows = []
    for number, fold in enumerate(folds):
        place = f"folds.{number}"
        cells: list[Shown] = [
            Shown(str(fold["repeat"]), f"{place}.repeat"),
            counted(fold["n_images"], f"{place}.n_images"),
            counted(fold.get("n_patients"), f"{place}.n_patients"),
        ]
        cells += [Shown(decimal(fold["figures"].get(name)), f"{place}.figures.{name}") for name in names]
        rows.append(Row(Shown(str(fold["fold"]), f"{place}.fold"), tuple(cells)))
    columns = ("Fold", "Repeat", "Images", "Patients", *(NAMES[name][0] for name in names))
    return Table(columns=columns, rows=tuple(rows), wide=True, folded="Every fold")


def _calibration(run: RunFiles) -> Part:
    """Whether a probability means what it says."""
    chosen, values = run.metrics.get("calibration") or {}, run.block["image"]
    evidence: Values = run.block.get("calibration") or {}
    lines: list[Line] = []
    if chosen.get("method"):
        method = METHODS.get(str(chosen["method"]), str(chosen["method"]).replace("_", " "))
        line: Line = (f"Logits become probabilities by {method}. ",)
        reason = chosen.get("reason")
        lines.append((*line, quoted(reason, "calibration.reason")) if reason else line)
    if evidence.get("ece_note"):
        lines.append((quoted(evidence["ece_note"], f"{run.headline}.calibration.ece_note"),))
    tables = [_calibration_figures(run, values, evidence), _candidates(chosen), _reliability_table(run, evidence)]
    return Part("Calibration", tuple(lines), tuple(each for each in tables if each), (reliability_plot(run),))


def _calibration_figures(run: RunFiles, values: Values, evidence: Values) -> Table:
    place = f"{run.headline}.image"
    named: list[tuple[str, str, Figure, str]] = []
    if "calibration_slope" in values:
        slope = read_figure(values, "calibration_slope", place=place)
        intercept = read_figure(values, "calibration_intercept", place=place)
        named.append(("Calibration slope", "1 is right; below, too certain", slope, "signed"))
        named.append(("Calibration intercept", "0 is right; above, too low", intercept, "signed"))
    named.append((*NAMES["brier"], read_figure(values, "brier", place=place), "decimal"))
    named.append((*NAMES["ece"], read_figure(values, "ece", place=place), "decimal"))
    rows = [
        Row(label, (value_of(figure, style=style), interval_of(figure)), meaning=meaning)
        for label, meaning, figure, style in named
    ]
    if evidence.get("ece_expected") is not None:
        expected = Shown(decimal(evidence["ece_expected"]), f"{run.headline}.calibration.ece_expected")
        meaning = "of a perfectly calibrated model on as many images"
        rows.append(Row("ECE to expect by chance", (expected, DASH), meaning=meaning))
    return Table(
        columns=("Figure", "Value", f"95{NBSP}% interval"),
        rows=tuple(rows),
        reasons=missing_reasons([(label, [figure]) for label, _, figure, _ in named]),
        stress=0,
    )


def _candidates(chosen: Values) -> Table | None:
    """The methods that were compared on validation."""
    candidates = chosen.get("candidates") or []
    if not candidates:
        return None
    rows = []
    for number, each in enumerate(candidates):
        place, brier = f"calibration.candidates.{number}", each.get("brier")
        verdict = "chosen" if each["method"] == chosen["method"] else ""
        reason = quoted(each["reason"], f"{place}.reason") if each.get("reason") else verdict
        rows.append(
            Row(METHODS.get(each["method"], each["method"]), (Shown(decimal(brier, 4), f"{place}.brier"), reason))
        )
    return Table(
        columns=("Method", "Brier score", "Verdict"),
        rows=tuple(rows),
        note="Cross-validated on the images that the choice was made on; lower is better.",
        folded="How the calibration was chosen",
    )


def _reliability_table(run: RunFiles, evidence: Values) -> Table | None:
    place, rows = f"{run.headline}.calibration.reliability", []
    for number, each in enumerate(evidence.get("reliability") or []):
        edges = Shown(f"{each['lower']:.1f}–{each['upper']:.1f}", f"{place}.{number}.edges")
        ci = (each["ci"][0], each["ci"][1]) if each.get("ci") else None
        cells = (
            counted(each["n"], f"{place}.{number}.n"),
            Shown(decimal(each["mean_probability"]), f"{place}.{number}.mean_probability"),
            Shown(decimal(each["observed"]), f"{place}.{number}.observed"),
            Shown(span(ci), f"{place}.{number}.ci"),
        )
        rows.append(Row(edges, cells))
    if not rows:
        return None
    columns = ("Probability", "Images", "Mean", "Malignant", f"95{NBSP}% interval")
    return Table(columns, tuple(rows), wide=True, folded="Reliability in numbers")


def reliability_plot(run: RunFiles) -> Plot:
    """The reliability diagram, with intervals over patients where the run has them."""
    place, values = f"{run.headline}.image", run.block["image"]
    bins = (run.block.get("calibration") or {}).get("reliability") or _bins(run)
    over = "patients" if run.block["image"].get("n_patients") else "images, taken as independent"
    ece, brier = read_figure(values, "ece", place=place), read_figure(values, "brier", place=place)
    caption: Line = (
        "On the dashed line a probability means what it says. ECE ",
        value_of(ece),
        " (of 15 bins), Brier ",
        value_of(brier),
        f". Bars: 95{NBSP}% intervals over {over}.",
    )
    return Plot("reliability", "Reliability", caption, evidence_plots.reliability(bins))


def _bins(run: RunFiles) -> list[dict[str, Any]]:
    """The bins of a run that recorded none."""
    labels = run.rows["label"].to_numpy(dtype=np.int64)
    probabilities = run.rows["probability"].to_numpy(dtype=np.float64)
    patients = run.rows["patient_id"].to_numpy() if run.block["image"].get("n_patients") else None
    return reliability_bins(labels, probabilities, n_bins=10, groups=patients, seed=0).rows()


def calibration_text(chosen: Values) -> str:
    """The calibration in one line, with its parameters."""
    method = str(chosen.get("method", ""))
    parameters = [
        f"{name} {signed(chosen[name])}"
        for name in ("temperature", "slope", "intercept", "a", "b", "c")
        if isinstance(chosen.get(name), int | float)
    ]
    if isinstance(chosen.get("probabilities"), list | tuple):
        parameters.append(f"{len(chosen['probabilities'])} knots")
    return "; ".join([METHODS.get(method, method.replace("_", " ")), *parameters])
