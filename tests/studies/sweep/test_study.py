"""The trials on disk: as many as were asked for, whoever takes them, and none lost when a process is killed."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path

import pytest

from clearmargin.errors import MissingExtra, UsageError
from clearmargin.studies.sweep import study as study_module
from clearmargin.studies.sweep.records import FoldResult, Plan, Trial, find_winner, tabulate
from clearmargin.studies.sweep.space import Choices, Range, Space
from clearmargin.studies.sweep.study import Study, check_study_file

SPACE = Space((Range("train.learning_rate", "float", 1e-4, 1e-2, log=True), Choices("train.batch_size", (16, 32))))
OWN = {"train.learning_rate": 1e-3, "train.batch_size": 64}  # the second lies outside


def begin(out: Path, trials: int = 4, *, space: Space = SPACE, seed: int = 0, pruner: str = "median") -> Study:
    out.mkdir(exist_ok=True)
    study = Study(out, space, Plan(trials, 2, pruner), seed)  # type: ignore[arg-type]
    study.begin(OWN)
    return study


def end(study: Study, trial: Trial, value: float) -> None:
    for fold in range(2):
        study.report(trial.number, fold, FoldResult(value, 1, 0.1))
    study.finish(trial.number)


def drain(study: Study) -> list[Trial]:
    with study.working():
        while (trial := study.take()) is not None:
            end(study, trial, 0.5 + 0.01 * trial.number)
    return study.trials()


def test_the_recipe_comes_first_and_as_many_as_were_asked_for_follow(tmp_path: Path) -> None:
    trials = drain(begin(tmp_path / "a?b#c %41é", trials=5))
    assert [trial.is_baseline for trial in trials] == [True, False, False, False, False]
    assert trials[0].settings == OWN
    for trial in trials[1:]:
        for parameter in SPACE.parameters:
            assert parameter.holds(trial.settings[parameter.key])
    assert find_winner(trials) == trials[4]
    assert (tmp_path / "a?b#c %41é" / "study.db").is_file()
    assert not (tmp_path / "a?b#c %41é" / ".workers").exists()


def test_what_is_proposed_depends_on_the_seed_and_not_on_stops(tmp_path: Path) -> None:
    whole = [trial.settings for trial in drain(begin(tmp_path / "whole", trials=11))]
    for trials in (3, 11):  # the sampler draws at random up to the tenth, and learns from then on
        parts = drain(begin(tmp_path / "parts", trials=trials))
    assert [trial.settings for trial in parts] == whole
    other = drain(begin(tmp_path / "other", seed=1))
    assert other[1].settings != whole[1]


def test_a_killed_trial_is_taken_again_with_its_settings_and_folds(tmp_path: Path) -> None:
    study = begin(tmp_path / "s")
    with study.working():
        first = study.take()
        assert first is not None
        end(study, first, 0.6)
        killed = study.take()
        assert killed is not None
        study.report(killed.number, 0, FoldResult(0.7, 3, 1.0))
    trials = drain(begin(tmp_path / "s"))  # a new process: the lock of the old one is free
    assert [trial.state for trial in trials] == ["complete", "stopped", "complete", "complete", "complete"]
    assert trials[2].settings == killed.settings
    assert trials[2].origin == killed.number
    assert study.known_folds(killed.number)[0].epochs in (1, 3)
    assert sum(trial.counts for trial in trials) == 4


def test_a_trial_of_a_process_that_lives_is_left_alone(tmp_path: Path) -> None:
    study, other = begin(tmp_path / "s"), begin(tmp_path / "s")
    with study.working():
        mine = study.take()
        assert mine is not None
        drain(other)
        assert study.trial(mine.number).state == "running"
        end(study, mine, 0.9)
    assert sum(trial.counts for trial in study.trials()) == 4


def test_a_trial_that_is_always_killed_fails_in_the_end(tmp_path: Path) -> None:
    for _ in range(3):
        study = begin(tmp_path / "s")
        with study.working():
            assert study.take() is not None
    trials = drain(begin(tmp_path / "s"))
    assert [trial.state for trial in trials[:3]] == ["stopped", "stopped", "failed"]
    assert trials[2].reason == "its process was killed 3 times"
    assert trials[2].is_baseline


def test_several_processes_take_no_trial_twice_and_none_too_many(tmp_path: Path) -> None:
    begin(tmp_path / "s", trials=8)
    threads = [threading.Thread(target=drain, args=(begin(tmp_path / "s", trials=8),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = begin(tmp_path / "s", trials=8).trials()
    assert [trial.state for trial in trials] == ["complete"] * 8


def test_hopeless_trials_are_those_below_the_median_and_never_the_recipe(tmp_path: Path) -> None:
    study = begin(tmp_path / "s", trials=8)
    with study.working():
        for value in (0.1, 0.6, 0.7, 0.8, 0.9):
            trial = study.take()
            assert trial is not None
            study.report(trial.number, 0, FoldResult(value, 1, 0.1))
            assert not study.is_hopeless(trial.number)
            study.report(trial.number, 1, FoldResult(value, 1, 0.1))
            study.finish(trial.number)
        for value, hopeless in ((0.2, True), (0.95, False)):
            trial = study.take()
            assert trial is not None
            study.report(trial.number, 0, FoldResult(value, 1, 0.1))
            assert study.is_hopeless(trial.number) == hopeless
            study.prune(trial.number)
    states = tabulate(study.trials(), SPACE.keys, 2)
    assert states["state"].tolist() == ["complete"] * 5 + ["pruned"] * 2
    assert states["fold_2"].isna().tolist() == [False] * 5 + [True] * 2


def test_settings_that_come_again_share_their_folds(tmp_path: Path) -> None:
    space = Space((Choices("train.batch_size", (16, 32)),))
    trials = drain(begin(tmp_path / "s", trials=6, space=space))
    by_settings: dict[str, set[int]] = {}
    for trial in trials[1:]:
        by_settings.setdefault(str(trial.settings), set()).add(trial.origin)
    assert all(len(origins) == 1 for origins in by_settings.values())
    assert len(by_settings) < 5


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    spec = importlib.util.spec_from_file_location("study_without_optuna", study_module.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(
        MissingExtra, match=r'a sweep needs Optuna .*; install it with: pip install "clearmargin\[sweep\]"'
    ):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database, and long enough to be looked at" * 50)
    with pytest.raises(UsageError, match=r"study\.db: is no database of a sweep"):
        check_study_file(tmp_path / "study.db")
