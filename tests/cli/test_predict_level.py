"""Slides and patients are decided from their images by the bundle's own rule, in every format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import Answer, SmallRun

from clearmargin.bundle.read import read_bundle
from clearmargin.cli import main

Call = Callable[..., Answer]


@pytest.fixture(scope="module")
def by_patient(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A run on 16 patients of five images each, all of one class, as a table with patient_id."""
    root = tmp_path_factory.mktemp("levels")
    generator = np.random.default_rng(2)
    lines = ["path,label,patient_id"]
    for patient in range(16):
        for number in range(5):
            base = np.array([150, 90, 165]) if patient % 2 else np.array([200, 150, 190])
            pixels = np.clip(base + generator.integers(-60, 61, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"P{patient:02}_{number}.png")
            lines.append(f"P{patient:02}_{number}.png,{patient % 2},P{patient:02}")
    (root / "all.csv").write_text("\n".join(lines) + "\n")
    command = ["train", root / "all.csv", "--out", root / "run", "--recipe", "larger_model", "--epochs", 2]
    command += ["--set", "evaluate.resamples=100", "--set", "train.batch_size=16"]
    assert main([str(part) for part in command]) == 0
    return SmallRun(root / "all.csv", root / "run")


def test_one_row_a_patient_by_the_bundles_rule(call: Call, by_patient: SmallRun) -> None:
    answer = call("predict", by_patient.folder, by_patient.data, "--level", "patient", "--format", "json")
    assert answer.code == 0
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert [row["patient_id"] for row in rows] == [f"P{patient:02}" for patient in range(16)]
    assert {row["n_images"] for row in rows} == {5}
    images = [
        json.loads(line)
        for line in call("predict", by_patient.folder, by_patient.data, "--format", "json").out.splitlines()
    ]
    level = read_bundle(by_patient.folder).model.levels["patient"]
    values = np.array([image["probability"] for image in images])
    expected = level.probability(values, np.repeat(np.arange(16), 5), 16)
    np.testing.assert_allclose([row["probability"] for row in rows], expected)
    called = ["malignant" if value >= level.threshold else "benign" for value in expected]
    assert [row["decision"] for row in rows] == called


def test_figures_of_patients_are_in_the_run(by_patient: SmallRun) -> None:
    metrics = json.loads((by_patient.folder / "metrics.json").read_text())
    block = metrics["test"]["patient"]
    assert block["n_cases"] == metrics["protocol"]["patients"]["test"]
    assert np.sum(block["confusion"]) == block["n_cases"]
    assert "patient" in metrics["levels"]


def test_csv_and_table_say_the_same(call: Call, by_patient: SmallRun) -> None:
    table = call("predict", by_patient.folder, by_patient.data, "--level", "patient")
    rows = list(
        csv.DictReader(
            io.StringIO(
                call("predict", by_patient.folder, by_patient.data, "--level", "patient", "--format", "csv").out
            )
        )
    )
    assert len(table.out.splitlines()) == 17
    assert [line.split()[0] for line in table.out.splitlines()[1:]] == [row["decision"] for row in rows]
    assert "pooled by" in table.err


def test_the_end_says_how_many_patients_were_written(call: Call, by_patient: SmallRun, tmp_path: Path) -> None:
    out = tmp_path / "patients.csv"
    answer = call("predict", by_patient.folder, by_patient.data, "--level", "patient", "--out", out)
    assert answer.code == 0
    assert f"Wrote 16 patients to {out}: " in answer.err
    assert "pooled by" in answer.err
    assert "--resume" not in answer.err


def test_a_level_that_the_model_has_not_is_one_line(call: Call, small_run: SmallRun) -> None:
    answer = call("predict", small_run.folder, small_run.data, "--level", "patient")
    assert answer.code == 4
    assert "both classes" in answer.error


def test_refused_images_are_counted_and_a_patient_of_none_is_refused(
    call: Call, by_patient: SmallRun, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    good = by_patient.data.parent / "P00_0.png"
    (tmp_path / "some.csv").write_text(
        f"path,patient_id\n{good},A\n{tmp_path / 'broken.png'},A\n{tmp_path / 'broken.png'},B\n"
    )
    answer = call("predict", by_patient.folder, tmp_path / "some.csv", "--level", "patient", "--format", "json")
    first, second = [json.loads(line) for line in answer.out.splitlines()]
    assert (first["n_images"], first["n_refused"]) == (1, 1)
    assert (second["decision"], second["probability"], second["n_refused"]) == ("refused", None, 1)
