"""The real Keras is the oracle: its files are read, and ours are opened by it, to the same probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundle.keras.conftest import keras_probabilities, our_probabilities, pixels_for, quietly, stir
from tests.bundle.keras.zoo import MODELS, random_chain

from clearmargin.bundle.keras.layers import READERS
from clearmargin.bundle.keras.network import read_network
from clearmargin.bundle.keras.write import write_keras

_TOLERANCE = 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_keras_gives_the_same_probabilities_here_and_back_in_keras(
    keras: Any, name: str, tmp_path: Path
) -> None:
    with quietly():
        model = MODELS[name](keras)
        stir(model)
    pixels = pixels_for(model)
    expected = keras_probabilities(model, pixels)
    assert np.ptp(expected) > 1e-3
    for suffix in (".h5", ".keras"):
        file = tmp_path / f"model{suffix}"
        with quietly():
            model.save(file)
        network = read_network(file)
        np.testing.assert_allclose(our_probabilities(network.classifier(), pixels), expected, atol=_TOLERANCE)

        back = tmp_path / f"back{suffix}"
        write_keras(back, network.graph, network.tensors)
        again = our_probabilities(read_network(back).classifier(), pixels)
        np.testing.assert_allclose(again, expected, atol=_TOLERANCE)
        with quietly():
            opened = keras.models.load_model(back, compile=False)
        np.testing.assert_allclose(keras_probabilities(opened, pixels), expected, atol=_TOLERANCE)


@pytest.mark.parametrize("seed", range(12))
def test_random_chains_give_the_same_probabilities(keras: Any, seed: int, tmp_path: Path) -> None:
    with quietly():
        model = random_chain(keras, seed)
        stir(model)
        model.save(tmp_path / "a.h5")
        model.save(tmp_path / "a.keras")
    pixels = pixels_for(model)
    expected = keras_probabilities(model, pixels)
    for name in ("a.h5", "a.keras"):
        network = read_network(tmp_path / name).classifier()
        np.testing.assert_allclose(our_probabilities(network, pixels), expected, atol=_TOLERANCE)


def test_the_zoo_has_every_layer_that_keras_3_has_and_we_know(keras: Any) -> None:
    with quietly():
        models = [build(keras) for build in MODELS.values()]
    used, todo = set(), list(models)
    while todo:
        layer = todo.pop()
        used.add(type(layer).__name__)
        todo += getattr(layer, "layers", [])
    known = {getattr(keras.layers, name).__name__ for name in READERS if hasattr(keras.layers, name)}
    augmentations = {name for name in known if name.startswith(("Random", "RandAugment", "AugMix", "CutMix", "MixUp"))}
    assert known - used - augmentations <= {"Identity", "Masking"}
    assert {"RandomFlip", "RandomRotation"} <= used
