"""Folds are not independent, and their interval knows it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from clearmargin.evaluation.folds import across_folds, spread


class TestAcrossFolds:
    def test_the_interval_is_the_corrected_resampled_t(self) -> None:
        values = np.array([0.80, 0.84, 0.86, 0.79, 0.90])
        result = across_folds(values, test_share=0.2)
        # Worked by hand: the variance s^2 (1/5 + 1/4) stands in for s^2 / 5.
        error = values.std(ddof=1) * math.sqrt(1 / 5 + 1 / 4)
        low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=error)
        assert result["ci"] == pytest.approx([low, high])
        assert (result["mean"], result["sd"], result["n"]) == pytest.approx((values.mean(), values.std(ddof=1), 5))
        assert "note" not in result

    def test_repeats_cannot_shrink_the_interval_to_nothing(self) -> None:
        once = [0.80, 0.84, 0.86, 0.79, 0.90]
        low, high = across_folds(once * 400, test_share=0.2)["ci"]
        assert (high - low) / 2 > 1.96 * np.std(once) * math.sqrt(1 / 4)

    def test_undefined_folds_are_left_out_and_said(self) -> None:
        with_nan = across_folds([0.8, math.nan, 0.9, math.nan], test_share=0.25)
        assert with_nan["note"] == "undefined in 2 of 4 folds, which are left out"
        without = across_folds([0.8, 0.9], test_share=0.25)
        assert {name: with_nan[name] for name in without} == without

    def test_the_interval_stays_where_the_figure_can_be(self) -> None:
        values = [1.0, 0.99, 0.9]
        assert across_folds(values, test_share=0.33)["ci"][1] == 1.0
        assert across_folds(values, test_share=0.33, bounds=None)["ci"][1] > 1.0

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ([0.8, math.nan], "defined in 1 of 2 folds; an interval needs two"),
            ([math.nan, math.nan], "defined in 0 of 2 folds; an interval needs two"),
            ([0.1, 0.1, 0.1], "the folds agree, and an interval without width would look like certainty"),
        ],
    )
    def test_where_there_is_no_interval_a_reason_stands(self, values: list[float], reason: str) -> None:
        result = across_folds(values, test_share=0.2)
        assert result["ci"] is None
        assert result["reason"] == reason

    @pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
    def test_a_share_that_is_none_is_refused(self, share: float) -> None:
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            across_folds([0.8, 0.9], test_share=share)


def test_folds_that_share_training_images_need_the_wider_interval() -> None:
    """Folds correlated as Nadeau and Bengio assume, by the share tested on: 95 % is held, by s / sqrt(n) less."""
    rng = np.random.default_rng(0)
    n_folds, studies, test_share = 10, 2000, 0.1
    common = rng.normal(size=(studies, 1)) * math.sqrt(test_share)
    figures = common + rng.normal(size=(studies, n_folds)) * math.sqrt(1 - test_share)
    held, naive = 0, 0
    for values in figures:
        low, high = across_folds(values, test_share=test_share, bounds=None)["ci"]
        held += low <= 0 <= high
        half = stats.t.ppf(0.975, n_folds - 1) * values.std(ddof=1) / math.sqrt(n_folds)
        naive += abs(values.mean()) <= half
    assert 0.93 <= held / studies <= 0.97
    assert naive / studies < 0.87


def test_spread_over_seeds_is_a_description_without_an_interval() -> None:
    result = spread([0.8, math.nan, 0.9])
    assert result["values"] == [0.8, None, 0.9]
    assert result["sd"] == pytest.approx(np.std([0.8, 0.9], ddof=1))
    assert (result["min"], result["max"]) == (0.8, 0.9)
    assert "ci" not in result
    assert spread([math.nan]) == {"values": [None], "mean": None, "sd": None, "min": None, "max": None}
