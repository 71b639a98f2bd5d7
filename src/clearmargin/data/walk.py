"""Finding the files of a tree, a folder or a .zip file, in one fixed order, and what the names of folders mean."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from clearmargin.errors import DataError
from clearmargin.images.archive import is_zip, list_members
from clearmargin.images.file_names import written_name
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


def is_tree(path: Path) -> bool:
    """A folder, or a .zip file, which is read like one."""
    return path.is_dir() or is_zip(path)


def walk_files(root: Path) -> Iterator[str]:
    """Paths below `root`, as seen from it, with forward slashes, in sorted order, written as `written_name` says.

    `root / name` is then a path that `images.read` opens. Hidden names and the __MACOSX folder of an archive
    are passed over. Links to folders are followed, each real folder once; one that leads to another place below the
    root comes after everything else, so that what lies there is found under its own name and its own class. Links in
    an archive are never followed.

    Raises:
        DataError: a folder or the archive cannot be read.
    """
    if is_zip(root):
        members = [name.split("/") for name in list_members(str(root))]
        yield from ("/".join(parts) for parts in sorted(members) if not any(map(_is_hidden, parts)))
        return
    real_root = os.path.realpath(root)
    seen: set[tuple[int, int]] = set()
    late = deque([(str(root), "")])
    while late:
        # A list and no recursion: the depth is whatever a disk holds.
        folder, prefix = late.popleft()
        levels = [(iter(_list_folder(folder, seen)), prefix)]
        while levels:
            entries, prefix = levels[-1]
            entry = next(entries, None)
            if entry is None:
                levels.pop()
                continue
            name = f"{prefix}{written_name(entry.name)}"
            if not _is_folder(entry):
                yield name
            elif entry.is_symlink() and lies_below(entry.path, real_root):
                late.append((entry.path, f"{name}/"))
            else:
                levels.append((iter(_list_folder(entry.path, seen)), f"{name}/"))


def lies_below(path: str, real_folder: str) -> bool:
    """Whether the path, its links followed, leads to the folder or below it, which is given without links.

    >>> lies_below("/data/a/../b.png", "/data"), lies_below("/data2/a.png", "/data")
    (True, False)
    """
    folder = real_folder.removesuffix(os.sep) + os.sep
    return f"{os.path.realpath(path)}{os.sep}".startswith(folder)


def _list_folder(folder: str, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return []
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            wanted = [entry for entry in entries if not _is_hidden(entry.name)]
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be read ({error.strerror}). Give yourself the right to read it, or remove it."
        ) from None
    return sorted(wanted, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or where nobody may look: reading the file says so
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


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
