"""Training as it goes on, in a notebook: the stage, the curves, what was said; elsewhere lines of text."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from clearmargin.errors import one_line
from clearmargin.report.progress import STAGES, describe_epoch
from clearmargin.report.words import decimal, duration
from clearmargin.types import Listener

_EVERY_S = 0.25
"""Between two changes of the picture, at least."""
_RESTS = 10
"""And so many times as long as the last change took, so that drawing costs little."""
_MOST_NOTES = 6
_MOST_NETWORKS = 12
_Rows = list[Mapping[str, float]]


class _Handle(Protocol):
    def update(self, obj: Any) -> None: ...


class LiveCurves(Listener):
    """A listener for notebooks: `train(…, listener=LiveCurves())` draws loss, accuracy and AUROC after each epoch.

    One object shows one job. Where there is no notebook it writes a line for each stage, epoch and note.
    """

    def __init__(self) -> None:
        self._stage, self._done, self._total = "", 0, 0
        self._networks: list[_Rows] = []
        self._notes: list[str] = []
        self._drawn: tuple[int, str] | None = None
        self._started = self._shown = time.monotonic()
        self._took, self._ended = 0.0, ""
        self._handle: _Handle | None = None
        self._forget: Callable[[], None] | None = None
        self._in_notebook = _shell() is not None

    def stage(self, name: str) -> None:
        if name == "train":
            self._networks.append([])
        self._stage, self._done, self._total = name, 0, 0
        self._show(f"{STAGES.get(name, name)} …", now=True)

    def advance(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self._show("")

    def epoch(self, row: Mapping[str, float]) -> None:
        if not self._networks:
            self._networks.append([])
        self._networks[-1].append(dict(row))
        self._show(f"  {describe_epoch(row)}")

    def note(self, text: str) -> None:
        self._notes.append(one_line(text))
        self._show(one_line(text))

    def _show(self, line: str, *, now: bool = False) -> None:
        if not self._in_notebook:
            if line:
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
            return
        if not now and time.monotonic() - self._shown < max(_EVERY_S, _RESTS * self._took):
            return
        if self._handle is None:
            self._begin()
        self._update()

    def _begin(self) -> None:
        """Opens the output of the running cell, and hears when that cell ends."""
        from IPython.display import HTML, display  # noqa: PLC0415

        shell = _shell()
        self._handle = display(HTML(""), display_id=True)
        shell.events.register("post_run_cell", self._end)
        self._forget = lambda: shell.events.unregister("post_run_cell", self._end)

    def _end(self, result: Any) -> None:
        word = "Done" if result.success else "Stopped"
        self._ended = f"{word} after {duration(time.monotonic() - self._started)}"
        if self._forget is not None:
            self._forget()
        self._update()

    def _update(self) -> None:
        from IPython.display import HTML  # noqa: PLC0415

        assert self._handle is not None
        began = time.monotonic()
        self._handle.update(HTML(self.to_html()))
        self._shown = time.monotonic()
        self._took = self._shown - began

    def to_html(self) -> str:
        """The picture as it is now."""
        from clearmargin.display.page import block, more, tag  # noqa: PLC0415

        title = self._ended or f"{STAGES.get(self._stage, self._stage)} …"
        share = f" {self._done:,} of {self._total:,}" if self._total and not self._ended else ""
        progress = tag("progress", value=self._done, max=self._total) if share else ""
        networks = [rows for rows in self._networks if rows]
        lines = [
            tag("p", f"Network {number}: {_last(rows)}", class_="muted")
            for number, rows in enumerate(networks[:_MOST_NETWORKS], start=1)
        ]
        if len(networks) == 1:
            lines = [tag("p", _last(networks[0]), class_="muted")]
        notes = [tag("p", note[:300], class_="muted") for note in self._notes[-_MOST_NOTES:]]
        return block(
            tag("p", title, class_="title"),
            *([tag("p", progress, share)] if share else []),
            self._curves(networks),
            *lines,
            *more(len(networks), len(lines), "networks"),
            *notes,
        )

    def _curves(self, networks: list[_Rows]) -> str:
        """The curves of the network that is trained; drawn anew where an epoch was added."""
        if not networks:
            return ""
        epochs = sum(map(len, networks))
        if self._drawn is None or self._drawn[0] != epochs:
            import pandas as pd  # noqa: PLC0415

            from clearmargin.display.page import drawing  # noqa: PLC0415
            from clearmargin.report.plots import training_curves  # noqa: PLC0415

            curves = training_curves(pd.DataFrame(networks[-1]))
            self._drawn = (epochs, drawing(curves, alt="Loss and accuracy by epoch, training and validation"))
        return self._drawn[1]


def _last(rows: _Rows) -> str:
    row = rows[-1]
    return (
        f"epoch {row['epoch']:.0f}, validation: loss {decimal(row['validation_loss'])}, accuracy "
        f"{decimal(row['validation_accuracy'])}, AUROC {decimal(row['validation_auroc'])}"
    )


def _shell() -> Any:
    """The shell of a notebook's kernel; None in scripts and in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if shell is not None and getattr(shell, "kernel", None) is not None else None
