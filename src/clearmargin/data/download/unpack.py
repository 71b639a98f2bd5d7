"""A hostile or damaged .tar.gz does no harm: only plain files, only inside, only as many and as large as is plausible.

Some archives come over plain http without a published checksum, so nothing in them is trusted.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clearmargin.errors import DataError
from clearmargin.files import disk_errors, make_folder
from clearmargin.types import Listener

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What an archive may grow to: images are hardly smaller packed, scans of film a tenth."""

    max_files: int = 200_000
    max_ratio: int = 30
    spare_bytes: int = 64 * 2**20


def unpack_tar(
    archive: Path, folder: Path, *, limits: UnpackLimits = UnpackLimits(), listener: Listener = Listener()
) -> int:
    """The number of files unpacked into `folder`, which is there whole afterwards or not at all.

    Modes, owners and times of the archive are not taken over.

    Raises:
        DataError: damaged, hostile, larger than the limits, empty; the disk is full or not writable.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
        make_folder(partial)
        try:
            with _damage(archive):
                count = _unpack(archive, partial, limits, listener)
            if not count:
                raise DataError(f"{archive}: holds no file. Delete it and download it again.")
            partial.replace(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return count


def _unpack(archive: Path, folder: Path, limits: UnpackLimits, listener: Listener) -> int:
    size = archive.stat().st_size
    max_bytes = limits.spare_bytes + limits.max_ratio * size
    members = count = 0
    with archive.open("rb") as raw, gzip.GzipFile(fileobj=raw, mode="rb") as plain:
        stream = _Bounded(plain, max_bytes, archive)
        with tarfile.TarFile(fileobj=stream, mode="r", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[arg-type]
            for member in tar:
                members += 1
                tar.members.clear()  # type: ignore[attr-defined]  # it keeps every entry otherwise
                if members > limits.max_files:
                    raise _refused(archive, f"more than {limits.max_files:,} entries")
                target = _target(archive, member, folder)
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                count += 1
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None
                with content, target.open("xb") as file:
                    shutil.copyfileobj(content, file, _CHUNK)
                listener.advance(raw.tell(), size)
        while stream.read(_CHUNK):  # to the end, where gzip keeps the checksum
            pass
    return count


def _target(archive: Path, member: tarfile.TarInfo, folder: Path) -> Path:
    """Where a member belongs, which is always inside the folder."""
    name = member.name
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise _refused(archive, f"'{name}' is a link, a device or sparse, not a plain file")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or Path(name).drive:
        raise _refused(archive, f"'{name}' would be written outside the folder")
    if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and later: its checks on top of ours
        try:
            tarfile.data_filter(member, str(folder))
        except tarfile.FilterError as error:
            raise _refused(archive, str(error)) from None
    return folder.joinpath(*path.parts)


class _Bounded:
    """The unpacked bytes of an archive, no more in all, and at once, than an honest one has.

    tarfile reads the long headers of pax and GNU in one piece, however long they claim to be.
    """

    def __init__(self, stream: gzip.GzipFile, max_bytes: int, archive: Path) -> None:
        self._stream, self._max_bytes, self._archive = stream, max_bytes, archive

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > 2 * _CHUNK:
            raise _refused(self._archive, "an entry has an enormous header")
        content = self._stream.read(size)
        self._check(self._stream.tell())
        return content

    def seek(self, position: int) -> int:
        self._check(position)
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, position: int) -> None:
        if position > self._max_bytes:
            raise _refused(self._archive, f"unpacks to more than {self._max_bytes:,} bytes, far more than it should")


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise _refused(archive, f"'{Path(str(error.filename)).name}' is in it twice") from None
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, UnicodeError, ValueError) as error:
        raise DataError(f"{archive}: damaged ({error}). Delete it and download it again.") from None


def _refused(archive: Path, reason: str) -> DataError:
    return DataError(f"{archive}: not unpacked: {reason}. Delete it, and look at its page for a better copy.")
