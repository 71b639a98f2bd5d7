"""Slides and patients are decided by the one rule of `decision.Level`, on the images that could be read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearmargin.decision import Isotonic, Level, Platt, Pooling, decide
from clearmargin.predict.pooled import POOLED_KEYS, pool_predictions, pooled_row
from clearmargin.types import Decision, LevelName, PooledPrediction, Prediction, Record

RULES = [
    Level(threshold=0.4),
    Level(threshold=0.5, calibration=Platt(slope=1.3, intercept=-0.4)),
    Level(
        threshold=0.6, pooling=Pooling(method="noisy_or"), calibration=Isotonic(logits=(-1, 2), probabilities=(0, 1))
    ),
    Level(threshold=0.45, pooling=Pooling(method="top_k", k=2)),
    Level(
        threshold=0.55,
        pooling=Pooling(method="learned", intercept=0.1, mean_weight=0.6, top_weight=0.5),
        calibration=Platt(slope=0.8, intercept=0.1),
    ),
]


def seen(
    patient: str | None, slide: str | None, probability: float | None, *, reason: str = "no such file"
) -> Prediction:
    record = Record("a.png", patient_id=patient, slide_id=slide)
    if probability is None:
        return Prediction(record, None, None, "refused", reason)
    word: Decision = "malignant" if probability >= 0.5 else "benign"
    return Prediction(record, 0.0, probability, word)


PREDICTIONS = st.lists(
    st.builds(
        seen,
        st.sampled_from(["P1", "P2", "P3"]),
        st.sampled_from(["S1", "S2"]),
        st.none() | st.floats(0.0, 1.0),
    ),
    max_size=25,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.pooling.method)
@given(predictions=PREDICTIONS, level=st.sampled_from(["slide", "patient"]))
def test_pooled_predictions_are_those_of_the_level_on_the_same_numbers(
    rule: Level, predictions: list[Prediction], level: LevelName
) -> None:
    pooled = pool_predictions(iter(predictions), level, rule=rule)
    names: dict[tuple[str | None, str | None], list[Prediction]] = {}
    for each in predictions:
        name = (each.record.patient_id, each.record.slide_id if level == "slide" else None)
        names.setdefault(name, []).append(each)
    assert [(one.patient_id, one.slide_id) for one in pooled] == list(names)
    for one, members in zip(pooled, names.values(), strict=True):
        values = np.array([each.probability for each in members if each.probability is not None])
        assert (one.n_images, one.n_refused) == (len(values), len(members) - len(values))
        if len(values) == 0:
            assert (one.probability, one.decision, one.reason) == (None, "refused", "no such file")
            continue
        expected = rule.probability(values, np.zeros(len(values), dtype=np.int64), 1)
        assert one.probability == pytest.approx(float(expected[0]), abs=1e-12)
        assert one.decision == decide(np.array([one.probability]), rule.threshold)[0]
        assert one.reason is None


def test_by_hand() -> None:
    predictions = [
        seen("P2", "S1", 0.9),
        seen("P1", "S1", 0.1),
        seen("P2", "S2", 0.2),
        seen("P2", "S1", None),
        seen("P1", "S1", 0.5),
    ]
    rule = Level(threshold=0.5)
    assert pool_predictions(predictions, "patient", rule=rule) == [
        PooledPrediction("P2", None, 2, 1, pytest.approx(0.55), "malignant"),
        PooledPrediction("P1", None, 2, 0, pytest.approx(0.3), "benign"),
    ]
    assert pool_predictions(predictions, "slide", rule=rule) == [
        PooledPrediction("P2", "S1", 1, 1, 0.9, "malignant"),
        PooledPrediction("P1", "S1", 2, 0, pytest.approx(0.3), "benign"),
        PooledPrediction("P2", "S2", 1, 0, 0.2, "benign"),
    ]


@pytest.mark.parametrize("level", ["slide", "patient"])
def test_images_that_say_nothing_of_what_they_belong_to_are_things_of_their_own(level: LevelName) -> None:
    predictions = [seen(None, None, value) for value in (0.9, 0.1, None)] + [seen("P1", "S1", 0.7)]
    pooled = pool_predictions(predictions, level, rule=Level(threshold=0.5))
    assert [one.decision for one in pooled] == ["malignant", "benign", "refused", "malignant"]
    assert [one.n_images for one in pooled] == [1, 1, 0, 1]
    assert [one.probability for one in pooled[:3]] == [0.9, 0.1, None]


def test_slides_of_one_name_and_of_unknown_patients_are_one() -> None:
    predictions = [seen(None, "S1", 0.9), seen("P1", "S1", 0.1), seen(None, "S1", 0.5)]
    pooled = pool_predictions(predictions, "slide", rule=Level(threshold=0.5))
    assert [(one.patient_id, one.slide_id, one.n_images) for one in pooled] == [(None, "S1", 2), ("P1", "S1", 1)]


def test_a_probability_at_the_threshold_is_malignant() -> None:
    (at,) = pool_predictions([seen("P1", None, 0.25)], "patient", rule=Level(threshold=0.25))
    (below,) = pool_predictions([seen("P1", None, np.nextafter(0.25, 0))], "patient", rule=Level(threshold=0.25))
    assert (at.decision, below.decision) == ("malignant", "benign")


def test_withheld_images_count_by_their_probability() -> None:
    record = Record("a.png", patient_id="P1")
    withheld = Prediction(record, 0.1, 0.52, "abstain", "too uncertain")
    (one,) = pool_predictions([withheld, seen("P1", None, 0.9)], "patient", rule=Level(threshold=0.5))
    assert (one.n_images, one.probability, one.decision) == (2, pytest.approx(0.71), "malignant")


def test_of_no_predictions_there_is_nothing_and_of_refused_ones_the_first_reason() -> None:
    assert pool_predictions([], "patient", rule=RULES[0]) == []
    predictions = [seen("P1", None, None, reason="the file is empty"), seen("P1", None, None)]
    (one,) = pool_predictions(predictions, "patient", rule=RULES[0])
    assert one == PooledPrediction("P1", None, 0, 2, None, "refused", "the file is empty")


def test_a_row_has_every_key_and_plain_values() -> None:
    (one,) = pool_predictions([seen("P1", "S1", 0.75)], "slide", rule=Level(threshold=0.5))
    row = pooled_row(one)
    assert tuple(row) == POOLED_KEYS
    assert list(row.values()) == ["P1", "S1", 1, 0, 0.75, "malignant", None]
    assert type(row["probability"]) is float
    assert type(row["decision"]) is str
