"""Every layout of images on disk that Clearmargin reads, recognised by looking at it.

A new data set is one file here and one line in SOURCES. The first entry that recognises a path reads
it, so the most particular layouts come first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clearmargin.data.manifest import Manifest, set_patients
from clearmargin.data.sources import csv, folder, idc
from clearmargin.errors import DataError, UnknownName
from clearmargin.images.file_names import written_name


@dataclass(frozen=True, slots=True)
class Source:
    """One layout: what it looks like, whether a path is one, and how to read it."""

    summary: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Manifest]


SOURCES: dict[str, Source] = {
    "csv": Source("a CSV or Parquet file with at least path,label", csv.recognises, csv.read),
    "idc": Source("<patient>/<0|1>/<patient>_idx5_x<X>_y<Y>_class<C>.png", idc.recognises, idc.read),
    "folder": Source(
        "benign/ and malignant/ (or 0/ and 1/), also under train/, val/, test/", folder.recognises, folder.read
    ),
}


def read_source(data: Path | str, *, source: str | None = None, patient_regex: str | None = None) -> Manifest:
    """The manifest of whatever lies at `data`.

    Args:
        data: a folder or a file.
        source: a key of SOURCES; None recognises it.
        patient_regex: takes patient_id from each path, see `set_patients`.

    Raises:
        DataError: nothing there, nothing recognised, or not one labelled image.
        UnknownName: no such source.
    """
    path = Path(os.path.abspath(data))
    if source is not None and source not in SOURCES:
        raise UnknownName("source", source, SOURCES)
    if written_name(str(path)) != str(path):
        raise DataError(f"{data}: a folder whose name is not Unicode cannot be written down. Rename it.")
    if not os.path.exists(path):
        raise DataError(f"{data}: no such file or folder. Give the folder that holds your images.")
    name = source or next((name for name, entry in SOURCES.items() if entry.recognises(path)), None)
    if name is None:
        raise DataError(_unrecognised(path))
    manifest = SOURCES[name].read(path)
    return manifest if patient_regex is None else set_patients(manifest, patient_regex)


def _unrecognised(path: Path) -> str:
    if path.is_file():
        return (
            f"{path}: not a manifest. Give a folder of images, or a .csv or .parquet file with the columns path,label."
        )
    return f"{path}: {folder.describe_content(path)} {folder.ADVICE}"
