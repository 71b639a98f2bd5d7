"""The predictions table: checked, read and written. What evaluation accepts is decided here and nowhere else.

One row an image, with the columns of `types.PREDICTION_COLUMNS`, and of `types.CONTEXT_COLUMNS` those that a context
brings with it; missing is empty. Ids are text, so that `0012` stays itself, and floats come back bit for bit. Refused
images are not in the table.
"""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from clearmargin.errors import DataError, closest
from clearmargin.files import write_whole
from clearmargin.types import ALONE_COLUMNS, CONTEXT_COLUMNS, LABEL_NAMES, PREDICTION_COLUMNS, SPLITS

DECISIONS = (*LABEL_NAMES, "abstain")

_TEXT_COLUMNS = ("path", "patient_id", "slide_id", "split", "decision", "decision_alone")
_FLOAT_COLUMNS = ("logit", "probability", "logit_field", "logit_alone", "probability_alone")
_COORDINATES = ("x", "y")


def check_predictions(frame: pd.DataFrame) -> None:
    """Nothing, when every figure can be had from the table. Row 1 is the first below the header.

    Raises:
        DataError: a column is missing; no row; a path missing or twice; an id that is not text; a split,
            label or decision that does not exist; a logit or probability that is not a finite number, or
            a probability outside [0, 1]; a coordinate that is not a whole number.
    """
    _check_columns(frame)
    if len(frame) == 0:
        raise DataError("the predictions table has no row: predict at least one image first.")
    _check_paths(frame)
    _check_ids(frame)
    _check_words(frame, "split", SPLITS)
    for column in ("decision", *({"decision_alone"} & set(frame.columns))):
        _check_words(frame, column, DECISIONS)
    labels = pd.to_numeric(frame["label"], errors="coerce")
    _refuse(frame, "label", ~labels.isin([0, 1]), "0 (benign) and 1 (malignant) are the only labels")
    for column in (name for name in _FLOAT_COLUMNS if name in frame):
        numbers = _numbers(frame[column])
        _refuse(frame, column, ~np.isfinite(numbers), "it must be a finite number; a refused image has no row")
    for column in ("probability", *({"probability_alone"} & set(frame.columns))):
        share = _numbers(frame[column])
        why = "it must be between 0 and 1; apply the sigmoid to the logit first"
        _refuse(frame, column, (share < 0) | (share > 1), why)
    for column in _COORDINATES:
        numbers = _numbers(frame[column])
        wrong = frame[column].notna().to_numpy() & ~(np.isfinite(numbers) & (numbers == np.round(numbers)))
        _refuse(frame, column, wrong, "it must be a whole number of pixels, or empty")


def read_predictions(path: Path) -> pd.DataFrame:
    """The checked table of a predictions.csv, columns in the order of the contract; others are left out.

    `path`, `patient_id`, `slide_id`, `split` and `decision` are text, `label` is int64, `x` and `y` are
    nullable integers, `logit` and `probability` are float64, bit for bit as written.

    Raises:
        DataError: no such file, not a CSV, or a table that `check_predictions` refuses.
    """
    try:
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys((*_TEXT_COLUMNS, *_FLOAT_COLUMNS), "str"),
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8",
            low_memory=False,
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the predictions.csv of a run.") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path}: not a table in CSV ({reason}); give the predictions.csv of a run.") from None
    # The CSV parser of older pandas is off by a bit in some numbers; the conversion of text is exact in all.
    for column in set(_FLOAT_COLUMNS) & set(frame.columns):
        with contextlib.suppress(ValueError):  # a text that is no number is left for the check to name
            frame[column] = frame[column].astype("float64")
    try:
        check_predictions(frame)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return _with_types(frame)


def write_predictions(frame: pd.DataFrame, path: Path) -> None:
    """Writes the table as CSV, under a temporary name first, so that a file at `path` is always whole.

    Raises:
        DataError: a table that `check_predictions` refuses.
    """
    check_predictions(frame)
    table = _with_types(frame)
    # The writer leaves a lone carriage return bare, and readers take it for the end of the row.
    texts = [name for name in _TEXT_COLUMNS if name in table]
    odd = any(table[name].str.contains("\r", regex=False, na=False).any() for name in texts)
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if odd else csv.QUOTE_MINIMAL
    write_whole(
        path, lambda partial: table.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8", quoting=quoting)
    )


def _with_types(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of the contract with their types, of a table that was checked."""
    columns: dict[str, pd.Series] = {}
    for name in (*PREDICTION_COLUMNS, *(name for name in CONTEXT_COLUMNS if name in frame)):
        column = frame[name]
        if name in _TEXT_COLUMNS:
            columns[name] = column.astype("str").mask(column == "")
        elif name in _FLOAT_COLUMNS:
            columns[name] = column.astype("float64")
        elif name in _COORDINATES:
            columns[name] = pd.to_numeric(column).astype("Int64")
        else:
            columns[name] = pd.to_numeric(column).astype("int64")
    return pd.DataFrame(columns).reset_index(drop=True)


def _check_columns(frame: pd.DataFrame) -> None:
    missing = [name for name in PREDICTION_COLUMNS if name not in frame.columns]
    if not missing:
        lost = [name for name in ALONE_COLUMNS if name not in frame.columns]
        if 0 < len(lost) < len(ALONE_COLUMNS):
            raise DataError(
                f"the predictions table lacks the column '{lost[0]}': of {', '.join(ALONE_COLUMNS)}, which say what "
                "each patch is by itself, give all or none."
            )
        return
    others = [str(name) for name in frame.columns if name not in PREDICTION_COLUMNS]
    near = {name: closest(name, others) for name in missing}
    named = ", ".join(f"'{name}'" + (f" (there is '{near[name]}')" if near[name] else "") for name in missing)
    raise DataError(
        f"the predictions table lacks the column{'s' if len(missing) > 1 else ''} {named}: add or rename, so that it "
        f"has {', '.join(PREDICTION_COLUMNS)}; a column may be empty where nothing is known."
    )


def _check_paths(frame: pd.DataFrame) -> None:
    paths = frame["path"]
    missing = (paths.isna() | (paths == "")).to_numpy()
    if missing.any():
        raise DataError(f"row {_first_row(missing)} has no path: give each image its file name or another unique name.")
    again = paths.duplicated().to_numpy()
    if not again.any():
        return
    path = paths.to_numpy()[again][0]
    first, second = np.flatnonzero((paths == path).to_numpy())[:2]
    splits = [str(frame["split"].to_numpy()[place]) for place in (first, second)]
    if splits[0] == splits[1]:
        raise DataError(
            f"'{path}' is twice in the split '{splits[0]}' (rows {first + 1} and {second + 1}): keep one prediction "
            "of each image."
        )
    raise DataError(
        f"'{path}' is in both '{splits[0]}' and '{splits[1]}' (rows {first + 1} and {second + 1}): run "
        '"clearmargin split DATA --by patient" to rebuild the split, and predict again.'
    )


def _check_ids(frame: pd.DataFrame) -> None:
    for column in ("patient_id", "slide_id"):
        values = frame[column]
        if isinstance(values.dtype, pd.StringDtype):
            continue
        wrong = values.map(lambda value: not isinstance(value, str)).to_numpy(dtype=bool) & values.notna().to_numpy()
        _refuse(frame, column, wrong, "it must be text, so that an id such as 0012 keeps its zeros")


def _check_words(frame: pd.DataFrame, column: str, known: tuple[str, ...]) -> None:
    _refuse(frame, column, ~frame[column].isin(known), f"it must be one of {', '.join(known)}")


def _numbers(column: pd.Series) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The column as float64; what is no number is NaN."""
    return np.asarray(pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))


def _refuse(frame: pd.DataFrame, column: str, wrong: object, why: str) -> None:
    """Raises for the first row that is wrong, with the number of them."""
    places = np.flatnonzero(np.asarray(wrong, dtype=bool))
    if len(places) == 0:
        return
    value = frame[column].to_numpy()[places[0]]
    shown = "missing" if pd.isna(value) else f"'{value}'"
    others = f" (and in {len(places) - 1:,} more)" if len(places) > 1 else ""
    path = frame["path"].to_numpy()[places[0]]
    raise DataError(f"{column} in row {places[0] + 1} ('{path}') is {shown}{others}: {why}.")


def _first_row(wrong: object) -> int:
    return int(np.flatnonzero(np.asarray(wrong, dtype=bool))[0]) + 1
