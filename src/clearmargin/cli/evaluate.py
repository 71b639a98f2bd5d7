"""`clearmargin evaluate`: a finished model on other images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from clearmargin.cli.options import Prevalence, Settings, with_image_options


@with_image_options
def evaluate(
    model: Annotated[
        Path,
        typer.Argument(
            help="A bundle, as for predict; or predictions of any software, a CSV with path,label,probability."
        ),
    ],
    data: Annotated[
        Path | None, typer.Argument(help="The images, as for train; none for a table of predictions.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="The folder to make, with the files of a run.")],
    threshold: Annotated[
        float | None, typer.Option(help="For a table without decisions: malignant at or above this probability.")
    ] = None,
    prevalence: Prevalence = None,
    settings: Settings = None,
    images: dict[str, Any],
) -> None:
    """External validation: a finished model on other images, or predictions of other software."""
    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.cli.show import run_summary
    from clearmargin.config import parse_settings

    run = api.evaluate(
        model,
        data,
        out,
        threshold=threshold,
        prevalence=prevalence,
        settings=parse_settings(settings or []),
        command=shlex.join(["clearmargin", *sys.argv[1:]]),
        listener=build_listener(),
        **images,
    )
    print(run_summary(run.folder, run.metrics))
