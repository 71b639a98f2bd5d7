"""Works on jobs, one after the other, in a thread beside the requests.

Answers are kept chunk by chunk, a chunk being what the network takes at once, and a job that was stopped goes on with
the images in the same chunks, so that its rows are the very same. Requests go first: while one is at work, the
next chunk of a job waits, though never for long.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from clearmargin.predict.resume import find_start, predict_from
from clearmargin.types import Decision, Record
from clearmargin.web.jobs.schema import JobFacts, Wanted
from clearmargin.web.jobs.store import JobStore
from clearmargin.web.served import Row, Served, record_of_upload, refused
from clearmargin.web.uploads import Upload

_SWEEP_S = 60.0
"""Between two looks for jobs whose time is over; and until the disk is tried again."""
_PATIENCE_S, _GLANCE_S = 0.5, 0.02
"""For how long a chunk waits for requests at most, and how often it looks whether they are done."""
_log = logging.getLogger(__name__)


class Worker:
    """Runs the jobs of a store while it is started.

    Args:
        store: of the jobs.
        served: the bundles by name.
        stopping: when it is set, no chunk is begun any more.
        is_busy: says whether a request is at work.
        decided: hears what was decided on each image.
    """

    def __init__(
        self,
        store: JobStore,
        served: Mapping[str, Served],
        *,
        stopping: threading.Event,
        is_busy: Callable[[], bool] = lambda: False,
        decided: Callable[[Iterable[Decision]], None] = lambda _: None,
    ) -> None:
        self._store, self._served, self._stopping = store, served, stopping
        self._is_busy, self._decided = is_busy, decided
        self._awake = threading.Event()
        self._current: str | None = None
        self._unwanted = False
        self._swept = -_SWEEP_S
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Takes the jobs that wait, and those that come."""
        self._thread.start()

    def wake(self) -> None:
        """There is a new job."""
        self._awake.set()

    def cancel(self, job_id: str) -> None:
        """Ends the work on a job that was deleted, if it is under way."""
        if self._current == job_id:
            self._unwanted = True

    def stop(self) -> None:
        """Returns when the chunk under way is kept; the rest is for the next start."""
        self._stopping.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self._sweep()
                job = self._store.start_next()
                if job is None:
                    self._awake.wait(_SWEEP_S)
                    self._awake.clear()
                else:
                    self._run(job)
            except Exception as error:  # the thread is for all jobs; the message could hold anything
                _log.error("jobs wait for %g s: %s", _SWEEP_S, type(error).__name__)
                self._stopping.wait(_SWEEP_S)

    def _run(self, job: JobFacts) -> None:
        self._current, self._unwanted = job.id, False
        try:
            served = self._served.get(job.wanted.model)
            if served is None or (reason := _why_not(job.wanted, served)):
                gone = f"the model {job.wanted.model} is not served any more; send the images again, to another."
                self._store.fail(job.id, gone if served is None else reason)
                return
            self._decide(job, served)
        except _Stopped:
            self._store.release(job.id)
        except (OSError, sqlite3.Error):
            raise  # the job goes on when the disk is well again
        except Exception as error:
            _log.error("job %s failed: %s", job.id, type(error).__name__)
            self._store.fail(
                job.id, f"the server failed on it ({type(error).__name__}), which is a bug in clearmargin."
            )
        finally:
            self._current = None

    def _decide(self, job: JobFacts, served: Served) -> None:
        folder, wanted = self._store.folder_of(job.id), job.wanted
        uploads = [Upload(each.name, folder / each.file, each.refusal) for each in self._store.files(job.id)]
        row, rows = decide_from(served, uploads, job.done, wanted, check=self._check)
        with closing(rows):
            while chunk := list(islice(rows, served.predictor.batch)):
                if not self._store.add(job.id, row, [json.dumps(each) for each in chunk]):
                    return  # it was cancelled
                row += len(chunk)
                self._decided(each["decision"] for each in chunk)
                self._sweep()
                self._give_way()
        self._store.finish(job.id)

    def _give_way(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        while self._is_busy() and time.monotonic() < until:
            self._check()
            time.sleep(_GLANCE_S)

    def _check(self) -> None:
        if self._stopping.is_set() or self._unwanted:
            raise _Stopped

    def _sweep(self) -> None:
        if time.monotonic() - self._swept >= _SWEEP_S:
            self._swept = time.monotonic()
            self._store.sweep()


class _Stopped(Exception):
    """The job is wanted no more, or not now."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """Records that can be gone through again and again, and end with an exception of `check` when they are to end."""

    records: Sequence[Record]
    check: Callable[[], None]

    def __iter__(self) -> Iterator[Record]:
        for record in self.records:
            self.check()
            yield record


def decide_from(
    served: Served, uploads: Sequence[Upload], done: int, wanted: Wanted, *, check: Callable[[], None]
) -> tuple[int, Generator[Row]]:
    """A row at or before the first that is not done, and all rows from it on: those that a run of all would give.

    Args:
        served: whose bundle decides.
        uploads: of all rows.
        done: how many rows are known.
        wanted: how the rows are made.
        check: called now and then while rows are made; what it raises ends them.
    """
    readable = [row for row, upload in enumerate(uploads) if upload.refusal is None]
    records = _Watched([record_of_upload(uploads[row]) for row in readable], check)
    known = bisect_left(readable, done)
    start = find_start(served.predictor, records, known, context=wanted.context)
    first = done if start == known else readable[start]

    def rows() -> Generator[Row]:
        predictions = predict_from(served.predictor, records, start, context=wanted.context, similar=wanted.similar)
        for upload in uploads[first:]:
            check()
            prediction = next(predictions) if upload.refusal is None else refused(upload, wanted.similar)
            yield served.row(upload, prediction, wanted.prevalence)

    return first, rows()


def _why_not(wanted: Wanted, served: Served) -> str:
    """Why the bundle that is served now cannot go on with a job; empty where it can."""
    if served.predictor.bundle.sha256 != wanted.bundle:
        return f"the model {wanted.model} is another one since the server was started again; send the images again."
    if served.predictor.gated != wanted.gated:
        word = "on" if served.predictor.gated else "off"
        return f"the server was started again with its input gate switched {word}; send the images again."
    return ""
