"""Every patient is tested once by a network that has not seen them, and the figures say so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tests.studies.conftest import SETTINGS, Crossed

import clearmargin
from clearmargin.bundle.cases import load_cases
from clearmargin.bundle.read import CASES, read_bundle
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.cli import main
from clearmargin.config import load_recipe
from clearmargin.evaluation.choices import choose
from clearmargin.evaluation.predictions import read_predictions


@pytest.fixture
def table(crossed: Crossed) -> pd.DataFrame:
    return read_predictions(crossed.folder / "predictions.csv")


@pytest.fixture
def metrics(crossed: Crossed) -> dict:
    return json.loads((crossed.folder / "metrics.json").read_text())


def test_each_image_is_tested_once_and_each_patient_in_one_fold(crossed: Crossed, table: pd.DataFrame) -> None:
    assert len(table) == table["path"].nunique() == 12 * 16
    assert set(table["split"]) == {"test"}
    split = pd.read_csv(crossed.folder / "split.csv")
    assert (split.groupby("patient_id")["fold"].nunique() == 1).all()
    assert split["fold"].nunique() == 3


def test_no_fold_was_trained_or_tuned_on_the_patients_that_it_tests(crossed: Crossed, table: pd.DataFrame) -> None:
    logits = table.set_index("path")["logit"]
    for fold in range(3):
        part = read_predictions(crossed.folder / "folds" / str(fold) / "predictions.csv")
        tested, used = part[part["split"] == "test"], part[part["split"] != "test"]
        assert not set(tested["patient_id"]) & set(used["patient_id"])
        assert set(part["split"]) == {"train", "validation", "test"}
        # The whole run's logits are those of the fold that left the image out.
        np.testing.assert_array_equal(logits[tested["path"]], tested["logit"])


def test_pooled_figures_are_those_of_the_out_of_fold_table(table: pd.DataFrame, metrics: dict) -> None:
    image = metrics["test"]["image"]
    assert image["n_images"] == len(table)
    assert image["n_patients"] == 12
    assert image["auroc"]["value"] == pytest.approx(roc_auc_score(table["label"], table["probability"]))
    assert metrics["protocol"]["folds"] == 3


def test_the_bundle_carries_cases_of_all_patients_and_those_of_the_folds_none(
    crossed: Crossed, table: pd.DataFrame
) -> None:
    bundle = read_bundle(crossed.folder)
    cases = load_cases(bundle)
    assert bundle.model.cases is not None
    assert bundle.model.cases.patients == len({row.patient_id for row in cases.rows}) == 12
    assert len(cases) == 2 * table["label"].value_counts().min()
    assert cases.thumbnails.shape[1:] == (32, 32, 3)
    names = [str(row.path) for row in cases.rows[:5]]
    found = clearmargin.load_bundle(crossed.folder).predict([crossed.data / name for name in names], similar=1)
    assert [row[0]["path"] for row in found["similar"]] == names
    assert [row[0]["distance"] for row in found["similar"]] == pytest.approx([0] * 5, abs=1e-3)
    for fold in range(3):
        assert not set(CASES) & set(read_bundle(crossed.folder / "folds" / str(fold)).sums)


def test_a_fold_is_decided_by_the_other_folds(crossed: Crossed, table: pd.DataFrame, metrics: dict) -> None:
    config, fold_of = (
        load_recipe("default", SETTINGS),
        pd.read_csv(crossed.folder / "split.csv").set_index("path")["fold"],
    )
    folds = table["path"].map(fold_of)
    for fold, rows in table.groupby(folds):
        choices = choose(table[folds != fold], config.evaluate, seed=0)
        np.testing.assert_allclose(rows["probability"], choices.probabilities(rows["logit"].to_numpy()))
        assert rows["decision"].tolist() == choices.decide(rows["probability"].to_numpy()).tolist()
    assert metrics["operating_point"]["chosen_on"] == "out-of-fold predictions"


def test_folds_are_listed_with_their_mean_and_its_interval(crossed: Crossed, metrics: dict) -> None:
    assert [(entry["repeat"], entry["fold"]) for entry in metrics["folds"]] == [(0, 0), (0, 1), (0, 2)]
    values = []
    for number, entry in enumerate(metrics["folds"]):
        part = read_predictions(crossed.folder / "folds" / str(number) / "predictions.csv")
        rows = part[part["split"] == "test"]
        values.append(roc_auc_score(rows["label"], rows["probability"]))
        assert entry["figures"]["auroc"] == pytest.approx(values[-1])
    across = metrics["across_folds"]["auroc"]
    assert across["mean"] == pytest.approx(np.mean(values))
    half = 4.302652729911275 * np.std(values, ddof=1) * np.sqrt(1 / 3 + 1 / 2)  # t of 2 degrees; n_test / n_train = 1/2
    assert across["ci"] == pytest.approx([max(0, np.mean(values) - half), min(1, np.mean(values) + half)])


def test_the_bundle_is_the_mean_of_the_folds_networks(crossed: Crossed) -> None:
    bundle = read_bundle(crossed.folder)
    assert bundle.model.architecture.ensemble == 3
    paths = sorted(str(path) for path in crossed.others.rglob("*.png"))[:8]
    parts = [clearmargin.load_bundle(crossed.folder / "folds" / str(fold)) for fold in range(3)]
    whole = clearmargin.load_bundle(crossed.folder)
    images = np.stack([bundle.model.preprocessing.read(path) for path in paths])
    mean = np.mean([part.logits(images) for part in parts], axis=0)
    np.testing.assert_allclose(whole.logits(images), mean, atol=1e-4)
    torch_model = load_torch_model(bundle)
    assert sum(value.numel() for value in torch_model.parameters()) == bundle.model.architecture.parameters


def test_a_killed_cross_validation_goes_on_and_ends_the_same(crossed: Crossed, tmp_path: Path) -> None:
    again = tmp_path / "run"
    shutil.copytree(crossed.folder, again)
    for name in ("run.json", "metrics.json", "predictions.csv", "bundle"):
        place = again / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    shutil.rmtree(again / "folds" / "2")
    settings = {"evaluate.resamples": 200, **SETTINGS}
    run = clearmargin.train(
        crossed.data, again, model="larger_model", epochs=2, folds=3, prevalence=0.01, settings=settings, resume=True
    )
    before = json.loads((crossed.folder / "metrics.json").read_text())
    assert run.metrics["test"]["image"]["auroc"] == before["test"]["image"]["auroc"]


def test_repeats_take_other_folds_and_are_listed(tmp_path: Path, crossed: Crossed) -> None:
    run = clearmargin.train(
        crossed.data, tmp_path / "run", model="larger_model", epochs=1, folds=2, repeats=2, settings=SETTINGS
    )
    assert [(entry["repeat"], entry["fold"]) for entry in run.metrics["folds"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    tested = [
        set(pd.read_csv(run.folder / "folds" / str(n) / "split.csv").query("split == 'test'")["patient_id"])
        for n in (0, 2)
    ]
    assert tested[0] != tested[1]
    assert len(read_predictions(run.folder / "predictions.csv")) == 12 * 16


def test_seeds_change_the_network_and_nothing_else(tmp_path: Path, crossed: Crossed) -> None:
    run = clearmargin.train(crossed.data, tmp_path / "run", model="larger_model", epochs=1, seeds=2, settings=SETTINGS)
    block = run.metrics["seeds"]
    assert block["seeds"] == [0, 1]
    other = json.loads((run.folder / "seeds" / "1" / "metrics.json").read_text())
    assert other["protocol"]["split_sha256"] == run.metrics["protocol"]["split_sha256"]
    values = [run.metrics["test"]["image"]["auroc"]["value"], other["test"]["image"]["auroc"]["value"]]
    assert block["figures"]["auroc"]["values"] == values
    first, second = (
        read_predictions(folder / "predictions.csv") for folder in (run.folder, run.folder / "seeds" / "1")
    )
    assert not np.array_equal(first["logit"], second["logit"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--folds", "1"], "split.folds must be 2 or more"),
        (["--folds", "40"], "cannot make 40 folds"),
        (["--repeats", "3"], "set split.folds too"),
        (["--folds", "3", "--seeds", "2"], "exclude each other"),
        (["--folds", "3", "--split", "mine.csv"], "makes its own folds"),
        (["--seeds", "0"], "greater than or equal to 1"),
        (["--coverage", "1.2"], "'--coverage': 1.2 is above 1"),
        (["--prevalence", "0"], "greater than 0"),
    ],
)
def test_impossible_wishes_are_one_line(
    options: list[str], says: str, crossed: Crossed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", str(crossed.data), "--out", str(tmp_path / "run"), *options])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert code in (2, 3)
    assert len(errors) == 1
    assert says in errors[0]
