"""Splits: nobody and nothing on two sides, both classes everywhere, the same whatever the order of the rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clearmargin.data.audit import audit_manifest
from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.sources import read_source
from clearmargin.data.split import (
    Assignment,
    check_split,
    fold_manifest,
    official_split,
    read_split,
    split_manifest,
)
from clearmargin.errors import DataError, SplitError, UsageError
from clearmargin.types import SPLITS

Build = Callable[..., Path]
Counts = Sequence[tuple[int, int]]
ROOT = Path("/data")
FRACTIONS = (0.8, 0.1, 0.1)


def cohort(
    counts: Counts, *, known: bool = True, official: Sequence[str | None] | None = None, root: Path = ROOT
) -> Manifest:
    """A manifest with so many benign and malignant images of each patient, all of them different."""
    rows = [
        (f"{root}/P{patient:03}/{label}/{number}.png", label, f"P{patient:03}", patient)
        for patient, of_class in enumerate(counts)
        for label in (0, 1)
        for number in range(of_class[label])
    ]
    manifest = build_manifest(
        {
            "path": [row[0] for row in rows],
            "label": [row[1] for row in rows],
            "patient_id": [row[2] if known else None for row in rows],
            "official_split": [None if official is None else official[row[3]] for row in rows],
        },
        root=root,
        source="csv",
    )
    return replace(manifest, frame=manifest.frame.assign(sha256=[f"{number:064x}" for number in range(len(rows))]))


def shuffled(manifest: Manifest, seed: int = 1) -> Manifest:
    return replace(manifest, frame=manifest.frame.sample(frac=1, random_state=seed).reset_index(drop=True))


def with_copies(manifest: Manifest, pairs: Sequence[tuple[int, int]]) -> Manifest:
    """The manifest in which the rows of each pair are identical images."""
    contents = manifest.frame["sha256"].tolist()
    for first, second in pairs:
        contents[second] = contents[first]
    return replace(manifest, frame=manifest.frame.assign(sha256=contents))


def by_path(assignment: Assignment) -> dict[str, str]:
    return dict(zip(assignment.manifest.frame["path"], assignment.splits.tolist(), strict=True))


def assert_honest(assignment: Assignment, *, by: str = "patient") -> None:
    """Every image placed once, both classes in each part, no patient and no content in two parts."""
    frame = assignment.manifest.frame.assign(split=assignment.splits)
    assert set(frame["split"]) == set(SPLITS)
    assert sum(len(assignment.rows(name)) for name in SPLITS) == len(frame)
    assert (frame.groupby("split")["label"].nunique() == 2).all()
    assert frame.groupby("sha256")["split"].nunique().max() == 1
    if by == "patient":
        assert frame.groupby("patient_id")["split"].nunique().max() == 1
    check_split(assignment)


counts_of_patients = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(any), min_size=1, max_size=40)


def can_be_split(counts: Counts, sizes_at_least: tuple[int, ...] = (1, 1, 2)) -> bool:
    """The oracle: whether parts of at least such numbers of patients can all have both classes."""
    mixed = sum(benign > 0 and malignant > 0 for benign, malignant in counts)
    pure = [sum((count > 0) and (other == 0) for count, other in of) for of in (counts, [c[::-1] for c in counts])]
    if len(counts) < sum(sizes_at_least):
        return False
    pairs_needed = max(0, len(sizes_at_least) - mixed)
    return min(pure) >= pairs_needed


class TestByPatient:
    @settings(max_examples=100, deadline=None)
    @given(counts=counts_of_patients, seed=st.integers(0, 5))
    def test_is_honest_whenever_that_is_possible_and_an_error_otherwise(self, counts: Counts, seed: int) -> None:
        manifest = cohort(counts)
        if can_be_split(counts):
            assert_honest(split_manifest(manifest, seed=seed))
        else:
            with pytest.raises(SplitError, match="patient"):
                split_manifest(manifest, seed=seed)

    @settings(max_examples=40, deadline=None)
    @given(counts=counts_of_patients, seed=st.integers(0, 5), order=st.integers(0, 1000))
    def test_the_same_seed_gives_the_same_split_in_any_order_of_rows(
        self, counts: Counts, seed: int, order: int
    ) -> None:
        assume(can_be_split(counts))
        manifest = cohort(counts)
        first = split_manifest(manifest, seed=seed)
        again = split_manifest(shuffled(manifest, order), seed=seed)
        assert by_path(again) == by_path(first)
        assert again.sha256 == first.sha256

    def test_another_seed_gives_another_split(self) -> None:
        manifest = cohort([(3, 3)] * 40)
        assert len({split_manifest(manifest, seed=seed).sha256 for seed in range(8)}) == 8

    @settings(max_examples=40, deadline=None)
    @given(
        counts=st.lists(st.tuples(st.integers(5, 15), st.integers(5, 15)), min_size=40, max_size=80),
        fractions=st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.25, 0.25), (0.7, 0.1, 0.2)]),
    )
    def test_shares_are_near_the_fractions(self, counts: Counts, fractions: tuple[float, float, float]) -> None:
        assignment = split_manifest(cohort(counts), fractions=fractions)
        labels, patients = assignment.manifest.labels(), assignment.counts()["patients"]
        for name, share in zip(SPLITS, fractions, strict=True):
            rows = assignment.rows(name)
            assert abs(patients[name] - share * len(counts)) <= 1
            assert abs(len(rows) / len(labels) - share) < 0.03
            for label in (0, 1):
                assert abs((labels[rows] == label).sum() / (labels == label).sum() - share) < 0.04

    @pytest.mark.parametrize("fractions", [(0.98, 0.01, 0.01), (0.1, 0.8, 0.1), (0.34, 0.33, 0.33)])
    @pytest.mark.parametrize("patients", [4, 5, 8, 9, 10, 17, 100])
    def test_any_fractions_of_any_number_of_patients(
        self, patients: int, fractions: tuple[float, float, float]
    ) -> None:
        assignment = split_manifest(cohort([(2, 2)] * patients), fractions=fractions)
        assert_honest(assignment)
        counts = assignment.counts()["patients"]
        least = 2 if patients >= 9 else 1  # a threshold from one patient is no threshold
        assert counts["train"] >= least
        assert counts["validation"] >= least
        assert counts["test"] >= 2
        assert sum(filter(None, counts.values())) == patients

    @pytest.mark.parametrize(("patients", "there"), [(1, "is only one patient"), (2, "are only 2"), (3, "are only 3")])
    def test_fewer_than_four_patients_are_too_few(self, patients: int, there: str) -> None:
        with pytest.raises(SplitError) as caught:
            split_manifest(cohort([(9, 9)] * patients))
        message = str(caught.value)
        assert there in message
        assert "at least 4 (1 in train, 1 in validation, 2 in test)" in message
        assert "--by image (optimistic, and stamped so)" in message

    def test_four_patients_are_enough_when_the_classes_allow(self) -> None:
        assert split_manifest(cohort([(2, 2)] * 4)).counts()["patients"] == {"train": 1, "validation": 1, "test": 2}
        with pytest.raises(
            SplitError, match=r"no split of 4 patients into 3 parts has both classes in each part \(2 have"
        ):
            split_manifest(cohort([(2, 0), (2, 0), (0, 2), (0, 2)]))

    @pytest.mark.parametrize("each", [3, 4, 5, 12])
    def test_patients_of_one_class_each(self, each: int) -> None:
        assignment = split_manifest(cohort([(4, 0)] * each + [(0, 4)] * each))
        assert_honest(assignment)
        frame = assignment.manifest.frame.assign(split=assignment.splits)
        malignant = frame.groupby("split")["label"].mean()
        assert malignant.between(0.3, 0.7).all()

    def test_a_class_of_three_patients_among_many_is_put_into_each_part(self) -> None:
        for seed in range(3):
            assert_honest(split_manifest(cohort([(3, 0)] * 3000 + [(0, 3)] * 3), seed=seed))

    def test_a_class_that_two_patients_have_cannot_be_in_three_parts(self) -> None:
        with pytest.raises(
            SplitError, match=r"\(30 have benign, 2 have malignant images\)\. Add patients of the rarer"
        ):
            split_manifest(cohort([(3, 0)] * 28 + [(3, 1)] * 2))

    def test_patients_that_are_not_known_are_asked_for_with_every_way_on(self) -> None:
        with pytest.raises(SplitError) as caught:
            split_manifest(cohort([(3, 3)] * 10, known=False))
        for words in ("60 of 60 images have no patient", "--patient-regex RE", "path,label,patient_id", "--by image"):
            assert words in str(caught.value)
        some = cohort([(3, 3)] * 10)
        frame = some.frame.assign(patient_id=some.frame["patient_id"].where(some.frame.index > 0))
        with pytest.raises(SplitError, match="1 of 60 images have no patient"):
            split_manifest(replace(some, frame=frame))

    def test_patients_with_an_identical_image_stay_together(self) -> None:
        manifest = cohort([(3, 3)] * 30)
        ends = [(0, 6 * 29), (6 * 29 + 1, 6 * 15), (7, 6 * 20)]  # a chain of three patients, and a pair
        for seed in range(10):
            assignment = split_manifest(with_copies(manifest, ends), seed=seed)
            assert_honest(assignment)
            of = assignment.manifest.frame.assign(split=assignment.splits).groupby("patient_id")["split"].first()
            assert of["P000"] == of["P029"] == of["P015"]
            assert of["P001"] == of["P020"]

    def test_without_content_hashes_patients_are_not_thrown_together(self) -> None:
        manifest = cohort([(3, 3)] * 10)
        unknown = replace(manifest, frame=manifest.frame.assign(sha256=pd.Series([None] * 60, dtype="str")))
        assert split_manifest(unknown).sha256 == split_manifest(manifest).sha256

    def test_a_set_like_idc_is_balanced_within_a_few_points(self) -> None:
        generator = np.random.default_rng(0)
        sizes = generator.lognormal(4.2, 0.7, 279).astype(int) + 10
        shares = generator.beta(1.5, 3.5, 279)
        counts = [(int(n * (1 - p)) + 1, int(n * p) + 1) for n, p in zip(sizes, shares, strict=True)]
        assignment = split_manifest(cohort(counts))
        assert_honest(assignment)
        labels = assignment.manifest.labels()
        for name, share in zip(SPLITS, FRACTIONS, strict=True):
            rows = assignment.rows(name)
            assert abs(len(rows) / len(labels) - share) < 0.02
            assert abs(labels[rows].mean() - labels.mean()) < 0.02
        assert assignment.counts()["patients"] == {"train": 223, "validation": 28, "test": 28}


class TestByImage:
    @settings(max_examples=40, deadline=None)
    @given(
        n=st.tuples(st.integers(0, 40), st.integers(0, 40)),
        pairs=st.lists(st.tuples(st.integers(0, 79), st.integers(0, 79)), max_size=10),
        order=st.integers(0, 99),
    )
    def test_is_honest_about_pictures(self, n: tuple[int, int], pairs: list[tuple[int, int]], order: int) -> None:
        assume(sum(n) > 0)
        manifest = cohort([n], known=False)
        labels = manifest.labels()
        pairs = [(a, b) for a, b in pairs if max(a, b) < len(labels) and labels[a] == labels[b]]
        manifest = with_copies(manifest, pairs)
        distinct = manifest.frame.groupby("label")["sha256"].nunique()
        if len(distinct) == 2 and distinct.min() >= 3:
            assignment = split_manifest(manifest, by="image")
            assert_honest(assignment, by="image")
            assert assignment.protocol == "image"
            assert by_path(split_manifest(shuffled(manifest, order), by="image")) == by_path(assignment)
        else:
            with pytest.raises(SplitError, match="image"):
                split_manifest(manifest, by="image")

    def test_needs_no_patients_and_does_not_know_them(self) -> None:
        assignment = split_manifest(cohort([(50, 50)], known=False), by="image")
        assert assignment.counts() == {
            "patients": {"train": None, "validation": None, "test": None},
            "images": {"train": 80, "validation": 10, "test": 10},
        }

    def test_does_not_depend_on_where_the_root_is(self) -> None:
        counts = [(20, 20)] * 2
        first = split_manifest(cohort(counts), by="image")
        moved = split_manifest(cohort(counts, root=Path("/somewhere/else")), by="image")
        assert moved.splits.tolist() == first.splits.tolist()
        assert moved.sha256 == first.sha256

    def test_a_rare_class_among_many_images_is_put_into_each_part(self) -> None:
        assert_honest(split_manifest(cohort([(20_000, 3)], known=False), by="image"), by="image")


class TestOfficial:
    PARTS = ("train",) * 12 + ("validation",) * 3 + ("test",) * 4

    def test_is_kept_as_it_is(self) -> None:
        manifest = cohort([(2, 2)] * 19, official=self.PARTS)
        assignment = official_split(manifest)
        assert assignment.protocol == "official"
        assert assignment.splits.tolist() == manifest.frame["official_split"].tolist()
        assert assignment.sha256 == official_split(shuffled(manifest), seed=9).sha256

    def test_a_missing_validation_part_is_taken_from_train_and_test_stays_test(self) -> None:
        parts = ["train"] * 20 + ["test"] * 5
        manifest = cohort([(2, 2)] * 25, official=parts)
        assignment = official_split(manifest, fractions=(0.8, 0.1, 0.1))
        assert_honest(assignment)
        official = manifest.frame["official_split"].to_numpy()
        np.testing.assert_array_equal(assignment.splits == "test", official == "test")
        assert assignment.counts()["patients"] == {"train": 18, "validation": 2, "test": 5}
        assert by_path(official_split(shuffled(manifest))) == by_path(assignment)
        assert official_split(manifest, seed=1).sha256 != assignment.sha256

    def test_a_missing_validation_part_is_taken_by_image_where_that_is_asked_for(self) -> None:
        manifest = cohort([(20, 20)] * 2, known=False, official=["train", "test"])
        with pytest.raises(SplitError, match="--by image"):
            official_split(manifest)
        assignment = official_split(manifest, by="image")
        assert assignment.counts()["images"] == {"train": 36, "validation": 4, "test": 40}
        assert assignment.protocol == "official"

    def test_train_patients_that_share_an_image_stay_together(self) -> None:
        manifest = with_copies(cohort([(2, 2)] * 25, official=["train"] * 20 + ["test"] * 5), [(0, 4), (4, 8)])
        for seed in range(5):
            assert_honest(official_split(manifest, seed=seed))

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ((None,) * 19, "come with no official split"),
            (
                ("train",) * 15 + ("validation",) * 4,
                r"has no test part \(found train, validation\)\. .*--split split\.csv",
            ),
            (("train",) * 19, r"has no test part \(found train\)"),
            (("test",) * 19, r"has no train part \(found test\)"),
            (
                (*PARTS[:-1], None),
                r"4 images have no place in the official split, the first is '/data/P018/0/0\.png'\. ",
            ),
        ],
    )
    def test_a_part_that_cannot_be_made_up_for_is_an_error(self, parts: Sequence[str | None], message: str) -> None:
        with pytest.raises(SplitError, match=message):
            official_split(cohort([(2, 2)] * 19, official=parts))

    def test_a_patient_on_two_sides_is_an_error(self) -> None:
        manifest = cohort([(2, 2)] * 19, official=self.PARTS)
        splits = manifest.frame["official_split"].tolist()
        splits[0] = "test"
        crossing = replace(manifest, frame=manifest.frame.assign(official_split=splits))
        with pytest.raises(
            SplitError, match=r"patient 'P000' is in both 'test' and 'train' \(4 images\)\. Run \"clearm"
        ):
            official_split(crossing)

    def test_one_train_patient_cannot_give_validation(self) -> None:
        with pytest.raises(
            SplitError, match=r"there is only one patient; .* at least 2 \(1 in train, 1 in validation\)"
        ):
            official_split(cohort([(2, 2)] * 3, official=["train", "test", "test"]))

    def test_folders_on_disk_stay_what_they_are_called(self, make_folder: Build) -> None:
        source = make_folder(patients=12, per_class=2)
        root = source.with_name("archive")
        for number, patient in enumerate(sorted(source.iterdir())):
            part = ("train", "valid", "test")[number % 3]
            (root / part).mkdir(parents=True, exist_ok=True)
            patient.rename(root / part / patient.name)
        assignment = official_split(audit_manifest(read_source(root)).manifest)
        folders = [name.split("/")[0] for name in assignment.manifest.relative_paths()]
        expected = {"train": "train", "valid": "validation", "test": "test"}
        assert assignment.splits.tolist() == [expected[folder] for folder in folders]


class TestFolds:
    @settings(max_examples=40, deadline=None)
    @given(
        counts=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=6, max_size=30),
        folds=st.integers(2, 6),
        seed=st.integers(0, 3),
    )
    def test_each_patient_is_tested_once_and_classes_are_in_each_fold(
        self, counts: Counts, folds: int, seed: int
    ) -> None:
        manifest = cohort(counts)
        fold = fold_manifest(manifest, folds, seed=seed)
        frame = manifest.frame.assign(fold=fold)
        assert set(fold) == set(range(folds))
        assert frame.groupby("patient_id")["fold"].nunique().max() == 1
        assert (frame.groupby("fold")["label"].nunique() == 2).all()
        other = shuffled(manifest)
        again = dict(zip(other.frame["path"], fold_manifest(other, folds, seed=seed), strict=True))
        assert again == dict(zip(frame["path"], fold, strict=True))

    def test_identical_images_are_in_one_fold(self) -> None:
        manifest = with_copies(cohort([(3, 3)] * 12), [(0, 66), (66, 30)])
        fold = fold_manifest(manifest, 4)
        assert fold[0] == fold[66] == fold[30]
        by_image = with_copies(cohort([(30, 30)], known=False), [(0, 9), (9, 5), (40, 50)])
        fold = fold_manifest(by_image, 5, by="image")
        assert fold[0] == fold[9] == fold[5]
        assert fold[40] == fold[50]

    def test_classes_are_stratified(self) -> None:
        generator = np.random.default_rng(0)
        manifest = cohort([(int(b), int(m)) for b, m in generator.integers(5, 30, (60, 2))])
        fold, labels = fold_manifest(manifest, 5), manifest.labels()
        for number in range(5):
            assert abs(labels[fold == number].mean() - labels.mean()) < 0.04
            assert abs((fold == number).mean() - 0.2) < 0.04

    def test_fewer_than_two_folds(self) -> None:
        with pytest.raises(UsageError, match="--folds 1: give 2 or more"):
            fold_manifest(cohort([(2, 2)] * 5), 1)

    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            ([(2, 2)] * 3, "only 3 patients have benign images, which cannot make 5 folds .*give --folds 3 or fewer"),
            ([(2, 0)] * 9 + [(2, 2)] * 4, "only 4 patients have malignant images.*give --folds 4 or fewer"),
            ([(2, 0)] * 9, "only 0 patients have malignant images.*give --folds 2 or fewer, or add patients"),
        ],
    )
    def test_too_few_patients_for_the_folds(self, counts: Counts, message: str) -> None:
        with pytest.raises(SplitError, match=message):
            fold_manifest(cohort(counts), 5)

    def test_patients_that_are_not_known(self) -> None:
        with pytest.raises(SplitError, match="40 of 40 images have no patient"):
            fold_manifest(cohort([(20, 20)], known=False), 3)


class TestFromCsv:
    @pytest.fixture
    def manifest(self) -> Manifest:
        return cohort([(2, 2)] * 12)

    def write(self, folder: Path, table: pd.DataFrame) -> Path:
        file = folder / "split.csv"
        table.to_csv(file, index=False)
        return file

    def test_a_written_split_is_read_again(self, manifest: Manifest, tmp_path: Path) -> None:
        assignment = split_manifest(manifest)
        again = read_split(self.write(tmp_path, assignment.table()), shuffled(manifest))
        assert by_path(again) == by_path(assignment)
        assert again.sha256 == assignment.sha256
        assert again.protocol == "patient"

    def test_paths_seen_from_the_root_and_patients_are_keys_too(self, manifest: Manifest, tmp_path: Path) -> None:
        assignment = split_manifest(manifest)
        relative = pd.DataFrame({"path": manifest.relative_paths(), "split": assignment.splits})
        assert read_split(self.write(tmp_path, relative), manifest).sha256 == assignment.sha256
        patients = assignment.table()[["patient_id", "split"]].drop_duplicates()
        assert len(patients) == 12
        assert read_split(self.write(tmp_path, patients), manifest).sha256 == assignment.sha256

    def test_names_of_parts_as_folders_have_them(self, manifest: Manifest, tmp_path: Path) -> None:
        assignment = split_manifest(manifest)
        names = {"train": "Training", "validation": "valid", "test": "TEST"}
        table = assignment.table().assign(split=[names[split] for split in assignment.splits])
        assert read_split(self.write(tmp_path, table), manifest).sha256 == assignment.sha256

    def test_rows_for_files_that_are_not_there_are_passed_over(self, manifest: Manifest, tmp_path: Path) -> None:
        table = split_manifest(manifest).table()
        file = self.write(tmp_path, pd.concat([table, table.assign(path=table["path"] + ".bak")]))
        assert len(read_split(file, manifest).splits) == len(manifest)

    def test_images_without_a_row_are_an_error(self, manifest: Manifest, tmp_path: Path) -> None:
        file = self.write(tmp_path, split_manifest(manifest).table().iloc[:-3])
        with pytest.raises(
            SplitError, match=r"3 of 48 images have no row, the first has the path '/data/P011/0/1\.png'"
        ):
            read_split(file, manifest)

    def test_a_patient_on_two_sides_is_an_error_unless_split_by_image(self, manifest: Manifest, tmp_path: Path) -> None:
        table = split_manifest(manifest).table()
        table.loc[0, "split"] = "train" if table.loc[0, "split"] == "test" else "test"
        file = self.write(tmp_path, table)
        with pytest.raises(
            SplitError, match=r"patient 'P000' is in both '\w+' and '\w+' \(4 images\)\. Run \"clearmargin"
        ):
            read_split(file, manifest)
        assert read_split(file, manifest, by="image").protocol == "image"

    @pytest.mark.parametrize("by", ["patient", "image"])
    def test_a_picture_on_two_sides_is_an_error(self, manifest: Manifest, tmp_path: Path, by: str) -> None:
        assignment = split_manifest(manifest)
        here, there = assignment.rows("train")[0], assignment.rows("test")[0]
        file = self.write(tmp_path, assignment.table())
        with pytest.raises(
            SplitError, match=r"identical copies are in both 'test' and 'train' \(2 images\)\. .*--fix-list"
        ):
            read_split(file, with_copies(manifest, [(here, there)]), by=by)  # type: ignore[arg-type]

    @pytest.mark.parametrize("key", ["path", "patient_id"])
    def test_patients_that_are_not_known_are_asked_for(self, tmp_path: Path, key: str) -> None:
        table = split_manifest(cohort([(2, 2)] * 12)).table()[[key, "split"]].drop_duplicates()
        with pytest.raises(SplitError, match="48 of 48 images have no patient"):
            read_split(self.write(tmp_path, table), cohort([(2, 2)] * 12, known=False))

    def test_a_part_without_a_class_is_an_error(self, manifest: Manifest, tmp_path: Path) -> None:
        table = manifest.frame[["path", "patient_id"]].assign(split="train")
        table.loc[table["patient_id"] == "P000", "split"] = "test"
        with pytest.raises(
            SplitError, match=r"the validation part has no benign image \(0 images in all\)\. Add patients"
        ):
            read_split(self.write(tmp_path, table), manifest)

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            (
                "path,split\na.png,train\na.png,dev\n",
                DataError,
                r"line 3 has the split 'dev'; write train, validation or",
            ),
            ("path,split\n\na.png,\n", DataError, r"line 3 has the split ''"),
            (
                "path,split\na.png,train\na.png,test\n",
                SplitError,
                r"line 3 puts path 'a\.png' in a second part; keep one",
            ),
            ("patient_id,split\nP1,train\nP1,val\n", SplitError, r"line 3 puts patient_id 'P1' in a second part"),
            (
                "file,split\na.png,train\n",
                DataError,
                r"needs the columns path \(or patient_id\) and split; found file, spl",
            ),
            (
                "path,fold\na.png,1\n",
                DataError,
                r"needs the columns path \(or patient_id\) and split; found path, fold",
            ),
        ],
    )
    def test_an_error_names_the_line(
        self, manifest: Manifest, tmp_path: Path, text: str, error: type[Exception], message: str
    ) -> None:
        file = tmp_path / "split.csv"
        file.write_text(text)
        with pytest.raises(error, match=message) as caught:
            read_split(file, manifest)
        assert str(file) in str(caught.value)

    def test_a_file_that_is_missing(self, manifest: Manifest, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
            read_split(tmp_path / "nowhere.csv", manifest)


class TestHash:
    def test_changes_with_the_split_and_not_with_the_order(self) -> None:
        manifest = cohort([(2, 2)] * 12)
        assignment = split_manifest(manifest)
        order = np.random.default_rng(0).permutation(len(manifest))
        frame = manifest.frame.iloc[order].reset_index(drop=True)
        turned = Assignment(replace(manifest, frame=frame), assignment.splits[order], "patient")
        assert turned.sha256 == assignment.sha256
        hashes = {assignment.sha256}
        for row, split in itertools.product((0, 20, 47), SPLITS):
            splits = assignment.splits.copy()
            splits[row] = split
            hashes.add(Assignment(manifest, splits, "patient").sha256)
        assert len(hashes) == 1 + 3 * 2


@pytest.mark.real
def test_real_idc_patients_are_split_honestly_and_evenly(real_data: Path) -> None:
    manifest = read_source(real_data / "idc")  # the copies that an audit would look for: there are none
    for seed in range(3):
        assignment = split_manifest(manifest, seed=seed)
        patients = assignment.manifest.frame.assign(split=assignment.splits).groupby("patient_id")["split"]
        assert patients.nunique().max() == 1
        assert assignment.counts()["patients"] == {"train": 12, "validation": 2, "test": 2}
        labels = assignment.manifest.labels()
        for name in SPLITS:
            assert abs(labels[assignment.rows(name)].mean() - labels.mean()) < 0.1
