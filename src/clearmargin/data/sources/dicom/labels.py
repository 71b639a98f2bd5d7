"""The labels of DICOM images: a table with one line for each study, series or image.

A line speaks of the most particular thing that it names: an image (SOPInstanceUID, else path), else a series,
else a study. An image gets what is said of it most particularly: a line of the image itself outweighs one of its
series, and that one of its study. Two lines that speak of an image equally particularly and give it two labels are
a conflict. Names of columns are taken with or without blanks and underscores, in any case.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from clearmargin.data.sources.cbis_ddsm.tables import LABEL_OF_PATHOLOGY
from clearmargin.data.sources.csv import read_table
from clearmargin.data.sources.dicom.headers import Header
from clearmargin.data.walk import CLASS_FOLDERS, SPLIT_FOLDERS
from clearmargin.errors import DataError, ImageError
from clearmargin.images.read import read_bytes
from clearmargin.types import Split

_T = TypeVar("_T")
Level = Literal["image", "series", "study"]
LEVELS: tuple[Level, ...] = ("image", "series", "study")
NORMAL = "normal"

_KEYS = {
    "sopinstanceuid": "sop",
    "sopuid": "sop",
    "path": "path",
    "seriesinstanceuid": "series",
    "seriesuid": "series",
    "studyinstanceuid": "study",
    "studyuid": "study",
}
_LABEL_COLUMNS = ("label", "pathology", "classification")
_LABELS: dict[str, int | str] = {**CLASS_FOLDERS, **LABEL_OF_PATHOLOGY, "0.0": 0, "1.0": 1, NORMAL: NORMAL}
_HEADER_BYTES = 1 << 14
ADVICE = (
    "Give a CSV with --labels FILE that has the column label (benign or malignant) and one of SOPInstanceUID, path, "
    "SeriesInstanceUID and StudyInstanceUID; or put the files below folders named benign/ and malignant/."
)


@dataclass(frozen=True, slots=True)
class Line:
    """What one line of the table says; None where it says nothing."""

    number: int
    label: int | str | None
    """0, 1 or NORMAL."""
    patient_id: str | None
    split: Split | None


@dataclass(frozen=True, slots=True)
class Said:
    """All that the table says of one image: its labels (two when they conflict), and on which level."""

    labels: frozenset[int | str] = frozenset()
    level: Level | None = None
    patient_id: str | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The table; `lines` are those of each key: ("sop" | "path" | "series" | "study", value)."""

    path: Path
    lines: dict[tuple[str, str], list[Line]]


def find_label_table(root: Path, files: Iterable[str]) -> Path | None:
    """The one CSV beside the images, at the top of the folder, that has the columns of a table of labels.

    Raises:
        DataError: there are two.
    """
    listing = list(files)
    top = top_folder(listing)
    names = [
        name
        for name in listing
        if name.lower().endswith(".csv") and "/" not in name.removeprefix(top) and _has_columns(root / name)
    ]
    if len(names) > 1:
        raise DataError(
            f"{root}: '{names[0]}' and '{names[1]}' both hold labels. Name the one to use with --labels FILE."
        )
    return root / names[0] if names else None


def top_folder(files: Sequence[str]) -> str:
    """The folder that all files lie in, with a slash behind it: an archive often holds one folder that holds all.

    >>> top_folder(["my/set/a/1.dcm", "my/set/labels.csv"]), top_folder(["a/1.dcm", "labels.csv"])
    ('my/set/', '')
    """
    folders = posixpath.commonpath([posixpath.dirname(name) for name in files]) if files else ""
    return f"{folders}/" if folders else ""


def read_label_table(path: Path) -> LabelTable:
    """The table.

    Raises:
        DataError: it cannot be read, a column is missing, or a value is not known; names the line.
    """
    table = read_table(path)
    table.columns = [_plain(column) for column in table.columns]
    keys = [column for column in _KEYS if column in table]
    label = next((column for column in _LABEL_COLUMNS if column in table), None)
    if label is None or not keys:
        raise DataError(f"{path}: no labels of DICOM images; found the columns {', '.join(table.columns)}. {ADVICE}")
    lines: defaultdict[tuple[str, str], list[Line]] = defaultdict(list)
    for number, row in zip(table.index, table.to_dict("records"), strict=True):
        key = next(((_KEYS[column], str(row[column])) for column in keys if row[column]), None)
        if key is None:
            raise DataError(f"{path}: line {number} names no image: {' and '.join(keys)} are empty.")
        lines[key].append(
            Line(
                int(number),
                _value(str(row[label]), _LABELS, f"{path}: line {number}", "0, 1, benign, malignant or normal"),
                str(row.get("patientid", "")) or None,
                _value(
                    str(row.get("officialsplit", "")),
                    SPLIT_FOLDERS,
                    f"{path}: line {number}",
                    "train, validation or test",
                ),
            )
        )
    return LabelTable(path, dict(lines))


def look_up(table: LabelTable, headers: Sequence[Header], *, root: Path, top: str) -> tuple[dict[str, Said], list[int]]:
    """What the table says of each file, by its name; and the numbers of the lines that speak of none of them.

    Args:
        table: the lines.
        headers: every DICOM file that is there.
        root: the folder; a path in the table is absolute, or as seen from here or from the `top` folder below, or the
            name of a file that only one has.
        top: see `top_folder`.

    Raises:
        DataError: two lines give one image two patients or two parts of the split.
    """
    paths = _Paths([header.name for header in headers], root, top)
    by_name: defaultdict[str | None, list[Line]] = defaultdict(list)
    for (kind, value), lines in table.lines.items():
        if kind == "path":
            by_name[paths.find(value)] += lines
    said: dict[str, Said] = {}
    matched: set[int] = set()
    for header in headers:
        tags = header.tags
        found: dict[Level, list[Line]] = {"image": list(by_name.get(header.name, []))}
        if tags is not None:
            found["image"] += table.lines.get(("sop", tags.sop_uid or ""), [])
            found["series"] = table.lines.get(("series", tags.series_uid or ""), [])
            found["study"] = table.lines.get(("study", tags.study_uid or ""), [])
        matched |= {line.number for lines in found.values() for line in lines}
        said[header.name] = _sum_up(found, table.path)
    numbers = {line.number for lines in table.lines.values() for line in lines}
    return said, sorted(numbers - matched)


def _sum_up(found: dict[Level, list[Line]], path: Path) -> Said:
    level = next((level for level in LEVELS if any(line.label is not None for line in found.get(level, []))), None)
    labels = [line.label for line in found[level]] if level is not None else []
    return Said(
        frozenset(label for label in labels if label is not None),
        level,
        _single(found, lambda line: line.patient_id, path, "two patients"),
        _single(found, lambda line: line.split, path, "two parts of the split"),
    )


def _single(found: dict[Level, list[Line]], take: Callable[[Line], _T | None], path: Path, what: str) -> _T | None:
    for level in LEVELS:
        values = [(line.number, value) for line in found.get(level, []) if (value := take(line)) is not None]
        for number, value in values[1:]:
            if value != values[0][1]:
                raise DataError(f"{path}: lines {values[0][0]} and {number} give one image {what}. Keep one of them.")
        if values:
            return values[0][1]
    return None


class _Paths:
    """Finds the file that a path in a table means."""

    def __init__(self, names: Sequence[str], root: Path, top: str) -> None:
        self._root, self._top = root, top
        self._names = frozenset(names)
        self._by_file_name: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            self._by_file_name[name.rpartition("/")[2]].append(name)

    def find(self, value: str) -> str | None:
        """The file, as seen from the root; None where no file or more than one has this name."""
        if Path(value).is_absolute():
            value = os.path.relpath(value, self._root)
        plain = os.path.normpath(value.replace("\\", "/")).replace(os.sep, "/")
        for name in (plain, f"{self._top}{plain}"):
            if name in self._names:
                return name
        same = self._by_file_name.get(plain, [])
        return same[0] if len(same) == 1 else None


def _has_columns(path: Path) -> bool:
    try:
        start = read_bytes(path, at_most=_HEADER_BYTES)
    except ImageError:  # an empty file is no table of labels
        return False
    header = start.partition(b"\n")[0].decode("utf-8", "replace")
    columns = {_plain(column.strip(' "\r\ufeff')) for column in re.split(r"[,;\t]", header)}
    return bool(columns & set(_LABEL_COLUMNS)) and bool(columns & set(_KEYS))


def _plain(column: str) -> str:
    return re.sub(r"[\s_-]", "", column.lower())


def _value(text: str, meaning: Mapping[str, _T], where: str, expected: str) -> _T | None:
    if not text:
        return None
    word = "_".join(text.lower().split())
    if word not in meaning:
        raise DataError(f"{where} has the value '{text}'; write {expected}.")
    return meaning[word]
