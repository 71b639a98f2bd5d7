"""Figures of the server for Prometheus, in a registry of its own. No label holds a path, a name or a model."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})


class Metrics:
    """What is counted; each application has its own.

    `waiting_jobs` is set by who keeps the jobs.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "clearmargin_requests",
            "Answers by route, method and status.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "clearmargin_request_seconds",
            "From the head of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._images = Counter("clearmargin_images", "Images by decision.", ("decision",), registry=registry)
        self._batches = Histogram(
            "clearmargin_batch_images",
            "Images that went through the network together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self.at_work = Gauge("clearmargin_requests_at_work", "Requests with a body, under way.", registry=registry)
        self.waiting_jobs = Gauge("clearmargin_jobs_waiting", "Jobs that are queued or running.", registry=registry)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """An answer was sent; `route` is a template such as /api/v1/jobs/{id}."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def decided(self, decisions: Iterable[str]) -> None:
        """Images were decided."""
        for decision in decisions:
            self._images.labels(decision).inc()

    def ran(self, images: int) -> None:
        """So many images went through the network together."""
        self._batches.observe(images)

    def text(self) -> bytes:
        """All of it, in the format that Prometheus reads."""
        return generate_latest(self._registry)
