"""A manifest that the user has: CSV or Parquet with at least `path` and `label`.

Paths are seen from the folder of the file. A label is 0 or benign, 1 or malignant. Other columns of the
manifest are taken when they are there; unknown columns are passed over. Columns are separated by commas,
or by semicolons or tabs where the header line has no comma.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.walk import CLASS_FOLDERS, SPLIT_FOLDERS
from clearmargin.errors import DataError, closest
from clearmargin.images.place import split_archive
from clearmargin.images.read import read_bytes

_REQUIRED = ("path", "label")
_OPTIONAL_TEXT = ("patient_id", "slide_id", "site", "side", "view", "magnification")
_OPTIONAL_WHOLE = ("x", "y")
_LARGEST_PLACE = 10**9
_MAX_ROWS, _MAX_COLUMNS = 10_000_000, 1_000


def recognises(path: Path) -> bool:
    """A file that ends in .csv or .parquet."""
    return path.is_file() and path.suffix.lower() in (".csv", ".parquet")


def read(path: Path, options: SourceOptions = SourceOptions()) -> Manifest:
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
    if table.empty:
        raise DataError(f"{path}: the table has no rows; write one line for each image.")
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
    return build_manifest(columns, root=path.parent, source="csv", files_found=len(table))


def read_table(path: Path) -> pd.DataFrame:
    """The file, which may lie in a .zip file, as text columns, stripped; a missing value is an empty text.

    The index is the line of the file that a row begins on, the header being line 1 (of a Parquet file, which
    has no lines, the row as a spreadsheet would number it).

    Raises:
        DataError: it is missing, not a table, or not UTF-8.
    """
    try:
        inside = split_archive(str(path)) is not None
        if path.suffix.lower() == ".parquet":
            return _parse_parquet(io.BytesIO(read_bytes(path)) if inside else path, path)
        if inside:
            return _parse_csv(io.TextIOWrapper(io.BytesIO(read_bytes(path)), encoding="utf-8-sig", newline=""), path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _parse_csv(file, path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason}). Save it as 'CSV UTF-8'.") from None
    except (ValueError, OSError, MemoryError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a table ({' '.join(str(error).split())}).") from None


def _parse_parquet(source: Path | io.BytesIO, path: Path) -> pd.DataFrame:
    with pq.ParquetFile(source) as file:
        n_rows, n_columns = file.metadata.num_rows, file.metadata.num_columns
        if n_rows > _MAX_ROWS or n_columns > _MAX_COLUMNS:  # repeated values take no space until they are read
            raise DataError(f"{path}: has {n_rows:,} rows and {n_columns:,} columns, more than any manifest.")
        table = file.read().to_pandas(ignore_metadata=True)  # what pandas wrote beside the table says nothing more
    table.index = pd.RangeIndex(2, len(table) + 2)
    table.columns = _column_names([str(name).strip() for name in table.columns], path)
    texts: pd.DataFrame = table.map(_cell_text)
    return texts


def _parse_csv(file: TextIO, path: Path) -> pd.DataFrame:
    header = file.readline()
    separator = next((mark for mark in ",;\t" if mark in header), ",")
    file.seek(0)
    reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
    names: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    last_line = 0
    for raw in reader:
        line, last_line = last_line + 1, reader.line_num  # quoted values may hold line breaks
        values = [value.strip() for value in raw]
        if not any(values):
            continue
        if not names:
            names = _column_names(values, path)
            continue
        if any(values[len(names) :]):
            raise DataError(
                f"{path}: line {line} has {len(values)} values for {len(names)} columns. "
                f"Put a value that contains '{separator}' in double quotes."
            )
        rows.append((values + [""] * len(names))[: len(names)])
        lines.append(line)
    if not names:
        raise DataError(f"{path}: the file is empty; it needs a header line with path,label.")
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pd.DataFrame(
        {name: np.array(values, dtype=object) for name, values in zip(names, columns, strict=True) if name},
        index=lines,
        dtype="str",
    )


def _column_names(names: list[str], path: Path) -> list[str]:
    if len(names) > _MAX_COLUMNS:
        raise DataError(f"{path}: has {len(names):,} columns, more than any manifest. Is this the right file?")
    twice = next((name for place, name in enumerate(names) if name and name in names[:place]), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called '{twice}'; keep one.")
    return names


def _cell_text(value: object) -> str:
    if isinstance(value, (float, np.floating)):  # pandas makes floats of whole numbers that stand beside missing ones
        return str(int(value)) if value.is_integer() else "" if math.isnan(value) else str(value)
    return "" if value is None or value is pd.NA or value is pd.NaT else str(value).strip()


def _paths(column: pd.Series[str], path: Path) -> list[object]:
    empty = column.index[column == ""]
    if len(empty):
        raise DataError(f"{path}: line {empty[0]} has no path.")
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
    for line, text in column.items():
        if not text and may_be_empty:
            values.append(None)
        elif text.lower() in known:
            values.append(known[text.lower()])
        else:
            raise DataError(f"{path}: line {line} has the {column.name} '{text}'; write {expected}.")
    return values


def _whole_numbers(column: pd.Series[str], path: Path) -> list[object]:
    values: list[object] = []
    for line, text in column.items():
        try:
            number = float(text) if text else None
        except ValueError:
            number = float("nan")
        if number is not None and not (number.is_integer() and abs(number) < _LARGEST_PLACE):
            raise DataError(
                f"{path}: line {line} has the {column.name} '{text}'; write whole pixels or leave it empty."
            )
        values.append(None if number is None else int(number))
    return values
