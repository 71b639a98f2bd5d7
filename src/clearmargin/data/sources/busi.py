"""BUSI: breast ultrasound, `benign (1).png` with its masks `benign (1)_mask.png`, `benign (1)_mask_1.png`.

Source: Al-Dhabyani et al. 2020. A mask is white where a lesion is, and never an image to classify. No patient
is known. The class is taken from the name; a name that contradicts its folder is found by the audit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.boxes import widened_box
from clearmargin.data.sources.findings import (
    check_any_left,
    count_by_folder,
    file_findings,
    normal_findings,
    other_file_findings,
)
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.sources.recognition import has_named_images
from clearmargin.data.walk import split_of_folders, walk_files
from clearmargin.errors import ImageError, counted
from clearmargin.images.names import BusiName, parse_busi_name
from clearmargin.images.place import Box, Place
from clearmargin.images.read import is_image, read_image
from clearmargin.images.size import read_size
from clearmargin.types import BENIGN, MALIGNANT, Finding

_MARGIN = 0.1
"""Of a crop, in lengths of the lesion's longer side: its edge and the tissue beside it are part of the picture."""
_LEAST_MARGIN_PX = 8
_WHITE = 127

_Trouble = Literal["missing", "unreadable", "other_size", "empty", "white"]
_TROUBLES: dict[_Trouble, str] = {
    "missing": "no mask",
    "unreadable": "a mask that cannot be read, or cannot be read itself",
    "other_size": "a mask of another size",
    "empty": "an empty mask",
    "white": "a mask that is white everywhere",
}


@dataclass(slots=True)
class _Files:
    """Names as seen from the root: images with what their names say, masks of each image, and the rest."""

    images: dict[str, BusiName] = field(default_factory=dict)
    masks: dict[str, list[str]] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def recognises(path: Path) -> bool:
    """Most of the first images have BUSI names."""
    return has_named_images(path, parse_busi_name)


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
    """One row an image; with view "crop" its path is the box around the lesion that its masks show.

    Raises:
        DataError: no image is left.
    """
    names = list(walk_files(path))
    files = _sort_files(names)
    normal = [name for name, facts in files.images.items() if facts.kind == "normal"]
    as_benign = options.normal == "benign" and options.view == "full"
    used = {name: facts for name, facts in files.images.items() if facts.kind != "normal" or as_benign}
    findings = [*_left_out_findings(path, files), *normal_findings(path, normal, options)]
    places = {name: str(path / name) for name in used}
    if options.view == "crop":
        boxes = {name: _find_box(path, name, files.masks.get(name, [])) for name in used}
        places = {
            name: str(Place(str(path / name), box=box)) for name, box in boxes.items() if not isinstance(box, str)
        }
        findings += _crop_findings(path, {name: box for name, box in boxes.items() if isinstance(box, str)})
    check_any_left(path, list(places), findings)
    return build_manifest(
        {
            "path": list(places.values()),
            "label": [MALIGNANT if used[name].kind == "malignant" else BENIGN for name in places],
            "official_split": [split_of_folders(name) for name in places],
        },
        root=path,
        source="busi",
        content="lesion" if options.view == "crop" else "ultrasound",
        findings=findings,
        files_found=len(names),
    )


def _sort_files(names: list[str]) -> _Files:
    files = _Files()
    masks: list[tuple[str, tuple[str, str]]] = []
    images: dict[tuple[str, str], str] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        if not is_image(name):
            files.others.append(name)
        elif (facts := parse_busi_name(last)) is None:
            files.unknown.append(name)
        elif facts.is_mask:
            masks.append((name, (folder, facts.image.lower())))
        else:
            files.images[name] = facts
            images[folder, facts.image.lower()] = name
    for name, key in masks:
        if key in images:
            files.masks.setdefault(images[key], []).append(name)
        else:
            files.orphans.append(name)
    return files


def _find_box(root: Path, name: str, masks: list[str]) -> Box | _Trouble:
    """The box around all that the masks show with its margin, or why there is none."""
    if not masks:
        return "missing"
    try:
        width, height = read_size(root / name)
        shown = [read_image(root / mask).max(axis=2) > _WHITE for mask in masks]
    except ImageError:
        return "unreadable"
    if any(mask.shape != (height, width) for mask in shown):
        return "other_size"
    union: NDArray[np.bool_] = np.logical_or.reduce(shown)
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    if not len(rows):
        return "empty"
    if union.all():  # as one with a transparent background is, once it lies on white
        return "white"
    tight = (int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)
    margin = max(round(_MARGIN * max(tight[2:])), _LEAST_MARGIN_PX)
    return widened_box(tight, margin, width=width, height=height)


def _left_out_findings(path: Path, files: _Files) -> list[Finding]:
    masks = [mask for found in files.masks.values() for mask in found]
    return [
        *file_findings(
            "unlabelled",
            "warning",
            f"{counted(len(files.unknown), 'image is', 'images are')} not named like an image of BUSI, and left out: "
            f"{count_by_folder(files.unknown)}.",
            "Name them 'benign (1).png' or 'malignant (1).png', or label all images in a CSV.",
            root=path,
            names=files.unknown,
        ),
        *file_findings(
            "orphan_mask",
            "warning",
            f"{counted(len(files.orphans), 'mask has', 'masks have')} no image beside it.",
            "Fetch the images, or remove the masks.",
            root=path,
            names=files.orphans,
        ),
        *file_findings(
            "mask",
            "note",
            f"{counted(len(masks), 'file is a mask', 'files are masks')}, not taken as images.",
            "Nothing to do; --view crop cuts out the lesions that they show.",
            root=path,
            names=masks,
        ),
        *other_file_findings(path, files.others),
    ]


def _crop_findings(path: Path, troubles: dict[str, _Trouble]) -> list[Finding]:
    counts = Counter(troubles.values())
    reasons = ", ".join(f"{_TROUBLES[trouble]} ({count:,})" for trouble, count in counts.most_common())
    return file_findings(
        "lesion_without_place",
        "warning",
        f"{counted(len(troubles), 'image has', 'images have')} no lesion that can be cut out, and left out: {reasons}.",
        "Mend the masks; --view full takes these images whole.",
        root=path,
        names=list(troubles),
    )
