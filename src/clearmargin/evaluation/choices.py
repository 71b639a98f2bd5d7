"""Everything that is chosen on validation and then travels with the model, chosen in one place.

A training run, a cross-validation and the calibration of an imported model choose alike: first how logits become
probabilities, then the threshold, then where the decision is withheld, then how slides and patients are decided.
Where the neighbours of a patch count too, all of that is chosen twice: patch by patch, and in context. Each choice is
made in a module of its own; applying them is in `decision.py` and `context.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.context import Grid
from clearmargin.decision import Abstention, Calibration, Level, decide, probability
from clearmargin.errors import NotAttainable
from clearmargin.evaluation.calibration import CalibrationChoice, choose_calibration
from clearmargin.evaluation.conformal import fit_abstention
from clearmargin.evaluation.context import Surroundings, choose_context, find_cells
from clearmargin.evaluation.operating_point import choose_operating_point
from clearmargin.evaluation.pooling import choose_level
from clearmargin.settings import EvaluateSettings
from clearmargin.types import ALONE_COLUMNS, FIELD_COLUMN, LEVELS, LevelName, OperatingPoint, Split

VALIDATION, OUT_OF_FOLD = "validation", "train and validation, out of fold"
CHOSEN_ON: dict[str, tuple[Split, ...]] = {VALIDATION: ("validation",), OUT_OF_FOLD: ("train", "validation")}
"""By the name that an operating point bears: the splits that decisions were chosen on."""
NO_CONTEXT = "no image's place on its slide is known"
ALWAYS_DECIDES = "evaluate.coverage is 0: the model always decides"


@dataclass(frozen=True, slots=True)
class Choices:
    """What decides. A text in the place of a value says why there is none."""

    calibration: Calibration
    point: OperatingPoint
    abstention: Abstention | str
    levels: Mapping[LevelName, Level | str] = field(default_factory=dict)
    how: CalibrationChoice | None = None
    """How the calibration was chosen; None where it came with a bundle."""
    not_attained: str | None = None
    """Why the operating point that was asked for could not be had; `point` is then the balanced one."""
    context: Grid | str = NO_CONTEXT
    """How neighbours count; all else here is then of the logit in context."""
    alone: Choices | None = None
    """What decides of a patch by itself, where there is a context."""

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities (N,) of logits (N,)."""
        return probability(logits, self.calibration)

    def decide(self, probabilities: NDArray[np.floating]) -> NDArray[np.str_]:
        """Decisions (N,): benign, malignant or abstain."""
        between = self.abstention.between if isinstance(self.abstention, Abstention) else None
        return decide(probabilities, self.point.threshold, abstain_between=between)

    def apply(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """The table with the columns probability and decision, from its column logit.

        In context, `logit` becomes that in context, and what the patch says by itself is in the columns of
        `types.ALONE_COLUMNS`. A table in which some image has no place on the lattice is decided patch by patch.
        """
        cells = find_cells(predictions, self.context.step) if isinstance(self.context, Grid) else None
        if self.alone is not None and cells is None:
            return self.alone.apply(predictions)
        if isinstance(self.context, Grid) and self.alone is not None and cells is not None:
            alone = self.alone.apply(predictions)
            named = {f"{name}_alone": alone[name] for name in ("logit", "probability", "decision")}
            logits = self.context.apply(network_logits(predictions, self.context.networks), cells)
            predictions = predictions.assign(**named, logit=logits)
        probabilities = self.probabilities(predictions["logit"].to_numpy(dtype=np.float64))
        return predictions.assign(probability=probabilities, decision=self.decide(probabilities))

    def applied_to(self, predictions: pd.DataFrame) -> Choices:
        """The choices that decided a table of `apply`: these, or those of a patch by itself."""
        return self if self.alone is None or ALONE_COLUMNS[0] in predictions else self.alone

    def on(self, name: str) -> Choices:
        """The same choices, said to be chosen on the images of that name."""
        alone = self.alone.on(name) if self.alone is not None else None
        return replace(self, point=replace(self.point, chosen_on=name), alone=alone)

    def remarks(self) -> list[str]:
        """What the user should know of the choices: where they are not what was asked for."""
        remarks = []
        if self.not_attained:
            remarks.append(f"{self.not_attained} The balanced operating point decides instead.")
        if isinstance(self.abstention, str):
            remarks.append(f"The model never answers 'cannot tell': {self.abstention}.")
        if isinstance(self.context, str) and self.context != NO_CONTEXT:
            remarks.append(f"Each image is decided by itself: {self.context}.")
        return remarks

    def kept_levels(self) -> dict[LevelName, Level]:
        """The levels that apply."""
        return {name: level for name, level in self.levels.items() if isinstance(level, Level)}

    def describe(self) -> dict[str, Any]:
        """`operating_point`, `calibration`, `abstention`, `levels` and perhaps `context` of metrics.json."""
        point = self.point
        requested = {"not_attained": self.not_attained} if self.not_attained else {}
        how: dict[str, Any] = {}
        if self.how is not None:
            candidates = [
                {"method": method, "brier": brier} | ({"reason": reason} if reason else {})
                for method, brier, reason in self.how.candidates
            ]
            how = {"reason": self.how.reason, "candidates": candidates}
        return {
            "operating_point": {
                "name": point.name,
                "rule": point.rule,
                "threshold": float(point.threshold),
                "chosen_on": point.chosen_on,
                "achieved": {name: float(value) for name, value in point.achieved.items()},
                **requested,
            },
            "calibration": {**self.calibration.model_dump(mode="json"), **how},
            "abstention": self.abstention.model_dump(mode="json")
            if isinstance(self.abstention, Abstention)
            else {"not_attainable": self.abstention},
            "levels": {name: level.model_dump(mode="json") for name, level in self.kept_levels().items()},
            **self._describe_context(),
        }

    def _describe_context(self) -> dict[str, Any]:
        if isinstance(self.context, Grid) and self.alone is not None:
            alone = {name: value for name, value in self.alone.describe().items() if name != "context"}
            return {"context": {"kind": "grid", **self.context.model_dump(mode="json"), "alone": alone}}
        return {} if self.context == NO_CONTEXT else {"context": {"not_applicable": self.context}}


def choose(
    validation: pd.DataFrame,
    settings: EvaluateSettings,
    *,
    seed: int,
    surroundings: Surroundings | str = NO_CONTEXT,
) -> Choices:
    """All choices, from the validation part of a predictions table.

    Args:
        validation: the columns patient_id, slide_id, label and logit, for a context x, y and, where a network sees
            the field, `logit_field`; one row an image.
        settings: the section `evaluate`.
        seed: of the cross-validations behind the choices.
        surroundings: what a context can be made of, or why there is none.

    Raises:
        DataError: one class only, or a logit that is no number.
    """
    alone = _choose(validation, settings, seed=seed)
    if isinstance(surroundings, str):
        return replace(alone, context=surroundings)
    cells, patients = find_cells(validation, surroundings.step), known_ids(validation, "patient_id")
    if cells is None or patients is None:
        return replace(alone, context=NO_CONTEXT)
    labels = validation["label"].to_numpy(dtype=np.int64)
    logits = network_logits(validation, 1 if surroundings.field is None else 2)
    found = choose_context(labels, logits, cells, patients, step=surroundings.step)
    if isinstance(found, str):
        return replace(alone, context=found)
    inside = _choose(validation.assign(logit=found.logits), settings, seed=seed)
    return replace(inside, context=found.grid, alone=alone)


def network_logits(predictions: pd.DataFrame, networks: int) -> list[NDArray[np.float64]]:
    """The logits of each network: of the patch, and where there are two, of its field."""
    return [predictions[name].to_numpy(dtype=np.float64) for name in ("logit", FIELD_COLUMN)[:networks]]


def _choose(validation: pd.DataFrame, settings: EvaluateSettings, *, seed: int) -> Choices:
    labels = validation["label"].to_numpy(dtype=np.int64)
    logits = validation["logit"].to_numpy(dtype=np.float64)
    patients = known_ids(validation, "patient_id")
    how = choose_calibration(labels, logits, patients, method=settings.calibration, seed=seed)
    probabilities = probability(logits, how.calibration)
    point, not_attained = _choose_point(labels, probabilities, settings)
    abstention: Abstention | str = ALWAYS_DECIDES
    if settings.coverage > 0:
        abstention = fit_abstention(
            labels,
            logits,
            patients,
            coverage=settings.coverage,
            calibration=how.calibration,
            threshold=point.threshold,
        )
    levels: dict[LevelName, Level | str] = {}
    for name in LEVELS:
        ids = level_ids(validation, name)
        levels[name] = f"{name}s are unknown"
        if ids is not None:
            levels[name] = choose_level(
                labels,
                probabilities,
                ids,
                patients,
                level=name,
                pooling=settings.pooling,
                image_threshold=point.threshold,
                seed=seed,
            )
    return Choices(how.calibration, point, abstention, levels, how, not_attained)


def point_arguments(settings: EvaluateSettings) -> dict[str, Any]:
    """The settings that say how a threshold is chosen, as keyword arguments."""
    return {
        "rule": settings.operating_point,
        "target_sensitivity": settings.target_sensitivity,
        "target_specificity": settings.target_specificity,
        "cost_ratio": settings.cost_ratio,
        "threshold_probability": settings.threshold_probability,
    }


def known_ids(frame: pd.DataFrame, column: str) -> NDArray[np.object_] | None:
    """The ids (N,) of the column, or None where one is missing."""
    values = frame[column]
    if bool((values.isna() | (values == "")).any()):
        return None
    return values.to_numpy(dtype=object)


def level_ids(frame: pd.DataFrame, level: LevelName) -> NDArray[np.object_] | None:
    """The ids (N,) of slides or patients, or None where one is missing; slides of two patients are never one."""
    ids = known_ids(frame, f"{level}_id")
    if level == "patient" or ids is None:
        return ids
    patients = known_ids(frame, "patient_id")
    return (
        ids if patients is None else np.array([f"{a}\0{b}" for a, b in zip(patients, ids, strict=True)], dtype=object)
    )


def _choose_point(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], settings: EvaluateSettings
) -> tuple[OperatingPoint, str | None]:
    try:
        return choose_operating_point(labels, probabilities, **point_arguments(settings)), None
    except NotAttainable as error:
        return choose_operating_point(labels, probabilities, rule="balanced"), str(error)
