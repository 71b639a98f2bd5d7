"""Shared runs: what is alone never waits, what comes together goes together, and one failure is one caller's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clearmargin.errors import BundleError
from clearmargin.web.batching import SharedRuns

LONG = 60.0
"""Seconds that no test could wait."""


class FakeSession:
    """Adds up pixels; a black image is one on which nothing can be decided."""

    image_shape, batch, has_features = (2, 2, 1), 8, True

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.describe(images)[0]

    def describe(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if not images.any(axis=(1, 2, 3)).all():
            raise BundleError("the network gives nan for an image.")
        sums = images.sum(axis=(1, 2, 3)).astype(np.float32)
        return sums, sums[:, None]


def shared(wait_s: float = LONG) -> tuple[SharedRuns, list[int]]:
    session: Any = FakeSession()
    runs, heard = SharedRuns(session, wait_s=wait_s), list[int]()
    runs.hear = heard.append
    return runs, heard


def image(value: int, number: int = 1) -> NDArray[np.uint8]:
    return np.full((number, 2, 2, 1), value, np.uint8)


def test_who_is_alone_never_waits() -> None:
    runs, heard = shared()
    assert runs.logits(image(3)).tolist() == [12]
    with runs.at_work():
        assert runs.describe(image(4))[1].tolist() == [[16]]
    assert heard == [1, 1]


def test_calls_of_those_at_work_go_together_and_each_gets_its_own() -> None:
    runs, heard = shared()
    barrier = threading.Barrier(5)

    def call(value: int) -> tuple[list[float], list[float]]:
        with runs.at_work():
            barrier.wait()
            if value % 2:
                return runs.logits(image(value, 2)[:1]).tolist(), []
            logits, features = runs.describe(image(value))
            return logits.tolist(), features[:, 0].tolist()

    with ThreadPoolExecutor(5) as pool:
        got = list(pool.map(call, range(1, 6)))
    assert got == [([4.0 * value], [] if value % 2 else [4.0 * value]) for value in range(1, 6)]
    assert heard == [5]


def test_a_run_takes_no_more_than_a_batch() -> None:
    runs, heard = shared()
    barrier = threading.Barrier(5)

    def call(value: int) -> list[float]:
        with runs.at_work():
            barrier.wait()
            return runs.logits(image(value, 3)).tolist()

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(call, range(1, 6))) == [[4.0 * value] * 3 for value in range(1, 6)]
    assert sum(heard) == 15
    assert max(heard) <= 8


def test_who_never_comes_is_waited_for_only_so_long() -> None:
    runs, heard = shared(wait_s=0.01)
    with ExitStack() as others:
        for _ in range(3):
            others.enter_context(runs.at_work())
        assert runs.logits(image(2)).tolist() == [8]
    assert heard == [1]


def test_who_leaves_is_waited_for_no_longer() -> None:
    runs, _ = shared()
    other = runs.at_work()
    other.__enter__()
    with runs.at_work(), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(runs.logits, image(2))
        other.__exit__(None, None, None)
        # This thread is at work too, and calls now.
        assert runs.logits(image(3)).tolist() == [12]
        assert answer.result().tolist() == [8]


def test_whole_batches_share_with_nobody() -> None:
    runs, heard = shared()
    with runs.at_work(), runs.at_work():
        assert len(runs.logits(image(1, 8))) == 8
    assert heard == [8]


def test_switched_off_every_call_is_a_run() -> None:
    runs, heard = shared(wait_s=0)
    with runs.at_work(), runs.at_work():
        for _ in range(3):
            runs.logits(image(1))
    assert heard == [1, 1, 1]


def test_an_image_that_fails_fails_for_its_own_caller_only() -> None:
    runs, heard = shared()
    barrier = threading.Barrier(3)

    def call(value: int) -> list[float] | str:
        with runs.at_work():
            barrier.wait()
            try:
                return runs.logits(image(value)).tolist()
            except BundleError as error:
                return str(error)

    with ThreadPoolExecutor(3) as pool:
        good, bad, other = pool.map(call, (1, 0, 2))
    assert (good, other) == ([4.0], [8.0])
    assert "nan" in bad
    assert heard[0] == 3


@pytest.mark.parametrize("turns", [200])
def test_many_threads_never_wait_for_each_other_for_ever(turns: int) -> None:
    runs, heard = shared(wait_s=0.001)

    def call(value: int) -> float:
        with runs.at_work():
            return float(runs.logits(image(value % 200 + 1))[0])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(call, range(turns))) == [4.0 * (value % 200 + 1) for value in range(turns)]
    assert sum(heard) == turns
