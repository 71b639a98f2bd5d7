"""Public data sets fetched on request, and on request only: nothing else in Clearmargin uses the network.

A download is resumed, verified and renamed when it is whole, so that a file under its final name is a good one. Zips
stay packed, as they are read directly; a .tar.gz is unpacked beside itself. The catalogue is `catalogue.py`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from clearmargin.data.download.catalogue import DOWNLOADS, Download, describe, size_text
from clearmargin.data.download.connection import Address
from clearmargin.data.download.fetch import DEFAULT_PATIENCE, Partial, Patience, fetch
from clearmargin.data.download.kaggle import ADVICE, kaggle_authorization
from clearmargin.data.download.unpack import unpack_tar
from clearmargin.data.download.verify import (
    file_hashes,
    is_kind,
    note_path,
    parse_checksum,
    read_note,
    write_note,
)
from clearmargin.errors import DataError, Interrupted, UnknownName, UsageError
from clearmargin.files import disk_errors, make_folder
from clearmargin.types import Listener

__all__ = ["DOWNLOADS", "Download", "Downloaded", "Patience", "describe", "download"]


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A data set that lies ready at `path`; `fetched` is False when it lay there before.

    `check` says how it was verified, or that it was not.
    """

    path: Path
    fetched: bool
    check: str

    @property
    def next_command(self) -> str:
        """What to type next."""
        return f"clearmargin audit {shlex.quote(str(self.path))}"


def download(
    name: str,
    out: Path | str = "data",
    *,
    listener: Listener = Listener(),
    catalogue: Mapping[str, Download] = DOWNLOADS,
    patience: Patience = DEFAULT_PATIENCE,
) -> Downloaded:
    """The data set, fetched into the folder `out` unless it is there already.

    Args:
        name: a key of the catalogue.
        out: the folder to put it in; made where it is missing.
        listener: hears the stages download, verify and unpack, in bytes.
        catalogue: the data sets to choose from.
        patience: how long to wait for a server, and how often.

    Raises:
        UnknownName: no such data set.
        UsageError: another process is downloading it to the same place.
        DataError: not there, no network, no token, not the published file, no room; what to fetch by hand, from
            which page and where to put it.
        Interrupted: Ctrl-C; the same call goes on from there.
    """
    if name not in catalogue:
        raise UnknownName("data set", name, catalogue)
    entry, folder = catalogue[name], Path(out)
    target = folder / entry.file
    if entry.url is None:
        return _by_hand(entry, folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UsageError(f"{folder}: is a file. Give a folder with --out.")
    try:
        with disk_errors(folder):
            make_folder(folder)
            with _alone(target):
                return _bring(entry, target, folder / name, listener, patience)
    except KeyboardInterrupt:
        kept = f"; {size_text(size)} are kept" if (size := Partial(target).size) else ""
        raise Interrupted(f"{target}: stopped{kept}. The same command goes on from there.") from None


def _bring(entry: Download, target: Path, unpacked: Path, listener: Listener, patience: Patience) -> Downloaded:
    """The data set, whatever of it is there already."""
    packed = entry.kind == ".tar.gz"
    if packed and unpacked.exists():
        return _unpacked_before(entry, target, unpacked, listener)
    fetched = not target.exists()
    check = _fetch(entry, target, listener, patience) if fetched else _verify_old(entry, target, listener)
    if packed:
        listener.stage("unpack")
        unpack_tar(target, unpacked, listener=listener)
    return Downloaded(unpacked if packed else target, fetched=fetched, check=check)


def _by_hand(entry: Download, out: Path) -> Downloaded:
    target = out / entry.file
    if target.is_dir() and any(target.iterdir()):
        return Downloaded(target, fetched=False, check="put there by hand")
    raise DataError(f"{entry.file} has no open address. {entry.remedy(out)}")


def _fetch(entry: Download, target: Path, listener: Listener, patience: Patience) -> str:
    """How the new file at `target` was verified."""
    remedy = entry.remedy(target.parent)
    authorization = kaggle_authorization(os.environ) if entry.kaggle else None
    if entry.kaggle and authorization is None:
        raise DataError(f"{target.name} needs a Kaggle token. {ADVICE}. Or: {remedy}")
    assert entry.url is not None
    address = Address(
        entry.url,
        remedy,
        entry.max_bytes,
        authorization=authorization,
        checksummed=entry.checksum is not None,
    )
    listener.stage("download")
    partial = fetch(address, target, patience=patience, listener=listener)
    listener.stage("verify")
    check = _verify_new(entry, partial, target, listener)
    partial.path.replace(target)
    partial.leave()
    return check


def _verify_new(entry: Download, partial: Partial, target: Path, listener: Listener) -> str:
    """How the file that has just arrived was verified; its SHA-256 is written beside it."""
    hashes = file_hashes(partial.path, _algorithms(entry), listener=listener)
    problem = _difference(entry, hashes)
    if entry.kind is not None and not is_kind(partial.path, entry.kind):
        problem = f"not a whole {entry.kind} file, but perhaps the page of a login or an error"
    if problem is not None:
        partial.forget()  # going on from wrong bytes would never end well
        remedy = entry.remedy(target.parent)
        raise DataError(f"{entry.url}: what arrived is {problem}. It was removed: run the command again. Or: {remedy}")
    write_note(target, hashes["sha256"])
    return _check(entry)


def _verify_old(entry: Download, target: Path, listener: Listener) -> str:
    """How the file that lay there was verified; nothing of the user's is removed."""
    listener.stage("verify")
    if not target.is_file() or (entry.kind is not None and not is_kind(target, entry.kind)):
        raise _not_ours(target, f"not a whole {entry.kind} file")
    hashes = file_hashes(target, _algorithms(entry), listener=listener)
    if (problem := _difference(entry, hashes)) is not None:
        raise _not_ours(target, problem)
    noted = read_note(target)
    if noted is None:
        write_note(target, hashes["sha256"])
        return _check(entry)
    if noted != hashes["sha256"]:
        raise _not_ours(target, f"not as it was downloaded (see {note_path(target).name})")
    return _check(entry) if entry.checksum is not None else f"unchanged since it was downloaded; {_check(entry)}"


def _not_ours(target: Path, problem: str) -> DataError:
    return DataError(f"{target}: is there already, and is {problem}. Move it away and run the command again.")


def _difference(entry: Download, hashes: Mapping[str, str]) -> str | None:
    """What tells the file from the published one; None when nothing does."""
    if entry.checksum is None:
        return None
    algorithm, published = parse_checksum(entry.checksum)
    if hashes[algorithm] == published:
        return None
    return f"not the published file ({algorithm} {hashes[algorithm]}, published {published})"


def _check(entry: Download) -> str:
    if entry.checksum is None:
        return "not verified: no checksum is published"
    return f"verified: {parse_checksum(entry.checksum)[0]} as published"


def _algorithms(entry: Download) -> set[str]:
    return {"sha256"} if entry.checksum is None else {"sha256", parse_checksum(entry.checksum)[0]}


def _unpacked_before(entry: Download, target: Path, unpacked: Path, listener: Listener) -> Downloaded:
    if not (unpacked.is_dir() and note_path(target).is_file()):
        raise DataError(
            f"{unpacked}: is there already, and was not unpacked from {target.name} by this command. "
            "Move it away, or give another folder with --out."
        )
    # The archive may be gone, to save space: the folder is whole, or it would not have this name.
    check = _verify_old(entry, target, listener) if target.exists() else "unpacked before"
    return Downloaded(unpacked, fetched=False, check=check)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Nobody else downloads to the same place meanwhile."""
    place = target.with_name(f".{target.name}.lock")
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{target}: another process is downloading it. Wait for it, or give another --out.") from None
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows keeps a file that is open
            place.unlink(missing_ok=True)
        lock.release()
