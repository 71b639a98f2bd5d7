"""From predictions of images to predictions of their slides or patients."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clearmargin.decision import Level, decide
from clearmargin.types import Decision, LevelName, PooledPrediction, Prediction

POOLED_KEYS = ("patient_id", "slide_id", "n_images", "n_refused", "probability", "decision", "reason")


def pool_predictions(predictions: Iterable[Prediction], level: LevelName, *, rule: Level) -> list[PooledPrediction]:
    """One prediction for each slide or patient, in the order in which they first appear.

    Images without an id are things of their own. One without any readable image is refused.
    """
    gathered: dict[object, list[Prediction]] = {}
    for number, prediction in enumerate(predictions):
        record = prediction.record
        name = record.slide_id if level == "slide" else record.patient_id
        # Two patients may have slides of one name.
        key = number if name is None else (record.patient_id, name)
        gathered.setdefault(key, []).append(prediction)
    members = list(gathered.values())
    chances = [[each.probability for each in group if each.probability is not None] for group in members]
    groups = np.repeat(np.arange(len(members)), [len(values) for values in chances])
    values = np.array([value for group in chances for value in group], dtype=np.float64)
    pooled = rule.probability(values, groups, len(members)) if len(values) else np.full(len(members), np.nan)
    return [_pooled(group, float(value), rule.threshold, level) for group, value in zip(members, pooled, strict=True)]


def pooled_row(prediction: PooledPrediction) -> dict[str, str | int | float | None]:
    """The prediction as a flat row, keys as POOLED_KEYS."""
    return {name: getattr(prediction, name) for name in POOLED_KEYS}


def _pooled(group: list[Prediction], value: float, threshold: float, level: LevelName) -> PooledPrediction:
    record = group[0].record
    refused = sum(each.probability is None for each in group)
    ids = (record.patient_id, record.slide_id if level == "slide" else None)
    if refused == len(group):
        return PooledPrediction(*ids, 0, refused, None, "refused", group[0].reason)
    word: Decision = "malignant" if decide(np.array([value]), threshold)[0] == "malignant" else "benign"
    return PooledPrediction(*ids, len(group) - refused, refused, value, word)
