"""`clearmargin report`: the report of a finished run, built anew, and the same as text for a paper."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def report(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    form: Annotated[
        Literal["html", "markdown", "latex-table"],
        typer.Option(
            "--format",
            help="html: report.html, checklists/ and figures/. markdown: report.md and figures/. "
            "latex-table: table.tex with the headline figures.",
        ),
    ] = "html",
    figures: Annotated[
        Path | None, typer.Option(help="Where the figures go, as SVG and PDF. Default: RUN/figures.")
    ] = None,
) -> None:
    """Build report.html, the reporting checklists and the figures anew from the files of a run."""
    from clearmargin.bundle.read import read_bundle
    from clearmargin.files import disk_errors
    from clearmargin.images.preprocess import Preprocessing
    from clearmargin.report.run_files import changed_files
    from clearmargin.report.write import write_artefacts, write_forms

    for name in changed_files(run):
        print(f"Note: {name} was changed since the run ended; the report shows it as it is now.", file=sys.stderr)
    with disk_errors(run):
        if form == "html":
            # Predictions of other software come without a bundle.
            shown = read_bundle(run).model.preprocessing if (run / "bundle").is_dir() else Preprocessing.for_display()
            written = write_artefacts(run, load_image=shown.read, figures=figures or run / "figures")
        else:
            written = write_forms(run, form, figures=figures)
    for path in written:
        if path.parent in (run, run / "checklists"):
            print(path)
    if any(path.suffix == ".pdf" for path in written):
        print(figures or run / "figures")
