"""A multipart body, as it comes, into files with random names in a private folder; zips are unpacked into it.

Nothing of a client's file names reaches the disk. Bytes, files and members are counted as they come, whatever the body
or an archive says of their number. Whoever owns the folder deletes it, and all files with it.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from clearmargin.errors import ArchiveTooLarge, DataError, ImageError, one_line
from clearmargin.images.archive import members_of
from clearmargin.images.dicom import is_dicom
from clearmargin.images.read import SIGNATURE_BYTES, is_image
from clearmargin.web.errors import ApiError
from clearmargin.web.limits import ServeLimits
from clearmargin.web.work import ClientGone

FIELD = "files"
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                    },
                },
                "encoding": {FIELD: {"contentType": "application/octet-stream"}},
            }
        },
    }
}
"""Of a route that calls `receive`: its `openapi_extra`."""
_LONGEST_NAME = 500
"""Characters of a name that are kept, its end."""
_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_MAX_HEADERS, _MAX_HEADER_BYTES = 16, 16_384


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request, or a member of a zip of it."""

    name: str
    """As the client gave it, on one line; of a member `a.zip/b.png`. Never a path of this machine."""
    path: Path
    """Where its bytes are, under a random name."""
    refusal: str | None = None
    """Why it cannot be an image, where that is known already: a zip, or a member of one, that cannot be read."""


async def receive(request: Request, folder: Path, limits: ServeLimits) -> list[Upload]:
    """The files of the field `files`, in order, members of zips in the place of their zip.

    Args:
        request: whose body nobody has read.
        folder: private; the files are written there.
        limits: of the request.

    Raises:
        ApiError: not multipart, broken, no files, or above a limit.
        ClientGone: the client left before the end of the body.
    """
    body = _Body(_boundary(request), folder, limits)
    try:
        try:
            async for chunk in request.stream():
                body.write(chunk)
        except ClientDisconnect:
            raise ClientGone from None
        uploads = body.finish()
    finally:
        body.close()
    if not uploads:
        raise ApiError("unprocessable", f"the body has no field '{FIELD}' with a file; send each file under that name.")
    if any(_is_zip(upload) for upload in uploads):
        return await asyncio.to_thread(_unpack_zips, uploads, folder, limits)
    return uploads


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise ApiError("unsupported", "the body is not multipart/form-data; send files as a form does.")
    boundary = options.get(b"boundary")
    if not boundary:
        raise ApiError("bad_request", "the header Content-Type names no boundary.")
    return boundary


class _Body:
    """Takes the bytes of a body and writes its files."""

    def __init__(self, boundary: bytes, folder: Path, limits: ServeLimits) -> None:
        self._folder, self._limits = folder, limits
        self._uploads: list[Upload] = []
        self._file: BinaryIO | None = None
        self._room, self._parts, self._ended = 0, 0, False
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._take_field,
                    "on_header_value": self._take_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._take_data,
                    "on_part_end": self.close,
                    "on_end": self._end,
                },
                max_header_count=_MAX_HEADERS,
                max_header_size=_MAX_HEADER_BYTES,
            )
        except FormParserError:
            raise ApiError("bad_request", "the boundary of the body is too long.") from None

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes.

        Raises:
            ApiError: broken, or above a limit.
        """
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise ApiError("bad_request", "the body is not what multipart/form-data looks like.") from None

    def finish(self) -> list[Upload]:
        """The files, after the last bytes.

        Raises:
            ApiError: the body ends too early.
        """
        if not self._ended:
            raise ApiError("bad_request", "the body ends before its last boundary; send it again.")
        return self._uploads

    def close(self) -> None:
        """No more bytes of the file that is being written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._limits.max_files:
            raise too_many_files(self._limits)
        self._headers = {}

    def _take_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if options.get(b"name") != FIELD.encode():
            return
        path = self._folder / token_hex(16)
        self._file = new_file(path)
        self._room = self._limits.max_file_bytes
        self._uploads.append(Upload(shown_name(options.get(b"filename", b"")), path))

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            return
        self._room -= end - start
        if self._room < 0:
            raise file_too_large(self._limits)
        self._file.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True


def shown_name(raw: bytes) -> str:
    r"""The name that a client gave, on one line and not longer than a name is.

    >>> shown_name(b"a\nb.png")
    'a\\nb.png'
    """
    name = one_line(raw.decode("utf-8", "backslashreplace"))
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]


def new_file(path: Path) -> BinaryIO:
    """A new file that nobody else can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def too_many_files(limits: ServeLimits) -> ApiError:
    """What is said of more files than a request may have."""
    return ApiError("too_large", f"more than {limits.max_files:,} files; send fewer at a time.")


def file_too_large(limits: ServeLimits) -> ApiError:
    """What is said of a file above the limit."""
    return ApiError("too_large", f"a file has more than {limits.max_file_bytes:,} bytes; send smaller ones.")


def request_too_large(limits: ServeLimits) -> ApiError:
    """What is said of a body above the limit, as it came or unpacked."""
    return ApiError("too_large", f"more than {limits.max_request_bytes:,} bytes in all; send fewer files at a time.")


def _is_zip(upload: Upload) -> bool:
    if not upload.name.lower().endswith(".zip"):
        return False
    with upload.path.open("rb") as file:
        return file.read(4) in _ZIP_SIGNATURES


def _unpack_zips(uploads: list[Upload], folder: Path, limits: ServeLimits) -> list[Upload]:
    found: list[Upload] = []
    room = limits.max_request_bytes - sum(upload.path.stat().st_size for upload in uploads)
    for upload in uploads:
        if not _is_zip(upload):
            found.append(upload)
            continue
        unpacked = _unpack(upload, folder, limits, room)
        if unpacked[0].path != upload.path:
            upload.path.unlink()
        room -= sum(each.path.stat().st_size for each in unpacked if each.refusal is None)
        found += unpacked
        if len(found) > limits.max_files:
            raise too_many_files(limits)
    return found


def _unpack(upload: Upload, folder: Path, limits: ServeLimits, room: int) -> list[Upload]:
    """The images in a zip, in the order of their names; hidden ones and other files are passed over.

    Raises:
        ApiError: they are too many or too large.
    """
    found: list[Upload] = []
    try:
        with members_of(str(upload.path), limits.archive, each=limits.image) as (names, read):
            for parts in sorted(name.split("/") for name in names):
                member = "/".join(parts)
                if any(part.startswith(".") or part == "__MACOSX" for part in parts):
                    continue
                path, refusal = folder / token_hex(16), None
                try:
                    if not is_image(member) and not is_dicom(read(member, SIGNATURE_BYTES)):
                        continue
                    data = read(member, None)
                except ImageError as error:
                    if error.kind == "too_large":
                        raise file_too_large(limits) from None
                    data, refusal = b"", error.reason
                room -= len(data)
                if room < 0:
                    raise request_too_large(limits)
                with new_file(path) as file:
                    file.write(data)
                found.append(Upload(shown_name(posixpath.join(upload.name, member).encode()), path, refusal))
    except ArchiveTooLarge:
        raise ApiError("too_large", "a zip holds more than a request may; send fewer files at a time.") from None
    except DataError as error:
        return [Upload(upload.name, upload.path, str(error).removeprefix(f"{upload.path}: "))]
    return found or [Upload(upload.name, upload.path, "holds no image")]
