"""What is asked of --track is checked before anything runs, on the command line and from Python alike."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.tracking.conftest import scalars, write_history, write_run

import clearmargin
from clearmargin import tracking
from clearmargin.cli import main
from clearmargin.errors import MissingExtra, UnknownName, UsageError
from clearmargin.tracking import choose_trackers, tracked
from clearmargin.types import Listener


@pytest.mark.parametrize(
    ("track", "error", "says"),
    [
        ("tensorbord", UnknownName, "there is no tracker 'tensorbord'; did you mean 'tensorboard'?"),
        (["mlflow", "mlflow:sqlite:///a.db"], UsageError, "--track mlflow: is given twice"),
        ("mlflow:runs", UsageError, "MLflow no longer writes into folders; give a database, as in mlflow:sqlite:///"),
        ("mlflow:file:///runs", UsageError, "MLflow no longer writes into folders"),
        ("mlflow:sqlite:////nowhere/at/all.db", UsageError, "there is no folder /nowhere/at; make it first"),
    ],
)
@pytest.mark.parametrize("function", [clearmargin.train, clearmargin.optimism])
def test_a_wrong_wish_is_an_error_before_anything_runs(
    function: Any, track: Any, error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        function(tmp_path, tmp_path / "run", track=track)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "library"), [("tensorboard", "tensorboard"), ("mlflow", "sqlalchemy")])
def test_a_missing_extra_is_named_with_its_install_line(
    name: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda module: None if module == library else object())
    with pytest.raises(MissingExtra):
        choose_trackers(name, tmp_path)
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "run"), "--track", name]) == 2
    needs = f'--track {name} needs {library}; install it with: pip install "clearmargin[tracking]"'
    assert capsys.readouterr().err == f"Error: {needs}\n"


def test_events_of_another_run_are_not_mixed_with_those_of_this_one(tmp_path: Path) -> None:
    place = tmp_path / "all" / "run"
    place.mkdir(parents=True)
    (place / "events.out.tfevents.1").touch()
    with (
        pytest.raises(UsageError, match="holds the events of another run"),
        tracked(f"tensorboard:{tmp_path / 'all'}", tmp_path / "run", listener=Listener(), begun=False, resume=False),
    ):
        pytest.fail("the run began")
    with (
        pytest.raises(UsageError, match=r"events\.out\.tfevents\.1: is a file; give a folder"),
        tracked(
            f"tensorboard:{place / 'events.out.tfevents.1'}", tmp_path, listener=Listener(), begun=False, resume=False
        ),
    ):
        pytest.fail("the run began")


def test_the_store_that_the_user_has_set_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////somewhere/else.db")
    assert choose_trackers("mlflow", tmp_path)[0].kept.where == "sqlite:////somewhere/else.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert choose_trackers("mlflow", tmp_path / "run")[0].kept.where == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    assert choose_trackers("mlflow:sqlite:///a.db", Path("run"))[0].kept.where == f"sqlite:///{tmp_path / 'a.db'}"
    assert choose_trackers("tensorboard:all", Path("run"))[0].kept.where == str(tmp_path / "all")


@pytest.mark.parametrize("folds", [None, 3])
def test_train_lets_the_trackers_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: int | None) -> None:
    def run(_config: object, out: Path, *, listener: Listener, **_: object) -> SimpleNamespace:
        place = write_run(write_run(out) / "folds" / "0" if folds else out)
        listener.network(place)
        write_history(place, 1)
        listener.epoch({"epoch": 1})
        return SimpleNamespace(folder=out)

    monkeypatch.setattr(
        "clearmargin.studies.cross_validation.cross_validate" if folds else "clearmargin.workflow.run_training", run
    )
    out = tmp_path / "run"
    clearmargin.train(tmp_path, out, folds=folds, track="tensorboard")
    place = out / "tensorboard" / "folds" / "0" if folds else out / "tensorboard"
    assert [step for step, _ in scalars(place)["loss/validation"]] == [1]


def test_an_optimism_that_was_begun_is_tracked_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bool] = []

    def run(_config: object, out: Path, *, listener: Listener, **_: object) -> dict[str, object]:
        heard.append(isinstance(listener, tracking.Tracking))
        place = write_run(write_run(out) / "image" / "0")
        listener.network(place)
        listener.epoch({"epoch": 1})
        raise KeyboardInterrupt

    monkeypatch.setattr("clearmargin.studies.optimism.measure_optimism", run)
    for track, resume in (("tensorboard", False), ((), True)):
        with pytest.raises(KeyboardInterrupt):
            clearmargin.optimism(tmp_path, tmp_path / "gap", track=track, resume=resume)
    assert heard == [True, True]
    assert [step for step, _ in scalars(tmp_path / "gap" / "tensorboard" / "image" / "0")["loss/train"]] == [1, 2]


def test_what_is_heavy_is_imported_when_a_run_is_tracked_and_not_before() -> None:
    code = (
        "import sys; from clearmargin.tracking import choose_trackers; from pathlib import Path; "
        "choose_trackers(['tensorboard', 'mlflow'], Path('run')); "
        "assert not {'torch', 'mlflow', 'tensorboard', 'sqlalchemy', 'matplotlib', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
