"""Explanations over HTTP are those of `explain`, as pictures that a page can lay over each other."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.small_run import SmallRun
from tests.web.conftest import MakeClient, files, png
from tests.web.in_process import InProcess

import clearmargin
from clearmargin.explanation.draw import draw_layer, draw_overlay, show_image
from clearmargin.explanation.methods import METHODS
from clearmargin.web.answers import ExplainAnswer

EXPLAIN = "/api/v1/explain"


def picture(url: str) -> Any:
    kind, _, content = url.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.fixture
def served(make_client: MakeClient, small_run: SmallRun) -> InProcess:
    return make_client(small_run.folder)


@pytest.fixture
def patch(small_run: SmallRun) -> bytes:
    return next(small_run.data.glob("P05/1/*.png")).read_bytes()


def test_every_method_gives_the_pictures_of_explain(served: InProcess, small_run: SmallRun, patch: bytes) -> None:
    answer = served.post(EXPLAIN, files=files(("a.png", patch)), params={"method": list(METHODS)})
    ExplainAnswer.model_validate(answer.json())
    (told,) = answer.json()["explanations"]
    pixels = np.asarray(Image.open(io.BytesIO(patch)))
    explained = clearmargin.load_explainer(small_run.folder).explain(pixels, methods=list(METHODS))
    assert (told["decision"], told["probability"]) == (
        explained.prediction.decision,
        explained.prediction.probability,
    )
    assert (told["width"], told["height"]) == (32, 32)
    np.testing.assert_array_equal(picture(told["image"]), np.asarray(show_image(pixels)))
    assert [each["method"] for each in told["maps"]] == list(METHODS)
    for each, wanted in zip(told["maps"], explained.explanations, strict=True):
        assert each["logit"] == wanted.logit
        assert each["scale"] == wanted.scale.model_dump()
        layer = picture(each["layer"])
        assert layer.shape == (*picture(told["image"]).shape[:2], 4)
        np.testing.assert_array_equal(layer, np.asarray(draw_layer(wanted)))


def test_the_layer_over_the_image_is_the_overlay(small_run: SmallRun, patch: bytes) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(patch)))
    (one,) = clearmargin.load_explainer(small_run.folder).explain(pixels).explanations
    layer = np.asarray(draw_layer(one)).astype(float)
    grey = 30 + 195 / 255 * np.asarray(show_image(pixels).convert("L"), dtype=float)[:, :, None]
    alpha = 0.6 * layer[:, :, 3:] / 255
    mixed = grey * (1 - alpha) + layer[:, :, :3] * alpha
    np.testing.assert_allclose(mixed, np.asarray(draw_overlay(pixels, one)), atol=1.5)


def test_one_picture_can_be_asked_for(served: InProcess, patch: bytes) -> None:
    answer = served.post(EXPLAIN, files=files(("a.png", patch)), headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size[0] > 640


@pytest.mark.parametrize(
    ("sent", "methods", "status"),
    [
        ([("a.png", png())], ["grad_cam"], 422),
        ([("a.png", png()), ("b.png", png())], ["grad_cam"], 422),
        ([("a.png", png())], ["grad_cam", "occlusion"], 422),
        ([("a.png", b"words")], ["grad_cam"], 415),
    ],
)
def test_a_picture_that_cannot_be_is_one_error(
    served: InProcess, sent: list[tuple[str, bytes]], methods: list[str], status: int
) -> None:
    headers = {"Accept": "image/png"}
    assert served.post(EXPLAIN, files=files(*sent), params={"method": methods}, headers=headers).status_code == status


def test_what_is_refused_is_told_without_pictures(served: InProcess, patch: bytes) -> None:
    sent = files(("odd.png", png()), ("words.txt", b"words"), ("good.png", patch))
    odd, words, good = served.post(EXPLAIN, files=sent).json()["explanations"]
    for refused in (odd, words):
        assert (refused["decision"], refused["image"], refused["maps"]) == ("refused", None, [])
        assert refused["reason"]
    assert good["maps"]


def test_too_many_maps_are_refused(served: InProcess) -> None:
    sent = files(*((f"{number}.png", png(number)) for number in range(11)))
    answer = served.post(EXPLAIN, files=sent, params={"method": list(METHODS)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_bundle_without_colour_scales_has_drawn_ones(client: InProcess) -> None:
    answer = client.post(EXPLAIN, files=files(("a.png", png())))
    assert answer.json()["explanations"][0]["maps"][0]["scale"]["of"] == "drawn phantom images"
