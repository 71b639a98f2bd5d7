"""The vocabulary that every part shares: labels, tables, findings, operating points, progress.

Nothing here computes. A label is 1 for malignant and 0 for benign, and a probability is always of
*malignant*. The reading and writing of the tables whose columns are named here is elsewhere
(`data/manifest.py`, `evaluation/predictions.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Label = Literal[0, 1]
Split = Literal["train", "validation", "test"]
Protocol = Literal["patient", "image", "official"]
Decision = Literal["benign", "malignant", "abstain", "refused"]
Severity = Literal["blocking", "warning", "note"]
Content = Literal["histology", "mammogram", "ultrasound", "lesion"]
"""What an image shows: a piece of tissue, a whole breast in X-rays, an ultrasound view, or a lesion cut out of one."""
Certainty = Literal["certain", "likely", "possible"]
LevelName = Literal["slide", "patient"]
"""Whole things that have several images."""

LEVELS: tuple[LevelName, LevelName] = ("slide", "patient")
BENIGN, MALIGNANT = 0, 1
LABEL_NAMES: tuple[str, str] = ("benign", "malignant")
SPLITS: tuple[Split, Split, Split] = ("train", "validation", "test")

MANIFEST_COLUMNS: tuple[str, ...] = (
    "path",
    "label",
    "patient_id",
    "slide_id",
    "x",
    "y",
    "site",
    "source",
    "official_split",
    "width",
    "height",
    "sha256",
    "side",
    "view",
    "magnification",
)
PREDICTION_COLUMNS: tuple[str, ...] = (
    "path",
    "patient_id",
    "slide_id",
    "x",
    "y",
    "split",
    "label",
    "logit",
    "probability",
    "decision",
)

ALONE_COLUMNS: tuple[str, ...] = ("logit_alone", "probability_alone", "decision_alone")
"""What a patch says by itself, in a predictions table whose other columns are those in the context of its slide."""
FIELD_COLUMN = "logit_field"
"""The logit of the network that sees the field around a patch."""
CONTEXT_COLUMNS: tuple[str, ...] = (FIELD_COLUMN, *ALONE_COLUMNS)
"""What a predictions table has besides, where there is a context."""

GATE_WORDS: dict[str, str] = {
    "size": "size",
    "blank": "blank",
    "grey": "no colour",
    "in_colour": "in colour",
    "inverted": "perhaps inverted",
    "look": "unlike the training images",
    "features": "unlike the training images to the network",
}
"""How the reason begins for which the input gate refuses an image; a colon and the particulars follow."""

NOT_GATED = "not gated"
"""In the reason of each decision for which the input gate was switched off."""
OPTIMISTIC_STAMP = "image-level split: optimistic"
INTENDED_USE = (
    "For research and education. Clearmargin is not a medical device: its output must not be used "
    "to diagnose, treat or manage a patient."
)


@dataclass(frozen=True, slots=True)
class Record:
    """One image to predict on; coordinates are level-0 pixels of the slide the patch was cut from."""

    path: str
    patient_id: str | None = None
    slide_id: str | None = None
    x: int | None = None
    y: int | None = None


@dataclass(frozen=True, slots=True)
class SimilarCase:
    """A training image that the model finds like a new one."""

    case: int
    """Its row among the cases that the bundle carries."""
    patient_id: str | None
    slide_id: str | None
    path: str | None
    """Of its file, as seen from the root of the training images; None where ids are pseudonyms."""
    label: Label
    distance: float
    """0 for an image that the model cannot tell from it, 1 for one that has nothing to do with it, at most 2."""
    same_patient: bool | None
    """It has the patient_id of the new image; None where that cannot be known."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image; `probability` is None when the image was refused."""

    record: Record
    logit: float | None
    probability: float | None
    decision: Decision
    reason: str | None = None
    in_context: bool = False
    """The neighbours in its slide counted too."""
    similar: tuple[SimilarCase, ...] | None = None
    """The training images most like it, nearest first; None where nobody asked, empty where it was refused."""
    unreadable: str | None = None
    """The `kind` of ImageError that refused it; None where it was decided, or was refused for what it shows."""


@dataclass(frozen=True, slots=True)
class PooledPrediction:
    """What the model says of a slide or patient, from `n_images` of its images; `n_refused` others were refused."""

    patient_id: str | None
    slide_id: str | None
    n_images: int
    n_refused: int
    probability: float | None
    decision: Decision
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the audit found: what, how bad, where, and how to mend it.

    `paths` lists every file concerned (the text output shows the first few); `count` is their number,
    or the number of patients or rows where a finding is not about files. `certainty` says how sure it is: a
    fact read from files is certain, an estimate from pixels is likely or possible. `groups` holds the paths
    that belong together, where a finding is about copies.
    """

    kind: str
    severity: Severity
    message: str
    fix: str
    paths: tuple[str, ...] = ()
    count: int = 0
    certainty: Certainty = "certain"
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold on the calibrated probability, how it was chosen, and what it achieved there.

    An image is called malignant when its probability is at or above `threshold`. `achieved` holds
    figures on the split named by `chosen_on` (sensitivity, specificity, balanced_accuracy).
    """

    name: str
    rule: str
    threshold: float
    chosen_on: str = "validation"
    achieved: Mapping[str, float] = field(default_factory=dict)


class Listener:
    """Hears how a job goes on. This one is silent; the command line has one that draws.

    Methods may be called from the thread that runs the job only, and must return quickly.
    """

    def stage(self, name: str) -> None:
        """A new stage of the job begins."""

    def advance(self, done: int, total: int) -> None:
        """Of the current stage, `done` of `total` units are finished."""

    def network(self, folder: Path) -> None:
        """The epochs that follow are of the network whose history.csv is in this folder, the run's or one below."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch ended; `row` is the new line of history.csv."""

    def note(self, text: str) -> None:
        """Something the user should read, one line."""
