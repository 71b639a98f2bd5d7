from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from clearmargin.decision import logit, probability, sigmoid
from clearmargin.errors import DataError
from clearmargin.evaluation import metrics
from clearmargin.evaluation.reliability import (
    Estimate,
    calibration_slope_intercept,
    expected_ece,
    reliability_bins,
)


def wilson(successes: int, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    share = successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.sampled_from([1, 3, 10]))
def test_reliability_bins_equal_a_loop_over_images(seed: int, n_images: int, n_bins: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(0, 21, size=n_images) / 20
    labels = rng.integers(0, 2, size=n_images)
    bins = reliability_bins(labels, probabilities, n_bins=n_bins)
    assert bins.count.sum() == n_images
    for place in range(n_bins):
        lower, upper = place / n_bins, (place + 1) / n_bins
        assert (bins.lower[place], bins.upper[place]) == (lower, upper)
        inside = (probabilities >= lower) & ((probabilities < upper) | (place == n_bins - 1))
        assert bins.count[place] == inside.sum()
        if not inside.any():
            assert np.isnan([bins.mean_probability[place], bins.observed[place], bins.low[place]]).all()
            continue
        assert bins.mean_probability[place] == pytest.approx(probabilities[inside].mean())
        assert bins.observed[place] == pytest.approx(labels[inside].mean())
        expected = wilson(int(labels[inside].sum()), int(inside.sum()))
        assert (bins.low[place], bins.high[place]) == pytest.approx(expected, abs=1e-9)


def test_reliability_bins_add_up_to_the_ece() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(5_000)
    labels = (rng.random(5_000) < probabilities**2).astype(np.int64)
    bins = reliability_bins(labels, probabilities, n_bins=15)
    gaps = np.abs(bins.mean_probability - bins.observed)
    assert float((gaps * bins.count).sum() / 5_000) == pytest.approx(metrics.ece(labels, probabilities))


def draw(
    rng: np.random.Generator, *, n_patients: int = 40, most_images: int = 40, likeness: float = 0.3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities that are exactly right over many patients, patients of unequal size who err alike."""
    patients = np.repeat(np.arange(n_patients), rng.integers(4, most_images, size=n_patients))

    def alike(share: float) -> np.ndarray:
        own = rng.normal(size=len(patients))
        return np.sqrt(share) * rng.normal(size=n_patients)[patients] + np.sqrt(1 - share) * own

    probabilities = sigmoid(1.4 * alike(0.3) - 0.5)
    return (stats.norm.cdf(alike(likeness)) < probabilities).astype(np.int64), probabilities, patients


def scipy_fit(labels: np.ndarray, values: np.ndarray, *, slope: bool) -> np.ndarray:
    def loss(weights: np.ndarray) -> float:
        scores = weights[0] * values + weights[1] if slope else values + weights[0]
        return float(np.mean(np.logaddexp(0, scores) - labels * scores))

    return np.asarray(optimize.minimize(loss, np.zeros(1 + slope), method="BFGS", options={"gtol": 1e-9}).x)


class TestSlopeAndIntercept:
    @given(seed=st.integers(0, 2**32 - 1), grouped=st.booleans())
    def test_are_what_scipy_finds(self, seed: int, grouped: bool) -> None:
        labels, probabilities, patients = draw(np.random.default_rng(seed), n_patients=12)
        slope, intercept = calibration_slope_intercept(labels, probabilities**1.5, patients if grouped else None)
        values = logit(probabilities**1.5)
        assert slope.value == pytest.approx(scipy_fit(labels, values, slope=True)[0], abs=1e-4)
        assert intercept.value == pytest.approx(scipy_fit(labels, values, slope=False)[0], abs=1e-4)

    def test_know_a_model_that_is_too_certain_and_one_that_is_too_low(self) -> None:
        labels, probabilities, patients = draw(np.random.default_rng(0), n_patients=400)
        slope, intercept = calibration_slope_intercept(labels, sigmoid(2 * logit(probabilities)), patients)
        assert slope.low is not None
        assert slope.high is not None
        assert slope.low < 0.5 < slope.high < 0.7
        slope, intercept = calibration_slope_intercept(labels, sigmoid(logit(probabilities) - 1), patients)
        assert slope.low is not None
        assert slope.high is not None
        assert intercept.low is not None
        assert intercept.high is not None
        assert slope.low < 1 < slope.high
        assert 0.5 < intercept.low < 1 < intercept.high

    def test_their_intervals_hold_the_truth_in_about_19_of_20_draws_and_over_images_would_not(self) -> None:
        rng = np.random.default_rng(1)
        held = np.zeros(3)
        for _ in range(400):
            labels, probabilities, patients = draw(rng, n_patients=40)
            slope, intercept = calibration_slope_intercept(labels, probabilities, patients)
            _, naive = calibration_slope_intercept(labels, probabilities, None)
            for place, (found, truth) in enumerate(((slope, 1.0), (intercept, 0.0), (naive, 0.0))):
                assert found.low is not None
                assert found.high is not None
                held[place] += found.low <= truth <= found.high
        assert (held[:2] / 400 >= 0.91).all()
        assert (held[:2] / 400 <= 0.98).all()
        assert held[2] / 400 < 0.8

    def test_their_width_is_that_of_resampled_patients(self) -> None:
        rng = np.random.default_rng(2)
        labels, probabilities, patients = draw(rng, n_patients=60)
        found = calibration_slope_intercept(labels, probabilities, patients)
        rows = [np.flatnonzero(patients == patient) for patient in range(60)]
        resampled = []
        for _ in range(300):
            drawn = np.concatenate([rows[patient] for patient in rng.integers(60, size=60)])
            resampled.append(
                [part.value for part in calibration_slope_intercept(labels[drawn], probabilities[drawn], None)]
            )
        for part, spread in zip(found, np.std(resampled, axis=0), strict=True):
            assert part.high is not None
            assert part.low is not None
            assert (part.high - part.low) / 2 / stats.t.ppf(0.975, 59) == pytest.approx(spread, rel=0.15)

    def test_do_not_depend_on_the_order_of_the_rows(self) -> None:
        rng = np.random.default_rng(3)
        labels, probabilities, patients = draw(rng)
        order = rng.permutation(len(labels))
        once = calibration_slope_intercept(labels, probabilities, patients)
        again = calibration_slope_intercept(labels[order], probabilities[order], patients[order])
        for part, other in zip(once, again, strict=True):
            assert (part.value, part.low) == pytest.approx((other.value, other.low))

    def test_have_a_reason_where_they_have_no_value_or_no_interval(self) -> None:
        labels, patients = np.array([0, 0, 1, 1]), np.array(["a", "b", "c", "d"])
        both = calibration_slope_intercept(np.ones(4, dtype=np.int64), np.full(4, 0.3), patients)
        assert [part.reason for part in both] == ["all images are malignant"] * 2
        slope, intercept = calibration_slope_intercept(labels, np.full(4, 0.3), patients)
        assert (slope.value, slope.reason) == (None, "all probabilities are equal")
        assert intercept.value == pytest.approx(-float(logit(np.array([0.3]))[0]))
        for values in ([0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.2, 0.4], [0.9, 0.8, 0.3, 0.1]):
            slope, intercept = calibration_slope_intercept(labels, np.array(values), patients)
            assert slope.value is None
            assert "separate" in slope.reason
            assert intercept.value is not None
        mixed = np.array([0.2, 0.6, 0.4, 0.9])
        for names, reason in ((["a"] * 4, "1 patient: too few"), (["a", "a", "b", "b"], "2 patients: too few")):
            slope, _ = calibration_slope_intercept(labels, mixed, np.array(names))
            assert slope.value is not None
            assert slope.low is None
            assert reason in slope.reason

    def test_a_patient_who_alone_has_malignant_images_leaves_no_slope_to_the_others(self) -> None:
        labels = np.array([0, 0, 0, 0, 0, 1, 1, 0])
        values = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.2, 0.4])
        slope, _ = calibration_slope_intercept(labels, values, np.array([0, 0, 1, 1, 2, 3, 3, 3]))
        assert slope.value is not None
        assert slope.low is None
        assert "one patient alone" in slope.reason

    def test_an_image_without_patient_is_refused(self) -> None:
        with pytest.raises(DataError, match="no patient"):
            calibration_slope_intercept(np.array([0, 1]), np.array([0.2, 0.3]), np.array(["a", None], dtype=object))


def test_a_figure_of_metrics_json_has_a_reason_or_a_method() -> None:
    assert Estimate(1.5, 1.0, 2.0, method="t").figure() == {"value": 1.5, "ci": [1.0, 2.0], "method": "t"}
    assert Estimate(None, reason="why").figure() == {"value": None, "ci": None, "reason": "why"}


class TestExpectedEce:
    @pytest.mark.parametrize("n_images", [20, 300, 5_000])
    def test_is_the_mean_ece_of_labels_drawn_from_the_probabilities(self, n_images: int) -> None:
        rng = np.random.default_rng(4)
        probabilities = rng.beta(0.5, 1, size=n_images)
        drawn = [metrics.ece((rng.random(n_images) < probabilities).astype(int), probabilities) for _ in range(400)]
        found = expected_ece(probabilities, seed=0, draws=2_000)
        assert found.mean == pytest.approx(np.mean(drawn), rel=0.08)
        assert found.high == pytest.approx(np.quantile(drawn, 0.95), rel=0.1)
        assert f"{n_images:,} such images" in found.note

    def test_falls_with_the_root_of_the_number_of_images(self) -> None:
        probabilities = np.random.default_rng(5).random(1_000)
        few, many = expected_ece(probabilities, seed=0), expected_ece(np.tile(probabilities, 16), seed=0)
        assert few.mean / many.mean == pytest.approx(4, rel=0.1)

    def test_depends_on_the_seed_and_not_on_the_order(self) -> None:
        probabilities = np.random.default_rng(6).random(500)
        assert expected_ece(probabilities, seed=1) == expected_ece(probabilities[::-1], seed=1)
        assert expected_ece(probabilities, seed=1) != expected_ece(probabilities, seed=2)

    def test_of_certainty_is_0_and_of_nothing_is_undefined(self) -> None:
        assert expected_ece(np.array([0.0, 0.0, 1.0]), seed=0).high == 0
        assert math.isnan(expected_ece(np.array([]), seed=0).mean)


class TestBinsOverPatients:
    def test_hold_the_truth_where_intervals_over_images_do_not(self) -> None:
        rng = np.random.default_rng(7)
        held, naive, n = 0, 0, 0
        for number in range(40):
            labels, probabilities, patients = draw(rng, n_patients=40, likeness=0.5)
            over = reliability_bins(labels, probabilities, n_bins=5, groups=patients, seed=number)
            images = reliability_bins(labels, probabilities, n_bins=5)
            np.testing.assert_array_equal(over.observed, images.observed)
            defined = ~np.isnan(over.low)
            truth = over.mean_probability[defined]
            held += int(((over.low[defined] <= truth) & (truth <= over.high[defined])).sum())
            naive += int(((images.low[defined] <= truth) & (truth <= images.high[defined])).sum())
            n += int(defined.sum())
        assert n > 150
        assert 0.87 <= held / n <= 0.99
        assert naive / n < 0.85

    def test_do_not_depend_on_the_order_of_the_rows(self) -> None:
        rng = np.random.default_rng(8)
        labels, probabilities, patients = draw(rng)
        order = rng.permutation(len(labels))
        once = reliability_bins(labels, probabilities, groups=patients)
        again = reliability_bins(labels[order], probabilities[order], groups=patients[order])
        np.testing.assert_allclose(once.low, again.low)
        np.testing.assert_allclose(once.high, again.high)

    def test_a_bin_of_one_class_has_an_exact_interval_and_one_of_one_patient_none(self) -> None:
        patients = np.repeat(np.arange(20), 3)
        labels = np.zeros(60, dtype=np.int64)
        probabilities = np.full(60, 0.1)
        probabilities[:3], labels[:2] = 0.9, 1
        bins = reliability_bins(labels, probabilities, n_bins=2, groups=patients)
        assert bins.count.tolist() == [57, 3]
        assert (bins.low[0], bins.high[0]) == pytest.approx((0, 1 - 0.025 ** (1 / 19)))
        assert np.isnan([bins.low[1], bins.high[1]]).all()
        first, second = bins.rows()
        assert second == {"lower": 0.5, "upper": 1.0, "n": 3, "mean_probability": 0.9, "observed": 2 / 3, "ci": None}
        assert first["ci"] == [bins.low[0], bins.high[0]]

    def test_rows_leave_empty_bins_out(self) -> None:
        rows = reliability_bins(np.array([0, 1]), probability(np.array([-9.0, 9.0]))).rows()
        assert [row["lower"] for row in rows] == [0.0, 0.9]
