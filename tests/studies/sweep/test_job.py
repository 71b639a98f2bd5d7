"""What ends a trial, what ends a sweep, and what neither of them may touch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.studies.sweep.conftest import SETTINGS, SPACE, write_parts

import clearmargin
from clearmargin.config import load_recipe
from clearmargin.errors import ConfigError, DataError, Interrupted, UsageError
from clearmargin.settings import RunConfig
from clearmargin.studies.sweep import work
from clearmargin.studies.sweep.records import FoldResult
from clearmargin.studies.sweep.trial import HELD_OUT, Folds

Judge = Callable[[RunConfig, int], float]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Judge], list[tuple[RunConfig, int]]]:
    """`judged(f)` lets f(settings, fold) say what each fold is worth, without training; gives the list of calls."""

    def use(judge: Judge) -> list[tuple[RunConfig, int]]:
        calls: list[tuple[RunConfig, int]] = []

        def fake(packed: Any, folds: Folds, config: RunConfig, fold: int, **options: Any) -> Any:
            calls.append((config, fold))
            return FoldResult(judge(config, fold), 1, 0.0), np.zeros(len(folds.rows(fold, HELD_OUT)), np.float32)

        monkeypatch.setattr(work, "judge_fold", fake)
        return calls

    return use


@pytest.fixture
def data(make_folder: Callable[..., Path]) -> Path:
    return make_folder(patients=10, px=32)


def test_a_trial_that_fails_is_told_and_the_others_go_on(
    data: Path, search: Callable[..., Path], judged: Callable[[Judge], Any]
) -> None:
    def judge(config: RunConfig, fold: int) -> float:
        if config.train.batch_size == 8:
            raise DataError("the training loss became nan in epoch 1, batch 2. Lower the learning rate.")
        if config.model.name == "cbis_ddsm":
            raise RuntimeError("Kernel size can't be\ngreater than actual input size")
        return 0.7

    judged(judge)
    space = 'train.batch_size = [8, 16]\nmodel.name = ["larger_model", "cbis_ddsm"]'
    table = pd.read_csv(search(data, "out", space=space, trials=8) / "trials.csv")
    failed = table[table["state"] == "failed"]
    assert (table["state"] == "complete").any()
    assert failed["value"].isna().all()
    assert set(failed["reason"]) == {
        "the training loss became nan in epoch 1, batch 2. Lower the learning rate.",
        "RuntimeError: Kernel size can't be greater than actual input size",
    }
    assert len(table) == 8


def test_if_every_trial_fails_the_sweep_does_with_the_first_reason(
    data: Path, tmp_path: Path, split_file: Path, judged: Callable[[Judge], Any]
) -> None:
    def judge(config: RunConfig, fold: int) -> float:
        raise DataError(f"batches of {config.train.batch_size} do not work.")

    judged(judge)
    (tmp_path / "space.toml").write_text(SPACE)
    with pytest.raises(DataError, match=r"none of the 2 trials could be trained. The first: batches of 32 do not work"):
        clearmargin.sweep(
            data,
            tmp_path / "out",
            space=tmp_path / "space.toml",
            trials=2,
            recipe="larger_model",
            split=split_file,
            settings=SETTINGS,
        )
    assert not (tmp_path / "out" / "sweep.json").exists()
    assert (pd.read_csv(tmp_path / "out" / "trials.csv")["state"] == "failed").all()


def test_every_trial_has_the_split_and_the_seed_of_the_sweep_and_the_first_is_the_recipe(
    data: Path, search: Callable[..., Path], judged: Callable[[Judge], list[tuple[RunConfig, int]]]
) -> None:
    calls = judged(lambda config, fold: 0.6)
    space = 'recipe = ["larger_model", "cnn_50"]\ntrain.epochs = { low = 1, high = 3 }'
    search(data, "out", space=space, trials=6, seed=3)
    first = calls[0][0]
    own = load_recipe("larger_model", SETTINGS | {"train.epochs": 1})
    assert (first.recipe, first.model, first.train, first.images) == (own.recipe, own.model, own.train, own.images)
    assert {config.recipe for config, _ in calls} == {"larger_model", "cnn_50"}
    for config, _ in calls:
        assert (config.data, config.split, config.seed) == (first.data, first.split, 3)
    others = [config.model_dump_json() for config, _ in calls[2:]]
    assert len(others) == 2 * len(set(others))  # the same settings are not trained twice


def test_an_interrupted_sweep_goes_on_where_it_was(
    data: Path, search: Callable[..., Path], judged: Callable[[Judge], list[tuple[RunConfig, int]]], tmp_path: Path
) -> None:
    judged(lambda config, fold: 0.5 + config.train.learning_rate + fold / 10)
    whole = search(data, "whole", trials=4)
    told: list[tuple[RunConfig, int]] = []

    def judge(config: RunConfig, fold: int) -> float:
        told.append((config, fold))
        if len(told) == 4:
            raise Interrupted("stopped in the middle.")
        return 0.5 + config.train.learning_rate + fold / 10

    judged(judge)
    with pytest.raises(Interrupted, match=r"stopped after 1 of 4 trials; .* Run the same command with --resume"):
        _sweep(data, tmp_path, trials=4)
    assert _states(tmp_path / "out") == ["complete", "stopped"]
    with pytest.raises(UsageError, match="there is a sweep in this folder already"):
        _sweep(data, tmp_path, trials=4)
    with pytest.raises(ConfigError, match=r"begun with train.epochs = 1, not 2"):
        _sweep(data, tmp_path, trials=4, epochs=2, resume=True)
    with pytest.raises(ConfigError, match="begun with --folds 2, not 3"):
        _sweep(data, tmp_path, trials=4, folds=3, resume=True)
    calls = judged(lambda config, fold: 0.5 + config.train.learning_rate + fold / 10)
    search(data, "out", trials=4, resume=True)
    assert _states(tmp_path / "out") == ["complete", "stopped", "complete", "complete", "complete"]
    assert calls[0] == told[-1]  # the fold in which it stopped, and not the one before
    assert len(calls) == 5
    kept = pd.read_csv(tmp_path / "out" / "trials.csv").query("state == 'complete'")
    keys = ["train.batch_size", "train.learning_rate"]
    pd.testing.assert_frame_equal(
        kept[keys].reset_index(drop=True), pd.read_csv(whole / "trials.csv")[keys].reset_index(drop=True)
    )


def test_a_sweep_whose_winner_is_chosen_takes_no_more_trials(
    data: Path, search: Callable[..., Path], judged: Callable[[Judge], list[tuple[RunConfig, int]]], tmp_path: Path
) -> None:
    calls = judged(lambda config, fold: 0.6)
    search(data, "out")
    (tmp_path / "out" / "run" / "checkpoint").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"more trials would choose by it. Go on with --trials 2"):
        _sweep(data, tmp_path, trials=3, resume=True)
    assert len(calls) == 4
    search(data, "out", resume=True)  # with as many it goes on


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"trials": 1}, "--trials 1: give 2 or more"),
        ({"folds": 1}, "--folds 1: give 2 or more"),
        ({"jobs": 0}, "--jobs 0: give 1 or more"),
        ({"settings": {"split.folds": 3}, "split": None}, "the folds of a sweep are given by --folds"),
        ({"space": "nowhere.toml"}, "no such file"),
    ],
)
def test_what_cannot_be_is_said_before_an_image_is_read(
    data: Path, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        _sweep(data, tmp_path, **({"trials": 4} | options))
    assert not (tmp_path / "out").exists()


def test_names_of_models_are_checked_before_an_image_is_read(data: Path, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('model.name = ["residual", "rsidual"]')
    with pytest.raises(ConfigError, match=r"models.toml: there is no model 'rsidual'; did you mean 'residual'"):
        _sweep(data, tmp_path, trials=4, space=tmp_path / "models.toml")


def test_too_few_patients_for_the_folds_are_said_before_a_trial(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --folds 8 or fewer"):
        _sweep(data, tmp_path, trials=4, folds=9)


def test_folders_of_other_jobs_are_left_alone(data: Path, tmp_path: Path, search: Callable[..., Path]) -> None:
    (tmp_path / "out").mkdir()
    for names in (("notes.txt",), ("space.toml",), ("space.toml", "config.toml"), (".lock", "config.toml")):
        for name in names:
            (tmp_path / "out" / name).write_text("mine")
        with pytest.raises(UsageError, match="not empty and holds no sweep"):
            _sweep(data, tmp_path, trials=4, resume=True)
        for name in names:
            assert (tmp_path / "out" / name).read_text() == "mine"
            (tmp_path / "out" / name).unlink()
    folder = search(data, "sweep")
    with pytest.raises(UsageError, match="holds what 'sweep' wrote"):
        clearmargin.train(data, folder, epochs=1, resume=True)


def _sweep(data: Path, tmp_path: Path, **options: Any) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    given: dict[str, Any] = {"recipe": "larger_model", "folds": 2, "epochs": 1, "split": tmp_path / "parts.csv"}
    given |= {"settings": SETTINGS, "space": tmp_path / "space.toml"} | options
    write_parts(tmp_path / "parts.csv")
    clearmargin.sweep(data, tmp_path / "out", **given)


def _states(folder: Path) -> list[str]:
    return pd.read_csv(folder / "trials.csv")["state"].tolist()
