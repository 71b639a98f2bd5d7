"""The report of a run: one HTML file that needs nothing else, neither script nor font nor network.

Everything that comes from data is escaped by the template; only our own SVGs and style sheet are not, and
the page's own policy forbids scripts and requests. The same run folder gives the same bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from clearmargin.evaluation.assemble import format_classification_report
from clearmargin.evaluation.calibration import reliability_bins
from clearmargin.files import write_text
from clearmargin.report import gallery, plots, provenance, results, words
from clearmargin.report.environment import build_environment
from clearmargin.report.patients import FEW_IMAGES, patient_table
from clearmargin.report.run_files import RunFiles, read_run
from clearmargin.report.words import decimal, percent, read_figure
from clearmargin.types import INTENDED_USE, OPTIMISTIC_STAMP

MOST_PATIENTS = 60
"""Drawn by name; of more, those on whom the model does worst."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure of the page; `svg` is None where it is undefined, and the caption then says why."""

    title: str
    caption: str
    svg: Markup | None


def write_report(run: Path, *, load_image: Callable[[str], NDArray[np.uint8]]) -> Path:
    """Write `report.html` into the run folder and return its path.

    Args:
        run: a finished run or external evaluation; metrics.json and predictions.csv are needed, config.toml,
            environment.json, audit.json, split.csv and history.csv are used where they are.
        load_image: path as in predictions.csv to uint8 (H, W, 3) RGB or (H, W, 1) grey; called for at most 12
            images. An `ImageError` becomes a placeholder with its reason.

    Raises:
        DataError: the folder is not a finished run, or a file in it cannot be read.
        ConfigError: config.toml has settings that this version does not know.
    """
    text = render_report(read_run(run), load_image=load_image)
    target = run / "report.html"
    write_text(target, text)
    return target


def render_report(run: RunFiles, *, load_image: Callable[[str], NDArray[np.uint8]]) -> str:
    """The page as text."""
    rows = run.predictions[run.predictions["split"] == run.headline]
    mistakes = gallery.find_mistakes(rows)
    cards = gallery.build_cards(mistakes, load_image)
    kept = provenance.kept_epoch(run)
    patients = patient_table(rows, run.threshold)
    level_rows, n_level, level_reason = results.patient_level(run)
    by_kind = {kind: len(found) for kind, found in mistakes.items()}
    return (
        _environment()
        .get_template("template.html.jinja")
        .render(
            run=run,
            style=Markup((Path(__file__).parent / "style.css").read_text(encoding="utf-8")),
            banner=results.banner(run, stamp=OPTIMISTIC_STAMP),
            answer=results.answer(run),
            headline=results.headline_table(run),
            how_sure=results.how_sure(run),
            splits=results.splits_table(run),
            thresholds=results.threshold_table(run),
            plots=_result_plots(run, rows) + _training_plots(run, kept),
            cards=cards,
            mistake_counts=by_kind,
            patients=patients,
            patient_plots=_patient_plots(run, patients),
            patient_rows=level_rows,
            n_level=n_level,
            level_reason=level_reason,
            few_images=FEW_IMAGES,
            split_rows=provenance.split_rows(run),
            methods=provenance.methods(run, kept_epoch=kept),
            classification_report=_classification_report(run),
            machine=provenance.machine(run),
            stages=provenance.stages(run.environment),
            settings=provenance.settings(run.config) if run.config else [],
            intended_use=INTENDED_USE,
        )
    )


def _classification_report(run: RunFiles) -> str | None:
    values = run.metrics[run.headline]
    return format_classification_report(values) if values.get("classification_report") else None


@functools.cache
def _environment() -> jinja2.Environment:
    environment = build_environment()
    environment.filters |= {
        "decimal": decimal,
        "percent": percent,
        "span": words.span,
        "count": words.count,
        "plural": words.plural,
        "moment": words.moment,
        "band": results.band,
        "reasons": results.missing_reasons,
        "sizes": results.sizes,
        "flow": provenance.flow_steps,
        "by_severity": provenance.findings_by_severity,
        "counts_line": provenance.counts_line,
    }
    return environment


def _inline(svg: str) -> Markup:
    """Our own SVG as part of an HTML document, where the namespace is implied."""
    return Markup(svg.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1))


def _result_plots(run: RunFiles, rows: pd.DataFrame) -> list[Plot]:
    values, threshold = run.metrics[run.headline]["image"], run.threshold
    labels = rows["label"].to_numpy(dtype=np.int64)
    probabilities = rows["probability"].to_numpy(dtype=np.float64)
    auroc, auprc = read_figure(values, "auroc"), read_figure(values, "auprc")
    ece, brier = read_figure(values, "ece"), read_figure(values, "brier")
    sensitivity, specificity = read_figure(values, "sensitivity"), read_figure(values, "specificity")
    found = [Plot("Confusion matrix", f"At the operating point, threshold {decimal(threshold)}.", None)]
    if values.get("confusion"):
        found[0] = Plot(found[0].title, found[0].caption, _inline(plots.confusion(values["confusion"])))
    if len(set(labels.tolist())) == 2:
        curve = plots.roc(
            labels,
            probabilities,
            threshold=threshold,
            sensitivity_interval=sensitivity.interval,
            specificity_interval=specificity.interval,
        )
        caption = f"AUROC {decimal(auroc.value)}. Whiskers: 95 % intervals at the operating point."
        found.append(Plot("ROC curve", caption, _inline(curve)))
        curve = plots.precision_recall(labels, probabilities, threshold=threshold)
        found.append(Plot("Precision and recall", f"AUPRC {decimal(auprc.value)}. Dashed: chance.", _inline(curve)))
    else:
        reason = auroc.reason or "only one class is present"
        found += [Plot(title, f"{words.DASH} {reason}", None) for title in ("ROC curve", "Precision and recall")]
    bins = plots.reliability(reliability_bins(labels, probabilities, n_bins=10))
    caption = (
        "On the dashed line a probability means what it says. "
        f"ECE {decimal(ece.value)} (of 15 bins), Brier {decimal(brier.value)}. "
        "Bars: 95 % Wilson intervals, which take images as independent."
    )
    found.append(Plot("Reliability", caption, _inline(bins)))
    histogram = plots.probability_histogram(labels, probabilities, threshold=threshold)
    found.append(
        Plot("Probabilities by class", "What is right of the threshold is called malignant.", _inline(histogram))
    )
    return found


def _training_plots(run: RunFiles, kept_epoch: int | None) -> list[Plot]:
    if run.history is None:
        return []
    curves = _inline(plots.training_curves(run.history, kept_epoch=kept_epoch))
    return [Plot("Training", "A validation loss that rises while training falls is overfitting.", curves)]


def _patient_plots(run: RunFiles, patients: pd.DataFrame) -> list[Plot]:
    if len(patients) == 0:
        return []
    shown = patients.head(MOST_PATIENTS)
    only = f" The {len(shown)} worst of {len(patients)} patients." if len(shown) < len(patients) else ""
    values = run.metrics[run.headline]["image"]
    if patients["auroc"].notna().any():
        column, title, overall = "auroc", "AUROC within each patient", read_figure(values, "auroc")
        caption = "Worst first; a row without a dot has one class only."
    else:
        column, title, overall = "correct_share", "Images judged rightly", read_figure(values, "accuracy")
        caption = "Worst first; no patient has images of both classes, so there is no AUROC within one."
    scores = plots.patient_scores(shown, column=column, label=title, overall=overall.value)
    return [
        Plot(title, caption + only, _inline(scores)),
        Plot(
            "Called and true share",
            "A long line is a patient in whom the model finds too much or too little." + only,
            _inline(plots.patient_shares(shown)),
        ),
    ]
