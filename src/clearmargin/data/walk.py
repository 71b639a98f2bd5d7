"""Finding the image files below a folder, in one fixed order, and what the names of folders mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from clearmargin.errors import DataError
from clearmargin.images.file_names import written_name
from clearmargin.images.read import IMAGE_EXTENSIONS
from clearmargin.types import BENIGN, MALIGNANT, Split

CLASS_FOLDERS: dict[str, int] = {"benign": BENIGN, "0": BENIGN, "malignant": MALIGNANT, "1": MALIGNANT}
SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def walk_files(root: Path) -> Iterator[str]:
    """Paths below `root`, as seen from it, with forward slashes, in sorted order, written as `written_name` says.

    Hidden names and the __MACOSX folder of an archive are passed over. Links to folders are followed, each
    real folder once.

    Raises:
        DataError: a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()

    def descend(folder: str, prefix: str) -> Iterator[str]:
        for entry in _list_folder(folder, seen):
            name = f"{prefix}{written_name(entry.name)}"
            if entry.is_dir():
                yield from descend(entry.path, f"{name}/")
            else:
                yield name

    yield from descend(str(root), "")


def _list_folder(folder: str, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return []
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            wanted = [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be read ({error.strerror}). Give yourself the right to read it, or remove it."
        ) from None
    return sorted(wanted, key=lambda entry: entry.name)


def is_image(path: str) -> bool:
    """The name ends like an image's."""
    return os.path.splitext(path)[1].lower() in IMAGE_EXTENSIONS


def label_of_folders(path: str) -> int | None:
    """The label that the nearest folder named for a class gives, or None.

    A word says more than a digit: 1 below benign/ is a patient or a slide.

    >>> label_of_folders("train/Malignant/a.png"), label_of_folders("train/a.png")
    (1, None)
    >>> label_of_folders("8863/1/a.png"), label_of_folders("benign/1/a.png")
    (1, 0)
    """
    named = [name for name in _folders(path) if name in CLASS_FOLDERS]
    named.sort(key=str.isdigit)
    return CLASS_FOLDERS[named[0]] if named else None


def split_of_folders(path: str) -> Split | None:
    """The official split that the nearest folder named for one gives, or None.

    >>> split_of_folders("Valid/benign/a.png")
    'validation'
    """
    return next((SPLIT_FOLDERS[name] for name in _folders(path) if name in SPLIT_FOLDERS), None)


def _folders(path: str) -> list[str]:
    return [name.lower() for name in reversed(path.split("/")[:-1])]
