"""`clearmargin train`: the main job."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from clearmargin.cli.options import Coverage, Data, Prevalence, Settings, Track, with_image_options


@with_image_options
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    recipe: Annotated[str | None, typer.Option(help="A recipe's name, or a TOML file; 'default' if not given.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Another architecture than the recipe's, see 'clearmargin model'; pretrained: squeezenet, timm:NAME."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="FILE|hub", help="Weights of a pretrained model: a file, or 'hub' to fetch timm's own."),
    ] = None,
    by: Annotated[
        Literal["patient", "image"] | None,
        typer.Option(
            help="What a fresh split keeps on one side: all images of a patient, or each image; patient by default."
        ),
    ] = None,
    split: Annotated[Path | None, typer.Option(help="A CSV with path (or patient_id) and split to use.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs, instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of split, weights and batches.")] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate with so many folds: each patient is tested once.")
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Cross-validate so often, with other folds each time.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Train so many networks on the same split, to see how far luck moves the figures."),
    ] = None,
    coverage: Coverage = None,
    prevalence: Prevalence = None,
    settings: Settings = None,
    target_sensitivity: Annotated[
        float | None, typer.Option(help="Choose the threshold that reaches this sensitivity on validation.")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Give bit for bit the same result each time.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    track: Track = None,
    *,
    images: dict[str, Any],
) -> None:
    """Audit, split by patient, train, evaluate, export and report, into one run folder."""
    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.cli.show import run_summary
    from clearmargin.config import parse_settings

    changes: dict[str, Any] = parse_settings(settings or [])
    if target_sensitivity is not None:
        changes |= {"evaluate.operating_point": "sensitivity", "evaluate.target_sensitivity": target_sensitivity}
    run = api.train(
        data,
        out,
        recipe=recipe,
        model=model,
        weights=weights,
        by=by,
        split=split,
        epochs=epochs,
        seed=seed,
        folds=folds,
        repeats=repeats,
        seeds=seeds,
        coverage=coverage,
        prevalence=prevalence,
        settings=changes,
        deterministic=True if deterministic else None,
        resume=resume,
        track=track or (),
        command=shlex.join(["clearmargin", *sys.argv[1:]]),
        listener=build_listener(),
        **images,
    )
    print(run_summary(run.folder, run.metrics))
