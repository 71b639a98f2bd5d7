"""The state of a run in one safetensors file, so that a run that was killed goes on bit for bit.

Tensors are weights, their moving average, the best weights so far and the optimizer's moments; the rest
(epoch, batch, history, sums of the running epoch) is JSON in the file's header, with a checksum of it all.
No pickle. The file is written under another name and renamed, so it is whole or not there.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clearmargin.errors import DataError
from clearmargin.files import write_whole

FILE_NAME = "state.safetensors"


@dataclass(slots=True)
class Progress:
    """How far a run is. `epoch` and `batch` count what is finished; sums are those of the running epoch."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    epoch_seconds: float = 0.0
    best_epoch: int = 0
    best_value: float | None = None
    finished: bool = False
    stopped_early: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """Everything that changes during training. `average` and `best` may be empty."""

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    progress: Progress


def write_checkpoint(folder: Path, state: State, fingerprint: str) -> None:
    """Writes the state; `fingerprint` names the run that it belongs to."""
    folder.mkdir(exist_ok=True)
    tensors = {f"model/{name}": tensor for name, tensor in state.model.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in state.average.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    numbers: dict[str, Any] = {}
    for index, values in state.optimizer["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                numbers[f"{index}/{name}"] = value
    header = {
        "progress": json.dumps(asdict(state.progress)),
        "param_groups": json.dumps(state.optimizer["param_groups"]),
        "optimizer_numbers": json.dumps(numbers),
        "fingerprint": fingerprint,
    }
    # clone: safetensors refuses tensors that share memory, as a model and its average may.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header["checksum"] = _checksum(header, plain)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            file.write(save(plain, metadata=header))
            file.flush()
            os.fsync(file.fileno())

    write_whole(folder / FILE_NAME, write)


def read_checkpoint(folder: Path, fingerprint: str) -> State | None:
    """The state of the run, or None when there is no checkpoint yet.

    Raises:
        DataError: the checkpoint is of a run with other settings, data or split, or is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata())
            # clone: the file's own tensors are views of it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (not a mapping)
        state = _unpack(header, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: the checkpoint cannot be read ({error}). Remove it to start anew.") from None
    if header["fingerprint"] != fingerprint:
        raise DataError(
            f"{path}: the checkpoint is of a run with other settings, images, split, weights, precision or version. "
            "Resume with the same command, or train into a new folder."
        )
    return state


def _unpack(header: dict[str, str], tensors: Mapping[str, Tensor]) -> State:
    if header.pop("checksum") != _checksum(header, tensors):
        raise ValueError("its checksum does not fit")
    optimizer: dict[str, Any] = {"state": {}, "param_groups": json.loads(header["param_groups"])}
    for name, tensor in _below(tensors, "optimizer/").items():
        index, key = name.split("/")
        optimizer["state"].setdefault(int(index), {})[key] = tensor
    for name, value in json.loads(header["optimizer_numbers"]).items():
        index, key = name.split("/")
        optimizer["state"].setdefault(int(index), {})[key] = value
    return State(
        model=_below(tensors, "model/"),
        optimizer=optimizer,
        average=_below(tensors, "average/"),
        best=_below(tensors, "best/"),
        progress=Progress(**json.loads(header["progress"])),
    )


def _checksum(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    value = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def copy_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """The model's weights and buffers, copied."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
