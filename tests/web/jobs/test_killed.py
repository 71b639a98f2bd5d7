"""Real servers, killed and ended while they work."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.web.conftest import png
from tests.web.jobs.real_server import real_server

from clearmargin.cli import main
from clearmargin.predict.predictor import load_bundle
from clearmargin.types import Listener
from clearmargin.web.client import Client, Job
from clearmargin.web.jobs.store import JobStore

STUCK_AFTER_64 = """
import time
from clearmargin.web.jobs.store import JobStore
add = JobStore.add
def stuck(self, job_id, first, answers):
    kept = add(self, job_id, first, answers)
    if first >= 32:
        time.sleep(3600)
    return kept
JobStore.add = stuck
"""
ONLY_WHAT_IS_MISSING = """
from clearmargin.web.jobs.store import JobStore
add = JobStore.add
def careful(self, job_id, first, answers):
    assert first >= 64, "computed again"
    return add(self, job_id, first, answers)
JobStore.add = careful
"""
SLOW = """
import time
from clearmargin.web.jobs.store import JobStore
add = JobStore.add
def slow(self, job_id, first, answers):
    time.sleep(0.2)
    return add(self, job_id, first, answers)
JobStore.add = slow
"""
DEADLY = """
import os, signal
from clearmargin.predict.predictor import Predictor
read = Predictor._read
def deadly(self, record):
    if os.path.getsize(record.path) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, record)
Predictor._read = deadly
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"patient {number:03}.png" for number in range(300)]
    for number, path in enumerate(paths):
        path.write_bytes(png(number) if number != 100 else b"no image")
    return paths


@pytest.fixture(scope="module")
def expected(bundle: Path, images: list[Path]) -> pd.DataFrame:
    return load_bundle(bundle).predict(images)


class Until(Listener):
    """Ends the waiting at so many images, or does something at each change."""

    def __init__(self, done: int, then: Any = None) -> None:
        self.done, self.then = done, then

    def advance(self, done: int, _total: int) -> None:
        if done >= self.done:
            if self.then is None:
                raise StopAsyncIteration
            self.then()


def wait_until(job: Job, done: int) -> None:
    with pytest.raises(StopAsyncIteration):
        job.wait(Until(done))


def test_killed_server_goes_on_with_what_is_missing(
    tmp_path: Path, bundle: Path, images: list[Path], expected: pd.DataFrame
) -> None:
    with real_server(bundle, tmp_path, before=STUCK_AFTER_64) as server, Client(server.url) as client:
        job = client.submit(images)
        wait_until(job, 64)
        server.kill()
    with real_server(bundle, tmp_path, before=ONLY_WHAT_IS_MISSING) as server, Client(server.url) as client:
        again = client.job(job.id)
        again.wait()
        pd.testing.assert_frame_equal(again.results(), expected)
        again.cancel()
    assert not list((tmp_path / "files").iterdir())


def test_ended_server_leaves_the_rest_and_killed_decoders_cost_at_most_their_image(
    tmp_path: Path, bundle: Path, images: list[Path], expected: pd.DataFrame, capfd: pytest.CaptureFixture[str]
) -> None:
    with real_server(bundle, tmp_path, before=SLOW) as server, Client(server.url) as client:
        job = client.submit(images)
        wait_until(job, 32)
        assert main(["serve", str(bundle), "--port", "0", "--state", str(tmp_path)]) == 2
        assert [line for line in capfd.readouterr().err.splitlines() if "another server uses this folder" in line]
        assert server.terminate() == 0
    store = JobStore(tmp_path)
    left = store.job(job.id)
    assert (left.state, 32 <= left.done < 300) == ("queued", True)
    store.close()
    with real_server(bundle, tmp_path, before=SLOW) as server, Client(server.url) as client:
        killed: list[int] = []

        def kill_decoders() -> None:
            for process in server.decoders():
                os.kill(process, signal.SIGKILL)
                killed.append(process)

        again = client.job(job.id).wait(Until(0, kill_decoders))
        rows = again.results()
    assert killed
    crashed = rows["reason"].str.contains("decoder").fillna(False).astype(bool)
    assert crashed.sum() <= len(killed)
    pd.testing.assert_frame_equal(rows[~crashed], expected[~crashed])


def test_job_that_kills_every_server_is_given_up_and_the_next_one_done(
    tmp_path: Path, bundle: Path, images: list[Path]
) -> None:
    deadly = tmp_path / "deadly.png"
    deadly.write_bytes(b"12345")
    state = tmp_path / "state"
    with real_server(bundle, state, before=DEADLY) as server, Client(server.url) as client:
        poison = client.submit([images[0], deadly]).id
        assert server.process.wait(60) == -signal.SIGKILL
    with real_server(bundle, state, before=DEADLY) as server:
        assert server.process.wait(60) == -signal.SIGKILL
    with real_server(bundle, state, before=DEADLY) as server, Client(server.url) as client:
        job = client.job(poison)
        assert job.state == "failed"
        assert "the server was killed twice while it worked on image 1 of 2" in (job.error or "")
        assert client.submit(images[:2]).wait().results()["decision"].notna().all()
