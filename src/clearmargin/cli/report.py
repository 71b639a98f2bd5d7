"""`clearmargin report`: the report of a finished run, built anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="A finished run folder.")]) -> None:
    """Build report.html anew from the files of a run."""
    from clearmargin.bundle.read import read_bundle
    from clearmargin.errors import DataError
    from clearmargin.files import disk_errors
    from clearmargin.report.html import write_report

    if not (run / "run.json").is_file():
        raise DataError(f"{run}: not a finished run (no run.json). Finish it with train --resume.")
    preprocessing = read_bundle(run).model.preprocessing
    with disk_errors(run):
        print(write_report(run, load_image=preprocessing.read))
