"""Predictions as a comparison takes them: of a run folder, or a table that any software wrote.

A table needs an image, a label and a probability for each row; columns go by the names that are usual for
them. What is a valid value is decided in `predictions.py`. A threshold is never made up: it is the run's,
the one that the table's decisions follow, or the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api import types as pandas_types

from clearmargin.decision import decide
from clearmargin.errors import DataError, UsageError, closest, counted
from clearmargin.evaluation.predictions import DECISIONS, check_predictions, read_predictions
from clearmargin.types import LABEL_NAMES, SPLITS

PATH_NAMES = (
    *("path", "image_path", "file_path", "filepath", "filename", "file_name", "file"),
    *("image", "image_name", "image_id", "name", "id"),
)
LABEL_COLUMN_NAMES = ("label", "y_true", "true_label", "target", "truth", "ground_truth")
PROBABILITY_NAMES = (
    *("probability", "prob", "score", "p_malignant", "prob_malignant", "probability_malignant"),
    *("malignant_probability", "predicted_probability", "pred_prob", "y_prob", "y_score"),
)
PATIENT_NAMES = ("patient_id", "patientid", "patient", "subject_id", "subject")
SPLIT_NAMES = ("split", "subset", "partition")
DECISION_NAMES = ("decision", "y_pred", "predicted_label", "predicted_class")

_SPLIT_WORDS = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation", "testing": "test"}
_SPLIT_WORDS |= dict(zip(SPLITS, SPLITS, strict=True))
_DECISION_WORDS = {"0": LABEL_NAMES[0], "0.0": LABEL_NAMES[0], "1": LABEL_NAMES[1], "1.0": LABEL_NAMES[1]}
_DECISION_WORDS |= dict(zip(DECISIONS, DECISIONS, strict=True))
_KEPT = ["path", "patient_id", "split", "label", "probability"]


@dataclass(frozen=True, slots=True)
class Predictions:
    """One model's predictions.

    `table` has `path` and `patient_id` (text, the latter may be missing), `split` (`test` throughout where the
    file has none), `label` (int64) and `probability` (float64); `threshold` is None where nothing tells it.
    `cross_validated` says that each image was predicted by a network that had not seen its patient.
    """

    name: str
    table: pd.DataFrame
    threshold: float | None
    cross_validated: bool = False


def read_models(paths: Sequence[Path], *, thresholds: Sequence[float] = ()) -> list[Predictions]:
    """The predictions of run folders and of CSV or Parquet files, in the order given, each with a name of its own.

    Args:
        paths: run folders, their predictions.csv, or files of other software.
        thresholds: for those that have none of their own: one for all of them, or one each, in their order.

    Raises:
        DataError: a file is missing or not a table, a column is missing, or a value is refused.
        UsageError: a threshold outside [0, 1], or another number of them than there are files to take them.
    """
    models = [replace(_read_model(path), name=name) for path, name in zip(paths, _short_names(paths), strict=True)]
    if not thresholds:
        return models
    wrong = next((value for value in thresholds if not 0 <= value <= 1), None)
    if wrong is not None:
        raise UsageError(f"the threshold {wrong:g} is not between 0 and 1; give a probability.")
    without = [place for place, model in enumerate(models) if model.threshold is None]
    if not without:
        raise UsageError("a threshold is given, and every file has its own: leave the threshold out.")
    if len(thresholds) not in (1, len(without)):
        need = counted(len(without), "file needs", "files need")
        raise UsageError(
            f"{counted(len(thresholds), 'threshold', 'thresholds')} given, and {need} one: give one for all "
            "of them, or one each, in their order."
        )
    given = list(thresholds) * len(without) if len(thresholds) == 1 else list(thresholds)
    for place, threshold in zip(without, given, strict=True):
        models[place] = replace(models[place], threshold=threshold)
    return models


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path; as many parts as it takes for them all to differ, or numbers where none do."""
    whole = [path.resolve() for path in paths]
    if len(set(whole)) < len(whole):
        return [f"{path.name} ({number})" for number, path in enumerate(whole, start=1)]
    for parts in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-parts:]) for path in whole]
        if len(set(names)) == len(names):
            break
    return names


def _read_model(path: Path) -> Predictions:
    if path.is_dir():
        return _read_run(path)
    if path.name == "predictions.csv" and (path.parent / "metrics.json").is_file():
        return _read_run(path.parent)
    return read_table(path)


def _read_run(folder: Path) -> Predictions:
    try:
        values = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        threshold = float(values["operating_point"]["threshold"])
        crossed = bool((values.get("protocol") or {}).get("folds"))
        table = read_predictions(folder / "predictions.csv")
    except FileNotFoundError:
        raise DataError(
            f"{folder}: not a finished run (no metrics.json). Give a run folder, or a CSV or Parquet file with path, "
            "label and probability."
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(
            f"{folder / 'metrics.json'}: has no operating point; restore it or run the job again."
        ) from None
    return Predictions(folder.name, table[_KEPT], threshold, cross_validated=crossed)


def read_table(path: Path) -> Predictions:
    """The predictions in a CSV (comma, semicolon or tab) or Parquet file of any software.

    Raises:
        DataError: no such file, not a table, a column is missing or there twice, or a value that
            `check_predictions` refuses.
    """
    frame = _read_frame(path)
    try:
        columns = {
            "path": _find_column(frame, "path", PATH_NAMES),
            "label": _find_column(frame, "label", LABEL_COLUMN_NAMES, alone=True),
            "probability": _find_column(frame, "probability", PROBABILITY_NAMES, alone=True),
        }
        optional = {"patient_id": PATIENT_NAMES, "split": SPLIT_NAMES, "decision": DECISION_NAMES}
        columns |= {name: found for name, names in optional.items() if (found := _named(frame, names))}
        table = _tidy(pd.DataFrame({name: frame[column] for name, column in columns.items()}))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return Predictions(path.name, table[_KEPT], _followed_threshold(table))


def _read_frame(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        return pd.read_csv(
            path,
            sep=max(",;\t", key=header.count),
            dtype="str",
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder; give run folders, or CSV or Parquet files.") from None
    except (OSError, ValueError, pd.errors.ParserError) as error:  # not UTF-8, empty, not Parquet: all ValueErrors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: not a table in CSV or Parquet ({reason}); save it as one of these.") from None


def _named(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The frame's column of the first of these names, whatever its case; None where there is none."""
    by_name = {str(column).strip().lower(): str(column) for column in frame.columns}
    return next((by_name[name] for name in names if name in by_name), None)


def _find_column(frame: pd.DataFrame, what: str, names: Sequence[str], *, alone: bool = False) -> str:
    """The column for `what`; with `alone`, several candidates of which none has the very name are refused."""
    found = [name for name in names if _named(frame, [name])]
    if not found:
        near = closest(what, map(str, frame.columns))
        hint = f" (there is '{near}')" if near else ""
        raise DataError(
            f"has no column '{what}'{hint}: name one so; {', '.join(names[1:])} are understood too. path, label and "
            "probability are needed, patient_id, split and decision are used where they are there."
        )
    if alone and len(found) > 1 and found[0] != what:
        raise DataError(f"has both '{found[0]}' and '{found[1]}': name the column to use '{what}'.")
    return str(_named(frame, found))


def _tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns with their words and types, checked."""
    table = pd.DataFrame(
        {
            "path": _text(frame["path"]),
            "patient_id": _text(frame["patient_id"]) if "patient_id" in frame else None,
            "slide_id": None,
            "x": None,
            "y": None,
            "split": _words(frame["split"], _SPLIT_WORDS) if "split" in frame else "test",
            "label": frame["label"],
            "logit": 0.0,  # other software has none, and nothing here needs it
            "probability": frame["probability"],
            "decision": _words(frame["decision"], _DECISION_WORDS) if "decision" in frame else LABEL_NAMES[0],
        },
        index=frame.index,
    )
    check_predictions(table)
    if "decision" not in frame:
        table["decision"] = None
    return table.assign(
        patient_id=table["patient_id"].astype("str"),
        label=pd.to_numeric(table["label"]).astype("int64"),
        probability=pd.to_numeric(table["probability"]).astype("float64"),
    ).reset_index(drop=True)


def _text(column: pd.Series) -> pd.Series:
    """The ids as text; whole numbers that a missing neighbour made floats lose their `.0`."""
    if pandas_types.is_float_dtype(column) and (column.dropna() == column.dropna().round()).all():
        column = column.astype("Int64")
    return column.map(str, na_action="ignore").astype("str")


def _words(column: pd.Series, known: dict[str, str]) -> pd.Series:
    """The words in our own spelling; an unknown one is left for the check to name."""
    words = _text(column)
    return words.str.strip().str.lower().map(known).fillna(words)


def _followed_threshold(table: pd.DataFrame) -> float | None:
    """The threshold that gives the table's decisions; None where there are none, or no one threshold does.

    Between the highest probability called benign and the lowest called malignant any would do; it is the
    latter. Where the model abstained in between, it is not known.
    """
    decisions = table["decision"]
    if decisions.isna().any():
        return None
    shares = table["probability"].to_numpy()
    called = shares[(decisions == LABEL_NAMES[1]).to_numpy()]
    threshold = float(called.min() if len(called) else np.nextafter(shares.max(), np.inf))
    follows = decide(shares, threshold) == decisions.to_numpy(dtype=str)
    return threshold if follows.all() else None
