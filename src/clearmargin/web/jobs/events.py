"""Server-sent events of a job: how far it is, as often as that changes, and its end.

Each event's id is the number of changes of the job so far, which goes up over restarts too: a client that comes back
with Last-Event-ID hears only what it does not know yet. Events tell how a job stands, not each step: who listens slowly
hears fewer of them.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from clearmargin.web.jobs.schema import JobFacts

COMMENT_S = 15.0
"""Of silence until a comment is sent, so that nobody on the way thinks the connection dead."""
_GLANCE_S = 0.5
"""Between two looks whether the server ends."""


class Changes:
    """Wakes who listens to a job; told from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._listening.values()))

    def tell(self, job_id: str) -> None:
        """The job changed."""
        with self._lock:
            listening = list(self._listening.get(job_id, ()))
        for loop, changed in listening:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

    @contextmanager
    def listen(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set whenever the job changes."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._listening.setdefault(job_id, set()).add(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._listening[job_id].discard(entry)
                if not self._listening[job_id]:
                    del self._listening[job_id]


async def tell_changes(
    job_id: str,
    find: Callable[[str], JobFacts | None],
    changes: Changes,
    stopping: threading.Event,
    *,
    last: int | None,
    comment_s: float = COMMENT_S,
) -> AsyncIterator[bytes]:
    """The stream of a job's events, until it is ended or deleted, or the server ends.

    Args:
        job_id: of the job.
        find: the job as it stands; None when there is none any more. Blocks.
        changes: wakes the stream.
        stopping: set when the server ends.
        last: the id of the last event that the client knows.
        comment_s: seconds of silence until a comment is sent.
    """
    sent, spoke = last or 0, time.monotonic()
    with changes.listen(job_id) as changed:
        while not stopping.is_set():
            changed.clear()
            job = await asyncio.to_thread(find, job_id)
            if job is None:
                yield event_of("end", {"state": "cancelled"}, number=sent + 1)
                return
            if job.is_ended:
                yield event_of("progress", progress_of(job)) + event_of("end", progress_of(job), number=job.changes)
                return
            if job.changes != sent:  # a number beyond that of the job is not one of ours
                yield event_of("progress", progress_of(job), number=job.changes)
                sent, spoke = job.changes, time.monotonic()
            while not (changed.is_set() or stopping.is_set()):
                try:
                    await asyncio.wait_for(changed.wait(), _GLANCE_S)
                except TimeoutError:
                    if time.monotonic() - spoke >= comment_s:
                        yield b": the job goes on\n\n"
                        spoke = time.monotonic()


def progress_of(job: JobFacts) -> dict[str, object]:
    """What an event tells of a job."""
    error = {} if job.error is None else {"error": job.error}
    return {"done": job.done, "total": job.total, "state": job.state, **error}


def event_of(name: str, data: object, *, number: int | None = None) -> bytes:
    r"""One event as it is sent.

    >>> event_of("end", {"state": "done"}, number=7)
    b'id: 7\nevent: end\ndata: {"state": "done"}\n\n'
    """
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()
