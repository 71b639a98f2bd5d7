"""A run followed elsewhere while it trains, and found there afterwards: TRACKERS.

tensorboard    event files in the run folder, or below tensorboard:DIR
mlflow         a run in MLflow: a file beside the run folder, or the store of mlflow:URI

A tracker hears what the run's listener hears and reads what the run folder holds. Nothing that it does, or fails to do,
changes a run: what is wrong with the wish is an error before anything runs, what fails afterwards is one line. Heavy
libraries are imported when a run is tracked, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from clearmargin.errors import Interrupted, MissingExtra, UnknownName, UsageError
from clearmargin.tracking.event_files import EventFiles
from clearmargin.tracking.following import Tracking
from clearmargin.tracking.kept import Kept, read_kept
from clearmargin.tracking.mlflow_store import MlflowStore
from clearmargin.tracking.tracker import Tracker
from clearmargin.types import Listener

__all__ = ["TRACKERS", "choose_trackers", "tracked"]

TRACKERS: dict[str, Callable[[str, Path], Tracker]] = {
    "tensorboard": EventFiles,
    "mlflow": MlflowStore,
}
"""Name to what follows a run there, made from the WHERE of NAME:WHERE (empty for its own choice) and the run folder."""


def choose_trackers(track: str | Sequence[str], out: Path) -> list[Tracker]:
    """What each NAME or NAME:WHERE asks for; nothing is imported or written yet.

    Args:
        track: one or several.
        out: the run folder.

    Raises:
        UnknownName: no such tracker.
        MissingExtra: its library is not installed.
        UsageError: one is asked for twice, or WHERE is no place for it.
    """
    chosen: dict[str, Tracker] = {}
    for wish in [track] if isinstance(track, str) else track:
        name, _, where = wish.partition(":")
        if name not in TRACKERS:
            raise UnknownName("tracker", name, TRACKERS)
        if name in chosen:
            raise UsageError(f"--track {name}: is given twice; one run is tracked in one place by each.")
        chosen[name] = TRACKERS[name](where, out)
        missing = [library for library in chosen[name].libraries if find_spec(library) is None]
        if missing:
            raise MissingExtra(f"--track {name}", missing[0], extra="tracking")
    return list(chosen.values())


@contextmanager
def tracked(
    track: str | Sequence[str], out: Path, *, listener: Listener, begun: bool, resume: bool
) -> Iterator[Listener]:
    """The listener to train with, so that the run is also tracked; the run in the block is tracked to its end.

    A run that is resumed goes on where it was tracked before, also without being asked.

    Args:
        track: NAME or NAME:WHERE, one or several.
        out: the run folder.
        listener: hears all that it would hear without.
        begun: training had saved something there before.
        resume: it is to be gone on with.

    Raises:
        UsageError: as `choose_trackers`, and where another run is tracked in that place.
    """
    before = read_kept(out)
    if track:
        trackers = choose_trackers(track, out)
    elif resume and begun:
        trackers = _again(before, out, listener)
    else:
        trackers = []
    for tracker in trackers:
        tracker.check(goes_on=begun, before=before.get(tracker.name))
    if not trackers:
        yield listener
        return
    tracking = Tracking(trackers, out, following=listener, kept=before if begun else {})
    try:
        yield tracking
    except BaseException as error:
        tracking.end("interrupted" if isinstance(error, (Interrupted, KeyboardInterrupt)) else "failed")
        raise
    tracking.end("finished")


def _again(before: dict[str, Kept], out: Path, listener: Listener) -> list[Tracker]:
    """The trackers that the run had, as far as that is known and they are installed."""
    trackers = []
    for name, kept in before.items():
        if kept.where is None:
            listener.note(f"This run was tracked with {name}; give --track {name}:WHERE again to go on with that.")
            continue
        try:
            trackers += choose_trackers(f"{name}:{kept.where}", out)
        except UsageError as error:
            listener.note(f"This run is not tracked any further: {error}")
    return trackers
