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
from clearmargin.errors import counted
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
        findings=[
            *_unlabelled_findings(path, unlabelled),
            *_mask_findings(path, sorted(masks)),
            *other_file_findings(path, [name for name in files if not is_image(name)]),
        ],
        files_found=len(files),
    )


def _unlabelled_findings(path: Path, names: list[str]) -> list[Finding]:
    if not names:
        return []
    return [
        Finding(
            "unlabelled",
            "warning",
            f"{counted(len(names), 'image lies', 'images lie')} in no folder named for a class, and left out: "
            f"{count_by_folder(names)}.",
            "Move them below benign/ or malignant/, or label them in a CSV.",
            absolute_paths(path, names),
            len(names),
        )
    ]


def _mask_findings(path: Path, names: list[str]) -> list[Finding]:
    if not names:
        return []
    return [
        Finding(
            "mask",
            "warning",
            f"{counted(len(names), 'file is', 'files are')} named like a mask of another image (…_mask), and left out.",
            "Rename a file that is not a mask.",
            absolute_paths(path, names),
            len(names),
        )
    ]


def other_file_findings(path: Path, names: list[str]) -> list[Finding]:
    """What a reader of folders passed over, said rather than done silently."""
    if not names:
        return []
    return [
        Finding(
            "other_file",
            "note",
            f"{counted(len(names), 'file is', 'files are')} not named like an image, and left out.",
            "Nothing to do, unless an image has the wrong extension.",
            absolute_paths(path, names),
            len(names),
        )
    ]


def count_by_folder(names: list[str]) -> str:
    """The three top folders with most of the files, with their numbers.

    >>> count_by_folder(["normal/a.png", "normal/b.png", "c.png"])
    'normal (2), . (1)'
    """
    where = Counter(name.split("/")[0] if "/" in name else "." for name in names)
    return ", ".join(f"{folder} ({count})" for folder, count in where.most_common(3))


def describe_content(path: Path) -> str:
    """One sentence on what lies in the folder, for a message."""
    files = list(itertools.islice(walk_files(path), _LOOK_AT))
    if not files:
        return "the folder is empty."
    images = sum(map(is_image, files))
    folders = sorted({name.split("/")[0] for name in files if "/" in name})
    listed = ", ".join(folders[:5]) + (", …" if len(folders) > 5 else "")
    return f"found {images:,} images (folders: {listed or 'none'}); none lies in a folder named for a class."


def _find_masks(images: list[str]) -> set[str]:
    stems = {name.rpartition(".")[0] for name in images}
    masks = set()
    for name in images:
        match = _MASK.match(name.rpartition(".")[0])
        if match and match["image"] in stems:
            masks.add(name)
    return masks


def absolute_paths(root: Path, names: list[str]) -> tuple[str, ...]:
    """The paths of files that are named as seen from the root."""
    return tuple(str(root / name) for name in names)
