"""Copies: each group goes to the worst kind that applies, says how sure it is, and no pair is told twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clearmargin.data.audit.copies import find_duplicates, find_near_duplicates
from clearmargin.data.audit.similar import SimilarGroup, find_similar, thumbnail
from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.phantom import draw_patch

Row = tuple[str, int, str | None, str | None, str]


def manifest_of(rows: Sequence[Row]) -> Manifest:
    """Of path, label, patient, part of the official split and content."""
    path, label, patient, split, content = zip(*rows, strict=True)
    manifest = build_manifest(
        {"path": path, "label": label, "patient_id": patient, "official_split": split}, root=Path("/data"), source="csv"
    )
    return replace(manifest, frame=manifest.frame.assign(sha256=pd.Series(content, dtype="str")))


def likely(*rows: int, similarity: float = 0.97) -> SimilarGroup:
    return SimilarGroup(rows, similarity, "likely")


def possible(*rows: int, similarity: float = 0.86) -> SimilarGroup:
    return SimilarGroup(rows, similarity, "possible")


@pytest.mark.parametrize(
    ("other", "kind", "severity"),
    [
        (("b", 1, "Q", "test", "2"), "near_duplicate_across_labels", "warning"),
        (("b", 0, "Q", "test", "2"), "near_duplicate_across_splits", "warning"),
        (("b", 0, "Q", "train", "2"), "near_duplicate_across_patients", "warning"),
        (("b", 0, "P", "train", "2"), "near_duplicate", "note"),
        (("b", 0, None, None, "2"), "near_duplicate", "note"),
    ],
)
def test_a_group_goes_to_the_worst_kind_that_applies(other: Row, kind: str, severity: str) -> None:
    manifest = manifest_of([("a", 0, "P", "train", "1"), other])
    (finding,) = find_near_duplicates(manifest, [likely(0, 1)])
    assert (finding.kind, finding.severity, finding.certainty) == (kind, severity, "likely")
    assert (finding.count, finding.paths, finding.groups) == (2, ("a", "b"), (("a", "b"),))
    assert "'a' ≈ 'b' (similarity 0.97" in finding.message


def test_likely_and_possible_groups_are_told_apart_and_the_worst_kind_comes_first() -> None:
    rows: list[Row] = [(name, int(name == "d"), "P", None, name) for name in "abcdefgh"]
    groups = [possible(0, 1), likely(2, 3), likely(4, 5, similarity=0.91), likely(6, 7)]
    findings = find_near_duplicates(manifest_of(rows), groups)
    assert [(finding.kind, finding.certainty, finding.count) for finding in findings] == [
        ("near_duplicate_across_labels", "likely", 2),
        ("near_duplicate", "likely", 4),
        ("near_duplicate", "possible", 2),
    ]
    assert findings[1].message == (
        "4 images are likely near duplicates of another of the same class, in 2 groups; a split keeps them together: "
        "'g' ≈ 'h' (similarity 0.97, and 0.91 or more in all; unrelated images hardly ever reach 0.90)."
    )
    assert findings[2].message == (
        "2 images may be near duplicates of another of the same class, in 1 group: "
        "'a' ≈ 'b' (similarity 0.86, and 0.86 or more in all; some unrelated ones reach 0.85)."
    )


def test_a_pair_of_identical_files_is_told_by_the_exact_check_alone() -> None:
    rows: list[Row] = [("a", 0, "P", None, "1"), ("b", 0, "P", None, "1"), ("c", 0, "P", None, "2")]
    manifest = manifest_of(rows)
    (exact,) = find_duplicates(manifest)
    (near,) = find_near_duplicates(manifest, [likely(0, 1, 2)])
    assert exact.groups == (("a", "b"),)
    assert near.groups == (("a", "c"),)
    assert find_near_duplicates(manifest, [likely(0, 1)]) == []


def test_a_copy_with_another_label_is_named_beside_the_first_of_its_content() -> None:
    rows: list[Row] = [("a", 0, "P", None, "1"), ("b", 1, "P", None, "1"), ("c", 0, "P", None, "2")]
    (near,) = find_near_duplicates(manifest_of(rows), [likely(0, 1, 2)])
    assert near.kind == "near_duplicate_across_labels"
    assert near.groups == (("a", "b", "c"),)


def test_the_example_shows_what_the_finding_is_about() -> None:
    rows: list[Row] = [("a", 0, "P", None, "1"), ("b", 0, "P", None, "2"), ("c", 1, "P", None, "3")]
    (near,) = find_near_duplicates(manifest_of(rows), [likely(0, 1, 2)])
    assert "'a' ≈ 'c'" in near.message


def test_nothing_alike_is_no_finding() -> None:
    manifest = manifest_of([("a", 0, "P", None, "1"), ("b", 0, "P", None, "2")])
    assert find_near_duplicates(manifest, []) == []
    assert find_duplicates(manifest) == []


def test_exact_copies_come_in_groups_by_where_they_lie() -> None:
    rows: list[Row] = [
        ("a", 0, "P", "train", "1"),
        ("b", 1, "P", "train", "1"),
        ("c", 0, "P", "train", "2"),
        ("d", 0, "P", "test", "2"),
        ("e", 0, "P", "train", "3"),
        ("f", 0, "Q", "train", "3"),
        ("g", 0, "P", "train", "4"),
        ("h", 0, "P", "train", "4"),
        ("i", 0, "P", "train", "4"),
    ]
    findings = find_duplicates(manifest_of(rows))
    assert [(finding.kind, finding.severity, finding.groups) for finding in findings] == [
        ("duplicate_across_labels", "blocking", (("a", "b"),)),
        ("duplicate_across_splits", "blocking", (("c", "d"),)),
        ("duplicate_across_patients", "warning", (("e", "f"),)),
        ("duplicate", "warning", (("g", "h", "i"),)),
    ]


def test_from_pixels_to_finding() -> None:
    patch = draw_patch(1, seed=5)
    images = [patch, draw_patch(0, seed=6), np.ascontiguousarray(np.rot90(patch))]
    rows: list[Row] = [("a", 1, "P", None, "1"), ("b", 0, "Q", None, "2"), ("c", 1, "R", None, "3")]
    manifest = manifest_of(rows)
    groups = find_similar(
        np.stack([thumbnail(image) for image in images]), identical=manifest.frame["sha256"].to_numpy()
    )
    (finding,) = find_near_duplicates(manifest, groups)
    assert (finding.kind, finding.paths) == ("near_duplicate_across_patients", ("a", "c"))
