"""Whether the class, or the side of the official split, shows in what is no picture: size, file, site, mean colour.

A model takes the easiest way. Where one class is wider or saved in another format, that is the way, and the
figures look splendid until the next hospital. Each family of facts is tried alone by the classifier of
`trivial.py`, on patients that it has not seen. That colour or file size tells may be no fault, but it is what a
model must beat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.data.audit.contrast import Sides, describe_difference, find_separation
from clearmargin.data.audit.trivial import LEAST_UNITS, Folds, Reached, deal_folds, trivial_auroc
from clearmargin.data.manifest import Manifest
from clearmargin.errors import counted
from clearmargin.types import LABEL_NAMES, Certainty, Finding, Listener, Severity

MATERIAL = 0.6
"""AUROC that the lower end of the interval must exceed: below it a shortcut is not worth a model's while."""

_BEYOND_TEXTURE = 0.9  # texture alone moves the size of a PNG: on IDC, all saved alike, its AUROC is 0.77
_NEVER = 1.0
_TRUSTED_UNITS = 20
_MOST_RULE_VALUES = 3


@dataclass(frozen=True, slots=True)
class _Family:
    """Facts that are tried together, and the lower end of the interval above which they warn, not only tell."""

    name: str
    words: str
    facts: tuple[str, ...]
    warns_above: float
    remark: str = ""


_FAMILIES = (
    _Family("size", "image size", ("width", "height", "aspect"), MATERIAL),
    _Family("file", "file type", ("format", "channels", "bit_depth"), MATERIAL),
    _Family(
        "file_size",
        "file size",
        ("bytes_per_pixel",),
        _BEYOND_TEXTURE,
        " File size can come from the tissue, which compresses more or less, or from how the images were saved.",
    ),
    _Family("site", "site", ("site",), MATERIAL),
    _Family("view", "side and view", ("side", "view"), MATERIAL),
    _Family(
        "colour",
        "mean colour",
        ("red", "green", "blue", "spread"),
        _NEVER,
        " Colour can be biology, as malignant tissue is often stained darker, or come from stain and scanner.",
    ),
)


@dataclass(frozen=True, slots=True)
class _Question:
    """What is to be told apart, the class or the side of the official split, and of which images.

    `units` (N,) numbers the patient of each image, and `over` says in words how many there are.
    """

    kind: str
    sides: Sides
    units: NDArray[np.intp]
    over: str
    knows_patients: bool

    @property
    def is_class(self) -> bool:
        return self.kind == "confounded_by"


def find_confounding(
    manifest: Manifest, facts: pd.DataFrame, *, seed: int = 0, listener: Listener = Listener()
) -> list[Finding]:
    """Which facts beside the picture give the class away, and in which the parts of the official split differ.

    Patients are never on both sides of a fold; an image without a patient stands for itself, which is
    optimistic, and the message says so. A family whose values do not vary is passed over. The findings are
    `confounded_by_…` and `split_differs_by_…` with `size`, `file`, `file_size`, `site`, `view` and `colour`;
    or `confounding_unchecked` and `split_difference_unchecked`, where there are too few patients.

    Args:
        manifest: audited, so that width and height are known.
        facts: one row for each image in the manifest's order, with the columns `file_bytes`, `format`,
            `channels`, `bit_depth`, and `red`, `green`, `blue` (mean) and `spread` (standard deviation of grey)
            in [0, 1].
        seed: the same seed and data give the same findings.
        listener: hears how many families are done.
    """
    assert len(facts) == len(manifest), "facts need a row for each image"
    questions = _ask(manifest, _collect_facts(manifest.frame, facts))
    findings = []
    listener.stage("confounding")
    for number, question in enumerate(questions):
        folds = deal_folds(question.sides.labels, question.units, seed=seed)
        if folds is None:
            findings += _describe_unchecked(question)
            continue
        for done, family in enumerate(_FAMILIES, start=1):
            reached = trivial_auroc(question.sides.table[list(family.facts)], folds, seed=seed)
            if reached is not None and reached.low > MATERIAL:
                findings.append(_describe(question, family, reached, folds))
            listener.advance(number * len(_FAMILIES) + done, len(questions) * len(_FAMILIES))
    return findings


def _collect_facts(frame: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    width, height = (frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("width", "height"))
    per_pixel = facts["file_bytes"].to_numpy(dtype=np.float64) / (width * height)
    shape = pd.DataFrame({"width": width, "height": height, "aspect": width / height, "bytes_per_pixel": per_pixel})
    seen = facts[["format", "channels", "bit_depth", "red", "green", "blue", "spread"]].reset_index(drop=True)
    said = frame[["site", "side", "view"]].reset_index(drop=True)
    return pd.concat([shape, seen, said], axis=1)


def _ask(manifest: Manifest, table: pd.DataFrame) -> list[_Question]:
    questions = [_question("confounded_by", Sides(table, manifest.labels(), LABEL_NAMES), manifest.frame)]
    parts = manifest.frame["official_split"]
    last = next((name for name in ("test", "validation") if (parts == name).any()), "train")
    placed = parts.notna().to_numpy()
    tested = (parts.loc[placed] == last).to_numpy().astype(np.int8)
    sides = Sides(table.loc[placed].reset_index(drop=True), tested, ("training", last))
    questions.append(_question("split_differs_by", sides, manifest.frame.loc[placed]))
    return [question for question in questions if len(np.unique(question.sides.labels)) == 2]


def _question(kind: str, sides: Sides, frame: pd.DataFrame) -> _Question:
    patients = frame["patient_id"]
    units = pd.factorize(patients, sort=True)[0].astype(np.intp)
    unknown = units < 0
    n_patients, n_unknown = int(patients.nunique()), int(unknown.sum())
    units[unknown] = n_patients + np.arange(n_unknown)
    there = [counted(n_patients, "patient", "patients")] if n_patients else []
    there += [counted(n_unknown, "image without a patient", "images without a patient")] if n_unknown else []
    return _Question(kind, sides, units, " and ".join(there), n_unknown == 0)


def _describe(question: _Question, family: _Family, reached: Reached, folds: Folds) -> Finding:
    first, second = question.sides.names
    n_units, n_tried = len(np.unique(question.units)), int(folds.units.max()) + 1
    over = question.over if n_tried == n_units else f"{n_tried:,} at random of {question.over}"
    figure = f"AUROC {reached.auroc:.2f} (95 % interval {reached.low:.2f} to {reached.high:.2f}, {over})"
    separation = find_separation(question.sides, family.facts)
    if separation is not None:
        text = f"{separation}. {_meaning(question, family)} A trivial classifier of {family.words} alone has {figure}."
    elif question.is_class:
        text = (
            f"a trivial classifier of {family.words} alone reaches {figure}; a model must beat that. "
            f"For example, {describe_difference(question.sides, family.facts)}.{family.remark}"
        )
    else:
        text = (
            f"the {first} and the {second} images of the official split differ in {family.words}: a trivial classifier "
            f"tells them apart with {figure}. For example, {describe_difference(question.sides, family.facts)}."
        )
    if not question.knows_patients:
        text += " Images without a patient count as a patient each, so the figure may be optimistic."
    separates = separation is not None and family.warns_above < _NEVER
    severity: Severity = "warning" if separates or reached.low > family.warns_above else "note"
    certainty: Certainty = "likely" if folds.least >= _TRUSTED_UNITS else "possible"
    kind = f"{question.kind}_{family.name}"
    return Finding(kind, severity, text, _fix(question, severity), count=n_units, certainty=certainty)


def _describe_unchecked(question: _Question) -> list[Finding]:
    """With too few patients nothing is estimated; that a few values separate the sides is said all the same."""
    findings = []
    having = [len(np.unique(question.units[question.sides.labels == label])) for label in (0, 1)]
    for family in _FAMILIES:
        if family.warns_above > MATERIAL or min(having) < 2:
            continue
        separation = find_separation(question.sides, family.facts, most_values=min(_MOST_RULE_VALUES, *having))
        if separation is not None:
            text = f"{separation}. {_meaning(question, family)} With {question.over} it may be chance."
            kind, fix = f"{question.kind}_{family.name}", _fix(question, "warning")
            n_units = len(np.unique(question.units))
            findings.append(Finding(kind, "warning", text, fix, count=n_units, certainty="possible"))
    rarer = int(np.argmin(having))
    one, many = ("patient", "patients") if question.knows_patients else ("image", "images")
    (first, second), name = question.sides.names, question.sides.names[rarer]
    text = (
        f"whether size, file, site or colour alone tells {first} from {second} images was not estimated: the {name} "
        f"images are of {counted(having[rarer], one, many)}, and {LEAST_UNITS} on each side are the least."
    )
    kind = "confounding_unchecked" if question.is_class else "split_difference_unchecked"
    return [*findings, Finding(kind, "note", text, f"Add {many}.", count=having[rarer])]


def _meaning(question: _Question, family: _Family) -> str:
    if not question.is_class:
        return f"Nothing like the {question.sides.names[1]} images was trained on."
    if family.name == "colour":
        return "No model is needed to tell such images apart."
    return "A model can look perfect without looking at the tissue."


def _fix(question: _Question, severity: Severity) -> str:
    if not question.is_class:
        return (
            f"Say it beside the {question.sides.names[1]} figures: they are of other images than those trained on. "
            'Or make your own split with "clearmargin split DATA --by patient --out split.csv".'
        )
    if severity == "note":
        return "Report this figure beside the model's."
    return (
        "Find out where the difference comes from and bring both classes to the same form before training; "
        "report this figure beside the model's."
    )
