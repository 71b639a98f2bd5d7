"""What the weights of a bundle may hold, checked on the bytes before a tensor is made of them.

Our bundles hold float32 weights and int64 counters that are finite, lie one behind another without a gap, and have the
names and shapes of the architecture. Whatever else a file says is refused before anything of its size is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from pydantic_core import from_json
from safetensors import SafetensorError
from torch import Tensor

from clearmargin.errors import BundleError, one_line

_MAX_HEADER_BYTES = 2**25
_MAX_TENSORS = 500_000
_MAX_DIMENSIONS = 8
_BYTES = {"F32": 4, "I64": 8}
_CODES = {"torch.float32": "F32", "torch.int64": "I64"}
_SHOWN = 80

Description = tuple[str, tuple[int, ...]]
"""Kind and shape of a tensor."""


class _DamagedError(ValueError):
    pass


def describe_weights(content: bytes, name: str) -> dict[str, Description]:
    """Kind and shape of each tensor of a safetensors file, as its header says and as its bytes allow.

    Raises:
        BundleError: no such file, or one with something that our bundles do not hold.
    """
    try:
        return _read_header(content)
    except _DamagedError as error:
        raise BundleError(f"{name}: {error}. Do not trust this file; make the bundle anew.") from None


def load_weights(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, all of them finite.

    Raises:
        BundleError: as `describe_weights`, or a value is no finite number.
    """
    describe_weights(content, name)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
    except SafetensorError as error:
        raise BundleError(f"{name}: cannot be read ({one_line(str(error))[:200]}). Make the bundle anew.") from None
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BundleError(f"{name}: '{_shown(key)}' holds values that are no finite numbers. Retrain the model.")
    return tensors


def check_fit(described: Mapping[str, Description], wanted: Mapping[str, Tensor], name: str) -> None:
    """Passes when the file has the tensors of the architecture, of the same kind and shape, and no others.

    Args:
        described: what the file says.
        wanted: the network's own, which may be on the device `meta`.
        name: of the file, for messages.

    Raises:
        BundleError: otherwise; names the first that differs.
    """
    own = {
        key: (_CODES.get(str(tensor.dtype), str(tensor.dtype)), tuple(tensor.shape)) for key, tensor in wanted.items()
    }
    for key in [*own, *described]:
        if key not in described:
            what = f"'{_shown(key)}' is missing"
        elif key not in own:
            what = f"'{_shown(key)}' is not one of its tensors"
        elif described[key] != own[key]:
            what = f"'{_shown(key)}' is {_words(described[key])} instead of {_words(own[key])}"
        else:
            continue
        raise BundleError(f"{name}: the weights do not fit the architecture ({what}). Make the bundle anew.")


def _read_header(content: bytes) -> dict[str, Description]:
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(_MAX_HEADER_BYTES, len(content) - 8):
        raise _DamagedError("is no safetensors file: its header is longer than the file, or than any header of ours")
    try:
        header = from_json(content[8 : 8 + length])
    except ValueError:
        raise _DamagedError("is no safetensors file: its header is no JSON") from None
    if not isinstance(header, dict) or len(header) > _MAX_TENSORS:
        raise _DamagedError("is no safetensors file: its header is no list of tensors")
    header.pop("__metadata__", None)
    described: dict[str, Description] = {}
    spans: list[tuple[int, int]] = []
    for key, entry in header.items():
        kind, shape, begin, end = _read_entry(key, entry)
        if end - begin != _BYTES[kind] * math.prod(shape):
            raise _DamagedError(f"'{_shown(key)}' has another size than its shape says")
        described[key] = (kind, shape)
        spans.append((begin, end))
    place = 0
    for begin, end in sorted(spans):
        if begin != place:
            raise _DamagedError("its tensors overlap, or leave bytes between them")
        place = end
    if place != len(content) - 8 - length:
        raise _DamagedError("its tensors end before the file does, or after")
    return described


def _read_entry(key: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if len(entry) == 3:
            if kind not in _BYTES:
                raise _DamagedError(f"'{_shown(key)}' is of the kind {_shown(kind)}; our weights are F32, counters I64")
            if len(shape) <= _MAX_DIMENSIONS and all(type(side) is int and side >= 0 for side in shape):
                return kind, tuple(shape), begin, end
    raise _DamagedError(f"'{_shown(key)}' is not described as a tensor is")


def _words(description: Description) -> str:
    return f"{description[0]} {'×'.join(map(str, description[1])) or 'of one value'}"


def _shown(text: str) -> str:
    return one_line(text[:_SHOWN])
