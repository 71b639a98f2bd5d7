"""The Python door: the commands as functions, for notebooks and scripts. Tables in and out are pandas.

Each does what the command of the same name does; the command line calls these very functions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clearmargin.config import check_config, load_recipe, read_config
from clearmargin.errors import DataError
from clearmargin.images.file_names import written_name
from clearmargin.settings import DataSettings
from clearmargin.types import Listener

if TYPE_CHECKING:
    import pandas as pd

    from clearmargin.data.audit import Audit
    from clearmargin.workflow import Run

Pathlike = str | os.PathLike[str]


def train(
    data: Pathlike,
    out: Pathlike,
    *,
    recipe: str | None = None,
    model: str | None = None,
    by: Literal["patient", "image"] | None = None,
    split: Pathlike | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    source: str | None = None,
    patient_regex: str | None = None,
    exclude: Pathlike | None = None,
    tolerance: float | None = None,
    labels: Pathlike | None = None,
    view: Literal["full", "crop"] | None = None,
    normal: Literal["exclude", "benign"] | None = None,
    magnification: int | Sequence[int] = (),
    frame: int | None = None,
    pseudonymise: bool = False,
    deterministic: bool | None = None,
    resume: bool = False,
    command: str = "",
    listener: Listener = Listener(),
) -> Run:
    """The main job: audit, split, pack, train, evaluate, export, report.

    Args:
        data: a folder of images, or a CSV or Parquet file with path,label.
        out: the run folder to make, or to go on with when `resume`.
        recipe: a recipe's name or a TOML file; `default` when None.
        model: another architecture than the recipe's.
        by: what a fresh split keeps together; `patient` when None.
        split: a CSV with path (or patient_id) and split, used instead of a fresh split.
        epochs: instead of the recipe's.
        seed: of split, weights and batches.
        settings: any other setting by its dotted key, as after `--set`.
        source: the layout of `data`, recognised when None.
        patient_regex: takes the patient from each path.
        exclude: a text file with one path a line to leave out.
        tolerance: share of unusable files up to which the run goes on.
        labels: a CSV with the labels, for DICOM folders.
        view: full images, or a crop around each lesion; `full` when None.
        normal: what becomes of images without any lesion; `exclude` when None.
        magnification: of BreaKHis, the magnifications to take; all when empty.
        frame: of images with several, the frame to take, counted from 1.
        pseudonymise: patient ids, slide ids and paths leave as keyed hashes.
        deterministic: bit for bit the same result each time.
        resume: go on with a stopped run; settings not given are those of the run.
        command: what the user typed, for the report.
        listener: hears how the job goes on.

    Raises:
        ClearmarginError: one line with what, where and the fix; nothing that looks complete is left.
    """
    from clearmargin.workflow import run_training  # noqa: PLC0415  (torch takes seconds to import)

    given: dict[str, Any] = {
        "model.name": model,
        "split.by": by,
        "train.epochs": epochs,
        "seed": seed,
        "deterministic": deterministic,
        "data.split_file": _absolute(split) if split is not None else None,
        **_data_changes(
            data,
            source=source,
            patient_regex=patient_regex,
            exclude=exclude,
            tolerance=tolerance,
            labels=labels,
            view=view,
            normal=normal,
            magnification=magnification,
            frame=frame,
            pseudonymise=pseudonymise,
        ),
    }
    changes = {**(settings or {}), **_given(given)}
    saved = Path(out) / "config.toml"
    base = read_config(saved) if resume and recipe is None and saved.is_file() else None
    config = load_recipe(recipe or "default", changes, base=base)
    return run_training(config, Path(out), resume=resume, command=command, listener=listener)


def audit(
    data: Pathlike,
    *,
    source: str | None = None,
    patient_regex: str | None = None,
    exclude: Pathlike | None = None,
    tolerance: float | None = None,
    labels: Pathlike | None = None,
    view: Literal["full", "crop"] | None = None,
    normal: Literal["exclude", "benign"] | None = None,
    magnification: int | Sequence[int] = (),
    frame: int | None = None,
    pseudonymise: bool = False,
    listener: Listener = Listener(),
) -> Audit:
    """Everything that is wrong with the images, found at once; originals are not touched.

    Raises:
        DataError: nothing there, or not one labelled image. A blocking finding does not raise.
    """
    from clearmargin.data.audit import audit_images  # noqa: PLC0415

    where = _data_settings(
        _data_changes(
            data,
            source=source,
            patient_regex=patient_regex,
            exclude=exclude,
            tolerance=tolerance,
            labels=labels,
            view=view,
            normal=normal,
            magnification=magnification,
            frame=frame,
            pseudonymise=pseudonymise,
        )
    )
    return audit_images(where, listener=listener)


def split(
    data: Pathlike,
    *,
    by: Literal["patient", "image"] | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    folds: int | None = None,
    official: bool = False,
    seed: int = 0,
    source: str | None = None,
    patient_regex: str | None = None,
    exclude: Pathlike | None = None,
    tolerance: float | None = None,
    labels: Pathlike | None = None,
    view: Literal["full", "crop"] | None = None,
    normal: Literal["exclude", "benign"] | None = None,
    magnification: int | Sequence[int] = (),
    frame: int | None = None,
    pseudonymise: bool = False,
    listener: Listener = Listener(),
) -> pd.DataFrame:
    """The split as a table: path, patient_id, label and split (or fold, 0 to folds - 1).

    Without `by` the official split is kept where the data have one; `by` alone makes a fresh one.

    Raises:
        SplitError: no honest split is possible; says what to do.
        AuditBlocked: the audit found what must be mended first.
    """
    from clearmargin.data.audit import audit_images  # noqa: PLC0415
    from clearmargin.data.split import fold_manifest, official_split, split_manifest  # noqa: PLC0415

    config = check_config({"split": {"by": by or "patient", "fractions": list(fractions)}, "seed": seed})
    where = _data_settings(
        _data_changes(
            data,
            source=source,
            patient_regex=patient_regex,
            exclude=exclude,
            tolerance=tolerance,
            labels=labels,
            view=view,
            normal=normal,
            magnification=magnification,
            frame=frame,
            pseudonymise=pseudonymise,
        )
    )
    fresh = folds is not None or (by is not None and not official)
    audited = audit_images(where, ignore_official=fresh, listener=listener)
    audited.check()
    manifest, unit = audited.manifest, config.split.by
    if folds is not None:
        fold = fold_manifest(manifest, folds, by=unit, seed=seed)
        return manifest.frame[["path", "patient_id", "label"]].assign(fold=fold)
    make = official_split if official or manifest.has_official_split else split_manifest
    return make(manifest, by=unit, fractions=config.split.fractions, seed=seed).table()


def _absolute(path: Pathlike) -> str:
    """The absolute path as text that settings and tables can hold.

    Raises:
        DataError: the name is not Unicode.
    """
    full = os.path.abspath(path)
    if full == written_name(full):
        return full
    there = os.path.lexists(full)
    what = "the name is not Unicode and cannot be written down; rename it" if there else "no such file or folder"
    raise DataError(f"{written_name(os.fspath(path))}: {what}.")


def _data_settings(changes: Mapping[str, Any]) -> DataSettings:
    return load_recipe("default", _given(changes)).data


def _given(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes that are not None."""
    return {key: value for key, value in changes.items() if value is not None}


def _data_changes(
    data: Pathlike,
    *,
    source: str | None,
    patient_regex: str | None,
    exclude: Pathlike | None,
    tolerance: float | None,
    labels: Pathlike | None,
    view: str | None,
    normal: str | None,
    magnification: int | Sequence[int],
    frame: int | None,
    pseudonymise: bool,
) -> dict[str, Any]:
    """The settings of the section `data` by their dotted keys; what was not given is None."""
    return {
        "data.root": _absolute(data),
        "data.source": source,
        "data.patient_regex": patient_regex,
        "data.exclude_file": _absolute(exclude) if exclude is not None else None,
        "data.tolerance": tolerance,
        "data.labels_file": _absolute(labels) if labels is not None else None,
        "data.view": view,
        "data.normal": normal,
        "data.magnification": [magnification] if isinstance(magnification, int) else list(magnification) or None,
        "data.frame": frame,
        "data.pseudonymise": pseudonymise or None,
    }
