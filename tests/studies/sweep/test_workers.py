"""What comes of processes that cannot go on."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from clearmargin.errors import DataError
from clearmargin.settings import RunConfig
from clearmargin.studies.sweep import workers
from clearmargin.studies.sweep.records import Plan
from clearmargin.studies.sweep.setup import Setup, read_setup
from clearmargin.studies.sweep.space import Choices, Range, Space
from clearmargin.studies.sweep.study import Study
from clearmargin.types import Listener

SPACE = Space((Choices("model.arguments", (["a=1"], ["b=2"])), Range("train.epochs", "int", 1, 7, step=3)))
SETUP = Setup("default", {"train.batch_size": 8}, RunConfig(seed=4), SPACE, Plan(4, 2, "none"))


def test_a_setup_comes_through_a_pipe_as_it_was() -> None:
    text = SETUP.to_json()
    assert "\n" not in text
    assert read_setup(text) == SETUP


class FakeWorker:
    """A process that has ended as the test says, the first time and every other."""

    ends: ClassVar[list[tuple[int, str]]] = []
    started = 0

    def __init__(self, out: Path, setup: Setup, threads: int) -> None:
        self.code, self.said = self.ends[min(FakeWorker.started, len(self.ends) - 1)]
        FakeWorker.started += 1
        self.process = self
        self.returncode = self.code

    def poll(self) -> int:
        return self.code

    def terminate(self) -> None:
        pass

    def end(self) -> str:
        return self.said


@pytest.mark.parametrize(
    ("ends", "error", "told"),
    [
        ([(3, "study.db: the disk is full.")], DataError, "^study.db: the disk is full"),
        ([(-9, "")], DataError, r"keep being killed \(signal 9\). Go on with --resume and fewer --jobs"),
        ([(1, "KeyError: 'x'")], RuntimeError, "a process of the sweep ended with 1: KeyError"),
    ],
)
def test_a_process_that_cannot_go_on_ends_the_sweep_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: list[tuple[int, str]], error: type[Exception], told: str
) -> None:
    monkeypatch.setattr(workers, "Worker", FakeWorker)
    monkeypatch.setattr(workers, "WAIT_S", 0.0)
    monkeypatch.setattr(FakeWorker, "ends", ends)
    monkeypatch.setattr(FakeWorker, "started", 0)
    study = Study(tmp_path, SPACE, SETUP.plan, 0)
    study.begin(SETUP.baseline())
    with pytest.raises(error, match=told):
        workers.work_together(study, SETUP, 2, Listener())


def test_a_process_that_was_killed_once_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "Worker", FakeWorker)
    monkeypatch.setattr(workers, "WAIT_S", 0.0)
    monkeypatch.setattr(FakeWorker, "ends", [(-9, ""), (0, "")])
    monkeypatch.setattr(FakeWorker, "started", 0)
    heard: list[str] = []

    class Hearing(Listener):
        def note(self, text: str) -> None:
            heard.append(text)

    study = Study(tmp_path, SPACE, SETUP.plan, 0)
    study.begin(SETUP.baseline())
    workers.work_together(study, SETUP, 1, Hearing())
    assert heard == ["A process of the sweep was killed (signal 9); another takes its place."]
    assert FakeWorker.started == 2
