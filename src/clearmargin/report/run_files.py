"""What a run folder holds, read into one value; everything but the figures and the predictions may be missing.

An older run, or another model's predictions evaluated from outside, has fewer files and fewer keys. Such a
gap is an empty value here, and a dash or a missing section in the report, never an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clearmargin.config import read_config
from clearmargin.errors import DataError, one_line
from clearmargin.evaluation.predictions import read_predictions
from clearmargin.settings import RunConfig
from clearmargin.types import SPLITS, Split

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run that the report reads; tables have the columns that `DESIGN.md` gives them."""

    name: str
    folder: Path
    metrics: Values
    predictions: pd.DataFrame
    config: RunConfig | None
    environment: Values
    audit: Values | None
    split: pd.DataFrame | None
    history: pd.DataFrame | None

    @property
    def headline(self) -> Split:
        """The split that the answer is about: test, otherwise the last one that was evaluated."""
        return next(split for split in reversed(SPLITS) if split in self.metrics)

    @property
    def block(self) -> Values:
        """The figures of the headline split."""
        values: Values = self.metrics[self.headline]
        return values

    @property
    def rows(self) -> pd.DataFrame:
        """The predictions of the headline split."""
        return self.predictions[self.predictions["split"] == self.headline]

    @property
    def thresholds(self) -> float | pd.Series:
        """What decided the rows: one threshold, or in a cross-validation for each row that of its fold."""
        by_fold = self.metrics["operating_point"].get("by_fold")
        if not by_fold or self.split is None or "fold" not in self.split:
            return self.threshold
        fold_of = dict(zip(self.split["path"], self.split["fold"].astype(str), strict=True))
        return self.rows["path"].map(fold_of).map(by_fold).astype("float64")

    @property
    def decides_by_fold(self) -> bool:
        """Whether each fold of a cross-validation was decided by a threshold of its own, not by the bundle's."""
        return not isinstance(self.thresholds, float)

    @property
    def recipe(self) -> str | None:
        """The recipe that the model was trained by, where it is known."""
        if self.is_external:
            recipe = (self.protocol.get("bundle") or {}).get("recipe")
            return None if recipe is None else str(recipe)
        return self.config.recipe if self.config else None

    @property
    def training(self) -> RunConfig | None:
        """The settings that the model was trained under; None where it was trained elsewhere."""
        return None if self.is_external else self.config

    @property
    def is_external(self) -> bool:
        """Whether the model was trained elsewhere, and its images come from outside."""
        if "folds" in self.protocol:  # each image was tested by a network that had not seen its patient
            return False
        return "train" not in self.metrics and "train" not in (self.protocol.get("images") or {})

    @property
    def crossfit(self) -> int:
        """How many networks were trained on different patients of train and validation; 0 for one on train."""
        return int(self.protocol.get("crossfit") or 0)

    @property
    def in_context(self) -> bool:
        """Whether patches were decided among their neighbours; the block `image_alone` is then of each by itself."""
        return (self.metrics.get("context") or {}).get("kind") == "grid" and "image_alone" in self.block

    @property
    def knows_places(self) -> bool:
        """Whether it is known of every image of the headline where it lies on its slide."""
        return bool(self.rows[["slide_id", "x", "y"]].notna().all(axis=None))

    @property
    def protocol(self) -> Values:
        return self.metrics.get("protocol") or {}

    @property
    def interval(self) -> Values:
        """How the headline split's intervals were made: what was resampled, how often, and what to beware of."""
        return {**(self.metrics.get("interval") or {}), **(self.metrics[self.headline].get("interval") or {})}

    @property
    def threshold(self) -> float:
        return float(self.metrics["operating_point"]["threshold"])

    @property
    def shared_patients(self) -> int | None:
        """Patients of the headline split that are in the training split too; None where that is not known."""
        if self.split is None or not self.split["patient_id"].astype(bool).all():
            return None
        if self.is_external and "shared_patients" not in self.protocol:
            return None
        patients = self.split.groupby("split")["patient_id"].agg(set)
        return len(patients.get("train", set()) & patients.get(self.headline, set()))


def changed_files(run: Path) -> list[str]:
    """The files of a finished run that are not as they were when it ended, by the hashes in run.json.

    Raises:
        DataError: the run is not finished, or its run.json cannot be read.
    """
    if not (run / "run.json").is_file():
        if (run / "config.toml").is_file():
            raise DataError(
                f"{run}: not a finished run (no run.json). Finish it with the command that began it and --resume."
            )
        raise DataError(
            f"{run}: not a run folder; a bundle alone holds nothing to report. Give the folder that 'clearmargin "
            "train' or 'clearmargin evaluate' wrote."
        )
    content = _read_json(run / "run.json") or {}
    hashes = content.get("sha256")
    if content.get("complete") is not True or not isinstance(hashes, dict):
        raise DataError(f"{run / 'run.json'}: does not say that the run is complete; restore it or run the job again.")
    changed = []
    for name, expected in hashes.items():
        place = run / Path(str(name)).name if "/" not in str(name) else run / "bundle" / Path(str(name)).name
        if not place.is_file() or hashlib.sha256(place.read_bytes()).hexdigest() != expected:
            changed.append(one_line(str(name)))
    return changed


def read_run(run: Path) -> RunFiles:
    """The files of a run folder.

    Raises:
        DataError: the folder has no figures or no predictions, or one of its files cannot be read.
        ConfigError: config.toml has settings that this version does not know.
    """
    metrics = _read_json(run / "metrics.json")
    if metrics is None or not (run / "predictions.csv").exists():
        raise DataError(
            f"{run}: not a finished run, metrics.json and predictions.csv are needed; "
            "give the folder that 'clearmargin train' or 'clearmargin evaluate' wrote."
        )
    if not any(split in metrics for split in SPLITS) or "threshold" not in (metrics.get("operating_point") or {}):
        raise DataError(
            f"{run / 'metrics.json'}: has no evaluated split or no operating point; run 'clearmargin evaluate' again."
        )
    config = run / "config.toml"
    return RunFiles(
        name=run.resolve().name,
        folder=run,
        metrics=metrics,
        predictions=read_predictions(run / "predictions.csv"),
        config=read_config(config) if config.exists() else None,
        environment=_read_json(run / "environment.json") or {},
        audit=_read_json(run / "audit.json"),
        split=_read_split(run / "split.csv"),
        history=_read_history(run / "history.csv"),
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); restore it or run the job again.") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: holds a {type(values).__name__}, not an object; restore it or run the job again.")
    return values


def _read_split(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    table = _read_table(path, {"patient_id": str, "label": "int64", "split": str}, keep_blank=True)
    unknown = sorted(set(table["split"]) - set(SPLITS))
    if unknown:
        raise DataError(f"{path}: the split '{unknown[0]}' is none of {', '.join(SPLITS)}; correct the column 'split'.")
    return table


def _read_history(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    columns = [f"{part}_{name}" for part in ("train", "validation") for name in ("loss", "accuracy")]
    table = _read_table(path, {"epoch": "int64"} | dict.fromkeys(columns, "float64"), keep_blank=False)
    return table if len(table) else None


def _read_table(path: Path, types: Mapping[str, Any], *, keep_blank: bool) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=dict(types), keep_default_na=not keep_blank, encoding="utf-8")
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}); restore it or run the job again.") from None
    missing = [name for name in types if name not in table.columns]
    if missing:
        raise DataError(f"{path}: the column '{missing[0]}' is missing; restore it or run the job again.")
    return table
