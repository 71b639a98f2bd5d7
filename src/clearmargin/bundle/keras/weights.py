"""Arrays of a Keras file to tensors of a graph: found by Keras' own rules, compared in shape, then read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearmargin.bundle.keras.build import Array, Place
from clearmargin.bundle.keras.configs import Layer, Model
from clearmargin.bundle.keras.convert import Converted
from clearmargin.bundle.keras.files import KerasFile, Stored
from clearmargin.errors import DataError, one_line
from clearmargin.graph import Shape

_SAME_NAME = {
    "w": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
    "moving_var": "moving_variance",
    "alphas": "alpha",
}
"""What Keras 1 called them; its running_std holds the variance."""
_NAMES = {
    "kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
    "alpha",
    "depthwise_kernel",
    "pointwise_kernel",
}


def read_tensors(file: KerasFile, model: Model, converted: Converted, *, keras: tuple[int, int]) -> dict[str, Tensor]:
    """Every tensor of the graph by the name that `Graph.weights` has for it.

    Raises:
        DataError: an array is missing, of another shape, or holds numbers that are not finite.
    """
    places = _in_layers(file, model, converted) if file.layout == "layers" else _in_store(file, model)
    tensors = {key: torch.full(shape, value) for key, (shape, value) in converted.constants.items()}
    old_kernels = keras[0] == 1 and converted.channels_first
    if old_kernels and file.backend is None:
        raise DataError(
            f"{file.path}: was written by Keras 1 with the channels first, and does not say under which backend, so "
            "its kernels can be read in two ways. Load and save it with a later Keras."
        )
    for place, expected in converted.arrays.items():
        stored = places.get(place)
        if stored is None:
            raise DataError(f"{file.path}: holds no weights of the layer '{one_line(place[-1])}'. The file is damaged.")
        for array, found in _match(expected, stored, file.path, place):
            _compare(array, found, file.path, place, old=old_kernels)
            if array.key is not None:
                tensors[array.key] = _convert(array, found.read(), old=old_kernels, theano=file.backend == "theano")
    _check_variances(tensors, file.path)
    missing = set(converted.graph.weights) - set(tensors) - {"bgr.weight"}
    if missing:
        raise DataError(f"{file.path}: holds no weights for '{min(missing)}'. The file is damaged.")
    if "bgr.weight" in converted.graph.weights and "bgr.weight" not in tensors:
        tensors["bgr.weight"] = torch.eye(3).flip(0).reshape(3, 3, 1, 1)
    return tensors


def to_torch(array: Array, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """An array in Keras' order as torch has it.

    >>> to_torch(Array("kernel", (3, 5), "a.weight", "dense"), np.zeros((3, 5), np.float32)).shape
    (5, 3)
    """
    match array.transform:
        case "conv" | "transposed":
            values = values.transpose(3, 2, 0, 1)
        case "depthwise":
            height, width, channels, multiplier = values.shape
            values = values.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
        case "dense":
            values = values.T
        case "slopes":
            values = values.transpose(2, 0, 1) if values.ndim == 3 else values
        case "variance":
            values = np.maximum(np.sqrt(np.maximum(values, 0)), np.float32(array.epsilon)) ** 2
        case "vector":
            pass
    return np.ascontiguousarray(values, dtype=np.float32)


def to_keras(array: Array, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The reverse of `to_torch`, for all that is ever written.

    >>> to_keras(Array("kernel", (3, 3, 4, 2), "a.weight", "depthwise"), np.zeros((8, 1, 3, 3), np.float32)).shape
    (3, 3, 4, 2)
    """
    match array.transform:
        case "conv" | "transposed":
            values = values.transpose(2, 3, 1, 0)
        case "depthwise":
            height, width, channels, multiplier = array.shape
            values = values.reshape(channels, multiplier, height, width).transpose(2, 3, 0, 1)
        case "dense":
            values = values.T
        case "slopes":
            values = values.transpose(1, 2, 0) if values.ndim == 3 else values
        case "vector" | "variance":
            pass
    return np.ascontiguousarray(values, dtype=np.float32)


def _convert(array: Array, values: NDArray[np.float32], *, old: bool, theano: bool) -> Tensor:
    if array.transform == "conv":
        if old:
            values = values.transpose(2, 3, 1, 0)
        if theano:  # its convolution turns kernels round
            values = values[::-1, ::-1]
    elif theano and array.transform in ("depthwise", "transposed"):
        values = values[::-1, ::-1]
    return torch.from_numpy(to_torch(array, values))


def _compare(array: Array, found: Stored, path: Path, place: Place, *, old: bool) -> None:
    shape: Shape = array.shape
    if old and array.transform == "conv":
        shape = (shape[3], shape[2], shape[0], shape[1])
    if found.shape != shape:
        raise DataError(
            f"{path}: '{array.name}' of the layer '{one_line(place[-1])}' has the shape {found.shape}, and its "
            f"description says {shape}. The file is damaged."
        )


def _match(
    expected: Sequence[Array], stored: Sequence[Stored], path: Path, place: Place
) -> Iterator[tuple[Array, Stored]]:
    needed = [array for array in expected if array.key is not None]
    if not len(needed) <= len(stored) <= len(expected):
        raise DataError(
            f"{path}: the layer '{one_line(place[-1])}' has {len(stored)} arrays of weights, and needs {len(needed)}. "
            "The file is damaged."
        )
    return zip(expected, stored, strict=False)


def _check_variances(tensors: Mapping[str, Tensor], path: Path) -> None:
    for key, tensor in tensors.items():
        if key.endswith(".running_var") and bool((tensor < 0).any()):
            raise DataError(f"{path}: a variance of '{key.partition('.')[0]}' is negative. The file is damaged.")


def _in_store(file: KerasFile, model: Model) -> dict[Place, list[Stored]]:
    """Layers are numbered by their class, each model for itself: `layers/conv2d_1`."""
    arrays = file.store_arrays()
    found: dict[Place, list[Stored]] = {}
    places: dict[tuple[int, str], str] = {}

    def walk(model: Model, prefix: str, scope: Place) -> None:
        numbers: dict[str, int] = {}
        for layer in model.layers:
            base = snake_case(layer.kind)
            number = numbers.get(base, -1) + 1
            numbers[base] = number
            at = f"{prefix}layers/{base}" + (f"_{number}" if number else "")
            if layer.shared_id is not None:  # an object that is in several models is kept where it is met first
                at = places.setdefault((layer.shared_id, layer.kind), at)
            if layer.model is not None:
                walk(layer.model, f"{at}/", (*scope, layer.name))
            elif at in arrays:
                found[*scope, layer.name] = arrays[at]

    walk(model, "", ())
    return found


def _in_layers(file: KerasFile, model: Model, converted: Converted) -> dict[Place, list[Stored]]:
    """By layer; those of a nested model are one list, in the order of Keras: what is trained before what is not."""
    arrays = file.layer_arrays()
    found: dict[Place, list[Stored]] = {}
    for layer in model.layers:
        stored = arrays.get(layer.name, [])
        if layer.model is None:
            found[layer.name,] = _reorder(converted.arrays.get((layer.name,), ()), stored)
            continue
        wanted = _ordered(layer, (layer.name,), converted)
        if len(wanted) != len(stored):
            raise DataError(
                f"{file.path}: the nested model '{one_line(layer.name)}' has {len(stored)} arrays of weights, and "
                f"needs {len(wanted)}. The file is damaged."
            )
        taken: dict[Place, list[tuple[int, Stored]]] = {}
        for (place, position), each in zip(wanted, stored, strict=True):
            own = converted.arrays[place][position].name
            said = _parameter(each.name)
            if {said, own} <= _NAMES and own not in {said, f"depthwise_{said}"}:
                raise DataError(
                    f"{file.path}: '{each.name}' stands where '{own}' of the layer '{one_line(place[-1])}' is "
                    "expected, so the order of the weights is not known. Save the model as .keras."
                )
            taken.setdefault(place, []).append((position, each))
        for place, pairs in taken.items():
            found[place] = [each for _, each in sorted(pairs, key=lambda pair: pair[0])]
    return found


def _reorder(expected: Sequence[Array], stored: Sequence[Stored]) -> list[Stored]:
    """The arrays in the expected order, where all their names are known and fit; as they are otherwise."""
    by_name = {_parameter(each.name): each for each in stored}
    names = [array.name for array in expected]
    if len(by_name) == len(stored) == len(names) and set(names) == set(by_name):
        return [by_name[name] for name in names]
    return list(stored)


def _ordered(layer: Layer, place: Place, converted: Converted) -> list[tuple[Place, int]]:
    """The arrays below a layer in the order of Keras, as (layer, number of the array)."""
    return [*_trained(layer, place, converted, wanted=True), *_trained(layer, place, converted, wanted=False)]


def _trained(layer: Layer, place: Place, converted: Converted, *, wanted: bool) -> list[tuple[Place, int]]:
    if layer.model is None:
        arrays = converted.arrays.get(place, ())
        return [
            (place, number) for number, array in enumerate(arrays) if (array.trainable and layer.trainable) == wanted
        ]
    below = [(each, (*place, each.name)) for each in layer.model.layers]
    if layer.trainable:
        return [item for each, at in below for item in _trained(each, at, converted, wanted=wanted)]
    return [] if wanted else [item for each, at in below for item in _ordered(each, at, converted)]


def _parameter(name: str) -> str:
    """`kernel` of `block/conv2d_1/kernel:0`; Keras 1 wrote `conv2d_1_W`."""
    last = name.rpartition("/")[2].partition(":")[0]
    found = re.fullmatch(r".*?(running_mean|running_std|alphas|gamma|beta|W|b)", last)
    if found and last not in _NAMES:
        last = found[1]
    return _SAME_NAME.get(last.lower(), last)


def snake_case(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
