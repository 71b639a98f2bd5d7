"""What a running server has: its bundles, limits, folders and slots; `request.app.state.serving` is it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from shutil import rmtree
from typing import TYPE_CHECKING

from fastapi import Request

from clearmargin.web.errors import ApiError
from clearmargin.web.limits import ServeLimits
from clearmargin.web.metrics import Metrics

if TYPE_CHECKING:
    from clearmargin.web.jobs.running import Jobs
    from clearmargin.web.served import Served

API = "/api/v1"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What `clearmargin serve` was told."""

    private_folder: Path
    """Uploads live here while their request does; nobody else can read it."""
    state_folder: Path
    """What outlives the server: jobs."""
    limits: ServeLimits = field(default_factory=ServeLimits)
    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = LOOPBACK_HOSTS
    """Names in the header Host, without the port, under which the server answers; None takes any."""
    keep_hours: float = 24.0
    """How long the answers of an ended job are kept."""


@dataclass(eq=False)
class Serving:
    """What every request shares.

    `threads` is where the work of requests is done, and `stopping` is set when no new one is taken.
    """

    served: dict[str, Served]
    settings: ServeSettings
    threads: ThreadPoolExecutor = field(init=False)
    stopping: threading.Event = field(default_factory=threading.Event)
    jobs: Jobs | None = None
    """While the server lives."""
    metrics: Metrics = field(default_factory=Metrics)
    slots: int = 0
    """Taken by requests with a body and by work that nobody waits for any more; changed on the loop's thread only."""

    def __post_init__(self) -> None:
        self.threads = ThreadPoolExecutor(self.limits.concurrency, thread_name_prefix="request")
        self.metrics.at_work.set_function(lambda: self.slots)
        for each in self.served.values():
            each.listen(self.metrics.ran)

    @property
    def limits(self) -> ServeLimits:
        """What a request may cost."""
        return self.settings.limits

    def find(self, name: str | None) -> Served:
        """The bundle of this name, the first where none is named.

        Raises:
            ApiError: there is none of this name.
        """
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            raise ApiError("not_found", "there is no model of this name; /api/v1/models lists them.")
        return self.served[name]

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new private folder, gone at the end with all that is in it."""
        folder = self.settings.private_folder / token_hex(16)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            rmtree(folder, ignore_errors=True)


async def serving_of(request: Request) -> Serving:  # plain functions are called in a thread of their own
    """What the server of a request has; a dependency of routes: `Annotated[Serving, Depends(serving_of)]`."""
    serving: Serving = request.app.state.serving
    return serving
