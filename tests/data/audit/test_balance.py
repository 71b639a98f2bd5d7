"""How the classes are spread: what a majority guess scores, and what is odd in sites, splits and patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clearmargin.data.audit.balance import find_imbalance, find_small_classes
from clearmargin.data.audit.checks import CHECKS
from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources import read_source
from clearmargin.types import Finding

Row = tuple[str | None, int]


def table(rows: Sequence[Row], **columns: Sequence[object]) -> Manifest:
    """A manifest of (patient, label) rows."""
    content = {
        "path": [f"/data/{number}.png" for number in range(len(rows))],
        "patient_id": [patient for patient, _ in rows],
        "label": [label for _, label in rows],
    }
    return build_manifest({**content, **columns}, root=Path("/data"), source="csv")


def pure(benign: int, malignant: int, each: int = 3) -> list[Row]:
    """Patients of one class each, with so many images."""
    classes = [0] * benign + [1] * malignant
    return [(f"P{patient:02}", label) for patient, label in enumerate(classes) for _ in range(each)]


def odd(manifest: Manifest) -> list[Finding]:
    """What is found beside the note that is always there."""
    first, *rest = find_imbalance(manifest)
    assert (first.kind, first.severity) == ("class_balance", "note")
    return rest


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [finding.kind for finding in findings]
    return findings[0]


class TestSmallClasses:
    def test_it_is_one_of_the_checks(self) -> None:
        assert find_small_classes in CHECKS

    @pytest.mark.parametrize(("count", "kinds"), [(0, ["missing_class"]), (19, ["tiny_class"]), (20, [])])
    def test_a_class_without_images_blocks_and_a_tiny_one_warns(self, count: int, kinds: list[str]) -> None:
        found = find_small_classes(table([("A", 0)] * 30 + [("B", 1)] * count))
        assert [finding.kind for finding in found] == kinds
        assert all(finding.severity == ("warning" if count else "blocking") for finding in found)


class TestBalance:
    def test_the_note_counts_images_patients_and_what_a_guess_scores(self) -> None:
        rows = [*pure(6, 2), ("M", 0), ("M", 1), ("M", 0)]
        finding = only(find_imbalance(table(rows))[:1])
        assert finding.message == (
            "20 images are benign (74 %) and 7 malignant (26 %). Of 9 patients, 6 have benign images only, "
            "2 malignant only and 1 both. Always saying benign has an accuracy of 0.74 and a balanced accuracy of 0.50."
        )
        assert finding.count == 27

    def test_patients_that_are_not_known_are_not_counted(self) -> None:
        finding = only(find_imbalance(table([(None, 0), (None, 1), (None, 1)])))
        assert "patient" not in finding.message
        assert "Always saying malignant has an accuracy of 0.67" in finding.message

    def test_one_class_has_no_guess_and_no_image_no_note(self) -> None:
        assert "Always" not in only(find_imbalance(table([("A", 0)] * 5))).message
        assert find_imbalance(table([("A", 0)]).keep(np.array([False]))) == []


class TestSites:
    def test_a_site_with_one_class_is_a_warning_with_its_images(self) -> None:
        rows = pure(20, 20, each=2)
        sites = ["south" if number >= 40 + 20 else "north" for number in range(len(rows))]
        finding = only(odd(table(rows, site=sites)))
        assert (finding.kind, finding.severity, finding.certainty) == ("site_without_class", "warning", "likely")
        assert "site 'south' has no benign image among 20 (10 patients)" in finding.message
        assert len(finding.paths) == finding.count == 20

    def test_a_site_of_few_patients_may_have_one_class_by_chance(self) -> None:
        rows = pure(20, 20, each=2)
        assert odd(table(rows, site=["south" if number >= 80 - 8 else "north" for number in range(len(rows))])) == []

    def test_a_site_may_lack_a_rare_class_by_chance(self) -> None:
        rows = pure(95, 5, each=1)
        assert odd(table(rows, site=["south" if number < 30 else "north" for number in range(len(rows))])) == []


class TestSplits:
    def test_a_part_without_a_class_is_a_warning(self) -> None:
        rows = pure(10, 10)
        finding = only(odd(table(rows, official_split=["test" if n < 12 else "train" for n in range(len(rows))])))
        assert (finding.kind, finding.severity, finding.count) == ("split_without_class", "warning", 12)
        assert "the test part of the official split has no malignant image among 12" in finding.message

    @pytest.mark.parametrize(("malignant", "severity"), [(58, None), (70, "note"), (76, "warning")])
    def test_shares_that_differ_beyond_chance_are_told(self, malignant: int, severity: str | None) -> None:
        train, test = pure(100, 100), pure(100 - malignant, malignant)
        rows = train + [(f"T{patient}", label) for patient, label in test]
        split = ["train"] * len(train) + ["test"] * len(test)
        found = odd(table(rows, official_split=split))
        if severity is None:
            assert found == []
        else:
            finding = only(found)
            assert (finding.kind, finding.severity, finding.certainty) == ("split_class_shares", severity, "likely")
            assert f"test {malignant} %, train 50 %" in finding.message
            assert "over 300 patients" in finding.message

    def test_the_same_shares_of_images_are_not_enough_when_they_are_of_few_patients(self) -> None:
        train, test = pure(5, 5, each=100), pure(1, 4, each=100)
        rows = train + [(f"T{patient}", label) for patient, label in test]
        split = ["train"] * len(train) + ["test"] * len(test)
        assert odd(table(rows, official_split=split)) == []
        unknown = only(odd(table([(None, label) for _, label in rows], official_split=split)))
        assert unknown.kind == "split_class_shares"
        assert "1,500 images, patients not known" in unknown.message

    def test_a_random_split_is_seldom_told(self) -> None:
        told = 0
        for seed in range(200):
            generator = np.random.default_rng(seed)
            sizes, shares = generator.integers(1, 40, 60), generator.beta(0.5, 1, 60)
            rows = [
                (f"P{patient}", int(generator.random() < shares[patient]))
                for patient in range(60)
                for _ in range(sizes[patient])
            ]
            part = generator.permutation(60) % 5
            split = ["test" if part[int(str(patient)[1:])] == 0 else "train" for patient, _ in rows]
            told += bool(odd(table(rows, official_split=split)))
        assert told <= 12


class TestPatientsInTwoClasses:
    def test_few_of_many_are_named(self) -> None:
        rows = [*pure(20, 20), ("13412", 0), ("13412", 1), ("13412", 1)]
        finding = only(odd(table(rows)))
        assert (finding.kind, finding.severity, finding.certainty) == ("patient_in_two_classes", "warning", "possible")
        assert "1 patient has benign and malignant images, where 40 of 41 have one class: '13412'." in finding.message
        assert "Patient '13412' has 1 benign and 2 malignant" in finding.message
        assert (finding.count, len(finding.paths)) == (1, 3)

    def test_many_names_are_cut_short(self) -> None:
        rows = pure(40, 40) + [(f"X{number}", label) for number in range(5) for label in (0, 1)]
        assert "'X0', 'X1', 'X2' and 2 more." in only(odd(table(rows))).message

    def test_where_patients_have_both_it_is_no_mistake(self) -> None:
        assert odd(table([(f"P{patient}", label) for patient in range(20) for label in (0, 1)])) == []
        assert odd(table([*pure(9, 9), ("X", 0), ("X", 1), ("Y", 0), ("Y", 1)])) == []

    def test_two_breasts_may_differ_and_one_may_not(self) -> None:
        rows = [*pure(20, 20), ("X", 0), ("X", 1)]
        sides = ["left"] * 120
        assert odd(table(rows, side=[*sides, "left", "right"])) == []
        assert only(odd(table(rows, side=[*sides, "left", "left"]))).kind == "patient_in_two_classes"

    def test_patients_with_one_image_prove_nothing(self) -> None:
        assert odd(table([*pure(30, 30, each=1), *pure(2, 2), ("X", 0), ("X", 1)])) == []


@pytest.mark.real
class TestRealData:
    def test_idc_has_both_classes_in_every_patient(self, real_data: Path) -> None:
        finding = only(find_imbalance(read_source(real_data / "idc")))
        assert "13,057 images are benign (75 %) and 4,280 malignant (25 %)" in finding.message
        assert "Of 16 patients, 0 have benign images only, 0 malignant only and 16 both" in finding.message
