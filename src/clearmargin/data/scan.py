"""One pass over every file of a manifest: content hash, size, true format, and why it cannot be used.

Every image is decoded whole, because a file that is cut short shows it only then. Bounded by the decode
rate; memory is bounded by one chunk of files a thread, not by the data.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import ImageError
from clearmargin.images.read import decode_image, read_bytes
from clearmargin.types import Listener

_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one file turned out to be; `kind` and `reason` are empty for a usable image."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    kind: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """The results in the order of the paths given."""

    files: tuple[Scanned, ...]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) the file decodes to an image."""
        return np.fromiter((not file.kind for file in self.files), dtype=bool, count=len(self.files))


def scan_images(paths: Sequence[str], *, listener: Listener = Listener()) -> Scan:
    """Reads and decodes every file; a failure is a result, not an error."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    files: list[Scanned] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for results in pool.map(lambda chunk: [_scan_file(path) for path in chunk], chunks):
                files += results
                listener.advance(len(files), len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Scan(tuple(files))


def _scan_file(path: str) -> Scanned:
    digest = ""
    try:
        data = read_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        image = decode_image(data, path)
    except ImageError as error:
        return Scanned(sha256=digest, kind=error.kind, reason=error.reason)
    height, width = image.pixels.shape[:2]
    return Scanned(digest, width, height, image.format)
