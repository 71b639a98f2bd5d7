"""`sweep`, from top to bottom: split first, search on train and validation, retrain the winner, look at test once.

The split is made by what `train` makes it with. Trials are given folds of the patients of train and validation; the
winner goes through the main job, with the same split, and there is test met for the first time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from clearmargin.config import load_recipe
from clearmargin.data.audit import Audit
from clearmargin.data.deal import By
from clearmargin.data.split import Assignment, fold_split
from clearmargin.errors import ClearmarginError, ConfigError, DataError, Interrupted, UsageError
from clearmargin.files import disk_errors
from clearmargin.networks import Images
from clearmargin.settings import RunConfig
from clearmargin.studies.sweep import folder as place
from clearmargin.studies.sweep.records import Plan, Trial, find_winner
from clearmargin.studies.sweep.results import Sweep, write_best, write_results, write_trials
from clearmargin.studies.sweep.setup import Setup
from clearmargin.studies.sweep.space import check_space, read_space
from clearmargin.studies.sweep.study import STUDY_FILE, Study, check_study_file
from clearmargin.studies.sweep.trial import part_of
from clearmargin.studies.sweep.work import WAIT_S, work
from clearmargin.studies.sweep.workers import work_together
from clearmargin.training.adapt import are_grey
from clearmargin.training.log import RunLog
from clearmargin.training.run_folder import describe_environment
from clearmargin.training.run_folder import is_begun as run_is_begun
from clearmargin.types import Listener
from clearmargin.workflow import (
    Run,
    assign_splits,
    audit_data,
    check_model,
    pack_images,
    run_training,
    split_seed,
    what_is_shown,
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The images of the job, packed for each recipe, and who is in test."""

    audit: Audit
    assignment: Assignment
    images: dict[str, Images]
    by: By


def run_sweep(
    setup: Setup,
    space_file: Path,
    out: Path,
    *,
    jobs: int = 1,
    resume: bool = False,
    command: str = "",
    listener: Listener = Listener(),
) -> Sweep:
    """The sweep: everything in its folder, sweep.json last. Where another process is at it, this one joins in.

    Args:
        setup: what is searched, and from where.
        space_file: that the space was read from, for messages.
        out: the folder, new unless `resume` or another process works there.
        jobs: how many trials are trained at a time.
        resume: go on with a sweep that was stopped or killed.
        command: what the user typed, for the page.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: of the kind that fits; nothing that looks complete is left behind.
    """
    check_setup(setup, space_file, jobs)
    shown, command = what_is_shown(setup.base, command)
    with disk_errors(out):
        lock = place.lead(out)
        if lock is None:
            lock, resume = _join(setup, shown, out, jobs, listener), True
        try:
            place.check_begun(out, shown, setup.space, resume=resume)
            if place.is_complete(out):
                _check_complete(out, setup)
                listener.note(f"{out}: this sweep is complete.")
            else:
                _lead(setup, out, jobs=jobs, command=command, listener=listener)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(_how_to_go_on(out, setup)) from None
        finally:
            if place.is_complete(out):
                place.clear_locks(out)
            lock.release()
    return Sweep(out)


def check_setup(setup: Setup, space_file: Path, jobs: int) -> None:
    """Passes when everything that can be known to be wrong before an image is read is right.

    Raises:
        ClearmarginError: of the kind that fits.
    """
    plan, base = setup.plan, setup.base
    if plan.trials < 2:
        raise UsageError(f"--trials {plan.trials}: give 2 or more; the first is the recipe's own settings.")
    if plan.folds < 2:
        raise UsageError(
            f"--folds {plan.folds}: give 2 or more; each trial is judged on patients that it has not seen."
        )
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: give 1 or more.")
    if base.split.folds:
        raise UsageError("split.folds is for train; the folds of a sweep are given by --folds.")
    check_model(base)
    for config in check_space(space_file, setup.space, setup.recipe, setup.changes):
        try:
            check_model(config)
        except ClearmarginError as error:
            raise ConfigError(f"{space_file}: {error}") from None


def _lead(setup: Setup, out: Path, *, jobs: int, command: str, listener: Listener) -> None:
    started = time.monotonic()
    log = RunLog(out / "log.jsonl", listener)
    environment = describe_environment(command)
    prepared = _prepare(setup, out, log)
    study = _open_study(setup, prepared, out)
    _search(study, setup, out, jobs, log)
    trials = study.trials()
    table = write_trials(out, study)
    winner = find_winner(trials)
    if winner is None:
        first = next(trial for trial in trials if trial.state == "failed")
        raise DataError(f"{out}: none of the {setup.plan.trials} trials could be trained. The first: {first.reason}")
    best = setup.config_of(winner)
    write_best(out, what_is_shown(best, command)[0], winner, setup.plan)
    log.note(f"Trial {winner.number} has won. It is trained on train now, and then test is looked at.")
    run = _train_winner(best, prepared.images[setup.recipe_of(winner)], out, command, log)
    if run.metrics["protocol"]["split_sha256"] != prepared.assignment.sha256:
        raise AssertionError("the winner was trained under another split than the sweep")
    log.stage("report")
    write_results(
        out,
        setup,
        trials,
        table,
        winner=winner,
        run=run,
        protocol={"by": prepared.by, "images": int((prepared.assignment.splits != "test").sum())},
        environment=environment | {"seconds_of_the_last_start": round(time.monotonic() - started, 1)},
    )


def _prepare(setup: Setup, out: Path, log: RunLog) -> Prepared:
    """Audit, split and packing, as `train` does them; packed once for each recipe that a trial may have."""
    base = setup.base
    audit = audit_data(base, out, log)
    assignment = assign_splits(audit.manifest, base, log)
    images = {}
    for recipe in setup.recipes():
        config = base if recipe == setup.recipe else setup.with_recipe(recipe, {})
        images[recipe] = pack_images(audit, config, log)
    by: By = base.split.by if audit.manifest.knows_patients else "image"
    if by != base.split.by:
        log.note("No patient is known: the folds of the trials are of images, which is optimistic.")
    return Prepared(audit, assignment, images, by)


def _open_study(setup: Setup, prepared: Prepared, out: Path) -> Study:
    """The study with what others need to join in, its folds dealt over the images of train and validation."""
    assignment, plan, split = prepared.assignment, setup.plan, setup.base.split
    known = assignment.manifest.keep(assignment.splits != "test")
    folds: Sequence[Assignment] = [
        fold_split(known, plan.folds, fold, by=prepared.by, fractions=split.fractions, seed=split_seed(setup.base))
        for fold in range(plan.folds)
    ]
    roles = "".join(fold.sha256 for fold in folds)
    first = next(iter(prepared.images.values()))
    identity = hashlib.sha256(f"{first.data_sha256}{assignment.sha256}{roles}".encode()).hexdigest()
    if (out / STUDY_FILE).exists():
        check_study_file(out / STUDY_FILE)
    study = Study(out, setup.space, plan, setup.base.seed)
    noted = study.facts
    if "identity" in noted:
        place.check_plan(out, noted, plan)
        if noted["identity"] != identity:
            raise ConfigError(
                f"{out}: the sweep was begun with other images, or another split. "
                "Go on with the same data, or give a new folder with --out."
            )
    study.begin(setup.baseline())
    rows = np.flatnonzero(assignment.splits != "test")
    packed = {
        recipe: (
            each.store,
            each.preprocessing,
            are_grey(part_of(each.store, rows).images, content=each.manifest.content),
        )
        for recipe, each in prepared.images.items()
    }
    facts = {"trials": plan.trials, "folds": plan.folds, "pruner": plan.pruner, "identity": identity}
    study.note(facts | {"packed": place.describe_packed(packed)})
    place.write_split(out, assignment, folds)  # the last: from here on others may join in
    return study


def _search(study: Study, setup: Setup, out: Path, jobs: int, listener: Listener) -> None:
    """Every trial that is not done yet, by this process or by `jobs` of its own; trials.csv whatever happens."""
    listener.stage("sweep")
    try:
        if jobs > 1:
            work_together(study, setup, jobs, listener)
        # Also after work_together: whoever joined in may still be at a trial.
        work(study, setup, place.open_material(out, study.facts["packed"]), listener)
    finally:
        write_trials(out, study)


def _train_winner(config: RunConfig, images: Images, out: Path, command: str, listener: Listener) -> Run:
    run = out / place.RUN
    return run_training(config, run, resume=run_is_begun(run), command=command, images=images, listener=listener)


def _join(setup: Setup, shown: RunConfig, out: Path, jobs: int, listener: Listener) -> FileLock:
    """Takes trials of the sweep that another process leads; then waits until that has ended, and gives its lock."""
    listener.note(f"{out}: another process is at this sweep; joining in.")
    while not (out / place.FOLDS).is_file():
        time.sleep(WAIT_S)
        lock = place.lead(out)
        if lock is not None:
            return lock
    place.check_sweep(out, shown, setup.space)
    if not place.is_complete(out):
        study = Study(out, setup.space, setup.plan, setup.base.seed)
        place.check_plan(out, study.facts, setup.plan, exact=True)
        listener.stage("sweep")
        try:
            if jobs > 1:
                work_together(study, setup, jobs, listener)
            else:
                work(study, setup, place.open_material(out, study.facts["packed"]), listener)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(f"{out}: stopped joining in. The process that leads the sweep goes on.") from None
        listener.note("No trial is left. Waiting for the process that leads the sweep to train the winner.")
    while (lock := place.lead(out)) is None:
        time.sleep(WAIT_S)
    return lock


def _check_complete(out: Path, setup: Setup) -> None:
    wanted, plan = setup.plan, Sweep(out).summary["plan"]
    if plan["trials"] != wanted.trials or plan["folds"] != wanted.folds:
        raise UsageError(
            f"{out}: this sweep is complete, with {plan['trials']} trials of {plan['folds']} folds: its test part has "
            "been looked at, so more trials would choose by it. Give a new folder with --out."
        )


def _how_to_go_on(out: Path, setup: Setup) -> str:
    if not (out / place.FOLDS).is_file():
        return f"{out}: stopped before the first trial. Run the same command again."
    done = [trial for trial in Study(out, setup.space, setup.plan, setup.base.seed).trials() if _is_done(trial)]
    return (
        f"{out}: stopped after {len(done)} of {setup.plan.trials} trials; everything that was trained is kept. "
        "Run the same command with --resume to go on."
    )


def _is_done(trial: Trial) -> bool:
    return trial.state in ("complete", "pruned", "failed")


def build_setup(
    space_file: Path, recipe: str, changes: dict[str, Any], *, trials: int, folds: int, pruner: Any
) -> Setup:
    """What is searched, and from where, read and checked as far as it can be without images.

    Raises:
        ClearmarginError: of the kind that fits.
    """
    base = load_recipe(recipe, changes)
    return Setup(recipe, changes, base, read_space(space_file), Plan(trials, folds, pruner))
