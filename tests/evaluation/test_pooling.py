from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearmargin.decision import MEAN, UNCALIBRATED, Level, Pooling, decide, pool, sigmoid
from clearmargin.errors import DataError, UnknownName
from clearmargin.evaluation import metrics
from clearmargin.evaluation.pooling import LEAST_UNITS, METHODS, choose_level

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_slides(rng: np.random.Generator, truth: str, *, n_slides: int = 120, images_each: int = 30) -> Drawn:
    """Each image's label (its slide's), probability, slide.

    With `one`, a malignant slide has one image that looks malignant among benign-looking ones of every kind;
    with `mean`, all its images look a little more malignant.
    """
    slides = np.repeat(np.arange(n_slides), images_each)
    labels = np.arange(n_slides) % 2
    logits = rng.normal(size=len(slides)) - 2
    if truth == "one":
        logits[np.flatnonzero(labels) * images_each] += 4 + rng.normal(size=labels.sum())
        logits += 1.2 * rng.normal(size=n_slides)[slides] * (logits < 0)  # how benign the rest looks says nothing
    else:
        logits += 0.6 * labels[slides] + 2.0 * (rng.random(len(slides)) < 0.1)
    return labels[slides], sigmoid(logits), slides


def fitted(level: Level | str) -> Level:
    assert isinstance(level, Level), level
    return level


def brier_on(level: Level, drawn: Drawn) -> float:
    labels, probabilities, slides = drawn
    n_slides = int(slides.max()) + 1
    return metrics.brier(
        pool(labels, slides, n_slides).astype(np.int64), level.probability(probabilities, slides, n_slides)
    )


def choose(drawn: Drawn, *, pooling: str = "auto", seed: int = 0) -> Level:
    labels, probabilities, slides = drawn
    return fitted(
        choose_level(
            labels,
            probabilities,
            slides,
            None,
            level="slide",
            pooling=pooling,  # type: ignore[arg-type]
            image_threshold=0.4,
            seed=seed,
        )
    )


class TestTheChoice:
    def test_one_malignant_image_makes_the_highest_decide(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(3):
            level = choose(draw_slides(rng, "one"))
            assert level.pooling.method in ("noisy_or", "top_k", "learned")
            assert level.pooling.k in (None, 1, 3)
            new = draw_slides(rng, "one", n_slides=400)
            assert brier_on(level, new) < brier_on(choose(draw_slides(rng, "one"), pooling="mean"), new) - 0.01

    def test_where_all_images_differ_a_little_the_mean_decides(self) -> None:
        rng = np.random.default_rng(1)
        for _ in range(3):
            level = choose(draw_slides(rng, "mean"))
            assert level.pooling == MEAN
            new = draw_slides(rng, "mean", n_slides=400)
            assert brier_on(level, new) < 0.12

    @pytest.mark.parametrize("method", METHODS[1:])
    def test_can_be_made_by_hand_and_is_better_calibrated_than_the_pooled_probability(self, method: str) -> None:
        rng = np.random.default_rng(2)
        level = choose(draw_slides(rng, "mean"), pooling=method)
        assert level.pooling.method == method
        new = draw_slides(rng, "mean", n_slides=400)
        plain = level.pooling if method != "learned" else MEAN
        assert brier_on(level, new) < brier_on(Level(pooling=plain, threshold=0.5), new)

    def test_does_not_depend_on_the_order_of_the_rows_or_the_names(self) -> None:
        rng = np.random.default_rng(3)
        labels, probabilities, slides = draw_slides(rng, "one", n_slides=40)
        order = rng.permutation(len(labels))
        names = np.array([f"s{number:03d}" for number in slides], dtype=object)
        patients = slides // 2

        def level(rows: np.ndarray, ids: np.ndarray) -> Level | str:
            return choose_level(
                labels[rows],
                probabilities[rows],
                ids[rows],
                patients[rows],
                level="slide",
                image_threshold=0.4,
                seed=5,
            )

        assert level(order, names) == level(np.arange(len(labels)), slides)

    def test_the_threshold_is_the_most_balanced_on_the_slides(self) -> None:
        drawn = draw_slides(np.random.default_rng(4), "mean")
        level = choose(drawn)
        labels, probabilities, slides = drawn
        values = level.probability(probabilities, slides, 120)
        truth = labels[::30]

        def balanced(threshold: float) -> float:
            return float(metrics.balanced_accuracy(metrics.confusion(truth, metrics.calls(values, threshold))))

        assert balanced(level.threshold) == max(balanced(threshold) for threshold in values)
        assert level.threshold not in values

    def test_is_cross_validated_over_patients_where_they_are_known(self) -> None:
        labels, probabilities, slides = draw_slides(np.random.default_rng(5), "mean")

        def reason(patients: np.ndarray | None) -> str:
            level = choose_level(labels, probabilities, slides, patients, level="slide", image_threshold=0.5, seed=0)
            return fitted(level).reason

        assert "over 120 slides" in reason(None)
        assert "over 30 patients" in reason(slides // 4)


class TestOneImageAUnit:
    @given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 60))
    @settings(max_examples=30)
    def test_is_decided_as_the_image_is(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        labels, probabilities = rng.integers(0, 2, size=n), rng.random(n)
        units = rng.permutation(n)
        for name in ("slide", "patient"):
            level = fitted(
                choose_level(
                    labels,
                    probabilities,
                    units,
                    None,
                    level=name,  # type: ignore[arg-type]
                    image_threshold=0.3,
                    seed=0,
                )
            )
            assert (level.pooling, level.calibration) == (MEAN, UNCALIBRATED)
            values = level.probability(probabilities, units, n)[units]
            np.testing.assert_array_equal(decide(values, level.threshold), decide(probabilities, 0.3))


class TestFewUnits:
    def test_are_decided_by_the_mean_and_the_images_threshold(self) -> None:
        drawn = draw_slides(np.random.default_rng(6), "one", n_slides=2 * LEAST_UNITS - 1)
        level = choose(drawn)
        assert (level.pooling, level.calibration, level.threshold) == (MEAN, UNCALIBRATED, 0.4)
        assert f"{LEAST_UNITS - 1} malignant slides" in level.reason
        assert choose(drawn, pooling="noisy_or").pooling == Pooling(method="noisy_or")
        assert choose(drawn, pooling="learned").pooling == MEAN

    def test_of_one_class_still_have_a_level(self) -> None:
        level = choose_level(
            np.ones(40, dtype=np.int64),
            np.full(40, 0.7),
            np.arange(40) // 2,
            None,
            level="patient",
            image_threshold=0.4,
            seed=0,
        )
        assert "0 benign patients" in fitted(level).reason

    def test_of_one_patient_cannot_be_divided_into_folds(self) -> None:
        labels, probabilities, slides = draw_slides(np.random.default_rng(7), "mean")
        level = fitted(
            choose_level(
                labels, probabilities, slides, np.zeros(len(slides)), level="slide", image_threshold=0.4, seed=0
            )
        )
        assert (level.pooling, level.threshold) == (MEAN, 0.4)
        assert "one patient cannot be divided" in level.reason


@pytest.mark.parametrize(
    ("labels", "units", "reason"),
    [
        ([0, 1, 1], ["a", "a", "b"], "1 of 2 slides have images of both classes"),
        ([1, 1, 1], ["a", "a", "a"], "one slide"),
    ],
)
def test_a_level_that_does_not_apply_says_why(labels: list[int], units: list[str], reason: str) -> None:
    level = choose_level(
        np.array(labels), np.full(3, 0.5), np.array(units), None, level="slide", image_threshold=0.5, seed=0
    )
    assert isinstance(level, str)
    assert reason in level


def test_what_cannot_be_is_refused() -> None:
    labels, values = np.array([0, 1]), np.array([0.1, 0.2])
    with pytest.raises(UnknownName, match="median"):
        choose_level(
            labels,
            values,
            np.arange(2),
            None,
            level="slide",
            pooling="median",  # type: ignore[arg-type]
            image_threshold=0.5,
            seed=0,
        )
    with pytest.raises(DataError):
        choose_level(
            labels, values, np.array(["a", None], dtype=object), None, level="slide", image_threshold=0.5, seed=0
        )


def test_top_k_takes_no_k_that_most_slides_do_not_have() -> None:
    level = choose(draw_slides(np.random.default_rng(8), "mean", images_each=4), pooling="top_k")
    assert level.pooling.k in (1, 3)
