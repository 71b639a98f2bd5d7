"""The folder of a sweep: who leads, who joins in, what they share, and when it is complete.

config.toml space.toml audit.json split.csv folds.csv study.db trials/ trials.csv best.toml run/ log.jsonl sweep.html
sweep.json, the last of which means complete. folds.csv is what trials are given: it names no image of test. What must
be there before anybody can join in is there once folds.csv is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w
from filelock import FileLock, Timeout

from clearmargin.config import dump_config, read_config, read_toml
from clearmargin.data.split import Assignment
from clearmargin.data.store import Store, cache_folder
from clearmargin.errors import ConfigError, DataError, UsageError
from clearmargin.files import make_folder, write_text, write_whole
from clearmargin.images.preprocess import Preprocessing
from clearmargin.settings import RunConfig
from clearmargin.studies.sweep.records import WORKERS, Plan
from clearmargin.studies.sweep.space import Space
from clearmargin.studies.sweep.trial import HELD_OUT, Folds, Material, Packed, part_of
from clearmargin.training.run_folder import check_same
from clearmargin.training.run_folder import is_begun as run_is_begun

SUMMARY, RUN, SPLIT, FOLDS, SPACE, CONFIG = "sweep.json", "run", "split.csv", "folds.csv", "space.toml", "config.toml"
STUDY = "study.db"
_LOCK = ".lock"
_EMPTY_SO_FAR = {_LOCK, ".space.partial.toml"}


def is_complete(out: Path) -> bool:
    """The sweep ended: the winner is trained and test was looked at."""
    return (out / SUMMARY).is_file()


def is_begun(out: Path) -> bool:
    """There is a study to go on with."""
    return (out / STUDY).is_file()


def lead(out: Path) -> FileLock | None:
    """The lock of whoever leads the sweep, held; None where another process has it.

    Raises:
        UsageError: the folder holds something else.
        DataError: it cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; give a folder that does not exist yet with --out.")
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    # Before there is a study a sweep is known by its lock and its space: either alone may be of something else.
    if names - _EMPTY_SO_FAR and STUDY not in names and not {_LOCK, SPACE} <= names:
        raise UsageError(f"{out}: the folder is not empty and holds no sweep. Give a new folder with --out.")
    make_folder(out)
    lock = FileLock(out / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def check_begun(out: Path, config: RunConfig, space: Space, *, resume: bool) -> None:
    """Passes when nothing was begun here, or this very sweep; then writes config.toml and space.toml.

    Raises:
        UsageError: one was begun, and `resume` is off.
        ConfigError: it was begun with other settings or another space.
    """
    if is_begun(out):
        if not resume:
            raise UsageError(f"{out}: there is a sweep in this folder already. Give another --out, or add --resume.")
        check_sweep(out, config, space)
        return
    write_text(out / SPACE, _dump_space(space))  # the first: by it `lead` knows whose folder this is
    write_text(out / CONFIG, dump_config(config))


def check_sweep(out: Path, config: RunConfig, space: Space) -> None:
    """Passes when the sweep in the folder has these settings and this space.

    Raises:
        ConfigError: names the first difference.
    """
    check_same(read_config(out / CONFIG), config, out)
    saved = read_toml(out / SPACE)
    if saved != space.table():
        changed = next(key for key in {**saved, **space.table()} if saved.get(key) != space.table().get(key))
        raise ConfigError(
            f"{out}: the sweep was begun with another space: '{changed}' differs. "
            "Go on with the same space, or give a new folder with --out."
        )


def check_plan(out: Path, noted: Mapping[str, Any], plan: Plan, *, exact: bool = False) -> None:
    """Passes when the sweep goes on under the plan that it was begun with; there may be more trials, unless `exact`.

    Raises:
        ConfigError: names what differs.
        UsageError: there are to be more trials, after a winner was chosen.
    """
    for name in ("folds", "pruner"):
        if noted[name] != getattr(plan, name):
            raise ConfigError(
                f"{out}: the sweep was begun with --{name} {noted[name]}, not {getattr(plan, name)}. "
                "Go on with the same, or give a new folder with --out."
            )
    if noted["trials"] > plan.trials or (exact and noted["trials"] != plan.trials):
        rule = "who joins in has the same" if exact else "there can be more now, and not fewer"
        raise ConfigError(f"{out}: the sweep was begun with --trials {noted['trials']}; {rule}.")
    if noted["trials"] < plan.trials and run_is_begun(out / RUN):
        raise UsageError(
            f"{out}: the winner of {noted['trials']} trials is in {RUN}/ already; its test may have been looked at, so "
            f"more trials would choose by it. Go on with --trials {noted['trials']}, or give a new folder with --out."
        )


def clear_locks(out: Path) -> None:
    """Removes what processes agreed by; for a sweep that is complete, which is only read from now on."""
    for name in (_LOCK, ".taking"):
        with suppress(PermissionError):  # Windows keeps a file that is open
            (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / WORKERS, ignore_errors=True)


def write_split(out: Path, assignment: Assignment, folds: Sequence[Assignment]) -> None:
    """split.csv, and folds.csv: for the images of train and validation their row in the store, and what they are."""
    write_whole(out / SPLIT, lambda path: assignment.table().to_csv(path, index=False))
    inside = np.flatnonzero(assignment.splits != "test")
    table = assignment.manifest.frame[["path", "patient_id", "label"]].iloc[inside].assign(row=inside)
    for number, fold in enumerate(folds):
        table[f"fold_{number + 1}"] = np.where(fold.splits == "test", HELD_OUT, fold.splits)
    write_whole(out / FOLDS, lambda path: table.to_csv(path, index=False))


def read_folds(out: Path) -> pd.DataFrame:
    """folds.csv.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    try:
        return pd.read_csv(out / FOLDS, dtype={"path": "str", "patient_id": "str"}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{out / FOLDS}: cannot be read ({error}). Run the same command with --resume.") from None


def as_folds(table: pd.DataFrame) -> Folds:
    """What trials are given of it."""
    names = [name for name in table.columns if name.startswith("fold_")]
    roles = tuple(table[name].to_numpy(dtype=str) for name in names)
    return Folds(table["label"].to_numpy(dtype=np.int8), roles)


def describe_packed(packed: Mapping[str, tuple[Store, Preprocessing, bool]]) -> str:
    """Where the packed images of each recipe are, below the cache folder, for `open_material`."""
    entries = {
        recipe: {"store": store.path.name, "preprocessing": spec.model_dump(mode="json"), "grey": grey}
        for recipe, (store, spec, grey) in packed.items()
    }
    return json.dumps(entries)


def open_material(out: Path, described: str) -> Material:
    """What trials are given: folds.csv, and the packed images of train and validation where the leader has noted them.

    Raises:
        UsageError: they are not on this machine.
        DataError: folds.csv cannot be read.
    """
    table = read_folds(out)
    rows = table["row"].to_numpy(dtype=np.intp)
    found = {}
    for recipe, entry in json.loads(described).items():
        place = cache_folder() / entry["store"]
        if not (place / "index.json").is_file():
            raise UsageError(
                f"{place}: the packed images of this sweep are not here. Set CLEARMARGIN_CACHE to the folder that the "
                "process which began it uses."
            )
        images = np.load(place / "images.npy", mmap_mode="r")
        spec = Preprocessing.model_validate(entry["preprocessing"])
        found[recipe] = Packed(part_of(Store(images, place, 0), rows), spec, bool(entry["grey"]))
    return Material(found, as_folds(table))


def _dump_space(space: Space) -> str:
    return tomli_w.dumps(space.table())
