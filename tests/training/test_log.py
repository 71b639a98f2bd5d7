"""The run log and the signals that end a run."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
from datetime import datetime
from pathlib import Path

import pytest
from tests.training.toy_training import Heard

from clearmargin.training import log as log_module
from clearmargin.training.log import HISTORY_COLUMNS, RunLog, write_history
from clearmargin.training.stop import StopRequest


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_event_is_a_line_with_its_time_and_goes_on_to_the_listener(tmp_path: Path) -> None:
    heard = Heard()
    log = RunLog(tmp_path / "log.jsonl", heard)
    log.stage("train")
    log.epoch({"epoch": 1, "train_loss": 0.5})
    log.advance(1, 2)
    log.note("é")
    written = lines(tmp_path / "log.jsonl")
    assert all(datetime.fromisoformat(str(line.pop("time"))).tzinfo is not None for line in written)
    assert written == [
        {"event": "stage", "name": "train"},
        {"event": "epoch", "epoch": 1, "train_loss": 0.5},
        {"event": "note", "text": "é"},
    ]
    assert (heard.stages, heard.notes, heard.totals) == (["train"], ["é"], [(1, 2)])
    assert heard.rows == [{"epoch": 1, "train_loss": 0.5}]


def test_a_resumed_run_adds_to_its_log(tmp_path: Path) -> None:
    for number in range(2):
        RunLog(tmp_path / "log.jsonl", Heard()).note(str(number))
    assert [line["text"] for line in lines(tmp_path / "log.jsonl")] == ["0", "1"]


def test_the_seconds_of_each_stage_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 12.5, 12.5, 15.5, 15.5, 16.0])
    monkeypatch.setattr(log_module.time, "monotonic", lambda: next(clock))
    log = RunLog(tmp_path / "log.jsonl", Heard())
    log.stage("audit")
    log.stage("train")
    log.stage("audit")
    log.close_stage()
    log.close_stage()
    assert log.seconds == {"audit": 3.0, "train": 3.0}


def test_history_is_written_anew_each_time(tmp_path: Path) -> None:
    rows = [{column: float(epoch) for column in HISTORY_COLUMNS} for epoch in (1, 2)]
    write_history(tmp_path / "history.csv", rows[:1])
    write_history(tmp_path / "history.csv", rows)
    with (tmp_path / "history.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["epoch"] for row in read] == ["1.0", "2.0"]
    assert tuple(read[0]) == HISTORY_COLUMNS
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.csv"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_acts_as_always(number: signal.Signals) -> None:
    class Arrived(Exception):
        pass

    def always(_number: int, _frame: object) -> None:
        raise Arrived

    before = signal.signal(number, always)
    try:
        with StopRequest() as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            assert signal.getsignal(number) is always
            with pytest.raises(Arrived):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is always
    finally:
        signal.signal(number, before)


def test_handlers_are_restored_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), StopRequest():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with StopRequest() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
