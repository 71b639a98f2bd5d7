"""From predictions of images to predictions of their slides or patients."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clearmargin.decision import Level, decide
from clearmargin.types import NOT_GATED, Decision, LevelName, PooledPrediction, Prediction

POOLED_KEYS = ("patient_id", "slide_id", "n_images", "n_refused", "probability", "decision", "reason")


def pool_predictions(
    predictions: Iterable[Prediction], level: LevelName, *, rule: Level, rule_in_context: Level | None = None
) -> list[PooledPrediction]:
    """One prediction for each slide or patient, in the order in which they first appear.

    Images without an id are things of their own. One without any readable image is refused.

    Args:
        predictions: of the images.
        level: `slide` or `patient`.
        rule: of images that were decided each by itself.
        rule_in_context: of slides and patients all of whose images were decided in context.
    """
    gathered: dict[object, list[Prediction]] = {}
    for number, prediction in enumerate(predictions):
        record = prediction.record
        name = record.slide_id if level == "slide" else record.patient_id
        # Two patients may have slides of one name.
        key = number if name is None else (record.patient_id, name)
        gathered.setdefault(key, []).append(prediction)
    return [_pooled(group, _rule_of(group, rule, rule_in_context), level) for group in gathered.values()]


def pooled_row(prediction: PooledPrediction) -> dict[str, str | int | float | None]:
    """The prediction as a flat row, keys as POOLED_KEYS."""
    return {name: getattr(prediction, name) for name in POOLED_KEYS}


def _rule_of(group: list[Prediction], rule: Level, rule_in_context: Level | None) -> Level:
    answered = [each for each in group if each.probability is not None]
    return rule_in_context if rule_in_context and answered and all(each.in_context for each in answered) else rule


def _pooled(group: list[Prediction], rule: Level, level: LevelName) -> PooledPrediction:
    record = group[0].record
    chances = np.array([each.probability for each in group if each.probability is not None], dtype=np.float64)
    refused = len(group) - len(chances)
    ids = (record.patient_id, record.slide_id if level == "slide" else None)
    if len(chances) == 0:
        return PooledPrediction(*ids, 0, refused, None, "refused", group[0].reason)
    value = rule.probability(chances, np.zeros(len(chances), dtype=np.int64), 1)
    word: Decision = "malignant" if decide(value, rule.threshold)[0] == "malignant" else "benign"
    stamped = any(NOT_GATED in (each.reason or "") for each in group if each.probability is not None)
    return PooledPrediction(*ids, len(chances), refused, float(value[0]), word, NOT_GATED if stamped else None)
