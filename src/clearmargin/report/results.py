"""The answer and its tables, worded: every number comes from metrics.json and from nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clearmargin.report.run_files import RunFiles, Values
from clearmargin.report.words import DASH, Figure, count, decimal, percent, plural, read_figure, sentence, span
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


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table of figures; `cells` are parallel to the table's columns."""

    label: str
    meaning: str
    cells: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    n_images: tuple[int | None, ...] = ()
    n_patients: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Banner:
    """A warning above everything else: the stamp or headline, and why it is there."""

    title: str
    text: str
    command: str | None = None


def answer(run: RunFiles) -> list[tuple[str, bool]]:
    """The one sentence, as (text, whether it is a figure to stress)."""
    values = run.metrics[run.headline]["image"]
    auroc = read_figure(values, "auroc")
    found, cleared = read_figure(values, "sensitivity"), read_figure(values, "specificity")
    split = run.headline if _has_training(run) else "external"
    parts = [(f"On {plural(values['n_images'], f'{split} image')}{_whose(run, values)}, AUROC is ", False)]
    if auroc.value is None:
        parts[-1] = (parts[-1][0] + f"not defined ({auroc.reason})", False)
    else:
        parts.append((decimal(auroc.value, 2), True))
        if auroc.interval:
            parts.append((f" (95\N{NO-BREAK SPACE}% interval {span(auroc.interval, 2)})", False))
    parts.append(("; at the stored operating point it finds ", False))
    parts += _rate(found, "of malignant images")
    parts.append((" and clears ", False))
    parts += _rate(cleared, "of benign ones")
    return [*parts, (".", False)]


def _rate(figure: Figure, of_what: str) -> list[tuple[str, bool]]:
    if figure.value is None:
        return [(f"an undefined share {of_what} ({figure.reason})", False)]
    return [(percent(figure.value), True), (f" {of_what}", False)]


def _whose(run: RunFiles, values: Values) -> str:
    n_patients, protocol = values.get("n_patients"), run.protocol.get("split")
    of_patients = f" of {plural(n_patients, 'patient')}" if n_patients else ""
    if protocol == "image":
        return f"{of_patients}, drawn at random without regard to patients"
    if not n_patients:
        return ", whose patients are not known"
    unseen = protocol == "patient" or (protocol == "official" and run.shared_patients == 0)
    return of_patients + (" never seen in training" if unseen and _has_training(run) else "")


def _has_training(run: RunFiles) -> bool:
    """Whether the model was trained in this run; otherwise its images come from outside."""
    return "train" in run.metrics or "train" in (run.protocol.get("images") or {})


def figure_table(values: Values, names: Sequence[str]) -> tuple[Row, ...]:
    """One row a figure, with one cell."""
    return tuple(Row(*NAMES[name], cells=(read_figure(values, name),)) for name in names)


def headline_table(run: RunFiles) -> tuple[Row, ...]:
    return figure_table(run.metrics[run.headline]["image"], [name for name in NAMES if name != "loss"])


def splits_table(run: RunFiles) -> Table:
    """Every split side by side, so that the fall from training to test can be seen."""
    splits = [split for split in SPLITS if split in run.metrics]
    values = [run.metrics[split]["image"] for split in splits]
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
    return Table(
        columns=tuple(splits),
        rows=tuple(Row(*NAMES[name], cells=tuple(read_figure(each, name) for each in values)) for name in names),
        n_images=tuple(each.get("n_images") for each in values),
        n_patients=tuple(each.get("n_patients") for each in values),
    )


def threshold_table(run: RunFiles) -> Table | None:
    """The stored operating point beside the naive threshold of 0.5."""
    naive = run.metrics[run.headline].get("image_at_0.5")
    if not naive:
        return None
    values = (run.metrics[run.headline]["image"], naive)
    rows = tuple(Row(*NAMES[name], cells=tuple(read_figure(each, name) for each in values)) for name in RATES)
    return Table(columns=(f"stored ({run.threshold:.3f})", "naive (0.5)"), rows=rows)


def patient_level(run: RunFiles) -> tuple[tuple[Row, ...], int | None, str | None]:
    """(rows, number of patients, reason why there are no rows)."""
    values: Values = run.metrics[run.headline].get("patient") or {"not_applicable": "not recorded in this run"}
    if "not_applicable" in values:
        return (), None, str(values["not_applicable"])
    return figure_table(values, [name for name in NAMES if name != "loss"]), values.get("n_patients"), None


def banner(run: RunFiles, *, stamp: str) -> Banner | None:
    """What a reader must know before any number: patients are, or may be, on both sides of the split."""
    protocol, shared = run.protocol.get("split"), run.shared_patients
    n_patients = run.metrics[run.headline]["image"].get("n_patients")
    if protocol == "image":
        text = (
            "Images were split at random, without regard to patients. Images of one patient resemble each other, and "
            "the model may have been tested on patients whose other images it was trained on: expect lower figures "
            "on a new patient."
        )
        if shared:
            of_all = f"{shared:,} of the {plural(n_patients or shared, f'{run.headline} patient')}"
            text += f" Here {of_all} also {'has' if shared == 1 else 'have'} images in training."
        elif shared is None:
            text += " How many patients are on both sides is not known, since the patients are not."
            return Banner(stamp, text, "clearmargin train DATA --out RUN --by patient --patient-regex RE")
        return Banner(stamp, text, "clearmargin train DATA --out RUN --by patient")
    if protocol == "official" and shared:
        return Banner(
            "patients on both sides of the official split",
            f"{plural(shared, 'patient')} of the {run.headline} split also {'has' if shared == 1 else 'have'} images "
            "in training, as the data set's authors split it. Figures on them say little about a new patient.",
            "clearmargin train DATA --out RUN --by patient",
        )
    return None


def how_sure(run: RunFiles) -> list[str]:
    """Plain sentences about what the intervals mean and how far to trust them."""
    values = run.metrics[run.headline]["image"]
    interval = run.interval
    lines = []
    if run.headline == "validation":
        lines.append(
            "There is no test split: the threshold and the weights were chosen on these very images, so the figures "
            "are optimistic."
        )
    if interval.get("unit") == "patient":
        lines.append(
            "The intervals resample patients, not images: images of one patient are alike, and counting each as new "
            "evidence would make every interval too narrow."
        )
    if note := interval.get("note"):
        lines.append(sentence(str(note)))
    confusion = values.get("confusion")
    if confusion and values["n_images"]:
        share = sum(confusion[1]) / values["n_images"]
        lines.append(
            f"{percent(share, 1)} of these images are malignant. PPV, NPV, F1, accuracy and AUPRC change with that "
            "share; sensitivity, specificity and AUROC do not."
        )
    return lines


def missing_reasons(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(names of figures, reason) for every undefined figure or interval; figures with one reason stand together."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        for cell in row.cells:
            if cell.reason and (cell.value is None or cell.interval is None):
                names.setdefault(cell.reason, {})[row.label] = None
    return [(", ".join(labels), reason) for reason, labels in names.items()]


def band(figure: Figure) -> dict[str, str] | None:
    """Where the interval and the value lie on a scale from 0 to 1, in percent of its width."""
    if figure.value is None or not 0 <= figure.value <= 1:
        return None
    low, high = figure.interval or (figure.value, figure.value)
    return {"left": f"{low * 100:.2f}", "width": f"{(high - low) * 100:.2f}", "dot": f"{figure.value * 100:.2f}"}


def sizes(table: Table) -> list[tuple[str, list[str]]]:
    """The rows of counts under a table's figures."""
    rows = [("images", table.n_images), ("patients", table.n_patients)]
    return [(name, [count(n) if n else DASH for n in numbers]) for name, numbers in rows if numbers]
