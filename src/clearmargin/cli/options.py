"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from clearmargin.errors import UsageError

Data = Annotated[
    Path, typer.Argument(help="A folder of images, a .zip of one, an .npz, or a CSV or Parquet file with path,label.")
]
SourceName = Annotated[str | None, typer.Option(help="The layout of DATA; recognised when not given.")]
PatientRegex = Annotated[
    str | None, typer.Option(metavar="RE", help="Takes the patient from each path: its group 'patient', or the first.")
]
Exclude = Annotated[Path | None, typer.Option(help="A text file with one path a line to leave out.")]
Tolerance = Annotated[float | None, typer.Option(help="Share of unusable files to go on without; 0.01 by default.")]
Labels = Annotated[
    Path | None, typer.Option(help="Of DICOM folders: a CSV with labels by StudyInstanceUID, SOPInstanceUID or path.")
]
View = Annotated[
    Literal["full", "crop"] | None, typer.Option(help="Full images, or a crop around each lesion; full by default.")
]
Normal = Annotated[
    Literal["exclude", "benign"] | None, typer.Option(help="Images without any lesion; excluded by default.")
]
Magnification = Annotated[
    str | None, typer.Option(metavar="40,100,…", help="Of BreaKHis: the magnifications to take; all by default.")
]
Frame = Annotated[int | None, typer.Option(help="Of DICOM files with several frames: the one to take, from 1.")]
Pseudonymise = Annotated[
    bool, typer.Option("--pseudonymise", help="Patient ids, slide ids and paths leave as keyed hashes.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def parse_magnification(text: str | None) -> tuple[int, ...]:
    """The numbers of --magnification.

    >>> parse_magnification("40,100X")
    (40, 100)

    Raises:
        UsageError: something else than whole numbers.
    """
    words = [word.strip().lower().removesuffix("x") for word in (text or "").split(",")]
    words = [word for word in words if word]
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"--magnification {text}: write whole numbers, for example 40,100.")
    return tuple(map(int, words))
