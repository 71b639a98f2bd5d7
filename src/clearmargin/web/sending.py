"""Files of this machine as parts of a request, and the rows of its answer as those of the files.

A header cannot hold every name that a file can have, so it holds one much like it, and rows get theirs back.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

import httpx

from clearmargin.errors import DataError, UsageError

_LONGEST_NAME = 300
"""Characters; a server keeps some more."""
Form = tuple[str, tuple[str, "FileOnDisk", str]]


class FileOnDisk:
    """A file that is open only while it is read, so that thousands can be sent in one request.

    Raises:
        DataError: it is not there, is no file, or cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._path, self._at = Path(path), 0
        self._file: BufferedReader | None = None
        if not os.path.exists(path):
            raise DataError(f"{path}: no such file.")
        if not os.path.isfile(path):
            raise DataError(f"{path}: is a folder or a device, not a file. Give the images in it.")
        self._size = self._path.stat().st_size

    def read(self, size: int = -1) -> bytes:
        """The next bytes; none at the end, where it is closed."""
        try:
            if self._file is None:
                if self._at >= self._size:
                    return b""
                self._file = self._path.open("rb")
                self._file.seek(self._at)
            data = self._file.read(size)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror}).") from None
        self._at += len(data)
        if not data or self._at >= self._size:
            self.close()
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        self.close()
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """As of a file."""
        return self._at

    def close(self) -> None:
        """No more is read, unless it is."""
        if self._file is not None:
            self._file.close()
            self._file = None


def check_url(url: str) -> str:
    """The address of a server without a slash at its end.

    Raises:
        UsageError: it is none.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"{url!r} is no address of a server; give one like http://127.0.0.1:8000.")
    return url.rstrip("/")


def forms_of(paths: Sequence[str]) -> list[Form]:
    """The parts of a request.

    Raises:
        DataError: one is no file.
    """
    return [("files", (sent_name(path), FileOnDisk(path), "application/octet-stream")) for path in paths]


def sent_name(path: str) -> str:
    r"""The path as it is told to the server: without what a header would spell out, and its end if it is long.

    >>> sent_name('scans/"a"\n.png')
    'scans/_a__.png'
    """
    name = "".join(each if each.isprintable() and each not in '"\\' else "_" for each in path)
    return name[-_LONGEST_NAME:]


def row_names(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The path of the image that each row is of; `PATH/MEMBER` for those in a zip; as the server says, if in doubt.

    Args:
        names: of the rows, as the server tells them.
        paths: that were sent.

    >>> row_names(["a_.png", "b_.zip/1.png", "b_.zip/2.png"], ['a".png', 'b".zip'])
    ['a".png', 'b".zip/1.png', 'b".zip/2.png']
    """
    found: list[str] = []
    left = deque(names)
    for path in paths:
        sent = sent_name(path)
        n_before = len(found)
        while left and (left[0] == sent or left[0].startswith(f"{sent}/")):
            found.append(path + left.popleft().removeprefix(sent))
            if found[-1] == path:
                break
        if len(found) == n_before:  # a name that the server shortened
            return list(names)
    return list(names) if left else found
