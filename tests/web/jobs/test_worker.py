"""The worker in this process, stopped and started where a test wants it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.web.conftest import png

from clearmargin.bundle.read import read_bundle
from clearmargin.predict.predictor import Predictor
from clearmargin.web.jobs.running import wanted_of
from clearmargin.web.jobs.schema import JobFacts, JobFile
from clearmargin.web.jobs.store import JobStore
from clearmargin.web.jobs.worker import Worker
from clearmargin.web.limits import ServeLimits
from clearmargin.web.served import Served


class Stage:
    """A store in a folder, and workers over it."""

    def __init__(self, folder: Path, served: Served) -> None:
        self.folder, self.served = folder, served
        self.store = JobStore(folder)
        self.heard: list[tuple[str, int]] = []
        self.on_change: Callable[[JobFacts], None] = lambda _: None

    def submit(self, images: Sequence[tuple[str, bytes]], *, refused: Sequence[int] = (), **how: Any) -> str:
        job_id, folder = self.store.new_folder()
        files = []
        for number, (name, content) in enumerate(images):
            (folder / f"f{number}").write_bytes(content)
            files.append(JobFile(name, f"f{number}", "holds no image" if number in refused else None))
        wanted = wanted_of(self.served, **({"context": True, "similar": 0, "prevalence": None} | how))
        return self.store.accept(job_id, wanted, files, max_jobs=9).id

    def run(self, *served: Served, is_busy: Callable[[], bool] = lambda: False) -> None:
        """Until no job is under way, or a change stops it."""
        stopping, idle = threading.Event(), threading.Event()

        def hear(job_id: str) -> None:
            job = self.store.job(job_id)
            self.heard.append((job.state, job.done))
            try:
                self.on_change(job)
            except StopAsyncIteration:
                stopping.set()
            if stopping.is_set() or not self.store.under_way():
                idle.set()

        self.store.heard = hear
        worker = Worker(self.store, {each.name: each for each in served}, stopping=stopping, is_busy=is_busy)
        self.worker = worker
        worker.start()
        assert idle.wait(60)
        worker.stop()

    def rows(self, job_id: str) -> list[dict[str, Any]]:
        return [json.loads(answer) for answer in self.store.answers(job_id)]


def load(bundle: Path, *, gate: bool = True) -> Served:
    return Served("small", read_bundle(bundle), ServeLimits(), gate=gate)


@pytest.fixture(scope="module")
def served(bundle: Path) -> Served:
    return load(bundle)


@pytest.fixture
def stage(tmp_path: Path, served: Served) -> Iterator[Stage]:
    made = Stage(tmp_path / "state", served)
    yield made
    made.store.close()


def patches(n: int) -> list[tuple[str, bytes]]:
    return [(f"P{number // 40:02}_idx5_x{1 + 32 * (number % 40)}_y1_class0.png", png(number)) for number in range(n)]


def stop_at(done: int) -> Callable[[JobFacts], None]:
    def stop(job: JobFacts) -> None:
        if job.done >= done and job.state == "running":
            raise StopAsyncIteration

    return stop


@pytest.mark.parametrize("refused", [(), (0, 1, 40, 63, 64, 99)])
def test_job_stopped_again_and_again_gives_the_rows_of_one_that_was_not(
    stage: Stage, served: Served, refused: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stage.submit(patches(100), refused=refused)
    stage.run(served)
    expected = stage.rows(whole)
    assert [row["path"] for row in expected] == [name for name, _ in patches(100)]
    assert [number for number, row in enumerate(expected) if row["reason"] == "holds no image"] == list(refused)
    interrupted = stage.submit(patches(100), refused=refused)
    read: list[str] = []
    reading = Predictor._read

    def note(self: Predictor, record: Any) -> Any:
        read.append(record.path)
        return reading(self, record)

    monkeypatch.setattr(Predictor, "_read", note)
    for done in (32, 64):
        stage.on_change = stop_at(done)
        stage.run(served)
        facts = stage.store.job(interrupted)
        assert (facts.state, facts.done >= done, facts.done < 100) == ("queued", True, True)
        stage.store.close()
        stage.store = JobStore(stage.folder)
        read.clear()
    stage.on_change = lambda _: None
    stage.run(served)
    assert stage.rows(interrupted) == expected
    assert len(read) <= 100 - 32  # what was known was not computed again, but for the images of a batch begun


def test_slides_stopped_in_the_middle_give_the_same_rows_in_context(tmp_path: Path, placed: Any) -> None:
    served = load(placed.run)
    stage = Stage(tmp_path / "state", served)
    images = [(path.name, path.read_bytes()) for path in sorted(placed.others.rglob("*.png"))]
    whole = stage.submit(images, similar=0)
    stage.run(served)
    expected = stage.rows(whole)
    by_path = served.predictor.predict(sorted(placed.others.rglob("*.png")))
    assert [row["probability"] for row in expected] == by_path["probability"].where(
        by_path["probability"].notna(), None
    ).tolist()
    interrupted = stage.submit(images)
    stage.on_change = stop_at(1)
    stage.run(served)
    assert 0 < stage.store.job(interrupted).done < len(images)
    stage.on_change = lambda _: None
    stage.run(served)
    assert stage.rows(interrupted) == expected
    stage.store.close()


def test_server_ends_in_the_middle_of_a_large_slide(
    tmp_path: Path, placed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = load(placed.run)
    stage = Stage(tmp_path / "state", served)
    context = served.model.context
    assert context is not None
    content = next(placed.others.rglob("*.png")).read_bytes()
    step, n = context.grid.step, 20 * served.predictor.batch * (os.cpu_count() or 1)
    places = [(1 + step * (number % 50), 1 + step * (number // 50)) for number in range(n)]
    job_id = stage.submit([(f"P00_idx5_x{x}_y{y}_class0.png", content) for x, y in places])
    reading, read = Predictor._read, count()
    begun = threading.Event()

    def note(self: Predictor, record: Any) -> Any:
        next(read)
        begun.set()
        return reading(self, record)

    monkeypatch.setattr(Predictor, "_read", note)
    stopping = threading.Event()
    worker = Worker(stage.store, {"small": served}, stopping=stopping)
    worker.start()
    assert begun.wait(60)
    worker.stop()
    assert (stage.store.job(job_id).state, stage.store.job(job_id).done) == ("queued", 0)
    assert next(read) < n // 2
    stage.store.close()


def test_cancelled_job_ends_and_the_next_begins(stage: Stage, served: Served) -> None:
    unwanted, following = stage.submit(patches(300)), stage.submit(patches(3))

    def cancel(job: JobFacts) -> None:
        if job.id == unwanted and job.state == "running" and job.done:
            stage.store.delete(unwanted)
            stage.worker.cancel(unwanted)

    stage.on_change = cancel
    stage.run(served)
    assert stage.store.job(unwanted).state == "cancelled"
    assert stage.store.job(unwanted).done < 300
    assert stage.store.job(following).state == "done"
    assert not stage.store.folder_of(unwanted).exists()


def test_job_whose_bundle_is_gone_or_another_fails_with_the_reason(
    stage: Stage, served: Served, bundle: Path, placed: Any
) -> None:
    cases = {
        "the model small is not served any more": [],
        "the model small is another one": [load(placed.run)],
        "input gate switched off": [load(bundle, gate=False)],
    }
    for reason, others in cases.items():
        job_id = stage.submit(patches(2))
        stage.run(*others)
        job = stage.store.job(job_id)
        assert job.state == "failed"
        assert reason in (job.error or "")


def test_exception_fails_its_job_without_particulars_and_the_worker_goes_on(
    stage: Stage, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = served.row

    def broken(upload: Any, *rest: Any) -> Any:
        if upload.name == "bad.png":
            raise ValueError("bad.png of Miller")
        return row(upload, *rest)

    monkeypatch.setattr(served, "row", broken)
    bad, good = stage.submit([*patches(2), ("bad.png", png())]), stage.submit(patches(2))
    stage.run(served)
    assert stage.store.job(bad).error == "the server failed on it (ValueError), which is a bug in clearmargin."
    assert stage.store.job(good).state == "done"


def test_full_disk_delays_a_job_and_does_not_end_it(
    stage: Stage, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearmargin.web.jobs.worker._SWEEP_S", 0.01)
    add, full = stage.store.add, [True, True]

    def add_or_not(*arguments: Any) -> bool:
        if full:
            full.pop()
            raise OSError(28, "No space left on device")
        return add(*arguments)

    monkeypatch.setattr(stage.store, "add", add_or_not)
    job_id = stage.submit(patches(3))
    stage.run(served)
    assert not full
    assert stage.store.job(job_id).state == "done"


def test_chunks_wait_while_requests_are_at_work_but_not_for_ever(
    stage: Stage, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def is_busy() -> bool:
        asked.append(stage.heard[-1])
        return True

    monkeypatch.setattr("clearmargin.web.jobs.worker._PATIENCE_S", 0.05)
    job_id = stage.submit(patches(70))
    stage.run(served, is_busy=is_busy)
    assert stage.store.job(job_id).state == "done"
    assert set(asked) == {("running", 32), ("running", 64), ("running", 70)}
