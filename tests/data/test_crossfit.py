"""Parts for cross-fitting: whole patients of train and validation, each in one part, both classes in each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.data.test_split import cohort, shuffled

from clearmargin.data.split import Assignment, crossfit_folds, split_manifest

MANIFEST = cohort([(3 + number % 4, 2 + number % 3) for number in range(20)])


@pytest.fixture(scope="module")
def assignment() -> Assignment:
    return split_manifest(MANIFEST, fractions=(0.6, 0.15, 0.25))


@pytest.mark.parametrize("folds", [3, 4, 5])
def test_each_patient_outside_test_is_in_one_part_and_each_part_has_both_classes(
    assignment: Assignment, folds: int
) -> None:
    parts = crossfit_folds(assignment, folds, by="patient", seed=0)
    assert parts is not None
    np.testing.assert_array_equal(parts == -1, assignment.splits == "test")
    frame = MANIFEST.frame.assign(part=parts)[parts >= 0]
    assert sorted(frame["part"].unique()) == list(range(folds))
    assert (frame.groupby("patient_id")["part"].nunique() == 1).all()
    assert (frame.groupby("part")["label"].nunique() == 2).all()
    sizes = frame["part"].value_counts()
    assert sizes.max() <= 2 * sizes.min()


def test_the_seed_decides_and_the_order_of_the_rows_does_not(assignment: Assignment) -> None:
    first, again, other = (crossfit_folds(assignment, 4, by="patient", seed=seed) for seed in (0, 0, 1))
    assert first is not None
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    mixed = shuffled(MANIFEST)
    split_of = dict(zip(MANIFEST.frame["path"], assignment.splits, strict=True))
    splits = np.array([split_of[path] for path in mixed.frame["path"]])
    parts = crossfit_folds(Assignment(mixed, splits, "patient"), 4, by="patient", seed=0)
    assert parts is not None
    part_of = dict(zip(MANIFEST.frame["path"], first, strict=True))
    assert [part_of[path] for path in mixed.frame["path"]] == parts.tolist()


def test_the_patients_of_test_decide_nothing(assignment: Assignment) -> None:
    parts = crossfit_folds(assignment, 4, by="patient", seed=0)
    test = assignment.splits == "test"
    frame = MANIFEST.frame.copy()
    frame.loc[test, "label"] = 1 - frame.loc[test, "label"]
    frame.loc[test, "patient_id"] = "A" + frame.loc[test, "patient_id"]
    frame.loc[test, "sha256"] = "f" * 64
    other = Assignment(replace(MANIFEST, frame=frame), assignment.splits, "patient")
    np.testing.assert_array_equal(crossfit_folds(other, 4, by="patient", seed=0), parts)


def test_patients_with_the_same_picture_are_in_one_part() -> None:
    frame = MANIFEST.frame.copy()
    first = frame.groupby("patient_id").head(1).index
    frame.loc[first[[0, 7]], "sha256"] = "a" * 64
    alike = ((frame["path"][first[3]], frame["path"][first[9]]),)
    manifest = replace(MANIFEST, frame=frame, alike=alike)
    everyone = Assignment(manifest, np.full(len(manifest), "train"), "patient")
    for seed in range(4):
        parts = crossfit_folds(everyone, 5, by="patient", seed=seed)
        assert parts is not None
        of = dict(zip(frame["patient_id"], parts, strict=True))
        assert of["P000"] == of["P007"]
        assert of["P003"] == of["P009"]


def test_with_few_patients_there_are_fewer_parts_and_with_too_few_none() -> None:
    for patients, expected in ((7, 6), (6, 6), (5, 5), (4, 4), (3, 3), (2, None), (1, None)):
        few = cohort([(4, 4)] * patients)
        parts = crossfit_folds(Assignment(few, np.full(len(few), "train"), "patient"), 6, by="patient", seed=0)
        assert (None if parts is None else int(parts.max()) + 1) == expected
    # Ten patients, but malignant images of three: more parts would have one without any.
    few = cohort([(4, 3 if number < 3 else 0) for number in range(10)])
    parts = crossfit_folds(Assignment(few, np.full(len(few), "validation"), "patient"), 6, by="patient", seed=0)
    assert parts is None or int(parts.max()) == 2


def test_without_patients_images_are_dealt_out() -> None:
    unknown = cohort([(20, 20)], known=False)
    parts = crossfit_folds(Assignment(unknown, np.full(40, "train"), "image"), 4, by="image", seed=0)
    assert parts is not None
    assert np.bincount(parts).tolist() == [10, 10, 10, 10]


def test_two_parts_are_made_where_two_are_wanted() -> None:
    few = cohort([(4, 4)] * 5)
    parts = crossfit_folds(Assignment(few, np.full(len(few), "train"), "patient"), 2, by="patient", seed=0)
    assert parts is not None
    assert set(parts) == {0, 1}
