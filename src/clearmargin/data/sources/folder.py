"""Images in folders named for their class, in any case, also below train/, val/ and test/ folders.

No patient is known unless a pattern in the paths gives it. Split folders become the official split: what
lies under test/ stays test, and valid/ is validation.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.findings import count_by_folder, file_findings, other_file_findings
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.walk import is_tree, label_of_folders, split_of_folders, walk_files
from clearmargin.errors import counted
from clearmargin.images.names import find_masks
from clearmargin.images.read import is_image
from clearmargin.types import BENIGN, Finding

ADVICE = (
    "Put images in folders named benign/ and malignant/ (or 0/ and 1/; train/, val/ and test/ may lie above or below "
    "them), or give a CSV with the columns path,label."
)
_LOOK_AT = 2_000


def recognises(path: Path) -> bool:
    """An image lies in a folder named for a class."""
    if not is_tree(path):
        return False
    return any(is_image(name) and label_of_folders(name) is not None for name in walk_files(path))


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
    """The manifest of the folder; masks, images of no class and other files are left out and reported."""
    files = list(walk_files(path))
    images = [name for name in files if is_image(name)]
    masks = find_masks(images)
    labels = {name: _label(name, options) for name in images if name not in masks}
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


def _label(name: str, options: SourceOptions) -> int | None:
    label = label_of_folders(name)
    if label is None and options.normal == "benign" and "normal" in name.lower().split("/")[:-1]:
        return BENIGN
    return label


def _unlabelled_findings(path: Path, names: list[str]) -> list[Finding]:
    return file_findings(
        "unlabelled",
        "warning",
        f"{counted(len(names), 'image lies', 'images lie')} in no folder named for a class, and left out: "
        f"{count_by_folder(names)}.",
        "Move them below benign/ or malignant/, or label them in a CSV; --normal benign takes normal/ as benign.",
        root=path,
        names=names,
    )


def _mask_findings(path: Path, names: list[str]) -> list[Finding]:
    return file_findings(
        "mask",
        "warning",
        f"{counted(len(names), 'file is', 'files are')} named like a mask of another image (…_mask), and left out.",
        "Rename a file that is not a mask.",
        root=path,
        names=names,
    )


def describe_content(path: Path) -> str:
    """One sentence on what lies in the folder, for a message."""
    files = list(itertools.islice(walk_files(path), _LOOK_AT))
    if not files:
        return "the folder is empty."
    images = sum(map(is_image, files))
    folders = sorted({name.split("/")[0] for name in files if "/" in name})
    listed = ", ".join(folders[:5]) + (", …" if len(folders) > 5 else "")
    return f"found {images:,} images (folders: {listed or 'none'}); none lies in a folder named for a class."
