"""PCam as Kaggle gives it (histopathologic-cancer-detection): `train/<id>.tif` and `train_labels.csv`.

Source: Veeling et al. 2018, duplicates removed by Kaggle. A patch of 96 × 96 pixels is malignant when its inner
32 × 32 pixels hold tumour tissue. No patient is known. The labels of `test/` were never published.
"""

from __future__ import annotations

from pathlib import Path

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.csv import read_table
from clearmargin.data.sources.findings import (
    check_any_left,
    count_by_folder,
    file_findings,
    listed,
    other_file_findings,
)
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.walk import is_tree, split_of_folders, walk_files
from clearmargin.errors import DataError, ImageError, counted
from clearmargin.images.read import is_image, read_bytes
from clearmargin.types import BENIGN, MALIGNANT, Finding

_TABLE = "train_labels.csv"
_COLUMNS = frozenset({"id", "label"})
_LABELS = {"0": BENIGN, "1": MALIGNANT}


def recognises(path: Path) -> bool:
    """A train_labels.csv with the columns id and label lies beside a folder train/ of .tif files."""
    if not is_tree(path):
        return False
    folders: set[str] = set()
    tables: list[str] = []
    for name in walk_files(path):
        folder, _, last = name.rpartition("/")
        if last.endswith(".tif"):
            folders.add(folder)
        elif last == _TABLE:
            tables.append(name)
    return any(f"{name.removesuffix(_TABLE)}train" in folders and _has_columns(path / name) for name in tables)


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
    """The manifest of the labelled images; the others are left out and reported.

    Raises:
        DataError: not one train_labels.csv, one that is not understood, or no image is left.
    """
    files = list(walk_files(path))
    tables = [name for name in files if name.rpartition("/")[2] == _TABLE]
    if len(tables) != 1:
        raise DataError(f"{path}: {len(tables)} files are called {_TABLE}; give the folder that holds one, and train/.")
    label_of_id = _read_labels(path / tables[0])
    images = [name for name in files if is_image(name)]
    ids = [name.rpartition("/")[2].rpartition(".")[0] for name in images]
    rows = [(name, label_of_id[image]) for name, image in zip(images, ids, strict=True) if image in label_of_id]
    unknown = [name for name, image in zip(images, ids, strict=True) if image not in label_of_id]
    others = [name for name in files if name != tables[0] and not is_image(name)]
    findings = _left_out_findings(path, unknown, sorted(label_of_id.keys() - set(ids)))
    findings += other_file_findings(path, others)
    check_any_left(path, rows, findings)
    return build_manifest(
        {"path": [str(path / name) for name, _ in rows], "label": [label for _, label in rows]},
        root=path,
        source="pcam",
        content="histology",
        findings=findings,
        files_found=len(files),
    )


def _has_columns(table: Path) -> bool:
    try:
        header = read_bytes(table, at_most=100).decode("utf-8-sig", "replace").split("\n")[0]
    except ImageError:
        return False
    return _COLUMNS.issubset(column.strip().strip('"').lower() for column in header.split(","))


def _read_labels(table: Path) -> dict[str, int]:
    """The label of each id.

    Raises:
        DataError: a column is missing, or a line has another label or contradicts an earlier one.
    """
    rows = read_table(table)
    rows.columns = [name.lower() for name in rows.columns]
    if not _COLUMNS.issubset(rows.columns):
        raise DataError(f"{table}: needs the columns id and label; found {', '.join(rows.columns) or 'none'}.")
    label_of_id: dict[str, int] = {}
    for line, image, text in zip(rows.index, rows["id"], rows["label"], strict=True):
        label = _LABELS.get(text)
        if label is None or not image:
            raise DataError(f"{table}: line {line} is not an id with the label 0 or 1. Fetch it again.")
        if label_of_id.setdefault(image, label) != label:
            raise DataError(f"{table}: line {line} gives '{image}' another label than before. Fetch it again.")
    return label_of_id


def _left_out_findings(path: Path, unknown: list[str], missing: list[str]) -> list[Finding]:
    test = [name for name in unknown if split_of_folders(name) == "test"]
    unlabelled = [name for name in unknown if split_of_folders(name) != "test"]
    findings = file_findings(
        "test_without_labels",
        "note",
        f"{counted(len(test), 'image lies', 'images lie')} in test/, whose labels were never published; left out.",
        "Nothing to do: test images are taken from those with labels.",
        root=path,
        names=test,
    )
    findings += file_findings(
        "unlabelled",
        "warning",
        f"{counted(len(unlabelled), 'image is', 'images are')} not in {_TABLE}, and left out: "
        f"{count_by_folder(unlabelled)}.",
        f"Fetch the {_TABLE} that belongs to them, or add their lines.",
        root=path,
        names=unlabelled,
    )
    if missing:
        findings.append(
            Finding(
                "missing",
                "warning",
                f"{counted(len(missing), 'id', 'ids')} of {_TABLE} {'has' if len(missing) == 1 else 'have'} no image: "
                f"{listed(missing)}.",
                "Fetch the rest if you want the whole set.",
                (),
                len(missing),
            )
        )
    return findings
