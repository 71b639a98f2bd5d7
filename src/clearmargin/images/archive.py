"""Members of .zip files, read in place: nothing is unpacked, so nothing can land elsewhere.

An archive is refused whole when a name in it leads outside, when it is encrypted or when it would unpack to
more than the limits. A member's bytes are counted as they come, whatever the archive says of their number; for
that it must be stored or deflated, because Python unpacks the other methods without a bound.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from clearmargin.errors import ArchiveTooLarge, DataError, ImageError, one_line
from clearmargin.images.limits import Limits
from clearmargin.images.place import split_archive

_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# struct.error and IndexError: an entry of the list of members that ends early. UserWarning: where warnings are errors.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, IndexError),
    *(NotImplementedError, RuntimeError, UserWarning),
)
_KEPT_OPEN = 4


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may hold at most."""

    max_members: int = 2_000_000
    max_total_bytes: int = 1 << 40
    max_array_bytes: int = 2 << 30
    """Of one array of an .npz file, which is held in memory."""
    max_directory_bytes: int = 128 << 20
    """Of the list of members, which is read whole and takes some ten times as much memory."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An open archive: its members by name, directories and links not among them."""

    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]


_Opened = TypeVar("_Opened")


class Kept:
    """The last few things opened, by path, time and size of the file; a changed file is opened anew."""

    def __init__(self) -> None:
        self._entries = OrderedDict[tuple[object, ...], object]()
        self._lock = threading.RLock()  # an .npz file within a .zip file opens that one first

    def get(self, path: str, key: str, build: Callable[[], _Opened]) -> _Opened:
        within = split_archive(path)
        try:
            status = os.stat(path if within is None else within[0])
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be opened ({getattr(error, 'strerror', error)}).") from None
        full = (path, key, status.st_ino, status.st_mtime_ns, status.st_size, os.getpid())
        with self._lock:
            if full not in self._entries:
                self._entries[full] = build()
                while len(self._entries) > _KEPT_OPEN:
                    self._entries.popitem(last=False)
            self._entries.move_to_end(full)
            return self._entries[full]  # type: ignore[return-value]


_archives = Kept()


def is_zip(path: str | os.PathLike[str]) -> bool:
    """A file that ends in .zip."""
    return os.path.splitext(path)[1].lower() == ".zip" and os.path.isfile(path)


def list_members(path: str, limits: ArchiveLimits = ArchiveLimits()) -> list[str]:
    """Names of the files in a .zip file, with forward slashes, in the archive's order.

    Raises:
        DataError: not a zip, damaged, encrypted, too large, or with a name that leads outside.
    """
    return list(open_archive(path, limits).members)


def read_member(
    path: str,
    member: str,
    limits: Limits,
    archive_limits: ArchiveLimits = ArchiveLimits(),
    *,
    at_most: int | None = None,
) -> bytes:
    """The bytes of a member of a .zip file.

    With `at_most`, the first bytes of a member of any size; no more of it is unpacked.

    Raises:
        ImageError: no such member, damaged, or above `limits.max_bytes`.
        DataError: the archive as a whole cannot be used.
    """
    return _read(open_archive(path, archive_limits), member, one_line(f"{path}/{member}"), limits, at_most)


def _read(archive: Archive, member: str, name: str, limits: Limits, at_most: int | None) -> bytes:
    info = archive.members.get(member)
    if info is None:
        raise ImageError("missing", name, "no such member in the archive")
    wanted = info.file_size + 1 if at_most is None else at_most
    whole = wanted >= info.file_size
    if whole and info.file_size > limits.max_bytes:
        raise ImageError("too_large", name, f"{info.file_size:,} bytes, more than the limit of {limits.max_bytes:,}")
    try:
        with archive.file.open(info) as stream:
            data = stream.read(wanted)
    except DAMAGE as error:
        raise ImageError("unreadable", name, f"is damaged in the archive ({reason(error)})") from None
    if whole and len(data) != info.file_size:
        raise ImageError("unreadable", name, "unpacks to another size than the archive says")
    if not data:
        raise ImageError("empty", name, "the file is empty (0 bytes)")
    return data


ReadMember = Callable[[str, int | None], bytes]
"""From a member's name, and how many bytes of it at most, to its bytes; raises ImageError as `read_member` does."""


@contextmanager
def members_of(path: str, limits: ArchiveLimits, *, each: Limits) -> Iterator[tuple[list[str], ReadMember]]:
    """The names of the files in a .zip file, and what reads one of them; the archive is closed at the end.

    For archives that are read once and deleted: none of it is kept, whatever the file is called.

    Args:
        path: of the file.
        limits: of the archive.
        each: of one member.

    Raises:
        ArchiveTooLarge: more than the limits.
        DataError: not a zip, damaged, encrypted, or with a name that leads outside.
    """
    archive = _open(path, path, limits)
    try:
        yield list(archive.members), lambda member, at_most: _read(archive, member, one_line(member), each, at_most)
    finally:
        archive.file.close()


def has_member(path: str, member: str, limits: ArchiveLimits = ArchiveLimits()) -> bool:
    """Whether the .zip file has a member of exactly this name; False where it cannot be read.

    Its other functions say why it cannot.
    """
    try:
        return member in open_archive(path, limits).members
    except DataError:
        return False


class _Source(io.BufferedReader):
    """The bytes of an archive, never more of them at once than `most`, which is None where anything goes."""

    most: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        # Without a size it is asked for the last bytes of the file, which are few.
        if self.most is not None and size is not None and size > self.most:
            raise zipfile.BadZipFile("its list of members is too long")
        return super().read(size)


class _ZipFile(zipfile.ZipFile):
    """An archive on disk or in memory, whose list of members is read within limits; it closes the file with itself."""

    def __init__(self, file: str | bytes, limits: ArchiveLimits) -> None:
        self._source = _Source(io.FileIO(file) if isinstance(file, str) else io.BytesIO(file))
        self._source.most = limits.max_directory_bytes
        try:
            super().__init__(self._source)
        except BaseException:
            self._source.close()
            raise
        self._source.most = None

    def close(self) -> None:
        super().close()
        self._source.close()


def open_archive(path: str, limits: ArchiveLimits) -> Archive:
    """The archive at the path, which may lie in a .zip file, opened now or a moment ago.

    Raises:
        DataError: it cannot be used as a whole.
    """

    def build() -> Archive:
        within = split_archive(path)
        return _open(path if within is None else read_member(*within, Limits(), limits), path, limits)

    return _archives.get(path, "", build)


def _open(file: str | bytes, path: str, limits: ArchiveLimits) -> Archive:
    try:
        opened = _ZipFile(file, limits)
    except DAMAGE as error:
        raise DataError(f"{path}: not a zip archive, or only part of one ({reason(error)}). Fetch it again.") from None
    try:
        return Archive(opened, _checked_members(opened, path, limits))
    except DataError:
        opened.close()
        raise


def _checked_members(file: zipfile.ZipFile, path: str, limits: ArchiveLimits) -> dict[str, zipfile.ZipInfo]:
    entries = file.infolist()
    if len(entries) > limits.max_members:
        raise ArchiveTooLarge(f"{path}: {len(entries):,} members, more than the limit of {limits.max_members:,}.")
    total = sum(entry.file_size for entry in entries)
    if total > limits.max_total_bytes:
        raise ArchiveTooLarge(f"{path}: unpacks to {total:,} bytes, more than the limit of {limits.max_total_bytes:,}.")
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename.replace("\\", "/")  # some writers on Windows leave them
        shown = one_line(name)[:200]
        if _leads_outside(name):
            raise DataError(f"{path}: the member '{shown}' leads outside the archive. Do not trust this file.")
        if name.endswith("/") or stat.S_ISLNK(entry.external_attr >> 16):
            continue
        if entry.flag_bits & _ENCRYPTED:
            raise DataError(f"{path}: is encrypted ('{shown}'). Unpack it, and give the folder.")
        if entry.compress_type not in _METHODS:
            raise DataError(f"{path}: '{shown}' is neither stored nor deflated. Unpack it, and give the folder.")
        name = posixpath.normpath(name)
        if name == ".":
            raise DataError(f"{path}: a member has no name. Unpack it, and give the folder.")
        if name in members:
            raise DataError(f"{path}: two members are called '{shown}'. Unpack it, and give the folder.")
        members[name] = entry
    return members


def _leads_outside(name: str) -> bool:
    """The name, with forward slashes, is absolute, has a drive or climbs."""
    return name.startswith("/") or name[1:2] == ":" or ".." in name.split("/")


def reason(error: BaseException) -> str:
    """What an error of a library says, on one line."""
    return one_line(" ".join(str(error).split())[:200]) or type(error).__name__
