"""The IDC patches of Kaggle's "breast histopathology images", whatever folder levels lie above them.

A name such as `8863_idx5_x451_y1451_class0.png` gives the patient, the place on the slide and the class.
Source: Cruz-Roa et al. 2014, Janowczyk and Madabhushi 2016. One slide is known for each patient, so
slide_id is patient_id.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.names import parse_idc_name
from clearmargin.data.sources.folder import left_out_findings
from clearmargin.data.walk import is_image, label_of_folders, split_of_folders, walk_files
from clearmargin.types import LABEL_NAMES, Finding

_LOOK_AT = 200


def recognises(path: Path) -> bool:
    """Most of the first images have IDC names."""
    if not path.is_dir():
        return False
    names = [name for name in itertools.islice(walk_files(path), _LOOK_AT * 10) if is_image(name)][:_LOOK_AT]
    known = sum(parse_idc_name(name.rpartition("/")[2]) is not None for name in names)
    return known * 2 > len(names)


def read(path: Path) -> Manifest:
    """The manifest of the folder; files with other names are left out and reported."""
    files = list(walk_files(path))
    images = [name for name in files if is_image(name)]
    parsed = {name: parse_idc_name(name.rpartition("/")[2]) for name in images}
    rows = [(name, *facts) for name, facts in parsed.items() if facts is not None]
    unlabelled = [name for name, facts in parsed.items() if facts is None]
    findings = left_out_findings(path, other=[n for n in files if not is_image(n)], unlabelled=unlabelled, masks=set())
    conflicts = [name for name, *_, label in rows if label_of_folders(name) not in (None, label)]
    if conflicts:
        findings.append(_conflict_finding(path, conflicts))
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
        findings=findings,
        files_found=len(files),
    )


def _conflict_finding(path: Path, conflicts: list[str]) -> Finding:
    first = conflicts[0]
    folder, name = (LABEL_NAMES[label] for label in (label_of_folders(first) or 0, 1 - (label_of_folders(first) or 0)))
    return Finding(
        "label_conflict",
        "blocking",
        f"{len(conflicts):,} files say one class in their name and lie in the folder of the other: "
        f"'{first}' lies under {folder} and is named {name}.",
        "Move or rename them, or leave them out with --exclude FILE.",
        tuple(str(path / conflict) for conflict in conflicts),
        len(conflicts),
    )
