"""Arrays of .npz files and their rows, read in place; such a file may lie in a .zip file."""

from __future__ import annotations

import io
import os
import re
import zipfile

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import DataError, ImageError, one_line
from clearmargin.images.archive import (
    DAMAGE,
    Archive,
    ArchiveLimits,
    Kept,
    has_member,
    open_archive,
    read_member,
    reason,
)
from clearmargin.images.array import HEADER_BYTES, ArrayHeader, read_array_header, read_array_values
from clearmargin.images.limits import Limits

_ROW_DIGITS = 18
_NPZ = re.compile(r"(.+?\.npz)/(.+)", re.IGNORECASE)

_arrays = Kept()


def read_inside(path: str, member: str, limits: Limits, *, at_most: int | None = None) -> bytes:
    """The bytes of a member of a .zip file, or of a row of an .npz file as the bytes of an .npy file.

    With `at_most`, the first bytes of a member of any size; no more of it is unpacked.

    Raises:
        ImageError: no such member or row, damaged, or above `limits.max_bytes`.
        DataError: the archive as a whole cannot be used.
    """
    if os.path.splitext(path)[1].lower() == ".npz":
        return read_row(path, member)
    nested = _NPZ.fullmatch(member)
    if nested and not has_member(path, member) and has_member(path, nested[1]):
        return read_row(f"{path}/{nested[1]}", nested[2])
    return read_member(path, member, limits, at_most=at_most)


def read_row(path: str, member: str, limits: ArchiveLimits = ArchiveLimits()) -> bytes:
    """A row, named ARRAY/ROW, of an .npz file as the bytes of an .npy file.

    Raises:
        ImageError: there is none, or the file cannot be used.
    """
    name = one_line(f"{path}/{member}")
    array, _, row = member.rpartition("/")
    if not array or not row.isdecimal() or len(row) > _ROW_DIGITS:
        raise ImageError("missing", name, "no such row; write FILE.npz/ARRAY/ROW, rows counted from 0")
    try:
        rows = read_array(path, array, limits)
    except DataError as error:
        raise ImageError("unreadable", name, str(error)) from None
    if rows.ndim < 2 or int(row) >= len(rows):
        raise ImageError("missing", name, f"no such row; the array '{array}' has the shape {rows.shape}")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(rows[int(row)]), allow_pickle=False)
    return buffer.getvalue()


def list_arrays(path: str, limits: ArchiveLimits = ArchiveLimits()) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of an .npz file, which may lie in a .zip file; no array is read.

    Raises:
        DataError: it is not an .npz file, or an array holds Python objects.
    """
    archive = open_archive(path, limits)
    return {
        name.removesuffix(".npy"): _array_header(archive, info, path).shape
        for name, info in archive.members.items()
        if name.endswith(".npy")
    }


def read_array(path: str, array: str, limits: ArchiveLimits = ArchiveLimits()) -> NDArray[np.generic]:
    """One array of an .npz file, kept in memory for the next call; do not write to it.

    Raises:
        DataError: no such array, damaged, too large, or of Python objects, which are never loaded.
    """

    def load() -> NDArray[np.generic]:
        archive = open_archive(path, limits)
        info = archive.members.get(f"{array}.npy")
        if info is None:
            raise DataError(f"{path}: holds no array '{one_line(array)}'.")
        header = _array_header(archive, info, path)
        size = max(header.size, info.file_size - header.start)
        if size > limits.max_array_bytes:
            raise DataError(
                f"{path}: the array '{one_line(array)}' is {size:,} bytes, more than the limit of "
                f"{limits.max_array_bytes:,}."
            )
        try:
            with archive.file.open(info) as stream:
                loaded = read_array_values(stream.read(info.file_size + 1), header)
        except (*DAMAGE, MemoryError) as error:
            raise DataError(
                f"{path}: the array '{one_line(array)}' is damaged ({reason(error)}). Fetch it again."
            ) from None
        loaded.setflags(write=False)
        return loaded

    return _arrays.get(path, array, load)


def _array_header(archive: Archive, info: zipfile.ZipInfo, path: str) -> ArrayHeader:
    try:
        with archive.file.open(info) as stream:
            return read_array_header(stream.read(HEADER_BYTES))
    except DAMAGE as error:
        raise DataError(
            f"{path}: '{one_line(info.filename)}' is not an array that is read ({reason(error)}). "
            "Fetch it again, or save it as numbers."
        ) from None
