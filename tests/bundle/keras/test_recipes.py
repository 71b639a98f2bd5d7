"""Files of weights alone find their network by a recipe: by order and shapes, statistics included."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundle.keras.conftest import keras_probabilities, our_probabilities, pixels_for, quietly, stir
from tests.bundle.keras.files import small, write_old, write_small

from clearmargin.bundle.keras.network import ImportOptions, read_network
from clearmargin.errors import DataError, UnknownName, UsageError
from clearmargin.types import Listener

SIZE = (20, 20)


def cancernet(keras: Any) -> Any:
    """CancerNet as its author wrote it, for small images."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((*SIZE, 3))])
    for group in ((32,), (64, 64), (128, 128, 128)):
        for filters in group:
            model.add(layers.SeparableConv2D(filters, (3, 3), padding="same"))
            model.add(layers.Activation("relu"))
            model.add(layers.BatchNormalization(axis=-1))
        model.add(layers.MaxPooling2D((2, 2)))
        model.add(layers.Dropout(0.25))
    model.add(layers.Flatten())
    model.add(layers.Dense(256))
    model.add(layers.Activation("relu"))
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(2))
    model.add(layers.Activation("softmax"))
    return model


def test_weights_of_cancernet_in_every_layout(keras: Any, tmp_path: Path) -> None:
    with quietly():
        model = cancernet(keras)
        stir(model)
    pixels = pixels_for(model)
    expected = keras_probabilities(model, pixels)
    assert np.ptp(expected) > 1e-3
    options = ImportOptions(recipe="cancernet", size=SIZE)
    with quietly():
        model.save_weights(tmp_path / "new.weights.h5")
    with quietly():
        arrays = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    legacy = {layer.name: [(weight.path, arrays[weight.path]) for weight in layer.weights] for layer in model.layers}
    write_old(tmp_path / "old.h5", None, legacy)
    for name in ("new.weights.h5", "old.h5"):
        network = read_network(tmp_path / name, options)
        assert (network.head, network.whole) == ("softmax", False)
        np.testing.assert_allclose(our_probabilities(network.classifier(), pixels), expected, atol=1e-5)
    turned = read_network(tmp_path / "old.h5", ImportOptions(recipe="cancernet", size=SIZE, channels="bgr"))
    back = np.ascontiguousarray(pixels[..., ::-1])
    np.testing.assert_allclose(our_probabilities(turned.classifier(), back), expected, atol=1e-5)
    with pytest.raises(
        DataError, match="does not fit the recipe 'cancernet' for images of 48×48 pixels: where 'dense_1'"
    ):
        read_network(tmp_path / "old.h5", ImportOptions(recipe="cancernet"))
    with pytest.raises(DataError, match="does not fit the recipe 'cnn_50'"):
        read_network(tmp_path / "new.weights.h5", ImportOptions(recipe="cnn_50"))


def test_without_a_recipe_the_ways_to_go_on_are_named(tmp_path: Path) -> None:
    path = write_old(tmp_path / "w.h5", None, small()[1])
    with pytest.raises(DataError, match=r"no description of their network.*--recipe NAME \(.*cancernet.*train DATA"):
        read_network(path)
    with pytest.raises(UnknownName, match="did you mean 'cancernet'"):
        read_network(path, ImportOptions(recipe="cancernt"))
    with pytest.raises(UsageError, match="train --weights"):
        read_network(path, ImportOptions(recipe="transfer"))
    with pytest.raises(DataError, match="takes images of any size"):
        read_network(path, ImportOptions(recipe="default"))
    with pytest.raises(DataError, match="the file has 'conv/kernel:0' of shape"):
        read_network(path, ImportOptions(recipe="cbis_ddsm"))
    short = write_old(tmp_path / "short.h5", None, {"conv": []})
    with pytest.raises(DataError, match="the file has nothing more"):
        read_network(short, ImportOptions(recipe="cbis_ddsm"))


def test_options_that_change_nothing_are_named(tmp_path: Path) -> None:
    class Notes(Listener):
        def note(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    read_network(write_small(tmp_path / "whole.h5"), ImportOptions(recipe="cancernet"), listener=Notes())
    assert said == ["Note: --recipe cancernet changes nothing, since the file describes its network itself."]
    path = write_old(tmp_path / "w.h5", None, small()[1])
    with pytest.raises(UsageError, match=r"--offset 1/2: a recipe brings its own scale and offset; give --scale too"):
        read_network(path, ImportOptions(recipe="cancernet", offset=Fraction(1, 2)))
