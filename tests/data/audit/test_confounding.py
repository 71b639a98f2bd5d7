"""Shortcuts are planted, in the class and across the official split, and told with figure, example and severity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clearmargin.data.audit.confounding import find_confounding
from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources import read_source
from clearmargin.types import Finding, Listener

Cohort = tuple[Manifest, pd.DataFrame]


def cohort(
    *,
    patients: int = 48,
    each: int = 4,
    known: bool = True,
    seed: int = 0,
    facts: Callable[[pd.DataFrame], dict[str, object]] = lambda _: {},
    columns: Callable[[pd.DataFrame], dict[str, object]] = lambda _: {},
) -> Cohort:
    """Patients of one class with facts that say nothing of it; a few facts or columns are set from `row`.

    The table given to `facts` and `columns` has `label`, `patient` and `number`.
    """
    generator = np.random.default_rng(seed)
    row = pd.DataFrame({"patient": np.repeat(np.arange(patients), each), "number": np.tile(np.arange(each), patients)})
    row["label"] = generator.permutation(np.arange(patients) % 2)[row["patient"]]
    tint = generator.normal(0.6, 0.08, (patients, 4))[row["patient"]] + generator.normal(0, 0.02, (len(row), 4))
    table = {
        "path": [f"/data/{number}.png" for number in range(len(row))],
        "label": row["label"].tolist(),
        "patient_id": [f"P{patient:02}" if known else None for patient in row["patient"]],
        "width": [50] * len(row),
        "height": [50] * len(row),
    }
    table |= {name: np.asarray(values).tolist() for name, values in columns(row).items()}
    file_bytes = generator.uniform(1.6, 2.4, len(row)) * np.asarray(table["width"]) * np.asarray(table["height"])
    measured = pd.DataFrame(tint, columns=["red", "green", "blue", "spread"]).assign(
        file_bytes=file_bytes.astype(np.int64), format="PNG", channels=3, bit_depth=8
    )
    return build_manifest(table, root=Path("/data"), source="csv"), measured.assign(**facts(row))


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [finding.kind for finding in findings]
    return findings[0]


def kinds(cohort: Cohort) -> list[str]:
    return [finding.kind for finding in find_confounding(*cohort)]


class TestNothing:
    def test_facts_that_say_nothing_are_not_found_more_than_chance(self) -> None:
        found = [
            kinds(cohort(patients=patients, seed=seed, columns=lambda row: {"site": row["patient"] * 7 % 3}))
            for seed in range(10)
            for patients in (14, 40)
        ]
        assert sum(bool(each) for each in found) <= 1

    def test_one_class_is_nothing_to_tell_apart(self) -> None:
        assert kinds(cohort(columns=lambda row: {"label": row["label"] * 0})) == []

    def test_facts_are_not_changed(self) -> None:
        manifest, facts = cohort()
        before, rows = facts.copy(), manifest.frame.copy()
        find_confounding(manifest, facts)
        pd.testing.assert_frame_equal(facts, before)
        pd.testing.assert_frame_equal(manifest.frame, rows)


class TestClass:
    def test_a_wider_class_is_a_warning_with_figure_patients_and_example(self) -> None:
        def columns(row: pd.DataFrame) -> dict[str, object]:
            return {"width": 50 + 10 * ((row["label"] == 1) ^ (row["patient"] % 8 == 0))}

        finding = only(find_confounding(*cohort(columns=columns)))
        assert (finding.kind, finding.severity, finding.certainty, finding.count) == (
            "confounded_by_size",
            "warning",
            "likely",
            48,
        )
        for words in ("image size alone reaches AUROC 0.", "95 % interval 0.", "48 patients", "the width is "):
            assert words in finding.message
        assert "before training" in finding.fix

    def test_a_format_for_each_class_is_said_most_plainly(self) -> None:
        finding = only(find_confounding(*cohort(facts=lambda row: {"format": np.where(row["label"], "PNG", "JPEG")})))
        assert (finding.kind, finding.severity) == ("confounded_by_file", "warning")
        assert finding.message.startswith(
            "the file format is JPEG in every one of the benign images and PNG in every one of the malignant. "
            "A model can look perfect without looking at the tissue."
        )
        assert "AUROC 1.00 (95 % interval 0.93 to 1.00, 48 patients)" in finding.message

    @pytest.mark.parametrize(("fact", "values"), [("channels", (1, 3)), ("bit_depth", (16, 8))])
    def test_a_kind_of_pixel_for_each_class_is_found(self, fact: str, values: tuple[int, int]) -> None:
        finding = only(find_confounding(*cohort(facts=lambda row: {fact: np.where(row["label"], *values)})))
        assert (finding.kind, finding.severity) == ("confounded_by_file", "warning")

    @pytest.mark.parametrize("column", ["site", "view"])
    def test_a_place_that_has_mostly_one_class_is_found(self, column: str) -> None:
        def columns(row: pd.DataFrame) -> dict[str, object]:
            return {column: np.where((row["label"] == 1) ^ (row["patient"] % 10 == 0), "north", "south")}

        finding = only(find_confounding(*cohort(columns=columns)))
        assert (finding.kind, finding.severity) == (f"confounded_by_{column}", "warning")
        assert f"the {column} is north in " in finding.message

    def test_a_site_that_is_named_for_one_class_only_is_found(self) -> None:
        finding = only(
            find_confounding(*cohort(columns=lambda row: {"site": [None if label else "A" for label in row["label"]]}))
        )
        assert finding.kind == "confounded_by_site"
        assert "A in every one of the benign images and not given in every one of the malignant" in finding.message

    def test_colour_is_a_note_that_gives_the_figure_to_beat_and_says_that_it_may_be_biology(self) -> None:
        manifest, facts = cohort(patients=80)
        facts["red"] -= 0.25 * manifest.labels()
        finding = only(find_confounding(manifest, facts))
        assert (finding.kind, finding.severity, finding.certainty) == ("confounded_by_colour", "note", "likely")
        assert "a trivial classifier of mean colour alone reaches AUROC" in finding.message
        assert "a model must beat that" in finding.message
        assert "Colour can be biology" in finding.message
        assert "the mean red has the median" in finding.message
        assert finding.fix == "Report this figure beside the model's."

    def test_colour_that_tells_all_stays_a_note(self) -> None:
        manifest, facts = cohort()
        facts["red"] = 0.2 + 0.5 * manifest.labels() + 0.1 * facts["red"]
        finding = only(find_confounding(manifest, facts))
        assert (finding.kind, finding.severity) == ("confounded_by_colour", "note")
        assert finding.message.startswith("the mean red of every benign image is below that of every malignant one.")

    def test_file_size_is_a_note_until_it_is_beyond_what_texture_does(self) -> None:
        manifest, facts = cohort(patients=120)
        shifted = facts.assign(file_bytes=facts["file_bytes"] + 900 * manifest.frame["label"].astype(int))
        finding = only(find_confounding(manifest, shifted))
        assert (finding.kind, finding.severity) == ("confounded_by_file_size", "note")
        assert "can come from the tissue" in finding.message
        apart = facts.assign(file_bytes=facts["file_bytes"] + 2_500 * manifest.frame["label"].astype(int))
        finding = only(find_confounding(manifest, apart))
        assert (finding.kind, finding.severity) == ("confounded_by_file_size", "warning")

    def test_few_patients_make_it_possible_only(self) -> None:
        finding = only(find_confounding(*cohort(patients=30, columns=lambda row: {"width": 50 + 10 * row["label"]})))
        assert finding.certainty == "possible"

    def test_without_patients_each_image_counts_and_it_is_said(self) -> None:
        data = cohort(patients=90, each=1, known=False, columns=lambda row: {"height": 50 + 10 * row["label"]})
        finding = only(find_confounding(*data))
        assert finding.count == 90
        assert "90 images without a patient" in finding.message
        assert "may be optimistic" in finding.message

    def test_some_patients_unknown_is_said_too(self) -> None:
        manifest, facts = cohort(columns=lambda row: {"height": 50 + 10 * row["label"]})
        manifest.frame.loc[:9, "patient_id"] = None
        finding = only(find_confounding(manifest, facts))
        assert "46 patients and 10 images without a patient" in finding.message

    def test_of_very_many_patients_a_random_part_is_tried_and_it_is_said(self) -> None:
        finding = only(
            find_confounding(*cohort(patients=6_000, each=1, columns=lambda row: {"width": row["label"] + 9}))
        )
        assert "5,000 at random of 6,000 patients)" in finding.message

    def test_too_few_patients_are_told_instead_of_guessed(self) -> None:
        finding = only(find_confounding(*cohort(patients=10)))
        assert (finding.kind, finding.severity, finding.count) == ("confounding_unchecked", "note", 5)
        assert "are of 5 patients, and 6 on each side are the least" in finding.message

    def test_a_rule_without_exception_is_told_even_of_few_patients(self) -> None:
        rule, unchecked = find_confounding(
            *cohort(patients=6, facts=lambda row: {"format": np.where(row["label"], "PNG", "JPEG")})
        )
        assert (rule.kind, rule.severity, rule.certainty) == ("confounded_by_file", "warning", "possible")
        assert "With 6 patients it may be chance." in rule.message
        assert unchecked.kind == "confounding_unchecked"


class TestSplit:
    @staticmethod
    def split(row: pd.DataFrame) -> np.ndarray:
        return np.where(row["patient"] % 3 == 0, "test", np.where(row["patient"] % 3 == 1, "train", "validation"))

    def test_an_even_split_is_no_finding(self) -> None:
        assert kinds(cohort(columns=lambda row: {"official_split": self.split(row)})) == []

    def test_a_test_part_of_another_site_is_a_warning(self) -> None:
        def columns(row: pd.DataFrame) -> dict[str, object]:
            split = self.split(row)
            return {"official_split": split, "site": np.where(split == "test", "south", "north")}

        finding = only(find_confounding(*cohort(columns=columns)))
        assert (finding.kind, finding.severity) == ("split_differs_by_site", "warning")
        assert finding.message.startswith(
            "the site is north in every one of the training images and south in every one of the test."
        )
        assert "clearmargin split DATA --by patient" in finding.fix

    def test_a_test_part_that_is_darker_is_a_note(self) -> None:
        manifest, facts = cohort(patients=90, columns=lambda row: {"official_split": self.split(row)})
        facts["green"] -= 0.25 * (manifest.frame["official_split"] == "test")
        finding = only(find_confounding(manifest, facts))
        assert (finding.kind, finding.severity) == ("split_differs_by_colour", "note")
        assert "the training and the test images of the official split differ in mean colour" in finding.message
        assert "the mean green has the median" in finding.message

    def test_images_without_a_place_are_left_out(self) -> None:
        def columns(row: pd.DataFrame) -> dict[str, object]:
            split = np.where(row["patient"] % 2, None, self.split(row))
            return {"official_split": split, "width": np.where(row["patient"] % 2, 70 + row["number"], 50)}

        assert kinds(cohort(patients=80, columns=columns)) == []

    def test_a_small_test_part_is_told_as_unchecked(self) -> None:
        finding = only(
            find_confounding(
                *cohort(columns=lambda row: {"official_split": np.where(row["patient"] < 4, "test", "train")})
            )
        )
        assert (finding.kind, finding.count) == ("split_difference_unchecked", 4)


class TestResult:
    def test_the_listener_hears_every_family(self) -> None:
        class Heard(Listener):
            def __init__(self) -> None:
                self.calls: list[tuple[int, int]] = []

            def advance(self, done: int, total: int) -> None:
                self.calls.append((done, total))

        heard = Heard()
        find_confounding(*cohort(columns=lambda row: {"official_split": TestSplit.split(row)}), listener=heard)
        assert heard.calls == [(done, 12) for done in range(1, 13)]

    def test_the_same_seed_gives_the_same_findings(self) -> None:
        data = cohort(columns=lambda row: {"width": 50 + row["label"] * (row["patient"] % 4 > 0)})
        assert find_confounding(*data, seed=4) == find_confounding(*data, seed=4)

    def test_messages_are_one_line(self) -> None:
        data = cohort(facts=lambda row: {"format": np.where(row["label"], "PNG", "JPEG")})
        assert "\n" not in "".join(finding.message + finding.fix for finding in find_confounding(*data))


def measure(manifest: Manifest) -> Cohort:
    """Facts of images that Pillow reads, measured here again and simply."""
    rows = []
    for path in manifest.frame["path"]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
            facts = (Path(path).stat().st_size, image.format, len(image.getbands()), 8)
        rows.append((*facts, *pixels.mean(axis=(0, 1)), pixels.mean(axis=2).std(), pixels.shape[1], pixels.shape[0]))
    names = ["file_bytes", "format", "channels", "bit_depth", "red", "green", "blue", "spread", "width", "height"]
    facts = pd.DataFrame(rows, columns=names)
    for name in ("width", "height"):
        manifest.frame[name] = facts[name].astype("Int64")
    return manifest, facts


@pytest.mark.real
class TestRealData:
    def test_idc_mean_colour_is_hard_to_beat_and_size_says_nothing(self, real_data: Path) -> None:
        found = {finding.kind: finding for finding in find_confounding(*measure(read_source(real_data / "idc")))}
        assert set(found) == {"confounded_by_colour", "confounded_by_file_size"}
        assert all((finding.severity, finding.certainty) == ("note", "possible") for finding in found.values())
        assert "reaches AUROC 0.86 (95 % interval 0.6" in found["confounded_by_colour"].message
        assert "reaches AUROC 0.76" in found["confounded_by_file_size"].message

    def test_busi_size_tells_the_class(self, real_data: Path) -> None:
        finding = only(find_confounding(*measure(read_source(real_data / "busi"))))
        assert (finding.kind, finding.severity) == ("confounded_by_size", "warning")
        assert "images without a patient" in finding.message
