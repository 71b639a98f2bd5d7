"""tracking.json of a run folder: where the run is tracked, so that it is found again when the run is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from clearmargin.files import write_json

FILE = "tracking.json"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one tracker."""

    where: str | None
    """The WHERE of NAME:WHERE; None where it holds a secret, which no run folder gets."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """Run ("" for the run itself) to its id."""
    ended: tuple[str, ...] = ()
    """Runs whose result is written."""

    def with_run(self, run: str, identity: str) -> Kept:
        return replace(self, runs={**self.runs, run: identity})

    def with_ended(self, run: str) -> Kept:
        return replace(self, ended=tuple(dict.fromkeys((*self.ended, run))))


def read_kept(out: Path) -> dict[str, Kept]:
    """By the name of the tracker; empty where no run was tracked, or the file is not one of ours."""
    try:
        trackers = json.loads((out / FILE).read_text(encoding="utf-8"))["trackers"]
        return {
            name: Kept(entry["where"], dict(entry["runs"]), tuple(entry["ended"])) for name, entry in trackers.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_kept(out: Path, kept: Mapping[str, Kept]) -> None:
    """Writes tracking.json anew, whole."""
    write_json(out / FILE, {"schema": _SCHEMA, "trackers": {name: asdict(entry) for name, entry in kept.items()}})
