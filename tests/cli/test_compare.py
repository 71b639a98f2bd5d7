"""`clearmargin compare`: run folders and tables of other software, as text, as JSON and from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.cli.conftest import Answer, SmallRun

import clearmargin
from clearmargin.decision import decide, probability
from clearmargin.evaluation.metrics import FIGURES
from clearmargin.evaluation.predictions import write_predictions
from clearmargin.evaluation.verdict import HEADLINE

Call = Callable[..., Answer]


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """A run folder with three parts, and a better model's table under names and columns of its own."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 6)
    labels = rng.integers(0, 2, len(patients))
    side = 2 * labels - 1
    logits = 0.5 * side + rng.normal(size=len(patients))
    frame = pd.DataFrame(
        {
            "path": [f"/data/P{patient:02}/{number}.png" for number, patient in enumerate(patients)],
            "patient_id": [f"P{patient:02}" for patient in patients],
            "slide_id": None,
            "x": None,
            "y": None,
            "split": np.select([patients < 4, patients < 6], ["train", "validation"], "test"),
            "label": labels,
            "logit": logits,
            "probability": probability(logits),
            "decision": decide(probability(logits), 0.4),
        }
    )
    run = tmp_path / "run"
    run.mkdir()
    write_predictions(frame, run / "predictions.csv")
    (run / "metrics.json").write_text(json.dumps({"operating_point": {"threshold": 0.4}}))
    better = probability(2.5 * side + rng.normal(size=len(patients)))
    other = pd.DataFrame({"image": frame["path"].str.removeprefix("/data/"), "target": labels, "score": better})
    other.to_csv(tmp_path / "other.csv", index=False)
    return run, tmp_path / "other.csv"


def test_run_folder_and_table_of_other_software_are_compared(call: Call, models: tuple[Path, Path]) -> None:
    answer = call("compare", *models, "--threshold", 0.5, "--resamples", 400)
    assert answer.code == 0
    text = " ".join(answer.out.split())
    assert "A run (malignant at or above 0.400)" in text
    assert "B other.csv (malignant at or above 0.500)" in text
    assert "A and B: 144 test images, 24 patients, matched by the last 2 parts of the path" in text
    assert "left out: 36 in the train or validation part of the other" in text
    assert "Evidence of a difference in AUROC: other.csv is better (A - B = -" in text
    assert "24 patients)" in text
    assert "McNemar's test (for clusters), p not corrected: accuracy" in text
    assert "McNemar's exact test and DeLong's do not hold here" in text
    assert max(map(len, answer.out.splitlines())) <= 100


def test_json_is_all_that_is_on_standard_output(call: Call, models: tuple[Path, Path]) -> None:
    answer = call("compare", *models, "--threshold", 0.5, "--resamples", 400, "--json")
    values = json.loads(answer.out)
    assert values["resamples"] == 400
    assert [model["threshold"] for model in values["models"]] == [0.4, 0.5]
    (pair,) = values["pairs"]
    assert pair["n_images"] == pair["images"]["compared"] == 144
    assert list(pair["figures"]) == list(FIGURES)
    for name, figure in pair["figures"].items():
        assert figure["low"] <= figure["difference"] <= figure["high"]
        assert (figure["p_corrected"] is not None) == (name in HEADLINE) == (figure["verdict"] is not None)


def test_python_gives_what_the_command_gives(call: Call, models: tuple[Path, Path]) -> None:
    table = clearmargin.compare([str(path) for path in models], resamples=400, thresholds=[0.5])
    values = json.loads(call("compare", *models, "--threshold", 0.5, "--resamples", 400, "--json").out)
    figures = values["pairs"][0]["figures"]
    assert table["difference"].tolist() == [figures[name]["difference"] for name in table["figure"]]
    assert table.attrs["pairs"][0]["verdict"] == values["pairs"][0]["verdict"]


def test_without_a_threshold_the_command_says_what_is_left_out(call: Call, models: tuple[Path, Path]) -> None:
    answer = call("compare", *models, "--resamples", 400)
    assert answer.code == 0
    assert "sensitivity" not in answer.out
    text = " ".join(answer.out.split())
    assert "other.csv: no decisions that one threshold gives" in text
    assert "other.csv does not say which images were trained on" in text
    assert "run does not say" not in text


def test_finished_run_is_compared_with_a_table_of_its_own_images(
    call: Call, small_run: SmallRun, tmp_path: Path
) -> None:
    own = pd.read_csv(small_run.folder / "predictions.csv")
    own.assign(score=0.5 * own["probability"])[["path", "label", "score"]].to_csv(tmp_path / "half.csv", index=False)
    answer = call("compare", small_run.folder, tmp_path / "half.csv", "--threshold", 0.2)
    assert answer.code == 0
    n_test = int((own["split"] == "test").sum())
    assert f"{n_test} test images" in answer.out
    assert "with so few, a difference of up to" in " ".join(answer.out.split()) or "no interval" in answer.out


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["RUN"], 2, "one model cannot be compared"),
        (["RUN", "nowhere.csv"], 3, "nowhere.csv: no such file or folder"),
        (["RUN", "OTHER", "--threshold", "1.5"], 2, "the threshold 1.5 is not between 0 and 1"),
        (["RUN", "OTHER", "--threshold", "0.1", "--threshold", "0.2"], 2, "2 thresholds given, and 1 file needs one"),
        (["RUN", "RUN", "--threshold", "0.1"], 2, "leave the threshold out"),
        (["RUN", "OTHER", "--resamples", "3"], 2, "resamples"),
        (["RUN", "EMPTY"], 3, "not a finished run"),
    ],
)
def test_wrong_call_ends_with_one_line_and_its_code(
    call: Call, models: tuple[Path, Path], given: list[str], code: int, message: str
) -> None:
    empty = models[0] / "empty"
    empty.mkdir()
    places = {"RUN": str(models[0]), "OTHER": str(models[1]), "EMPTY": str(empty)}
    answer = call("compare", *[places.get(word, word) for word in given])
    assert answer.code == code
    assert message in answer.error
    assert answer.out == ""
