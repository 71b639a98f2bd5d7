"""One file over http, whatever happens on the way: cut, slow, moved, changed, interrupted.

What has arrived lies in FILE.partial, with what the server said of it in FILE.partial.json; the next call goes on from
there if the server still has the same file, and from the start if not. Whether the whole is the right file is for
`verify.py` to say.
"""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from clearmargin.data.download.catalogue import size_text
from clearmargin.data.download.connection import Address, NothingBeyond, Trouble, open_file, parse_number, read_some
from clearmargin.errors import DataError
from clearmargin.files import disk_errors, write_json
from clearmargin.types import Listener

_CHUNK = 2**18
_PROGRESS = 2**20  # bytes that a try must add to count as getting somewhere


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server, and how often to ask again in vain before giving up."""

    tries: int = 5
    timeout_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep


DEFAULT_PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class _Version:
    """What tells one version of a file from the next."""

    url: str
    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """What If-Range takes: a strong ETag, or a date."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        said = self.etag if strong else self.modified
        return said if said is not None and said.isascii() and said.isprintable() else None

    def completed(self, older: _Version) -> _Version:
        """What the older answer said and this one does not repeat, added."""
        return _Version(self.url, self.etag or older.etag, self.modified or older.modified, self.total or older.total)

    def may_be(self, other: _Version) -> bool:
        """Nothing that both know differs."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified), (self.total, other.total))
        return all(one is None or two is None or one == two for one, two in pairs)


class Partial:
    """The bytes that have arrived so far, and of which version of the file they are."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.partial")
        self._facts = target.with_name(f"{target.name}.partial.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def recall(self, address: Address) -> _Version | None:
        """The version that the bytes are of; None when there are none to go on from."""
        try:
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
            version = _Version(facts["url"], facts["etag"], facts["modified"], facts["total"])
            known = version.validator is not None or address.checksummed
            fits = version.total is None or self.size <= version.total
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # no facts, or damaged ones
        return version if version.url == address.url and known and fits and self.size else None

    def remember(self, version: _Version) -> None:
        write_json(self._facts, asdict(version))

    def forget(self) -> None:
        """Takes both files away."""
        self.path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Takes away what was only needed to go on."""
        self._facts.unlink(missing_ok=True)


def fetch(
    address: Address, target: Path, *, patience: Patience = DEFAULT_PATIENCE, listener: Listener = Listener()
) -> Partial:
    """The whole file, under its partial name beside `target`; the caller verifies and renames it.

    Raises:
        DataError: not there, not allowed, no connection, larger than it can be, no room; what has arrived is kept
            where going on makes sense.
    """
    assert urlsplit(address.url).scheme in ("http", "https"), address.url
    partial = Partial(target)
    with disk_errors(target):
        _try_often(address, partial, patience, listener)
    return partial


def _try_often(address: Address, partial: Partial, patience: Patience, listener: Listener) -> None:
    begun = furthest = partial.size
    failures = 0
    while True:
        try:
            return _try_once(address, partial, patience, listener)
        except Trouble as trouble:
            if partial.size >= furthest + _PROGRESS:
                failures = 0
            furthest = max(furthest, partial.size)
            failures += 1
            if failures >= patience.tries or (trouble.offline and furthest == begun):
                raise DataError(_given_up(address, partial, trouble, failures)) from None
            wait_s = 2.0 ** (failures - 1) if trouble.wait_s is None else trouble.wait_s
            listener.note(f"{trouble}; asking again in {wait_s:g} s")
        patience.sleep(wait_s)


def _given_up(address: Address, partial: Partial, trouble: Trouble, tries: int) -> str:
    kept = f" {size_text(partial.size)} are kept; the same command goes on from there." if partial.size else ""
    often = f", {tries} times in a row" if tries > 1 else ""
    return f"{address.url}: {trouble}{often}.{kept} {address.remedy}"


def _try_once(address: Address, partial: Partial, patience: Patience, listener: Listener) -> None:
    """Brings the partial file to its end.

    Raises:
        Trouble: another try may help.
    """
    before = partial.recall(address)
    if before is not None and before.total == partial.size:
        return  # stopped between the last byte and the rename
    have = partial.size if before is not None else 0
    validator = None if before is None else before.validator
    try:
        response = open_file(address, start=have, validator=validator, timeout_s=patience.timeout_s)
    except NothingBeyond as answer:
        if have and answer.total == have:
            return
        partial.forget()
        raise Trouble("the file has changed on the server, starting again", wait_s=0) from None
    with response:
        version, start = _described(address, response)
        if start:
            if before is None or start != have or not before.may_be(version):
                partial.forget()
                raise Trouble("the file has changed on the server, starting again", wait_s=0)
            version = version.completed(before)
        _check_size(address, partial, version, start)
        if not start:
            partial.path.write_bytes(b"")  # before its facts: never new facts of old bytes
        partial.remember(version)
        done = _copy(address, partial, response, (start, version.total), listener)
    if version.total is not None and done != version.total:
        if done > version.total:
            partial.forget()
        raise Trouble(f"the connection ended after {done:,} of {version.total:,} bytes")


def _copy(
    address: Address,
    partial: Partial,
    response: http.client.HTTPResponse,
    extent: tuple[int, int | None],
    listener: Listener,
) -> int:
    done, total = extent
    with partial.path.open("ab") as file:
        while chunk := read_some(response, _CHUNK):
            file.write(chunk)
            done += len(chunk)
            if done > address.max_bytes:
                file.close()
                partial.forget()
                raise _too_large(address, f"more than {size_text(address.max_bytes)}")
            if total:
                listener.advance(min(done, total), total)
    return done


def _described(address: Address, response: http.client.HTTPResponse) -> tuple[_Version, int]:
    """Which version the answer is of, and at which byte it starts."""
    headers = response.headers
    start, total = 0, parse_number(headers.get("Content-Length"))
    if response.status == 206:
        unit, _, rest = (headers.get("Content-Range") or "").partition(" ")
        extent, _, whole = rest.partition("/")
        first = parse_number(extent.partition("-")[0])
        if unit != "bytes" or first is None:
            raise Trouble("the server does not say which part of the file it sends")
        start, total = first, parse_number(whole)
    return _Version(address.url, headers.get("ETag"), headers.get("Last-Modified"), total), start


def _check_size(address: Address, partial: Partial, version: _Version, start: int) -> None:
    if version.total is None:
        return
    if version.total > address.max_bytes:
        raise _too_large(address, size_text(version.total))
    room, needed = shutil.disk_usage(partial.path.parent).free, version.total - start
    if start == 0:
        room += partial.size  # it will be overwritten
    if needed > room:
        raise DataError(
            f"{partial.path.parent}: {size_text(needed)} more are needed and {size_text(room)} are free. "
            "Free some space, or give another disk with --out."
        )


def _too_large(address: Address, what: str) -> DataError:
    return DataError(f"{address.url}: the server would send {what}, far more than the data set has. {address.remedy}")
