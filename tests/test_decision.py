"""From logit to decision, against SciPy, naive loops and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.special import expit

from clearmargin.decision import (
    MEAN,
    UNCALIBRATED,
    Abstention,
    Beta,
    Calibration,
    Isotonic,
    Level,
    Platt,
    Pooling,
    Temperature,
    decide,
    logit,
    pool,
    pool_mean,
    pool_top_tenth,
    probability,
    sigmoid,
)

logits = st.lists(st.floats(-60, 60), min_size=1, max_size=20).map(np.array)
shares = st.floats(0, 1)
weights = st.floats(0, 50)
finite = st.floats(-50, 50)


def rising_knots(knots: dict[float, float]) -> Isotonic:
    return Isotonic(logits=tuple(sorted(knots)), probabilities=tuple(sorted(knots.values())))


CALIBRATIONS: st.SearchStrategy[Calibration] = st.one_of(
    st.builds(Temperature, temperature=st.floats(0.01, 100)),
    st.builds(Platt, slope=st.floats(1e-3, 50), intercept=finite),
    st.builds(Beta, a=weights, b=weights.filter(bool), c=finite),
    st.dictionaries(st.floats(-50, 50), shares, min_size=1, max_size=8).map(rising_knots),
)


class TestProbability:
    @given(logits=logits, temperature=st.floats(0.05, 20))
    def test_is_the_sigmoid_of_the_scaled_logit(self, logits: np.ndarray, temperature: float) -> None:
        result = probability(logits, Temperature(temperature=temperature))
        np.testing.assert_allclose(result, expit(logits / temperature), rtol=1e-12, atol=1e-300)

    @given(logits=logits, slope=st.floats(1e-3, 20), intercept=finite)
    def test_of_platt_is_the_sigmoid_of_the_line(self, logits: np.ndarray, slope: float, intercept: float) -> None:
        result = probability(logits, Platt(slope=slope, intercept=intercept))
        np.testing.assert_allclose(result, expit(slope * logits + intercept), rtol=1e-12, atol=1e-300)

    @given(logits=logits, a=st.floats(0, 5), b=st.floats(1e-3, 5), c=st.floats(-5, 5))
    def test_of_beta_is_the_formula_of_its_source(self, logits: np.ndarray, a: float, b: float, c: float) -> None:
        near = np.clip(logits, -15, 15)  # where 1 - p still has digits
        p = expit(near)
        odds = p**a / (1 - p) ** b * np.exp(c)
        np.testing.assert_allclose(probability(near, Beta(a=a, b=b, c=c)), odds / (1 + odds), rtol=1e-6)

    @given(logits=logits)
    def test_of_beta_with_equal_weights_is_platts(self, logits: np.ndarray) -> None:
        np.testing.assert_allclose(
            probability(logits, Beta(a=1.7, b=1.7, c=-0.4)),
            probability(logits, Platt(slope=1.7, intercept=-0.4)),
            rtol=1e-9,
        )

    def test_of_isotonic_is_linear_between_knots_and_flat_beyond(self) -> None:
        knots = Isotonic(logits=(-1.0, 1.0, 2.0), probabilities=(0.1, 0.5, 0.5))
        np.testing.assert_allclose(
            probability(np.array([-np.inf, -9.0, -1.0, 0.0, 1.5, 2.0, np.inf]), knots),
            [0.1, 0.1, 0.1, 0.3, 0.5, 0.5, 0.5],
        )

    @given(logits=logits, calibration=CALIBRATIONS)
    def test_never_falls_as_the_logit_rises(self, logits: np.ndarray, calibration: Calibration) -> None:
        values = probability(np.sort(logits), calibration)
        assert ((values >= 0) & (values <= 1)).all()
        # The terms of a beta map are rounded each on its own.
        assert (np.diff(values) >= -1e-12).all()

    @given(logits=logits, temperature=st.floats(0.05, 20))
    def test_temperature_does_not_cross_one_half(self, logits: np.ndarray, temperature: float) -> None:
        clear = logits[np.abs(logits) > 1e-6]  # nearer to 0 the probability is 0.5 to the last digit
        values = probability(clear, Temperature(temperature=temperature))
        np.testing.assert_array_equal(values >= 0.5, clear >= 0)

    @given(logits=logits)
    def test_of_the_opposite_is_the_rest(self, logits: np.ndarray) -> None:
        np.testing.assert_allclose(probability(logits) + probability(-logits), 1.0, rtol=1e-12)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
    def test_any_dtype_and_shape_gives_float64_of_that_shape(self, dtype: type[np.generic]) -> None:
        result = probability(np.array([[0, 1], [-2, 3]], dtype=dtype))
        assert (result.dtype, result.shape) == (np.float64, (2, 2))
        np.testing.assert_allclose(result, expit([[0.0, 1], [-2, 3]]))

    @pytest.mark.parametrize(
        "calibration",
        [
            Temperature(temperature=0.01),
            Temperature(),
            Temperature(temperature=100.0),
            Platt(slope=1e-3, intercept=0.0),
            Platt(slope=100.0, intercept=0.0),
            Beta(a=0.5, b=0.5, c=0.0),
            Beta(a=100.0, b=100.0, c=0.0),
        ],
    )
    def test_extremes_give_0_and_1_without_a_warning(self, calibration: Calibration) -> None:
        extremes = np.array([-np.inf, -1e300, -1e7, 0.0, 1e7, 1e300, np.inf])
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            result = probability(extremes, calibration)
        assert (np.diff(result) >= 0).all()
        np.testing.assert_allclose(result, [0, 0, 0, 0.5, 1, 1, 1], atol=1e-12)

    @pytest.mark.parametrize("calibration", [Temperature(temperature=1e-3), Platt(slope=1e3, intercept=0.0)])
    def test_the_largest_float_does_not_overflow(self, calibration: Calibration) -> None:
        largest = np.finfo(np.float64).max * np.array([-1, 1])
        assert probability(largest, calibration).tolist() == [0.0, 1.0]


class TestLogit:
    @given(st.lists(st.floats(1e-9, 1 - 1e-9), min_size=1).map(np.array))
    def test_undoes_the_sigmoid(self, probabilities: np.ndarray) -> None:
        np.testing.assert_allclose(sigmoid(logit(probabilities)), probabilities, rtol=1e-9)

    def test_is_finite_at_0_and_1_and_keeps_what_is_no_number(self) -> None:
        low, high, nothing = logit(np.array([0.0, 1.0, np.nan])).tolist()
        assert (low, high) == pytest.approx((-27.631, 27.631), abs=1e-3)
        assert np.isnan(nothing)


class TestValues:
    @given(calibration=CALIBRATIONS)
    def test_a_calibration_survives_json(self, calibration: Calibration) -> None:
        adapter: TypeAdapter[Calibration] = TypeAdapter(Calibration)
        assert adapter.validate_json(adapter.dump_json(calibration)) == calibration

    @pytest.mark.parametrize(
        "level",
        [
            Level(threshold=0.3),
            Level(pooling=Pooling(method="top_k", k=3), calibration=Platt(slope=2.0, intercept=-1.0), threshold=1.0),
            Level(
                pooling=Pooling(method="learned", intercept=-1.0, mean_weight=0.5, top_weight=2.0),
                calibration=Isotonic(logits=(0.0, 1.0), probabilities=(0.2, 0.9)),
                threshold=0.5,
                reason="why",
            ),
        ],
    )
    def test_a_level_survives_json(self, level: Level) -> None:
        assert Level.model_validate_json(level.model_dump_json()) == level

    @pytest.mark.parametrize("between", [(None, None), (0.2, 0.2), (0.1, 0.7)])
    def test_an_abstention_survives_json(self, between: tuple[float | None, float | None]) -> None:
        low, high = between
        abstention = Abstention(coverage=0.9, low=low, high=high, n_units=30, unit="patient")
        assert Abstention.model_validate_json(abstention.model_dump_json()) == abstention
        assert abstention.between == (None if low is None else between)

    @pytest.mark.parametrize(
        "build",
        [
            lambda: Temperature(temperature=0.0),
            lambda: Temperature(temperature=float("inf")),
            lambda: Platt(slope=0.0, intercept=0.0),
            lambda: Platt(slope=1.0, intercept=float("nan")),
            lambda: Beta(a=-0.1, b=1.0, c=0.0),
            lambda: Beta(a=0.0, b=0.0, c=0.0),
            lambda: Beta(a=1.0, b=1.0, c=float("inf")),
            lambda: Isotonic(logits=(), probabilities=()),
            lambda: Isotonic(logits=(0.0, 0.0), probabilities=(0.1, 0.2)),
            lambda: Isotonic(logits=(0.0, 1.0), probabilities=(0.2, 0.1)),
            lambda: Isotonic(logits=(0.0, 1.0), probabilities=(0.2,)),
            lambda: Isotonic(logits=(0.0,), probabilities=(1.2,)),
            lambda: Isotonic(logits=(float("nan"),), probabilities=(0.2,)),
            lambda: Pooling(method="top_k"),
            lambda: Pooling(method="top_k", k=0),
            lambda: Pooling(method="mean", k=3),
            lambda: Pooling(method="learned", mean_weight=-1.0),
            lambda: Level(threshold=0.0),
            lambda: Level(threshold=1.5),
            lambda: Abstention(coverage=1.0, low=0.1, high=0.2, n_units=3, unit="patient"),
            lambda: Abstention(coverage=0.9, low=0.3, high=0.2, n_units=3, unit="patient"),
            lambda: Abstention(coverage=0.9, low=0.3, high=None, n_units=3, unit="patient"),
            lambda: Abstention(coverage=0.9, low=0.1, high=0.2, n_units=0, unit="patient"),
            lambda: Temperature.model_validate({"method": "temperature", "temperature": 1.0, "slope": 2.0}),
        ],
    )
    def test_what_no_fit_can_give_is_refused(self, build: Callable[[], object]) -> None:
        with pytest.raises(ValidationError):
            build()

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            UNCALIBRATED.temperature = 2.0  # type: ignore[misc]


class TestDecide:
    def test_the_threshold_itself_is_malignant(self) -> None:
        below, at, above = np.nextafter(0.3, 0), 0.3, np.nextafter(0.3, 1)
        assert decide(np.array([below, at, above]), 0.3).tolist() == ["benign", "malignant", "malignant"]

    @pytest.mark.parametrize(("threshold", "words"), [(0.0, {"malignant"}), (1.0, {"benign", "malignant"})])
    def test_thresholds_at_the_ends(self, threshold: float, words: set[str]) -> None:
        assert set(decide(np.array([0.0, 0.5, 1.0]), threshold).tolist()) == words

    @given(
        probabilities=st.lists(shares, max_size=20).map(np.array),
        threshold=shares,
        band=st.tuples(shares, shares).map(sorted),
    )
    def test_is_what_one_would_decide_one_by_one(
        self, probabilities: np.ndarray, threshold: float, band: list[float]
    ) -> None:
        expected = [
            "abstain" if band[0] <= p <= band[1] else "malignant" if p >= threshold else "benign" for p in probabilities
        ]
        assert decide(probabilities, threshold, abstain_between=(band[0], band[1])).tolist() == expected

    def test_the_ends_of_the_band_are_withheld_and_their_neighbours_decided(self) -> None:
        band = (0.2, 0.8)
        values = np.array([np.nextafter(0.2, 0), 0.2, 0.5, 0.8, np.nextafter(0.8, 1)])
        decisions = decide(values, 0.5, abstain_between=band)
        assert decisions.tolist() == ["benign", "abstain", "abstain", "abstain", "malignant"]

    def test_a_band_of_one_number_withholds_that_number(self) -> None:
        decisions = decide(np.array([0.3, 0.5, 0.7]), 0.5, abstain_between=(0.5, 0.5))
        assert decisions.tolist() == ["benign", "abstain", "malignant"]

    def test_what_is_no_number_is_not_called_benign(self) -> None:
        with pytest.raises(ValueError, match="not a number"):
            decide(np.array([0.2, np.nan]), 0.5)


POOLINGS = st.one_of(
    st.just(MEAN),
    st.just(Pooling(method="noisy_or")),
    st.builds(Pooling, method=st.just("top_k"), k=st.integers(1, 12)),
    st.builds(Pooling, method=st.just("learned"), intercept=finite, mean_weight=weights, top_weight=weights),
)
IMAGES = st.lists(st.tuples(shares, st.integers(0, 4)), max_size=40)


def pooled_by_hand(mine: list[float], pooling: Pooling) -> float:
    falling = sorted(mine, reverse=True)
    if pooling.method == "noisy_or":
        return 1 - float(np.prod([1 - value for value in mine]))
    if pooling.method == "top_k":
        assert pooling.k is not None
        return float(np.mean(falling[: pooling.k]))
    mean = float(np.mean(mine))
    if pooling.method == "mean":
        return mean
    top = float(np.mean(falling[: max(1, int(np.ceil(len(mine) / 10)))]))
    means, tops = logit(np.array([mean, top]))
    return float(expit(pooling.intercept + pooling.mean_weight * means + pooling.top_weight * tops))


class TestPool:
    @given(images=IMAGES, pooling=POOLINGS)
    def test_is_what_one_would_pool_by_hand(self, images: list[tuple[float, int]], pooling: Pooling) -> None:
        values, groups = split(images)
        result = pool(values, groups, 6, pooling)
        for group in range(6):
            mine = [value for value, of in images if of == group]
            if mine:
                assert result[group] == pytest.approx(pooled_by_hand(mine, pooling), abs=1e-9)
            else:
                assert np.isnan(result[group])

    @given(images=IMAGES.filter(bool), pooling=POOLINGS, seed=st.integers(0, 2**32 - 1))
    def test_does_not_depend_on_the_order_and_rises_with_each_image(
        self, images: list[tuple[float, int]], pooling: Pooling, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        values, groups = split(images)
        once = pool(values, groups, 5, pooling)
        order = rng.permutation(len(values))
        np.testing.assert_allclose(pool(values[order], groups[order], 5, pooling), once, atol=1e-9)
        higher = values.copy()
        place = rng.integers(len(values))
        higher[place] += (1 - higher[place]) * rng.random()
        after = pool(higher, groups, 5, pooling)
        there = np.unique(groups)
        assert (after[there] >= once[there] - 1e-9).all()
        assert ((once[there] >= 0) & (once[there] <= 1)).all()

    @given(values=st.lists(shares, min_size=1, max_size=20).map(np.array), k=st.integers(1, 5))
    def test_of_one_image_is_that_image(self, values: np.ndarray, k: int) -> None:
        groups = np.arange(len(values))
        for pooling in (MEAN, Pooling(method="top_k", k=k)):
            np.testing.assert_array_equal(pool(values, groups, len(values), pooling), values)
        np.testing.assert_allclose(pool(values, groups, len(values), Pooling(method="noisy_or")), values, atol=1e-15)

    def test_noisy_or_of_a_thousand_certain_images_is_1_without_a_warning(self) -> None:
        values, groups = np.ones(1000), np.zeros(1000, dtype=np.intp)
        assert pool(values, groups, 1, Pooling(method="noisy_or")).tolist() == [1.0]
        tiny = np.full(1000, 1e-18)
        np.testing.assert_allclose(pool(tiny, groups, 1, Pooling(method="noisy_or")), 1e-15)

    def test_the_highest_tenth_is_one_of_ten_and_two_of_eleven(self) -> None:
        values = np.concatenate([np.arange(10), np.arange(11)]) / 10
        groups = np.repeat([0, 1], [10, 11])
        np.testing.assert_allclose(pool_top_tenth(values, groups, 2), [0.9, 0.95])


class TestLevel:
    @given(images=IMAGES, pooling=POOLINGS)
    def test_without_calibration_is_the_pooled_probability_to_the_last_digit(
        self, images: list[tuple[float, int]], pooling: Pooling
    ) -> None:
        values, groups = split(images)
        level = Level(pooling=pooling, threshold=0.5)
        np.testing.assert_array_equal(level.probability(values, groups, 5), pool(values, groups, 5, pooling))

    @given(images=IMAGES.filter(bool), calibration=CALIBRATIONS)
    def test_calibrates_the_pooled_logit(self, images: list[tuple[float, int]], calibration: Calibration) -> None:
        values, groups = split(images)
        groups = np.unique(groups, return_inverse=True)[1]  # each has an image
        n_groups = int(groups.max()) + 1
        level = Level(pooling=Pooling(method="top_k", k=2), calibration=calibration, threshold=0.5)
        expected = probability(logit(pool(values, groups, n_groups, level.pooling)), calibration)
        np.testing.assert_allclose(level.probability(values, groups, n_groups), expected, atol=1e-12)

    @pytest.mark.parametrize("calibration", [UNCALIBRATED, Platt(slope=2.0, intercept=1.0)])
    def test_of_a_group_without_images_is_undefined(self, calibration: Calibration) -> None:
        level = Level(calibration=calibration, threshold=0.5)
        result = level.probability(np.array([0.3, 0.4]), np.array([0, 2]), 3)
        assert np.isnan(result).tolist() == [False, True, False]


class TestPoolMean:
    @given(st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 5)), max_size=30))
    def test_is_the_mean_of_each_group(self, pairs: list[tuple[float, int]]) -> None:
        values, groups = split(pairs)
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


def split(pairs: list[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([value for value, _ in pairs]), np.array([group for _, group in pairs], dtype=np.intp)
