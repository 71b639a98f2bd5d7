"""`train --folds`: each patient is tested once, by a network that has not seen them.

Every fold is a run of its own in `folds/`. The figures of the whole are those of the out-of-fold predictions of the
first repetition; the folds of all repetitions show the spread. The bundle holds the networks of the first
repetition as one, whose logit is the mean of theirs; what decides is chosen on all out-of-fold predictions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clearmargin.bundle.read import read_bundle
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.bundle.write import Network, write_bundle
from clearmargin.data.split import fold_manifest
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.choices import Choices, choose
from clearmargin.evaluation.context import Surroundings
from clearmargin.evaluation.folds import across_folds
from clearmargin.evaluation.gate import Member, add_refusals
from clearmargin.evaluation.metrics import FIGURES
from clearmargin.evaluation.predictions import read_predictions, write_predictions
from clearmargin.files import write_json
from clearmargin.gating import build_gate, describe_with
from clearmargin.models.contract import count_parameters
from clearmargin.models.ensemble import Ensemble
from clearmargin.networks import Images, export, find_surroundings, make_fields, measure_saliency
from clearmargin.predict.session import Session
from clearmargin.settings import RunConfig
from clearmargin.training.cases import describe_cases, keep_cases
from clearmargin.training.log import RunLog
from clearmargin.training.records import build_lineage, build_model_file
from clearmargin.training.run_folder import FOLDS, describe_environment, is_begun, open_run
from clearmargin.types import ALONE_COLUMNS, OPTIMISTIC_STAMP, Listener
from clearmargin.workflow import (
    Run,
    audit_data,
    check_model,
    finish,
    is_ended,
    pack_images,
    refer,
    run_training,
    split_seed,
    what_is_shown,
    write_inputs,
)

_OUT_OF_FOLD = "out-of-fold predictions"


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold that was trained: which, and its run."""

    repeat: int
    fold: int
    run: Run

    def tested(self) -> pd.DataFrame:
        """The predictions of the fold's test images."""
        table = read_predictions(self.run.folder / "predictions.csv")
        return table[table["split"] == "test"].assign(repeat=self.repeat, fold=self.fold)


def cross_validate(
    config: RunConfig, out: Path, *, resume: bool = False, command: str = "", listener: Listener = Listener()
) -> Run:
    """A cross-validated run: the files of a run, and a run of each fold in `folds/`.

    Args:
        config: `split.folds` says how many, `split.repeats` how often.
        out: the run folder, new unless `resume`.
        resume: go on with a run that was stopped or killed.
        command: what the user typed, for the report.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: of the kind that fits; nothing that looks complete is left behind.
    """
    check_model(config)
    shown, command = what_is_shown(config, command)
    if resume and is_ended(out, shown, listener):
        return Run(out)
    with open_run(out, shown, resume=resume):
        log = RunLog(out / "log.jsonl", listener)
        environment = describe_environment(command)
        audit = audit_data(config, out, log)
        fold_manifest(audit.manifest, config.split.folds, by=config.split.by, seed=split_seed(config))
        log.note(f"Every image is tested in one of {config.split.folds} folds, whatever split comes with the data.")
        images = pack_images(audit, config, log)
        folds = train_folds(config, out / FOLDS, images, log)
        first = [fold for fold in folds if fold.repeat == 0]
        gathered = gather(first, images)
        surroundings = find_surroundings(config, images.manifest, np.arange(len(images.manifest)))
        table, by_fold, choices = decide_out_of_fold(gathered, config, surroundings)
        write_predictions(table, out / "predictions.csv")
        write_inputs(out, audit, table[["path", "patient_id", "label", "split", "fold"]])
        for remark in choices.remarks():
            log.note(remark)
        metrics = evaluate_predictions(
            table,
            choices,
            protocol=_describe_protocol(config, images, first),
            settings=config.evaluate,
            seed=config.seed,
            columns=audit.manifest.frame,
            by_fold=by_fold,
            listener=log,
        )
        metrics |= describe_folds(folds, config.split.folds)
        write_json(out / "metrics.json", metrics)
        _write_ensemble(
            out,
            config,
            first,
            metrics,
            table=table,
            choices=choices,
            surroundings=surroundings,
            images=images,
            environment=environment,
            log=log,
        )
        log.close_stage()
        write_json(out / "environment.json", environment | {"seconds": dict(log.seconds), "grey": images.grey})
        finish(out, metrics, images, log)
    return Run(out)


def train_folds(config: RunConfig, folder: Path, images: Images, listener: Listener) -> list[Fold]:
    """Every fold of every repetition, each a run in `folder`; those that are complete are not trained again.

    A fold trains one network, whatever `train.crossfit` says: the folds themselves are the cross-fitting, of all
    patients. Its bundle carries no cases; that of the whole may.
    """
    train, cases = config.train.model_copy(update={"crossfit": 0}), config.cases.model_copy(update={"keep": "off"})
    config = config.model_copy(update={"train": train, "cases": cases})
    n_folds, done = config.split.folds, []
    for number in range(config.split.repeats * n_folds):
        repeat, fold = divmod(number, n_folds)
        listener.note(f"Fold {fold + 1} of {n_folds}" + (f", repetition {repeat + 1}." if repeat else "."))
        changes = {"fold": fold, "repeats": 1, "seed": split_seed(config) + repeat}
        split = config.split.model_copy(update=changes)
        part = config.model_copy(update={"split": split, "seed": config.seed + repeat})
        place = folder / str(number)
        run = run_training(part, place, resume=is_begun(place), images=images, with_report=False, listener=listener)
        done.append(Fold(repeat, fold, run))
    return done


def gather(folds: list[Fold], images: Images) -> pd.DataFrame:
    """The out-of-fold logits of one repetition, image by image, one row each, in the manifest's order."""
    table = pd.concat([fold.tested() for fold in folds], ignore_index=True)
    if ALONE_COLUMNS[0] in table:  # a fold that weighed its own context
        table["logit"] = table[ALONE_COLUMNS[0]].fillna(table["logit"])
        table = table.drop(columns=list(ALONE_COLUMNS))
    return table.set_index("path").loc[images.manifest.frame["path"].tolist()].reset_index()


def decide_out_of_fold(
    table: pd.DataFrame, config: RunConfig, surroundings: Surroundings | str
) -> tuple[pd.DataFrame, dict[int, Choices], Choices]:
    """The table decided anew, each fold by what is chosen on the other folds; those choices, and those on all folds.

    A fold's own validation part is small. The other folds hold many more patients, none of whom is in this one (or,
    in folds of images, many more images). Neighbours count in all folds or in none.
    """

    def choose_on(rows: pd.DataFrame) -> Choices:
        return choose(rows, config.evaluate, seed=config.seed, surroundings=surroundings)

    overall = choose_on(table).on(_OUT_OF_FOLD)
    by_fold = {int(str(fold)): choose_on(table[table["fold"] != fold]) for fold in sorted(table["fold"].unique())}
    refused = [overall.context] if isinstance(overall.context, str) else []
    refused += [
        f"without fold {fold}, {part.context}" for fold, part in by_fold.items() if isinstance(part.context, str)
    ]
    if refused:
        by_fold = {fold: replace(part.alone or part, context=refused[0]) for fold, part in by_fold.items()}
        overall = replace(overall.alone or overall, context=refused[0])
    parts = [choices.apply(table[table["fold"] == fold]) for fold, choices in by_fold.items()]
    return pd.concat(parts).sort_index(), by_fold, overall


def fold_members(folds: list[Fold], images: Images) -> list[Member]:
    """Which images the network of each fold was trained on, and which it was tested on."""
    paths = pd.Index(images.manifest.frame["path"])
    members = []
    for fold in folds:
        table = read_predictions(fold.run.folder / "predictions.csv")
        rows = {name: paths.get_indexer(table.loc[table["split"] == name, "path"]) for name in ("train", "test")}
        members.append(Member(rows["train"], rows["test"]))
    return members


def describe_folds(folds: list[Fold], n_folds: int) -> dict[str, Any]:
    """`folds` and `across_folds` of metrics.json."""
    entries = []
    for fold in folds:
        block = fold.run.metrics["test"]["image"]
        figures = {name: block[name]["value"] for name in FIGURES}
        counts = {"n_images": block["n_images"], "n_patients": block["n_patients"]}
        entries.append({"repeat": fold.repeat, "fold": fold.fold, **counts, "figures": figures})
    values = {
        name: np.array([np.nan if entry["figures"][name] is None else entry["figures"][name] for entry in entries])
        for name in FIGURES
    }
    return {
        "gate": add_refusals([fold.run.metrics["gate"] for fold in folds if fold.repeat == 0]),
        "folds": entries,
        "across_folds": {name: across_folds(each, test_share=1 / n_folds) for name, each in values.items()},
    }


def _describe_protocol(config: RunConfig, images: Images, folds: list[Fold]) -> dict[str, Any]:
    manifest = images.manifest
    stamp = {"stamp": OPTIMISTIC_STAMP} if config.split.by == "image" else {}
    patients = int(manifest.frame["patient_id"].nunique()) if manifest.knows_patients else None
    hashes = "".join(fold.run.metrics["protocol"]["split_sha256"] for fold in folds)
    return {
        "split": config.split.by,
        "folds": config.split.folds,
        "repeats": config.split.repeats,
        "split_sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        "seed": config.seed,
        "patients": {"test": patients},
        "images": {"test": len(manifest)},
        **stamp,
    }


def _write_ensemble(
    out: Path,
    config: RunConfig,
    folds: list[Fold],
    metrics: Mapping[str, Any],
    *,
    table: pd.DataFrame,
    choices: Choices,
    surroundings: Surroundings | str,
    images: Images,
    environment: Mapping[str, Any],
    log: Listener,
) -> None:
    bundles = [read_bundle(fold.run.bundle) for fold in folds]
    first = bundles[0].model
    field = None
    if isinstance(surroundings, Surroundings) and surroundings.field is not None:
        fields, spec = make_fields(images, surroundings)
        second = Ensemble([load_torch_model(bundle, field=True) for bundle in bundles]).eval()
        field = Network(second.state_dict(), export(second, fields, spec, log))
    model = Ensemble([load_torch_model(bundle) for bundle in bundles]).eval()
    network = Network(model.state_dict(), export(model, images.store.images, images.preprocessing, log))
    # Every image was trained on by most of the networks.
    cases = keep_cases(
        config,
        images.manifest,
        np.arange(len(images.manifest)),
        images=images.store.images,
        onnx=network.onnx,
        listener=log,
    )
    changes: dict[str, int | None] = {"parameters": count_parameters(model), "ensemble": len(bundles)}
    if field is None:  # folds do not know that all of them together have too few patients to weigh it
        changes |= {"field": None, "thumbnail": None}
    model_file = build_model_file(
        first.architecture.model_copy(update=changes),
        choices,
        preprocessing=images.preprocessing,
        content=images.manifest.content,
        lineage=build_lineage(
            config,
            metrics,
            environment=environment,
            data_sha256=images.data_sha256,
            precision=first.lineage.precision,
            weights_sha256=first.lineage.weights_sha256,
        ),
        reference=refer(images, table),
        cases=describe_cases(config, cases),
        saliency=measure_saliency(model, images, np.arange(len(table)), of="images of all folds"),
        gate=build_gate(
            images,
            describe_with(Session(network.onnx)),
            rows=np.arange(len(images.manifest)),
            members=fold_members(folds, images) if config.split.by == "patient" else len(folds),
            chosen_on=_OUT_OF_FOLD,
        ),
    )
    write_bundle(out / "bundle", model_file, network, field=field, cases=cases)
