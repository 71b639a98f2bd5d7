"""Synthetic predictions whose patients differ, as real ones do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from clearmargin.decision import UNCALIBRATED, Abstention, Calibration, Level, decide, probability
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.choices import Choices
from clearmargin.settings import EvaluateSettings
from clearmargin.types import LevelName, OperatingPoint

PROTOCOL = {"split": "patient", "seed": 0, "patients": {"train": 30, "validation": 5, "test": 25}}


@dataclass(frozen=True)
class Clustered:
    labels: NDArray[np.int64]
    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    patients: NDArray[np.int64]


def draw_clustered(
    seed: int, *, n_patients: int = 50, images_each: int = 20, spread: float = 1.0, steps: int | None = None
) -> Clustered:
    """Images of patients with their own share of malignant images and their own shift of the logit.

    `steps` rounds the probabilities to that many levels, which makes ties.
    """
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), images_each)
    labels = (rng.random(len(patients)) < rng.beta(1.5, 3.0, size=n_patients)[patients]).astype(np.int64)
    logits = 2.0 * labels - 1.0 + spread * rng.normal(size=n_patients)[patients] + rng.normal(size=len(patients))
    probabilities = probability(logits)
    if steps is not None:
        probabilities = np.round(probabilities * steps) / steps
    return Clustered(labels, logits, probabilities, patients)


@pytest.fixture(scope="session")
def clustered() -> Callable[..., Clustered]:
    return draw_clustered


def build_frame(data: Clustered, *, threshold: float = 0.5, split: str = "test") -> pd.DataFrame:
    n_images = len(data.labels)
    return pd.DataFrame(
        {
            "path": [f"{split}/{number:05d}.png" for number in range(n_images)],
            "patient_id": [f"{patient:04d}" for patient in data.patients],
            "slide_id": [None] * n_images,
            "x": pd.array([50 * number for number in range(n_images)], dtype="Int64"),
            "y": pd.array([None] * n_images, dtype="Int64"),
            "split": split,
            "label": data.labels,
            "logit": data.logits,
            "probability": data.probabilities,
            "decision": decide(data.probabilities, threshold),
        }
    )


@pytest.fixture
def frame_of() -> Callable[..., pd.DataFrame]:
    return build_frame


@pytest.fixture
def point() -> OperatingPoint:
    return OperatingPoint("balanced", "chosen for a test", 0.5, achieved={"sensitivity": 0.9, "specificity": 0.8})


def build_choices(
    threshold: float = 0.5,
    *,
    calibration: Calibration = UNCALIBRATED,
    abstention: Abstention | str = "evaluate.coverage is 0: the model always decides",
    levels: Mapping[LevelName, Level | str] | None = None,
    not_attained: str | None = None,
) -> Choices:
    chosen = OperatingPoint("balanced", "chosen for a test", threshold, achieved={"sensitivity": 0.9})
    return Choices(calibration, chosen, abstention, levels or {}, None, not_attained)


@pytest.fixture(scope="session")
def choices_at() -> Callable[..., Choices]:
    """`choices_at(0.5)` decides at one half, without calibration, abstention or levels of its own."""
    return build_choices


def evaluate_frame(frame: pd.DataFrame, choices: Choices | None = None, **changes: Any) -> dict[str, Any]:
    """metrics.json of the table; the keywords are settings of the section `evaluate`, or the function's own."""
    names = ("protocol", "seed", "columns", "by_fold", "listener")
    options: dict[str, Any] = {"protocol": PROTOCOL, "seed": 0} | {
        name: changes.pop(name) for name in names if name in changes
    }
    settings = EvaluateSettings(**({"resamples": 100} | changes))
    return evaluate_predictions(frame, choices or build_choices(), settings=settings, **options)


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., dict[str, Any]]:
    return evaluate_frame


@pytest.fixture(scope="session")
def one_class_patients() -> pd.DataFrame:
    """Twenty-four patients of three images each, every one benign or malignant as a whole."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(24) % 2, 3)
    probabilities = np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0.01, 0.99)
    return pd.DataFrame(
        {
            "path": [f"{number:03d}.png" for number in range(72)],
            "patient_id": [f"P{number // 3:02d}" for number in range(72)],
            "slide_id": None,
            "x": None,
            "y": None,
            "split": "test",
            "label": labels,
            "logit": np.log(probabilities / (1 - probabilities)),
            "probability": probabilities,
            "decision": decide(probabilities, 0.5),
        }
    )
