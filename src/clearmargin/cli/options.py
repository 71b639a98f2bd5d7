"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Argument(help="A folder of images, or a CSV or Parquet file with path,label.")]
SourceName = Annotated[str | None, typer.Option(help="The layout of DATA; recognised when not given.")]
PatientRegex = Annotated[
    str | None, typer.Option(metavar="RE", help="Takes the patient from each path: its group 'patient', or the first.")
]
Exclude = Annotated[Path | None, typer.Option(help="A text file with one path a line to leave out.")]
Tolerance = Annotated[float | None, typer.Option(help="Share of unusable files to go on without; 0.01 by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
