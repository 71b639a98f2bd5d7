"""What is known of a trial: its settings, its folds, how it ended; and the table trials.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from clearmargin.studies.sweep.space import Value, encode

State = Literal["complete", "pruned", "failed", "stopped", "running", "waiting"]
"""`stopped`: killed or interrupted in the middle, and done again under another number."""
TRIALS = "trials"
"""The folder that has a folder of each trial."""
WORKERS = ".workers"
"""The folder in which each process that takes trials holds a lock."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep does besides its space."""

    trials: int
    folds: int = 3
    pruner: Literal["median", "none"] = "median"


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One fold of a trial: the AUROC of the images that it held out, after so many epochs."""

    value: float
    epochs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial. Trials with the same settings share the `origin` that they were first tried under."""

    number: int
    state: State
    settings: Mapping[str, Value]
    origin: int
    folds: Mapping[int, FoldResult]
    is_baseline: bool = False
    reason: str = ""

    @property
    def value(self) -> float | None:
        """The mean over the folds that were trained; None where there is none."""
        return float(np.mean([each.value for each in self.folds.values()])) if self.folds else None

    @property
    def counts(self) -> bool:
        """It is one of the trials that were asked for."""
        return self.state not in ("stopped", "waiting")


def place_of(out: Path, origin: int) -> Path:
    """The folder of the trials of these settings."""
    return out / TRIALS / str(origin)


def logits_file(out: Path, origin: int, fold: int) -> Path:
    """The logits of the images that the fold held out, float32, in the order of folds.csv."""
    return place_of(out, origin) / f"logits_{fold + 1}.npy"


def find_winner(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the highest value, the first of several; None where none is complete."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def tabulate(trials: Sequence[Trial], keys: Sequence[str], n_folds: int) -> pd.DataFrame:
    """trials.csv: one row a trial, in the order of their numbers; `seconds` last but the reason."""
    rows: list[dict[str, Any]] = []
    for trial in sorted(trials, key=lambda each: each.number):
        if trial.state == "waiting":
            continue
        row: dict[str, Any] = {"number": trial.number, "state": trial.state, "baseline": trial.is_baseline}
        row["origin"] = trial.origin
        row |= {key: encode(trial.settings[key]) if key in trial.settings else None for key in keys}
        row["value"] = trial.value
        row |= {f"fold_{fold + 1}": trial.folds[fold].value if fold in trial.folds else None for fold in range(n_folds)}
        row["epochs"] = sum(each.epochs for each in trial.folds.values())
        row["seconds"] = round(sum(each.seconds for each in trial.folds.values()), 3)
        rows.append(row | {"reason": trial.reason})
    return pd.DataFrame(rows)
