"""The listener that tells trackers how a run goes on: it hears events, and reads the run folder for what they mean.

An epoch is written from history.csv, where it stands before it is heard of; so a run that was stopped, or is tracked
from the middle on, is caught up with in the same way in which it is followed, and no epoch is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clearmargin.errors import one_line
from clearmargin.tracking.facts import Settings, read_history, read_result, read_settings
from clearmargin.tracking.kept import Kept, write_kept
from clearmargin.tracking.places import Place, find_histories, find_place
from clearmargin.tracking.tracker import Status, Tracker
from clearmargin.types import Listener

_LONGEST_REASON = 200


class Tracking(Listener):
    """Passes everything on, and tells the trackers; one that fails is left out from then on, with one line."""

    def __init__(
        self, trackers: Sequence[Tracker], out: Path, *, following: Listener, kept: Mapping[str, Kept]
    ) -> None:
        self._out, self._following = out, following
        wheres = {tracker.name: tracker.kept.where for tracker in trackers}
        # What is kept of another place is no help in this one.
        self._kept = {name: entry for name, entry in kept.items() if wheres.get(name, entry.where) == entry.where}
        self._trackers = [tracker for tracker in trackers if not self._is_ended(tracker, "")]
        self._resumed = bool(kept)
        self._epochs: dict[tuple[str, Place], int] = {}
        self._folder = out
        self._has_begun = False

    def stage(self, name: str) -> None:
        self._following.stage(name)

    def advance(self, done: int, total: int) -> None:
        self._following.advance(done, total)

    def note(self, text: str) -> None:
        self._following.note(text)

    def network(self, folder: Path) -> None:
        self._following.network(folder)
        self._begin()
        before, now = find_place(self._out, self._folder).run, find_place(self._out, folder).run
        if before not in (now, ""):
            self._tell_result(before)
        self._folder = folder
        if self._resumed:
            self._catch_up(folder)

    def epoch(self, row: Mapping[str, float]) -> None:
        self._following.epoch(row)
        self._begin()
        self._catch_up(self._folder)

    def end(self, status: Status) -> None:
        """The run ended so; what is not written yet is, where it is finished."""
        if status == "finished":
            self._begin()
            folders = find_histories(self._out)
            for folder in folders:
                self._catch_up(folder)
            parts = dict.fromkeys(find_place(self._out, folder).run for folder in folders)
            for run in (*(part for part in parts if part), ""):
                self._tell_result(run)
        if self._has_begun:
            self._each(lambda tracker: tracker.end(status))

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        settings: list[Settings] = []

        def begin(tracker: Tracker) -> None:
            settings[:] = settings or [read_settings(self._out)]
            tracker.begin(settings[0], self._kept.get(tracker.name))

        self._each(begin)

    def _catch_up(self, folder: Path) -> None:
        """Writes the epochs of the network that are not written yet."""
        place = find_place(self._out, folder)

        def write(tracker: Tracker) -> None:
            key = (tracker.name, place)
            if key not in self._epochs:
                self._epochs[key] = tracker.last_epoch(place) if self._resumed else 0
            rows = [row for row in read_history(folder) if row["epoch"] > self._epochs[key]]
            if rows:
                tracker.write_epochs(place, rows)
                self._epochs[key] = int(rows[-1]["epoch"])

        self._each(write)

    def _tell_result(self, run: str) -> None:
        def write(tracker: Tracker) -> None:
            if not self._is_ended(tracker, run):
                tracker.write_result(run, read_result(self._out / run))
                tracker.kept = tracker.kept.with_ended(run)

        self._each(write)

    def _is_ended(self, tracker: Tracker, run: str) -> bool:
        kept = self._kept.get(tracker.name)
        return kept is not None and run in kept.ended

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                try:
                    tell(tracker)
                finally:
                    self._keep(tracker)
            except Exception as error:  # hours of training are worth more than their record elsewhere
                self._trackers.remove(tracker)
                self.note(
                    f"This run is not tracked with {tracker.name} any further ({_reason(error)}). It goes on all the "
                    f"same; once that is mended, the same command with --resume and --track {tracker.name} catches up."
                )

    def _keep(self, tracker: Tracker) -> None:
        if self._kept.get(tracker.name) != tracker.kept:
            self._kept[tracker.name] = tracker.kept
            write_kept(self._out, self._kept)


def _reason(error: Exception) -> str:
    text = one_line((str(error).strip() or type(error).__name__).splitlines()[0])
    text = re.sub(r"//[^/@\s]*@", "//…@", text)  # the password of an address
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
