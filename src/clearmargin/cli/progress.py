"""How a running job looks in a terminal (bars, on standard error) and in a log file (plain lines)."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clearmargin.errors import one_line
from clearmargin.report.progress import STAGES, describe_epoch
from clearmargin.types import Listener

if TYPE_CHECKING:
    from rich.progress import TaskID

_IN_BYTES = ("download", "verify")
_MEGABYTE = 10**6
_PLAIN_EVERY_S = 10.0


def build_listener(*, quiet: bool = False) -> Listener:
    """The listener that suits standard error: silent, drawn, or plain lines."""
    if quiet:
        return Listener()
    return DrawnListener() if sys.stderr.isatty() else PlainListener()


class PlainListener(Listener):
    """One line for each stage, epoch and note, and how far it is now and then, the last time at the total."""

    def __init__(self) -> None:
        self._stage, self._started, self._told, self._is_done = "", time.monotonic(), time.monotonic(), False

    def stage(self, name: str) -> None:
        self._stage, self._started, self._told, self._is_done = name, time.monotonic(), time.monotonic(), False
        _say(f"{STAGES.get(name, name)} …")

    def advance(self, done: int, total: int) -> None:
        now, is_end = time.monotonic(), done >= total and not self._is_done
        if self._stage != "train" and (is_end or now - self._told >= _PLAIN_EVERY_S):
            self._told, self._is_done = now, self._is_done or is_end
            _say(f"  {_amount(self._stage, done, total)} ({_rate(self._stage, done, now - self._started)})")

    def epoch(self, row: Mapping[str, float]) -> None:
        _say(f"  {describe_epoch(row)}")

    def note(self, text: str) -> None:
        _say(one_line(text))


class DrawnListener(Listener):
    """A bar for each stage with rate and time left; epochs and notes scroll above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=None, complete_style="magenta", finished_style="magenta"),
            TextColumn("{task.fields[amount]:>20}"),
            TextColumn("{task.fields[rate]:>10}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._started = time.monotonic()

    def stage(self, name: str) -> None:
        self._finish()
        self._started = time.monotonic()
        self._stage, self._name = name, STAGES.get(name, name)
        self._task = self._progress.add_task(self._name, total=None, amount="", rate="")
        self._progress.start()
        if name in ("export", "gate", "report"):  # nothing to count
            self._finish()

    def advance(self, done: int, total: int) -> None:
        if self._task is None:
            return
        rate = _rate(self._stage, done, time.monotonic() - self._started)
        self._progress.update(
            self._task, completed=done, total=total, amount=_amount(self._stage, done, total), rate=rate
        )
        if done >= total:
            self._finish()

    def epoch(self, row: Mapping[str, float]) -> None:
        self._console.print(f"  {describe_epoch(row)}")

    def note(self, text: str) -> None:
        self._console.print(one_line(text), markup=False)

    def _finish(self) -> None:
        if self._task is not None:
            self._progress.stop()
            self._progress.remove_task(self._task)
            self._task = None
            self._console.print(f"{self._name} done in {time.monotonic() - self._started:.1f} s")


def _amount(stage: str, done: int, total: int) -> str:
    if stage in _IN_BYTES:
        return f"{done / _MEGABYTE:,.1f} of {total / _MEGABYTE:,.1f} MB"
    return f"{done:,} of {total:,}"


def _rate(stage: str, done: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    return f"{rate / _MEGABYTE:,.1f} MB/s" if stage in _IN_BYTES else f"{rate:,.0f}/s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
