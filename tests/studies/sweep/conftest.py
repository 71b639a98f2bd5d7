"""Small images of ten patients in official parts, and a sweep of them that stops before the winner is trained."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import clearmargin
from clearmargin.errors import DataError
from clearmargin.studies.sweep import job

SPACE = "train.learning_rate = { low = 1e-4, high = 1e-2, log = true }\ntrain.batch_size = [8, 16]\n"
SETTINGS = {"evaluate.resamples": 100, "images.size": [32, 32], "images.fit": "stretch", "augment.zoom": 0.1}
TEST = ("P02", "P05")
"""In the middle, so that the rows of the others in the store are not their numbers in folds.csv."""


class Enough(DataError):
    """Trials are done, and no winner is wanted."""


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database does not wait for the disk: nobody pulls the plug of a test."""
    connect = sqlite3.connect

    def quick(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    monkeypatch.setattr(sqlite3, "connect", quick)


def write_parts(path: Path) -> Path:
    """A split of the patients P00 to P09: six to train, two to validate, two to test."""
    patients = [f"P{number:02}" for number in range(10)]
    others = iter(["train"] * 6 + ["validation"] * 2)
    parts = ["test" if patient in TEST else next(others) for patient in patients]
    pd.DataFrame({"patient_id": patients, "split": parts}).to_csv(path, index=False)
    return path


@pytest.fixture
def split_file(tmp_path: Path) -> Path:
    """What `write_parts` writes."""
    return write_parts(tmp_path / "parts.csv")


@pytest.fixture
def search(split_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`search(data, "name", trials=2)` does every trial and gives the folder, without a winner."""

    def stop(*arguments: object, **options: object) -> None:
        raise Enough("the trials are done.")

    def run(data: Path, name: str, *, space: str = SPACE, trials: int = 2, **options: Any) -> Path:
        monkeypatch.setattr(job, "run_training", stop)
        (tmp_path / "space.toml").write_text(space)
        given: dict[str, Any] = {"recipe": "larger_model", "folds": 2, "epochs": 1, "split": split_file}
        given |= {"settings": SETTINGS} | options
        with pytest.raises(Enough):
            clearmargin.sweep(data, tmp_path / name, space=tmp_path / "space.toml", trials=trials, **given)
        return tmp_path / name

    return run
