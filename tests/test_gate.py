"""The values of the gate: what they refuse to hold, and that they survive the way to disk."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from clearmargin.gate import MOST_FEATURES, Gate, Look, Matrix, Tail, fold_features, weighted_quantiles


def test_a_matrix_keeps_its_numbers() -> None:
    table = np.array([[1.5, -2.25], [0.0, 1e-7]])
    kept = Matrix.of(table)
    np.testing.assert_allclose(Matrix.model_validate_json(kept.model_dump_json()).values, table, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base64": "!!!!"}, "not base64"),
        ({"rows": 3}, "numbers that it promises"),
        ({"base64": "AADAfwAAwH8="}, "numbers that it promises"),  # two NaNs
    ],
)
def test_a_matrix_that_is_none_is_refused(changes: dict[str, object], words: str) -> None:
    good = Matrix.of([[1.0, 2.0]]).model_dump()
    with pytest.raises(ValidationError, match=words):
        Matrix.model_validate(good | changes)


def test_a_tail_must_rise() -> None:
    with pytest.raises(ValidationError, match="must rise"):
        Tail(low=1.0, middle=1.0, high=2.0)


def test_a_look_needs_a_matrix_of_its_size() -> None:
    evidence = {"chosen_on": "x", "unit": "patient", "n_units": 3, "n_images": 9, "share": 0.0}
    with pytest.raises(ValidationError, match="a row and a column for each"):
        Look.model_validate(
            {
                "statistics": {"brightness": {"low": 0, "middle": 1, "high": 2}},
                "joint": Matrix.of([[1.0, 2.0]]).model_dump(),
                "joint_edge": 1.0,
                "threshold": 1.0,
                "evidence": evidence,
            }
        )


def test_distances_are_in_units_of_the_tail_on_that_side() -> None:
    evidence = {"chosen_on": "x", "unit": "patient", "n_units": 3, "n_images": 9, "share": 0.0}
    look = Look.model_validate(
        {
            "statistics": {"brightness": {"low": 0.4, "middle": 0.5, "high": 0.9}},
            "joint": Matrix.of([[10.0]]).model_dump(),
            "joint_edge": 2.0,
            "threshold": 1.0,
            "evidence": evidence,
        }
    )
    distances = look.distances(np.array([[0.3], [0.5], [0.7]]))
    np.testing.assert_allclose(distances, [[-2, 1], [0, 0], [0.5, 1]], atol=1e-6)


def test_many_features_are_added_up_and_those_of_each_network_stay_apart() -> None:
    features = np.arange(2 * 2 * 600, dtype=np.float32).reshape(2, 1200)
    first, second = fold_features(features, 2)
    assert first.shape == second.shape == (2, MOST_FEATURES)
    assert first[0, 0] == 0 + 256 + 512
    assert first[0, 200] == 200 + 456
    assert second[0, 0] == 600 + 856 + 1112
    assert [part.shape for part in fold_features(features[:, :200], 2)] == [(2, 100)] * 2


def test_weighted_quantiles_are_those_of_repeated_values() -> None:
    values, times = np.array([5.0, 1.0, 3.0]), np.array([1, 2, 7])
    for level in (0.1, 0.2, 0.5, 0.9, 0.91, 1.0):
        expected = np.quantile(np.repeat(values, times), level, method="inverted_cdf")
        assert weighted_quantiles(values, times.astype(float), [level])[0] == expected


def test_a_gate_may_know_nothing_but_sizes() -> None:
    gate = Gate.model_validate(
        {
            "sizes": {"smallest": (4, 4), "largest": (5, 5), "factor": 2.0},
            "grey": None,
            "blank": False,
            "no_look": "2 patients are too few",
            "chosen_on": "train",
        }
    )
    assert gate.look is None
    assert Gate.model_validate_json(gate.model_dump_json()) == gate
