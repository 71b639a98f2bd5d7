"""The last layer: softmax and sigmoid are taken away exactly, and what is no probability of malignant is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.bundle.keras.files import Array, functional, sequential, write_old

from clearmargin.bundle.keras.network import ImportOptions, read_network
from clearmargin.errors import DataError

PIXELS = np.random.default_rng(2).uniform(0, 1, (3, 4, 4, 3)).astype(np.float32)


def write_head(path: Path, units: int, *after: tuple[str, dict[str, Any]], **dense: Any) -> tuple[Path, Array]:
    """A flat network with this last layer, and its outputs before the activation, large ones (3, units)."""
    kernel = np.random.default_rng(0).normal(0, 60, (48, units)).astype(np.float32)
    config = sequential(
        ("Flatten", {"name": "flatten", "batch_input_shape": [None, 4, 4, 3]}),
        ("Dense", {"name": "dense", "units": units, "use_bias": False, **dense}),
        *after,
    )
    weights = {"flatten": [], "dense": [("dense/kernel:0", kernel)]}
    return write_old(path, config, weights), PIXELS.reshape(3, -1) @ kernel


def logits(path: Path, **options: Any) -> Array:
    with torch.inference_mode():
        network = read_network(path, ImportOptions(**options)).classifier()
        return network(torch.from_numpy(PIXELS).permute(0, 3, 1, 2)).numpy()


@pytest.mark.parametrize("where", ["inside", "activation", "layer"])
def test_sigmoid_is_taken_away_exactly(tmp_path: Path, where: str) -> None:
    after = {"inside": [], "activation": [("Activation", {"name": "a", "activation": "sigmoid"})], "layer": []}[where]
    inside = {} if where == "activation" else {"activation": "sigmoid"}
    path, outputs = write_head(tmp_path / "a.h5", 1, *after, **inside)
    assert np.abs(outputs).max() > 100  # a probability of float32 would have lost it
    np.testing.assert_allclose(logits(path), outputs[:, 0], rtol=1e-5)
    np.testing.assert_allclose(logits(path, malignant_index=0), -outputs[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    "after", [[], [("Softmax", {"name": "s"})], [("Activation", {"name": "a", "activation": "softmax"})]]
)
def test_softmax_becomes_a_difference(tmp_path: Path, after: list[tuple[str, dict[str, Any]]]) -> None:
    path, outputs = write_head(tmp_path / "a.h5", 2, *after, **({} if after else {"activation": "softmax"}))
    assert read_network(path).head == "softmax"
    np.testing.assert_allclose(logits(path), outputs[:, 1] - outputs[:, 0], rtol=1e-5)
    np.testing.assert_allclose(logits(path, malignant_index=0), outputs[:, 0] - outputs[:, 1], rtol=1e-5)


def test_of_two_sigmoids_that_of_malignant_is_read(tmp_path: Path) -> None:
    path, outputs = write_head(tmp_path / "a.h5", 2, activation="sigmoid")
    assert read_network(path).head == "sigmoids"
    np.testing.assert_allclose(logits(path), outputs[:, 1], rtol=1e-5)
    np.testing.assert_allclose(logits(path, malignant_index=0), outputs[:, 0], rtol=1e-5)


def test_a_linear_head_is_a_logit_and_dropout_behind_it_nothing(tmp_path: Path) -> None:
    path, outputs = write_head(tmp_path / "a.h5", 1, ("Dropout", {"name": "d", "rate": 0.5}))
    assert read_network(path).head == "linear"
    np.testing.assert_allclose(logits(path), outputs[:, 0], rtol=1e-5)


def test_a_softmax_over_maps_of_one_pixel_is_flattened_later(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(0, 1, (4, 4, 3, 2)).astype(np.float32)
    config = sequential(
        ("Conv2D", {"name": "c", "batch_input_shape": [None, 4, 4, 3], "filters": 2, "kernel_size": [4, 4]}
         | {"use_bias": False, "activation": "softmax"}),
        ("Flatten", {"name": "f"}),
    )  # fmt: skip
    path = write_old(tmp_path / "a.h5", config, {"c": [("c/kernel:0", kernel)], "f": []})
    outputs = PIXELS.reshape(3, -1) @ kernel.reshape(48, 2)
    np.testing.assert_allclose(logits(path), outputs[:, 1] - outputs[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("units", "activation", "message"),
    [
        (3, "softmax", "3 outputs of shape"),
        (1, "softmax", "a softmax over one output always gives 1"),
        (1, "tanh", "ends in tanh"),
        (1, "relu", "ends in relu"),
        (1, "hard_sigmoid", "ends in"),
    ],
)
def test_other_heads_are_refused(tmp_path: Path, units: int, activation: str, message: str) -> None:
    path, _ = write_head(tmp_path / "a.h5", units, activation=activation)
    with pytest.raises(DataError, match=message):
        read_network(path)


def test_a_mean_of_probabilities_is_refused(tmp_path: Path) -> None:
    dense = {"units": 1, "activation": "sigmoid", "use_bias": False}
    config = functional(
        ("InputLayer", "image", {"batch_input_shape": [None, 4, 4, 3]}, []),
        ("Flatten", "flat", {}, ["image"]),
        ("Dense", "a", dense, ["flat"]),
        ("Dense", "b", dense, ["flat"]),
        ("Average", "mean", {}, ["a", "b"]),
    )
    kernel = np.zeros((48, 1), np.float32)
    path = write_old(tmp_path / "a.h5", config, {"a": [("kernel:0", kernel)], "b": [("kernel:0", kernel)]})
    with pytest.raises(DataError, match="put together from probabilities"):
        read_network(path)


def test_several_inputs_or_outputs_are_refused(tmp_path: Path) -> None:
    layers: list[Any] = [
        ("InputLayer", "image", {"batch_input_shape": [None, 4, 4, 3]}, []),
        ("Flatten", "flat", {}, ["image"]),
        ("Dense", "a", {"units": 1}, ["flat"]),
    ]
    config = functional(*layers)
    config["config"]["output_layers"] = [["a", 0, 0], ["flat", 0, 0]]
    with pytest.raises(DataError, match="2 outputs"):
        read_network(write_old(tmp_path / "a.h5", config, {}))
    config = functional(*layers)
    config["config"]["input_layers"] *= 2
    with pytest.raises(DataError, match="2 inputs"):
        read_network(write_old(tmp_path / "a.h5", config, {}))


@pytest.mark.parametrize("shape", [[None, 48], [None, 4, 4, 4], [None, 4, 4], [None, 2, 2, 3], [None, 4000, 4, 3]])
def test_what_is_no_image_is_refused(tmp_path: Path, shape: list[int | None]) -> None:
    config = sequential(
        ("Flatten", {"name": "f", "batch_input_shape": shape}), ("Dense", {"name": "d", "units": 1}),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"takes (inputs of shape|images of)"):
        read_network(write_old(tmp_path / "a.h5", config, {}))
