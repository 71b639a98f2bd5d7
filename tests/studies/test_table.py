"""Predictions of other software get the same figures and report; what is wrong with them is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

import clearmargin
from clearmargin.cli import main
from clearmargin.studies.table import PATIENTS_ON_BOTH_SIDES

QUICK = ["--set", "evaluate.resamples=100"]


@pytest.fixture
def frame() -> pd.DataFrame:
    """Predictions on 24 patients of 10 images, as another tool might write them."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 240)
    scores = np.clip(0.5 + 0.25 * (labels - 0.5) + generator.normal(0, 0.2, 240), 0, 1)
    return pd.DataFrame(
        {
            "filename": [f"scan_{row:03}.png" for row in range(240)],
            "y_true": labels,
            "score": scores,
            "patient": [f"{row // 10:04}" for row in range(240)],
        }
    )


def test_figures_are_those_of_the_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "other.csv", index=False)
    assert (
        main(["evaluate", str(tmp_path / "other.csv"), "--out", str(tmp_path / "out"), "--threshold", "0.5", *QUICK])
        == 0
    )
    image = json.loads((tmp_path / "out" / "metrics.json").read_text())["test"]["image"]
    assert image["n_patients"] == 24
    assert image["auroc"]["value"] == pytest.approx(roc_auc_score(frame["y_true"], frame["score"]))
    assert image["brier"]["value"] == pytest.approx(brier_score_loss(frame["y_true"], frame["score"]), abs=1e-9)
    called = frame["score"] >= 0.5
    assert image["balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(frame["y_true"], called))
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert main(["report", str(tmp_path / "out")]) == 0


def test_threshold_is_chosen_on_validation_rows(frame: pd.DataFrame, tmp_path: Path) -> None:
    table = frame.assign(split=np.where(np.arange(240) < 120, "val", "test"))
    table.to_csv(tmp_path / "other.csv", index=False)
    run = clearmargin.evaluate(tmp_path / "other.csv", None, tmp_path / "out", settings={"evaluate.resamples": 100})
    assert run.metrics["operating_point"]["chosen_on"] == "validation"
    # On test the interval then includes the choice, and says what it would be without.
    assert run.metrics["test"]["image"]["sensitivity"]["ci_fixed"] is not None


def test_patients_on_both_sides_are_stamped(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.assign(split=np.where(np.arange(240) % 2, "train", "test")).to_csv(tmp_path / "other.csv", index=False)
    run = clearmargin.evaluate(
        tmp_path / "other.csv", None, tmp_path / "out", threshold=0.5, settings={"evaluate.resamples": 100}
    )
    assert run.metrics["protocol"]["stamp"] == PATIENTS_ON_BOTH_SIDES
    assert run.metrics["protocol"]["shared_patients"] == 24
    assert PATIENTS_ON_BOTH_SIDES in run.report.read_text()


def test_patients_who_choose_the_threshold_are_not_tested_unsaid(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.assign(split=np.where(np.arange(240) % 2, "val", "test")).to_csv(tmp_path / "other.csv", index=False)
    run = clearmargin.evaluate(tmp_path / "other.csv", None, tmp_path / "out", settings={"evaluate.resamples": 100})
    assert run.metrics["protocol"]["shared_patients"] == 24


def test_a_table_without_test_rows_is_summed_up(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame.assign(split="val").to_csv(tmp_path / "other.csv", index=False)
    assert main(["evaluate", str(tmp_path / "other.csv"), "--out", str(tmp_path / "out"), *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "Validation: 240 images, 24 patients" in shown
    assert "bundle" not in shown


SPOIL: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "NaN": (lambda table: table.assign(score=table["score"].where(table.index != 5)), "finite number"),
    "above 1": (lambda table: table.assign(score=table["score"] * 100), "between 0 and 1"),
    "label 2": (lambda table: table.assign(y_true=table["y_true"].where(table.index != 5, 2)), "only labels"),
    "one row twice": (lambda table: pd.concat([table, table.iloc[:1]]), "twice"),
    "a path in two splits": (
        lambda table: pd.concat([table.assign(split="test"), table.iloc[:1].assign(split="train")]),
        "is in both",
    ),
    "no label": (lambda table: table.drop(columns="y_true"), "no column 'label'"),
    "no row": (lambda table: table.iloc[:0], "no row"),
}


@pytest.mark.parametrize("kind", SPOIL)
def test_what_is_wrong_is_one_line(
    kind: str, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, says = SPOIL[kind]
    spoil(frame).to_csv(tmp_path / "other.csv", index=False)
    code = main(["evaluate", str(tmp_path / "other.csv"), "--out", str(tmp_path / "out"), "--threshold", "0.5"])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert code == 3
    assert len(errors) == 1
    assert says in errors[0]
    assert not (tmp_path / "out").exists()


def test_one_class_and_one_patient_are_figures_with_reasons(frame: pd.DataFrame, tmp_path: Path) -> None:
    one_class = frame[frame["y_true"] == 0]
    one_class.to_csv(tmp_path / "benign.csv", index=False)
    settings = {"evaluate.resamples": 100}
    run = clearmargin.evaluate(tmp_path / "benign.csv", None, tmp_path / "a", threshold=0.5, settings=settings)
    assert run.metrics["test"]["image"]["auroc"] == {"value": None, "ci": None, "reason": "no malignant image"}
    assert run.metrics["test"]["image"]["specificity"]["value"] is not None
    frame[frame["patient"] == "0000"].to_csv(tmp_path / "one.csv", index=False)
    run = clearmargin.evaluate(tmp_path / "one.csv", None, tmp_path / "b", threshold=0.5, settings=settings)
    auroc = run.metrics["test"]["image"]["auroc"]
    assert auroc["ci"] is None
    assert "one patient" in auroc["reason"]


def test_nothing_that_tells_a_threshold_is_a_usage_error(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame.to_csv(tmp_path / "other.csv", index=False)
    assert main(["evaluate", str(tmp_path / "other.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "--threshold" in capsys.readouterr().err
