"""The four tables of CBIS-DDSM: one line a lesion, with its patient, breast, view, pathology and three files.

Files are known by the SeriesInstanceUID inside their path: file names are not the same in any two downloads.
Which part of the official split a lesion is in is said by the name of its table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clearmargin.data.sources.csv import read_table
from clearmargin.errors import DataError
from clearmargin.types import BENIGN, MALIGNANT, Split

LABEL_OF_PATHOLOGY = {"benign": BENIGN, "benign_without_callback": BENIGN, "malignant": MALIGNANT}
_SIDES = {"left": "left", "right": "right", "l": "left", "r": "right"}
_UID = re.compile(r"\d+(?:\.\d+){4,}", re.ASCII)
_PATIENT = re.compile(r"P_\d+", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class LesionFile:
    """A file as the table names it: its path without white space, and the SeriesInstanceUID in it ("" without one)."""

    path: str
    series: str

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Lesion:
    """One line; `label` is None where the pathology is none of the known ones, `side` and `view` where not given."""

    table: str
    split: Split
    patient_id: str
    side: str | None
    view: str | None
    label: int | None
    full: LesionFile
    crop: LesionFile
    mask: LesionFile


def find_tables(files: Iterable[str]) -> dict[str, tuple[str, Split]]:
    """The files that are named like one of the four tables, with `mass` or `calc` and the part of the split.

    >>> find_tables(["csv/mass_case_description_train_set.csv", "csv/dicom_info.csv", "Calc-Test-Description (1).csv"])
    {'csv/mass_case_description_train_set.csv': ('mass', 'train'), 'Calc-Test-Description (1).csv': ('calc', 'test')}
    """
    tables: dict[str, tuple[str, Split]] = {}
    for name in files:
        words = name.rpartition("/")[2].lower()
        if not words.endswith(".csv") or "description" not in words:
            continue
        kinds = [kind for kind in ("mass", "calc") if kind in words]
        splits: list[Split] = [split for split in ("train", "test") if split in words]
        if len(kinds) == 1 and len(splits) == 1:
            tables[name] = (kinds[0], splits[0])
    return tables


def read_lesions(root: Path, tables: Mapping[str, tuple[str, Split]]) -> list[Lesion]:
    """All lines of the tables, each once, in the order of the tables; the tables are named as seen from the root.

    Raises:
        DataError: a table cannot be read, has no line, or has not the columns; names them.
    """
    lesions: dict[Lesion, None] = {}
    for name, (kind, split) in sorted(tables.items(), key=lambda item: (item[1][0] != "mass", item[0])):
        table = read_table(root / name)
        table.columns = [_plain(column) for column in table.columns]
        columns = _Columns(table, root / name)
        for place in range(len(table)):
            lesions[columns.lesion(place, kind, split)] = None
    return list(lesions)


def find_series(path: str) -> str:
    """The last part of a path that is a UID, which is that of the series; "" where none is.

    >>> find_series("Mass-Training_P_00001_LEFT_CC/1.3.6.1.4.1/1.3.6.1.4.2/000000.dcm")
    '1.3.6.1.4.2'
    """
    return next((part for part in reversed(path.split("/")) if _UID.fullmatch(part)), "")


def _plain(column: str) -> str:
    return " ".join(column.lower().replace("_", " ").split())


class _Columns:
    """The columns of one table that are used."""

    def __init__(self, table: pd.DataFrame, path: Path) -> None:
        self._path = path
        self._patient = self._find(table, "patient id")
        self._pathology = self._find(table, "pathology")
        self._side = self._find(table, "left or right breast", "side")
        self._view = self._find(table, "image view", "view")
        self._full = self._find(table, "image file path")
        self._crop = self._find(table, "cropped image file path")
        self._mask = self._find(table, "roi mask file path")

    def _find(self, table: pd.DataFrame, *names: str) -> list[str]:
        for name in names:
            if name in table:
                return [str(value) for value in table[name]]
        raise DataError(
            f"{self._path}: the column '{names[0]}' is missing; found {', '.join(table.columns)}. "
            "Fetch the table again from where the images come from."
        )

    def lesion(self, place: int, kind: str, split: Split) -> Lesion:
        patient = _PATIENT.search(self._patient[place])
        return Lesion(
            table=kind,
            split=split,
            patient_id=patient[0].upper() if patient else self._patient[place],
            side=_SIDES.get(self._side[place].lower()),
            view=self._view[place].upper() or None,
            label=LABEL_OF_PATHOLOGY.get("_".join(self._pathology[place].lower().split())),
            full=_file(self._full[place]),
            crop=_file(self._crop[place]),
            mask=_file(self._mask[place]),
        )


def _file(value: str) -> LesionFile:
    path = "".join(value.split()).replace("\\", "/")  # published paths hold line breaks
    return LesionFile(path, find_series(path))
