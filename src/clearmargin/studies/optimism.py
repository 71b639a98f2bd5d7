"""`optimism`: what a random split of images would have promised, and what new patients get.

The same recipe is cross-validated twice on the same images, once with folds of images and once with folds of patients.
The statistics are in `evaluation/optimism.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from clearmargin.data.deal import By
from clearmargin.data.split import fold_manifest
from clearmargin.decision import decide
from clearmargin.errors import UsageError
from clearmargin.evaluation.optimism import optimism
from clearmargin.files import write_json, write_text
from clearmargin.networks import Images
from clearmargin.report.results import NAMES
from clearmargin.settings import RunConfig
from clearmargin.studies.cross_validation import Fold, train_folds
from clearmargin.training.log import RunLog
from clearmargin.training.run_folder import FOLDS, describe_environment, is_complete, open_run
from clearmargin.types import Listener
from clearmargin.workflow import audit_data, check_model, pack_images, split_seed, what_is_shown

PROTOCOLS: tuple[By, By] = ("image", "patient")
"""Also the folders of their runs."""


def measure_optimism(
    config: RunConfig, out: Path, *, resume: bool = False, command: str = "", listener: Listener = Listener()
) -> dict[str, Any]:
    """The contents of optimism.json; also writes the predictions of both protocols and a table in Markdown.

    Args:
        config: `split.folds` and `split.repeats` say how often the recipe is trained, twice that in all.
        out: the folder, new unless `resume`.
        resume: go on with one that was stopped.
        command: what the user typed.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: of the kind that fits, SplitError where patients are unknown.
    """
    check_model(config)
    shown, command = what_is_shown(config, command)
    if (out / FOLDS).exists() or is_complete(out):
        raise UsageError(f"{out}: there is a run of 'train' in this folder. Give a new folder with --out.")
    with open_run(out, shown, resume=resume, holds="optimism"):
        log = RunLog(out / "log.jsonl", listener)
        environment = describe_environment(command)
        audit = audit_data(config, out, log)
        for by in PROTOCOLS:  # before the hours of training, whether there can be such folds
            fold_manifest(audit.manifest, config.split.folds, by=by, seed=split_seed(config))
        images = pack_images(audit, config, log)
        tables = {by: _train(config, by, out / by, images, log) for by in PROTOCOLS}
        for by, table in tables.items():
            write_text(out / f"predictions_{by}.csv", table.to_csv(index=False))
        log.stage("evaluate")
        resamples = config.evaluate.resamples
        result = optimism(tables["image"], tables["patient"], resamples=resamples, seed=config.seed)
        log.close_stage()
        content = {
            "schema": 1,
            "recipe": config.recipe,
            "environment": environment | {"seconds": dict(log.seconds)},
            **result,
        }
        write_json(out / "optimism.json", content)
        write_text(out / "optimism.md", as_markdown(content))
    return content


def _train(config: RunConfig, by: By, folder: Path, images: Images, log: RunLog) -> pd.DataFrame:
    log.note(f"Folds of {by}s.")
    split = config.split.model_copy(update={"by": by})
    # Image by image: a random split takes slides apart, and neighbours would count on one side only.
    evaluate = config.evaluate.model_copy(update={"context": "none"})
    folds = train_folds(config.model_copy(update={"split": split, "evaluate": evaluate}), folder, images, log)
    return pd.concat([_decided(fold) for fold in folds], ignore_index=True)


def _decided(fold: Fold) -> pd.DataFrame:
    """The fold's predictions with no decision withheld: what its threshold says of each."""
    table, threshold = fold.tested(), fold.run.metrics["operating_point"]["threshold"]
    return table.assign(decision=decide(table["probability"].to_numpy(), threshold))


def as_markdown(content: dict[str, Any]) -> str:
    """optimism.md: the sentence, and a table of every figure."""
    rows = [
        f"| {NAMES[name][0]} | {_cell(content['random'][name])} | {_cell(content['patient'][name])} | "
        f"{_cell(gap, sign='+')} |"
        for name, gap in content["gap"].items()
    ]
    folds, repeats = content["folds"]["patient"], content["repeats"]["patient"]
    often = f"{folds} folds" + (f", {repeats} times" if repeats > 1 else "")
    return "\n".join(
        [
            f"# Optimism of a random split: recipe `{content['recipe']}`",
            "",
            str(content["text"]),
            "",
            f"{content['n_images']:,} images of {content['n_patients']:,} patients, each tested in one of {often}, "
            "by a network that has not seen the image (random split) or the patient (split by patient). "
            "95 % intervals are over patients.",
            *([content["note"]] if content["note"] else []),
            "",
            "| figure | random split | split by patient | gap |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _cell(figure: Mapping[str, Any], *, sign: str = "") -> str:
    if figure["value"] is None:
        return str(figure.get("reason", "undefined"))
    text = f"{figure['value']:{sign}.3f}"
    return text + (f" ({figure['ci'][0]:{sign}.3f} to {figure['ci'][1]:{sign}.3f})" if figure["ci"] else "")
