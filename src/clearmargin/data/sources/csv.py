"""A manifest that the user has: CSV or Parquet with at least `path` and `label`.

Paths are seen from the folder of the file. A label is 0 or benign, 1 or malignant. Other columns of the
manifest are taken when they are there; unknown columns are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.walk import CLASS_FOLDERS, SPLIT_FOLDERS
from clearmargin.errors import DataError, closest
from clearmargin.types import Finding

_REQUIRED = ("path", "label")
_OPTIONAL_TEXT = ("patient_id", "slide_id", "site")
_OPTIONAL_WHOLE = ("x", "y")


def recognises(path: Path) -> bool:
    """A file that ends in .csv or .parquet."""
    return path.is_file() and path.suffix.lower() in (".csv", ".parquet")


def read(path: Path) -> Manifest:
    """The manifest in the file.

    Raises:
        DataError: not readable, a column is missing, or a value is not of its column's kind; names the line.
    """
    table = read_table(path)
    for column in _REQUIRED:
        if column not in table:
            near = closest(column, table.columns)
            hint = f" Is it '{near}'?" if near else ""
            raise DataError(f"{path}: the column '{column}' is missing; found {', '.join(table.columns)}.{hint}")
    columns: dict[str, list[object]] = {
        "path": _paths(table["path"], path),
        "label": _mapped(table["label"], CLASS_FOLDERS, path, "0, 1, benign or malignant"),
    }
    for name in _OPTIONAL_TEXT:
        if name in table:
            columns[name] = [value or None for value in table[name]]
    for name in _OPTIONAL_WHOLE:
        if name in table:
            columns[name] = _whole_numbers(table[name], path)
    if "official_split" in table:
        columns["official_split"] = _mapped(
            table["official_split"], SPLIT_FOLDERS, path, "train, validation or test", may_be_empty=True
        )
    return build_manifest(
        columns, root=path.parent, source="csv", findings=_repeated_rows(columns), files_found=len(table)
    )


def read_table(path: Path) -> pd.DataFrame:
    """The file as text columns, stripped; a missing value is an empty text.

    Raises:
        DataError: it is missing, not a table, or not UTF-8.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty; it needs a header line with path,label.") from None
    except (ValueError, OSError) as error:  # pandas and pyarrow errors derive from ValueError
        raise DataError(f"{path}: cannot be read as a table ({' '.join(str(error).split())}).") from None
    table.columns = [str(name).strip() for name in table.columns]
    return table.map(lambda value: "" if pd.isna(value) else str(value).strip())


def line_of(row: int) -> str:
    """Where a row of the table stands in the file, counting the header as line 1."""
    return f"line {row + 2}"


def _paths(column: pd.Series[str], path: Path) -> list[object]:
    empty = [row for row, value in enumerate(column) if not value]
    if empty:
        raise DataError(f"{path}: {line_of(empty[0])} has no path.")
    return [os.path.normpath(path.parent / value) for value in column]  # an absolute value stays as it is


def _mapped(
    column: pd.Series[str],
    meaning: Mapping[str, object],
    path: Path,
    expected: str,
    *,
    may_be_empty: bool = False,
) -> list[object]:
    known: dict[str, object] = {**meaning, **{f"{key}.0": value for key, value in meaning.items() if key in "01"}}
    values: list[object] = []
    for row, text in enumerate(column):
        if not text and may_be_empty:
            values.append(None)
        elif text.lower() in known:
            values.append(known[text.lower()])
        else:
            raise DataError(f"{path}: {line_of(row)} has the {column.name} '{text}'; write {expected}.")
    return values


def _whole_numbers(column: pd.Series[str], path: Path) -> list[object]:
    values: list[object] = []
    for row, text in enumerate(column):
        try:
            number = float(text) if text else None
        except ValueError:
            number = float("nan")
        if number is not None and not number.is_integer():
            raise DataError(
                f"{path}: {line_of(row)} has the {column.name} '{text}'; write whole pixels or leave it empty."
            )
        values.append(None if number is None else int(number))
    return values


def _repeated_rows(columns: dict[str, list[object]]) -> list[Finding]:
    first: dict[object, object] = {}
    repeated: list[str] = []
    for path, label in zip(columns["path"], columns["label"], strict=True):
        if path in first:
            repeated.append(str(path))
        first.setdefault(path, label)
    if not repeated:
        return []
    return [
        Finding(
            "repeated_row",
            "blocking",
            f"{len(repeated):,} rows name a file that an earlier row has, the first is '{repeated[0]}'.",
            "Keep one row for each file.",
            tuple(repeated),
            len(repeated),
        )
    ]
