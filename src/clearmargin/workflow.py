"""The main job, one page: images on disk to a report and a bundle that can be carried away.

images ── sources ──▶ manifest ── audit ──▶ split by patient ──▶ store ──▶ training
                                                                              │
                  report ◀── metrics ◀── calibration ◀── predictions ◀── ONNX export
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from clearmargin import __version__
from clearmargin.bundle.export import export_onnx
from clearmargin.bundle.schema import Architecture, Lineage, ModelFile
from clearmargin.bundle.write import write_bundle
from clearmargin.config import dump_config, read_config
from clearmargin.data.audit import audit_images
from clearmargin.data.manifest import Manifest, data_hash, write_manifest
from clearmargin.data.pseudonyms import hide_paths, read_key
from clearmargin.data.split import Assignment, official_split, read_split, split_manifest
from clearmargin.data.store import Store, pack_store
from clearmargin.decision import decide, probability
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.calibration import fit_temperature
from clearmargin.evaluation.operating_point import choose_operating_point
from clearmargin.evaluation.predictions import write_predictions
from clearmargin.files import write_json, write_whole
from clearmargin.images.preprocess import Preprocessing, choose_preprocessing
from clearmargin.models import build_model, check_model_name
from clearmargin.models.contract import count_parameters
from clearmargin.predict.session import Session
from clearmargin.report.html import write_report
from clearmargin.settings import RunConfig
from clearmargin.training.batches import TrainingImages
from clearmargin.training.log import RunLog
from clearmargin.training.loop import Fitted, choose_precision, fit_model
from clearmargin.training.run_folder import (
    check_same,
    describe_environment,
    finish_run,
    is_begun,
    is_complete,
    open_run,
)
from clearmargin.types import OPTIMISTIC_STAMP, Listener, OperatingPoint

_PARITY_IMAGES = 32
_HIDDEN_COMMAND = "clearmargin train (the rest names files, and is left out of a pseudonymised run)"
_SAME_LOGIT = 1e-3


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run on disk."""

    folder: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        content: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        return content

    @property
    def bundle(self) -> Path:
        """The bundle folder."""
        return self.folder / "bundle"

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.folder / "report.html"


def run_training(
    config: RunConfig, out: Path, *, resume: bool = False, command: str = "", listener: Listener = Listener()
) -> Run:
    """The main job: everything in the run folder, run.json last.

    Args:
        config: the settings; `config.data.root` says where the images are.
        out: the run folder, new unless `resume`.
        resume: go on with a run that was stopped or killed.
        command: what the user typed, for the report.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: of the kind that fits; nothing that looks complete is left behind.
    """
    check_model_name(config.model.name)
    shown = config
    if config.data.pseudonymise:
        shown, command = hide_paths(config, read_key()), _HIDDEN_COMMAND
    if resume and is_complete(out):
        check_same(read_config(out / "config.toml"), shown, out)
        listener.note(f"{out}: this run is complete already.")
        return Run(out)
    if resume and not is_begun(out):
        listener.note(f"{out}: nothing to resume there yet; starting from the beginning.")
    with open_run(out, shown, resume=resume):
        log = RunLog(out / "log.jsonl", listener)
        environment = describe_environment(command)
        audit = audit_images(config.data, ignore_official=config.data.split_file is not None, listener=log)
        write_whole(out / "audit.json", audit.write)
        audit.check()
        manifest = audit.manifest
        write_whole(out / "manifest.parquet", lambda path: write_manifest(manifest, path))
        assignment = assign_splits(manifest, config)
        if assignment.protocol == "official" and config.split.by == "image":
            log.note("The data's own split is kept; --by image only says how a missing validation part is taken.")
        protocol = describe_protocol(assignment, config.seed)
        hashes = {"data_sha256": data_hash(manifest), "split_sha256": protocol["split_sha256"]}
        write_whole(out / "split.csv", lambda path: assignment.table().to_csv(path, index=False))
        sizes = manifest.frame[["width", "height"]].to_numpy(dtype=np.int64)
        preprocessing = choose_preprocessing(config.images, sizes, content=manifest.content)
        store = pack_store(manifest, preprocessing, listener=log)
        fitted = _fit(config, assignment, store, preprocessing=preprocessing, hashes=hashes, out=out, listener=log)
        log.stage("export")
        onnx = export_onnx(fitted.model, preprocessing, store.images[assignment.rows("validation")[:_PARITY_IMAGES]])
        logits = Session(onnx).logits(store.images)
        if np.ptp(logits[assignment.rows("validation")]) < _SAME_LOGIT:
            log.note("The model gives the same probability for every image: it has learned nothing. Train it longer.")
        temperature, point = calibrate(assignment, logits, config)
        predictions = build_predictions(assignment, logits, temperature, point)
        write_predictions(predictions, out / "predictions.csv")
        metrics = evaluate_predictions(
            predictions,
            point,
            protocol=protocol,
            temperature=temperature,
            resamples=config.evaluate.resamples,
            seed=config.seed,
            listener=log,
        )
        write_json(out / "metrics.json", metrics)
        lineage = _lineage(config, fitted, metrics, environment=environment, hashes=hashes)
        model_file = ModelFile(
            architecture=Architecture(name=config.model.name, parameters=count_parameters(fitted.model)),
            preprocessing=preprocessing,
            temperature=temperature,
            operating_points={point.name: point},
            operating_point=point.name,
            content=manifest.content,
            lineage=lineage,
        )
        write_bundle(out / "bundle", model_file, weights=fitted.model.state_dict(), onnx=onnx)
        environment |= _describe_run(model_file, fitted, store, log)
        log.stage("report")
        write_json(out / "environment.json", environment)
        build_report(out, preprocessing, locate=manifest.locate)
        finish_run(out, {"protocol": metrics["protocol"], "stamp": lineage.stamp})
    return Run(out)


def assign_splits(manifest: Manifest, config: RunConfig) -> Assignment:
    """The split file if one is given, else the official split if the data have one, else a fresh one."""
    by, fractions = config.split.by, config.split.fractions
    if config.data.split_file is not None:
        return read_split(Path(config.data.split_file), manifest, by=by)
    if manifest.has_official_split:
        return official_split(manifest, by=by, fractions=fractions, seed=config.seed)
    return split_manifest(manifest, by=by, fractions=fractions, seed=config.seed)


def calibrate(assignment: Assignment, logits: NDArray[np.float32], config: RunConfig) -> tuple[float, OperatingPoint]:
    """Temperature and operating point, both from the validation part."""
    rows = assignment.rows("validation")
    labels = assignment.manifest.labels()[rows]
    temperature = fit_temperature(labels, logits[rows])
    point = choose_operating_point(
        labels,
        probability(logits[rows], temperature),
        rule=config.evaluate.operating_point,
        target_sensitivity=config.evaluate.target_sensitivity,
    )
    return temperature, point


def build_predictions(
    assignment: Assignment, logits: NDArray[np.float32], temperature: float, point: OperatingPoint
) -> pd.DataFrame:
    """The table predictions.csv, one row an image, in the manifest's order."""
    frame = assignment.manifest.frame
    probabilities = probability(logits, temperature)
    return frame[["path", "patient_id", "slide_id", "x", "y"]].assign(
        split=assignment.splits,
        label=frame["label"],
        logit=logits.astype(np.float64),
        probability=probabilities,
        decision=decide(probabilities, point.threshold),
    )


def describe_protocol(assignment: Assignment, seed: int) -> dict[str, Any]:
    """The `protocol` of metrics.json."""
    stamp = {"stamp": OPTIMISTIC_STAMP} if assignment.protocol == "image" else {}
    return {
        "split": assignment.protocol,
        "split_sha256": assignment.sha256,
        "seed": seed,
        **assignment.counts(),
        **stamp,
    }


def build_report(run: Path, preprocessing: Preprocessing, *, locate: Callable[[str], str] = str) -> Path:
    """report.html of the run folder, from its files; `locate` says where the image of a path is read."""
    return write_report(run, load_image=lambda path: preprocessing.read(locate(path)))


def _fit(
    config: RunConfig,
    assignment: Assignment,
    store: Store,
    *,
    preprocessing: Preprocessing,
    hashes: Mapping[str, str],
    out: Path,
    listener: Listener,
) -> Fitted:
    # What `auto` stands for may differ on the machine where a run is resumed.
    identity = (
        f"{__version__}{choose_precision(config.train)}"
        f"{dump_config(config)}{hashes['data_sha256']}{hashes['split_sha256']}"
    )
    images = TrainingImages(
        store.images, assignment.manifest.labels(), assignment.rows("train"), assignment.rows("validation")
    )
    return fit_model(
        build_model(config.model.name, preprocessing.shape, seed=config.seed),
        images,
        config,
        preprocessing,
        run=out,
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
        listener=listener,
    )


def _lineage(
    config: RunConfig,
    fitted: Fitted,
    metrics: Mapping[str, Any],
    *,
    environment: Mapping[str, Any],
    hashes: Mapping[str, str],
) -> Lineage:
    protocol = metrics["protocol"]
    return Lineage(
        clearmargin=environment["clearmargin"],
        created=environment["started"],
        recipe=config.recipe,
        seed=config.seed,
        split=protocol["split"],
        stamp=protocol.get("stamp"),
        data_sha256=hashes["data_sha256"],
        split_sha256=hashes["split_sha256"],
        precision=fitted.precision,
        metrics=metrics["test"]["image"],
        libraries=environment["libraries"],
    )


def _describe_run(model: ModelFile, fitted: Fitted, store: Store, log: RunLog) -> dict[str, Any]:
    log.close_stage()
    return {
        "threads": torch.get_num_threads(),
        "device": fitted.device,
        "precision": fitted.precision,
        "seconds": dict(log.seconds),
        "images_packed": store.packed,
        "data_sha256": model.lineage.data_sha256,
        "split_sha256": model.lineage.split_sha256,
        "model": {
            **model.architecture.model_dump(),
            "best_epoch": fitted.best_epoch,
            "stopped_early": fitted.stopped_early,
        },
        "preprocessing": model.preprocessing.model_dump(),
    }
