"""A bundle as one `.clearmargin` file: a zip archive of exactly its files, read in place and never unpacked.

Any program can list and unpack it. We read it ourselves, because there is one way only to write it: members one behind
another, stored, with a fixed time, nothing between them, before them or behind them. Every byte that is not content
follows from names, sizes and checksums, so it is computed and compared; a second directory, a hidden member, a size
that is a lie or a file that is something else as well cannot pass. Weights hardly shrink (7 % for 8 MB, which would
take 60 ms to inflate each time), so nothing is compressed, and nothing can swell.

The same contents give the same bytes. What is inside is verified by the list of hashes, as that of a folder.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from clearmargin.errors import BundleError, UsageError, one_line

SUFFIX = ".clearmargin"
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION = 20
_UNIX = 3 << 8
_DATE = 1 << 5 | 1
"""1 January 1980, the first day that a zip archive can name."""
_FILE = (stat.S_IFREG | 0o644) << 16
_ENCRYPTED = 0x1
_MOST_BYTES = 2**32 - 1
_MAX_DIRECTORY = 2**16


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of one file lie, how many they are and their CRC-32."""

    start: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A file whose members are known; their bytes are read when they are asked for."""

    path: Path
    members: Mapping[str, Member]

    def read(self, name: str, *, limit: int) -> bytes:
        """The bytes of a member.

        Raises:
            BundleError: no such member, above the limit, or changed.
        """
        if name not in self.members:
            raise BundleError(f"{self.path}: has no {name}. Copy the bundle anew.")
        member = self.members[name]
        if member.size > limit:
            raise BundleError(f"{self.path}/{name}: larger than the limit of {limit:,} bytes.")
        try:
            with self.path.open("rb") as file:
                file.seek(member.start)
                content = file.read(member.size)
        except OSError as error:
            raise BundleError(f"{self.path}: cannot be read ({error.strerror}). Copy the bundle anew.") from None
        if len(content) != member.size or zlib.crc32(content) != member.crc:
            raise BundleError(f"{self.path}/{name}: the bytes changed: the checksum is wrong. Copy the bundle anew.")
        return content


def pack_files(files: Mapping[str, bytes]) -> bytes:
    """The bytes of a single file, the same for the same files.

    Raises:
        UsageError: more than 4 GiB in all, which such a file cannot hold.
    """
    if sum(map(len, files.values())) + _MAX_DIRECTORY > _MOST_BYTES:
        raise UsageError("the bundle is larger than the 4 GiB that one file can hold; share its folder instead.")
    parts, directory, place = [], [], 0
    for name, content in sorted(files.items()):
        header, entry = _headers(name.encode("ascii"), len(content), zlib.crc32(content), place)
        parts += [header, content]
        directory.append(entry)
        place += len(header) + len(content)
    listed = b"".join(directory)
    return b"".join([*parts, listed, _end(len(directory), len(listed), place)])


def open_single_file(path: Path, allowed: Collection[str]) -> SingleFile:
    """The file with its members, whose bytes are not looked at yet.

    Args:
        path: of a regular file.
        allowed: the names that a member may have.

    Raises:
        BundleError: it is not written as one of ours; says where it differs.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_BYTES:
                raise _refused(path, "is larger than 4 GiB")
            file.seek(max(0, size - _END.size))
            end = file.read(_END.size)
            count, length, place = _read_end(path, end, size)
            if count > len(allowed) or length > _MAX_DIRECTORY:
                raise _refused(path, f"lists {count:,} members; a bundle has {len(allowed)} at most")
            file.seek(place)
            entries = _read_directory(path, file.read(length), count, allowed)
            members: dict[str, Member] = {}
            expected = 0
            for name, (bytes_in, crc, offset) in entries.items():
                header, _ = _headers(name.encode("ascii"), bytes_in, crc, offset)
                file.seek(offset)
                if offset != expected or file.read(len(header)) != header:
                    raise _refused(path, f"says of '{name}' in one place what it does not say in another")
                members[name] = Member(offset + len(header), bytes_in, crc)
                expected = offset + len(header) + bytes_in
            if expected != place:
                raise _refused(path, "holds bytes that belong to none of its members")
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}). Copy the bundle anew.") from None
    return SingleFile(path, members)


def _headers(name: bytes, size: int, crc: int, offset: int) -> tuple[bytes, bytes]:
    """What stands before a member, and its entry in the directory."""
    about = (0, 0, 0, _DATE, crc, size, size, len(name), 0)
    local = _LOCAL.pack(b"PK\x03\x04", _VERSION, *about)
    central = _CENTRAL.pack(b"PK\x01\x02", _UNIX | _VERSION, _VERSION, *about, 0, 0, 0, _FILE, offset)
    return local + name, central + name


def _end(count: int, length: int, place: int) -> bytes:
    return _END.pack(b"PK\x05\x06", 0, 0, count, count, length, place, 0)


def _read_end(path: Path, end: bytes, size: int) -> tuple[int, int, int]:
    """How many members there are, and length and place of their list."""
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06"):
        raise _refused(path, "is cut off, longer than it was, or of another kind")
    _, _, _, count, _, length, place, _ = _END.unpack(end)
    if end != _end(count, length, place):
        raise _refused(path, "says of its members in one place what it does not say in another")
    if place + length + _END.size != size:
        raise _refused(path, "is longer or shorter than it says: bytes were lost, or put before it")
    return count, length, place


def _read_directory(path: Path, listed: bytes, count: int, allowed: Collection[str]) -> dict[str, tuple[int, int, int]]:
    """Size, checksum and place of each member."""
    entries: dict[str, tuple[int, int, int]] = {}
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(listed):
            raise _refused(path, "ends in the middle of the list of its members")
        fields = _CENTRAL.unpack_from(listed, at)
        flags, method, crc, size, named, attributes, offset = *fields[3:5], *fields[7:8], *fields[9:11], *fields[15:17]
        name = listed[at + _CENTRAL.size : at + _CENTRAL.size + named].decode("ascii", errors="backslashreplace")
        shown = one_line(name)[:100]
        if name not in allowed:
            raise _refused(path, f"holds '{shown}', which is no file of a bundle")
        if name in entries:
            raise _refused(path, f"holds '{shown}' twice")
        if flags & _ENCRYPTED:
            raise _refused(path, "is encrypted")
        if method != 0:
            raise _refused(path, f"holds '{shown}' compressed")
        if attributes != _FILE:
            raise _refused(path, f"holds '{shown}' as something else than a plain file")
        _, entry = _headers(name.encode("ascii"), size, crc, offset)
        if listed[at : at + len(entry)] != entry:
            raise _refused(path, f"describes '{shown}' in another way")
        entries[name] = (size, crc, offset)
        at += len(entry)
    if at != len(listed):
        raise _refused(path, "holds bytes that belong to none of its members")
    return entries


def _refused(path: Path, why: str) -> BundleError:
    return BundleError(f"{path}: is not written as a {SUFFIX} file is: it {why}. Copy it anew, or make it with export.")
