"""The real Keras, imported once and only for the tests that ask for it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clearmargin.bundle.keras import exporting, importing
from clearmargin.bundle.keras.network import read_network
from clearmargin.bundle.keras.real import Answer


@contextmanager
def quietly() -> Iterator[None]:
    """Keras' own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module, under the torch backend, its settings in a folder of its own."""
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    with quietly():
        import keras
    return keras


@pytest.fixture
def no_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras is as if not installed, and files are read in this process, so that an import waits for no child."""

    def absent(path: Path, pixels: NDArray[np.float32]) -> Answer:
        return Answer(None, "Keras is not installed", installed=False)

    monkeypatch.setattr(importing, "ask_keras", absent)
    monkeypatch.setattr(importing, "read_isolated", read_network)  # a child takes seconds to start
    monkeypatch.setattr(exporting, "ask_keras", absent)


def stir(model: Any, seed: int = 0) -> None:
    """Gives a model weights as after training: none zero, no statistics at their start, outputs that differ."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path.rpartition("/")[2]
        if "variance" in name:
            values = generator.uniform(0.5, 1.5, shape)
        elif "gamma" in name:
            values = generator.uniform(0.7, 1.3, shape)
        elif "kernel" in name:
            inputs = np.prod(shape[:2] if "depthwise" in weight.path else shape[:-1])
            values = generator.normal(0, 1.2 / np.sqrt(inputs), shape)
        else:
            values = generator.normal(0, 0.2, shape)
        weight.assign(values.astype(np.float32))


def pixels_for(model: Any, number: int = 4) -> NDArray[np.float32]:
    """Random inputs (number, H, W, C) from 0 to 1."""
    return np.random.default_rng(1).uniform(0, 1, (number, *model.input_shape[1:])).astype(np.float32)


def keras_probabilities(model: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's last output for each image."""
    with quietly():
        outputs = np.asarray(model.predict(pixels, verbose=0), dtype=np.float32)
    return outputs.reshape(len(pixels), -1)[:, -1]


def our_probabilities(network: torch.nn.Module, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same from our network."""
    with torch.inference_mode():
        return torch.sigmoid(network(torch.from_numpy(pixels).permute(0, 3, 1, 2))).numpy()
