from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearmargin.decision import probability
from clearmargin.errors import DataError
from clearmargin.evaluation import metrics
from clearmargin.evaluation.calibration import TEMPERATURE_RANGE, fit_temperature, reliability_bins


def loss_at(labels: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    scaled = logits / temperature
    return float(np.mean(np.logaddexp(0, scaled) - labels * scaled))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, size=200_000)
    labels = (rng.random(len(honest)) < probability(honest)).astype(np.int64)
    assert fit_temperature(labels, honest * temperature) == pytest.approx(temperature, rel=0.02)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 1.0, 30.0]), st.integers(4, 80))
def test_no_temperature_on_a_fine_grid_has_a_lower_loss(seed: int, scale: float, n_images: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(n_images) % 2
    logits = scale * (rng.normal(size=n_images) + labels - 0.5)
    best = fit_temperature(labels, logits)
    low, high = TEMPERATURE_RANGE
    assert low <= best <= high
    grid = np.exp(np.linspace(math.log(low), math.log(high), 801))
    assert loss_at(labels, logits, best) <= min(loss_at(labels, logits, value) for value in grid) + 1e-12


def test_scaling_the_logits_scales_the_temperature() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, size=500)
    logits = rng.normal(size=500) + labels
    once = fit_temperature(labels, logits)
    assert fit_temperature(labels, 3 * logits) == pytest.approx(3 * once, rel=1e-9)
    order = rng.permutation(500)
    assert fit_temperature(labels[order], logits[order]) == pytest.approx(once, rel=1e-9)


def test_float32_logits_give_the_same_temperature() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, size=500)
    logits = (rng.normal(size=500) + labels).astype(np.float32)
    assert fit_temperature(labels, logits) == fit_temperature(labels, logits.astype(np.float64))


def test_separable_logits_meet_the_lower_bound_and_inverted_ones_the_upper() -> None:
    labels, logits = np.array([0, 0, 1, 1]), np.array([-3.0, -1.0, 1.0, 3.0])
    assert fit_temperature(labels, logits) == TEMPERATURE_RANGE[0]
    assert fit_temperature(labels, -logits) == TEMPERATURE_RANGE[1]
    assert fit_temperature(labels, np.zeros(4)) == 1.0


def test_logits_of_any_size_do_not_overflow() -> None:
    labels = np.array([0, 1, 0, 1])
    assert TEMPERATURE_RANGE[0] <= fit_temperature(labels, np.array([-1e6, 1e6, 1e3, -1e-6])) <= TEMPERATURE_RANGE[1]


@pytest.mark.parametrize(("label", "word"), [(0, "benign"), (1, "malignant")])
def test_one_class_is_an_error_that_names_it_and_the_fix(label: int, word: str) -> None:
    with pytest.raises(DataError, match=f"temperature cannot be fitted.*all 12 images are {word}.*split.fractions"):
        fit_temperature(np.full(12, label), np.zeros(12))


def test_no_image_is_an_error() -> None:
    with pytest.raises(DataError, match="temperature cannot be fitted without images"):
        fit_temperature(np.array([], dtype=np.int64), np.array([]))


def test_a_logit_that_is_not_finite_is_named() -> None:
    with pytest.raises(DataError, match=r"logit of row 2 is nan.*diverged.*learning_rate"):
        fit_temperature(np.array([0, 1]), np.array([0.0, np.nan]))


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
