"""Explanations keep the order, decide as predict does, are on the bundle's scale, and refuse with a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.bundle.small_bundle import write_working
from tests.explanation.conftest import FULL, SPEC

from clearmargin.bundle.schema import SaliencyScale
from clearmargin.decision import Abstention
from clearmargin.errors import BundleError, UnknownName
from clearmargin.explanation import explainer as module
from clearmargin.explanation.explainer import Explainer
from clearmargin.explanation.methods import METHODS
from clearmargin.images.read import read_image
from clearmargin.predict.predictor import load_bundle
from clearmargin.types import Record


def test_what_is_explained_is_what_predict_decides(explainer: Explainer, records: list[Record]) -> None:
    predictions = list(explainer.predictor.predict_records(records, context=False))
    explained = list(explainer.explain_records(records, methods=list(METHODS)))
    assert [image.prediction for image in explained] == predictions
    for image, prediction in zip(explained, predictions, strict=True):
        assert [each.method for each in image.explanations] == ([] if prediction.logit is None else list(METHODS))
        for each in image.explanations:
            assert (each.logit, each.probability, each.decision) == (
                prediction.logit,
                prediction.probability,
                prediction.decision,
            )
            assert each.threshold == 0.46
            assert each.scale.saturation == FULL
            assert each.map.shape == SPEC.shape[:2]
            assert each.map.dtype == np.float32


def test_it_knows_where_the_model_cannot_tell(tmp_path: Path, records: list[Record]) -> None:
    withheld = Abstention(coverage=0.9, low=0.0, high=1.0, n_units=12, unit="patient")
    scales = {"grad_cam": SaliencyScale(saturation=FULL, rule="made up", images=3, of="images of validation")}
    write_working(tmp_path / "unsure", name="cbis_ddsm", spec=SPEC, conformal=withheld, saliency=scales)
    explained = next(Explainer(load_bundle(tmp_path / "unsure")).explain_records(records[:1])).explanations[0]
    assert (explained.decision, explained.between) == ("abstain", (0.0, 1.0))


def test_full_colour_all_over_the_image_is_told_in_logits(explainer: Explainer, records: list[Record]) -> None:
    places = {"integrated_gradients": 24 * 20, "occlusion": 24 * 20 / 4**2}
    height, width, _ = SPEC.shape
    features = explainer.model.forward_features(torch.zeros(1, 3, height, width)).shape
    places["grad_cam"] = features[2] * features[3]
    image = next(explainer.explain_records(records[:1], methods=list(places)))
    for each in image.explanations:
        assert each.full_reach == pytest.approx(FULL * places[each.method])


def test_a_refused_image_does_not_stop_the_others(explainer: Explainer, records: list[Record]) -> None:
    explained = list(explainer.explain_records(records))
    assert [image.prediction.decision == "refused" for image in explained] == [False, False, False, True, False]
    assert "not a PNG" in (explained[3].prediction.reason or "")
    assert explained[3].pixels is None


def test_one_by_one_is_as_all_together(
    explainer: Explainer, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = list(explainer.explain_records(records, methods=["grad_cam", "occlusion"]))
    monkeypatch.setattr(module, "_MOST_BYTES", 1)  # as with images so large that none can wait for another
    apart = list(explainer.explain_records(records, methods=["grad_cam", "occlusion"]))
    for one, other in zip(together, apart, strict=True):
        for a, b in zip(one.explanations, other.explanations, strict=True):
            np.testing.assert_allclose(a.map, b.map, rtol=1e-3, atol=1e-6)


def test_memory_is_bounded_by_a_batch(explainer: Explainer, records: list[Record]) -> None:
    read = 0

    def watched() -> object:
        nonlocal read
        for number in range(500):
            read += 1
            yield records[number % 2]

    stream = explainer.explain_records(watched())  # type: ignore[arg-type]
    next(stream)
    assert read <= 32


def test_pixels_are_explained_as_their_file(explainer: Explainer, records: list[Record]) -> None:
    of_file = next(explainer.explain_records(records[:1])).explanations[0]
    of_pixels = explainer.explain(read_image(records[0].path)).explanations[0]
    assert np.array_equal(of_file.map, of_pixels.map)
    assert of_file.placement == of_pixels.placement


def test_integrated_gradients_sum_to_what_the_logit_gained(explainer: Explainer, records: list[Record]) -> None:
    each = next(explainer.explain_records(records[:1], methods=["integrated_gradients"])).explanations[0]
    assert each.plain_logit is not None
    gained = each.logit - each.plain_logit
    assert abs(each.map.sum() - gained) <= 0.02 * max(1, abs(gained))
    pixels = SPEC.apply(read_image(records[0].path))
    plain = np.broadcast_to(np.rint(pixels.mean(axis=(0, 1))), SPEC.shape).astype(np.uint8)
    assert explainer.explain(plain).prediction.logit == pytest.approx(each.plain_logit, abs=0.01)


def test_strength_is_in_units_of_the_scale(explainer: Explainer, records: list[Record]) -> None:
    each = next(explainer.explain_records(records[:1], methods=["occlusion"])).explanations[0]
    scaled = replace(each, map=np.array([[FULL / 2, -FULL, 3 * FULL]], np.float32))
    assert scaled.strength.tolist() == [[0.5, -1.0, 1.0]]


def test_weights_that_are_not_those_of_the_exported_network_are_refused(bundle: Path, records: list[Record]) -> None:
    explainer = Explainer(load_bundle(bundle))
    with torch.no_grad():
        next(reversed(list(explainer.model.parameters()))).add_(1)
    with pytest.raises(BundleError, match="weights and exported network differ"):
        list(explainer.explain_records(records))


def test_without_a_scale_one_is_found_or_refused(tmp_path: Path, records: list[Record]) -> None:
    write_working(tmp_path / "old", name="cbis_ddsm", spec=SPEC)
    with pytest.raises(BundleError, match=r"no colour scale for 'grad_cam'\. Make one with calibrate"):
        list(Explainer(load_bundle(tmp_path / "old")).explain_records(records))
    pixels = np.random.default_rng(0).integers(0, 255, (6, *SPEC.shape)).astype(np.uint8)
    explainer = Explainer(load_bundle(tmp_path / "old"), scale_images=lambda spec: pixels, scale_of="noise")
    each = next(explainer.explain_records(records, methods=["occlusion"])).explanations[0]
    assert (each.scale.of, each.scale.images) == ("noise", 6)
    assert not explainer.has_scale("occlusion")
    assert explainer.scale("occlusion") == each.scale


@pytest.mark.parametrize("methods", ["occlusion", ["occlusion"], ["occlusion", "occlusion"]])
def test_one_method_is_named_by_itself_or_in_a_list(
    explainer: Explainer, records: list[Record], methods: str | list[str]
) -> None:
    of_pixels = explainer.explain(read_image(records[0].path), methods=methods)
    of_record = next(explainer.explain_records(records[:1], methods=methods))
    for explained in (of_pixels, of_record):
        assert [each.method for each in explained.explanations] == ["occlusion"]


def test_all_methods_are_asked_for_by_one_word(explainer: Explainer, records: list[Record]) -> None:
    explained = explainer.explain(read_image(records[0].path), methods="all")
    assert [each.method for each in explained.explanations] == list(METHODS)


def test_an_unknown_method_is_refused_before_anything_is_read(explainer: Explainer) -> None:
    with pytest.raises(UnknownName, match="no method 'lime'"):
        list(explainer.explain_records([Record("nowhere.png")], methods=["lime"]))
