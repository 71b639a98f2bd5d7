"""What every tracker is: told what to write, it need not know a run folder, and may fail.

Names of metrics have groups, divided by a slash: `loss/train`, `loss/validation`, `test/image/auroc`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from clearmargin.tracking.facts import Result, Settings
from clearmargin.tracking.kept import Kept
from clearmargin.tracking.places import Place

Status = Literal["finished", "interrupted", "failed"]

EPOCH_NAMES: dict[str, str] = {
    "validation_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "validation_accuracy": "accuracy/validation",
    "validation_auroc": "auroc/validation",
    "learning_rate": "training/learning_rate",
    "seconds": "training/seconds",
    "images_per_second": "training/images_per_second",
    "train_loss": "loss/train",
}
"""Column of history.csv to the name of the metric, in the order in which they are written."""
LAST_WRITTEN = "loss/train"
"""Of an epoch; where it is there, all of the epoch is."""


class Tracker(ABC):
    """One place where a run is tracked. A method may raise anything; a tracker that did is not asked again."""

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    """That must be installed."""
    kept: Kept
    """What must be kept of it so that the run is found again; changes as it goes on."""

    def check(self, *, goes_on: bool, before: Kept | None) -> None:  # noqa: B027 (there may be nothing to check)
        """Passes when the run can be tracked there as far as can be told without importing anything.

        Args:
            goes_on: the run was begun before, and is resumed.
            before: what is kept in the folder, also of a run that never got anywhere.

        Raises:
            UsageError: it cannot.
        """

    @abstractmethod
    def begin(self, settings: Settings, known: Kept | None) -> None:
        """Makes the tracked run, or finds again the one that is known."""

    @abstractmethod
    def last_epoch(self, place: Place) -> int:
        """The last epoch of the network that is written there, 0 if none."""

    @abstractmethod
    def write_epochs(self, place: Place, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes these rows of history.csv."""

    @abstractmethod
    def write_result(self, run: str, result: Result) -> None:
        """Writes what came out of the run itself ("") or of one that it is made of, which thereby ends."""

    @abstractmethod
    def end(self, status: Status) -> None:
        """Nothing more will come, for now."""


def epoch_metrics(row: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a row of history.csv by name, `LAST_WRITTEN` last.

    >>> epoch_metrics({"epoch": 1, "train_loss": 0.5, "validation_loss": 0.6})
    {'loss/validation': 0.6, 'loss/train': 0.5}
    """
    return {name: row[column] for column, name in EPOCH_NAMES.items() if column in row}
