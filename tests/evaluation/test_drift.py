"""A shift is found where there is one, and not where there are only other patients."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import stats

from clearmargin.evaluation import drift
from clearmargin.evaluation.drift import build_reference, compare_with_reference, describe_images
from clearmargin.reference import STEPS, Reference

Floats = NDArray[np.float64]
TRAINING_PATIENTS = 60


def draw_population(
    seed: int, n_patients: int, *, images_each: int = 12, shift: float = 0.0
) -> tuple[dict[str, Floats], Floats, NDArray[np.int64]]:
    """Statistics of three shapes (even, skewed, mostly nothing), of which most is between patients, and a score."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), images_each)
    own, noise = rng.normal(size=(5, n_patients)), rng.normal(size=(5, len(patients)))
    values = own[:, patients] * 0.8 + noise * 0.6
    statistics = {
        "brightness": 0.6 + 0.1 * (values[0] + shift),
        "red": 0.7 + 0.1 * (0.7 * values[0] + 0.7 * values[1]),
        "near_white": np.exp(values[2] - 3),
        "near_black": np.maximum(0, values[3] - 1) * 0.02,
    }
    return statistics, 1 / (1 + np.exp(-2 * values[4])), patients


def reference_of(seed: int, n_patients: int = TRAINING_PATIENTS) -> Reference:
    statistics, scores, patients = draw_population(seed, n_patients)
    held_out = patients < n_patients // 3
    return build_reference(
        statistics, patients=patients, probabilities=scores[held_out], held_out_patients=patients[held_out]
    )


def shifted(reference: Reference, seed: int, n_patients: int, *, shift: float = 0.0, known: bool = True) -> set[str]:
    statistics, scores, patients = draw_population(seed, n_patients, shift=shift)
    drift = compare_with_reference(reference, statistics, scores, patients if known else None)
    return {entry["name"] for entry in [*drift["inputs"], drift["score"]] if entry["verdict"] == "shifted"}


class TestDescribeImages:
    def test_every_statistic_is_what_it_says(self) -> None:
        image = np.zeros((1, 2, 2, 3), dtype=np.uint8)
        image[0, 0] = 255  # white above, black below
        found = {name: float(values[0]) for name, values in describe_images(image).items()}
        assert found == pytest.approx(
            {
                **dict.fromkeys(("brightness", "red", "green", "blue", "contrast", "near_white", "near_black"), 0.5),
                "colourfulness": 0.0,
                "sharpness": 1.0,  # of four pairs of neighbours two differ, by two contrasts
            }
        )
        image[0] = (255, 0, 51)
        found = {name: float(values[0]) for name, values in describe_images(image).items()}
        assert found["colourfulness"] == found["red"] == pytest.approx(1.0)
        assert found["blue"] == pytest.approx(0.2)
        assert found["contrast"] == pytest.approx(0.0, abs=1e-6)
        assert found["sharpness"] == 0.0

    def test_grey_images_have_no_colours(self) -> None:
        assert "red" not in describe_images(np.zeros((2, 3, 3, 1), dtype=np.uint8))

    def test_chunks_do_not_show(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (700, 40, 40, 3), dtype=np.uint8)
        together = describe_images(images)
        for name, values in describe_images(images[600:]).items():
            np.testing.assert_allclose(together[name][600:], values, rtol=1e-5)

    def test_blur_lowers_sharpness_and_nothing_else_much(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), dtype=np.uint8)
        blurred = ((images[:, :-1].astype(int) + images[:, 1:]) // 2).astype(np.uint8)
        before, after = describe_images(images), describe_images(blurred)
        assert (after["sharpness"] < 0.9 * before["sharpness"]).all()
        np.testing.assert_allclose(after["brightness"], before["brightness"], atol=0.02)

    def test_no_image_has_every_name_and_no_value(self) -> None:
        found = describe_images(np.empty((0, 8, 8, 3), dtype=np.uint8))
        assert {len(values) for values in found.values()} == {0}

    @pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 4), (2, 0, 8, 1)])
    def test_what_is_no_stack_of_images_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="is needed"):
            describe_images(np.zeros(shape, dtype=np.uint8))

    def test_takes_seconds_for_a_large_test_split(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (4_000, 50, 50, 3), dtype=np.uint8)
        start = time.process_time()
        describe_images(images)
        assert time.process_time() - start < 3  # 0.3 s where nothing else runs


class TestReference:
    def test_comes_back_from_json_as_it_was(self) -> None:
        reference = reference_of(0)
        text = reference.model_dump_json()
        assert Reference.model_validate_json(text) == reference
        assert len(text) < 10_000
        assert reference.unit == "patient"

    def test_quantiles_that_fall_are_refused(self) -> None:
        stored = reference_of(0).model_dump()
        stored["images"]["red"]["quantiles"] = stored["images"]["red"]["quantiles"][::-1]
        with pytest.raises(ValidationError, match="must not fall"):
            Reference.model_validate(stored)

    def test_finds_the_spread_between_and_within_patients_again(self) -> None:
        rng = np.random.default_rng(3)
        patients = np.repeat(np.arange(2_000), rng.integers(1, 9, size=2_000))
        values = 0.5 + 0.06 * rng.normal(size=2_000)[patients] + 0.08 * rng.normal(size=len(patients))
        found = build_reference(
            {"brightness": values}, patients=patients, probabilities=np.empty(0), held_out_patients=None
        ).images["brightness"]
        # Standardised, the whole spread of 0.1 is 1, less what the last ranks lose.
        assert found.between == pytest.approx(0.6, abs=0.07)
        assert found.within == pytest.approx(0.8, abs=0.07)

    def test_one_patient_has_no_spread_and_is_left_out(self) -> None:
        reference = build_reference(
            {"brightness": np.linspace(0, 1, 9)},
            patients=np.zeros(9, dtype=int),
            probabilities=np.linspace(0, 1, 9),
            held_out_patients=np.zeros(9, dtype=int),
        )
        assert reference.images == {}
        drift = compare_with_reference(reference, {}, np.array([0.5]), None)
        assert drift["score"] == {"not_applicable": "the bundle keeps no distribution of scores"}


class TestVerdict:
    @pytest.mark.parametrize("n_patients", [1, 3, 20])
    def test_other_patients_of_the_same_population_are_alike_95_times_in_100(self, n_patients: int) -> None:
        alarms = sum(bool(shifted(reference_of(seed), 10_000 + seed, n_patients)) for seed in range(300))
        # 300 studies leave a standard error of 1.3 %; where most values are 0 it is 6 % rather than 5 %.
        assert alarms / 300 <= 0.09

    def test_taking_images_for_patients_would_alarm_most_of_the_time(self) -> None:
        alarms = sum(bool(shifted(reference_of(seed), 10_000 + seed, 3, known=False)) for seed in range(40))
        assert alarms / 40 > 0.5

    def test_a_brighter_scanner_is_found_and_named(self) -> None:
        found = [shifted(reference_of(seed), 20_000 + seed, 10, shift=2.0) for seed in range(30)]
        assert sum("brightness" in names for names in found) >= 28
        assert sum("near_white" in names for names in found) <= 2

    def test_what_is_sure_but_small_is_alike(self) -> None:
        statistics, scores, _ = draw_population(0, 4_000, images_each=1)
        reference = build_reference(statistics, patients=None, probabilities=scores, held_out_patients=None)
        moved, scores, _ = draw_population(1, 4_000, images_each=1, shift=0.12)
        entry = compare_with_reference(reference, moved, scores, None)["inputs"][0]
        assert entry["p"] < 0.001
        assert entry["verdict"] == "alike"

    def test_colour_where_training_had_none_is_a_shift(self) -> None:
        grey = {"colourfulness": np.zeros(40)}
        reference = build_reference(
            grey, patients=np.arange(40) // 4, probabilities=np.empty(0), held_out_patients=None
        )
        drift = compare_with_reference(reference, {"colourfulness": np.full(6, 0.3)}, np.zeros(6), np.arange(6) // 2)
        assert drift["inputs"][0]["verdict"] == "shifted"
        same = compare_with_reference(reference, {"colourfulness": np.zeros(6)}, np.zeros(6), np.arange(6) // 2)
        assert (same["inputs"][0]["verdict"], same["inputs"][0]["ks"]) == ("alike", 0.0)

    def test_stained_images_under_another_scanner_are_found_by_their_pixels(self) -> None:
        rng = np.random.default_rng(5)

        def patches(n_patients: int, gain: float, tint: int) -> tuple[dict[str, Floats], NDArray[np.int64]]:
            patients = np.repeat(np.arange(n_patients), 5)
            base = np.array([190, 140, 180]) + rng.normal(scale=8, size=(n_patients, 1, 1, 3))[patients]
            texture = rng.normal(scale=20, size=(len(patients), 16, 16, 3))
            pixels = np.clip((base + texture) * gain - np.array([0, tint, 0]), 0, 255)
            return describe_images(pixels.astype(np.uint8)), patients

        statistics, patients = patches(30, 1.0, 0)
        reference = build_reference(statistics, patients=patients, probabilities=np.empty(0), held_out_patients=None)
        for gain, tint, name in ((0.85, 0, "brightness"), (1.0, 25, "colourfulness")):
            found, new_patients = patches(8, gain, tint)
            drift = compare_with_reference(reference, found, np.zeros(40), new_patients)
            assert name in {entry["name"] for entry in drift["inputs"] if entry["verdict"] == "shifted"}
        found, new_patients = patches(8, 1.0, 0)
        drift = compare_with_reference(reference, found, np.zeros(40), new_patients)
        assert {entry["verdict"] for entry in drift["inputs"]} == {"alike"}


class TestDescription:
    def test_ks_is_that_of_scipy_up_to_the_steps_of_the_reference(self) -> None:
        statistics, scores, patients = draw_population(0, 200)
        reference = build_reference(statistics, patients=patients, probabilities=scores, held_out_patients=patients)
        new, new_scores, new_patients = draw_population(1, 40, shift=1.0)
        drift = compare_with_reference(reference, new, new_scores, new_patients)
        for entry in drift["inputs"]:
            exact = stats.ks_2samp(statistics[entry["name"]], new[entry["name"]]).statistic
            assert entry["ks"] == pytest.approx(exact, abs=1 / (STEPS - 1))

    def test_ks_of_the_training_images_themselves_is_about_none_ties_or_not(self) -> None:
        statistics, scores, patients = draw_population(0, 200)
        reference = build_reference(statistics, patients=patients, probabilities=scores, held_out_patients=patients)
        drift = compare_with_reference(reference, statistics, scores, patients)
        for entry in [*drift["inputs"], drift["score"]]:
            assert entry["ks"] <= 0.05
            assert entry["shift"] == pytest.approx(0, abs=1e-9)
            assert entry["training"] == pytest.approx(entry["here"])

    def test_the_sentence_says_what_moved_and_how_many_patients_spoke(self) -> None:
        reference = reference_of(0)
        statistics, scores, patients = draw_population(1, 10, shift=2.5)
        text = compare_with_reference(reference, statistics, scores, patients)["text"]
        assert "brightness (+" in text
        assert "near_white" not in text
        statistics, scores, patients = draw_population(2, 7)
        text = compare_with_reference(reference, statistics, scores, patients)["text"]
        assert text == "No evidence of a shift: 7 patients of the same kind would differ as much by chance."
        assert "patients are unknown" in compare_with_reference(reference, statistics, scores, None)["text"].lower()

    def test_other_scores_are_not_taken_for_other_images(self) -> None:
        reference = reference_of(0)
        statistics, scores, patients = draw_population(3, 20)
        text = compare_with_reference(reference, statistics, 0.9 + scores / 10, patients)["text"]
        assert text.startswith("The scores are higher than on the images held out of training")
        assert "another share of malignant images" in text

    def test_what_cannot_be_compared_is_refused(self) -> None:
        statistics, scores, patients = draw_population(0, 5)
        with pytest.raises(ValueError, match="lack brightness, red"):
            compare_with_reference(reference_of(0), {}, scores, patients)
        with pytest.raises(ValueError, match="no image"):
            compare_with_reference(reference_of(0), statistics, np.empty(0), None)


def test_some_rows_are_described_as_if_they_were_all_and_never_copied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "_CHUNK_PIXELS", 3 * 8 * 8)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    rows = np.random.default_rng(1).permutation(40)[:25]
    seen = []
    describe = drift._describe_chunk
    monkeypatch.setattr(drift, "_describe_chunk", lambda chunk: seen.append(len(chunk)) or describe(chunk))
    some = describe_images(images, rows)
    assert max(seen) == 3
    for name, values in describe_images(images[rows]).items():
        np.testing.assert_array_equal(some[name], values)
