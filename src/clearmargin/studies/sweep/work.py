"""Trials, one after the other, by as many processes as one likes: the engine of a sweep.

An engine takes trials from the study, has each fold judged by `trial.judge_fold`, and writes down what came of it.
Nothing else here knows how trials are spread over processes.
"""

from __future__ import annotations

import time

import numpy as np

from clearmargin.errors import ClearmarginError, Interrupted, counted
from clearmargin.files import write_whole
from clearmargin.report.words import value_word
from clearmargin.studies.sweep.records import Trial, find_winner, logits_file, place_of
from clearmargin.studies.sweep.setup import Setup
from clearmargin.studies.sweep.study import Study
from clearmargin.studies.sweep.trial import Material, judge_fold
from clearmargin.types import Listener

WAIT_S = 0.5


class Announcer:
    """Tells the listener of every trial that has ended since it was last asked, whoever trained it."""

    def __init__(self, study: Study, listener: Listener) -> None:
        self._study, self._listener = study, listener
        # Also those that others are at: their end is news.
        self._told = {each.number for each in study.trials() if each.state not in ("running", "waiting")}

    def tell(self) -> None:
        """Notes for what is new, and how far the sweep is."""
        trials, plan = self._study.trials(), self._study.plan
        for trial in trials:
            if trial.number not in self._told and trial.state not in ("running", "waiting"):
                self._told.add(trial.number)
                self._listener.note(describe(trial, trials, plan.trials))
        done = [plan.folds if each.state != "running" else len(each.folds) for each in trials if each.counts]
        self._listener.advance(sum(done), plan.trials * plan.folds)


def describe(trial: Trial, trials: list[Trial], wanted: int) -> str:
    """One line for a trial that has ended."""
    place = sum(each.counts and each.number <= trial.number for each in trials)
    own = ", ".join(f"{key}={value_word(value)}" for key, value in trial.settings.items())
    what = "the recipe's own settings" if trial.is_baseline else own
    if trial.state == "stopped":
        return f"Trial {trial.number} ({what}) was stopped: {trial.reason}. It will be gone on with."
    head = f"Trial {trial.number}, {place} of {wanted} ({what})"
    if trial.state == "failed":
        return f"{head} failed: {trial.reason}"
    winner = find_winner(trials)
    best = f"; the best is {winner.value:.3f}, of trial {winner.number}" if winner and winner is not trial else ""
    if trial.state == "pruned":
        after = counted(len(trial.folds), "fold", "folds")
        return f"{head}: AUROC {trial.value:.3f} after {after}, not worth the others{best}."
    return f"{head}: AUROC {trial.value:.3f}{best}."


def work(study: Study, setup: Setup, material: Material, listener: Listener) -> None:
    """Takes trials until none is left, and waits for those of others, which are taken over where one is killed.

    Raises:
        Interrupted: SIGINT or SIGTERM came; what was trained is kept.
    """
    announcer = Announcer(study, listener)
    with study.working():
        while True:
            announcer.tell()
            trial = study.take()
            if trial is not None:
                run_trial(study, setup, trial, material, announcer)
            elif any(each.state == "running" for each in study.trials()):
                time.sleep(WAIT_S)
            else:
                break
    announcer.tell()


def run_trial(study: Study, setup: Setup, trial: Trial, material: Material, announcer: Announcer) -> None:
    """Every fold of a trial that was taken here, until it is known to be hopeless; a fold that is known is not redone.

    An error in the trial is the trial's end and not the sweep's.

    Raises:
        Interrupted: SIGINT or SIGTERM came.
    """
    try:
        _judge_folds(study, setup, trial, material, announcer)
    except Interrupted:
        study.stop(trial.number)
        raise
    except (ClearmarginError, MemoryError, RuntimeError) as error:
        # A network too deep for the images, or too large for the memory, is torch's RuntimeError.
        text = str(error) if isinstance(error, ClearmarginError) else f"{type(error).__name__}: {error}"
        study.fail(trial.number, " ".join(text.split()))
    except BaseException:
        study.stop(trial.number)
        raise


def _judge_folds(study: Study, setup: Setup, trial: Trial, material: Material, announcer: Announcer) -> None:
    config, images = setup.config_of(trial), material.packed[setup.recipe_of(trial)]
    known = study.known_folds(trial.origin)
    for fold in range(study.plan.folds):
        place = logits_file(study.out, trial.origin, fold)
        result = known.get(fold) if place.is_file() else None
        if result is None:
            scratch = place_of(study.out, trial.origin) / f"fold_{fold + 1}"
            result, logits = judge_fold(images, material.folds, config, fold, scratch=scratch)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, lambda path, logits=logits: np.save(path, logits))  # type: ignore[misc]
        study.report(trial.number, fold, result)
        announcer.tell()
        if fold + 1 < study.plan.folds and study.is_hopeless(trial.number):
            study.prune(trial.number)
            return
    study.finish(trial.number)
