"""Whether a file is the one that was published, or at least the one that was downloaded."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

from clearmargin.data.download.catalogue import Kind
from clearmargin.errors import DataError
from clearmargin.files import write_text
from clearmargin.types import Listener

_CHUNK = 2**20
_GZIP = b"\x1f\x8b\x08"


def file_hashes(path: Path, algorithms: set[str], *, listener: Listener = Listener()) -> dict[str, str]:
    """The hash of the whole file in each algorithm, as lower-case hex."""
    # MD5 tells damage here, not forgery; some hospitals' machines allow it only when that is said.
    sums = {name: hashlib.new(name, usedforsecurity=False) for name in sorted(algorithms)}
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for each in sums.values():
                each.update(chunk)
            done += len(chunk)
            listener.advance(done, total)
    return {name: each.hexdigest() for name, each in sums.items()}


def parse_checksum(text: str) -> tuple[str, str]:
    """The algorithm and the hex of a published checksum.

    >>> parse_checksum("md5:750601b1f35ba3300ea97c75c52ff8f6")
    ('md5', '750601b1f35ba3300ea97c75c52ff8f6')
    """
    algorithm, _, value = text.partition(":")
    assert algorithm in ("md5", "sha256"), text
    assert re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}", value), text
    return algorithm, value


def is_kind(path: Path, kind: Kind) -> bool:
    """The file is packed as its name says; the page of a login or an error, for one, is not.

    A .zip and a .npz end with their table of contents, so that a cut one is found out as well.
    """
    if kind == ".tar.gz":
        with path.open("rb") as file:
            return file.read(len(_GZIP)) == _GZIP
    return zipfile.is_zipfile(path)


def note_path(path: Path) -> Path:
    """Where the SHA-256 of a downloaded file is kept."""
    return path.with_name(f"{path.name}.sha256")


def write_note(path: Path, sha256: str) -> None:
    """Writes the SHA-256 beside the file, as `sha256sum -c` reads it."""
    write_text(note_path(path), f"{sha256}  {path.name}\n")


def read_note(path: Path) -> str | None:
    """The SHA-256 that was written when the file was downloaded; None without one.

    Raises:
        DataError: the note is there and is none.
    """
    note = note_path(path)
    if not note.is_file():
        return None
    words = note.read_text(encoding="utf-8", errors="replace").split()
    if not words or not re.fullmatch(r"[0-9a-f]{64}", words[0]):
        raise DataError(f"{note}: holds no SHA-256. Delete it to take {path.name} as it is.")
    return words[0]
