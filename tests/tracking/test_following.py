"""What a tracker is told, when, and that one that fails harms nothing."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from tests.tracking.conftest import read_events, scalars, write_history, write_run

from clearmargin import tracking
from clearmargin.errors import Interrupted
from clearmargin.tracking import TRACKERS, tracked
from clearmargin.tracking.facts import Result, Settings
from clearmargin.tracking.kept import FILE, Kept, read_kept
from clearmargin.tracking.places import Place
from clearmargin.tracking.tracker import Status, Tracker
from clearmargin.types import Listener


class Notes(Listener):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)

    def epoch(self, row: Mapping[str, float]) -> None:
        self.heard.append(f"epoch {row['epoch']:.0f}")


class Told(Tracker):
    """Keeps what it is told in memory; raises from the method named in `fails`."""

    name: ClassVar[str] = "told"
    libraries: ClassVar[tuple[str, ...]] = ()
    fails = ""
    last = 0

    def __init__(self, where: str, out: Path) -> None:
        self.kept, self.told = Kept(where), list[str]()

    def hear(self, method: str, text: str) -> None:
        self.told.append(text)
        if method == self.fails:
            raise ConnectionError(f"no route to http://me:secret@host\nand more {'x' * 500}")

    def begin(self, settings: Settings, known: Kept | None) -> None:
        self.kept = known or self.kept.with_run("", "1")
        self.hear("begin", f"begin {settings.values['recipe']} {'again' if known else 'new'}")

    def last_epoch(self, place: Place) -> int:
        return self.last

    def write_epochs(self, place: Place, rows: Sequence[Mapping[str, float]]) -> None:
        name = "/".join(part for part in (place.run, place.network) if part)
        self.hear("write_epochs", f"{name or '.'}: {[int(row['epoch']) for row in rows]}")

    def write_result(self, run: str, result: Result) -> None:
        self.hear("write_result", f"result {run or '.'}: {result.figures.get('test/image/auroc')}")

    def end(self, status: Status) -> None:
        self.hear("end", status)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    tracker = Told("", tmp_path)
    monkeypatch.setitem(TRACKERS, "told", lambda where, out: tracker)
    return tracker


@contextmanager
def follow(out: Path, *, track: str = "told", begun: bool = False, notes: Notes | None = None) -> Iterator[Listener]:
    with tracked(track, out, listener=notes or Notes(), begun=begun, resume=begun) as heard:
        yield heard


def train(heard: Listener, folder: Path, *, first: int = 1, last: int = 2) -> None:
    heard.network(folder)
    for epoch in range(first, last + 1):
        write_history(folder, epoch)
        heard.epoch({"epoch": epoch})


def test_a_fold_is_told_as_a_run_of_its_own_as_soon_as_the_next_begins(told: Told, tmp_path: Path) -> None:
    write_run(tmp_path, auroc=0.7)
    (tmp_path / "history.csv").unlink()
    with follow(tmp_path) as heard:
        for fold in ("0", "1"):
            train(heard, write_run(tmp_path / "folds" / fold, auroc=0.8 + int(fold) / 10, begun=False))
    assert told.told == [
        "begin cnn_50 new", "folds/0: [1]", "folds/0: [2]", "result folds/0: 0.8", "folds/1: [1]", "folds/1: [2]",
        "result folds/1: 0.9", "result .: 0.7", "finished",
    ]  # fmt: skip
    assert read_kept(tmp_path)["told"].ended == ("folds/0", "folds/1", "")


def test_what_was_written_before_the_run_was_stopped_is_not_written_again(told: Told, tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(Interrupted), follow(tmp_path) as heard:
        train(heard, tmp_path)
        raise Interrupted("stopped")
    assert told.told[-1] == "interrupted"
    told.told, told.last = [], 2
    with follow(tmp_path, begun=True) as heard:
        train(heard, tmp_path, first=2, last=3)  # killed before the second was saved
    assert told.told == ["begin cnn_50 again", ".: [3]", "result .: 0.9", "finished"]


def test_a_run_that_is_tracked_from_the_middle_on_is_tracked_from_its_beginning(told: Told, tmp_path: Path) -> None:
    write_run(tmp_path, epochs=3)
    with follow(tmp_path, begun=True) as heard:
        train(heard, tmp_path, first=4, last=4)
    assert told.told[:2] == ["begin cnn_50 new", ".: [1, 2, 3, 4]"]


def test_a_complete_run_can_be_tracked_and_is_tracked_once(told: Told, tmp_path: Path) -> None:
    write_run(tmp_path)
    for _ in range(2):
        with follow(tmp_path, begun=True):
            pass
    assert told.told == ["begin cnn_50 new", ".: [1, 2]", "result .: 0.9", "finished"]


def test_what_is_kept_of_one_tracker_outlasts_a_resume_with_another(told: Told, tmp_path: Path) -> None:
    out = write_run(tmp_path)
    for track in ("tensorboard", "told", "tensorboard"):
        with follow(out, track=track, begun=True):
            pass
    assert set(read_kept(out)) == {"tensorboard", "told"}
    assert len(scalars(out / "tensorboard")["test/image/auroc"]) == 1


def test_a_run_that_ends_before_it_trains_leaves_nothing(told: Told, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"), follow(tmp_path / "run") as heard:
        heard.stage("audit")
        heard.note("looking")
        raise ValueError("no data")
    assert told.told == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["begin", "write_epochs", "write_result", "end"])
def test_a_tracker_that_fails_is_one_line_and_the_run_goes_on(told: Told, tmp_path: Path, method: str) -> None:
    write_run(tmp_path)
    notes = Notes()
    told.fails = method
    with follow(tmp_path, track="told", notes=notes) as heard:
        train(heard, tmp_path)
    warnings = [text for text in notes.heard if "not tracked" in text]
    assert warnings == [
        "This run is not tracked with told any further (no route to http://…@host). It goes on all the same; once that "
        "is mended, the same command with --resume and --track told catches up."
    ]
    assert [text for text in notes.heard if text.startswith("epoch")] == ["epoch 1", "epoch 2"]


def test_a_tracking_folder_that_is_not_writable_does_not_break_the_run(tmp_path: Path) -> None:
    out, notes = write_run(tmp_path / "run"), Notes()
    (out / "tensorboard").symlink_to("/proc/nowhere")
    with follow(out, track="tensorboard", notes=notes) as heard:
        train(heard, out)
    assert sum("not tracked with tensorboard any further" in text for text in notes.heard) == 1


def test_stale_events_of_a_run_that_never_got_anywhere_are_replaced(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), follow(out, track="tensorboard") as heard:
            train(heard, out, last=1)
            raise KeyboardInterrupt
    assert len(scalars(out / "tensorboard")["loss/train"]) == 1


def test_runs_below_one_folder_are_kept_apart_by_their_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with follow(write_run(tmp_path / name), track=f"tensorboard:{tmp_path / 'all'}"):
            pass
    assert read_events(tmp_path / "all" / "a")
    assert scalars(tmp_path / "all" / "b")["test/image/auroc_high"] == [(0, pytest.approx(0.95))]


def test_folds_are_children_in_mlflow_and_a_split_by_image_is_stamped(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from clearmargin.types import OPTIMISTIC_STAMP

    out = write_run(tmp_path / "run", split="image", stamp=OPTIMISTIC_STAMP)
    uri = f"sqlite:///{tmp_path / 'store.db'}"
    with follow(out, track=f"mlflow:{uri}") as heard:
        train(heard, write_run(out / "folds" / "0", auroc=0.8))
    runs, client = read_kept(out)["mlflow"].runs, MlflowClient(uri)
    parent, child = client.get_run(runs[""]), client.get_run(runs["folds/0"])
    assert parent.data.tags["stamp"] == OPTIMISTIC_STAMP
    assert child.data.tags["mlflow.parentRunId"] == runs[""]
    assert (child.info.run_name, child.info.status) == ("run/folds/0", "FINISHED")
    assert (child.data.metrics["test/image/auroc"], child.data.metrics["loss/train"]) == (0.8, 0.5)
    assert "auroc/validation" not in child.data.metrics  # it was no number


def test_a_store_that_is_no_database_and_a_server_that_is_not_there_do_not_break_the_run(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "broken.db").write_text("no database" * 1000)
    for number, where in enumerate((f"sqlite:///{tmp_path / 'broken.db'}", f"http://me:secret@127.0.0.1:{port}")):
        out, notes = write_run(tmp_path / str(number)), Notes()
        with follow(out, track=f"mlflow:{where}", notes=notes) as heard:
            train(heard, out)
        assert sum("not tracked with mlflow any further" in text for text in notes.heard) == 1
        assert not any("secret" in text for text in notes.heard)
        assert "secret" not in (out / FILE).read_text()


def test_a_resumed_run_says_what_it_cannot_know_or_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_run(tmp_path / "run")
    entries = {
        "mlflow": {"where": None, "runs": {}, "ended": []},
        "tensorboard": {"where": "", "runs": {}, "ended": []},
    }
    (out / FILE).write_text(json.dumps({"schema": 1, "trackers": entries}))
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    notes = Notes()
    with tracked((), out, listener=notes, begun=True, resume=True):
        pass
    assert notes.heard[0] == "This run was tracked with mlflow; give --track mlflow:WHERE again to go on with that."
    assert notes.heard[1].startswith("This run is not tracked any further: --track tensorboard needs tensorboard;")


def test_mlflow_asks_no_other_host_and_leaves_nothing_in_the_working_folder(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run")
    (tmp_path / "cwd").mkdir()
    code = f"""
import os, socket, sys
for name in ("CI", "PYTEST_CURRENT_TEST", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
    os.environ.pop(name, None)  # with any of these it would be silent anyway
asked = []
def refuse(*arguments, **keywords):
    asked.append(arguments)
    raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from pathlib import Path
from clearmargin.tracking import tracked
from clearmargin.types import Listener
class Failing(Listener):
    def note(self, text): raise SystemExit(text)
with tracked("mlflow", Path({str(out)!r}), listener=Failing(), begun=True, resume=True):
    pass
from mlflow.telemetry.client import get_telemetry_client
assert get_telemetry_client() is None
sys.exit(f"asked: {{asked}}" if asked else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path / "cwd", timeout=120)
    assert not list((tmp_path / "cwd").iterdir())
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        assert store.execute("select count(*) from runs").fetchone() == (1,)
    store.close()
