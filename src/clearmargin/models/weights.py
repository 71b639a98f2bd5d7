"""Files of pretrained weights: read as plain arrays, never as code, and hashed.

`.safetensors` for every backbone; for SqueezeNet also the Keras layout in `.h5`, of which the arrays are read and
nothing else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clearmargin.errors import DataError

HUB = "hub"
_MAX_CONFIG_BYTES = 2**20
_MAX_ARRAYS = 10_000


def read_weights(path: Path, *, keras: bool = False) -> dict[str, Tensor]:
    """The tensors of the file by name, float32 where they are numbers with a fraction.

    Args:
        path: of the file.
        keras: the model is SqueezeNet, whose weights may also be a `.h5`.

    Raises:
        DataError: no such file, not one of the formats, or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give the path of the weights (.safetensors) with --weights.")
    if keras and path.suffix.lower() in (".h5", ".hdf5"):
        return _read_keras(path)
    if path.suffix.lower() != ".safetensors":
        raise DataError(
            f"{path}: weights are read from .safetensors (for squeezenet also from .h5). Other formats, such as .bin "
            "and .pth, can run code when they are opened: convert the file first."
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Get the file anew.") from None
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def file_sha256(path: Path) -> str:
    """The hash of the file's bytes.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Give the path of the weights.") from None


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """The hash of names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_hub_config(weights: Path) -> dict[str, Any]:
    """The config.json of timm's hub beside the weights, which tells how the model was built; empty where there is none.

    Raises:
        DataError: it is there and cannot be read.
    """
    path = weights.with_name("config.json")
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Mend it, or move the weights elsewhere.") from None
    return content if isinstance(content, dict) and isinstance(content.get("architecture"), str) else {}


def _read_keras(path: Path) -> dict[str, Tensor]:
    import h5py  # noqa: PLC0415  (for this kind of file alone)

    arrays: dict[str, Any] = {}

    def collect(name: str, entry: object) -> None:
        if isinstance(entry, h5py.Dataset) and len(arrays) < _MAX_ARRAYS:
            arrays[name] = entry[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Get the file anew.") from None
    return dict(_from_keras(name, array, path) for name, array in arrays.items())


def _from_keras(name: str, array: Any, path: Path) -> tuple[str, Tensor]:
    """Name and tensor as in `SqueezeNet`: `fire2/expand1x1/…/…_b` is the bias, the other array the kernel (HWIO)."""
    parts = name.split("/")
    layer = parts[0] if len(parts) == 2 else ".".join(parts[:2])
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim not in (1, 4):
        raise DataError(f"{path}: '{name}' is no kernel and no bias. Give the weights of SqueezeNet without its top.")
    values = torch.from_numpy(array.astype(np.float32))
    if array.ndim == 1:
        return f"{layer}.bias", values
    if layer == "conv1":
        values = values.flip(2)  # BGR to RGB
    return f"{layer}.weight", values.permute(3, 2, 0, 1).contiguous()
