"""metrics.json: every figure of every split, by image, slide and patient, with its interval or the reason for none.

Invariant: the dictionary is clean JSON, and a figure that cannot be had is null with a reason. A block of figures
is made in `figures.py`, what is said of the headline split besides in `headline.py`; drawing and wording a
report is elsewhere (`report/`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.decision import Level, pool_mean
from clearmargin.errors import DataError
from clearmargin.evaluation import metrics
from clearmargin.evaluation.bootstrap import LEVEL
from clearmargin.evaluation.choices import CHOSEN_ON, Choices, known_ids, level_ids, point_arguments
from clearmargin.evaluation.classification_report import classification_report
from clearmargin.evaluation.figures import Cases, Resampling, Values, describe_figures
from clearmargin.evaluation.headline import describe_headline
from clearmargin.evaluation.intervals import FEW_UNITS
from clearmargin.evaluation.operating_point import resampled_thresholds
from clearmargin.evaluation.predictions import check_predictions
from clearmargin.evaluation.reliability import calibration_slope_intercept
from clearmargin.settings import EvaluateSettings
from clearmargin.types import ALONE_COLUMNS, LEVELS, SPLITS, LevelName, Listener

SCHEMA = 1
NAIVE_THRESHOLD = 0.5
UNKNOWN_PATIENTS = (
    "patients are unknown, so images were resampled: the intervals are too narrow where a patient has several"
)


def evaluate_predictions(
    frame: pd.DataFrame,
    choices: Choices,
    *,
    protocol: Mapping[str, Any],
    settings: EvaluateSettings,
    seed: int,
    columns: pd.DataFrame | None = None,
    by_fold: Mapping[int, Choices] | None = None,
    listener: Listener | None = None,
) -> Values:
    """The contents of metrics.json for a predictions table; the order of its rows does not matter.

    Each split that has rows is a key, with `interval` (what was resampled there, and a note where its
    intervals are not to be trusted), `image`, `slide`, `patient`, `image_at_0.5` and `classification_report`, and in
    context `image_alone`: the figures of each patch by itself, at a threshold of its own. The headline split has
    further blocks, see `headline.py`. An abstention counts by its probability: the figures of these blocks describe
    the model with no decision withheld.

    Args:
        frame: a table that `check_predictions` accepts.
        choices: what decides; unless there are folds, its threshold made the table's decisions.
        protocol: how the data were split; passed through, and must be clean JSON.
        settings: the section `evaluate`.
        seed: of the bootstrap.
        columns: the manifest's columns, one row an image, for the subgroups; none without it.
        by_fold: of a cross-validation, what decided in each fold; the table then has the column `fold`.
        listener: hears one step for each split, and each note.

    Raises:
        DataError: the table is refused, or a decision contradicts its probability.
    """
    listener = listener or Listener()
    check_predictions(frame)
    # A fixed order of the rows makes sums, and images as units, come out the same for any order given.
    table = frame.assign(path=frame["path"].astype("str")).sort_values("path", ignore_index=True)
    parts = by_fold if by_fold is not None else {0: choices}
    if by_fold is None:
        table["fold"] = 0
    parts, choices = {fold: part.applied_to(table) for fold, part in parts.items()}, choices.applied_to(table)
    table["threshold"] = table["fold"].map({fold: part.point.threshold for fold, part in parts.items()})
    _check_decisions(table)
    alone = _decided_alone(table, parts) if ALONE_COLUMNS[0] in table else None
    present = [split for split in SPLITS if (table["split"] == split).any()]
    resampling = Resampling(settings.resamples, seed)
    listener.stage("evaluate")
    splits: Values = {}
    for done, split in enumerate(present, start=1):
        rows = table[table["split"] == split]
        tested = split == "test" and by_fold is None
        chosen = _choosing(table, choices, settings, resampling) if tested else None
        splits[split] = _describe_split(rows, parts, resampling, chosen)
        if alone is not None and choices.alone is not None:
            chosen = _choosing(alone, choices.alone, settings, resampling) if tested else None
            splits[split]["image_alone"] = _describe_images(
                images_of(alone[alone["split"] == split]), resampling, chosen
            )
        if split == present[-1]:
            splits[split] |= describe_headline(
                rows,
                images_of(rows),
                choices,
                settings=settings,
                resampling=resampling,
                columns=columns,
                by_fold=by_fold,
            )
        if note := splits[split]["interval"]["note"]:
            listener.note(f"{split}: {note}")
        listener.advance(done, len(present))
    chosen_by = choices.describe()
    if by_fold is not None:
        thresholds = {str(fold): float(part.point.threshold) for fold, part in by_fold.items()}
        chosen_by["operating_point"]["by_fold"] = thresholds
    return {
        "schema": SCHEMA,
        "protocol": dict(protocol),
        **chosen_by,
        "interval": _interval_of_run(splits, resampling),
        **splits,
    }


def images_of(rows: pd.DataFrame) -> Cases:
    """The images of a split as cases, patients behind them where all are known."""
    labels = rows["label"].to_numpy(dtype=np.int64)
    probabilities = rows["probability"].to_numpy(dtype=np.float64)
    called = probabilities >= rows["threshold"].to_numpy(dtype=np.float64)
    patients = known_ids(rows, "patient_id")
    if patients is None:
        return Cases("image", "image", labels, probabilities, called, None, len(labels))
    codes, names = pd.factorize(patients, sort=True)
    return Cases("image", "patient", labels, probabilities, called, codes.astype(np.int64), len(names))


def _check_decisions(table: pd.DataFrame) -> None:
    given = table["decision"].to_numpy(dtype=str)
    thresholds = table["threshold"].to_numpy(dtype=np.float64)
    malignant = table["probability"].to_numpy(dtype=np.float64) >= thresholds
    wrong = np.flatnonzero((given != np.where(malignant, "malignant", "benign")) & (given != "abstain"))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{len(wrong):,} of {len(given):,} decisions contradict the threshold {thresholds[first]:g}, "
            f"the first is of '{table['path'].iloc[first]}' ('{given[first]}' at probability "
            f"{table['probability'].iloc[first]:g}): give the operating point that the table was made with, or decide "
            "again."
        )


def _choosing(
    table: pd.DataFrame, choices: Choices, settings: EvaluateSettings, resampling: Resampling
) -> tuple[NDArray[np.float64], int] | None:
    """The threshold that each resample of validation would have chosen, and the units there; None without one."""
    rows = table[table["split"].isin(CHOSEN_ON.get(choices.point.chosen_on, ()))]
    if len(rows) == 0:
        return None
    images = images_of(rows)
    rule = point_arguments(settings) if choices.not_attained is None else {"rule": "balanced"}
    thresholds = resampled_thresholds(
        images.labels,
        images.probabilities,
        images.groups,
        resamples=resampling.resamples,
        seed=resampling.seed,
        **rule,
    )
    return thresholds, images.n_units


def _describe_split(
    rows: pd.DataFrame,
    parts: Mapping[int, Choices],
    resampling: Resampling,
    chosen: tuple[NDArray[np.float64], int] | None,
) -> Values:
    images = images_of(rows)
    naive = replace(images, called=metrics.calls(images.probabilities, NAIVE_THRESHOLD))
    return {
        "interval": {"unit": images.unit, "n_units": images.n_units, "note": _note(images)},
        "image": _describe_images(images, resampling, chosen),
        **{name: _describe_level(rows, images, name, parts, resampling) for name in LEVELS},
        "image_at_0.5": _counts(images) | describe_figures(naive, resampling, names=tuple(metrics.THRESHOLD_FIGURES)),
        "classification_report": classification_report(images.labels, images.called),
    }


def _describe_images(images: Cases, resampling: Resampling, chosen: tuple[NDArray[np.float64], int] | None) -> Values:
    slope, intercept = calibration_slope_intercept(images.labels, images.probabilities, images.groups)
    return (
        _counts(images)
        | {"loss": metrics.log_loss(images.labels, images.probabilities)}
        | describe_figures(images, resampling, chosen=chosen)
        | {"calibration_slope": slope.figure(), "calibration_intercept": intercept.figure()}
    )


def _counts(images: Cases) -> Values:
    return {"n_images": len(images.labels), "n_patients": images.n_units if images.unit == "patient" else None}


def _decided_alone(table: pd.DataFrame, parts: Mapping[int, Choices]) -> pd.DataFrame:
    """The table as each patch is decided by itself."""
    thresholds = {fold: (part.alone or part).point.threshold for fold, part in parts.items()}
    names = dict(zip(ALONE_COLUMNS, ("logit", "probability", "decision"), strict=True))
    result = table.drop(columns=list(names.values())).rename(columns=names)
    result["threshold"] = result["fold"].map(thresholds)
    _check_decisions(result)
    return result


def _describe_level(
    rows: pd.DataFrame, images: Cases, name: LevelName, parts: Mapping[int, Choices], resampling: Resampling
) -> Values:
    """Figures of whole slides or patients, or why there are none."""
    ids = level_ids(rows, name)
    if ids is None:
        missing = int((rows[f"{name}_id"].isna() | (rows[f"{name}_id"] == "")).sum())
        return {"not_applicable": f"{name}s are unknown: {missing:,} of {len(rows):,} images have no {name}_id"}
    codes, names = pd.factorize(ids, sort=True)
    share = pool_mean(images.labels.astype(np.float64), codes, len(names))
    mixed = int(((share > 0) & (share < 1)).sum())
    if mixed:
        return {
            "not_applicable": f"{mixed:,} of {len(names):,} {name}s have both benign and malignant images, so a "
            f"{name} has no single label"
        }
    folds = rows["fold"].to_numpy()
    if torn := int((pd.Series(folds).groupby(codes).nunique() > 1).sum()):
        return {
            "not_applicable": f"{torn:,} of {len(names):,} {name}s have images in several folds, so no one network "
            f"decides on a whole {name}"
        }
    if undecided := [level for part in parts.values() if isinstance(level := part.levels.get(name), str)]:
        return {"not_applicable": f"the model has no rule for a {name}: {undecided[0]}"}
    pooled, called = np.full(len(names), np.nan), np.zeros(len(names), dtype=bool)
    for fold, choices in parts.items():
        inside = folds == fold
        level = level_of(choices, name)
        values = level.probability(images.probabilities[inside], codes[inside], len(names))
        here = np.isfinite(values)
        pooled[here], called[here] = values[here], values[here] >= level.threshold
    groups, n_units, unit = None, len(names), name
    if name == "slide" and images.groups is not None:
        unit = "patient"
        groups, n_units = np.zeros(len(names), dtype=np.int64), images.n_units
        groups[codes] = images.groups
    cases = Cases(name, unit, share.astype(np.int64), pooled, called, groups, n_units)
    return {
        "n_images": len(images.labels),
        "n_cases": len(names),
        "n_patients": images.n_units if images.unit == "patient" else None,
        "loss": metrics.log_loss(cases.labels, cases.probabilities),
    } | describe_figures(cases, resampling)


def level_of(choices: Choices, name: LevelName) -> Level:
    """The level's rule; where none was chosen, the mean probability and the threshold of the images."""
    level = choices.levels.get(name)
    return level if isinstance(level, Level) else Level(threshold=choices.point.threshold)


def _note(images: Cases) -> str | None:
    if images.unit == "image":
        return UNKNOWN_PATIENTS
    if images.n_units < FEW_UNITS:
        plural = "" if images.n_units == 1 else "s"
        return f"only {images.n_units} patient{plural}: intervals from fewer than {FEW_UNITS} are not to be trusted"
    return None


def _interval_of_run(splits: Mapping[str, Any], resampling: Resampling) -> Values:
    units = {block["interval"]["unit"] for block in splits.values()}
    notes = [f"{split}: {note}" for split, block in splits.items() if (note := block["interval"]["note"])]
    last = splits[list(splits)[-1]]["image"]
    methods = Counter(last[name]["method"] for name in metrics.FIGURES if "method" in last[name])
    return {
        "level": LEVEL,
        "method": methods.most_common(1)[0][0] if methods else "",
        "unit": "patient" if units == {"patient"} else "image",
        "resamples": resampling.resamples,
        "seed": resampling.seed,
        "note": "; ".join(notes) or None,
    }
