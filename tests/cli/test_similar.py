"""`predict --similar` at the command line: in every format, and nothing changes without it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.bundle.small_bundle import carry
from tests.cli.conftest import Answer, SmallRun

import clearmargin
from clearmargin.bundle.read import read_bundle
from clearmargin.config import load_recipe
from clearmargin.training.cases import keep_cases
from clearmargin.types import Listener

Call = Callable[..., Answer]


@pytest.fixture(scope="module")
def carrying(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the small run as it would be with `--set cases.keep=on`."""
    bundle, manifest = read_bundle(small_run.folder), clearmargin.audit(small_run.data).manifest
    split = pd.read_csv(small_run.folder / "split.csv").set_index("path")["split"]
    rows = np.flatnonzero(split[manifest.frame["path"]] == "train")
    images = np.stack([bundle.model.preprocessing.read(path) for path in manifest.frame["path"]])
    config, onnx = load_recipe("default", {"cases.keep": "on"}), bundle.read("model.onnx")
    cases = keep_cases(config, manifest, rows, images=images, onnx=onnx, listener=Listener())
    assert cases is not None
    return carry(small_run.folder, tmp_path_factory.mktemp("carrying") / "bundle", cases)


@pytest.fixture
def image(small_run: SmallRun) -> Path:
    return next((small_run.data / "P03" / "1").glob("*.png"))


def test_json_has_a_list_of_the_nearest(call: Call, carrying: Path, small_run: SmallRun, image: Path) -> None:
    answer = call("predict", carrying, image, "--similar", 3, "--format", "json")
    assert answer.code == 0, answer.err
    row = json.loads(answer.out)
    assert len(row["similar"]) == 3
    for case in row["similar"]:
        assert list(case) == ["patient_id", "slide_id", "path", "label", "distance", "same_patient"]
        assert (small_run.data / case["path"]).is_file()
        assert case["label"] == ("malignant" if case["path"].endswith("class1.png") else "benign")
        assert case["same_patient"] is (case["patient_id"] == "P03")
    distances = [case["distance"] for case in row["similar"]]
    assert distances == sorted(distances)
    del row["similar"]
    assert row == json.loads(call("predict", carrying, image, "--format", "json").out)


def test_csv_has_the_same_list_in_one_column(call: Call, carrying: Path, image: Path) -> None:
    expected = json.loads(call("predict", carrying, image, "--similar", 3, "--format", "json").out)["similar"]
    answer = call("predict", carrying, image, "--similar", 3, "--format", "csv")
    [row] = csv.DictReader(io.StringIO(answer.out))
    assert json.loads(row["similar"]) == expected


def test_a_table_has_a_line_below_each_image(call: Call, carrying: Path, image: Path) -> None:
    lines = call("predict", carrying, image, "--similar", 5).out.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r" +similar: [1-5] \w+(, [1-4] benign)? \(nearest: \w+, P\d\d, \d\.\d\d\).*", lines[2])


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_without_the_option_nothing_changes(
    call: Call, carrying: Path, small_run: SmallRun, image: Path, form: str
) -> None:
    with_cases, without = (call("predict", bundle, image, "--format", form) for bundle in (carrying, small_run.folder))
    assert with_cases.out == without.out
    assert "similar" not in with_cases.out


def test_a_refused_image_has_an_empty_list(call: Call, carrying: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    answer = call("predict", carrying, tmp_path / "broken.png", image, "--similar", 2, "--format", "json")
    assert [len(json.loads(line)["similar"]) for line in answer.out.splitlines()] == [0, 2]
    table = call("predict", carrying, tmp_path / "broken.png", image, "--similar", 2)
    assert len(table.out.splitlines()) == 4


@pytest.mark.parametrize("k", [0, 51, -3])
def test_other_numbers_are_a_usage_error(call: Call, carrying: Path, image: Path, k: int) -> None:
    answer = call("predict", carrying, image, "--similar", k)
    assert answer.code == 2
    assert answer.out == ""
    assert "--similar" in answer.error


def test_slides_and_patients_have_none(call: Call, carrying: Path, image: Path) -> None:
    answer = call("predict", carrying, image, "--similar", 3, "--level", "patient")
    assert answer.code == 2
    assert "leave out --level" in answer.error


def test_a_bundle_without_cases_is_one_line_before_anything_is_printed(
    call: Call, small_run: SmallRun, image: Path
) -> None:
    answer = call("predict", small_run.folder, image, "--similar", 3)
    assert answer.code == 4
    assert answer.out == ""
    assert "cases.keep=on" in answer.error
