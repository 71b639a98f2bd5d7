"""The IDC patches of Kaggle's "breast histopathology images", whatever folder levels lie above them.

A name such as `8863_idx5_x451_y1451_class0.png` gives the patient, the place on the slide and the class.
Source: Cruz-Roa et al. 2014, Janowczyk and Madabhushi 2016. One slide is known for each patient, so
slide_id is patient_id.
"""

from __future__ import annotations

from pathlib import Path

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.findings import count_by_folder, file_findings, other_file_findings
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.sources.recognition import has_named_images
from clearmargin.data.walk import split_of_folders, walk_files
from clearmargin.errors import counted
from clearmargin.images.names import parse_idc_name
from clearmargin.images.read import is_image
from clearmargin.types import Finding


def recognises(path: Path) -> bool:
    """Most of the first images have IDC names."""
    return has_named_images(path, parse_idc_name)


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
    """The manifest of the folder; files with other names are left out and reported."""
    files = list(walk_files(path))
    images = [name for name in files if is_image(name)]
    parsed = {name: parse_idc_name(name.rpartition("/")[2]) for name in images}
    rows = [(name, *facts) for name, facts in parsed.items() if facts is not None]
    unlabelled = [name for name, facts in parsed.items() if facts is None]
    return build_manifest(
        {
            "path": [str(path / row[0]) for row in rows],
            "patient_id": [row[1] for row in rows],
            "slide_id": [row[1] for row in rows],
            "x": [row[2] for row in rows],
            "y": [row[3] for row in rows],
            "label": [row[4] for row in rows],
            "official_split": [split_of_folders(row[0]) for row in rows],
        },
        root=path,
        source="idc",
        content="histology",
        findings=[
            *_unlabelled_findings(path, unlabelled),
            *other_file_findings(path, [name for name in files if not is_image(name)]),
        ],
        files_found=len(files),
    )


def _unlabelled_findings(path: Path, names: list[str]) -> list[Finding]:
    return file_findings(
        "unlabelled",
        "warning",
        f"{counted(len(names), 'image is', 'images are')} not named like an IDC patch, and left out: "
        f"{count_by_folder(names)}.",
        "Name them <patient>_idx5_x<X>_y<Y>_class<0 or 1>.png, or label all images in a CSV.",
        root=path,
        names=names,
    )
