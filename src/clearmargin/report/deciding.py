"""What the model does when it cannot tell, and whether deciding by it does more good than harm."""

from __future__ import annotations

import numpy as np

from clearmargin.report import evidence_plots
from clearmargin.report.chosen import units
from clearmargin.report.context import ALONE
from clearmargin.report.document import (
    Line,
    Part,
    Plot,
    Row,
    Section,
    Shown,
    Table,
    band,
    clause,
    interval_of,
    missing_reasons,
    value_of,
)
from clearmargin.report.run_files import RunFiles, Values
from clearmargin.report.words import NBSP, decimal, percent, read_figure, signed, span

ABSTENTION = {
    "covered": ("Right or withheld", "mean over patients; this is what was promised"),
    "covered_malignant": ("… of malignant images", ""),
    "covered_benign": ("… of benign images", ""),
    "deferred": ("Withheld", "share of images answered by cannot tell"),
    "error_decided": ("Wrong, of those decided", "what remains when the unsure are withheld"),
    "error_all": ("Wrong, if all were decided", "at the threshold alone"),
}
_SHOWN_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)


def abstention(run: RunFiles) -> Section | None:
    """What was promised and what was found; None for a run that knows of no abstention."""
    stored, found = run.metrics.get("abstention"), run.block.get("abstention")
    if stored is None and found is None:
        return None
    tables = (_abstention_table(run, found),) if found and "not_applicable" not in found else ()
    plot = risk_coverage_plot(run)
    lines = [promise(run, stored or {})]
    if run.in_context:
        alone = promise(run, run.metrics["context"]["alone"].get("abstention") or {}, place=f"{ALONE}.abstention")
        lines.append(("A patch by itself. ", *alone))
    if run.protocol.get("split") == "image" and (stored or {}).get("coverage"):
        lines.append(("Images were drawn without regard to patients, so for a new patient it does not hold.",))
    reason = (found or {}).get("not_applicable")
    if reason and "not_attainable" not in (stored or {}):
        lines.append(
            ("What came of it was not measured: ", clause(reason, f"{run.headline}.abstention.not_applicable"))
        )
    parts = [Part(lines=tuple(lines), tables=tables, plots=(plot,) if plot else ())]
    if not run.metrics.get("drift") and (part := refusals(run)):
        parts.append(part)
    return Section("unsure", "When it cannot tell", tuple(parts))


def promise(run: RunFiles, stored: Values, *, place: str = "abstention") -> Line:
    """What the abstention that stands at `place` in metrics.json promises, or why nothing is withheld."""
    if reason := stored.get("not_attainable"):
        return ("No answer is withheld: ", clause(reason, f"{place}.not_attainable"))
    if "coverage" not in stored:
        return ("The model always decides.",)
    kept = percent(stored["coverage"], 1) if round(stored["coverage"] * 100) != stored["coverage"] * 100 else None
    promised = Shown(kept or percent(stored["coverage"]), f"{place}.coverage")
    promise: Line = (
        f"The promise, for a new {stored['unit']}: ",
        promised,
        " of the images are answered rightly or withheld. It rests on ",
        *units(run, stored, place),
        " and on new ones being like them.",
    )
    if stored.get("low") is None:
        return ("No answer is withheld, since the promise holds without it. ", *promise)
    region = Shown(span((stored["low"], stored["high"])), f"{place}.region")
    return ("For probabilities in ", region, " the answer is cannot tell. ", *promise)


def refusals(run: RunFiles) -> Part | None:
    """How many images the gate refuses as unlike those that the model was shown; None where there is no gate."""
    gate = run.metrics.get("gate") or {}
    if "refused" not in gate:
        return None
    rows = [Row(kind, (Shown(f"{count:,}", f"gate.reasons.{kind}"),)) for kind, count in gate["reasons"].items()]
    line: Line = (
        "As unlike the images that the model was shown, its gate refuses ",
        Shown(f"{gate['refused']:,}", "gate.refused"),
        " of ",
        Shown(f"{gate['images']:,}", "gate.images"),
        " images. The figures are of all of them.",
    )
    table = Table(columns=("Reason", "Images"), rows=tuple(rows), note="")
    return Part("Which images are refused?", (line,), (table,) if rows else ())


def _abstention_table(run: RunFiles, found: Values) -> Table:
    place = f"{run.headline}.abstention"
    figures = [(name, read_figure(found, name, place=place)) for name in ABSTENTION if name in found]
    return Table(
        columns=("Share of images", "Found", f"95{NBSP}% interval"),
        rows=tuple(
            Row(ABSTENTION[name][0], (value_of(each), interval_of(each)), meaning=ABSTENTION[name][1], band=band(each))
            for name, each in figures
        ),
        reasons=missing_reasons([(ABSTENTION[name][0], [each]) for name, each in figures]),
        stress=0,
        scale=True,
    )


def risk_coverage_plot(run: RunFiles) -> Plot | None:
    curve = run.block.get("risk_coverage")
    if not curve:
        return None
    found = run.block.get("abstention") or {}
    deferred, error = read_figure(found, "deferred").value, read_figure(found, "error_decided").value
    point = None if deferred is None or error is None else (1 - deferred, error)
    caption: Line = ("The line falls to the left where the model knows when it is unsure.",)
    if "area" in curve:
        area = read_figure(curve, "area", place=f"{run.headline}.risk_coverage")
        within: Line = (" (", interval_of(area), ")") if area.interval else ()
        caption = (*caption, " Area under it ", value_of(area), *within, "; lower is better.")
    picture = evidence_plots.risk_coverage(curve, point=point)
    return Plot("risk_coverage", "Risk and coverage", caption, picture)


def usefulness(run: RunFiles) -> Section | None:
    """Decision curve and predictive values at the asked prevalence; None where neither is recorded."""
    parts = []
    if plot := decision_plot(run):
        line: Line = (
            "Net benefit weighs images rightly called malignant against false alarms, at the exchange rate that a "
            "threshold probability implies: who acts from a probability of one in ten counts nine "
            "false alarms as one malignant image found. Where the line is not above both others, deciding by the model "
            "helps nobody who thinks at that rate.",
        )
        parts.append(Part(lines=(line,), tables=(_benefit_table(run),), plots=(plot,)))
    if part := _at_prevalence(run):
        parts.append(part)
    return Section("useful", "Usefulness", tuple(parts)) if parts else None


def decision_plot(run: RunFiles) -> Plot | None:
    curve = run.block.get("decision_curve")
    if not curve:
        return None
    picture = evidence_plots.decision_curve(curve, threshold=run.threshold)
    caption: Line = (f"Band: 95{NBSP}% interval. Treating none has a net benefit of zero.",)
    return Plot("decision_curve", "Decision curve", caption, picture)


def _benefit_table(run: RunFiles) -> Table:
    curve, place = run.block["decision_curve"], f"{run.headline}.decision_curve"
    places = np.asarray(curve["threshold"], dtype=np.float64)
    intervals = curve.get("ci") or [None] * len(places)
    rows = []
    for wanted in _SHOWN_THRESHOLDS:
        index = int(np.abs(places - wanted).argmin())
        if abs(places[index] - wanted) > 1e-9:
            continue
        ci = intervals[index]
        cells = (
            Shown(signed(curve["model"][index]), f"{place}.model.{index}"),
            Shown(span((ci[0], ci[1]) if ci else None), f"{place}.ci.{index}"),
            Shown(signed(curve["treat_all"][index]), f"{place}.treat_all.{index}"),
        )
        rows.append(Row(Shown(decimal(wanted, 2), f"{place}.threshold.{index}"), cells))
    columns = ("Threshold probability", "Model", f"95{NBSP}% interval", "Treat all")
    return Table(columns=columns, rows=tuple(rows), stress=0, folded="Net benefit in numbers")


def _at_prevalence(run: RunFiles) -> Part | None:
    entry, place = run.block.get("at_prevalence"), f"{run.headline}.at_prevalence"
    if not entry:
        return None
    image, rows = run.block["image"], []
    for name, label in (("ppv", "PPV"), ("npv", "NPV")):
        asked, here = read_figure(entry, name, place=place), read_figure(image, name, place=f"{run.headline}.image")
        rows.append(Row(label, (value_of(asked), interval_of(asked), value_of(here))))
    line: Line = (
        "Where ",
        Shown(percent(entry["prevalence"], 1), f"{place}.prevalence"),
        " of the images are malignant, and not ",
        Shown(percent(entry["observed"], 1), f"{place}.observed"),
        " as here, sensitivity and specificity being the same, PPV and NPV become:",
    )
    table = Table(("Figure", "There", f"95{NBSP}% interval", "Here"), tuple(rows), stress=0)
    return Part("At another prevalence", (line,), (table,))
