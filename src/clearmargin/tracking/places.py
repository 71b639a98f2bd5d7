"""Where in a run folder networks and runs lie: a run is made of folds or seeds, each a run, and a run of networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clearmargin.training.run_folder import FIELD, NETWORKS

HISTORY = "history.csv"


@dataclass(frozen=True, slots=True)
class Place:
    """A network of a run."""

    run: str
    """"" for the run itself, else one that it is made of, as folds/0."""
    network: str
    """"" for the only one, or the mean of several; else network_0 of them, field for the one that sees the field."""


def find_place(out: Path, folder: Path) -> Place:
    """Which network keeps its history in the folder, below the run folder `out`.

    >>> find_place(Path("RUN"), Path("RUN/folds/2/field/checkpoint/1"))
    Place(run='folds/2', network='field_network_1')
    >>> find_place(Path("RUN"), Path("RUN"))
    Place(run='', network='')
    """
    parts = list(folder.relative_to(out).parts)
    words: list[str] = []
    if parts[-2:-1] == [NETWORKS]:
        words = [f"network_{parts[-1]}"]
        parts = parts[:-2]
    if parts[-1:] == [FIELD]:
        words = [FIELD, *words]
        parts = parts[:-1]
    return Place("/".join(parts), "_".join(words))


def find_histories(out: Path) -> list[Path]:
    """The folders with a history.csv, of every network of the run and of those that it is made of."""
    return sorted(file.parent for file in out.rglob(HISTORY))
