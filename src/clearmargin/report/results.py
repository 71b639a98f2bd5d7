"""The answer and its tables, worded: every number comes from metrics.json and from nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clearmargin.report.chosen import by_whom, chosen_on
from clearmargin.report.document import (
    Line,
    Row,
    Shown,
    Table,
    band,
    counted,
    interval_of,
    many,
    missing_reasons,
    value_of,
)
from clearmargin.report.run_files import RunFiles, Values
from clearmargin.report.words import DASH, NBSP, Figure, plural, read_figure
from clearmargin.types import SPLITS

RATES = ("sensitivity", "specificity", "balanced_accuracy", "ppv", "npv", "f1", "accuracy")
"""Figures that depend on the threshold."""

NAMES: Mapping[str, tuple[str, str]] = {
    "auroc": ("AUROC", "a malignant image ranks above a benign one"),
    "auprc": ("AUPRC", "precision averaged over all thresholds"),
    "sensitivity": ("Sensitivity (recall)", "of malignant images, called malignant"),
    "specificity": ("Specificity", "of benign images, called benign"),
    "balanced_accuracy": ("Balanced accuracy", "mean of sensitivity and specificity"),
    "ppv": ("PPV (precision)", "of images called malignant, truly so"),
    "npv": ("NPV", "of images called benign, truly so"),
    "f1": ("F1", "harmonic mean of sensitivity and PPV"),
    "accuracy": ("Accuracy", "of all images, called rightly"),
    "brier": ("Brier score", "squared error of the probability; lower is better"),
    "ece": ("ECE", "gap between probability and truth; lower is better"),
    "loss": ("Loss", "log loss; lower is better"),
}
HEADLINE = tuple(name for name in NAMES if name != "loss")


@dataclass(frozen=True, slots=True)
class Banner:
    """A warning above everything else: the stamp or headline, and why it is there."""

    title: str
    text: Line
    command: str | None = None


def answer(run: RunFiles) -> Line:
    """The one sentence."""
    values, place = run.block["image"], f"{run.headline}.image"
    auroc = read_figure(values, "auroc", place=place)
    split = "external" if run.is_external else run.headline
    noun = "image" if run.protocol.get("trained_on_images") else f"{split} image"
    parts: list[str | Shown] = ["On ", *many(values["n_images"], noun, f"{place}.n_images")]
    among = ", each in the context of its slide" if run.in_context else ""
    parts += [*_whose(run, values, place), f"{among}, AUROC is "]
    if auroc.value is None:
        parts.append(f"not defined ({auroc.reason})")
    else:
        parts.append(value_of(auroc, style="short", stress=True))
        if auroc.interval:
            parts += [f" (95{NBSP}% interval ", interval_of(auroc, digits=2), ")"]
    decided = "with each fold decided by the others" if run.decides_by_fold else "at the stored operating point"
    parts += [f"; {decided} it finds "]
    parts += _rate(read_figure(values, "sensitivity", place=place), "of malignant images")
    parts += [" and clears ", *_rate(read_figure(values, "specificity", place=place), "of benign ones")]
    return (*parts, ".")


def _rate(figure: Figure, of_what: str) -> list[str | Shown]:
    if figure.value is None:
        return [f"an undefined share {of_what} ({figure.reason})"]
    return [value_of(figure, style="percent", stress=True), f" {of_what}"]


def _whose(run: RunFiles, values: Values, place: str) -> Line:
    n_patients, protocol = values.get("n_patients"), run.protocol.get("split")
    of_patients = (" of ", *many(n_patients, "patient", f"{place}.n_patients")) if n_patients else ()
    if protocol == "image":
        return (*of_patients, ", drawn at random without regard to patients")
    if not n_patients:
        return (", whose patients are not known",)
    unseen = protocol == "patient" or (protocol == "official" and run.shared_patients == 0)
    return (*of_patients, " never seen in training" if unseen and not run.is_external else "")


def figure_table(values: Values, names: Sequence[str] = HEADLINE, *, place: str, noun: str = "image") -> Table:
    """One row a figure: value, interval, and both on a scale; `noun` is what was counted."""
    figures = [(NAMES[name], read_figure(values, name, place=place)) for name in names]
    return Table(
        columns=("Figure", "Value", f"95{NBSP}% interval"),
        rows=tuple(
            Row(label, (value_of(figure), interval_of(figure)), meaning=text.replace("image", noun), band=band(figure))
            for (label, text), figure in figures
        ),
        reasons=missing_reasons([(label, [figure]) for (label, _), figure in figures]),
        stress=0,
        scale=True,
    )


def headline_table(run: RunFiles) -> Table:
    return figure_table(run.block["image"], place=f"{run.headline}.image")


def splits_table(run: RunFiles) -> Table | None:
    """Every split side by side, so that the fall from training to test can be seen; None where there is one only."""
    splits = [split for split in SPLITS if split in run.metrics]
    if len(splits) < 2:
        return None
    names = (
        "auroc",
        "accuracy",
        "balanced_accuracy",
        "sensitivity",
        "specificity",
        "ppv",
        "f1",
        "brier",
        "ece",
        "loss",
    )
    blocks = [(run.metrics[split]["image"], f"{split}.image") for split in splits]
    sizes = [_sizes(name, blocks) for name in ("images", "patients")]
    title = f"From training to {run.headline}"
    note = "A large fall from left to right means that the model learned its training images by heart."
    if run.crossfit:
        title = f"Out of fold, and {run.headline}"
        note = (
            f"Train and validation are judged {by_whom(run)}, test by the mean of all networks. The decisions were "
            "chosen on the former, so that what depends on the threshold is a little optimistic there."
        )
    table = _side_by_side(tuple(split_title(run, split) for split in splits), blocks, names)
    return Table(
        columns=table.columns,
        rows=(*table.rows, *sizes),
        title=title,
        note=note,
        reasons=table.reasons,
        stress=splits.index(run.headline),
    )


def split_title(run: RunFiles, split: str) -> str:
    """The split's name, and that its figures are out of fold where they are."""
    return f"{split}, out of fold" if run.crossfit and split != "test" else split


def _sizes(name: str, blocks: Sequence[tuple[Values, str]]) -> Row:
    cells = [
        counted(values[f"n_{name}"], f"{place}.n_{name}") if values.get(f"n_{name}") else DASH
        for values, place in blocks
    ]
    return Row(name, tuple(cells), size=True)


def threshold_table(run: RunFiles) -> Table | None:
    """The stored operating point beside the naive threshold of 0.5."""
    naive = run.block.get("image_at_0.5")
    if not naive:
        return None
    blocks = [(run.block["image"], f"{run.headline}.image"), (naive, f"{run.headline}.image_at_0.5")]
    stored: str | Shown = Shown(f"stored ({run.threshold:.3f})", "operating_point.threshold")
    note = (
        f"The threshold was chosen on {chosen_on(run)}, and travels with the model; 0.5 is what one gets without "
        "choosing."
    )
    if run.decides_by_fold:
        stored = "of each fold"
        note = "Each fold has a threshold that was chosen on the other folds; 0.5 is what one gets without choosing."
    table = _side_by_side((stored, "naive (0.5)"), blocks, RATES)
    return Table(
        columns=table.columns,
        rows=table.rows,
        title="The chosen threshold and 0.5" if run.decides_by_fold else "The stored threshold and 0.5",
        note=note,
        reasons=table.reasons,
        stress=0,
    )


def _side_by_side(
    columns: tuple[str | Shown, ...], blocks: Sequence[tuple[Values, str]], names: Sequence[str]
) -> Table:
    figures = [(name, [read_figure(values, name, place=place) for values, place in blocks]) for name in names]
    return Table(
        columns=("Figure", *columns),
        rows=tuple(Row(NAMES[name][0], tuple(map(value_of, cells))) for name, cells in figures),
        reasons=missing_reasons([(NAMES[name][0], cells) for name, cells in figures]),
    )


def given_threshold_table(run: RunFiles) -> Table | None:
    """Beside the intervals that count the choice of the threshold, those that take it as given."""
    values, place = run.block["image"], f"{run.headline}.image"
    fixed = [name for name in RATES if isinstance(values.get(name), Mapping) and values[name].get("ci_fixed")]
    if not fixed:
        return None
    rows = []
    for name in fixed:
        figure = read_figure(values, name, place=place)
        low, high = values[name]["ci_fixed"]
        given = interval_of(Figure(figure.value, low, high, place=place))
        cells = (value_of(figure), interval_of(figure), Shown(given.text, f"{place}.{name}.ci_fixed"))
        rows.append(Row(NAMES[name][0], cells))
    return Table(
        columns=("Figure", "Value", "With the choice", "Threshold given"),
        rows=tuple(rows),
        note=f"The first interval counts that the threshold was chosen on {chosen_on(run)}, and would have been "
        "another on other patients; the second takes the stored threshold as given, as whoever uses this very model "
        "does. Figures of slides, patients, subgroups, abstention and another prevalence have the second kind only.",
        stress=0,
        folded="Intervals with the threshold taken as given",
    )


def banner(run: RunFiles, *, stamp: str) -> Banner | None:
    """What a reader must know before any number."""
    if warning := run.metrics.get("warning"):
        told = _about_patients(run, stamp=stamp)
        also = f" Besides: {told.title}." if told else ""
        return Banner("it has learned nothing", (f"{warning}{also}",), None)
    return _about_patients(run, stamp=stamp)


def _about_patients(run: RunFiles, *, stamp: str) -> Banner | None:
    """That patients are, or may be, on both sides of the split."""
    protocol, shared = run.protocol.get("split"), run.shared_patients
    n_patients = run.block["image"].get("n_patients")
    both = Shown(f"{shared or 0:,}", "shared_patients")
    if protocol == "image":
        text: Line = (
            "Images were split at random, without regard to patients. Images of one patient resemble each other, and "
            "the model may have been tested on patients whose other images it was trained on: expect lower figures "
            "on a new patient.",
        )
        if shared:
            total = many(n_patients or shared, f"{run.headline} patient", f"{run.headline}.image.n_patients")
            have = f" also {'has' if shared == 1 else 'have'} images in training."
            text = (*text, " Here ", both, " of the ", *total, have)
        elif shared is None:
            text = (*text, " How many patients are on both sides is not known, since the patients are not.")
            return Banner(stamp, text, "clearmargin train DATA --out RUN --by patient --patient-regex RE")
        return Banner(stamp, text, "clearmargin train DATA --out RUN --by patient")
    if protocol == "official" and shared:
        noun = plural(shared, "patient").partition(" ")[2]
        return Banner(
            "patients on both sides of the official split",
            (
                both,
                f" {noun} of the {run.headline} split also {'has' if shared == 1 else 'have'} images in training, as "
                "the data set's authors split it. Figures on them say little about a new patient.",
            ),
            "clearmargin train DATA --out RUN --by patient",
        )
    if protocol == "external" and run.protocol.get("stamp"):
        known = (
            ("trained_on_images", "image") if run.protocol.get("trained_on_images") else ("shared_patients", "patient")
        )
        number = run.protocol.get(known[0])
        seen: Line = (
            (*many(number, known[1], f"protocol.{known[0]}"), " of them") if number else ("Some or all of them",)
        )
        return Banner(
            str(run.protocol["stamp"]),
            (*seen, " took part in training or tuning the model. Figures on them say little about a new patient."),
            None,
        )
    return None
