"""What a finished training is written down as: model.json, and the facts of the run for environment.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import ModuleList

from clearmargin.bundle.schema import Architecture, Lineage, ModelFile
from clearmargin.data.store import Store
from clearmargin.decision import Abstention, Temperature
from clearmargin.evaluation.choices import Choices
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.backbones import Backbone
from clearmargin.models.contract import Classifier, count_parameters
from clearmargin.models.ensemble import Ensemble
from clearmargin.reference import Reference
from clearmargin.settings import RunConfig
from clearmargin.training.log import RunLog
from clearmargin.training.loop import Fitted
from clearmargin.types import Content


def build_model_file(
    architecture: Architecture,
    choices: Choices,
    *,
    preprocessing: Preprocessing,
    content: Content | None,
    lineage: Lineage,
    reference: Reference | None,
) -> ModelFile:
    """model.json of a model that was trained here."""
    return ModelFile(
        architecture=architecture,
        preprocessing=preprocessing,
        operating_points={choices.point.name: choices.point},
        operating_point=choices.point.name,
        content=content,
        reference=reference,
        lineage=lineage,
        **choice_fields(choices),
    )


def choice_fields(choices: Choices) -> dict[str, Any]:
    """The fields of model.json that hold what was chosen, but for the operating point."""
    calibration, abstention = choices.calibration, choices.abstention
    scaled = isinstance(calibration, Temperature)
    return {
        "temperature": calibration.temperature if isinstance(calibration, Temperature) else 1.0,
        "calibration": None if scaled else calibration,
        "conformal": abstention if isinstance(abstention, Abstention) else None,
        "no_abstention": abstention if isinstance(abstention, str) else None,
        "levels": choices.kept_levels(),
        "no_levels": {name: level for name, level in choices.levels.items() if isinstance(level, str)},
    }


def build_lineage(
    config: RunConfig,
    metrics: Mapping[str, Any],
    *,
    environment: Mapping[str, Any],
    data_sha256: str,
    precision: str,
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
        stamp=protocol.get("stamp"),
        data_sha256=data_sha256,
        split_sha256=protocol["split_sha256"],
        precision=precision,
        weights_sha256=weights_sha256,
        metrics=metrics["test"]["image"],
        libraries=environment["libraries"],
    )


def describe_architecture(config: RunConfig, model: Classifier, *, networks: int = 1) -> Architecture:
    """The network, or so many of them as one: its name, and for a backbone what it is built of besides."""
    built: dict[str, Any] = {}
    first = next(part for part in model.modules() if not isinstance(part, Ensemble | ModuleList))
    if isinstance(first, Backbone):
        built = {
            "head": first.options.head,
            "input_px": first.input_px,
            "arguments": dict(first.options.arguments),
        }
    return Architecture(name=config.model.name, parameters=count_parameters(model), ensemble=networks, **built)


def describe_run(model: ModelFile, fitted: Fitted, store: Store, log: RunLog) -> dict[str, Any]:
    """What environment.json says of the training besides the machine."""
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
