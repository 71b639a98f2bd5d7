"""The exported network is the trained one."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from tests.bundle.small_bundle import lived_model, pictures, sign, write_network, write_working

from clearmargin.bundle import export
from clearmargin.bundle.export import MAX_DIFFERENCE, export_onnx, parity
from clearmargin.bundle.read import read_bundle
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.errors import BundleError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import MODELS, build_model
from clearmargin.models.contract import Classifier, Deployed
from clearmargin.models.ensemble import Ensemble

SPEC = Preprocessing(width=24, height=24, mean=0.4, std=0.3)


@functools.cache
def exported(name: str) -> tuple[Classifier, bytes]:
    model = lived_model(name, SPEC.shape)
    return model, export_onnx(model, SPEC, pictures(SPEC, 3))


def by_torch(model: Classifier, images: NDArray[np.uint8], spec: Preprocessing = SPEC) -> NDArray[np.float32]:
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - spec.mean) / spec.std
    with torch.no_grad():
        logits: NDArray[np.float32] = model(x).numpy()
    return logits


def by_onnx(content: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    logits, _ = session.run(None, {"images": images})
    return np.asarray(logits)


@pytest.mark.parametrize("name", MODELS)
def test_onnx_computes_what_torch_computes_in_batches_of_any_size(name: str) -> None:
    model, content = exported(name)
    noise = np.random.default_rng(5).integers(0, 256, (7, *SPEC.shape), dtype=np.uint8)
    for images in (pictures(SPEC, 7), noise):
        expected = by_torch(model, images)
        assert len(np.unique(expected)) == 7
        for size in (1, 2, 7):
            logits = by_onnx(content, images[:size])
            assert logits.shape == (size,)
            # As the gate measures: relative where a logit is above 1, since float32 has seven digits.
            apart = np.abs(logits - expected[:size]) / np.maximum(1, np.abs(expected[:size]))
            assert apart.max() < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_the_exported_network_holds_itself_and_says_what_it_takes(name: str) -> None:
    session = onnxruntime.InferenceSession(exported(name)[1], providers=["CPUExecutionProvider"])
    (taken,), (logits, features) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [24, 24, 3])
    assert (logits.name, logits.type, len(logits.shape)) == ("logits", "tensor(float)", 1)
    assert (features.name, features.type, len(features.shape)) == ("features", "tensor(float)", 2)
    assert not isinstance(taken.shape[0], int)


@pytest.mark.parametrize("name", MODELS)
def test_features_are_the_means_of_the_last_map(name: str) -> None:
    model, content = exported(name)
    images = pictures(SPEC, 4)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (features,) = session.run(["features"], {"images": images})
    with torch.no_grad():
        x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - SPEC.mean) / SPEC.std
        expected = model.forward_features(x).numpy().mean(axis=(2, 3))
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * max(1, np.abs(expected).max()))


def test_grey_oblong_images_are_exported_as_well() -> None:
    spec = Preprocessing(width=32, height=20, channels=1)
    model = lived_model("cbis_ddsm", spec.shape)
    images = pictures(spec, 5)
    np.testing.assert_allclose(
        by_onnx(export_onnx(model, spec, images), images), by_torch(model, images, spec), rtol=0, atol=1e-4
    )


def test_a_model_left_in_training_mode_is_exported_as_it_predicts() -> None:
    model = lived_model("cnn_50", SPEC.shape).train()
    images = pictures(SPEC, 4)
    content = export_onnx(model, SPEC, images)
    np.testing.assert_allclose(by_onnx(content, images), by_torch(model.eval(), images), rtol=0, atol=1e-4)


@pytest.mark.parametrize("what", ["weights", "normalisation", "no number"])
def test_an_export_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    model, good = exported("cbis_ddsm")
    other = lived_model("cbis_ddsm", SPEC.shape)
    bias = dict(other.named_parameters())["head.5.bias"]
    if what == "weights":
        bias.data += 2e-4
        content = export._export(Deployed(other, SPEC.mean, SPEC.std), SPEC)
    elif what == "normalisation":
        content = export._export(Deployed(other, 0.0, 1.0), SPEC)
    else:
        bias.data += float("nan")
        content = export._export(Deployed(other, SPEC.mean, SPEC.std), SPEC)
    monkeypatch.setattr(export, "_export", lambda *_: content)
    with pytest.raises(BundleError, match=r"differs from torch by \S+ in a logit or a feature \(limit 0\.0001\)"):
        export_onnx(model, SPEC, pictures(SPEC, 3))
    assert parity(Deployed(model, SPEC.mean, SPEC.std), good, pictures(SPEC, 3)) < MAX_DIFFERENCE


def test_large_logits_are_compared_to_as_many_digits_as_they_have() -> None:
    model = lived_model("cbis_ddsm", SPEC.shape)
    with torch.no_grad():
        model.get_submodule("head.5").weight.mul_(1e5)
    images = pictures(SPEC, 4)
    content = export_onnx(model, SPEC, images)
    expected = by_torch(model, images)
    assert np.abs(expected).max() > 1e3
    np.testing.assert_allclose(by_onnx(content, images), expected, rtol=1e-4)


def test_the_gate_looks_at_real_images_and_at_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[NDArray[np.uint8]] = []

    def watched(_deployed: Deployed, _content: bytes, images: NDArray[np.uint8]) -> float:
        seen.append(images)
        return 0.0

    model, content = exported("cbis_ddsm")
    monkeypatch.setattr(export, "_export", lambda *_: content)
    monkeypatch.setattr(export, "parity", watched)
    export_onnx(model, SPEC, pictures(SPEC, 3))
    assert len(seen[0]) > 3
    np.testing.assert_array_equal(seen[0][:3], pictures(SPEC, 3))


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "bundle"
    write_working(folder, name="cancernet", spec=SPEC)
    return folder


@pytest.fixture
def copied(bundle_folder: Path, tmp_path: Path) -> Path:
    for file in bundle_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_the_weights_of_a_bundle_give_the_logits_of_its_onnx_file(bundle_folder: Path) -> None:
    bundle = read_bundle(bundle_folder)
    model = load_torch_model(bundle)
    assert not any(part.training for part in model.modules())
    images = pictures(SPEC, 6)
    np.testing.assert_allclose(by_onnx(bundle.read("model.onnx"), images), by_torch(model, images), rtol=0, atol=1e-4)


def test_an_architecture_of_another_version_is_a_bundle_error(copied: Path) -> None:
    text = (copied / "model.json").read_text()
    (copied / "model.json").write_text(text.replace('"name": "cancernet"', '"name": "cancernet_2"'))
    sign(copied)
    with pytest.raises(BundleError, match=r"no model 'cancernet_2'; did you mean 'cancernet'.*or a newer one"):
        load_torch_model(read_bundle(copied))


@pytest.mark.parametrize("change", [('"name": "cancernet"', '"name": "residual"'), ('"width": 24', '"width": 48')])
def test_weights_that_do_not_fit_are_a_bundle_error(copied: Path, change: tuple[str, str]) -> None:
    text = (copied / "model.json").read_text()
    assert change[0] in text
    (copied / "model.json").write_text(text.replace(*change))
    sign(copied)
    with pytest.raises(BundleError, match="the weights do not fit the architecture") as caught:
        load_torch_model(read_bundle(copied))
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_safetensors_are_a_bundle_error(copied: Path) -> None:
    (copied / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    sign(copied)
    with pytest.raises(BundleError, match=r"weights\.safetensors: is no safetensors file"):
        load_torch_model(read_bundle(copied))


@pytest.fixture(scope="module")
def ensemble_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble") / "bundle"
    members = [lived_model("cbis_ddsm", SPEC.shape), *(build_model("cbis_ddsm", SPEC.shape, seed=n) for n in (5, 6))]
    write_network(folder, Ensemble(members).eval(), name="cbis_ddsm", spec=SPEC, ensemble=3)
    return folder


def test_an_ensemble_is_one_bundle_whose_logit_is_the_mean_of_its_networks(ensemble_folder: Path) -> None:
    bundle = read_bundle(ensemble_folder)
    model, images = load_torch_model(bundle), pictures(SPEC, 5)
    assert isinstance(model, Ensemble)
    assert not any(part.training for part in model.modules())
    each = [by_torch(member, images) for member in model.members if isinstance(member, Classifier)]
    assert len(each) == 3
    assert np.std(each, axis=0).min() > 1e-3
    logits = by_onnx(bundle.read("model.onnx"), images)
    np.testing.assert_allclose(logits, np.mean(each, axis=0), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(by_torch(model, images), by_torch(load_torch_model(bundle), images))


@pytest.mark.parametrize("said", [1, 2, 4])
def test_another_number_of_networks_than_the_weights_have_is_a_bundle_error(
    ensemble_folder: Path, tmp_path: Path, said: int
) -> None:
    for file in ensemble_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace('"ensemble": 3', f'"ensemble": {said}'))
    sign(tmp_path)
    with pytest.raises(BundleError, match="the weights do not fit the architecture") as caught:
        load_torch_model(read_bundle(tmp_path))
    assert "\n" not in str(caught.value)


def test_networks_with_the_same_frozen_trunk_hold_and_compute_it_once() -> None:
    first, second, other = (lived_model("squeezenet", SPEC.shape) for _ in range(3))
    with torch.no_grad():
        second.head.layers[0].bias.add_(1.0)  # type: ignore[union-attr]
        other.trunk.conv1.bias.add_(0.1)  # type: ignore[union-attr]
    one, shared, apart = (
        export_onnx(model, SPEC, pictures(SPEC, 2))
        for model in (first, Ensemble([first, second]).eval(), Ensemble([first, other]).eval())
    )
    convolutions = [
        sum(node.op_type == "Conv" for node in onnx.load_model_from_string(content).graph.node)
        for content in (one, shared, apart)
    ]
    assert convolutions == [25, 25, 50]
    assert len(shared) < 1.02 * len(one)
    expected = by_torch(first, pictures(SPEC, 4)) + 0.5
    np.testing.assert_allclose(by_onnx(shared, pictures(SPEC, 4)), expected, rtol=1e-4, atol=1e-4)
