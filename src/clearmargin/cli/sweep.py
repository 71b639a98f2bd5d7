"""`clearmargin sweep`: settings searched for, the winner tested once."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from clearmargin.cli.options import AsJson, Data, Settings, with_image_options


@with_image_options
def sweep(
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder to make, or to join in where another process is at it.")],
    space: Annotated[Path, typer.Option(metavar="FILE", help="A TOML file with the settings to search.")],
    trials: Annotated[int, typer.Option(help="How many to try; the first is the recipe's own settings.")],
    recipe: Annotated[str, typer.Option(help="A recipe's name, or a TOML file.")] = "default",
    folds: Annotated[
        int, typer.Option(help="Folds of the patients of train and validation by which each trial is judged.")
    ] = 3,
    jobs: Annotated[int, typer.Option(help="How many trials to train at a time.")] = 1,
    split: Annotated[Path | None, typer.Option(help="A CSV with path (or patient_id) and split to use.")] = None,
    by: Annotated[
        Literal["patient", "image"] | None,
        typer.Option(help="What a fresh split keeps on one side: all images of a patient, or each image."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs, instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of split, folds, weights, batches and the search.")] = None,
    pruner: Annotated[
        Literal["median", "none"],
        typer.Option(help="Give up a trial that after a fold is below the median of the others, or none."),
    ] = "median",
    settings: Settings = None,
    as_json: AsJson = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep that was stopped.")] = False,
    *,
    images: dict[str, Any],
) -> None:
    """Search settings by patient on train and validation, retrain the winner, and look at test once."""
    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.cli.show import sweep_summary
    from clearmargin.config import parse_settings

    done = api.sweep(
        data,
        out,
        space=space,
        trials=trials,
        recipe=recipe,
        folds=folds,
        jobs=jobs,
        split=split,
        by=by,
        epochs=epochs,
        seed=seed,
        pruner=pruner,
        settings=parse_settings(settings or []),
        resume=resume,
        command=shlex.join(["clearmargin", *sys.argv[1:]]),
        listener=build_listener(),
        **images,
    )
    print(json.dumps(done.summary) if as_json else sweep_summary(done.folder, done.summary))
