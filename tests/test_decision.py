"""From logit to decision, against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from clearmargin.decision import decide, pool_mean, probability

logits = st.lists(st.floats(-60, 60), min_size=1, max_size=20).map(np.array)


class TestProbability:
    @given(logits=logits, temperature=st.floats(0.05, 20))
    def test_is_the_sigmoid_of_the_scaled_logit(self, logits: np.ndarray, temperature: float) -> None:
        np.testing.assert_allclose(
            probability(logits, temperature), expit(logits / temperature), rtol=1e-12, atol=1e-300
        )

    @given(logits=logits, temperature=st.floats(0.05, 20))
    def test_rises_with_the_logit_and_temperature_does_not_cross_one_half(
        self, logits: np.ndarray, temperature: float
    ) -> None:
        assert (np.diff(probability(np.sort(logits), temperature)) >= 0).all()
        clear = logits[np.abs(logits) > 1e-6]  # nearer to 0 the probability is 0.5 to the last digit
        np.testing.assert_array_equal(probability(clear, temperature) >= 0.5, clear >= 0)

    @given(logits=logits)
    def test_of_the_opposite_is_the_rest(self, logits: np.ndarray) -> None:
        np.testing.assert_allclose(probability(logits) + probability(-logits), 1.0, rtol=1e-12)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
    def test_any_dtype_and_shape_gives_float64_of_that_shape(self, dtype: type[np.generic]) -> None:
        result = probability(np.array([[0, 1], [-2, 3]], dtype=dtype))
        assert (result.dtype, result.shape) == (np.float64, (2, 2))
        np.testing.assert_allclose(result, expit([[0.0, 1], [-2, 3]]))

    def test_extremes_give_0_and_1_without_a_warning(self) -> None:
        extremes = np.array([-np.inf, -1e308, -1e4, -745.0, 0.0, 745.0, 1e4, 1e308, np.inf])
        for temperature in (0.01, 1.0, 100.0):
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                result = probability(extremes, temperature)
            assert ((result >= 0) & (result <= 1)).all()
            assert (np.diff(result) >= 0).all()
            assert result[[0, 4, -1]].tolist() == [0.0, 0.5, 1.0]
        assert probability(np.finfo(np.float32).max * np.array([-1, 1], np.float32), 1e-3).tolist() == [0.0, 1.0]


class TestDecide:
    def test_the_threshold_itself_is_malignant(self) -> None:
        below, at, above = np.nextafter(0.3, 0), 0.3, np.nextafter(0.3, 1)
        assert decide(np.array([below, at, above]), 0.3).tolist() == ["benign", "malignant", "malignant"]

    @pytest.mark.parametrize(("threshold", "words"), [(0.0, {"malignant"}), (1.0, {"benign", "malignant"})])
    def test_thresholds_at_the_ends(self, threshold: float, words: set[str]) -> None:
        assert set(decide(np.array([0.0, 0.5, 1.0]), threshold).tolist()) == words

    @given(
        probabilities=st.lists(st.floats(0, 1), max_size=20).map(np.array),
        threshold=st.floats(0, 1),
        band=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    )
    def test_is_what_one_would_decide_one_by_one(
        self, probabilities: np.ndarray, threshold: float, band: list[float]
    ) -> None:
        expected = [
            "abstain" if band[0] < p < band[1] else "malignant" if p >= threshold else "benign" for p in probabilities
        ]
        assert decide(probabilities, threshold, abstain_between=(band[0], band[1])).tolist() == expected

    def test_the_ends_of_the_band_are_decided(self) -> None:
        decisions = decide(np.array([0.2, 0.3, 0.8]), 0.5, abstain_between=(0.2, 0.8))
        assert decisions.tolist() == ["benign", "abstain", "malignant"]

    def test_what_is_no_number_is_not_called_benign(self) -> None:
        with pytest.raises(ValueError, match="not a number"):
            decide(np.array([0.2, np.nan]), 0.5)


class TestPoolMean:
    @given(st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 5)), max_size=30))
    def test_is_the_mean_of_each_group(self, pairs: list[tuple[float, int]]) -> None:
        values = np.array([value for value, _ in pairs])
        groups = np.array([group for _, group in pairs], dtype=np.intp)
        result = pool_mean(values, groups, 6)
        for group in range(6):
            mine = [value for value, of in pairs if of == group]
            if mine:
                np.testing.assert_allclose(result[group], np.mean(mine), atol=1e-12)
            else:
                assert np.isnan(result[group])

    def test_float32_is_summed_exactly(self) -> None:
        values = np.full(1_000_001, 0.1, np.float32)
        result = pool_mean(values, np.zeros(len(values), dtype=np.intp), 1)
        np.testing.assert_allclose(result, np.float64(np.float32(0.1)), rtol=1e-12)
