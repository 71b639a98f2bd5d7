"""Files of Keras 1 and 2, against NumPy or against the same network described otherwise."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundle.keras.conftest import our_probabilities
from tests.bundle.keras.files import Array, functional, sequential, small, write_old, write_small

from clearmargin.bundle.keras.network import ImportOptions, read_network
from clearmargin.errors import DataError

PIXELS = np.random.default_rng(2).uniform(0, 1, (3, 8, 8, 3)).astype(np.float32)


def sigmoid(x: Array) -> Array:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


def convolve(x: Array, kernel: Array, bias: Array) -> Array:
    """Valid, stride 1."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return (np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias).astype(np.float32)


def expected(weights: Any, *, pixels: Array = PIXELS) -> Array:
    """What `small` computes, by NumPy."""
    (_, kernel), (_, bias) = weights["conv"]
    (_, dense), (_, last) = weights["dense"]
    hidden = np.maximum(convolve(pixels, kernel, bias), 0).mean(axis=(1, 2))
    return sigmoid(hidden @ dense + last)[:, 0]


def probabilities(path: Path, **options: Any) -> Array:
    return our_probabilities(read_network(path, ImportOptions(**options)).classifier(), PIXELS)


def test_keras_2_by_numpy(tmp_path: Path) -> None:
    config, weights = small()
    np.testing.assert_allclose(
        probabilities(write_old(tmp_path / "a.h5", config, weights)), expected(weights), atol=1e-6
    )


def test_keras_1_names_of_layers_and_options(tmp_path: Path) -> None:
    _, weights = small()
    config = sequential(
        (
            "Convolution2D",
            {
                "name": "conv",
                "batch_input_shape": [None, 8, 8, 3],
                "nb_filter": 4,
                "nb_row": 3,
                "nb_col": 3,
                "border_mode": "valid",
                "subsample": [1, 1],
                "dim_ordering": "tf",
                "activation": "relu",
                "bias": True,
            },
        ),
        ("Dropout", {"name": "drop", "p": 0.5}),
        ("GlobalAveragePooling2D", {"name": "mean", "dim_ordering": "tf"}),
        ("Dense", {"name": "dense", "output_dim": 1, "activation": "sigmoid", "bias": True, "input_dim": None}),
    )
    old = {
        "conv": [("conv_W", weights["conv"][0][1]), ("conv_b", weights["conv"][1][1])],
        "drop": [],
        "mean": [],
        "dense": [("dense_W", weights["dense"][0][1]), ("dense_b", weights["dense"][1][1])],
    }
    for version in (None, "1.2.2"):
        path = write_old(tmp_path / "a.h5", config, old, version=version, backend=None)
        np.testing.assert_allclose(probabilities(path), expected(weights), atol=1e-6)


@pytest.mark.parametrize(("version", "backend"), [("1.2.0", "theano"), ("1.2.0", "tensorflow"), ("2.1.0", "theano")])
def test_channels_first_and_kernels_turned_round_by_theano(tmp_path: Path, version: str, backend: str) -> None:
    config, weights = small(dim_ordering="th", data_format="channels_first", batch_input_shape=[None, 3, 8, 8])
    stored = copy.deepcopy(weights)
    kernel = weights["conv"][0][1]
    if backend == "theano":
        kernel = kernel[::-1, ::-1]
    if version.startswith("1"):
        kernel = kernel.transpose(3, 2, 0, 1)
    stored["conv"][0] = ("conv/kernel:0", np.ascontiguousarray(kernel))
    path = write_old(tmp_path / "a.h5", config, stored, version=version, backend=backend)
    np.testing.assert_allclose(probabilities(path), expected(weights), atol=1e-6)


def test_channels_first_of_keras_1_without_a_backend_is_refused(tmp_path: Path) -> None:
    config, weights = small(dim_ordering="th", batch_input_shape=[None, 3, 8, 8])
    with pytest.raises(DataError, match="does not say under which backend"):
        read_network(write_old(tmp_path / "a.h5", config, weights, version="1.0.0", backend=None))


@pytest.mark.parametrize(("given", "first"), [(None, True), ("channels_last", True), ("channels_first", False)])
def test_flatten_of_maps_whose_channels_come_first(tmp_path: Path, given: str | None, first: bool) -> None:
    generator = np.random.default_rng(0)
    kernel, last = generator.normal(0, 0.3, (3, 3, 3, 2)), generator.normal(0, 0.3, (72, 1))
    config = sequential(
        (
            "Conv2D",
            {"name": "conv", "batch_input_shape": [None, 3, 8, 8], "filters": 2, "kernel_size": [3, 3]}
            | {"data_format": "channels_first", "use_bias": False},
        ),
        ("Flatten", {"name": "flatten"} | ({"data_format": given} if given else {})),
        ("Dense", {"name": "dense", "units": 1, "activation": "sigmoid", "use_bias": False}),
    )
    weights = {"conv": [("conv/kernel:0", kernel)], "flatten": [], "dense": [("dense/kernel:0", last)]}
    hidden = convolve(PIXELS, kernel.astype(np.float32), np.zeros(2, np.float32))
    flat = hidden.transpose(0, 3, 1, 2).reshape(3, -1) if first else hidden.reshape(3, -1)
    path = write_old(tmp_path / "a.h5", config, weights)
    np.testing.assert_allclose(probabilities(path), sigmoid(flat @ last)[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("version", "hidden"),
    [("2.15.0", lambda x: np.clip(0.2 * x + 0.5, 0, 1)), ("3.0.0", lambda x: np.clip(x / 6 + 0.5, 0, 1))],
)
def test_hard_sigmoid_is_that_of_the_version(tmp_path: Path, version: str, hidden: Any) -> None:
    config, weights = small(activation="hard_sigmoid")
    weights["conv"][0] = ("conv/kernel:0", 5 * weights["conv"][0][1])
    path = write_old(tmp_path / "a.h5", config, weights, version=version)
    maps = hidden(convolve(PIXELS, weights["conv"][0][1], weights["conv"][1][1])).mean(axis=(1, 2))
    wanted = sigmoid(maps @ weights["dense"][0][1] + 0.3)[:, 0]
    np.testing.assert_allclose(probabilities(path), wanted, atol=1e-6)


def test_batch_norm_of_keras_1_and_without_scale_or_centre(tmp_path: Path) -> None:
    config, weights = small()
    generator = np.random.default_rng(3)
    gamma, beta, mean, variance = (generator.uniform(0.5, 1.5, 4).astype(np.float32) for _ in range(4))
    for has_scale, has_centre in ((True, True), (False, True), (True, False), (False, False)):
        layer = {"name": "norm", "mode": 0, "axis": 3, "epsilon": 0.01, "scale": has_scale, "center": has_centre}
        own = copy.deepcopy(config)
        own["config"].insert(1, {"class_name": "BatchNormalization", "config": layer})
        arrays = [("norm_gamma", gamma)] * has_scale + [("norm_beta", beta)] * has_centre
        stored = {**weights, "norm": [*arrays, ("norm_running_mean", mean), ("norm_running_std", variance)]}
        path = write_old(tmp_path / "a.h5", own, stored, version="1.1.0")
        maps = np.maximum(convolve(PIXELS, weights["conv"][0][1], weights["conv"][1][1]), 0)
        maps = (maps - mean) / np.sqrt(variance + 0.01) * (gamma if has_scale else 1) + (beta if has_centre else 0)
        wanted = sigmoid(maps.mean(axis=(1, 2)) @ weights["dense"][0][1] + 0.3)[:, 0]
        np.testing.assert_allclose(probabilities(path), wanted, atol=1e-6)
    layer["mode"] = 2
    with pytest.raises(DataError, match=r"'norm' .* normalises by the batch at hand"):
        read_network(write_old(tmp_path / "a.h5", own, stored, version="1.1.0"))


def test_branches_and_the_merge_of_keras_1(tmp_path: Path) -> None:
    _, weights = small()
    pool = {"pool_size": [6, 6]}
    config = functional(
        ("InputLayer", "image", {"batch_input_shape": [None, 8, 8, 3]}, []),
        ("Conv2D", "conv", {"filters": 4, "kernel_size": [3, 3], "activation": "relu"}, ["image"]),
        ("AveragePooling2D", "mean", pool, ["conv"]),
        ("MaxPooling2D", "most", pool, ["conv"]),
        ("Merge", "merge", {"mode": "sum"}, ["mean", "most"]),
        ("Flatten", "flatten", {}, ["merge"]),
        ("Dense", "dense", {"units": 1, "activation": "sigmoid"}, ["flatten"]),
    )
    maps = np.maximum(convolve(PIXELS, weights["conv"][0][1], weights["conv"][1][1]), 0)
    wanted = sigmoid((maps.mean(axis=(1, 2)) + maps.max(axis=(1, 2))) @ weights["dense"][0][1] + 0.3)[:, 0]
    np.testing.assert_allclose(probabilities(write_old(tmp_path / "a.h5", config, weights)), wanted, atol=1e-6)
    config["config"]["layers"][4]["config"]["mode"] = "dot"
    with pytest.raises(DataError, match=r"'merge' .Merge. merges by 'dot'"):
        read_network(write_old(tmp_path / "a.h5", config, weights))


def test_scale_offset_and_order_of_channels_are_those_of_the_user(tmp_path: Path, no_keras: None) -> None:
    from fractions import Fraction

    from clearmargin.bundle.keras.importing import import_keras
    from clearmargin.predict.predictor import load_bundle

    path = write_small(tmp_path / "a.h5")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    cases = [
        (Fraction(1, 255), Fraction(0), "rgb"),
        (Fraction(2, 255), Fraction(-1), "bgr"),
        (Fraction(1, 100), Fraction(1, 2), "rgb"),  # beyond the preprocessing spec, so inside of the network
    ]
    for number, (scale, offset, channels) in enumerate(cases):
        options = ImportOptions(scale=scale, offset=offset, channels=channels)  # type: ignore[arg-type]
        import_keras(path, tmp_path / str(number), options)
        scaled = images.astype(np.float32) * float(scale) + float(offset)
        wanted = expected(small()[1], pixels=scaled if channels == "rgb" else scaled[..., ::-1])
        logits = load_bundle(tmp_path / str(number)).logits(images)
        np.testing.assert_allclose(sigmoid(logits), wanted, atol=2e-6)


def test_a_network_of_any_size_needs_one(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.h5", batch_input_shape=[None, None, None, 3])
    with pytest.raises(DataError, match="--size WIDTH,HEIGHT"):
        read_network(path)
    np.testing.assert_allclose(probabilities(path, size=(8, 8)), expected(small()[1]), atol=1e-6)
    with pytest.raises(DataError, match="8×8 pixels, not of 9×8"):
        read_network(write_small(tmp_path / "b.h5"), ImportOptions(size=(9, 8)))


def test_bilinear_enlargement_of_early_keras_is_refused(tmp_path: Path) -> None:
    config, weights = small()
    layer = {"class_name": "UpSampling2D", "config": {"name": "up", "interpolation": "bilinear"}}
    config["config"].insert(1, layer)
    with pytest.raises(DataError, match=r"'up' .* the grid of Keras before 2.3"):
        read_network(write_old(tmp_path / "a.h5", config, weights, version="2.2.4"))
    read_network(write_old(tmp_path / "a.h5", config, weights, version="2.2.4-tf"))
