"""SqueezeNet once more, in plain NumPy on Keras arrays: the oracle; and files of weights in its layout."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
Array = NDArray[np.float32]


def write_weights(path: Path, *, seed: int = 0) -> Path:
    """Random weights of the right size, in the layout of the public file."""
    generator = np.random.default_rng(seed)
    number = 0

    def layer(file: h5py.File, name: str, bias: str, shape: tuple[int, ...]) -> None:
        nonlocal number
        number += 1
        scale = np.sqrt(2 / np.prod(shape[:3]))
        kernel, owner = f"uniform{number}", name.split("/", maxsplit=1)[0]
        inner = name if "/" not in name else f"{name}/{owner}"
        place = name if "/" in name else inner
        file[f"{place}/{kernel}"] = (scale * generator.standard_normal(shape)).astype(np.float32)
        file[f"{inner}/{bias}"] = (0.1 * generator.standard_normal(shape[3])).astype(np.float32)

    with h5py.File(path, "w") as file:
        layer(file, "conv1", "conv1_b", (3, 3, 3, 64))
        inputs = 64
        for fire, (squeezed, expanded) in FIRES.items():
            layer(file, f"fire{fire}/squeeze1x1", "squeeze1x1_b", (1, 1, inputs, squeezed))
            layer(file, f"fire{fire}/expand1x1", "expand1x1_b", (1, 1, squeezed, expanded))
            layer(file, f"fire{fire}/expand3x3", "expand3x3_b", (3, 3, squeezed, expanded))
            inputs = 2 * expanded
        for empty in ("input_1", "pool1", "relu_conv1", "fire2/concat"):
            file.require_group(empty)
    return path


def features(path: Path, image: NDArray[np.uint8]) -> Array:
    """(h, w, 512) features of an RGB image (H, W, 3), as the edition for Keras computes them."""
    arrays: dict[str, Array] = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, entry: arrays.update({name: entry[()]}) if isinstance(entry, h5py.Dataset) else None
        )

    def convolve(x: Array, layer: str, *, stride: int = 1, same: bool = False) -> Array:
        kernel = next(array for name, array in arrays.items() if name.startswith(f"{layer}/") and array.ndim == 4)
        bias = next(array for name, array in arrays.items() if name.startswith(f"{layer}/") and array.ndim == 1)
        if same:
            x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        size = kernel.shape[0]
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))[::stride, ::stride]
        return np.maximum(np.einsum("hwcij,ijco->hwo", windows, kernel) + bias, 0).astype(np.float32)

    def pool(x: Array) -> Array:
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))[::2, ::2].max(axis=(3, 4))

    x = image[:, :, ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    x = convolve(x, "conv1", stride=2)
    for fire in FIRES:
        if fire in (2, 4, 6):
            x = pool(x)
        x = convolve(x, f"fire{fire}/squeeze1x1")
        one = convolve(x, f"fire{fire}/expand1x1")
        x = np.concatenate([one, convolve(x, f"fire{fire}/expand3x3", same=True)], axis=2)
    return x
