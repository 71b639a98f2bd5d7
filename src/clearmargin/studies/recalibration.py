"""`calibrate`: what decides is chosen anew on other images; the network stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearmargin.bundle.schema import ModelFile, Recalibration
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.bundle.write import check_new, rewrite_bundle
from clearmargin.data.audit import audit_images
from clearmargin.data.manifest import data_hash
from clearmargin.data.store import pack_store
from clearmargin.evaluation.calibration import check_both_classes
from clearmargin.evaluation.choices import Choices, choose, known_ids
from clearmargin.evaluation.drift import build_reference
from clearmargin.evaluation.metrics import brier
from clearmargin.gating import build_gate, describe_with
from clearmargin.networks import Images, find_surroundings, measure_saliency
from clearmargin.predict.predictor import Predictor
from clearmargin.predict.session import Session
from clearmargin.settings import RunConfig
from clearmargin.studies.external import choices_of, compute_logits
from clearmargin.training.records import choice_fields
from clearmargin.training.run_folder import now
from clearmargin.types import Listener

RECALIBRATED_ON = "the images of the recalibration"


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """What came of it. `before` and `after` are the Brier scores on the images themselves: `after` is optimistic."""

    folder: Path
    choices: Choices
    n_images: int
    n_patients: int | None
    before: float
    after: float


def recalibrate(predictor: Predictor, config: RunConfig, out: Path, *, listener: Listener = Listener()) -> Recalibrated:
    """A new bundle in `out` with the same network, whose decisions are chosen on the images of `config.data`.

    Those images are then no test of it any more: evaluate it on others.

    Raises:
        DataError: the images have one class only, or the audit blocks.
        UsageError: something is at `out` already.
    """
    check_new(out)
    model = predictor.bundle.model
    audit = audit_images(config.data, ignore_official=True, listener=listener)
    audit.check()
    manifest = audit.manifest
    check_both_classes(manifest.labels(), "a model cannot be calibrated")
    store = pack_store(manifest, model.preprocessing, listener=listener)
    listener.stage("predict")
    images = Images(audit, model.preprocessing, store, data_hash(manifest))
    field, thumbnail = model.architecture.field, model.architecture.thumbnail
    architecture = config.model.model_copy(
        update={"field": field or 0, "thumbnail": thumbnail or config.model.thumbnail}
    )
    everyone = np.arange(len(manifest))
    surroundings = find_surroundings(config.model_copy(update={"model": architecture}), manifest, everyone)
    own = None if model.context is None else model.context.grid.step
    step = own if isinstance(surroundings, str) else surroundings.step
    table = compute_logits(predictor, images, step=step)
    choices = choose(table, config.evaluate, seed=config.seed, surroundings=surroundings)
    decided = choices.apply(table)
    for remark in choices.remarks():
        listener.note(remark)
    n_patients = int(manifest.frame["patient_id"].nunique()) if manifest.knows_patients else None
    record = Recalibration(created=now(), data_sha256=data_hash(manifest), images=len(manifest), patients=n_patients)
    patients = known_ids(table, "patient_id")
    reference = model.reference
    if reference is not None:  # the scores of training were calibrated otherwise
        unit = "image" if patients is None else "patient"
        scores = decided["probability"].to_numpy(dtype=np.float64)
        fresh = build_reference({}, patients=None, probabilities=scores, held_out_patients=patients)
        reference = reference.model_copy(update={"score": fresh.score if unit == reference.unit else None})
    choices = choices.on(RECALIBRATED_ON)
    changes = {
        "reference": reference,
        "saliency": measure_saliency(
            load_torch_model(predictor.bundle), images, everyone, of="the images of the recalibration"
        ),
        # Who calibrates on other images means them to be accepted.
        "input_gate": build_gate(
            images,
            describe_with(Session(predictor.bundle.read("model.onnx"))),
            rows=everyone,
            members=model.architecture.ensemble,
            chosen_on=RECALIBRATED_ON,
        ),
        "no_gate": None,
        "lineage": model.lineage.model_copy(update={"recalibrated": record}),
        **choice_fields(choices),
    }
    fields = {name: getattr(model, name) for name in ModelFile.model_fields}
    rewrite_bundle(predictor.bundle, out, ModelFile(**(fields | changes)))
    labels = manifest.labels()
    before, after = (
        brier(labels, table["probability"].to_numpy(dtype=np.float64))
        for table in (choices_of(model).apply(table), decided)
    )
    return Recalibrated(out, choices, len(manifest), n_patients, before, after)
