"""Arrays on disk that are filled chunk by chunk, each with a checksum: a killed job goes on where it stopped.

They live in the cache folder, named by the hash of what is in them; two jobs that want the same take turns.
"""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import DTypeLike, NDArray

from clearmargin.types import Listener

Map = np.memmap[tuple[int, ...], np.dtype[Any]]


def hold(final: Path, listener: Listener, busy: str) -> AbstractContextManager[object]:
    """Nobody else fills the array in this folder meanwhile; the listener hears `busy` where one has to wait."""
    lock = FileLock(f"{final}.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        listener.note(busy)
        return lock.acquire()


def open_partial(partial: Path, name: str, shape: tuple[int, ...], dtype: DTypeLike, n_chunks: int) -> tuple[Map, Map]:
    """The array to write into and the checksums of its chunks (0 is not done): what a killed job left, or new ones.

    Disk space is reserved for a new one.
    """
    data, marks = partial / f"{name}.npy", partial / "checksums.npy"
    array = open_array(data, "r+", shape)
    checksums = open_array(marks, "r+", (n_chunks,))  # written last: without it nothing here can be trusted
    if array is None or checksums is None:
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            array = np.lib.format.open_memmap(data, mode="w+", dtype=dtype, shape=shape)
            _reserve(data)
            fresh = partial / "checksums.new.npy"
            np.save(fresh, np.zeros(n_chunks, np.uint32))
            fresh.rename(marks)
            checksums = np.lib.format.open_memmap(marks, mode="r+")
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # what was reserved of a full disk is given back
            raise
    return array, checksums


def open_array(path: Path, mode: Literal["r", "r+"], shape: tuple[int, ...]) -> Map | None:
    """The array in the file, or None when it is missing, cut short or of another shape."""
    try:
        array = np.lib.format.open_memmap(path, mode=mode)
    except (FileNotFoundError, ValueError):
        return None
    return array if array.shape == shape else None


def checksum(block: NDArray[Any]) -> int:
    """Of the values of a chunk; never 0, which means not done."""
    return zlib.crc32(np.ascontiguousarray(block).data) or 1


def _reserve(path: Path) -> None:
    # Without it a full disk shows up as a bus error in the middle of a write to the map.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # this file system cannot
                    raise
