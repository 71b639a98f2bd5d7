"""Slides whose lesions are regions, cut into noisy patches; and networks and an export that take no time.

A patch tells its label by its shade, with much noise in each channel; so its neighbours tell more than it does, and
the network of the field, which sees all channels, more than that of the patch.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from clearmargin.bundle import export
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import MODELS
from clearmargin.models.contract import Classifier, Deployed
from clearmargin.networks import Images
from clearmargin.settings import RunConfig
from clearmargin.types import Listener

PX, SIDE = 12, 6
PATCHES = SIDE * SIDE
"""Of each patient."""
_WHITE = 4.3
"""After normalisation; what is missing in a field is 4.4."""


class Shade(Classifier):
    """The logit is a weighted sum of the mean of each channel, white left out: of patches the red, of fields all."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.channels = 1 if shape[0] == PX else shape[2]
        self.weigh = nn.Linear(self.channels, 1)

    def forward_features(self, x: Tensor) -> Tensor:
        return x[:, : self.channels]

    def forward_head(self, features: Tensor) -> Tensor:
        there = (features < _WHITE).float()
        means = (features * there).sum(dim=(2, 3)) / there.sum(dim=(2, 3)).clamp(min=1)
        logits: Tensor = self.weigh(means)
        return logits[:, 0]


def write_slides(root: Path, *, patients: int, seed: int = 0) -> Path:
    """An IDC-style folder with one slide of 36 patches a patient."""
    rng = np.random.default_rng(seed)
    for patient in range(patients):
        height = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.5)
        labels = (height > np.quantile(height, rng.uniform(0.4, 0.7))).astype(int)
        for row, column in np.ndindex(SIDE, SIDE):
            label = labels[row, column]
            shade = 150 - 14 * label + rng.normal(scale=14, size=3)
            pixels = np.clip(shade + rng.normal(scale=20, size=(PX, PX, 3)), 0, 255).astype(np.uint8)
            name = f"S{seed}{patient:02}"
            folder = root / name / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            x, y = 1 + PX * column + 5 * patient, 1 + PX * row
            Image.fromarray(pixels).save(folder / f"{name}_idx5_x{x}_y{y}_class{label}.png")
    return root


def slides_config(data: Path, **changes: Any) -> RunConfig:
    """Two epochs of `Shade`, cross-fitted three times, with a field of 3 x 3; `changes` are `section__key`."""
    values: dict[str, dict[str, Any]] = {
        "data": {"root": str(data)},
        "images": {"size": (PX, PX), "mean": 0.5, "std": 0.1},
        "split": {"fractions": (0.55, 0.15, 0.3)},
        "model": {"name": "shade", "field": 3, "thumbnail": 5},
        "train": {
            "epochs": 2, "batch_size": 32, "learning_rate": 0.1, "precision": "32-true", "restore_best": False,
            "crossfit": 3,
        },
        "evaluate": {"resamples": 100},
    }  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section][name] = value
    return RunConfig.model_validate(values)


def make_quick(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """`Shade` becomes a model of its own, and ONNX files are written by the exporter that is quick."""
    monkeypatch.setitem(MODELS, "shade", Shade)
    monkeypatch.setattr(export, "_export", _export)
    monkeypatch.setenv("CLEARMARGIN_CACHE", str(cache))


def _export(deployed: Deployed, preprocessing: Preprocessing) -> bytes:
    file = io.BytesIO()
    example = torch.zeros(2, *preprocessing.shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            deployed,
            (example,),
            file,
            dynamo=False,
            input_names=[export.INPUT],
            output_names=[export.LOGITS, export.FEATURES],
            dynamic_axes={name: {0: "batch"} for name in (export.INPUT, export.LOGITS, export.FEATURES)},
        )
    return file.getvalue()


@dataclass(frozen=True)
class Placed:
    """A run in context on ten patients, its settings and its images in memory; and four other patients."""

    data: Path
    others: Path
    run: Path
    config: RunConfig
    images: Images


class StopInTraining(Listener):
    """Sends this process a signal after `after` batches of the network of this number, counted from 0."""

    def __init__(self, network: int, after: int) -> None:
        self.stop_at = (network, after)
        self.at, self.batches, self.training = -1, 0, False
        self.notes: list[str] = []

    def stage(self, name: str) -> None:
        self.training = name == "train"

    def advance(self, done: int, total: int) -> None:
        self.batches += self.training
        if self.training and (self.at, self.batches) == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def note(self, text: str) -> None:
        self.notes.append(text)
        if text.startswith("Network "):
            self.at, self.batches = self.at + 1, 0


def sign_all(folder: Path) -> None:
    """Writes SHA256SUMS anew for every file that is there."""
    files = sorted(file for file in folder.iterdir() if file.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(lines))
