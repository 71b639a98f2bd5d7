"""What is told of models: as their bundles say, and safe to show in a page."""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from tests.bundle.small_bundle import write_working
from tests.small_run import SmallRun
from tests.web.conftest import MakeClient, files, png
from tests.web.in_process import InProcess

import clearmargin
from clearmargin.bundle.read import read_bundle
from clearmargin.bundle.schema import Context
from clearmargin.context import Grid
from clearmargin.decision import Abstention
from clearmargin.images.preprocess import Preprocessing
from clearmargin.types import INTENDED_USE, OperatingPoint
from clearmargin.web.answers import CardAnswer, ExamplesAnswer, FiguresAnswer, ModelAnswer, ModelsAnswer
from clearmargin.web.card import card_html


@pytest.fixture
def served(make_client: MakeClient, small_run: SmallRun) -> InProcess:
    return make_client(small_run.folder)


def test_a_model_is_told_as_its_bundle_says(served: InProcess, small_run: SmallRun) -> None:
    answer = served.get("/api/v1/models/run").json()
    assert served.get("/api/v1/models").json() == {"models": [answer]}
    told, model = ModelAnswer.model_validate(answer), read_bundle(small_run.folder).model
    metrics = model.lineage.metrics
    assert metrics is not None
    assert told.operating_point.threshold == model.decision_point.threshold
    assert told.operating_point.achieved_on == "test"
    assert told.operating_point.sensitivity.value == metrics["sensitivity"]["value"]
    assert list(told.operating_point.sensitivity.ci or ()) == metrics["sensitivity"]["ci"]
    assert told.gate.active
    assert told.abstention.active and told.abstention.between is not None
    assert told.test is not None and told.test["auroc"].value == metrics["auroc"]["value"]
    assert all(method.has_scale for method in told.methods)
    assert told.intended_use == INTENDED_USE


def test_what_a_bundle_has_not_is_told_with_the_reason(client: InProcess) -> None:
    told = ModelsAnswer.model_validate(client.get("/api/v1/models").json()).models[0]
    assert not told.gate.active and told.gate.reason
    assert not told.abstention.active and told.abstention.reason
    assert not told.context.active and told.context.reason
    assert (told.similar.available, told.similar.images) == (False, 0)


def test_what_decides_among_neighbours_is_told_apart_from_what_decides_alone(
    make_client: MakeClient, tmp_path: Path
) -> None:
    rule = OperatingPoint("balanced", "in context", 0.25, achieved={"sensitivity": 0.7})
    inside = Context(
        grid=Grid(step=32, scale=1.0, networks=1),
        temperature=1.0,
        operating_points={"balanced": rule},
        operating_point="balanced",
        conformal=Abstention(coverage=0.9, low=0.2, high=0.3, n_units=20, unit="patient"),
    )
    write_working(tmp_path / "placed", name="residual", spec=Preprocessing(width=32, height=32), context=inside)
    client = make_client(tmp_path / "placed")
    told = ModelsAnswer.model_validate(client.get("/api/v1/models").json()).models[0]
    assert told.context.operating_point is not None and told.context.abstention is not None
    assert (told.operating_point.threshold, told.context.operating_point.threshold) == (0.4321, 0.25)
    assert (told.abstention.between, told.context.abstention.between) == (None, (0.2, 0.3))
    assert told.test is not None
    assert told.context.operating_point.sensitivity == told.test["sensitivity"]  # of the test part, in context
    assert (told.operating_point.sensitivity.value, told.operating_point.sensitivity.ci) == (0.8, None)
    assert told.operating_point.achieved_on == "validation"
    near = [(f"P1_idx5_x{x}_y1_class0.png", png(x)) for x in (1, 33)]
    rows = client.post("/api/v1/predict", files=files(*near, ("alone.png", png()))).json()["predictions"]
    assert [row["in_context"] for row in rows] == [True, True, False]


def test_a_gate_that_is_switched_off_is_said_to_be(make_client: MakeClient, small_run: SmallRun) -> None:
    told = make_client(small_run.folder, gate=False).get("/api/v1/models/run").json()
    assert told["gate"]["active"] is False
    assert "switched off" in told["gate"]["reason"]


def test_the_card_is_that_of_the_bundle(served: InProcess, small_run: SmallRun) -> None:
    told = CardAnswer.model_validate(served.get("/api/v1/card").json())
    assert told.markdown == (small_run.folder / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert told.html.startswith("<h1>Model card</h1>")
    assert INTENDED_USE in told.html
    assert "**" not in told.html and "`" not in told.html
    tags = set(re.findall(r"</?([^>]*)>", told.html))
    assert tags <= {"h1", "h2", "h3", "p", "ul", "li", "code", "strong", "em", "blockquote", "table", "tr", "th", "td"}


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "# <img src=x onerror=alert(1)>",
        "- `<b>`",
        "> **<i>**",
        "| <a href='x'> | b |\n| --- | --- |\n| <u> | d |",
        "[a](javascript:alert(1))",
    ],
)
def test_nothing_in_a_card_becomes_a_tag_of_its_own(text: str) -> None:
    tree = ElementTree.fromstring(f"<card>{card_html(text)}</card>")
    assert {element.tag for element in tree.iter()} <= {
        *("card", "p", "h1", "ul", "li", "code", "strong", "em", "blockquote", "table", "tr", "th", "td")
    }
    assert all(not element.attrib for element in tree.iter())


def test_a_run_shows_its_figures_without_styles_scripts_or_patients(served: InProcess, small_run: SmallRun) -> None:
    told = FiguresAnswer.model_validate(served.get("/api/v1/figures").json())
    names = [figure.name for figure in told.figures]
    assert {"confusion", "roc", "precision_recall", "histogram", "reliability", "training"} <= set(names)
    assert not {"patients", "patient_shares"} & set(names)
    patients = {folder.name for folder in small_run.data.iterdir()}
    for figure in told.figures:
        tree = ElementTree.fromstring(figure.svg)
        for element in tree.iter():
            assert not element.tag.endswith(("style", "script", "foreignObject"))
            assert "style" not in element.attrib
            assert not any(name.startswith("on") for name in element.attrib)
            assert all(value.startswith("#") for name, value in element.attrib.items() if name.endswith("href"))
        assert not any(patient in figure.svg + figure.caption for patient in patients)


def test_a_bundle_alone_has_no_figures(client: InProcess) -> None:
    assert client.get("/api/v1/figures").json() == {"model": "small", "figures": []}


def test_a_bundle_within_its_run_is_called_by_it(make_client: MakeClient, small_run: SmallRun) -> None:
    client = make_client(small_run.folder / "bundle")
    assert client.get("/api/v1/figures").json()["model"] == "run"
    assert client.get("/api/v1/figures").json()["figures"]


def test_examples_are_images_of_the_models_size_that_it_decides(client: InProcess) -> None:
    told = ExamplesAnswer.model_validate(client.get("/api/v1/examples").json())
    assert {example.label for example in told.examples} == {"benign", "malignant"}
    for example in told.examples:
        content = client.get(example.url).content
        assert Image.open(io.BytesIO(content)).size == (32, 32)
        answer = client.post("/api/v1/predict", files=files((example.name, content)))
        assert answer.json()["predictions"][0]["decision"] in ("benign", "malignant")
    first = [np.asarray(Image.open(io.BytesIO(client.get(example.url).content))) for example in told.examples]
    assert len({picture.tobytes() for picture in first}) == len(first)


def test_version_says_what_it_is_for(client: InProcess) -> None:
    assert client.get("/api/v1/version").json() == {
        "clearmargin": clearmargin.__version__,
        "api": "v1",
        "intended_use": INTENDED_USE,
    }


def test_metrics_count_without_names(client: InProcess) -> None:
    for _ in range(3):
        client.post("/api/v1/predict", files=files(("DoeJane.png", png()), ("b.png", b"x")))
    client.get("/api/v1/models/DoeJane")
    client.get("/DoeJane")
    client.request("DOEJANE", "/api/v1/models")
    text = client.get("/api/v1/metrics").text
    assert 'clearmargin_requests_total{method="POST",route="/api/v1/predict",status="200"} 3.0' in text
    assert 'clearmargin_requests_total{method="GET",route="/api/v1/models/{name}",status="404"} 1.0' in text
    assert 'clearmargin_images_total{decision="refused"} 3.0' in text
    assert "clearmargin_batch_images_count 3.0" in text
    assert "clearmargin_requests_at_work 0.0" in text
    assert "process_resident_memory_bytes" in text
    assert "Doe" not in text and "DOE" not in text


def test_two_applications_count_each_for_itself(make_client: MakeClient) -> None:
    first, second = make_client(), make_client()
    first.post("/api/v1/predict", files=files(("a.png", png())))
    assert "clearmargin_images_total{" in first.get("/api/v1/metrics").text
    assert "clearmargin_images_total{" not in second.get("/api/v1/metrics").text
