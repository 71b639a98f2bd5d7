"""Every layout of images on disk that Clearmargin reads, recognised by looking at it.

A new data set is one file here and one line in SOURCES. The first entry that recognises a path reads
it, so the most particular layouts come first. Wherever a folder is read, a .zip file of it is, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from clearmargin.data.manifest import Manifest, set_patients
from clearmargin.data.sources import breakhis, busi, cbis_ddsm, csv, dicom, folder, idc, medmnist, mias, pcam
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.walk import is_tree
from clearmargin.errors import DataError, UnknownName, UsageError
from clearmargin.images.file_names import written_name


@dataclass(frozen=True, slots=True)
class Source:
    """One layout: what it looks like, whether a path is one, how to read it, and which options it takes."""

    summary: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, SourceOptions], Manifest]
    options: tuple[str, ...] = ()


SOURCES: dict[str, Source] = {
    "csv": Source("a CSV or Parquet file with at least path,label", csv.recognises, csv.read),
    "idc": Source("<patient>/<0|1>/<patient>_idx5_x<X>_y<Y>_class<C>.png", idc.recognises, idc.read),
    "breakhis": Source(
        "SOB_<B|M>_<type>-<year>-<slide>-<magnification>-<number>.png",
        breakhis.recognises,
        breakhis.read,
        ("magnification",),
    ),
    "busi": Source("benign (1).png with benign (1)_mask.png", busi.recognises, busi.read, ("view", "normal")),
    "mias": Source("mdb001.pgm with Info.txt", mias.recognises, mias.read, ("view", "normal")),
    "medmnist": Source("breastmnist.npz", medmnist.recognises, medmnist.read),
    "pcam": Source("train/<id>.tif with train_labels.csv", pcam.recognises, pcam.read),
    "cbis_ddsm": Source(
        "CBIS-DDSM of Kaggle or TCIA, with its case description tables", cbis_ddsm.recognises, cbis_ddsm.read, ("view",)
    ),
    "dicom": Source(
        "DICOM mammograms or ultrasound, with a CSV of labels or class folders",
        dicom.recognises,
        dicom.read,
        ("labels", "frame", "normal"),
    ),
    "folder": Source(
        "benign/ and malignant/ (or 0/ and 1/), also under train/, val/, test/",
        folder.recognises,
        folder.read,
        ("normal",),
    ),
}


def read_source(
    data: Path | str,
    *,
    source: str | None = None,
    patient_regex: str | None = None,
    options: SourceOptions = SourceOptions(),
) -> Manifest:
    """The manifest of whatever lies at `data`.

    Args:
        data: a folder, a .zip file of one, or a file.
        source: a key of SOURCES; None recognises it.
        patient_regex: takes patient_id from each path, see `set_patients`.
        options: choices that only some sources know.

    Raises:
        DataError: nothing there, nothing recognised, or not one labelled image.
        UnknownName: no such source.
        UsageError: an option that this source does not take.
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
    _check_options(name, options)
    manifest = SOURCES[name].read(path, options)
    return manifest if patient_regex is None else set_patients(manifest, patient_regex)


def _check_options(name: str, options: SourceOptions) -> None:
    for entry in fields(options):
        if getattr(options, entry.name) != entry.default and entry.name not in SOURCES[name].options:
            takers = [other for other, source in SOURCES.items() if entry.name in source.options]
            raise UsageError(
                f"--{entry.name} is for data of the source {', '.join(takers)}; these are read as '{name}'. "
                "Leave it out, or name the source with --source."
            )


def _unrecognised(path: Path) -> str:
    if is_tree(path):
        return f"{path}: {folder.describe_content(path)} {folder.ADVICE}"
    return (
        f"{path}: not a data set. Give a folder of images, a .zip file of one, or a .csv or .parquet file with the "
        "columns path,label."
    )
