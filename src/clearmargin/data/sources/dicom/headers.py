"""Which files of a tree are DICOM, by their content, and what their headers say, without reading their pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clearmargin.errors import ImageError
from clearmargin.images.dicom.tags import DicomTags, read_dicom_tags
from clearmargin.images.read import read_bytes, starts_like_dicom

_HEAD_BYTES = (1 << 16, 1 << 22, None)
"""Headers are a few kilobytes; one with a preview or private data has more. None is the whole file."""


@dataclass(frozen=True, slots=True)
class Header:
    """A DICOM file, as seen from the root; `tags` is None where the header cannot be read."""

    name: str
    tags: DicomTags | None


def read_headers(root: Path, names: Sequence[str]) -> Iterator[Header]:
    """The headers of those files that are DICOM, in the order of the names.

    A file that ends in .dcm is one, whatever its content: where that cannot be read, it has no tags.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for header in pool.map(lambda name: _read_header(root, name), names, chunksize=64):
                if header is not None:
                    yield header
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _read_header(root: Path, name: str) -> Header | None:
    if starts_like_dicom(root / name):
        return Header(name, _read_tags(root / name))
    return Header(name, None) if is_named_dicom(name) else None


def _read_tags(path: Path) -> DicomTags | None:
    for at_most in _HEAD_BYTES:
        try:
            data = read_bytes(path, at_most=at_most)
            tags = read_dicom_tags(data, str(path))
        except ImageError as error:
            if error.kind != "truncated":
                return None
        else:
            if tags.rows is not None or at_most is None or len(data) < at_most:
                return tags
    return None


def is_named_dicom(name: str) -> bool:
    """The name ends like that of a DICOM file."""
    return name.lower().endswith((".dcm", ".dicom"))
