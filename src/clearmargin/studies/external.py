"""`evaluate`: a finished model on other people's images, with everything decided by its bundle.

The folder has the files of a run. Nothing is fitted to the new images: probability, threshold and abstention are those
of the bundle. How far the images lie from those of training is said, and a recalibration is offered, never made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.bundle.read import Bundle
from clearmargin.bundle.schema import Decisions, ModelFile
from clearmargin.bundle.write import rewrite_bundle
from clearmargin.context import Grid
from clearmargin.data.manifest import Manifest, data_hash
from clearmargin.data.store import pack_store
from clearmargin.decision import logit
from clearmargin.errors import counted
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.calibration import choose_calibration
from clearmargin.evaluation.choices import Choices, known_ids
from clearmargin.evaluation.context import find_cells
from clearmargin.evaluation.drift import compare_with_reference, describe_images
from clearmargin.evaluation.metrics import brier
from clearmargin.evaluation.predictions import write_predictions
from clearmargin.files import write_json
from clearmargin.gating import describe_gate, describe_with, refuse
from clearmargin.networks import Images
from clearmargin.predict.predictor import Predictor
from clearmargin.predict.session import Session
from clearmargin.settings import RunConfig
from clearmargin.training.log import RunLog
from clearmargin.training.run_folder import describe_environment, open_run
from clearmargin.types import FIELD_COLUMN, Listener
from clearmargin.workflow import (
    Run,
    audit_data,
    finish,
    what_is_shown,
    write_inputs,
)

SEEN_IN_TRAINING = "images of the training: optimistic"
SEEN_IN_RECALIBRATION = "images of the recalibration: optimistic"
WORTHWHILE = 0.005
"""A recalibration is offered from this gain in the Brier score on."""
_ALWAYS_DECIDES = "the bundle holds no region of abstention"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Images of the new data that the model was trained on, as far as its run folder tells."""

    images: int
    patients: int


def evaluate_bundle(
    predictor: Predictor, config: RunConfig, out: Path, *, command: str = "", listener: Listener = Listener()
) -> Run:
    """External validation of a bundle: the files of a run in `out`, without a training.

    Args:
        predictor: of the bundle.
        config: `data` says where the images are, `evaluate` what is asked of them besides.
        out: the folder, new.
        command: what the user typed, for the report.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: of the kind that fits; nothing that looks complete is left behind.
    """
    shown, command = what_is_shown(config, command)
    model = predictor.bundle.model
    with open_run(out, shown, resume=None):
        log = RunLog(out / "log.jsonl", listener)
        environment = describe_environment(command)
        audit = audit_data(config, out, log, ignore_official=True)
        manifest = audit.manifest
        store = pack_store(manifest, model.preprocessing, listener=log)
        images = Images(audit, model.preprocessing, store, data_hash(manifest))
        log.stage("predict")
        choices = choices_of(model, context=config.evaluate.context != "none")
        grid = choices.context
        step = grid.step if isinstance(grid, Grid) and grid.networks > 1 else None
        frame = manifest.frame
        table = choices.apply(compute_logits(predictor, images, step=step).assign(split="test"))
        write_predictions(table, out / "predictions.csv")
        write_inputs(out, audit, table[["path", "patient_id", "label", "split"]])
        seen = find_overlap(predictor.bundle, manifest)
        if seen is not None and seen.patients and not seen.images:
            log.note(
                f"{counted(seen.patients, 'patient has', 'patients have')} the id of one that the model was trained "
                "on: if they are the same people, the figures are optimistic."
            )
        metrics = evaluate_predictions(
            table,
            choices,
            protocol=_describe_protocol(config, manifest, predictor.bundle, images, seen),
            settings=config.evaluate,
            seed=config.seed,
            columns=frame,
            listener=log,
        )
        patients = known_ids(table, "patient_id")
        metrics["drift"] = _describe_drift(model, images, table, patients)
        metrics["recalibration"] = _offer_recalibration(config, table, patients)
        metrics["gate"] = describe_gate(model.input_gate, find_refusals(predictor, images))
        if metrics["gate"].get("refused"):
            log.note(say_refused(metrics["gate"]))
        for text in (metrics["drift"]["text"], metrics["recalibration"]["text"]):
            log.note(text)
        write_json(out / "metrics.json", metrics)
        rewrite_bundle(predictor.bundle, out / "bundle")
        log.close_stage()
        facts = {
            "seconds": dict(log.seconds),
            "images_packed": store.packed,
            "data_sha256": images.data_sha256,
            "model": model.architecture.model_dump(exclude={"graph"}),
            "preprocessing": model.preprocessing.model_dump(),
        }
        write_json(out / "environment.json", environment | facts)
        finish(out, metrics, images, log)
    return Run(out)


def choices_of(model: ModelFile, *, context: bool = True) -> Choices:
    """What a bundle decides by.

    Args:
        model: model.json.
        context: neighbours count where the bundle says so; False decides each image by itself.
    """
    alone = _choices_of(model)
    if model.context is None or not context:
        reason = model.no_context or "the bundle has none" if model.context is None else "evaluate.context is none"
        return replace(alone, context=reason)
    return replace(_choices_of(model.context), context=model.context.grid, alone=alone)


def _choices_of(decisions: Decisions) -> Choices:
    return Choices(
        calibration=decisions.calibrated_by,
        point=decisions.decision_point,
        abstention=decisions.conformal or decisions.no_abstention or _ALWAYS_DECIDES,
        levels={**decisions.levels, **decisions.no_levels},
    )


def compute_logits(predictor: Predictor, images: Images, *, step: int | None) -> pd.DataFrame:
    """A predictions table as far as the logits of each network, one row an image, in the manifest's order.

    Args:
        predictor: of the bundle.
        images: packed.
        step: of the lattice on which the second network's fields are put together, where there is one.
    """
    frame = images.manifest.frame
    table = frame[["path", "patient_id", "slide_id", "x", "y", "label"]].assign(
        logit=predictor.logits(images.store.images).astype(np.float64)
    )
    cells = None if step is None or predictor.bundle.model.architecture.field is None else find_cells(frame, step)
    return (
        table if cells is None else table.assign(**{FIELD_COLUMN: predictor.field_logits(images.store.images, cells)})
    )


def find_refusals(predictor: Predictor, images: Images) -> list[str | None]:
    """Why the bundle's gate refuses each image, None where it does not."""
    gate = predictor.bundle.model.input_gate
    if gate is None:
        return [None] * len(images.store)
    return refuse(gate, images, describe_with(Session(predictor.bundle.read("model.onnx"))))


def say_refused(gate: dict[str, Any]) -> str:
    """`gate` of metrics.json in a sentence."""
    reasons = ", ".join(f"{kind} ({count:,})" for kind, count in gate["reasons"].items())
    return (
        f"The model's gate would refuse {gate['refused']:,} of {gate['images']:,} images ({gate['share']:.1%}: "
        f"{reasons}). The figures are of all images; 'predict' gives these no decision."
    )


def find_overlap(bundle: Bundle, manifest: Manifest) -> Overlap | None:
    """How many of these images, and of their patients, the model was trained or tuned on; None where nobody can tell.

    A bundle alone does not list what it was trained on; the run folder around it does.
    """
    run = bundle.folder.parent
    try:
        protocol = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["protocol"]
        known = pd.read_parquet(run / "manifest.parquet", columns=["path", "patient_id", "sha256"])
        split = pd.read_csv(run / "split.csv", dtype=str, keep_default_na=False)
        splits = dict(zip(split["path"], split["split"], strict=True))
        # In a cross-validation every image is tested by one network and trained on by the others.
        external, everything = protocol["split"] == "external", bool(protocol.get("folds"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if external:  # the bundle was only carried there
        return None
    used = known[[everything or splits.get(path) != "test" for path in known["path"]]]
    frame = manifest.frame
    images = int(frame["sha256"].isin(set(used["sha256"])).sum())
    patients = set(used["patient_id"].dropna()) & set(frame["patient_id"].dropna())
    return Overlap(images, len(patients))


def _describe_protocol(
    config: RunConfig, manifest: Manifest, bundle: Bundle, images: Images, seen: Overlap | None
) -> dict[str, Any]:
    lineage = bundle.model.lineage
    patients = int(manifest.frame["patient_id"].nunique()) if manifest.knows_patients else None
    anew = lineage.recalibrated
    stamp = {}
    if (seen is not None and seen.images > 0) or images.data_sha256 == lineage.data_sha256:
        stamp = {"stamp": SEEN_IN_TRAINING}
    elif anew is not None and images.data_sha256 == anew.data_sha256:
        stamp = {"stamp": SEEN_IN_RECALIBRATION}
    return {
        "split": "external",
        "data": str(manifest.root),
        "bundle": {"sha256": bundle.sha256, "recipe": lineage.recipe, "created": lineage.created},
        "trained_on_images": None if seen is None else seen.images,
        "trained_on_patients": None if seen is None else seen.patients,
        "seed": config.seed,
        "patients": {"test": patients},
        "images": {"test": len(manifest)},
        **stamp,
    }


def _describe_drift(
    model: ModelFile, images: Images, table: pd.DataFrame, patients: NDArray[np.object_] | None
) -> dict[str, Any]:
    if model.reference is None:
        return {
            "not_applicable": "the bundle holds no reference",
            "text": "Whether these images look like those of training cannot be told: the bundle holds no reference.",
        }
    probabilities = table["probability"].to_numpy(dtype=np.float64)
    return compare_with_reference(model.reference, describe_images(images.store.images), probabilities, patients)


def _offer_recalibration(
    config: RunConfig, table: pd.DataFrame, patients: NDArray[np.object_] | None
) -> dict[str, Any]:
    """What fitting the probabilities to these images would win, cross-validated by patient."""
    labels = table["label"].to_numpy(dtype=np.int64)
    probabilities = table["probability"].to_numpy(dtype=np.float64)
    if len(set(labels.tolist())) < 2:
        return {"offered": False, "text": "No recalibration can be judged on one class."}
    before = brier(labels, probabilities)
    # Of the calibrated logit, so that a temperature of 1 is the model as it is.
    choice = choose_calibration(labels, logit(probabilities), patients, method="auto", seed=config.seed)
    method = choice.calibration.method
    after = {candidate.method: candidate.brier for candidate in choice.candidates}.get(method)
    values: dict[str, Any] = {"before": {"brier": before}, "after_cv": {"brier": after, "method": method}}
    if after is None:
        return {"offered": False, "text": f"No recalibration can be judged here: {choice.reason}.", **values}
    if before - after < WORTHWHILE:
        text = f"No recalibration is called for: the Brier score would change from {before:.3f} to {after:.3f}."
        return {"offered": False, "text": text, **values}
    command = "clearmargin calibrate BUNDLE DATA --out RECALIBRATED"
    text = (
        f"The probabilities do not fit these images: recalibrated ({method}), new patients of this "
        f"kind would have a Brier score of about {after:.3f} instead of {before:.3f}. Nothing was changed."
    )
    return {"offered": True, "text": text, "command": command, **values}
