"""Reading of protobuf messages as a table of their fields says, and not a byte of anything else.

A message is read flat, one level at a time, by whoever knows what its fields mean: nothing recurses, so nothing can
nest too deep. What is allowed is narrower than protobuf: a field that the table does not name is refused instead of
skipped, and so is a second value of a field that has one, which protobuf's readers merge or overwrite, each in its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

VARINT: Final = 0
FIXED_64: Final = 1
BYTES: Final = 2
FIXED_32: Final = 5
_BITS = 64


class WireError(ValueError):
    """The bytes are no such message; the text says why, without a place."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its name here (empty where nobody looks at it), how it is written, how often."""

    name: str
    wire: int = BYTES
    many: bool = False
    refused: str = ""
    """What it is, where it may not be there at all."""


def read_message(data: memoryview, fields: Mapping[int, Field]) -> dict[str, Any]:
    """The values by the name of their field: int, or the bytes; a list of them where there may be many.

    Numbers of a field with many may be written one by one or packed, as protobuf allows.

    Raises:
        WireError: cut off, or with something that the table does not allow.
    """
    found: dict[str, Any] = {field.name: [] for field in fields.values() if field.many and field.name}
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place, end)
        field, wire = fields.get(key >> 3), key & 7
        if field is None:
            raise WireError(f"holds a field {key >> 3} that no ONNX file of ours has")
        if field.refused:
            raise WireError(f"holds {field.refused}")
        value, place = _value(data, place, end, wire)
        packed = wire == BYTES and field.wire == VARINT and field.many
        if wire != field.wire and not packed:
            raise WireError(f"holds a field {key >> 3} of another kind than it has")
        if not field.name:
            continue
        if packed:
            found[field.name] += read_packed(value)
        elif field.many:
            found[field.name].append(value)
        elif field.name in found:
            raise WireError(f"says twice what may be said once (field {key >> 3})")
        else:
            found[field.name] = value
    return found


def _value(data: memoryview, place: int, end: int, wire: int) -> tuple[Any, int]:
    """The value that begins at the place, a signed number or bytes, and where it ends."""
    if wire == VARINT:
        value, place = _varint(data, place, end)
        return value - ((value >> (_BITS - 1)) << _BITS), place
    if wire == BYTES:
        size, place = _varint(data, place, end)
    elif wire in (FIXED_32, FIXED_64):
        size = 4 if wire == FIXED_32 else 8
    else:
        raise WireError("is written in a way that no ONNX file is")
    if place + size > end:
        raise WireError("ends in the middle")
    return data[place : place + size], place + size


def read_packed(data: memoryview) -> list[int]:
    """The signed numbers that are written one behind another."""
    numbers, place, end = [], 0, len(data)
    while place < end:
        value, place = _varint(data, place, end)
        numbers.append(value - ((value >> (_BITS - 1)) << _BITS))
    return numbers


def _varint(data: memoryview, place: int, end: int) -> tuple[int, int]:
    """The number below 2**64 that begins at the place, and where it ends."""
    value = shift = 0
    while place < end:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> _BITS:
                break
            return value, place
        shift += 7
        if shift >= 70:
            break
    raise WireError("ends in the middle, or holds a number that is too long")
