"""The trials of a sweep on disk, in Optuna's words here and nowhere else: study.db, the sampler, the pruner.

Several processes may share it. Who takes a trial holds a lock while it is taken, so that no more are taken than were
asked for; who works holds a lock of their own as long as they live, so that what a killed process left is seen at once.
What is proposed is a function of the seed, the trials before, and how many there are, never of what was drawn earlier.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from clearmargin.errors import MissingExtra, UsageError
from clearmargin.studies.sweep.records import WORKERS, FoldResult, Plan, State, Trial
from clearmargin.studies.sweep.space import Choices, Range, Space, Value, encode

try:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, TrialState
    from sqlalchemy.pool import NullPool
except ImportError as error:
    raise MissingExtra("a sweep", "Optuna", reason=str(error), extra="sweep") from None

STUDY_FILE = "study.db"
_NAME = "sweep"
_PATIENCE_S = 120
"""How long a process waits for the database while others write."""
_MOST_KILLED = 3
"""So often a trial may be killed before it counts as failed: one that does not fit into memory always will be."""
KILLED, STOPPED = "its process was killed", "stopped by the user"


class Study:
    """The trials of the sweep in this folder.

    Args:
        out: the folder of the sweep, with a study.db.
        space: what is searched.
        plan: how.
        seed: of the sampler.
    """

    def __init__(self, out: Path, space: Space, plan: Plan, seed: int) -> None:
        self.out, self.space, self.plan, self.seed = out, space, plan, seed
        self._worker = ""
        self._taken: dict[int, optuna.Trial] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        pruner = optuna.pruners.MedianPruner() if plan.pruner == "median" else optuna.pruners.NopPruner()
        self._study = optuna.create_study(
            storage=_storage(out / STUDY_FILE),
            study_name=_NAME,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What was noted of the sweep as a whole."""
        return dict(self._study.user_attrs)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Notes facts of the sweep as a whole; what JSON can hold."""
        for name, value in facts.items():
            self._study.set_user_attr(name, value)

    def begin(self, baseline: Mapping[str, Value]) -> None:
        """Puts the recipe's own settings first, unless that was done."""
        if not self._study.get_trials(deepcopy=False):
            self._enqueue({"baseline": True, "settings": dict(baseline)})

    @contextmanager
    def working(self) -> Iterator[None]:
        """Inside, this process may take trials; when it is killed, the others see."""
        folder = self.out / WORKERS
        folder.mkdir(exist_ok=True)
        self._worker = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        file = folder / self._worker
        lock = FileLock(file)
        lock.acquire()
        try:
            yield
        finally:
            lock.release()
            file.unlink(missing_ok=True)
            with suppress(OSError):  # others are there
                folder.rmdir()

    def take(self) -> Trial | None:
        """The next trial, now running here; None where all that were asked for are done or under way."""
        with FileLock(self.out / ".taking"):
            self._bury()
            trials = self._study.get_trials(deepcopy=False)
            before = sum(_read(each).counts for each in trials)
            if before >= self.plan.trials:
                return None
            self._study.sampler = self._sampler(before)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                asked = self._study.ask()
                asked.set_user_attr("worker", self._worker)
                settings = self._suggest(asked, asked.user_attrs.get("settings"))
            asked.set_user_attr("settings", settings)
            origin = asked.user_attrs.get("origin", _find_origin(trials, settings, asked))
            asked.set_user_attr("origin", origin)
            self._taken[asked.number] = asked
        return self.trial(asked.number)

    def known_folds(self, origin: int) -> dict[int, FoldResult]:
        """The folds that any trial with these settings has finished."""
        known: dict[int, FoldResult] = {}
        for trial in self.trials():
            if trial.origin == origin:
                known |= trial.folds
        return known

    def report(self, number: int, fold: int, result: FoldResult) -> None:
        """A fold of a trial that runs here is finished."""
        asked = self._taken[number]
        folds = dict(asked.user_attrs.get("folds", {}))
        folds[str(fold)] = {"value": result.value, "epochs": result.epochs, "seconds": result.seconds}
        asked.set_user_attr("folds", folds)
        asked.report(float(np.mean([each["value"] for each in folds.values()])), fold)

    def is_hopeless(self, number: int) -> bool:
        """After the folds so far the trial is below the median of the others; the recipe's own settings never are."""
        asked = self._taken[number]
        return not asked.user_attrs.get("baseline") and asked.should_prune()

    def finish(self, number: int) -> None:
        """Every fold of a trial that runs here is done."""
        value = self.trial(number).value
        self._study.tell(self._taken.pop(number), value)

    def prune(self, number: int) -> None:
        """A trial that runs here is not worth its other folds."""
        self._study.tell(self._taken.pop(number), state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """A trial that runs here cannot be trained."""
        asked = self._taken.pop(number)
        asked.set_user_attr("reason", reason)
        self._study.tell(asked, state=TrialState.FAIL)

    def stop(self, number: int) -> None:
        """A trial that runs here was interrupted; it will be gone on with under another number."""
        del self._taken[number]
        self._replace(self._frozen(number), STOPPED)

    def trial(self, number: int) -> Trial:
        """The trial of this number."""
        return _read(self._frozen(number))

    def trials(self) -> list[Trial]:
        """Every trial, in the order of their numbers."""
        return [_read(each) for each in self._study.get_trials(deepcopy=False)]

    def bury(self) -> None:
        """Gives back the trials of processes that were killed."""
        with FileLock(self.out / ".taking"):
            self._bury()

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _sampler(self, before: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence((self.seed, before)).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _suggest(self, asked: optuna.Trial, given: Mapping[str, Value] | None) -> dict[str, Value]:
        """The settings of the trial: new ones, or those that it was put into the queue with."""
        inside = [each for each in self.space.parameters if given is None or each.holds(given.get(each.key))]
        suggested = {each.key: _suggest(asked, each) for each in inside}
        return suggested if given is None else dict(given)

    def _enqueue(self, attributes: Mapping[str, Any]) -> None:
        settings = attributes["settings"]
        # The recipe's own value may lie outside the space; the sampler then learns nothing of this setting from it.
        fixed = {
            each.key: encode(settings[each.key]) for each in self.space.parameters if each.holds(settings.get(each.key))
        }
        self._study.enqueue_trial(fixed, user_attrs=dict(attributes))

    def _bury(self) -> None:
        for each in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # Without a worker it died while it was taken: whoever takes one holds the lock that is held here.
            worker = each.user_attrs.get("worker")
            if each.number not in self._taken and (worker is None or not self._lives(worker)):
                self._replace(each, KILLED)

    def _lives(self, worker: str) -> bool:
        lock = FileLock(self.out / WORKERS / worker)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:  # the folder is gone, and so is its lock
            return False
        lock.release()
        return False

    def _replace(self, each: FrozenTrial, why: str) -> None:
        """Marks a trial that was stopped in the middle, and puts its settings first in the queue again."""
        attributes = dict(each.user_attrs)
        killed = int(attributes.get("killed", 0)) + (why == KILLED)
        gives_up = killed >= _MOST_KILLED
        trial = optuna.Trial(self._study, each._trial_id)  # the storage goes by this number
        trial.set_user_attr("reason", f"{why} {killed} times" if gives_up else why)
        trial.set_user_attr("stopped", not gives_up)
        self._study.tell(trial, state=TrialState.FAIL)
        if not gives_up and "settings" in attributes:
            kept = {name: attributes[name] for name in ("baseline", "settings", "origin") if name in attributes}
            self._enqueue(kept | {"killed": killed})


def check_study_file(path: Path) -> None:
    """Passes when the file is a database that can be written.

    Raises:
        UsageError: it is not.
    """
    try:
        with sqlite3.connect(path) as connection:
            connection.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path}: is no database of a sweep ({error}). Give another folder with --out.") from None


def _storage(path: Path) -> RDBStorage:
    # Not by an address: a path may hold what an address cannot.
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=_PATIENCE_S, check_same_thread=False)

    return RDBStorage("sqlite:///sweep", engine_kwargs={"creator": connect, "poolclass": NullPool})


def _suggest(asked: optuna.Trial, parameter: Choices | Range) -> Value:
    if isinstance(parameter, Choices):
        by_code = {encode(value): value for value in parameter.values}
        return by_code[asked.suggest_categorical(parameter.key, list(by_code))]  # type: ignore[index]
    if parameter.kind == "int":
        step = 1 if parameter.step is None else int(parameter.step)
        return asked.suggest_int(parameter.key, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
    return asked.suggest_float(parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _find_origin(trials: list[FrozenTrial], settings: Mapping[str, Value], asked: optuna.Trial) -> int:
    """The trial under which these settings were tried before and are not being tried now; else this one."""
    baseline = bool(asked.user_attrs.get("baseline"))
    busy = {each.user_attrs.get("origin") for each in trials if not each.state.is_finished()}
    for each in trials:
        earlier = each.user_attrs
        if (
            each.state.is_finished()
            and earlier.get("settings") == settings
            and bool(earlier.get("baseline")) == baseline
            and "origin" in earlier
            and earlier["origin"] not in busy
        ):
            return int(earlier["origin"])
    return asked.number


def _read(each: FrozenTrial) -> Trial:
    attributes = each.user_attrs
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
        TrialState.FAIL: "stopped" if attributes.get("stopped") else "failed",
    }
    return Trial(
        each.number,
        states[each.state],
        attributes.get("settings", {}),
        attributes.get("origin", each.number),
        {int(fold): FoldResult(**result) for fold, result in attributes.get("folds", {}).items()},
        is_baseline=bool(attributes.get("baseline")),
        reason=attributes.get("reason", ""),
    )
