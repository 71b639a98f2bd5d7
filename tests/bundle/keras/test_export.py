"""A bundle as a Keras file: what the real Keras and our own importer make of it is what torch computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tests.bundle.keras.conftest import keras_probabilities, quietly
from tests.bundle.keras.files import write_small
from tests.bundle.small_bundle import lived_model, pictures, write_working

from clearmargin.bundle.keras import exporting, write
from clearmargin.bundle.keras.exporting import export_keras, write_checked
from clearmargin.bundle.keras.network import ImportOptions, read_network
from clearmargin.bundle.keras.real import Answer
from clearmargin.bundle.read import Bundle
from clearmargin.data.phantom import draw_patch
from clearmargin.errors import BundleError, UsageError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier, Deployed
from clearmargin.models.ensemble import Ensemble

SPEC = Preprocessing(width=36, height=32)
RECIPES = ("larger_model", "cbis_ddsm", "cnn_50", "cnn_3conv", "cancernet")


def probabilities(model: Classifier, images: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.float32]:
    with torch.inference_mode():
        return torch.sigmoid(Deployed(model, spec.mean, spec.std).eval()(torch.from_numpy(images))[0]).numpy()


def build(name: str) -> Classifier:
    if name == "ensemble":
        return Ensemble([lived_model("larger_model", SPEC.shape), lived_model("larger_model", SPEC.shape)]).eval()
    return lived_model(name, SPEC.shape)


@pytest.mark.usefixtures("no_keras")
@pytest.mark.parametrize("name", [*RECIPES, "residual", "ensemble"])
def test_the_real_keras_computes_what_torch_does(keras: Any, name: str, tmp_path: Path) -> None:
    model, images = build(name), pictures(SPEC, 4)
    expected = probabilities(model, images, SPEC)
    for suffix in (".h5", ".keras"):
        made = write_checked(tmp_path / f"model{suffix}", model, SPEC, images=images)
        assert made.difference < 1e-5
        with quietly():
            opened = keras.models.load_model(made.path, compile=False)
        pixels = images.astype(np.float32) / 255
        np.testing.assert_allclose(keras_probabilities(opened, pixels), expected, atol=1e-5)
        two = name in ("larger_model", "cancernet", "ensemble")
        assert opened.output_shape == (None, 2 if two else 1)
        with quietly():
            outputs = opened.predict(pixels, verbose=0)
        if two:
            np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-6)


@pytest.mark.usefixtures("no_keras")
def test_dropout_stays_in_its_place_for_whoever_trains_on(tmp_path: Path) -> None:
    made = write_checked(tmp_path / "a.keras", build("cancernet"), SPEC)
    kinds = [node.kind for node in read_network(made.path).graph.nodes]
    assert kinds.count("dropout") == 4


@pytest.mark.usefixtures("no_keras")
def test_normalised_pixels_are_normalised_inside(tmp_path: Path) -> None:
    spec = Preprocessing(width=36, height=32, mean=0.5, std=0.25)
    model, images = build("cbis_ddsm"), pictures(SPEC, 3)
    for suffix in (".h5", ".keras"):
        made = write_checked(tmp_path / f"a{suffix}", model, spec, images=images)
        network = read_network(made.path).classifier()
        plain = Preprocessing(width=36, height=32)
        np.testing.assert_allclose(probabilities(network, images, plain), probabilities(model, images, spec), atol=1e-6)


@pytest.mark.usefixtures("no_keras")
@pytest.mark.parametrize("name", [*RECIPES, "residual", "ensemble"])
def test_what_is_exported_and_imported_again_gives_the_same_probabilities(name: str, tmp_path: Path) -> None:
    for mean, std in ((0.0, 1.0), (0.7, 0.15), (0.02, 0.05)):
        spec = SPEC.model_copy(update={"mean": mean, "std": std})
        model, images = build(name), pictures(SPEC, 3)
        expected = probabilities(model, images, spec)
        for suffix in (".h5", ".keras"):
            read = read_network(write_checked(tmp_path / f"a{suffix}", model, spec).path)
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2) * float(read.scale) + float(read.offset)
            with torch.inference_mode():
                again = torch.sigmoid(read.classifier()(pixels)).numpy()
            np.testing.assert_allclose(again, expected, atol=1e-5)


@pytest.mark.usefixtures("no_keras")
@pytest.mark.parametrize("head", ["sigmoid", "sigmoids", "softmax"])
def test_a_model_whose_output_0_is_asked_for_is_turned_round(tmp_path: Path, keras: Any, head: str) -> None:
    layers = keras.layers
    last = layers.Dense(1 if head == "sigmoid" else 2, activation=head.removesuffix("s"))
    with quietly():
        source = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.Flatten(), last])
        source.save(tmp_path / "source.keras")
    spec, images = Preprocessing(width=8, height=8), np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    network = read_network(tmp_path / "source.keras", ImportOptions(malignant_index=0)).classifier()
    pixels = images.astype(np.float32) / 255
    with quietly():
        first = source.predict(pixels, verbose=0)[:, 0]
    expected = 1 - first if head == "sigmoid" else first
    for suffix in (".h5", ".keras"):
        made = write_checked(tmp_path / f"made{suffix}", network, spec)
        with quietly():
            opened = keras.models.load_model(made.path, compile=False)
        np.testing.assert_allclose(keras_probabilities(opened, pixels), expected, atol=1e-6)


def test_nothing_is_left_of_a_file_that_computes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_keras: None
) -> None:
    honest = exporting.write_keras

    def spoilt(path: Path, graph: Any, tensors: dict[str, torch.Tensor]) -> None:
        honest(path, graph, {name: tensor * 1.01 for name, tensor in tensors.items()})

    monkeypatch.setattr(exporting, "write_keras", spoilt)
    with pytest.raises(BundleError, match="differs from torch by"):
        write_checked(tmp_path / "a.h5", build("cbis_ddsm"), SPEC)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_the_real_keras_disagrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "ask_keras", lambda path, pixels: Answer(np.zeros((len(pixels), 1), np.float32)))
    with pytest.raises(BundleError, match="the real Keras differs"):
        write_checked(tmp_path / "a.h5", build("cbis_ddsm"), SPEC)
    assert not list(tmp_path.iterdir())


def test_other_names_and_networks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_keras: None) -> None:
    with pytest.raises(UsageError, match=r"ends in \.keras or \.h5"):
        write_checked(tmp_path / "a.onnx", build("cbis_ddsm"), SPEC)
    with pytest.raises(UsageError, match="--to onnx"):
        write_checked(tmp_path / "a.h5", lived_model("squeezenet", (64, 64, 3)), Preprocessing(width=64, height=64))


@pytest.mark.usefixtures("no_keras")
def test_a_bundle_of_an_import_is_exported_again(tmp_path: Path) -> None:
    from clearmargin.bundle.keras.importing import import_keras
    from clearmargin.bundle.read import read_bundle

    import_keras(write_small(tmp_path / "a.h5"), tmp_path / "bundle")
    bundle: Bundle = read_bundle(tmp_path / "bundle")
    made = export_keras(bundle, tmp_path / "b.keras", images=pictures(Preprocessing(width=8, height=8), 2))
    assert made.difference < 1e-6
    assert "not installed" in made.compared
    one, two = (read_network(tmp_path / name) for name in ("a.h5", "b.keras"))
    np.testing.assert_array_equal(one.tensors["conv.weight"], two.tensors["conv.weight"])


@pytest.mark.usefixtures("no_keras")
def test_more_names_than_an_attribute_holds_are_cut_into_several(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_MAX_ATTRIBUTE_BYTES", 100)
    model, images = build("cancernet"), pictures(SPEC, 2)
    made = write_checked(tmp_path / "a.h5", model, SPEC)
    with h5py.File(made.path) as file:
        assert {"layer_names0", "layer_names1"} <= set(file["model_weights"].attrs)
    with quietly():
        opened = keras.models.load_model(made.path, compile=False)
    expected = probabilities(model, images, SPEC)
    np.testing.assert_allclose(keras_probabilities(opened, images.astype(np.float32) / 255), expected, atol=1e-5)


def test_the_output_becomes_the_probability_of_predict_as_the_page_says(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_keras: None
) -> None:
    import clearmargin

    spec = Preprocessing(width=24, height=24, mean=0.4, std=0.3)
    write_working(tmp_path / "RUN" / "bundle", name="cbis_ddsm", spec=spec)
    monkeypatch.chdir(tmp_path)
    made = clearmargin.export("RUN", "model.keras", to="keras")
    page = (Path(__file__).parents[3] / "docs" / "keras.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    predictor = clearmargin.load_bundle("RUN")
    for seed in range(3):
        Image.fromarray(draw_patch(seed % 2, seed, 24)).save("patch.png")
        with quietly():
            exec(code, values := {})
        expected = predictor.predict(["patch.png"]).iloc[0]
        assert capsys.readouterr().out == f"{expected['decision']}\n"
        assert values["probability"] == pytest.approx(expected["probability"], abs=1e-5)
    facts = " ".join(made.facts)
    assert "probability = sigmoid(logit / 1.2345), malignant at or above 0.4321;" in facts
    assert "context" not in facts
