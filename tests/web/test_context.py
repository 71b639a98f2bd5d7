"""A slide over HTTP: its patches are decided among their neighbours, and each rule is told with its own figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.slides import PATCHES, Placed
from tests.web.conftest import MakeClient

from clearmargin.evaluation.predictions import read_predictions

PREDICT = "/api/v1/predict"


@pytest.mark.parametrize("context", [True, False])
def test_patches_of_a_slide_are_decided_as_the_run_decided_them(
    context: bool, placed: Placed, make_client: MakeClient
) -> None:
    every = read_predictions(placed.run / "predictions.csv")
    test = every[every["split"] == "test"]
    slide = test[test["patient_id"] == test["patient_id"].iloc[0]]
    files = [("files", (Path(path).name, Path(path).read_bytes())) for path in slide["path"]]
    rows = make_client(placed.run).post(PREDICT, files=files, params={"context": context}).json()["predictions"]
    suffix = "" if context else "_alone"
    assert [row["in_context"] for row in rows] == [context] * PATCHES
    assert [row["decision"] for row in rows] == slide[f"decision{suffix}"].tolist()
    assert [row["probability"] for row in rows] == pytest.approx(slide[f"probability{suffix}"].to_numpy(), abs=1e-6)


def test_each_operating_point_has_its_own_figures(placed: Placed, make_client: MakeClient) -> None:
    told = make_client(placed.run).get("/api/v1/models").json()["models"][0]
    model = json.loads((placed.run / "bundle" / "model.json").read_text())
    test = json.loads((placed.run / "metrics.json").read_text())["test"]
    for point, rule, block in (
        (told["operating_point"], model, test["image_alone"]),
        (told["context"]["operating_point"], model["context"], test["image"]),
    ):
        assert point["threshold"] == rule["operating_points"][rule["operating_point"]]["threshold"]
        assert point["achieved_on"] == "test"
        for name in ("sensitivity", "specificity"):
            assert point[name]["value"] == block[name]["value"]
            assert point[name]["ci"] == block[name]["ci"]
    assert told["operating_point"] != told["context"]["operating_point"]
