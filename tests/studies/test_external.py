"""A finished model on other images: decided by its bundle alone, and honest about what it has seen before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from tests.studies.conftest import Crossed

import clearmargin
from clearmargin.bundle.read import CASES, read_bundle
from clearmargin.cli import main
from clearmargin.data.sources import read_source
from clearmargin.decision import probability
from clearmargin.evaluation.predictions import read_predictions
from clearmargin.studies.external import SEEN_IN_RECALIBRATION, find_overlap

QUICK = {"evaluate.resamples": 200}


@pytest.fixture(scope="module")
def external(crossed: Crossed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("external") / "out"
    return clearmargin.evaluate(crossed.folder, crossed.others, out, prevalence=0.01, settings=QUICK).folder


def test_the_folder_has_the_files_of_a_run(external: Path) -> None:
    files = {
        "config.toml",
        "environment.json",
        "manifest.parquet",
        "audit.json",
        "split.csv",
        "predictions.csv",
        "metrics.json",
        "report.html",
        "run.json",
        "bundle",
    }
    assert files <= {entry.name for entry in external.iterdir()}
    assert main(["report", str(external)]) == 0


def test_the_bundle_alone_decides(crossed: Crossed, external: Path) -> None:
    table, model = read_predictions(external / "predictions.csv"), read_bundle(crossed.folder).model
    np.testing.assert_allclose(table["probability"], probability(table["logit"].to_numpy(), model.calibrated_by))
    assert table["decision"].tolist() == model.decide(table["probability"].to_numpy()).tolist()
    answers = clearmargin.load_bundle(external).predict(table["path"].tolist())
    np.testing.assert_allclose(answers["probability"], table["probability"], atol=1e-6)
    assert answers["decision"].tolist() == table["decision"].tolist()


def test_the_cases_go_along(crossed: Crossed, external: Path) -> None:
    before, after = read_bundle(crossed.folder), read_bundle(external)
    assert after.model.cases == before.model.cases
    assert all(after.read(name) == before.read(name) for name in CASES)


def test_figures_are_those_of_the_table_and_prevalence_those_of_bayes(external: Path) -> None:
    metrics, table = json.loads((external / "metrics.json").read_text()), read_predictions(external / "predictions.csv")
    image = metrics["test"]["image"]
    assert image["auroc"]["value"] == pytest.approx(roc_auc_score(table["label"], table["probability"]))
    found, cleared = image["sensitivity"]["value"], image["specificity"]["value"]
    ppv = 0.01 * found / (0.01 * found + 0.99 * (1 - cleared))
    assert metrics["test"]["at_prevalence"]["ppv"]["value"] == pytest.approx(ppv)
    assert "train" not in metrics
    assert metrics["protocol"]["split"] == "external"


def test_images_of_the_training_are_told(crossed: Crossed, tmp_path: Path) -> None:
    run = clearmargin.evaluate(crossed.folder, crossed.data, tmp_path / "out", settings=QUICK)
    assert run.metrics["protocol"]["trained_on_images"] == 12 * 16
    assert "optimistic" in run.metrics["protocol"]["stamp"]
    assert "optimistic" in run.report.read_text()


def test_other_patients_are_not_stamped(external: Path) -> None:
    protocol = json.loads((external / "metrics.json").read_text())["protocol"]
    assert protocol["trained_on_images"] == 0
    assert "stamp" not in protocol


def test_a_darker_scanner_is_told_and_the_same_one_is_not(crossed: Crossed, external: Path, tmp_path: Path) -> None:
    same = json.loads((external / "metrics.json").read_text())["drift"]
    assert {entry["verdict"] for entry in same["inputs"]} == {"alike"}
    for path in crossed.others.rglob("*.png"):
        target = tmp_path / "dark" / path.relative_to(crossed.others)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(Image.open(path)) * 0.5).astype(np.uint8)).save(target)
    run = clearmargin.evaluate(crossed.folder, tmp_path / "dark", tmp_path / "out", settings=QUICK)
    assert "shifted" in {entry["verdict"] for entry in run.metrics["drift"]["inputs"]}
    gate = run.metrics["gate"]
    assert gate["images"] == run.metrics["test"]["image"]["n_images"] == 160  # the figures are of all of them
    predicted = clearmargin.load_bundle(run.folder).predict(sorted((tmp_path / "dark").rglob("*.png")))
    assert gate["refused"] == (predicted["decision"] == "refused").sum() == sum(gate["reasons"].values())


def test_other_patients_of_the_same_kind_are_hardly_ever_refused(external: Path) -> None:
    gate = json.loads((external / "metrics.json").read_text())["gate"]
    assert gate["images"] == 160
    assert gate["refused"] <= 5


def test_a_recalibrated_bundle_accepts_the_images_of_its_recalibration(crossed: Crossed, tmp_path: Path) -> None:
    for path in crossed.others.rglob("*.png"):
        target = tmp_path / "green" / path.relative_to(crossed.others)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path))[:, :, [1, 0, 2]]).save(target)
    files = sorted((tmp_path / "green").rglob("*.png"))
    before = clearmargin.load_bundle(crossed.folder).predict(files)["decision"]
    assert (before == "refused").mean() > 0.5
    clearmargin.calibrate(crossed.folder, tmp_path / "green", tmp_path / "new", settings=QUICK)
    after = clearmargin.load_bundle(tmp_path / "new").predict(files)["decision"]
    assert (after == "refused").mean() < 0.05
    gate = read_bundle(tmp_path / "new").model.input_gate
    assert gate is not None
    assert gate.chosen_on == "the images of the recalibration"
    assert gate.on_test is None


def test_recalibration_is_offered_where_labels_are_turned_and_never_made(crossed: Crossed, tmp_path: Path) -> None:
    # Many more malignant images than in training: the probabilities are too low.
    paths = sorted(crossed.others.rglob("*.png"))
    labels = [int("class1" in path.name) for path in paths]
    kept = [path for number, path in enumerate(paths) if labels[number] or number % 8 == 0]
    table = pd.DataFrame({"path": kept, "label": [int("class1" in path.name) for path in kept]})
    table["patient_id"] = [path.name.split("_")[0] for path in kept]
    table.to_csv(tmp_path / "rich.csv", index=False)
    run = clearmargin.evaluate(crossed.folder, tmp_path / "rich.csv", tmp_path / "out", settings=QUICK)
    offer = run.metrics["recalibration"]
    assert offer["offered"] is True
    assert offer["after_cv"]["brier"] < offer["before"]["brier"]
    assert "clearmargin calibrate" in offer["command"]
    assert read_bundle(run.folder).model.calibrated_by == read_bundle(crossed.folder).model.calibrated_by


def test_a_recalibrated_bundle_is_stamped_on_the_images_of_its_recalibration(crossed: Crossed, tmp_path: Path) -> None:
    clearmargin.calibrate(crossed.folder, crossed.others, tmp_path / "new", settings=QUICK)
    run = clearmargin.evaluate(tmp_path / "new", crossed.others, tmp_path / "out", settings=QUICK)
    assert run.metrics["protocol"]["stamp"] == SEEN_IN_RECALIBRATION
    # Its scores are compared with those of the new calibration, so the same images show no shift.
    assert run.metrics["drift"]["score"]["verdict"] == "alike"


def test_a_folder_of_an_evaluation_is_no_training(crossed: Crossed, external: Path) -> None:
    # Its bundle was carried there: what was evaluated in the folder was never trained on.
    manifest = read_source(crossed.others)
    assert find_overlap(read_bundle(external), manifest) is None


def test_a_bundle_as_one_file_is_evaluated_alike_and_its_training_is_looked_for_beside_it(
    crossed: Crossed, external: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.clearmargin"
    clearmargin.export(crossed.folder, path, to="clearmargin")
    run = clearmargin.evaluate(path, crossed.others, tmp_path / "out", settings=QUICK)
    assert (run.folder / "predictions.csv").read_bytes() == (external / "predictions.csv").read_bytes()
    assert read_bundle(run.folder).sha256 == read_bundle(path).sha256 == read_bundle(crossed.folder).sha256
    manifest = read_source(crossed.data)
    assert find_overlap(read_bundle(path), manifest) is None  # nobody can tell
    beside = crossed.folder / "model.clearmargin"
    beside.write_bytes(path.read_bytes())
    assert find_overlap(read_bundle(beside), manifest) == find_overlap(read_bundle(crossed.folder), manifest)
    beside.unlink()
    clearmargin.calibrate(path, crossed.others, tmp_path / "new", settings=QUICK)
    assert read_bundle(tmp_path / "new").read("model.onnx") == read_bundle(path).read("model.onnx")


def test_the_report_claims_nothing_of_a_training_that_it_did_not_see(external: Path) -> None:
    page = (external / "report.html").read_text()
    assert "learning rate" not in page
    assert "both training and" not in page
    checklist = (external / "checklists" / "CLAIM-2024.md").read_text()
    assert "Weights are drawn at random" not in checklist


def test_calibrate_takes_no_bundles_place(crossed: Crossed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_bundle(crossed.folder).sha256
    for out in (crossed.folder / "bundle", crossed.folder):
        assert main(["calibrate", str(crossed.folder), str(crossed.others), "--out", str(out)]) == 2
    assert read_bundle(crossed.folder).sha256 == before
    assert main(["calibrate", str(crossed.folder), str(crossed.others), "--out", "/proc/x"]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_one_class_is_one_line(crossed: Crossed, tmp_path: Path) -> None:
    paths = sorted(crossed.others.rglob("*class0.png"))
    pd.DataFrame({"path": paths, "label": 0}).to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(clearmargin.ClearmarginError, match="no usable malignant image"):
        clearmargin.evaluate(crossed.folder, tmp_path / "one.csv", tmp_path / "out", settings=QUICK)


def test_recalibrated_bundle_fits_the_new_images_and_keeps_the_network(crossed: Crossed, tmp_path: Path) -> None:
    made = clearmargin.calibrate(crossed.folder, crossed.others, tmp_path / "new", coverage=0.8, settings=QUICK)
    old, new = read_bundle(crossed.folder), read_bundle(tmp_path / "new")
    assert new.read("model.onnx") == old.read("model.onnx")
    assert new.read("weights.safetensors") == old.read("weights.safetensors")
    assert new.model.lineage.recalibrated is not None
    assert new.model.lineage.recalibrated.patients == 10
    assert new.model.conformal is not None
    assert new.model.conformal.coverage == 0.8
    assert made.n_images == 160
    # Temperature cannot worsen the loss that it minimises; the others are chosen for a lower Brier score.
    assert made.after <= made.before + 0.01
    card = (tmp_path / "new" / "MODEL_CARD.md").read_text()
    assert "chosen anew** on 160 images of 10 patients" in card


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_a_folder_that_is_not_there_and_a_bundle_that_is_none(
    command: str, crossed: Crossed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main([command, str(crossed.folder), str(tmp_path / "nowhere"), *out]) == 3
    assert main([command, str(crossed.data), str(crossed.others), *out]) == 4
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "mine.txt").write_text("keep")
    assert main([command, str(crossed.folder), str(crossed.others), "--out", str(tmp_path / "busy")]) == 2
    assert (tmp_path / "busy" / "mine.txt").read_text() == "keep"
    assert "Traceback" not in capsys.readouterr().err
