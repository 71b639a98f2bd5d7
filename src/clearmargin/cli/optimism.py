"""`clearmargin optimism`: what a random split would have promised."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from clearmargin.cli.options import AsJson, Data, Settings, Track, with_image_options


@with_image_options
def optimism(
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    recipe: Annotated[str, typer.Option(help="A recipe's name, or a TOML file.")] = "default",
    folds: Annotated[
        int, typer.Option(help="Folds of each cross-validation; the recipe is trained twice as often.")
    ] = 5,
    repeats: Annotated[int, typer.Option(help="How often to do it all, each time with other folds.")] = 1,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs, instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of folds, weights and batches.")] = None,
    settings: Settings = None,
    as_json: AsJson = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with one that was stopped.")] = False,
    track: Track = None,
    *,
    images: dict[str, Any],
) -> None:
    """Train a recipe under a random split and under a split by patient, and show the gap of every figure."""
    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.config import parse_settings
    from clearmargin.studies.optimism import as_markdown

    content = api.optimism(
        data,
        out,
        recipe=recipe,
        folds=folds,
        repeats=repeats,
        epochs=epochs,
        seed=seed,
        settings=parse_settings(settings or []),
        resume=resume,
        track=track or (),
        command=shlex.join(["clearmargin", *sys.argv[1:]]),
        listener=build_listener(),
        **images,
    )
    print(json.dumps(content) if as_json else "\n" + as_markdown(content))
