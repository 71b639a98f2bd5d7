"""The main job on real IDC patches: the classes can be learned, and the doors agree."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import clearmargin

pytestmark = pytest.mark.real
PER_CLASS = 40


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of at most 40 patches of either class from each patient, edge patches included."""
    from tests.conftest import REAL_DATA

    if not REAL_DATA.is_dir():
        if os.environ.get("CLEARMARGIN_REQUIRE_REAL") == "1":
            pytest.fail(f"the real images are required and not at {REAL_DATA}")
        pytest.skip("the real images are not beside this checkout")
    rows = []
    for folder in sorted((REAL_DATA / "idc").glob("*/[01]")):
        files = sorted(folder.iterdir())
        rows += [(file, int(folder.name), folder.parent.name) for file in files[:: max(1, len(files) // PER_CLASS)]]
    path = tmp_path_factory.mktemp("real") / "patches.csv"
    pd.DataFrame(rows, columns=["path", "label", "patient_id"]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(listing: Path, tmp_path_factory: pytest.TempPathFactory) -> clearmargin.Run:
    os.environ["CLEARMARGIN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    settings = {"evaluate.resamples": 500, "split.fractions": [0.5, 0.25, 0.25], "cases.keep": "on"}
    return clearmargin.train(listing, tmp_path_factory.mktemp("runs") / "run", epochs=6, settings=settings)


def test_classes_are_learned_on_patients_never_seen(run: clearmargin.Run) -> None:
    test = run.metrics["test"]["image"]
    assert test["n_patients"] == 4
    assert test["auroc"]["value"] > 0.75
    low, high = test["auroc"]["ci"]
    assert low < test["auroc"]["value"] < high
    assert run.metrics["test"]["patient"]["not_applicable"].startswith("4 of 4 patients have both")


def test_export_agrees_with_torch_on_real_patches(run: clearmargin.Run) -> None:
    from clearmargin.bundle.export import parity
    from clearmargin.bundle.read import read_bundle
    from clearmargin.bundle.torch_model import load_torch_model
    from clearmargin.images.read import read_image
    from clearmargin.models.contract import Deployed

    bundle = read_bundle(run.folder)
    spec = bundle.model.preprocessing
    paths = pd.read_csv(run.folder / "predictions.csv")["path"].head(200)
    images = np.stack([spec.apply(read_image(path)) for path in paths])
    deployed = Deployed(load_torch_model(bundle), spec.mean, spec.std).eval()
    assert parity(deployed, bundle.read("model.onnx"), images) < 1e-4


def test_predictions_of_the_run_are_those_of_the_bundle(run: clearmargin.Run, listing: Path) -> None:
    stored = pd.read_csv(run.folder / "predictions.csv")
    tested = (stored["split"] == "test").to_numpy()  # the others were judged by a network that had not seen them
    predicted = clearmargin.load_bundle(run.folder).predict(pd.read_csv(listing))
    assert predicted["path"].tolist() == stored["path"].tolist()
    stored, predicted = stored[tested], predicted[tested]
    kept = (predicted["decision"] != "refused").to_numpy()
    assert kept.mean() > 0.95  # new patients of the same source are no strangers
    np.testing.assert_allclose(predicted["probability"][kept], stored["probability"][kept], atol=1e-6)
    assert predicted["decision"][kept].tolist() == stored["decision"][kept].tolist()
    assert run.metrics["gate"]["refused"] == (~kept).sum()


def test_most_of_the_cases_like_a_patch_have_its_label(run: clearmargin.Run) -> None:
    stored = pd.read_csv(run.folder / "predictions.csv", dtype={"patient_id": str})
    tested, trained = (stored[stored["split"] == part] for part in ("test", "train"))
    found = clearmargin.load_bundle(run.folder).predict(tested, similar=5)["similar"]
    cases = pd.DataFrame([case for similar in found for case in similar])
    assert len(cases) == 5 * len(tested)
    assert set(cases["patient_id"]) <= set(trained["patient_id"])
    assert not cases["same_patient"].any()
    labels = np.repeat(tested["label"].to_numpy(), 5)
    same = (cases["label"] == "malignant").to_numpy() == (labels == 1)
    assert min(same[labels == 0].mean(), same[labels == 1].mean()) > 0.55


def test_report_shows_the_figures(run: clearmargin.Run) -> None:
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert f"{metrics['test']['image']['auroc']['value']:.3f}" in run.report.read_text()


def test_busi_masks_are_not_images_and_its_patients_are_unknown(real_data: Path) -> None:
    audit = clearmargin.audit(real_data / "busi")
    assert len(audit.manifest) == 40
    assert {finding.kind for finding in audit.findings} >= {"mask", "normal_left_out", "unknown_patients"}
    with pytest.raises(clearmargin.ClearmarginError, match="--by image"):
        clearmargin.split(real_data / "busi")
