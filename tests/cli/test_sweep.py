"""A real sweep from the command line: two processes, interrupted, gone on with, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tests.cli.conftest import Answer, write_patches

import clearmargin
from clearmargin.cli import main
from clearmargin.config import load_recipe, read_config

FILES = {
    "audit.json",
    "best.toml",
    "config.toml",
    "folds.csv",
    "log.jsonl",
    "run",
    "space.toml",
    "split.csv",
    "study.db",
    "sweep.html",
    "sweep.json",
    "trials",
    "trials.csv",
}
SPACE = '"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }\n"train.batch_size" = [8, 16]\n'


@dataclass(frozen=True)
class Swept:
    """A finished sweep, its command, and what was said when it was interrupted and when it ended."""

    folder: Path
    command: list[str]
    code: int
    stopped: str
    out: str
    err: str


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    root = tmp_path_factory.mktemp("sweep")
    write_patches(root / "data", patients=10, per_class=4, px=32)
    (root / "space.toml").write_text(SPACE)
    command = ["sweep", str(root / "data"), "--out", str(root / "out"), "--space", str(root / "space.toml")]
    command += ["--recipe", "larger_model", "--trials", "3", "--folds", "2", "--epochs", "1", "--resume"]
    command += ["--set", "evaluate.resamples=100", "--set", "images.size=[32, 32]"]
    environment = os.environ | {"CLEARMARGIN_CACHE": str(root / "cache"), "HOME": str(root)}
    first = subprocess.Popen(
        [sys.executable, "-m", "clearmargin", *command, "--jobs", "2"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list((root / "out").glob("trials/*/logits_1.npy")) and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, stopped = first.communicate(timeout=120)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        patch.setenv("CLEARMARGIN_CACHE", str(root / "cache"))
        assert main([*command, "--json"]) == 0
    return Swept(root / "out", command, first.returncode, stopped, out.getvalue(), err.getvalue())


def test_ctrl_c_ends_every_process_and_says_how_to_go_on(swept: Swept) -> None:
    assert swept.code == 130
    last = swept.stopped.splitlines()[-1]
    assert last.startswith(f"Error: {swept.folder}: stopped after ")
    assert last.endswith(
        "of 3 trials; everything that was trained is kept. Run the same command with --resume to go on."
    )


def test_the_folder_is_whole_and_as_many_trials_as_were_asked_for_are_done(swept: Swept) -> None:
    assert {entry.name for entry in swept.folder.iterdir()} == FILES
    table = pd.read_csv(swept.folder / "trials.csv")
    assert (table["state"] != "stopped").sum() == 3
    assert table["number"].tolist() == list(range(len(table)))
    assert table["baseline"].iloc[0]
    done = table[table["state"] == "complete"]
    np.testing.assert_allclose(done["value"], done[["fold_1", "fold_2"]].mean(axis=1))
    assert not list(swept.folder.glob("trials/*/fold_*"))  # no state of a training that ended


def test_json_is_only_json_and_names_the_winner(swept: Swept) -> None:
    content: dict[str, Any] = json.loads(swept.out)
    assert content == json.loads((swept.folder / "sweep.json").read_text())
    table = pd.read_csv(swept.folder / "trials.csv").query("state == 'complete'")
    assert content["winner"]["value"] == table["value"].max()
    assert content["winner"]["number"] == table.loc[table["value"].idxmax(), "number"]
    assert content["trials"]["complete"] == len(table)
    assert "Trial" in swept.err


def test_a_fold_is_judged_by_the_logits_that_are_kept(swept: Swept) -> None:
    folds, table = pd.read_csv(swept.folder / "folds.csv"), pd.read_csv(swept.folder / "trials.csv")
    row = table[table["state"] == "complete"].iloc[0]
    for fold in (1, 2):
        logits = np.load(next(swept.folder.glob(f"trials/{row['origin']}/logits_{fold}.npy")))
        labels = folds.loc[folds[f"fold_{fold}"] == "held out", "label"]
        assert row[f"fold_{fold}"] == pytest.approx(roc_auc_score(labels, logits))


def test_the_winner_was_trained_by_the_main_job_with_the_split_of_the_sweep(swept: Swept) -> None:
    split, run = pd.read_csv(swept.folder / "split.csv"), swept.folder / "run"
    pd.testing.assert_frame_equal(split, pd.read_csv(run / "split.csv"))
    content = json.loads((swept.folder / "sweep.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    assert content["test"]["image"]["auroc"] == metrics["test"]["image"]["auroc"]
    assert content["protocol"]["split_sha256"] == metrics["protocol"]["split_sha256"]
    trained = read_config(run / "config.toml")
    for key, value in content["winner"]["settings"].items():
        section, _, leaf = key.partition(".")
        assert getattr(getattr(trained, section), leaf) == value
    page = (swept.folder / "sweep.html").read_text()
    assert f"{metrics['test']['image']['auroc']['value']:.3f}" in page


def test_best_is_a_recipe_with_the_settings_of_the_winner_and_no_data(swept: Swept) -> None:
    best, trained = load_recipe(str(swept.folder / "best.toml")), read_config(swept.folder / "run" / "config.toml")
    assert best.data.root == ""
    for name in ("model", "train", "augment", "images", "split", "evaluate", "seed", "recipe"):
        assert getattr(best, name) == getattr(trained, name)


def test_a_complete_sweep_is_only_read_and_takes_no_more_trials(swept: Swept, call: Callable[..., Answer]) -> None:
    before = {file: file.stat().st_mtime_ns for file in swept.folder.rglob("*") if file.is_file()}
    answer = call(*swept.command)
    assert answer.code == 0
    assert "this sweep is complete" in answer.err
    assert "on test, looked at once" in answer.out
    assert "intervals from fewer than 20 are not to be trusted" in answer.out
    more = [*swept.command[: swept.command.index("3")], "4", *swept.command[swept.command.index("3") + 1 :]]
    refused = call(*more)
    assert refused.code == 2
    assert "its test part has been looked at" in refused.error
    again = [word for word in swept.command if word != "--resume"]
    assert "there is a sweep in this folder already" in call(*again).error
    assert {file: file.stat().st_mtime_ns for file in swept.folder.rglob("*") if file.is_file()} == before


def test_python_gives_the_same_sweep(swept: Swept) -> None:
    done = clearmargin.sweep(
        swept.folder.parent / "data",
        swept.folder,
        space=swept.folder.parent / "space.toml",
        trials=3,
        folds=2,
        recipe="larger_model",
        epochs=1,
        settings={"evaluate.resamples": 100, "images.size": [32, 32]},
        resume=True,
    )
    assert done.summary == json.loads((swept.folder / "sweep.json").read_text())
    assert len(done.trials) >= 3
    assert done.run.metrics["schema"] == 1


def test_what_is_wrong_with_a_space_is_one_line_before_anything_runs(
    tmp_path: Path, call: Callable[..., Answer]
) -> None:
    (tmp_path / "space.toml").write_text("train.batch_sise = [8, 16]")
    (tmp_path / "data").mkdir()
    arguments = [
        "sweep",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
        "--space",
        tmp_path / "space.toml",
        "--trials",
        4,
    ]
    answer = call(*arguments)
    assert answer.code == 2
    assert "space.toml: there is no setting 'train.batch_sise'; did you mean 'train.batch_size'?" in answer.error
    assert not (tmp_path / "out").exists()
