from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from clearmargin.decision import Beta, Platt, Temperature, probability, sigmoid
from clearmargin.errors import DataError, UnknownName
from clearmargin.evaluation import metrics
from clearmargin.evaluation.calibration import (
    CALIBRATIONS,
    LEAST_SLOPE,
    MOST_KNOTS,
    TEMPERATURE_RANGE,
    choose_calibration,
    fit_beta,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)


def loss_at(labels: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    scaled = logits / temperature
    return float(np.mean(np.logaddexp(0, scaled) - labels * scaled))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, size=200_000)
    labels = (rng.random(len(honest)) < probability(honest)).astype(np.int64)
    assert fit_temperature(labels, honest * temperature).temperature == pytest.approx(temperature, rel=0.02)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 1.0, 30.0]), st.integers(4, 80))
def test_no_temperature_on_a_fine_grid_has_a_lower_loss(seed: int, scale: float, n_images: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(n_images) % 2
    logits = scale * (rng.normal(size=n_images) + labels - 0.5)
    best = fit_temperature(labels, logits).temperature
    low, high = TEMPERATURE_RANGE
    assert low <= best <= high
    grid = np.exp(np.linspace(math.log(low), math.log(high), 801))
    assert loss_at(labels, logits, best) <= min(loss_at(labels, logits, value) for value in grid) + 1e-12


def test_scaling_the_logits_scales_the_temperature() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, size=500)
    logits = rng.normal(size=500) + labels
    once = fit_temperature(labels, logits).temperature
    assert fit_temperature(labels, 3 * logits).temperature == pytest.approx(3 * once, rel=1e-9)
    order = rng.permutation(500)
    assert fit_temperature(labels[order], logits[order]).temperature == pytest.approx(once, rel=1e-9)


def test_float32_logits_give_the_same_temperature() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, size=500)
    logits = (rng.normal(size=500) + labels).astype(np.float32)
    assert fit_temperature(labels, logits) == fit_temperature(labels, logits.astype(np.float64))


def test_separable_logits_meet_the_lower_bound_and_inverted_ones_the_upper() -> None:
    labels, logits = np.array([0, 0, 1, 1]), np.array([-3.0, -1.0, 1.0, 3.0])
    assert fit_temperature(labels, logits).temperature == TEMPERATURE_RANGE[0]
    assert fit_temperature(labels, -logits).temperature == TEMPERATURE_RANGE[1]
    assert fit_temperature(labels, np.zeros(4)) == Temperature()


def test_logits_of_any_size_do_not_overflow() -> None:
    labels = np.array([0, 1, 0, 1])
    fit = fit_temperature(labels, np.array([-1e6, 1e6, 1e3, -1e-6]))
    assert TEMPERATURE_RANGE[0] <= fit.temperature <= TEMPERATURE_RANGE[1]


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


@pytest.mark.parametrize("name", CALIBRATIONS)
class TestEveryFit:
    @given(seed=st.integers(0, 2**32 - 1), n_images=st.integers(2, 60), scale=st.sampled_from([1e-3, 1.0, 50.0, 1e6]))
    def test_rises_and_stays_a_probability(self, name: str, seed: int, n_images: int, scale: float) -> None:
        rng = np.random.default_rng(seed)
        labels = np.append(rng.integers(0, 2, size=n_images - 2), [0, 1])
        logits = scale * np.round(rng.normal(size=n_images) + rng.normal() * labels, 1)
        fit = CALIBRATIONS[name](labels, logits)
        at = np.sort(np.concatenate([logits, scale * np.linspace(-10, 10, 101)]))
        values = probability(at, fit)
        assert ((values >= 0) & (values <= 1)).all()
        assert (np.diff(values) >= -1e-15).all()

    def test_equal_logits_have_a_fit_of_one_probability(self, name: str) -> None:
        for logit in (0.0, 3.0, -800.0):
            logits = np.full(8, logit)
            values = probability(logits, CALIBRATIONS[name](np.arange(8) % 2, logits))
            assert np.ptp(values) == 0
            assert 0 <= values[0] <= 1

    def test_refuses_one_class_no_image_and_what_is_no_number(self, name: str) -> None:
        with pytest.raises(DataError, match=r"fitted.*all 3 images are malignant"):
            CALIBRATIONS[name](np.ones(3, dtype=np.int64), np.zeros(3))
        with pytest.raises(DataError, match="fitted without images"):
            CALIBRATIONS[name](np.array([], dtype=np.int64), np.array([]))
        with pytest.raises(DataError, match="logit of row 2 is inf"):
            CALIBRATIONS[name](np.array([0, 1]), np.array([0.0, np.inf]))

    def test_does_not_depend_on_the_order_of_the_rows(self, name: str) -> None:
        rng = np.random.default_rng(0)
        logits = rng.normal(size=300)
        labels = (rng.random(300) < sigmoid(logits)).astype(np.int64)
        order = rng.permutation(300)
        grid = np.linspace(-4, 4, 50)
        once, again = CALIBRATIONS[name](labels, logits), CALIBRATIONS[name](labels[order], logits[order])
        np.testing.assert_allclose(probability(grid, once), probability(grid, again), rtol=1e-7)


def test_platt_equals_scikit_learn_where_labels_are_many() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, size=50_000)
    labels = (rng.random(len(logits)) < sigmoid(0.6 * logits - 0.8)).astype(np.int64)
    fit = fit_platt(labels, logits)
    reference = LogisticRegression(C=1e9, tol=1e-9).fit(logits[:, None], labels)
    # Platt's targets differ from the labels by one part in the class's number of images.
    assert fit.slope == pytest.approx(float(reference.coef_[0, 0]), abs=2e-3)
    assert fit.intercept == pytest.approx(float(reference.intercept_[0]), abs=2e-3)
    assert (fit.slope, fit.intercept) == pytest.approx((0.6, -0.8), abs=0.03)


@given(seed=st.integers(0, 2**32 - 1), n_images=st.integers(4, 60), drift=st.sampled_from([-1.0, 0.0, 1.0, 20.0]))
def test_no_other_slope_or_beta_has_a_higher_likelihood_of_platts_targets(
    seed: int, n_images: int, drift: float
) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(n_images) % 2
    logits = rng.normal(size=n_images) + drift * labels
    n_malignant = labels.sum()
    targets = np.where(labels == 1, (n_malignant + 1) / (n_malignant + 2), 1 / (n_images - n_malignant + 2))

    def loss(scores: np.ndarray) -> float:
        return float(np.sum(np.logaddexp(0, scores) - targets * scores))

    slope = np.stack([logits, np.ones(n_images)], axis=1)
    beta = np.stack([-np.logaddexp(0, -logits), np.logaddexp(0, logits), np.ones(n_images)], axis=1)
    platt_fit, beta_fit = fit_platt(labels, logits), fit_beta(labels, logits)
    for features, found, lowest in (
        (slope, [platt_fit.slope, platt_fit.intercept], [LEAST_SLOPE]),
        (beta, [beta_fit.a, beta_fit.b, beta_fit.c], [0.0, 0.0]),
    ):
        bounds = [(low, None) for low in lowest] + [(None, None)]
        reference = optimize.minimize(
            lambda weights, features=features: loss(features @ weights),
            np.array([1.0] * len(lowest) + [0.0]),
            bounds=bounds,
            method="L-BFGS-B",
        )
        assert all(weight >= low for weight, low in zip(found, lowest, strict=False))
        # A beta map that would give every image one probability is held back from it.
        held_back = len(found) == 3 and found[:2] == [LEAST_SLOPE, LEAST_SLOPE]
        assert loss(features @ np.array(found)) <= reference.fun + (0.1 if held_back else 1e-9)


def test_a_known_beta_map_is_recovered() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, size=200_000)
    truth = Beta(a=0.4, b=1.5, c=-0.3)
    labels = (rng.random(len(logits)) < probability(logits, truth)).astype(np.int64)
    fit = fit_beta(labels, logits)
    assert (fit.a, fit.b, fit.c) == pytest.approx((0.4, 1.5, -0.3), abs=0.05)


def test_inverted_logits_meet_the_bounds() -> None:
    labels, logits = np.array([0, 0, 1, 1]), np.array([3.0, 1.0, -1.0, -3.0])
    assert fit_platt(labels, logits).slope == LEAST_SLOPE
    fit = fit_beta(labels, logits)
    assert (fit.a, fit.b) == (LEAST_SLOPE, LEAST_SLOPE)  # the order of the images stays
    assert fit.c == pytest.approx(0)
    assert fit_isotonic(labels, logits).probabilities == (0.5,)


def test_separable_logits_have_a_finite_slope_and_no_certainty() -> None:
    labels, logits = np.array([0, 0, 1, 1]), np.array([-3.0, -1.0, 1.0, 3.0])
    assert 0 < fit_platt(labels, logits).slope < 10
    assert fit_isotonic(labels, logits).probabilities == pytest.approx((0.5 / 3, 2.5 / 3))


@given(seed=st.integers(0, 2**32 - 1), n_images=st.integers(2, 200))
def test_isotonic_knots_are_the_steps_of_scikit_learn(seed: int, n_images: int) -> None:
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=n_images), 1)
    labels = np.append((rng.random(n_images - 2) < sigmoid(2 * logits[2:])).astype(np.int64), [0, 1])
    fit = fit_isotonic(labels, logits)
    steps = np.round(IsotonicRegression().fit_transform(logits, labels), 9)
    shares = np.unique(steps)
    assert len(fit.logits) == len(shares)
    for knot, found, share in zip(fit.logits, fit.probabilities, shares, strict=True):
        inside = steps == share
        assert knot == pytest.approx(logits[inside].mean(), abs=1e-9)
        if 0 < share < 1:
            assert found == pytest.approx(share, abs=1e-8)
        else:
            n = inside.sum()
            assert 0 < found < 1
            assert abs(found - share) <= 0.5 / (n + 1) + 1e-12


def test_isotonic_has_at_most_so_many_knots_and_keeps_the_shares() -> None:
    # 400 steps of 500 images; the malignant come first in each, so that it is one step, and each has one more.
    malignant = 50 + np.arange(400)
    labels = (np.arange(500) < malignant[:, None]).astype(np.int64).ravel()
    logits = np.linspace(-3, 3, len(labels))
    fit = fit_isotonic(labels, logits)
    assert 100 < len(fit.logits) <= MOST_KNOTS
    np.testing.assert_allclose(probability(logits, fit), np.repeat(malignant / 500, 500), atol=0.005)


def draw(rng: np.random.Generator, n_patients: int, images_each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, the logits of their true probabilities, patients."""
    patients = np.repeat(np.arange(n_patients), images_each)
    honest = 1.5 * rng.normal(size=len(patients)) + 0.8 * rng.normal(size=n_patients)[patients] - 0.5
    return (rng.random(len(patients)) < sigmoid(honest)).astype(np.int64), honest, patients


SHAPES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "too certain": (lambda logits: 3 * logits, "temperature"),
    "shifted": (lambda logits: 2 * logits + 2, "platt"),
    "too certain of malignant only": (
        lambda logits: np.where(logits > 0, 5 * logits, 0.7 * logits),
        "beta or isotonic",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_choice_fits_the_shape_and_helps_on_new_patients(shape: str) -> None:
    rng = np.random.default_rng(5)
    distort, expected = SHAPES[shape]
    for _ in range(3):
        labels, honest, patients = draw(rng, 150, 30)
        choice = choose_calibration(labels, distort(honest), patients, seed=0)
        assert choice.calibration.method in expected
        new, honest, _ = draw(rng, 300, 30)
        before = metrics.brier(new, probability(distort(honest)))
        after = metrics.brier(new, probability(distort(honest), choice.calibration))
        assert after < before - 0.005
        assert after < metrics.brier(new, probability(honest)) + 0.002


def test_honest_probabilities_keep_a_temperature_near_one() -> None:
    rng = np.random.default_rng(6)
    for _ in range(3):
        labels, honest, patients = draw(rng, 60, 20)
        calibration = choose_calibration(labels, honest, patients, seed=0).calibration
        assert isinstance(calibration, Temperature)
        assert calibration.temperature == pytest.approx(1, abs=0.25)


class TestTheChoice:
    def test_depends_on_neither_the_order_of_the_rows_nor_the_names_of_patients(self) -> None:
        rng = np.random.default_rng(7)
        labels, honest, patients = draw(rng, 30, 12)
        names = np.array([f"P-{number:03d}" for number in patients], dtype=object)
        order = rng.permutation(len(labels))
        once = choose_calibration(labels, 2 * honest + 1, patients, seed=3)
        assert choose_calibration(labels[order], 2 * honest[order] + 1, names[order], seed=3) == once
        alone = choose_calibration(labels, honest, None, seed=3)
        assert choose_calibration(labels[order], honest[order], None, seed=3) == alone

    def test_shows_every_candidate_and_its_score_over_whole_patients(self) -> None:
        labels, honest, patients = draw(np.random.default_rng(8), 40, 10)
        choice = choose_calibration(labels, honest, patients, seed=0)
        assert [candidate.method for candidate in choice.candidates] == list(CALIBRATIONS)
        assert all(candidate.brier is not None and candidate.reason is None for candidate in choice.candidates)
        assert "40 patients" in choice.reason
        chosen = next(c.brier for c in choice.candidates if c.method == choice.calibration.method)
        assert f"{chosen:.4f}" in choice.reason

    def test_a_patient_who_looks_like_no_other_cannot_sell_a_complicated_map(self) -> None:
        # Labels hang on the patient alone, whose logits say which patient it is: folds of images would let
        # a map learn each patient by heart.
        rng = np.random.default_rng(9)
        patients = np.repeat(np.arange(40), 25)
        labels = rng.permutation(np.arange(40) % 2)[patients]
        logits = rng.permutation(np.linspace(-2, 2, 40))[patients] + 1e-3 * rng.normal(size=1000)
        assert choose_calibration(labels, logits, patients, seed=0).calibration.method == "temperature"
        assert choose_calibration(labels, logits, None, seed=0).calibration.method != "temperature"

    @pytest.mark.parametrize(
        ("patients", "reason"),
        [
            (["a", "a", "a", "a"], "one patient cannot be divided"),
            (["a", "a", "b", "b"], "one patient has malignant images, and folds need two"),
        ],
    )
    def test_is_a_temperature_with_the_reason_where_folds_cannot_be(self, patients: list[str], reason: str) -> None:
        labels, logits = np.array([0, 0, 0, 1]), np.array([-1.0, -2.0, 1.0, 2.0])
        choice = choose_calibration(labels, logits, np.array(patients), seed=0)
        assert choice.calibration == fit_temperature(labels, logits)
        assert reason in choice.reason
        assert [candidate.brier for candidate in choice.candidates] == [None] * 4

    @pytest.mark.parametrize("method", CALIBRATIONS)
    def test_can_be_made_by_hand(self, method: str) -> None:
        labels, honest, patients = draw(np.random.default_rng(10), 20, 10)
        choice = choose_calibration(labels, honest, patients, method=method, seed=0)  # type: ignore[arg-type]
        assert choice.calibration.method == method
        assert "asked for" in choice.reason

    def test_refuses_an_unknown_method_and_one_class(self) -> None:
        with pytest.raises(UnknownName, match="plat"):
            choose_calibration(np.array([0, 1]), np.zeros(2), None, method="plat", seed=0)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="one class"):
            choose_calibration(np.array([0, 0]), np.zeros(2), None, seed=0)

    def test_platt_of_two_images_is_finite(self) -> None:
        fit = choose_calibration(np.array([0, 1]), np.array([-1.0, 1.0]), None, method="platt", seed=0).calibration
        assert isinstance(fit, Platt)


def test_logits_that_know_nothing_never_cost_the_order_of_the_images() -> None:
    # Turned round in each patient: the best map of any kind is flat, and a flat one would rank nothing any more.
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(12), 20)
    labels = rng.integers(0, 2, 240)
    logits = -1.5 * (labels - 0.5) + rng.normal(size=240)
    choice = choose_calibration(labels, logits, patients, seed=0)
    order = np.argsort(logits)
    assert (np.diff(choice.calibration.apply(logits[order])) > 0).mean() > 0.99


def test_few_patients_choose_nothing() -> None:
    rng = np.random.default_rng(2)
    labels, patients = rng.integers(0, 2, 160), np.repeat(np.arange(4), 40)
    choice = choose_calibration(labels, rng.normal(size=160) + labels, patients, seed=0)
    assert isinstance(choice.calibration, Temperature)
    assert "there are 4 patients, and 5 are the least" in choice.reason
