"""The classification report is scikit-learn's, without its made-up numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from clearmargin.evaluation.classification_report import classification_report, format_classification_report

NAMES = ["benign", "malignant"]


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=12))
def test_every_defined_number_is_scikit_learns_and_every_undefined_one_null(images: list[tuple[int, bool]]) -> None:
    labels, called = np.array([label for label, _ in images]), np.array([call for _, call in images])
    report = classification_report(labels, called)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    expected = oracle.classification_report(
        labels, called.astype(int), labels=[0, 1], target_names=NAMES, output_dict=True, zero_division=0
    )
    assert list(report) == list(expected)
    assert report["accuracy"] == pytest.approx(expected["accuracy"])
    for row, name in enumerate(NAMES):
        defined = {
            "precision": bool((called == row).any()),
            "recall": bool((labels == row).any()),
            "f1-score": bool(((called == row) | (labels == row)).any()),
        }
        assert report[name]["support"] == (labels == row).sum()
        for column, is_defined in defined.items():
            assert report[name][column] == (pytest.approx(expected[name][column]) if is_defined else None)
    for column in ("precision", "recall", "f1-score"):
        values = [report[name][column] for name in NAMES]
        assert report["macro avg"][column] == (None if None in values else pytest.approx(np.mean(values)))
        supports = [report[name]["support"] for name in NAMES]
        if any(value is None and n > 0 for value, n in zip(values, supports, strict=True)):
            assert report["weighted avg"][column] is None
        else:
            weighted = sum((value or 0) * n for value, n in zip(values, supports, strict=True)) / len(labels)
            assert report["weighted avg"][column] == pytest.approx(weighted)


def test_the_text_is_scikit_learns_to_the_letter() -> None:
    rng = np.random.default_rng(1)
    labels, called = rng.integers(0, 2, 300), rng.random(300) < 0.3
    text = format_classification_report({"classification_report": classification_report(labels, called)})
    assert text == oracle.classification_report(labels, called.astype(int), target_names=NAMES)


def test_an_undefined_number_is_shown_as_such() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    report = classification_report(labels, np.zeros(40, dtype=bool))
    assert report["malignant"]["precision"] is None
    assert report["malignant"]["recall"] == 0.0
    assert report["macro avg"]["precision"] is report["weighted avg"]["precision"] is None
    assert report["macro avg"]["recall"] == 0.5
    text = format_classification_report({"classification_report": report})
    assert [line.split() for line in text.splitlines() if "n/a" in line] == [
        ["malignant", "n/a", "0.00", "0.00", "10"],
        ["macro", "avg", "n/a", "0.50", "0.43", "40"],
        ["weighted", "avg", "n/a", "0.75", "0.64", "40"],
    ]


def test_of_one_class_alone_the_other_has_no_figures() -> None:
    report = classification_report(np.zeros(20, dtype=np.int64), np.zeros(20, dtype=bool))
    assert report["malignant"] == {"precision": None, "recall": None, "f1-score": None, "support": 0}
    assert report["macro avg"]["recall"] is None
    assert report["weighted avg"]["recall"] == 1.0
