"""Searching for settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from clearmargin.api.options import ImageOptions, Pathlike, absolute, checks_image_options, data_changes, given
from clearmargin.types import Listener

if TYPE_CHECKING:
    from clearmargin.studies.sweep.results import Sweep


@checks_image_options
def sweep(
    data: Pathlike,
    out: Pathlike,
    *,
    space: Pathlike,
    trials: int,
    recipe: str = "default",
    folds: int = 3,
    jobs: int = 1,
    by: Literal["patient", "image"] | None = None,
    split: Pathlike | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    pruner: Literal["median", "none"] = "median",
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    command: str = "",
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> Sweep:
    """Searches for settings by cross-validation over train and validation, retrains the winner, looks at test once.

    Args:
        data: a folder of images, or a CSV or Parquet file with path,label.
        out: the folder to make, to go on with when `resume`, or to join in where another process is at it.
        space: a TOML file with the settings to search and their values.
        trials: how many, the recipe's own settings among them.
        recipe: a recipe's name or a TOML file.
        folds: that each trial is judged by.
        jobs: how many trials are trained at a time, each in a process of its own.
        by: what a fresh split and the folds keep together; `patient` when None.
        split: a CSV with path (or patient_id) and split, used instead of a fresh split.
        epochs: instead of the recipe's.
        seed: of split, folds, weights, batches and the search.
        pruner: `median` gives up a trial that after a fold is below the median of the others.
        settings: any other setting by its dotted key, for every trial.
        resume: go on with a sweep that was stopped.
        command: what the user typed, for the page.
        listener: hears how the job goes on.
        images: which images of `data` are meant, see `ImageOptions`.

    Raises:
        ClearmarginError: one line with what, where and the fix; nothing that looks complete is left.
    """
    from clearmargin.studies.sweep.job import build_setup, run_sweep

    changed = {
        "split.by": by,
        "train.epochs": epochs,
        "seed": seed,
        "data.split_file": absolute(split) if split is not None else None,
        **data_changes(data, **images),
    }
    changes = {**(settings or {}), **given(changed)}
    setup = build_setup(Path(space), recipe, changes, trials=trials, folds=folds, pruner=pruner)
    return run_sweep(setup, Path(space), Path(out), jobs=jobs, resume=resume, command=command, listener=listener)
