"""mini-MIAS: 322 mammograms, `mdb001.pgm` and on, with the list of their lesions in `Info.txt`.

Neighbours are the two breasts of one patient: odd numbers right, even numbers left (Info.txt, note 1; Suckling
et al. 1994), all in the oblique view. A mammogram is one breast, so slide_id is the image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.boxes import square_box
from clearmargin.data.sources.findings import (
    check_any_left,
    file_findings,
    listed,
    normal_findings,
    other_file_findings,
)
from clearmargin.data.sources.mias.info import Lesion, MiasInfo, parse_info
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.sources.recognition import has_named_images
from clearmargin.data.walk import walk_files
from clearmargin.errors import DataError, ImageError, counted
from clearmargin.images.place import Place
from clearmargin.images.read import is_image, read_bytes
from clearmargin.images.size import read_size
from clearmargin.types import BENIGN, MALIGNANT, Finding

_NAME = re.compile(r"^(?P<image>mdb(?P<number>\d{3}))\.\w+$", re.IGNORECASE | re.ASCII)
_INFO = "info.txt"
_PUBLISHED_PX = 1024

_CROP_RADII = 2.5
"""Side of a crop in radii: the circle encloses the lesion in two; what its edge does to the tissue lies around."""
_CROP_LEAST_PX = 96
"""19 mm, about what a lesion of the median radius (41 px) gets: the smallest have 3 px, where nothing is to be seen."""


@dataclass(frozen=True, slots=True)
class _Image:
    """mdb001 or empty, the name as seen from the root, and the path."""

    id: str
    name: str
    path: str


@dataclass(slots=True)
class _Rows:
    """Rows of the manifest as they come, and what there is to say of some images, named as seen from the root."""

    path: list[str] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    image: list[str] = field(default_factory=list)
    normal: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    placeless: list[str] = field(default_factory=list)
    misfit: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)

    def add(self, path: str, image: str, *, malignant: bool) -> None:
        self.path.append(path)
        self.label.append(MALIGNANT if malignant else BENIGN)
        self.image.append(image)


def recognises(path: Path) -> bool:
    """Most of the first images are named mdb001 and on, and an Info.txt is there."""
    return has_named_images(path, _NAME.match) and bool(_info_names(list(walk_files(path))))


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
    """One row an image, malignant if any of its lesions is; or with view "crop", one row a lesion that has a place.

    Raises:
        DataError: there is no Info.txt, or it lists nothing, or no image is left.
    """
    files = list(walk_files(path))
    info, findings = _read_info(path, files)
    images = [_Image(_id_of(name), name, str(path / name)) for name in files if is_image(name)]
    rows = _Rows()
    for image in images:
        lesions = info.lesions.get(image.id)
        if lesions is None:
            rows.unlisted.append(image.name)
        elif options.view == "crop":
            _add_lesions(rows, image, lesions)
        else:
            _add_image(rows, image, lesions, options)
    missing = sorted(set(info.lesions) - {image.id for image in images})
    findings += _row_findings(path, rows, missing, options)
    lists = _info_names(files)
    findings += other_file_findings(path, [name for name in files if not is_image(name) and name not in lists])
    check_any_left(path, rows.path, findings)
    return build_manifest(
        _columns(rows),
        root=path,
        source="mias",
        content="lesion" if options.view == "crop" else "mammogram",
        findings=findings,
        files_found=len(files),
    )


def _id_of(name: str) -> str:
    """mdb001 of any/folder/MDB001.pgm; an empty text for a name of another form."""
    match = _NAME.match(name.rpartition("/")[2])
    return match["image"].lower() if match else ""


def _columns(rows: _Rows) -> dict[str, list[Any]]:
    numbers = [int(image[3:]) for image in rows.image]
    odd = [number if number % 2 else number - 1 for number in numbers]
    return {
        "path": rows.path,
        "label": rows.label,
        "patient_id": [f"mdb{first:03}-{first + 1:03}" for first in odd],
        "slide_id": rows.image,
        "side": ["right" if number % 2 else "left" for number in numbers],
        "view": ["MLO"] * len(numbers),
    }


def _info_names(files: list[str]) -> list[str]:
    """Files called Info.txt, the uppermost first."""
    return sorted(
        (name for name in files if name.rpartition("/")[2].lower() == _INFO), key=lambda name: (name.count("/"), name)
    )


def _read_info(path: Path, files: list[str]) -> tuple[MiasInfo, list[Finding]]:
    """The first list that lists anything; other copies of it are compared."""
    read = {name: parse_info(read_bytes(path / name).decode("utf-8", "replace")) for name in _info_names(files)}
    lists = {name: info for name, info in read.items() if info.lesions}
    if not lists:
        raise DataError(
            f"{path}: no Info.txt that lists the images (mdb001 G CIRC B 535 425 197, …) was found. "
            "Put the one that comes with mini-MIAS beside them."
        )
    (first, info), *others = lists.items()
    differing = [name for name, other in others if other.lesions != info.lesions]
    findings = file_findings(
        "info_differs",
        "warning",
        f"{counted(len(differing), 'other Info.txt says', 'other Info.txt say')} something else than '{path / first}', "
        "which is used.",
        "Keep the one that is right.",
        root=path,
        names=differing,
    )
    lines = listed([str(number) for number in info.unclear])
    findings += file_findings(
        "unclear_line",
        "warning",
        f"{counted(len(info.unclear), 'line', 'lines')} of '{path / first}' cannot be understood: {lines}.",
        "Write them as IMAGE TISSUE KIND SEVERITY X Y RADIUS, for instance mdb001 G CIRC B 535 425 197.",
        root=path,
        names=[first] if info.unclear else [],
    )
    return info, findings


def _add_image(rows: _Rows, image: _Image, lesions: tuple[Lesion, ...], options: SourceOptions) -> None:
    if not lesions:
        rows.normal.append(image.name)
        if options.normal == "exclude":
            return
    severities = {lesion.malignant for lesion in lesions}
    if len(severities) > 1:
        rows.mixed.append(image.name)
    rows.add(image.path, image.id, malignant=True in severities)


def _add_lesions(rows: _Rows, image: _Image, lesions: tuple[Lesion, ...]) -> None:
    if not lesions:
        rows.normal.append(image.name)
    circles = [(lesion.malignant, lesion.circle) for lesion in lesions if lesion.circle is not None]
    if len(circles) < len(lesions):
        rows.placeless.append(image.name)
    if not circles:
        return
    try:
        width, height = read_size(image.path)
    except ImageError:
        width, height = 0, 0
    if (width, height) != (_PUBLISHED_PX, _PUBLISHED_PX):
        rows.misfit.append(image.name)
        return
    if any(x > width or y > height for _, (x, y, _) in circles):
        rows.misfit.append(image.name)
        return
    for malignant, (x, y, radius) in circles:
        side = max(round(_CROP_RADII * radius), _CROP_LEAST_PX)
        box = square_box((x, height - y), side, width=width, height=height)
        rows.add(str(Place(image.path, box=box)), image.id, malignant=malignant)


def _row_findings(path: Path, rows: _Rows, missing: list[str], options: SourceOptions) -> list[Finding]:
    findings = file_findings(
        "unlabelled",
        "warning",
        f"{counted(len(rows.unlisted), 'image is', 'images are')} not in Info.txt, and left out.",
        "Fetch the Info.txt that belongs to them, or add their lines.",
        root=path,
        names=rows.unlisted,
    )
    if missing:
        findings.append(
            Finding(
                "missing",
                "warning",
                f"{counted(len(missing), 'image', 'images')} of Info.txt {'is' if len(missing) == 1 else 'are'} not "
                f"there: {listed(missing)}.",
                "Fetch the rest if you want the whole set.",
                (),
                len(missing),
            )
        )
    findings += normal_findings(path, rows.normal, options)
    findings += file_findings(
        "benign_and_malignant",
        "note",
        f"{counted(len(rows.mixed), 'image has', 'images have')} a benign and a malignant lesion, and "
        "counts as malignant.",
        "Nothing to do; --view crop takes each lesion by itself.",
        root=path,
        names=rows.mixed,
    )
    findings += file_findings(
        "lesion_without_place",
        "warning",
        f"{counted(len(rows.placeless), 'image has a lesion', 'images have lesions')} without a place in Info.txt, "
        "which cannot be cut out.",
        "Nothing to do; --view full takes these images whole.",
        root=path,
        names=rows.placeless,
    )
    return findings + file_findings(
        "lesion_outside",
        "warning",
        f"{counted(len(rows.misfit), 'image cannot', 'images cannot')} be read, or not as {_PUBLISHED_PX} × "
        f"{_PUBLISHED_PX} pixels with the lesions inside, for which Info.txt holds; left out.",
        "Give the images and Info.txt as published.",
        root=path,
        names=rows.misfit,
    )
