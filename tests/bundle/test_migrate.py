"""Bundles of earlier versions are read, and decide as they did; these texts are frozen, not written by today's code."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tests.bundle.small_bundle import lived_model, pictures
from tests.slides import sign_all

from clearmargin.bundle.export import export_onnx
from clearmargin.bundle.migrate import SCHEMA, STEPS
from clearmargin.bundle.read import Bundle, read_bundle
from clearmargin.bundle.schema import parse_model_file
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.bundle.write import Network, rewrite_bundle
from clearmargin.decision import Level, Platt, Pooling, Temperature
from clearmargin.errors import BundleError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.predict.predictor import Predictor
from clearmargin.types import Record

FIRST = """{
 "schema": 1,
 "architecture": {"name": "cbis_ddsm", "parameters": 85057},
 "preprocessing": {"width": 16, "height": 16, "channels": 3, "fit": "pad", "padding": "mirror",
  "interpolation": "area", "bit_depth": "full_range", "mean": 0.5, "std": 0.25},
 "labels": ["benign", "malignant"],
 "temperature": 1.2345,
 "operating_points": {"balanced": {"name": "balanced", "rule": "largest balanced accuracy", "threshold": 0.4321,
  "chosen_on": "validation", "achieved": {"sensitivity": 0.8}}},
 "operating_point": "balanced",
 "conformal": null,
 "input_gate": null,
 "lineage": {"clearmargin": "0.1.0", "created": "2026-01-02T03:04:05+00:00", "recipe": "cbis_ddsm", "seed": 7,
  "split": "patient", "stamp": null, "data_sha256": "dd", "split_sha256": "ee", "precision": "32-true",
  "metrics": {"n_images": 1234, "n_patients": 17, "loss": 0.3, "confusion": [[1, 2], [3, 4]],
   "auroc": {"value": 0.9, "ci": [0.8, 1.0]}, "auprc": {"value": 0.9, "ci": [0.8, 1.0]},
   "balanced_accuracy": {"value": 0.9, "ci": [0.8, 1.0]}, "accuracy": {"value": 0.9, "ci": [0.8, 1.0]},
   "sensitivity": {"value": 0.9, "ci": [0.8, 1.0]}, "specificity": {"value": 0.9, "ci": [0.8, 1.0]},
   "ppv": {"value": null, "ci": null, "reason": "no image was called malignant"},
   "npv": {"value": 0.9, "ci": [0.8, 1.0]}, "f1": {"value": 0.9, "ci": [0.8, 1.0]},
   "brier": {"value": 0.1, "ci": [0.05, 0.2]}, "ece": {"value": 0.1, "ci": null, "reason": "fewer than 2 patients"}},
  "libraries": {"torch": "2.13"}},
 "intended_use": "For research and education."
}"""
"""As the very first version wrote it: no calibration, abstention, levels, reference, ensemble or context."""

LAST = """{
 "temperature": 1.0,
 "calibration": {"method": "platt", "slope": 0.8, "intercept": -0.25},
 "operating_points": {
  "balanced": {"name": "balanced", "rule": "largest balanced accuracy", "threshold": 0.4321, "chosen_on": "validation",
   "achieved": {"sensitivity": 0.8}},
  "sensitive": {"name": "sensitive", "rule": "sensitivity of 0.95", "threshold": 0.2, "chosen_on": "validation",
   "achieved": {}}},
 "operating_point": "balanced",
 "conformal": {"coverage": 0.9, "low": 0.4123, "high": 0.5231, "n_units": 40, "unit": "patient"},
 "no_abstention": null,
 "levels": {
  "slide": {"pooling": {"method": "learned", "k": null, "intercept": -0.3, "mean_weight": 0.7, "top_weight": 0.4},
   "calibration": {"method": "platt", "slope": 1.5, "intercept": 0.2}, "threshold": 0.37, "reason": "best"},
  "patient": {"pooling": {"method": "top_k", "k": 3, "intercept": 0.0, "mean_weight": 0.0, "top_weight": 0.0},
   "calibration": {"method": "temperature", "temperature": 1.0}, "threshold": 0.61, "reason": ""}},
 "no_levels": {},
 "schema": 1,
 "architecture": {"name": "cbis_ddsm", "parameters": 85057, "ensemble": 1, "head": "linear", "input_px": null,
  "arguments": {}, "field": 3, "thumbnail": 4},
 "preprocessing": {"width": 16, "height": 16, "channels": 3, "fit": "pad", "padding": "mirror",
  "interpolation": "area", "region": "whole", "orientation": "as_is", "dicom_window": "stored",
  "bit_depth": "full_range", "mean": 0.5, "std": 0.25},
 "labels": ["benign", "malignant"],
 "content": "histology",
 "context": {
  "temperature": 1.3, "calibration": null,
  "operating_points": {"balanced": {"name": "balanced", "rule": "largest balanced accuracy", "threshold": 0.3,
   "chosen_on": "validation", "achieved": {}}},
  "operating_point": "balanced", "conformal": null, "no_abstention": "there are 5 patients", "levels": {},
  "no_levels": {"slide": "slides are unknown"}, "kind": "grid", "grid": {"step": 50, "scale": 1.5, "networks": 2}},
 "no_context": null,
 "reference": {"unit": "patient",
  "images": {"brightness": {"quantiles": [0.1, 0.14, 0.18, 0.22, 0.26, 0.3, 0.34, 0.38, 0.42, 0.46, 0.5, 0.54, 0.58,
    0.62, 0.66, 0.7, 0.74, 0.78, 0.82, 0.86, 0.9], "centre": 0.1, "error": 0.02, "between": 0.5, "within": 0.9,
    "n_images": 800, "n_units": 40}},
  "score": {"quantiles": [0.1, 0.14, 0.18, 0.22, 0.26, 0.3, 0.34, 0.38, 0.42, 0.46, 0.5, 0.54, 0.58,
    0.62, 0.66, 0.7, 0.74, 0.78, 0.82, 0.86, 0.9], "centre": 0.1, "error": 0.02, "between": 0.5, "within": 0.9,
    "n_images": 800, "n_units": 40}},
 "input_gate": null,
 "lineage": {"clearmargin": "0.1.0", "created": "2026-01-02T03:04:05+00:00", "recipe": "default", "seed": 7,
  "split": "image", "folds": 0, "crossfit": 4, "stamp": "image-level split: optimistic", "data_sha256": "dd",
  "split_sha256": "ee", "precision": "32-true", "weights_sha256": "ff",
  "metrics": {"n_images": 1234, "n_patients": null, "loss": 0.3, "confusion": [[1, 2], [3, 4]],
   "auroc": {"value": 0.9, "ci": [0.8, 1.0]}, "auprc": {"value": 0.9, "ci": [0.8, 1.0]},
   "balanced_accuracy": {"value": 0.9, "ci": [0.8, 1.0]}, "accuracy": {"value": 0.9, "ci": [0.8, 1.0]},
   "sensitivity": {"value": 0.9, "ci": [0.8, 1.0]}, "specificity": {"value": 0.9, "ci": [0.8, 1.0]},
   "ppv": {"value": null, "ci": null, "reason": "no image was called malignant"},
   "npv": {"value": 0.9, "ci": [0.8, 1.0]}, "f1": {"value": 0.9, "ci": [0.8, 1.0]},
   "brier": {"value": 0.1, "ci": [0.05, 0.2]}, "ece": {"value": 0.1, "ci": null, "reason": "fewer than 2 patients"},
   "calibration_slope": {"value": 1.1, "ci": [0.9, 1.3]}, "calibration_intercept": {"value": 0.1, "ci": [-0.1, 0.3]}},
  "libraries": {"torch": "2.13", "numpy": "2.4"},
  "recalibrated": {"created": "2026-02-03T00:00:00+00:00", "data_sha256": "ab", "images": 90, "patients": null}},
 "intended_use": "For research and education."
}"""
"""With everything that version 1 came to hold."""

SPEC = Preprocessing(width=16, height=16, mean=0.5, std=0.25)
FIELD_SPEC = Preprocessing(width=12, height=12, mean=0.5, std=0.25)


@cache
def network(spec: Preprocessing) -> Network:
    model = lived_model("cbis_ddsm", spec.shape)
    return Network(model.state_dict(), export_onnx(model, spec, pictures(spec, 2)))


def rebuilt(folder: Path, text: str) -> Bundle:
    """The bundle folder of that time around a model.json."""
    folder.mkdir()
    (folder / "model.json").write_text(text)
    (folder / "weights.safetensors").write_bytes(network(SPEC).safetensors())
    (folder / "model.onnx").write_bytes(network(SPEC).onnx)
    (folder / "MODEL_CARD.md").write_text("# Model card\n")
    if '"field"' in text:
        (folder / "context.onnx").write_bytes(network(FIELD_SPEC).onnx)
        (folder / "context.safetensors").write_bytes(network(FIELD_SPEC).safetensors())
    sign_all(folder)
    return read_bundle(folder)


def logits_of(content: bytes, images: Any) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0].astype(np.float64)


def test_every_version_before_this_one_has_a_step() -> None:
    assert list(STEPS) == list(range(1, SCHEMA))


def test_a_bundle_of_the_very_first_version_predicts_as_it_did(tmp_path: Path) -> None:
    bundle = rebuilt(tmp_path / "bundle", FIRST)
    model = bundle.model
    assert (model.calibration, model.conformal, model.no_abstention, model.reference) == (None, None, None, None)
    assert (model.levels, model.no_levels, model.context, model.content) == ({}, {}, None, None)
    assert (model.architecture.ensemble, model.lineage.folds, model.lineage.recalibrated) == (1, 0, None)
    assert model.calibrated_by == Temperature(temperature=1.2345)
    images = pictures(SPEC, 8)
    expected = 1 / (1 + np.exp(-logits_of(network(SPEC).onnx, images) / 1.2345))
    predictions = [Predictor(bundle).predict_pixels(image) for image in images]
    np.testing.assert_allclose([each.probability for each in predictions], expected, rtol=1e-6)
    words = ["malignant" if value >= 0.4321 else "benign" for value in expected]
    assert [each.decision for each in predictions] == words
    load_torch_model(bundle)


def test_a_bundle_with_all_that_version_1_held_predicts_as_it_did(tmp_path: Path) -> None:
    bundle = rebuilt(tmp_path / "bundle", LAST)
    model, images = bundle.model, pictures(SPEC, 8)
    learned = Pooling(method="learned", intercept=-0.3, mean_weight=0.7, top_weight=0.4)
    assert model.levels == {
        "slide": Level(pooling=learned, calibration=Platt(slope=1.5, intercept=0.2), threshold=0.37, reason="best"),
        "patient": Level(pooling=Pooling(method="top_k", k=3), threshold=0.61),
    }
    expected = 1 / (1 + np.exp(-(0.8 * logits_of(network(SPEC).onnx, images) - 0.25)))
    predictor = Predictor(bundle)
    predictions = [predictor.predict_pixels(image) for image in images]
    np.testing.assert_allclose([each.probability for each in predictions], expected, rtol=1e-6)
    words = [
        "abstain" if 0.4123 <= value <= 0.5231 else "malignant" if value >= 0.4321 else "benign" for value in expected
    ]
    assert [each.decision for each in predictions] == words
    assert model.context is not None
    assert (model.context.temperature, model.context.decision_point.threshold) == (1.3, 0.3)
    load_torch_model(bundle)
    load_torch_model(bundle, field=True)


def test_a_slide_is_decided_in_the_context_of_version_1(tmp_path: Path) -> None:

    predictor = Predictor(rebuilt(tmp_path / "bundle", LAST))
    records = []
    for number, image in enumerate(pictures(SPEC, 4)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(image).save(path)
        records.append(Record(str(path), slide_id="S", x=50 * (number % 2), y=50 * (number // 2)))
    inside = list(predictor.predict_records(records))
    assert all(each.in_context for each in inside)
    logits = np.array([each.logit for each in inside])
    expected = 1 / (1 + np.exp(-logits / 1.3))
    np.testing.assert_allclose([each.probability for each in inside], expected, rtol=1e-6)


@pytest.mark.parametrize("text", [FIRST, LAST], ids=["first", "last"])
def test_what_is_written_anew_is_of_the_current_version_and_means_the_same(tmp_path: Path, text: str) -> None:
    before = rebuilt(tmp_path / "bundle", text)
    assert json.loads(before.model.to_json())["schema"] == SCHEMA
    assert parse_model_file(before.model.to_json().encode(), "model.json") == before.model
    rewrite_bundle(before, tmp_path / "anew")
    after = read_bundle(tmp_path / "anew")
    assert after.model == before.model
    for name in ("model.onnx", "weights.safetensors"):
        assert after.read(name) == before.read(name)


def test_a_file_of_version_1_that_is_damaged_is_refused_as_one_of_today() -> None:
    with pytest.raises(BundleError, match=r"^model\.json: surprise: .*The bundle is damaged"):
        parse_model_file(FIRST.replace('"schema": 1', '"schema": 1, "surprise": 1').encode(), "model.json")
