"""Synthetic predictions whose patients differ, as real ones do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from clearmargin.decision import decide, probability
from clearmargin.types import OperatingPoint


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
