"""A toy task that a few batches can learn, and a training run on it; importable by a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from clearmargin.config import load_recipe
from clearmargin.errors import Interrupted
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.settings import AugmentSettings, RunConfig
from clearmargin.training.batches import TrainingImages
from clearmargin.training.loop import Fitted, fit_model
from clearmargin.types import Listener

TRAIN, VALIDATION = 26, 10


def toy_images(px: int = 16, *, number: int = TRAIN, channels: int = 3, height: int | None = None) -> TrainingImages:
    """26 images to train on and 10 to validate on; a malignant one is darker in its middle."""
    generator = np.random.default_rng(0)
    height = height or px
    labels = (np.arange(number + VALIDATION) % 2).astype(np.int8)
    images = generator.integers(90, 200, (number + VALIDATION, height, px, channels))
    down, across = slice(height // 4, 3 * height // 4), slice(px // 4, 3 * px // 4)
    images[:, down, across] -= 80 * labels[:, None, None, None].astype(np.int64)
    return TrainingImages(images.astype(np.uint8), labels, np.arange(number), np.arange(number, number + VALIDATION))


def toy_config(recipe: str = "default", **changes: Any) -> RunConfig:
    """The recipe cut down to 3 epochs of 4 batches in full precision; `changes` are train settings."""
    short = {"epochs": 3, "batch_size": 8, "precision": "32-true"}
    return load_recipe(recipe, {f"train.{key}": value for key, value in (short | changes).items()})


def plain_config(**changes: Any) -> RunConfig:
    """Three convolutions, Adam, nothing random but the order of the images."""
    config = toy_config("cnn_3conv", **changes)
    return config.model_copy(update={"augment": AugmentSettings()})


def train(
    run: Path,
    config: RunConfig,
    *,
    data: TrainingImages | None = None,
    model: str | None = None,
    fingerprint: str = "toy",
    listener: Listener = Listener(),
) -> Fitted:
    """Trains in the run folder, or goes on with what is there."""
    data = data or toy_images()
    height, width, channels = data.images.shape[1:]
    spec = Preprocessing(width=width, height=height, channels=channels, mean=config.images.mean, std=config.images.std)
    network = build_model(model or config.model.name, spec.shape, seed=config.seed)
    run.mkdir(exist_ok=True)
    return fit_model(network, data, config, spec, run=run, fingerprint=fingerprint, listener=listener)


@dataclass
class Heard(Listener):
    """Remembers what it heard, and sends this process a signal when `stop_at` batches were heard of."""

    stop_at: int | None = None
    number: signal.Signals = signal.SIGINT
    batches: int = 0
    totals: list[tuple[int, int]] = field(default_factory=list)
    rows: list[Mapping[str, float]] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def advance(self, done: int, total: int) -> None:
        self.totals.append((done, total))
        self.batches += 1
        if self.batches == self.stop_at:
            os.kill(os.getpid(), self.number)

    def epoch(self, row: Mapping[str, float]) -> None:
        self.rows.append(row)

    def note(self, text: str) -> None:
        self.notes.append(text)


def train_in_pieces(run: Path, config: RunConfig, *, batches: int, **more: Any) -> tuple[Fitted, int]:
    """The run stopped after every so many batches and resumed; also how often it was stopped."""
    stops = 0
    while True:
        try:
            return train(run, config, listener=Heard(stop_at=batches), **more), stops
        except Interrupted:
            stops += 1


def weights(fitted: Fitted) -> dict[str, Tensor]:
    return dict(fitted.model.state_dict())


def lasting(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The history without what the clock decides."""
    return [
        {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in history
    ]


def train_to_the_end(run: Path, config: RunConfig) -> None:
    """What a killed process was at; it may be killed again."""
    train(run, config)
