"""Writing files so that a reader finds them whole or not at all, and a full disk as one clear line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from clearmargin.errors import DataError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_ERRORS = (
    *_FULL,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes strict JSON (no NaN) under another name and renames it."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes the text under another name and renames it."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill another file of the same extension, then renames it to `path`."""
    partial = partial_path(path)
    try:
        write(partial)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)  # on a full disk it only takes space
        raise


def make_folder(path: Path) -> None:
    """Makes the folder and those above it, where they are not there yet.

    Raises:
        DataError: nothing can be made there, as below /proc.
        UsageError: a file has this name.
        OSError: for `disk_errors` to put into words.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: not writable ({error.strerror}). Write to another folder.") from None
    except FileExistsError:
        raise UsageError(f"{path}: is a file, not a folder. Write to another folder.") from None


def check_can_hold_file(path: Path, option: str, *, example: str) -> None:
    """Passes when a file can be written at `path`, for which its folder may have to be made, or an older one replaced.

    Args:
        path: what was given.
        option: where it was given, as --out; for the message.
        example: a name for the file; for the message.

    Raises:
        UsageError: a folder, a pipe or a device is there, a file stands where a folder must be, more folders than one
            would have to be made, or nothing can be written there.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give a file, as {option} {path / example}.")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{above}: is not a folder; give a file elsewhere with {option}.")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is a pipe or a device; give a file with {option}.")
    holder = path.absolute().parent
    if not holder.parent.exists():  # a slip of the pen, most likely
        raise UsageError(f"{holder.parent}: no such folder. Make it, or give another file with {option}.")
    try:
        with TemporaryFile(dir=above):  # the rights alone do not tell, as in /proc
            pass
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise UsageError(f"{path}: not writable ({error.strerror}). Give a file elsewhere with {option}.") from None


def seen_from_here(path: str | os.PathLike[str]) -> str:
    """The path as seen from the working directory where it lies in there, otherwise as it is."""
    text = os.fspath(path)
    try:
        return text.removeprefix(str(Path.cwd()).rstrip(os.sep) + os.sep)
    except FileNotFoundError:  # the working directory is gone
        return text


def partial_path(path: Path) -> Path:
    """Where `path` is written before it is renamed: hidden, beside it, of the same extension."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """A full or read-only disk becomes one clear line.

    Raises:
        DataError: an OSError of that kind came up inside.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        if error.errno in _FULL:
            what = "the disk is full. Free some space, or write to another disk"
        else:
            what = f"not writable ({error.strerror}). Write to another folder"
        raise DataError(f"{error.filename or place}: {what}.") from None
