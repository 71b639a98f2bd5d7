"""Requests that come together share a run of the network, and get the bits that they would get alone.

The first of them waits for the others: until none is left that could come, or so many images are there as a run
takes, or two milliseconds have passed. Who is alone never waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import BundleError
from clearmargin.images.fields import Fields
from clearmargin.predict.session import Session

WAIT_S = 0.002
_Logits = NDArray[np.float32]
_Answer = tuple[_Logits, NDArray[np.float32] | None]


class _Call:
    """Images of one request, and what the network says of them; None when it failed."""

    def __init__(self, images: NDArray[np.uint8], *, features: bool) -> None:
        self.images, self.features = images, features
        self.answer: _Answer | None = None


class _Run:
    """Calls that go through the network together."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.images = 0
        self.is_open = True
        self.done = threading.Event()

    def add(self, call: _Call) -> None:
        self.calls.append(call)
        self.images += len(call.images)


class SharedRuns:
    """Stands before a session; its `logits` and `describe` are called from the threads of many requests.

    Args:
        session: of the network.
        wait_s: how long the first of a run waits for others; 0 shares no run.

    Attributes:
        hear: hears of each run how many images it had.
    """

    def __init__(self, session: Session, *, wait_s: float = WAIT_S) -> None:
        self._session, self._wait_s = session, wait_s
        self.hear: Callable[[int], None] = lambda _images: None
        self.image_shape, self.batch, self.has_features = session.image_shape, session.batch, session.has_features
        self._changed = threading.Condition()
        self._next = _Run()
        self._at_work = self._inside = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Around what will call from this thread; a run may wait for it."""
        with self._changed:
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    def logits(self, images: NDArray[np.uint8] | Fields) -> _Logits:
        """As `Session.logits`."""
        if isinstance(images, Fields) or len(images) == 0:
            return self._session.logits(images)
        return self._answer(_Call(images, features=False))[0]

    def describe(self, images: NDArray[np.uint8]) -> tuple[_Logits, NDArray[np.float32]]:
        """As `Session.describe`."""
        logits, features = self._answer(_Call(images, features=True))
        assert features is not None
        return logits, features

    def _answer(self, call: _Call) -> _Answer:
        if len(call.images) >= self.batch or self._wait_s == 0:
            return self._ask([call])[0]
        with self._changed:
            self._inside += 1
            self._changed.notify_all()
            if not self._next.is_open or self._next.images + len(call.images) > self.batch:
                self._next.is_open = False
                self._next = _Run()
            run = self._next
            run.add(call)
            if len(run.calls) == 1:
                self._gather(run)
        try:
            if run.calls[0] is call:
                self._go(run)
            else:
                run.done.wait()
            # Where a run failed it may have been for the sake of another's image.
            return self._ask([call])[0] if call.answer is None else call.answer
        finally:
            with self._changed:
                self._inside -= 1

    def _gather(self, run: _Run) -> None:
        """Waits for others, and closes the run."""
        until = time.monotonic() + self._wait_s
        while run.is_open and run.images < self.batch and self._inside < self._at_work:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
        run.is_open = False

    def _go(self, run: _Run) -> None:
        try:
            for call, answer in zip(run.calls, self._ask(run.calls), strict=True):
                call.answer = answer
        except BundleError:
            if len(run.calls) == 1:
                raise
        finally:
            run.done.set()

    def _ask(self, calls: list[_Call]) -> list[_Answer]:
        images = calls[0].images if len(calls) == 1 else np.concatenate([call.images for call in calls])
        self.hear(len(images))
        features: NDArray[np.float32] | None = None
        if any(call.features for call in calls):
            logits, features = self._session.describe(images)
        else:
            logits = self._session.logits(images)
        answers, start = [], 0
        for call in calls:
            rows = slice(start, start + len(call.images))
            answers.append((logits[rows], None if features is None else features[rows]))
            start = rows.stop
        return answers
