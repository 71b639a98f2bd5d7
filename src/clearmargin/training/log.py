"""The run log: log.jsonl, one event a line with its time, and history.csv, one epoch a line."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from clearmargin.files import write_whole
from clearmargin.types import Listener

HISTORY_COLUMNS = (
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "validation_auroc",
    "learning_rate",
    "seconds",
    "images_per_second",
)


class RunLog(Listener):
    """Writes what it hears to log.jsonl, passes it on, and keeps the seconds that each stage took."""

    def __init__(self, path: Path, following: Listener) -> None:
        self._path = path
        self._following = following
        self._stage: str | None = None
        self._started = time.monotonic()
        self.seconds: dict[str, float] = {}

    def stage(self, name: str) -> None:
        self.close_stage()
        self._stage, self._started = name, time.monotonic()
        self._write("stage", {"name": name})
        self._following.stage(name)

    def close_stage(self) -> None:
        """The running stage ends; its time is added to `seconds`."""
        if self._stage is not None:
            spent = time.monotonic() - self._started
            self.seconds[self._stage] = round(self.seconds.get(self._stage, 0.0) + spent, 3)
            self._stage = None

    def advance(self, done: int, total: int) -> None:
        self._following.advance(done, total)

    def network(self, folder: Path) -> None:
        self._following.network(folder)

    def epoch(self, row: Mapping[str, float]) -> None:
        self._write("epoch", dict(row))
        self._following.epoch(row)

    def note(self, text: str) -> None:
        self._write("note", {"text": text})
        self._following.note(text)

    def _write(self, event: str, content: Mapping[str, object]) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **content}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Writes history.csv anew under another name and renames it."""

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, HISTORY_COLUMNS)
            writer.writeheader()
            writer.writerows(history)

    write_whole(path, write)
