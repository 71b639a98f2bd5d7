"""From the settings to a network to begin with, pretrained where they say so, and to a trained one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearmargin.data.store import Store
from clearmargin.errors import ConfigError, DataError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.models.backbones import Backbone, BackboneOptions, Head
from clearmargin.models.contract import Classifier, normalise, scale_pixels
from clearmargin.models.timm_trunk import PREFIX, fetch_weights, parse_arguments
from clearmargin.models.weights import HUB, file_sha256, read_hub_config, read_weights
from clearmargin.settings import ModelSettings, RunConfig, is_backbone
from clearmargin.training.batches import TrainingImages, gather
from clearmargin.training.features import TrainingFeatures, load_features
from clearmargin.training.loop import Fitted, fit_model
from clearmargin.types import Listener

_MEASURED = 512
"""Training images on which the size of each feature is measured, where they are not all computed anyway."""


class HeadOnly(Classifier):
    """The head of a backbone as a classifier of its pooled features, (B, width, 1, 1)."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward_features(self, x: Tensor) -> Tensor:
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


def begin(config: RunConfig, shape: tuple[int, int, int]) -> Classifier:
    """The network (H, W, C) that training begins with, pretrained where there are weights; in evaluation mode.

    Raises:
        ClearmarginError: of the kind that fits: no such model, a library that is not installed, weights that are not
            there or of another model.
    """
    settings = config.model
    if not is_backbone(settings.name):
        return build_model(settings.name, shape, seed=config.seed)
    path = find_weights(settings)
    model = build_model(settings.name, shape, seed=config.seed, options=_options(settings, path))
    assert isinstance(model, Backbone)
    if path is not None:
        model.trunk.load(read_weights(path, keras=settings.name == "squeezenet"), str(path))
    return model


def hash_weights(settings: ModelSettings, *, listener: Listener = Listener()) -> str | None:
    """The hash of the file of pretrained weights; None for a random start, of which the listener hears in a backbone.

    Raises:
        ClearmarginError: the weights are not there, or cannot be fetched.
    """
    path = find_weights(settings)
    if path is not None:
        return file_sha256(path)
    if is_backbone(settings.name):
        listener.note(
            f"The model '{settings.name}' starts from random weights, nothing of it is pretrained. "
            "Give --weights FILE for pretrained ones, or --weights hub to fetch timm's own."
        )
    return None


def check_pretrained(config: RunConfig) -> None:
    """Passes unless a network would be frozen that is not pretrained, or its weights are not there.

    Raises:
        ConfigError: it would be frozen with random weights, or `hub` is asked for a model that is not timm's.
        DataError: the weights are not there, or cannot be fetched.
    """
    mode, name = config.transfer.mode, config.model.name
    frozen = mode == "features" or (mode == "finetune" and config.transfer.frozen_epochs > 0)
    if frozen and not config.model.weights:
        raise ConfigError(
            f"the model '{name}' would be frozen with random weights, whose features tell little: give --weights "
            "FILE (or hub, to fetch timm's own), or train all of it with --set transfer.mode=none."
        )
    find_weights(config.model)


def find_weights(settings: ModelSettings) -> Path | None:
    """The file of pretrained weights, fetched now where the settings say `hub`; None for a random start.

    Raises:
        ConfigError: `hub` for a model that is not timm's.
        DataError: it is not there, or cannot be fetched.
    """
    if not settings.weights:
        return None
    if settings.weights != HUB:
        if not Path(settings.weights).is_file():
            raise DataError(f"{settings.weights}: no such file. Give a file of weights with --weights, or hub.")
        return Path(settings.weights)
    if not settings.name.startswith(PREFIX):
        raise ConfigError(f"--weights hub is for the models of timm; give '{settings.name}' a file of weights.")
    return fetch_weights(settings.name.removeprefix(PREFIX))


def fit(
    model: Classifier,
    data: TrainingImages,
    config: RunConfig,
    preprocessing: Preprocessing,
    *,
    store: Store,
    run: Path,
    fingerprint: str,
    listener: Listener = Listener(),
) -> Fitted:
    """Trains as the settings of the section `transfer` say, or goes on from the checkpoint in the run folder.

    Args:
        model: from `begin`.
        data: the rows to train and validate on.
        config: the settings.
        preprocessing: of the images.
        store: where the images of `data` lie if features are asked for, which are kept beside it.
        run: the run folder.
        fingerprint: of everything that decides the result.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: as `fit_model` and `load_features`.
    """
    if config.transfer.mode != "features" or not isinstance(model, Backbone):
        if isinstance(model, Backbone) and config.model.weights:
            model.head.standardise(*_measure(model, data, preprocessing))
        return fit_model(model, data, config, preprocessing, run=run, fingerprint=fingerprint, listener=listener)
    features = load_features(model, store, name=config.model.name, views=config.transfer.views, listener=listener)
    pooled = TrainingFeatures(features, data.labels, data.train, data.validation)
    model.head.standardise(*pooled.spread())
    head = HeadOnly(model.head)
    fitted = fit_model(head, pooled, config, preprocessing, run=run, fingerprint=fingerprint, listener=listener)
    return replace(fitted, model=model.eval())


def _measure(model: Backbone, data: TrainingImages, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """(width,) mean and standard deviation of the pooled features over some of the training images."""
    rows = data.train[np.unique(np.linspace(0, len(data.train) - 1, _MEASURED).astype(np.intp))]
    pooled = []
    with torch.inference_mode():
        for part in np.array_split(rows, -(-len(rows) // 32)):
            x = normalise(scale_pixels(gather(data.images, part)), preprocessing.mean, preprocessing.std)
            pooled.append(model.pool(model.forward_features(x)))
    values = torch.cat(pooled).double()
    return values.mean(dim=0).float(), values.std(dim=0, correction=0).float()


def _options(settings: ModelSettings, weights: Path | None) -> BackboneOptions:
    arguments = parse_arguments(settings.arguments)
    pretrained: dict[str, Any] = {}
    if weights is not None and settings.name.startswith(PREFIX):
        hub = read_hub_config(weights)
        wanted = settings.name.removeprefix(PREFIX).partition(".")[0]
        if hub and hub["architecture"].partition(".")[0] != wanted:
            raise DataError(
                f"{weights}: the config.json beside it says '{hub['architecture']}'. "
                f"Train with --model {PREFIX}{hub['architecture']}, or give other weights."
            )
        pretrained = hub.get("pretrained_cfg") or {}
        arguments = {**_plain(hub.get("model_args") or {}), **arguments}
    input_px = None if settings.input_px == "auto" else settings.input_px
    return BackboneOptions(settings.head, input_px, arguments, pretrained)


def _plain(values: dict[str, object]) -> dict[str, bool | int | float | str]:
    return {key: value for key, value in values.items() if isinstance(value, (bool, int, float, str))}
