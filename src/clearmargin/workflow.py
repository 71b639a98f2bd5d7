"""The main job, one page: images on disk to a report and a bundle that can be carried away.

images ── sources ──▶ manifest ── audit ──▶ split by patient ──▶ store ──▶ training
                                                                              │
         report ◀── bundle ◀── metrics ◀── decisions ◀── choices ◀── predictions ◀── ONNX export

A cross-validation and several seeds (`studies/`) are this job done several times over the same images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clearmargin.bundle.write import write_bundle
from clearmargin.config import read_config
from clearmargin.data.audit import Audit, audit_images
from clearmargin.data.manifest import Manifest, data_hash, write_manifest
from clearmargin.data.pseudonyms import hide_paths, read_key
from clearmargin.data.split import Assignment, fold_split, official_split, read_split, split_manifest
from clearmargin.data.store import pack_store
from clearmargin.errors import one_line
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.choices import OUT_OF_FOLD, choose, known_ids
from clearmargin.evaluation.drift import build_reference, describe_images
from clearmargin.evaluation.folds import spread
from clearmargin.evaluation.metrics import FIGURES
from clearmargin.evaluation.predictions import write_predictions
from clearmargin.files import seen_from_here, write_json, write_whole
from clearmargin.gate import Gate
from clearmargin.gating import build_gate, describe_gate, describe_with, refuse, shown_as, trained_members, tried_on
from clearmargin.images.preprocess import Preprocessing, choose_preprocessing
from clearmargin.models import check_model_name
from clearmargin.networks import Images, Learned, learn, measure_saliency
from clearmargin.predict.session import Session
from clearmargin.reference import Reference
from clearmargin.report.write import write_artefacts
from clearmargin.settings import RunConfig
from clearmargin.shown import Shown
from clearmargin.training.cases import describe_cases, keep_cases
from clearmargin.training.log import RunLog
from clearmargin.training.records import build_lineage, build_model_file, describe_architecture, describe_run
from clearmargin.training.run_folder import (
    SEEDS,
    check_same,
    describe_environment,
    finish_run,
    is_begun,
    is_complete,
    open_run,
)
from clearmargin.training.transfer import check_pretrained
from clearmargin.types import FIELD_COLUMN, OPTIMISTIC_STAMP, Listener

HIDDEN_COMMAND = "clearmargin train (the rest names files, and is left out of a pseudonymised run)"
_SAME_LOGIT = 1e-3
LEARNED_NOTHING = "The model gives the same probability for every image: it has learned nothing. Train it longer."


@dataclass(frozen=True, slots=True)
class Run(Shown):
    """A finished run on disk."""

    folder: Path
    """The run folder."""

    def __repr__(self) -> str:
        return f"Run in {one_line(seen_from_here(self.folder))}"

    @property
    def metrics(self) -> dict[str, Any]:
        """Every figure with its interval: the contents of metrics.json."""
        content: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        return content

    @property
    def bundle(self) -> Path:
        """The folder of the bundle, which is the model to carry away."""
        return self.folder / "bundle"

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.folder / "report.html"


def run_training(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    command: str = "",
    images: Images | None = None,
    with_report: bool = True,
    listener: Listener = Listener(),
) -> Run:
    """The main job: everything in the run folder, run.json last.

    Args:
        config: the settings; `config.data.root` says where the images are.
        out: the run folder, new unless `resume`.
        resume: go on with a run that was stopped or killed.
        command: what the user typed, for the report.
        images: of another run on the same data, so that they are not audited and packed again.
        with_report: write the report too.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: of the kind that fits; nothing that looks complete is left behind.
    """
    check_model(config)
    shown, command = what_is_shown(config, command)
    if resume and is_ended(out, shown, listener):
        return Run(out)
    if resume and not is_begun(out):
        listener.note(f"{out}: nothing to resume there yet; starting from the beginning.")
    with open_run(out, shown, resume=resume):
        log = RunLog(out / "log.jsonl", listener)
        environment = describe_environment(command)
        audit = images.audit if images else audit_data(config, out, log)
        assignment = assign_splits(audit.manifest, config, log)
        if images is None:
            images = pack_images(audit, config, log)
        write_inputs(out, audit, assignment.table())
        learned = learn(config, assignment, images, out=out, listener=log)
        chosen_on = learned.chosen_on(assignment)
        useful = np.ptp(learned.logits[chosen_on]) >= _SAME_LOGIT
        if not useful:
            log.note(LEARNED_NOTHING)
        predictions = tabulate(assignment, learned)
        choices = choose(
            predictions.iloc[chosen_on], config.evaluate, seed=config.seed, surroundings=learned.surroundings
        )
        if learned.crossfit:
            choices = choices.on(OUT_OF_FOLD)
        for remark in choices.remarks():
            log.note(remark)
        predictions = choices.apply(predictions)
        write_predictions(predictions, out / "predictions.csv")
        protocol = describe_protocol(assignment, config, crossfit=learned.crossfit)
        metrics = evaluate_predictions(
            predictions,
            choices,
            protocol=protocol,
            settings=config.evaluate,
            seed=config.seed,
            columns=audit.manifest.frame,
            listener=log,
        )
        if not useful:
            metrics["warning"] = LEARNED_NOTHING
        if config.train.seeds > 1:
            metrics["seeds"] = train_other_seeds(config, out, images, metrics, log)
        gate, metrics["gate"] = fit_gate(images, assignment, learned, log)
        write_json(out / "metrics.json", metrics)
        reference = refer(images, predictions, everything=learned.crossfit > 0)
        cases = keep_cases(
            config,
            images.manifest,
            assignment.rows("train"),
            images=images.store.images,
            onnx=learned.network.onnx,
            listener=log,
        )
        first = learned.trained.networks[0]
        lineage = build_lineage(
            config,
            metrics,
            environment=environment,
            data_sha256=images.data_sha256,
            precision=first.precision,
            weights_sha256=learned.weights_sha256,
        )
        model_file = build_model_file(
            describe_architecture(config, learned.trained, field=learned.field is not None),
            choices,
            preprocessing=images.preprocessing,
            content=images.manifest.content,
            lineage=lineage,
            reference=reference,
            cases=describe_cases(config, cases),
            saliency=measure_saliency(
                learned.trained.model, images, assignment.rows("validation"), of="images of validation"
            ),
            gate=gate,
        )
        write_bundle(out / "bundle", model_file, learned.network, field=learned.field, cases=cases)
        environment |= describe_run(model_file, learned.trained, images.store, log) | {"grey": images.grey}
        write_json(out / "environment.json", environment)
        finish(out, metrics, images, log, with_report=with_report)
    return Run(out)


def check_model(config: RunConfig) -> None:
    """Passes when the model can be built here and its weights are there, before anything takes time.

    Raises:
        ClearmarginError: of the kind that fits.
    """
    check_model_name(config.model.name)
    check_pretrained(config)


def what_is_shown(config: RunConfig, command: str) -> tuple[RunConfig, str]:
    """The settings and the command as the run folder keeps them: without any path where ids are pseudonyms."""
    if config.data.pseudonymise:
        return hide_paths(config, read_key()), HIDDEN_COMMAND
    return config, command


def is_ended(out: Path, shown: RunConfig, listener: Listener) -> bool:
    """The folder holds this very run, complete, which the listener hears.

    Raises:
        ConfigError: it holds a complete run with other settings.
    """
    if not is_complete(out):
        return False
    check_same(read_config(out / "config.toml"), shown, out)
    listener.note(f"{out}: this run is complete already.")
    return True


def train_other_seeds(
    config: RunConfig, out: Path, images: Images, metrics: Mapping[str, Any], listener: Listener
) -> dict[str, Any]:
    """`seeds` of metrics.json: the spread over networks that differ in their seed only; each is a run in seeds/."""
    blocks = [metrics]
    for seed in range(config.seed + 1, config.seed + config.train.seeds):
        listener.note(f"Training again with seed {seed}.")
        split = config.split.model_copy(update={"seed": split_seed(config)})
        train = config.train.model_copy(update={"seeds": 1})
        other = config.model_copy(update={"seed": seed, "split": split, "train": train})
        place = out / SEEDS / str(seed)
        run = run_training(other, place, resume=is_begun(place), images=images, with_report=False, listener=listener)
        blocks.append(run.metrics)
    figures = {name: spread([block["test"]["image"][name]["value"] for block in blocks]) for name in FIGURES}
    return {"seeds": [config.seed + number for number in range(len(blocks))], "figures": figures}


def audit_data(config: RunConfig, out: Path, listener: Listener, *, ignore_official: bool = False) -> Audit:
    """The audit of the job's images, written to audit.json; a blocking finding ends the job here."""
    ignores = ignore_official or config.data.split_file is not None or config.split.folds > 0
    audit = audit_images(config.data, ignore_official=ignores, listener=listener)
    write_whole(out / "audit.json", audit.write)
    audit.check()
    return audit


def pack_images(audit: Audit, config: RunConfig, listener: Listener) -> Images:
    """The images of the audit, packed by the preprocessing that the settings and the images decide."""
    manifest = audit.manifest
    sizes = manifest.frame[["width", "height"]].to_numpy(dtype=np.int64)
    preprocessing = choose_preprocessing(config.images, sizes, content=manifest.content)
    store = pack_store(manifest, preprocessing, listener=listener)
    return Images(audit, preprocessing, store, data_hash(manifest))


def assign_splits(manifest: Manifest, config: RunConfig, listener: Listener) -> Assignment:
    """The split file if one is given, a fold if one is asked for, the data's own split, or else a fresh one."""
    by, fractions = config.split.by, config.split.fractions
    seed = split_seed(config)
    if config.data.split_file is not None:
        return read_split(Path(config.data.split_file), manifest, by=by)
    if config.split.fold is not None:
        return fold_split(manifest, config.split.folds, config.split.fold, by=by, fractions=fractions, seed=seed)
    if manifest.has_official_split:
        if by == "image":
            listener.note("The data's own split is kept; --by image only says how a missing validation part is taken.")
        return official_split(manifest, by=by, fractions=fractions, seed=seed)
    return split_manifest(manifest, by=by, fractions=fractions, seed=seed)


def split_seed(config: RunConfig) -> int:
    """The seed of the split."""
    return config.seed if config.split.seed is None else config.split.seed


def write_inputs(out: Path, audit: Audit, split: pd.DataFrame) -> None:
    """audit.json, manifest.parquet and split.csv of the run folder."""
    write_whole(out / "audit.json", audit.write)
    write_whole(out / "manifest.parquet", lambda path: write_manifest(audit.manifest, path))
    write_whole(out / "split.csv", lambda path: split.to_csv(path, index=False))


def tabulate(assignment: Assignment, learned: Learned) -> pd.DataFrame:
    """The table predictions.csv as far as the logits, one row an image, in the manifest's order."""
    frame = assignment.manifest.frame
    table = frame[["path", "patient_id", "slide_id", "x", "y"]].assign(
        split=assignment.splits, label=frame["label"], logit=learned.logits
    )
    return table if learned.field_logits is None else table.assign(**{FIELD_COLUMN: learned.field_logits})


def describe_protocol(assignment: Assignment, config: RunConfig, *, crossfit: int) -> dict[str, Any]:
    """The `protocol` of metrics.json."""
    stamp = {"stamp": OPTIMISTIC_STAMP} if assignment.protocol == "image" else {}
    fitted = {"crossfit": crossfit} if crossfit else {}
    return {
        "split": assignment.protocol,
        "split_sha256": assignment.sha256,
        "seed": config.seed,
        **assignment.counts(),
        **fitted,
        **stamp,
    }


def refer(images: Images, predictions: pd.DataFrame, *, everything: bool = False) -> Reference:
    """What the training images and the probabilities of held-out ones look like, for the day new data come.

    Where networks were trained on different patients, each image was trained on by some and held out by another.

    Args:
        images: of the job.
        predictions: of every image.
        everything: every image was held out by some network.
    """
    splits = predictions["split"].to_numpy(dtype=str)
    held_out = np.flatnonzero((splits != "train") | everything)
    train = np.flatnonzero(splits == "train") if (splits == "train").any() else held_out
    patients = known_ids(predictions, "patient_id")
    return build_reference(
        describe_images(images.store.images, train),
        patients=None if patients is None else patients[train],
        probabilities=predictions["probability"].to_numpy(dtype=np.float64)[held_out],
        held_out_patients=None if patients is None else patients[held_out],
    )


def fit_gate(
    images: Images, assignment: Assignment, learned: Learned, listener: Listener
) -> tuple[Gate, dict[str, Any]]:
    """The gate of the bundle, fitted on train and validation, and `gate` of metrics.json: what it refuses of test."""
    listener.stage("gate")
    describe = describe_with(Session(learned.network.onnx))
    trained, splits = learned.trained, np.asarray(assignment.splits)
    members = trained_members(trained.parts, len(trained.networks), splits, by_image=assignment.protocol == "image")
    shown, test = np.flatnonzero(splits != "test"), np.flatnonzero(splits == "test")
    gate = build_gate(images, describe, rows=shown, members=members, chosen_on=shown_as(learned.crossfit))
    reasons = refuse(gate, images, describe, rows=test)
    return tried_on(gate, reasons), describe_gate(gate, reasons)


def finish(out: Path, metrics: Mapping[str, Any], images: Images, log: Listener, *, with_report: bool = True) -> None:
    """The report and its companions, and run.json, which makes the run complete."""
    if with_report:
        log.stage("report")
        build_report(out, images.preprocessing, locate=images.manifest.locate)
    finish_run(out, {"protocol": metrics["protocol"], "stamp": metrics["protocol"].get("stamp")})


def build_report(run: Path, preprocessing: Preprocessing, *, locate: Callable[[str], str] = str) -> None:
    """The report of the run folder, from its files; `locate` says where the image of a path is read."""
    write_artefacts(run, load_image=lambda path: preprocessing.read(locate(path)))
