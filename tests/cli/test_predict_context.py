"""`predict` at the command line: neighbours count where places are known, and --no-context leaves them out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tests.cli.conftest import Answer
from tests.slides import PATCHES, Placed

from clearmargin.evaluation.predictions import read_predictions

Call = Callable[..., Answer]


@pytest.fixture(scope="module")
def tested(placed: Placed) -> pd.DataFrame:
    """What the run said of one test patient."""
    every = read_predictions(placed.run / "predictions.csv")
    test = every[every["split"] == "test"]
    return test[test["patient_id"] == test["patient_id"].iloc[0]].set_index("path")


def folder_of(tested: pd.DataFrame) -> Path:
    return Path(tested.index[0]).parents[1]


@pytest.mark.parametrize("option", ["--context", "--no-context", None])
def test_a_folder_of_patches_repeats_the_run(
    option: str | None, call: Call, placed: Placed, tested: pd.DataFrame
) -> None:
    answer = call("predict", placed.run, folder_of(tested), "--format", "csv", *([option] if option else []))
    assert answer.code == 0
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert len(rows) == PATCHES
    suffix = "_alone" if option == "--no-context" else ""
    for row in rows:
        assert float(row["probability"]) == tested[f"probability{suffix}"][row["path"]]
        assert row["decision"] == tested[f"decision{suffix}"][row["path"]]


def test_the_table_says_how_many_were_in_context_and_by_which_rule(
    call: Call, placed: Placed, tested: pd.DataFrame
) -> None:
    model = json.loads((placed.run / "bundle" / "model.json").read_text())
    alone, inside = (
        f"Malignant at or above {part['operating_points']['balanced']['threshold']:.4f} (balanced)"
        for part in (model, model["context"])
    )
    assert alone != inside
    both = call("predict", placed.run, folder_of(tested))
    assert f"In the context of their slides, 36 of 36 images: {inside}" in both.err
    assert alone not in both.err
    without = call("predict", placed.run, folder_of(tested), "--no-context")
    assert "In the context" not in without.err
    assert alone in without.err
    one = call("predict", placed.run, tested.index[0])
    assert "In the context" not in one.err
    assert alone in one.err


def test_a_manifest_with_places_counts_neighbours_and_names_what_was_alone(
    call: Call, placed: Placed, tested: pd.DataFrame, tmp_path: Path
) -> None:
    table = tested.reset_index()[["path", "patient_id", "slide_id", "x", "y"]]
    lonely = pd.DataFrame([{"path": table["path"][0], "patient_id": "Q", "slide_id": "Q", "x": "1e300", "y": -5}])
    pd.concat([table.astype({"x": object}), lonely]).to_csv(tmp_path / "manifest.csv", index=False)
    answer = call("predict", placed.run, tmp_path / "manifest.csv")
    assert answer.code == 0
    assert "In the context of their slides, 36 of 37 images" in answer.err
    assert answer.err.count("Malignant at or above") == 2
    lines = call("predict", placed.run, tmp_path / "manifest.csv", "--format", "json").out.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [row["probability"] for row in answers[:-1]] == tested["probability"].tolist()
    assert answers[-1]["probability"] == tested["probability_alone"].iloc[0]


def test_refused_patches_stay_refused_and_the_code_is_that_of_success(
    call: Call, placed: Placed, tested: pd.DataFrame, tmp_path: Path
) -> None:
    table = tested.reset_index()[["path", "patient_id", "slide_id", "x", "y"]]
    table.loc[4, "path"] = str(tmp_path / "nowhere.png")
    table.to_csv(tmp_path / "manifest.csv", index=False)
    answer = call("predict", placed.run, tmp_path / "manifest.csv")
    assert answer.code == 0
    assert "In the context of their slides, 35 of 36 images" in answer.err
    assert answer.err.count("Malignant at or above") == 1
    assert "1 of 36 images was refused" in answer.err
    table.assign(path=str(tmp_path / "nowhere.png")).to_csv(tmp_path / "all.csv", index=False)
    assert call("predict", placed.run, tmp_path / "all.csv").code == 5
