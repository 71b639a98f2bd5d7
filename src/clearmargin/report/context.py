"""A patch among its neighbours: what the slide adds to the answer, and what the patch says by itself."""

from __future__ import annotations

from clearmargin.report.chosen import chosen_on
from clearmargin.report.document import (
    Line,
    Part,
    Row,
    Section,
    Shown,
    Table,
    clause,
    interval_of,
    missing_reasons,
    value_of,
)
from clearmargin.report.results import NAMES
from clearmargin.report.run_files import RunFiles, Values
from clearmargin.report.words import DASH, NBSP, decimal, read_figure

ALONE = "context.alone"
"""Where in metrics.json stands what decides of a patch by itself."""
_COMPARED = ("auroc", "auprc", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece")


def context(run: RunFiles) -> Section | None:
    """Patch alone and in context, or why there is no context; None where the places of patches are not known."""
    stored: Values = run.metrics.get("context") or {}
    if run.in_context:
        part = Part(lines=(_how(run, stored), _chosen(run), _alone(run)), tables=(_table(run),))
    elif stored.get("not_applicable") and run.knows_places:
        reason = clause(stored["not_applicable"], "context.not_applicable")
        part = Part(lines=(("Each patch is decided by itself; its neighbours do not count: ", reason),))
    else:
        return None
    return Section("context", "In the context of the slide", (part,))


def _how(run: RunFiles, stored: Values) -> Line:
    who: Line = ("its network's logit is",)
    if stored.get("networks") == 2:
        who = ("the mean logit of two networks, one of which sees the patch and the other ", *_field(run), ", is")
    return (
        "A patch is judged among its neighbours: ",
        *who,
        " averaged over the slide, a neighbour counting the less the farther it is (a Gaussian of ",
        Shown(f"{stored['scale']:g}", "context.scale"),
        " steps of ",
        Shown(f"{stored['step']:,}", "context.step"),
        " px). Every other section is about decisions in context, unless it says otherwise.",
    )


def _field(run: RunFiles) -> Line:
    model: Values = run.environment.get("model") or {}
    field = model.get("field") or (run.training and run.training.model.field)
    if not field:
        return ("the field of patches around it",)
    return ("the field of ", Shown(f"{field} × {field}", "model.field"), " patches around it, as thumbnails")


def _chosen(run: RunFiles) -> Line:
    if run.decides_by_fold:
        line = "How far neighbours count was chosen for each fold on the other folds; the scale above is the bundle's."
        if run.metrics.get("folds"):
            line += " Figures of single folds are those of their own runs, each with the context that it chose itself."
        return (line,)
    return (f"How far they count was chosen on {chosen_on(run)}, as the lowest log loss of patients left out.",)


def _alone(run: RunFiles) -> Line:
    if run.decides_by_fold:
        return ("An image whose place is not known is decided by itself, at a threshold of its own.",)
    return ("An image whose place is not known is decided by itself, at the threshold ", _threshold(run, ALONE), ".")


def _threshold(run: RunFiles, place: str) -> Shown:
    values = run.metrics if not place else run.metrics["context"]["alone"]
    key = f"{place}.operating_point.threshold".removeprefix(".")
    return Shown(decimal(float(values["operating_point"]["threshold"])), key)


def _table(run: RunFiles) -> Table:
    blocks = [(run.block[name], f"{run.headline}.{name}") for name in ("image", "image_alone")]
    figures = [(name, [read_figure(values, name, place=place) for values, place in blocks]) for name in _COMPARED]
    rows = [
        Row(NAMES[name][0], tuple(cell for each in pair for cell in (value_of(each), interval_of(each))))
        for name, pair in figures
    ]
    if not run.decides_by_fold:
        rows.append(Row("Threshold", (_threshold(run, ""), DASH, _threshold(run, ALONE), DASH)))
    return Table(
        columns=("Figure", "In context", f"95{NBSP}% interval", "By itself", f"95{NBSP}% interval"),
        rows=tuple(rows),
        note=f"The same {run.headline} images, decided in either way. The intervals are of each figure, not of the "
        "difference.",
        reasons=missing_reasons([(NAMES[name][0], pair) for name, pair in figures]),
        stress=0,
        wide=True,
    )
