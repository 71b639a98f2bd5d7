"""BreastMNIST, an .npz file of the MedMNIST collection: small ultrasound images with an official split.

Source: Yang et al. 2023, built on BUSI, duplicates included; normal and benign images share a class. Its label 0
is *malignant*; labels are turned round here, and nowhere else. No patient is known. The other sets of the
collection are not of breasts, and a file of the same form may be coded either way: both are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.findings import listed, other_file_findings
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.walk import is_tree, walk_files
from clearmargin.errors import DataError, counted
from clearmargin.images.npz import list_arrays, read_array
from clearmargin.images.read import is_image
from clearmargin.types import LABEL_NAMES, MALIGNANT, Finding, Split

_SPLITS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
_NAME = "breastmnist"
_SIZES = {"train": 546, "val": 78, "test": 156}
_MALIGNANT = {"train": 147, "val": 21, "test": 42}
_CODED_MALIGNANT = 0


def recognises(path: Path) -> bool:
    """An .npz file, or a folder (or .zip file) with such files and no images."""
    if path.is_file() and path.suffix.lower() == ".npz":
        return True
    if not is_tree(path):
        return False
    found = False
    for name in walk_files(path):
        if is_image(name):
            return False
        found |= bool(_npz_names([name]))
    return found


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
    """The manifest of every split that the file holds.

    Raises:
        DataError: not BreastMNIST, several files, or arrays that do not fit together.
    """
    others: list[str] = []
    file = path
    if path.suffix.lower() != ".npz" or path.is_dir():
        files = list(walk_files(path))
        found = _npz_names(files)
        if len(found) != 1:
            what = f"holds {counted(len(found), '.npz file', '.npz files')}{': ' + listed(found) if found else ''}"
            raise DataError(f"{path}: {what}. Give the breastmnist.npz file that you mean.")
        file, others = path / found[0], [name for name in files if name != found[0]]
    splits = _read_labels(file)
    labels = np.concatenate(list(splits.values()))
    return build_manifest(
        {
            "path": [f"{file}/{split}_images/{row}" for split, coded in splits.items() for row in range(len(coded))],
            "label": (labels == _CODED_MALIGNANT).astype(int).tolist(),
            "official_split": [_SPLITS[split] for split, coded in splits.items() for _ in coded],
        },
        root=path,
        source="medmnist",
        content="ultrasound",
        findings=[_turned_finding(file, labels), *other_file_findings(path, others)],
        files_found=len(labels) + len(others),
    )


def _npz_names(files: list[str]) -> list[str]:
    return [name for name in files if name.lower().endswith(".npz")]


def _read_labels(file: Path) -> dict[str, NDArray[np.generic]]:
    """The labels (N,) of each split that is there, as the file codes them.

    Raises:
        DataError: as `read` says.
    """
    shapes = list_arrays(str(file))
    splits = [split for split in _SPLITS if f"{split}_images" in shapes]
    if not splits:
        there = listed(sorted(shapes), 6) or "none"
        raise DataError(
            f"{file}: no MedMNIST file; it has the arrays {there}, and needs train_images, train_labels, …."
        )
    labels = {split: _labels_of(file, split, shapes) for split in splits}
    _check_is_breastmnist(file, labels)
    return labels


def _labels_of(file: Path, split: str, shapes: dict[str, tuple[int, ...]]) -> NDArray[np.generic]:
    images, shape = shapes[f"{split}_images"], shapes.get(f"{split}_labels")
    if shape is None:
        raise DataError(f"{file}: {split}_images has no {split}_labels beside it. Fetch the file again.")
    if len(images) not in (3, 4) or (len(images) == 4 and images[3] not in (1, 3)):
        raise DataError(f"{file}: {split}_images has the shape {images}; images are (N, H, W) or (N, H, W, 3).")
    if shape not in ((images[0],), (images[0], 1)):
        raise DataError(
            f"{file}: {split}_labels has the shape {shape}, for {images[0]:,} images; fetch the file again."
        )
    labels = read_array(str(file), f"{split}_labels").reshape(-1)
    if labels.dtype.kind not in "iub" or not bool(np.isin(labels, (0, 1)).all()):
        raise DataError(
            f"{file}: {split}_labels are not all 0 or 1, so this is not BreastMNIST, the only set read here."
        )
    return labels


def _check_is_breastmnist(file: Path, labels: dict[str, NDArray[np.generic]]) -> None:
    official = all(len(coded) == _SIZES[split] for split, coded in labels.items())
    if not official and _NAME not in file.name.lower():
        sizes = ", ".join(f"{split} {len(coded):,}" for split, coded in labels.items())
        raise DataError(
            f"{file}: neither named like BreastMNIST nor of its size (here {sizes}), so nobody can tell which label is "
            f"malignant. Rename it to {_NAME}.npz if it is part of BreastMNIST, where 0 is malignant; else write a CSV "
            f"with the columns path,label and paths such as {file.name}/train_images/0."
        )
    if official and all(int((coded == 1).sum()) == _MALIGNANT[split] for split, coded in labels.items()):
        raise DataError(
            f"{file}: has BreastMNIST's images with the labels turned round already (it has "
            f"{counted(sum(_MALIGNANT[split] for split in labels), 'malignant image', 'malignant images')}, coded 0). "
            "Give the file as published."
        )


def _turned_finding(file: Path, labels: NDArray[np.generic]) -> Finding:
    malignant = int((labels == _CODED_MALIGNANT).sum())
    return Finding(
        "labels_turned",
        "note",
        f"BreastMNIST writes 0 for {LABEL_NAMES[MALIGNANT]} and 1 for normal or benign; turned round here: "
        f"{malignant:,} of {counted(len(labels), 'image is', 'images are')} malignant.",
        "Nothing to do.",
        (str(file),),
        len(labels),
    )
