"""Each command does what its row in the design says, on small images."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.cli.conftest import Answer, SmallRun

from clearmargin.cli import COMMANDS
from clearmargin.evaluation.predictions import read_predictions

Call = Callable[..., Answer]
Floats = NDArray[np.float64]

RUN_FILES = {
    "config.toml",
    "environment.json",
    "manifest.parquet",
    "audit.json",
    "split.csv",
    "history.csv",
    "log.jsonl",
    "predictions.csv",
    "metrics.json",
    "report.html",
    "checklists",
    "run.json",
    "bundle",
    "checkpoint",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(call: Call, command: str) -> None:
    answer = call(command, "--help")
    assert answer.code == 0
    assert "Usage: clearmargin" in answer.out


def test_train_fills_the_run_folder_and_leaves_nothing_temporary(small_run: SmallRun) -> None:
    assert {entry.name for entry in small_run.folder.iterdir()} == RUN_FILES
    assert {entry.name for entry in (small_run.folder / "bundle").iterdir()} == {
        "model.json",
        "weights.safetensors",
        "model.onnx",
        "MODEL_CARD.md",
        "SHA256SUMS",
    }


def test_no_patient_is_on_two_sides_of_a_run(small_run: SmallRun) -> None:
    predictions = pd.read_csv(small_run.folder / "predictions.csv")
    assert len(predictions) == 144
    assert (predictions.groupby("patient_id")["split"].nunique() == 1).all()
    split = pd.read_csv(small_run.folder / "split.csv")
    assert split["split"].tolist() == predictions["split"].tolist()


def calibrated(logits: Floats, deciding: dict[str, Any]) -> Floats:
    """What the calibration that model.json describes makes of logits."""
    other = deciding["calibration"]
    if other is None:
        return 1 / (1 + np.exp(-logits / deciding["temperature"]))
    if other["method"] == "isotonic":
        return np.interp(logits, other["logits"], other["probabilities"])
    if other["method"] == "platt":
        return 1 / (1 + np.exp(-other["slope"] * logits - other["intercept"]))
    own = 1 / (1 + np.exp(-logits))
    return 1 / (1 + np.exp(-other["a"] * np.log(own) + other["b"] * np.log(1 - own) - other["c"]))


def test_stored_decisions_and_probabilities_follow_from_the_bundle(small_run: SmallRun) -> None:
    predictions = read_predictions(small_run.folder / "predictions.csv")
    model = json.loads((small_run.folder / "bundle" / "model.json").read_text())
    deciding = model["context"] or model
    point = deciding["operating_points"][deciding["operating_point"]]
    expected = calibrated(predictions["logit"].to_numpy(), deciding)
    np.testing.assert_allclose(predictions["probability"], expected, rtol=1e-12)
    probability, region = predictions["probability"], deciding["conformal"]
    withheld = probability.between(region["low"], region["high"]) if region and region["low"] is not None else False
    expected = np.where(withheld, "abstain", np.where(probability >= point["threshold"], "malignant", "benign"))
    assert (predictions["decision"] == expected).all()
    metrics = json.loads((small_run.folder / "metrics.json").read_text())
    assert metrics["operating_point"]["threshold"] == point["threshold"]


def test_predict_repeats_the_probabilities_of_the_run(call: Call, small_run: SmallRun) -> None:
    answer = call("predict", small_run.folder, small_run.data, "--format", "json")
    assert answer.code == 0
    rows = pd.DataFrame([json.loads(line) for line in answer.out.splitlines()])
    assert list(rows.columns) == ["path", "patient_id", "slide_id", "x", "y", "probability", "decision", "reason"]
    stored = pd.read_csv(small_run.folder / "predictions.csv").set_index("path")
    both = rows.set_index(rows["path"].map(os.path.abspath)).join(stored.add_suffix("_stored"))
    tested = both[both["split_stored"] == "test"]  # the others were judged by a network that had not seen them
    assert len(tested) >= 12
    np.testing.assert_allclose(tested["probability"], tested["probability_stored"], atol=1e-6)
    assert (tested["decision"] == tested["decision_stored"]).all()
    assert (both["patient_id"] == both["patient_id_stored"]).all()
    assert (both["x"] == both["x_stored"]).all()


def test_predict_takes_files_globs_and_manifests_alike(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    files = sorted(small_run.data.glob("P00/1/*.png"))
    (tmp_path / "list.csv").write_text("path,patient_id,x\n" + "".join(f"{file},P00,7\n" for file in files))
    by_file = call("predict", small_run.folder, *files, "--format", "csv").out
    by_glob = call("predict", small_run.folder, small_run.data / "P00" / "1" / "*.png", "--format", "csv").out
    by_folder = call("predict", small_run.folder / "bundle", small_run.data / "P00" / "1", "--format", "csv").out
    assert by_file == by_glob == by_folder
    rows = [
        json.loads(line)
        for line in call("predict", small_run.folder, tmp_path / "list.csv", "--format", "json").out.splitlines()
    ]
    assert [row["path"] for row in rows] == [str(file) for file in files]
    assert {row["x"] for row in rows} == {7}


def test_table_never_passes_terminal_codes_of_a_file_name_on(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    hostile = tmp_path / "a\x1b[2J\nb.png"
    shutil.copy(next(small_run.data.rglob("*.png")), hostile)
    answer = call("predict", small_run.folder, hostile)
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert len(answer.out.splitlines()) == 2


def test_predict_imports_neither_torch_nor_pandas(small_run: SmallRun) -> None:
    file = next(small_run.data.rglob("*.png"))
    code = (
        "import sys; from clearmargin.cli import main; "
        f"assert main(['predict', {str(small_run.folder)!r}, {str(file)!r}, '--format', 'json']) == 0; "
        "heavy = {'torch', 'pandas', 'sklearn', 'scipy', 'matplotlib', 'lightning_fabric'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from clearmargin.cli import main; assert main(['--help']) == 0; "
        "heavy = {'torch', 'numpy', 'pandas', 'onnxruntime', 'PIL', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_audit_json_is_json_only_and_progress_goes_to_standard_error(call: Call, small_run: SmallRun) -> None:
    answer = call("audit", small_run.data, "--json")
    assert answer.code == 0
    content = json.loads(answer.out)
    assert content["counts"] == {"images": 144, "patients": 12, "slides": 12, "benign": 72, "malignant": 72}
    assert "Auditing" in answer.err


def test_fix_list_feeds_exclude(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder()
    benign, malignant = next(data.glob("P00/0/*.png")), next(data.glob("P01/1/*.png"))
    shutil.copy(benign, malignant)
    listing = data.parent / "leave-out.txt"
    blocked = call("audit", data, "--fix-list", listing)
    assert blocked.code == 3
    assert "duplicate_across_labels" in blocked.out
    assert set(listing.read_text().splitlines()) == {str(benign), str(malignant)}
    assert call("audit", data, "--exclude", listing).code == 0


def test_split_writes_who_is_where(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    answer = call("split", small_run.data, "--out", tmp_path / "split.csv", "--fractions", "0.6,0.2,0.2")
    assert answer.code == 0
    table = pd.read_csv(tmp_path / "split.csv")
    assert list(table.columns) == ["path", "patient_id", "label", "split"]
    assert table.groupby("split")["patient_id"].nunique().to_dict() == {"train": 7, "validation": 3, "test": 2}
    folds = call("split", small_run.data, "--out", tmp_path / "folds.csv", "--folds", 3)
    assert folds.code == 0
    assert sorted(pd.read_csv(tmp_path / "folds.csv")["fold"].unique()) == [0, 1, 2]


def test_train_on_a_split_file_uses_it(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    patients = [f"P{number:02}" for number in range(12)]
    parts = ["test"] * 3 + ["validation"] * 3 + ["train"] * 6
    rows = "".join(f"{patient},{part}\n" for patient, part in zip(patients, parts, strict=True))
    (tmp_path / "mine.csv").write_text("patient_id,split\n" + rows)
    command = ["train", small_run.data, "--out", tmp_path / "run", "--split", tmp_path / "mine.csv", "--epochs", 1]
    assert call(*command, "--set", "evaluate.resamples=100").code == 0
    used = pd.read_csv(tmp_path / "run" / "predictions.csv").groupby("patient_id")["split"].first()
    assert used.to_dict() == dict(zip(patients, parts, strict=True))


def test_split_by_image_is_stamped_on_every_artefact(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder(layout="folder", patients=10)
    run = data.parent / "run"
    command = ["train", data, "--out", run, "--by", "image", "--epochs", 1, "--set", "evaluate.resamples=100"]
    answer = call(*command, "--model", "residual")
    assert answer.code == 0
    stamp = "image-level split: optimistic"
    assert stamp in answer.out
    for name in ("metrics.json", "report.html", "run.json", "bundle/model.json", "bundle/MODEL_CARD.md"):
        assert stamp in (run / name).read_text(), name
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["protocol"]["split"] == "image"
    assert metrics["test"]["image"]["n_patients"] is None
    predicted = call("predict", run, data)
    assert stamp in predicted.err


def test_target_sensitivity_is_reached_on_the_images_it_was_chosen_on(
    call: Call, small_run: SmallRun, tmp_path: Path
) -> None:
    command = ["train", small_run.data, "--out", tmp_path / "run", "--epochs", 1, "--target-sensitivity", 0.95]
    assert call(*command, "--set", "evaluate.resamples=100").code == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["operating_point"]["name"] == "sensitivity"
    assert metrics["operating_point"]["chosen_on"] == "train and validation, out of fold"
    rows = pd.read_csv(tmp_path / "run" / "predictions.csv")
    rows = rows[(rows["split"] != "test") & (rows["label"] == 1)]
    assert (rows["probability"] >= metrics["operating_point"]["threshold"]).mean() >= 0.95


def test_report_is_built_anew_the_same(call: Call, small_run: SmallRun) -> None:
    before = (small_run.folder / "report.html").read_bytes()
    (small_run.folder / "report.html").write_text("gone")
    assert call("report", small_run.folder).code == 0
    assert (small_run.folder / "report.html").read_bytes() == before


def test_resume_of_a_complete_run_changes_nothing(call: Call, small_run: SmallRun) -> None:
    before = {file: file.read_bytes() for file in small_run.folder.glob("*.json")}
    answer = call("train", small_run.data, "--out", small_run.folder, "--resume")
    assert answer.code == 0
    assert "complete already" in answer.err
    assert {file: file.read_bytes() for file in small_run.folder.glob("*.json")} == before


@dataclass(frozen=True)
class Uninterrupted:
    """A run that nothing stopped, and how it was called."""

    folder: Path
    command: tuple[str, ...]
    environment: dict[str, str]


@pytest.fixture(scope="module")
def uninterrupted(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    root = tmp_path_factory.mktemp("whole")
    settings = ["--epochs", "3", "--deterministic", "--set", "evaluate.resamples=100", "--set", "train.batch_size=4"]
    command = (sys.executable, "-m", "clearmargin", "train", str(small_run.data), *settings, "--out")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CLEARMARGIN_CACHE": str(root / "cache")}
    subprocess.run([*command, str(root / "run")], check=True, capture_output=True, env=environment)
    return Uninterrupted(root / "run", command, environment)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_run_resumes_to_the_same_bundle(
    uninterrupted: Uninterrupted, tmp_path: Path, number: signal.Signals
) -> None:
    command, environment = uninterrupted.command, uninterrupted.environment
    stopped = tmp_path / "stopped"
    process = subprocess.Popen([*command, str(stopped)], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((stopped / "checkpoint").rglob("state.safetensors")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    if number != signal.SIGKILL:
        assert "--resume" in errors
    assert not (stopped / "run.json").exists()
    subprocess.run([*command, str(stopped), "--resume"], check=True, capture_output=True, env=environment)
    for name in ("bundle/weights.safetensors", "predictions.csv", "metrics.json", "split.csv"):
        assert (stopped / name).read_bytes() == (uninterrupted.folder / name).read_bytes(), name
    assert not list(stopped.glob(".*partial*"))


def test_demo_works_and_can_be_called_again(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearmargin.data import phantom

    draw = phantom.write_phantom
    small = phantom.PhantomSettings(patients=12, patches_per_patient=20, patch_px=50)
    monkeypatch.setattr(phantom, "write_phantom", lambda folder, **options: draw(folder, small, **options))
    answer = call("demo", "--out", tmp_path / "demo")
    assert answer.code == 0
    assert "report.html" in answer.out
    assert "not real" in answer.out
    assert call("demo", "--out", tmp_path / "demo").code == 0


def test_split_replaces_an_older_split_and_nothing_else(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    for _ in range(2):
        assert call("split", small_run.data, "--out", tmp_path / "split.csv").code == 0
    mine = tmp_path / "mine.csv"
    rows = [f"{file},{file.parent.name},{file.parent.parent.name}" for file in sorted(small_run.data.rglob("*.png"))]
    mine.write_text("\n".join(["path,label,patient_id", *rows]))
    before = mine.read_bytes()
    answer = call("split", mine, "--out", mine)
    assert answer.code == 2
    assert "is not a split" in answer.error
    assert mine.read_bytes() == before


def test_a_typo_in_the_data_does_not_burn_the_run_folder(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call("train", small_run.data.parent / "dta", "--out", run).code == 3
    command = ["train", small_run.data, "--out", run, "--epochs", 1, "--set", "evaluate.resamples=100"]
    assert call(*command).code == 0
    other = call(*command, "--resume", "--set", "train.learning_rate=0.5")
    assert other.code == 2
    assert "train.learning_rate" in other.error


def test_official_split_is_kept_and_by_image_says_what_it_does(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number, patient in enumerate(sorted(small_run.data.iterdir())):
        part = "test" if number < 3 else "valid" if number < 6 else "train"
        shutil.copytree(patient, data / part / patient.name)
    command = ["train", data, "--out", tmp_path / "run", "--by", "image", "--epochs", 1]
    answer = call(*command, "--set", "evaluate.resamples=100")
    assert answer.code == 0
    assert "own split is kept" in answer.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["protocol"]["split"] == "official"
    assert metrics["protocol"]["images"] == {"train": 72, "validation": 36, "test": 36}


def test_no_arguments_show_the_help(call: Call) -> None:
    answer = call()
    assert answer.code == 0
    assert "Usage: clearmargin" in answer.out


def test_demo_leaves_a_folder_with_other_things_alone(call: Call, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    answer = call("demo", "--out", tmp_path)
    assert answer.code == 2
    assert "not empty" in answer.error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_one_clear_line(small_run: SmallRun) -> None:
    command = [sys.executable, "-m", "clearmargin", "predict", str(small_run.folder), str(small_run.data)]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 3
    assert "the disk is full" in result.stderr
    assert "Traceback" not in result.stderr
