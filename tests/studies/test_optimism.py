"""The same recipe under two splits, on the same images, and what is said of the gap."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from tests.studies.conftest import Crossed

from clearmargin.cli import main

OPTIONS = ["--recipe", "larger_model", "--epochs", "1", "--folds", "2", "--set", "evaluate.resamples=200"]


@pytest.fixture(scope="module")
def measured(crossed: Crossed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("optimism") / "out"
    assert main(["optimism", str(crossed.data), "--out", str(out), *OPTIONS]) == 0
    return out


def test_both_protocols_test_every_image_once(measured: Path) -> None:
    tables = {by: pd.read_csv(measured / f"predictions_{by}.csv") for by in ("image", "patient")}
    assert set(tables["image"]["path"]) == set(tables["patient"]["path"])
    for table in tables.values():
        assert table["path"].is_unique
    assert (tables["patient"].groupby("patient_id")["fold"].nunique() == 1).all()
    assert (tables["image"].groupby("patient_id")["fold"].nunique() == 2).all()


def test_the_gap_is_the_difference_of_the_two(measured: Path) -> None:
    content = json.loads((measured / "optimism.json").read_text())
    for name, gap in content["gap"].items():
        expected = content["random"][name]["value"] - content["patient"][name]["value"]
        assert gap["value"] == pytest.approx(expected)
        if gap["ci"]:
            assert gap["ci"][0] <= gap["value"] <= gap["ci"][1]
    assert content["text"] in (measured / "optimism.md").read_text()


def test_json_is_only_json(crossed: Crossed, measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    command = ["optimism", str(crossed.data), "--out", str(measured), *OPTIONS, "--resume", "--json"]
    assert main(command) == 0
    shown = json.loads(capsys.readouterr().out)
    stored = json.loads((measured / "optimism.json").read_text())
    assert shown["gap"] == stored["gap"]


def test_unknown_patients_are_an_error_before_any_training(
    make_folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_folder(layout="folder", px=32)
    assert main(["optimism", str(data), "--out", str(tmp_path / "out"), *OPTIONS]) == 3
    assert "patient" in capsys.readouterr().err
    assert not (tmp_path / "out" / "image").exists()


def test_folders_of_other_kinds_are_not_gone_on_with(crossed: Crossed, measured: Path) -> None:
    assert main(["train", str(crossed.data), "--out", str(measured), "--epochs", "1", "--resume"]) == 2
    assert main(["optimism", str(crossed.data), "--out", str(crossed.folder), *OPTIONS, "--resume"]) == 2
