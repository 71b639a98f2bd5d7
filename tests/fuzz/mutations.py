"""Inputs that are nearly right: valid seeds with bytes flipped, cut, inserted, spliced, swapped, lengths rewritten."""

from __future__ import annotations

import copy
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

_PNG = b"\x89PNG\r\n\x1a\n"
_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 4096, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
_FORMS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")

Operation = tuple[int, int, int, bytes]
_PLACE = st.integers(0, 2**16)
_OPERATIONS = st.lists(st.tuples(st.integers(0, 9), _PLACE, _PLACE, st.binary(max_size=12)), min_size=1, max_size=6)
Mutate = Callable[[bytearray, int, int, bytes], bytearray]


def _flip(data: bytearray, at: int, how: int, _: bytes) -> bytearray:
    data[at] ^= how % 255 + 1
    return data


def _cut(data: bytearray, at: int, how: int, _: bytes) -> bytearray:
    del data[at : at + how % 64 + 1]
    return data


def _truncate(data: bytearray, at: int, _how: int, _: bytes) -> bytearray:
    return data[:at]


def _insert(data: bytearray, at: int, _how: int, extra: bytes) -> bytearray:
    data[at:at] = extra
    return data


def _overwrite(data: bytearray, at: int, _how: int, extra: bytes) -> bytearray:
    data[at : at + len(extra)] = extra
    return data


def _rewrite_number(data: bytearray, at: int, how: int, _: bytes) -> bytearray:
    form = _FORMS[how % len(_FORMS)]
    size = struct.calcsize(form)
    number = _NUMBERS[how // len(_FORMS) % len(_NUMBERS)] % 256**size
    data[at : at + size] = struct.pack(form, number)
    return data


def _nudge_number(data: bytearray, at: int, how: int, _: bytes) -> bytearray:
    data[at] = (data[at] + how % 7 - 3) % 256
    return data


def _repeat(data: bytearray, at: int, how: int, _: bytes) -> bytearray:
    block = bytes(data[at : at + how % 48 + 1])
    data[at:at] = block * (how % 5 + 1)
    return data


def _swap(data: bytearray, at: int, how: int, extra: bytes) -> bytearray:
    size = len(extra) * 4 + 4
    other = how % max(1, len(data))
    first, second = min(at, other), max(at, other)
    size = min(size, second - first, len(data) - second)
    one, two = data[first : first + size], data[second : second + size]
    data[first : first + size], data[second : second + size] = two, one
    return data


_MUTATIONS: tuple[Mutate, ...] = (
    _flip,
    _cut,
    _truncate,
    _insert,
    _overwrite,
    _rewrite_number,
    _rewrite_number,
    _nudge_number,
    _repeat,
    _swap,
)


def apply(data: bytes, operations: Sequence[Operation]) -> bytes:
    """The bytes after each operation in turn; what has become empty stays empty."""
    changed = bytearray(data)
    for kind, place, how, extra in operations:
        if changed:
            changed = _MUTATIONS[kind](changed, place % len(changed), how, extra)
    return bytes(changed)


def signed_again(data: bytes) -> bytes:
    """The PNG with right checksums, so that what was changed reaches the decoder behind them."""
    if not data.startswith(_PNG):
        return data
    parts, place = [_PNG], len(_PNG)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            break
        parts += [data[place : end - 4], struct.pack(">I", zlib.crc32(data[place + 4 : end - 4]))]
        place = end
    return b"".join(parts) + data[place:]


def files(seeds: Sequence[bytes], others: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Mutated seeds, two files in one, a seed's beginning with another's end, and bytes that are nothing at all."""
    seed, other = st.sampled_from(list(seeds)), st.sampled_from([*seeds, *others])
    mutated = st.builds(apply, seed, _OPERATIONS)
    joined = st.builds(lambda first, second, at: first + second[at % (len(second) + 1) :], mutated, other, _PLACE)
    spliced = st.builds(
        lambda first, second, at, to: first[: at % (len(first) + 1)] + second[to % (len(second) + 1) :],
        *(seed, other, _PLACE, _PLACE),
    )
    begun = st.builds(lambda first, at, rest: first[: at % 40] + rest, seed, _PLACE, st.binary(max_size=200))
    return st.one_of(mutated, mutated, st.builds(signed_again, mutated), mutated, joined, spliced, begun)


def texts(seeds: Sequence[str]) -> st.SearchStrategy[str]:
    """Mutated seeds, which may hold what is not Unicode, and any text at all."""
    mutated = st.builds(apply, st.sampled_from([seed.encode() for seed in seeds]), _OPERATIONS)
    decoded = mutated.map(lambda data: data.decode("utf-8", "surrogateescape"))
    grown = st.builds(
        lambda seed, at, extra: seed[: at % (len(seed) + 1)] + extra + seed[at % (len(seed) + 1) :],
        *(st.sampled_from(list(seeds)), _PLACE, st.text(max_size=12)),
    )
    return st.one_of(decoded, grown, st.text(max_size=60))


_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2, 1.5, 10**9, 2**63, 1e308, float("nan"), float("inf")),
    *("", "same", "relu", "Dense", "Lambda", "\ud800", "x" * 5_000, [], [1], [[]], [0, 0, 0], [10**6, 10**6], {}),
)


def described(seeds: Sequence[Any]) -> st.SearchStrategy[str]:
    """JSON of the seeds with values replaced by others of theirs or by odd ones, removed, repeated, renamed."""
    steps = st.lists(st.tuples(st.integers(0, 4), _PLACE, _PLACE), min_size=1, max_size=4)
    return st.builds(_redescribe, st.sampled_from(list(seeds)), steps)


def _redescribe(seed: Any, steps: Sequence[tuple[int, int, int]]) -> str:
    root = [copy.deepcopy(seed)]
    for kind, at, how in steps:
        places = list(_places(root))
        owner, key = places[at % len(places)]
        other, theirs = places[how % len(places)]
        match kind:
            case 0:
                owner[key] = copy.deepcopy(_VALUES[how % len(_VALUES)])
            case 1:
                owner[key] = copy.deepcopy(other[theirs])
            case 2 if owner is not root:
                del owner[key]
            case 3 if isinstance(owner, list):
                owner.insert(key, copy.deepcopy(other[theirs]))
            case 4 if isinstance(owner, dict):
                owner[str(theirs)] = owner.pop(key)
    return json.dumps(root[0])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) below the value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
