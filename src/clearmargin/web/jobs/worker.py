"""Works on jobs, one after the other, in a thread beside the requests.

Answers are kept chunk by chunk, a chunk being what the network takes at once, and a job that was stopped goes on with
the images in the same chunks, so that its rows are the very same. Requests go first: while one is at work, the
next chunk of a job waits, though never for long.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from clearmargin.predict.resume import find_start, predict_from
from clearmargin.types import Record
from clearmargin.web.jobs.schema import JobFacts
from clearmargin.web.jobs.store import JobStore
from clearmargin.web.served import Served, record_of_upload
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
        is_busy: says whether a request is at work.
    """

    def __init__(
        self, store: JobStore, served: Mapping[str, Served], *, is_busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._store, self._served, self._is_busy = store, served, is_busy
        self._stopping, self._awake = threading.Event(), threading.Event()
        self._unwanted: set[str] = set()
        self._swept = -_SWEEP_S
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Takes the jobs that wait, and those that come."""
        self._thread.start()

    def wake(self) -> None:
        """There is a new job."""
        self._awake.set()

    def cancel(self, job_id: str) -> None:
        """Ends the work on a job, if it is under way; it was deleted."""
        self._unwanted.add(job_id)

    def ask_to_stop(self) -> None:
        """No more chunks from now on; returns at once."""
        self._stopping.set()
        self._awake.set()

    def stop(self) -> None:
        """Returns when the chunk under way is kept; the rest is for the next start."""
        self.ask_to_stop()
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
        try:
            served = self._served.get(job.wanted.model)
            reason = _why_not(job, served)
            if served is None or reason is not None:
                self._store.fail(job.id, reason or "")
                return
            self._decide(job, served)
        except _Stopped:
            if job.id not in self._unwanted:
                self._store.release(job.id)
        except OSError:
            raise  # of the store: the job goes on when the disk has room again
        except Exception as error:
            _log.error("job %s failed: %s", job.id, type(error).__name__)
            self._store.fail(job.id, f"the server failed on it ({type(error).__name__}), which is a bug in clearmargin.")
        finally:
            self._unwanted.discard(job.id)

    def _decide(self, job: JobFacts, served: Served) -> None:
        wanted, predictor = job.wanted, served.predictor
        folder = self._store.folder_of(job.id)
        uploads = [Upload(each.name, folder / each.file) for each in self._store.files(job.id)]
        records = _Watched([record_of_upload(upload) for upload in uploads], lambda: self._check(job.id))
        start = find_start(predictor, records, job.done, context=wanted.context)
        predictions = predict_from(predictor, records, start, context=wanted.context, similar=wanted.similar)
        size = predictor.batch
        while chunk := list(islice(predictions, size - start % size)):
            answers = [
                json.dumps(served.row(upload, prediction, prevalence=wanted.prevalence))
                for upload, prediction in zip(uploads[start : start + len(chunk)], chunk, strict=True)
            ]
            if not self._store.add(job.id, start, answers):
                return  # it was cancelled
            start += len(chunk)
            self._give_way(job.id)
            self._sweep()
        self._store.finish(job.id)

    def _give_way(self, job_id: str) -> None:
        until = time.monotonic() + _PATIENCE_S
        while self._is_busy() and time.monotonic() < until:
            self._check(job_id)
            time.sleep(_GLANCE_S)

    def _check(self, job_id: str) -> None:
        if self._stopping.is_set() or job_id in self._unwanted:
            raise _Stopped

    def _sweep(self) -> None:
        if time.monotonic() - self._swept >= _SWEEP_S:
            self._swept = time.monotonic()
            self._store.sweep()


class _Stopped(Exception):
    """The job is wanted no more, or not now."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """Records that end with an exception of `check` where the work on them is to end, as often as they are asked for."""

    records: Sequence[Record]
    check: Callable[[], None]

    def __iter__(self) -> Iterator[Record]:
        for record in self.records:
            self.check()
            yield record


def _why_not(job: JobFacts, served: Served | None) -> str | None:
    if served is None:
        return f"the model {job.wanted.model} is not served any more; send the images again, to another."
    if served.predictor.bundle.sha256 != job.wanted.bundle:
        return f"the model {job.wanted.model} is another one since the server was started again; send the images again."
    if served.predictor.is_gated != job.wanted.gated:
        word = "on" if served.predictor.is_gated else "off"
        return f"the server was started again with its input gate switched {word}; send the images again."
    return None
