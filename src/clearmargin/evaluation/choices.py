"""Everything that is chosen on validation and then travels with the model, chosen in one place.

A training run, a cross-validation and the calibration of an imported model choose alike: first how logits become
probabilities, then the threshold, then where the decision is withheld, then how slides and patients are decided.
Each choice is made in a module of its own; applying them is in `decision.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.decision import Abstention, Calibration, Level, decide, probability
from clearmargin.errors import NotAttainable
from clearmargin.evaluation.calibration import CalibrationChoice, choose_calibration
from clearmargin.evaluation.conformal import fit_abstention
from clearmargin.evaluation.operating_point import choose_operating_point
from clearmargin.evaluation.pooling import choose_level
from clearmargin.settings import EvaluateSettings
from clearmargin.types import LEVELS, LevelName, OperatingPoint

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

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities (N,) of logits (N,)."""
        return probability(logits, self.calibration)

    def decide(self, probabilities: NDArray[np.floating]) -> NDArray[np.str_]:
        """Decisions (N,): benign, malignant or abstain."""
        between = self.abstention.between if isinstance(self.abstention, Abstention) else None
        return decide(probabilities, self.point.threshold, abstain_between=between)

    def apply(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """The table with the columns probability and decision, from its column logit."""
        probabilities = self.probabilities(predictions["logit"].to_numpy(dtype=np.float64))
        return predictions.assign(probability=probabilities, decision=self.decide(probabilities))

    def remarks(self) -> list[str]:
        """What the user should know of the choices: where they are not what was asked for."""
        remarks = []
        if self.not_attained:
            remarks.append(f"{self.not_attained} The balanced operating point decides instead.")
        if isinstance(self.abstention, str):
            remarks.append(f"The model never answers 'cannot tell': {self.abstention}.")
        return remarks

    def kept_levels(self) -> dict[LevelName, Level]:
        """The levels that apply."""
        return {name: level for name, level in self.levels.items() if isinstance(level, Level)}

    def describe(self) -> dict[str, Any]:
        """`operating_point`, `calibration`, `abstention` and `levels` of metrics.json."""
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
        }


def choose(validation: pd.DataFrame, settings: EvaluateSettings, *, seed: int) -> Choices:
    """All choices, from the validation part of a predictions table.

    Args:
        validation: the columns patient_id, slide_id, label and logit; one row an image.
        settings: the section `evaluate`.
        seed: of the cross-validations behind the choices.

    Raises:
        DataError: one class only, or a logit that is no number.
    """
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
