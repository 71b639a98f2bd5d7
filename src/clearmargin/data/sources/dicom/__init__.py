"""Folders of mammography and ultrasound in DICOM files, whatever the files and folders are called.

What is DICOM is told by the content. Patient, breast, view and scanner are those of the header, of which nothing
else is read; a missing PatientID stays missing. Labels come from a table (`labels.py`), given with --labels
or lying beside the files, and without one from folders named for a class.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.dicom.findings import left_out_findings, looks_findings, rest_findings, table_findings
from clearmargin.data.sources.dicom.headers import is_named_dicom, read_headers
from clearmargin.data.sources.dicom.labels import find_label_table, look_up, read_label_table, top_folder
from clearmargin.data.sources.dicom.sorting import CONTENT_OF_MODALITY, DicomImage, sort_files
from clearmargin.data.sources.findings import check_any_left
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.walk import is_tree, split_of_folders, walk_files
from clearmargin.images.read import is_image, starts_like_dicom
from clearmargin.types import Content

_LOOK_AT, _OPEN = 2_000, 200


def recognises(path: Path) -> bool:
    """Of the first files, more are DICOM than other images."""
    if not is_tree(path):
        return False
    n_dicom = n_images = opened = 0
    for name in itertools.islice(walk_files(path), _LOOK_AT):
        if is_image(name) and not is_named_dicom(name):
            n_images += 1
        elif opened < _OPEN:
            opened += 1
            n_dicom += starts_like_dicom(path / name)
    return n_dicom > n_images


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
    """One row an image with a label.

    Raises:
        DataError: the table of labels cannot be read or contradicts itself on a patient, or no image is left.
    """
    files = list(walk_files(path))
    headers = list(read_headers(path, files))
    top = top_folder(files)
    table_path = options.labels.absolute() if options.labels is not None else find_label_table(path, files)
    table = read_label_table(table_path) if table_path is not None else None
    said, unmatched = look_up(table, headers, root=path, top=top) if table is not None else ({}, [])
    found = sort_files(headers, said if table is not None else None, options)
    dicom_names = {header.name for header in headers}
    rest = [name for name in files if name not in dicom_names and str(path / name) != str(table_path)]
    findings = [
        *table_findings(path, table, found, unmatched),
        *left_out_findings(path, found, options),
        *looks_findings(path, found.images),
        *rest_findings(path, rest),
    ]
    check_any_left(path, found.images, findings)
    return build_manifest(
        _columns(path, found.images),
        root=path,
        source="dicom",
        content=_content(found.images),
        findings=findings,
        files_found=len(files),
    )


def _columns(path: Path, images: Sequence[DicomImage]) -> dict[str, list[object]]:
    columns: defaultdict[str, list[object]] = defaultdict(list, path=[])
    for image in images:
        tags, patient = image.tags, image.patient_id
        side = tags.side if tags is not None else None
        is_breast = tags is not None and tags.modality == "MG" and patient is not None and side is not None
        columns["path"].append(str(path / image.name))
        columns["label"].append(image.label)
        columns["patient_id"].append(patient)
        columns["slide_id"].append(f"{patient}_{str(side).upper()}" if is_breast else None)
        columns["side"].append(side)
        columns["view"].append(tags.view if tags is not None else None)
        columns["site"].append(tags.scanner if tags is not None else None)
        columns["official_split"].append(image.said.split or split_of_folders(image.name))
    return columns


def _content(images: Sequence[DicomImage]) -> Content | None:
    modalities = {image.tags.modality for image in images if image.tags is not None}
    return CONTENT_OF_MODALITY.get(modalities.pop() or "") if len(modalities) == 1 else None
