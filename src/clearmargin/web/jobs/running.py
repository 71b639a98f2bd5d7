"""What a running server has for jobs: the store, the worker, and who listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from clearmargin.web.jobs.events import Changes
from clearmargin.web.jobs.schema import Wanted
from clearmargin.web.jobs.store import JobStore
from clearmargin.web.jobs.worker import Worker
from clearmargin.web.served import Served
from clearmargin.web.serving import Serving


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs of a server."""

    store: JobStore
    worker: Worker
    changes: Changes


def open_jobs(serving: Serving) -> Jobs:
    """The jobs in the server's state folder, which nobody else can use until the server ends; none is run yet.

    Raises:
        UsageError: another server uses the folder, or what is in it cannot be used.
        DataError: the folder is not writable.
    """
    settings = serving.settings
    changes = Changes()
    store = JobStore(settings.state_folder, keep_hours=settings.keep_hours)
    store.heard = changes.tell
    worker = Worker(
        store,
        serving.served,
        stopping=serving.stopping,
        is_busy=lambda: serving.slots > 0,
        decided=serving.metrics.decided,
    )
    serving.jobs = Jobs(store, worker, changes)
    return serving.jobs


@asynccontextmanager
async def run_jobs(serving: Serving) -> AsyncIterator[None]:
    """Runs jobs while the server lives; opens them where that was not done before."""
    jobs = serving.jobs or open_jobs(serving)
    jobs.worker.start()
    try:
        yield
    finally:
        await asyncio.to_thread(jobs.worker.stop)
        jobs.store.close()
        serving.jobs = None


def wanted_of(served: Served, *, context: bool, similar: int, prevalence: float | None) -> Wanted:
    """What the rows of a job depend on that this bundle decides."""
    predictor = served.predictor
    return Wanted(served.name, predictor.bundle.sha256, predictor.gated, context, similar, prevalence)
