"""One pass over every image of a manifest: content hash, size, true format, how it looks, or why it cannot be used.

Every image is decoded whole, because a file that is cut short shows it only then. Bounded by the decode
rate; memory is bounded by one chunk of files a thread and about a kilobyte an image for what is kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.data.audit.measure import MEASURES, measure_image
from clearmargin.data.audit.neighbours import THUMBNAIL_PX
from clearmargin.data.audit.similar import fine_thumbnail, thumbnail
from clearmargin.errors import ImageError
from clearmargin.images.breast import find_breast
from clearmargin.images.read import read_encoded
from clearmargin.types import Listener

_CHUNK = 256
_SMALL_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one file turned out to be; `kind` and `reason` are empty for a usable image."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    kind: str = ""
    reason: str = ""
    file_bytes: int = 0
    channels: int = 0
    bit_depth: int = 0
    edge: str = ""
    """The edge that the breast comes in from, `left` or `right`, where it was looked for and found."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The results in the order of the paths given.

    `measures` is (N, len(MEASURES)) float32, `thumbnails` (N, THUMBNAIL_PX, THUMBNAIL_PX) uint8; both are zero
    where a file cannot be used. `fine` holds the finer thumbnail of each image that is large enough for one.
    """

    files: tuple[Scanned, ...]
    measures: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]
    fine: tuple[NDArray[np.uint8] | None, ...]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) the file decodes to an image."""
        return np.fromiter((not file.kind for file in self.files), dtype=bool, count=len(self.files))

    def facts(self) -> pd.DataFrame:
        """One row an image that can be used: file_bytes, format, channels, bit_depth, edge, and those of MEASURES."""
        usable = self.usable
        good = [file for file in self.files if not file.kind]
        table = {
            "file_bytes": np.array([file.file_bytes for file in good], dtype=np.int64),
            "format": [file.format for file in good],
            "channels": np.array([file.channels for file in good], dtype=np.int8),
            "bit_depth": np.array([file.bit_depth for file in good], dtype=np.int8),
            "edge": pd.Series([file.edge for file in good], dtype="str"),
        }
        measures = self.measures[usable]
        return pd.DataFrame(table | {name: measures[:, place] for place, name in enumerate(MEASURES)})


def scan_images(
    paths: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    mammograms: bool = False,
    listener: Listener = Listener(),
) -> Scan:
    """Reads and decodes every file; a failure is a result, not an error.

    Args:
        paths: where the images are.
        names: what they are called in reasons; the paths when None.
        mammograms: look for the breast.
        listener: hears the progress.
    """
    called = paths if names is None else names
    measures = np.zeros((len(paths), len(MEASURES)), dtype=np.float32)
    thumbnails = np.zeros((len(paths), THUMBNAIL_PX, THUMBNAIL_PX), dtype=np.uint8)

    fine: list[NDArray[np.uint8] | None] = [None] * len(paths)

    def scan_chunk(rows: range) -> list[Scanned]:
        return [scan_file(row) for row in rows]

    def scan_file(row: int) -> Scanned:
        try:
            encoded = read_encoded(paths[row])
            image = encoded.decode()
        except ImageError as error:
            return Scanned(kind=error.kind, reason=error.reason.replace(paths[row], called[row]))
        pixels = image.pixels
        measures[row] = measure_image(pixels)
        thumbnails[row] = thumbnail(pixels)
        fine[row] = fine_thumbnail(pixels)
        breast = find_breast(pixels) if mammograms else None
        height, width, channels = pixels.shape
        return Scanned(
            encoded.sha256,
            width,
            height,
            image.format,
            file_bytes=len(encoded.data),
            channels=channels,
            bit_depth=8 * pixels.itemsize,
            edge="" if breast is None else breast[1],
        )

    chunks = [range(start, min(start + _CHUNK, len(paths))) for start in range(0, len(paths), _CHUNK)]
    files: list[Scanned] = []
    with ThreadPoolExecutor(_count_threads(paths)) as pool:
        try:
            for results in pool.map(scan_chunk, chunks):
                files += results
                listener.advance(len(files), len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Scan(tuple(files), measures, thumbnails, tuple(fine))


def _count_threads(paths: Sequence[str]) -> int:
    """One for small files, whose decoding is so short that threads mostly wait for the interpreter's lock.

    Measured on 2 cores with patches of 50 × 50: 4,450 images/s with one thread, 2,780 with two.
    """
    sizes = []
    for path in paths[:: max(1, len(paths) // 32)]:
        try:
            sizes.append(os.stat(path).st_size)
        except (OSError, ValueError):  # a member of an archive, or no file at all
            continue
    small = not sizes or sorted(sizes)[len(sizes) // 2] < _SMALL_BYTES
    return 1 if small else os.cpu_count() or 1
