"""Images in folders named for their class, in any case, also below train/, val/ and test/ folders.

No patient is known unless a pattern in the paths gives it. Split folders become the official split: what
lies under test/ stays test, and valid/ is validation.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.walk import is_image, label_of_folders, split_of_folders, walk_files
from clearmargin.types import Finding

ADVICE = (
    "Put images in folders named benign/ and malignant/ (or 0/ and 1/; train/, val/ and test/ may lie above or below "
    "them), or give a CSV with the columns path,label."
)
_LOOK_AT = 2_000
_MASK = re.compile(r"^(?P<image>.+)_mask(_\d+)?$")


def recognises(path: Path) -> bool:
    """An image lies in a folder named for a class."""
    if not path.is_dir():
        return False
    return any(is_image(name) and label_of_folders(name) is not None for name in walk_files(path))


def read(path: Path) -> Manifest:
    """The manifest of the folder; masks, images of no class and other files are left out and reported."""
    files = list(walk_files(path))
    images = [name for name in files if is_image(name)]
    masks = _find_masks(images)
    labels = {name: label_of_folders(name) for name in images if name not in masks}
    unlabelled = [name for name, label in labels.items() if label is None]
    used = [(name, label) for name, label in labels.items() if label is not None]
    return build_manifest(
        {
            "path": [str(path / name) for name, _ in used],
            "label": [label for _, label in used],
            "official_split": [split_of_folders(name) for name, _ in used],
        },
        root=path,
        source="folder",
        findings=left_out_findings(
            path, other=[n for n in files if not is_image(n)], unlabelled=unlabelled, masks=masks
        ),
        files_found=len(files),
    )


def left_out_findings(path: Path, *, other: list[str], unlabelled: list[str], masks: set[str]) -> list[Finding]:
    """What a reader of folders passed over, said rather than done silently."""
    findings = []
    if unlabelled:
        where = Counter(name.split("/")[0] if "/" in name else "." for name in unlabelled)
        folders = ", ".join(f"{folder} ({count})" for folder, count in where.most_common(3))
        findings.append(
            Finding(
                "unlabelled",
                "warning",
                f"{len(unlabelled):,} images lie in no folder named for a class and are left out: {folders}.",
                "Move them below benign/ or malignant/, or label them in a CSV.",
                _absolute(path, unlabelled),
                len(unlabelled),
            )
        )
    if masks:
        findings.append(
            Finding(
                "mask",
                "warning",
                f"{len(masks):,} files named like a mask of another image (…_mask) are left out.",
                "Rename a file that is not a mask.",
                _absolute(path, sorted(masks)),
                len(masks),
            )
        )
    if other:
        findings.append(
            Finding(
                "other_file",
                "note",
                f"{len(other):,} files are not images by their names and are left out.",
                "Nothing to do, unless an image has the wrong extension.",
                _absolute(path, other),
                len(other),
            )
        )
    return findings


def describe_content(path: Path) -> str:
    """One sentence on what lies in the folder, for a message."""
    files = list(itertools.islice(walk_files(path), _LOOK_AT))
    if not files:
        return "the folder is empty."
    images = sum(map(is_image, files))
    folders = sorted({name.split("/")[0] for name in files if "/" in name})
    listed = ", ".join(folders[:5]) + (", …" if len(folders) > 5 else "")
    return f"found {images:,} images, folders: {listed or 'none'}; none is named for a class."


def _find_masks(images: list[str]) -> set[str]:
    stems = {name.rpartition(".")[0] for name in images}
    masks = set()
    for name in images:
        match = _MASK.match(name.rpartition(".")[0])
        if match and match["image"] in stems:
            masks.add(name)
    return masks


def _absolute(root: Path, names: list[str]) -> tuple[str, ...]:
    return tuple(str(root / name) for name in names)
