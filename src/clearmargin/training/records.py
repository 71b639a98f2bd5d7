"""What a finished training is written down as: model.json, and the facts of the run for environment.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clearmargin.bundle.schema import Architecture, Context, KeptCases, Lineage, ModelFile, SaliencyScale
from clearmargin.data.store import Store
from clearmargin.decision import Abstention, Temperature
from clearmargin.evaluation.choices import Choices
from clearmargin.gate import Gate
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.backbones import Backbone
from clearmargin.models.contract import count_parameters
from clearmargin.reference import Reference
from clearmargin.settings import RunConfig
from clearmargin.training.log import RunLog
from clearmargin.training.networks import Trained
from clearmargin.types import Content


def build_model_file(
    architecture: Architecture,
    choices: Choices,
    *,
    preprocessing: Preprocessing,
    content: Content | None,
    lineage: Lineage,
    reference: Reference | None,
    cases: KeptCases | None = None,
    saliency: Mapping[str, SaliencyScale] | None = None,
    gate: Gate | None = None,
) -> ModelFile:
    """model.json of a model that was trained here."""
    return ModelFile(
        architecture=architecture,
        preprocessing=preprocessing,
        content=content,
        reference=reference,
        cases=cases,
        saliency=None if saliency is None else dict(saliency),
        input_gate=gate,
        lineage=lineage,
        **choice_fields(choices),
    )


def choice_fields(choices: Choices) -> dict[str, Any]:
    """The fields of model.json that hold what was chosen: of an image by itself, and in context where there is one."""
    if choices.alone is None or isinstance(choices.context, str):
        reason = choices.context if isinstance(choices.context, str) else None
        return {**_decision_fields(choices), "context": None, "no_context": reason}
    context = Context(grid=choices.context, **_decision_fields(choices))
    return {**_decision_fields(choices.alone), "context": context, "no_context": None}


def _decision_fields(choices: Choices) -> dict[str, Any]:
    calibration, abstention = choices.calibration, choices.abstention
    scaled = isinstance(calibration, Temperature)
    return {
        "temperature": calibration.temperature if isinstance(calibration, Temperature) else 1.0,
        "calibration": None if scaled else calibration,
        "conformal": abstention if isinstance(abstention, Abstention) else None,
        "no_abstention": abstention if isinstance(abstention, str) else None,
        "levels": choices.kept_levels(),
        "no_levels": {name: level for name, level in choices.levels.items() if isinstance(level, str)},
        "operating_points": {choices.point.name: choices.point},
        "operating_point": choices.point.name,
    }


def build_lineage(
    config: RunConfig,
    metrics: Mapping[str, Any],
    *,
    environment: Mapping[str, Any],
    data_sha256: str,
    precision: str | None,
    weights_sha256: str | None = None,
) -> Lineage:
    """Where the model comes from."""
    protocol = metrics["protocol"]
    return Lineage(
        clearmargin=environment["clearmargin"],
        created=environment["started"],
        recipe=config.recipe,
        seed=config.seed,
        split=protocol["split"],
        folds=protocol.get("folds", 0),
        crossfit=protocol.get("crossfit", 0),
        stamp=protocol.get("stamp"),
        data_sha256=data_sha256,
        split_sha256=protocol["split_sha256"],
        precision=precision,
        weights_sha256=weights_sha256,
        metrics=metrics["test"]["image"],
        metrics_alone=metrics["test"].get("image_alone"),
        libraries=environment["libraries"],
    )


def describe_architecture(config: RunConfig, trained: Trained, *, field: bool) -> Architecture:
    """The networks, by their name, and for backbones what they are built of besides.

    Args:
        config: the settings.
        trained: the networks that see one image.
        field: as many see the field around it.
    """
    built: dict[str, Any] = {}
    first = trained.networks[0].model
    if isinstance(first, Backbone):
        built = {
            "head": first.options.head,
            "input_px": first.input_px,
            "arguments": dict(first.options.arguments),
        }
    return Architecture(
        name=config.model.name,
        parameters=count_parameters(trained.model),
        ensemble=len(trained.networks),
        field=config.model.field if field else None,
        thumbnail=config.model.thumbnail if field else None,
        **built,
    )


def describe_run(model: ModelFile, trained: Trained, store: Store, log: RunLog) -> dict[str, Any]:
    """What environment.json says of the training besides the machine."""
    log.close_stage()
    fitted = trained.networks[0]
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
