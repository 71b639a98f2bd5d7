"""What Python functions are given wrongly is said in the caller's terms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.bundle.small_bundle import write_working

import clearmargin
from clearmargin.data.phantom import draw_for_scale
from clearmargin.errors import UsageError
from clearmargin.explanation.explainer import Explainer
from clearmargin.explanation.methods import METHODS
from clearmargin.images.preprocess import Preprocessing
from clearmargin.predict.predictor import Predictor, load_bundle


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    write_working(tmp_path / "bundle", name="residual", spec=Preprocessing(width=32, height=32))
    return load_bundle(tmp_path / "bundle", gate=False)


@pytest.mark.parametrize("name", ["audit", "split", "train", "evaluate", "calibrate", "optimism", "sweep"])
def test_an_unknown_keyword_names_the_function_and_the_closest(name: str) -> None:
    function: Callable[..., object] = getattr(clearmargin, name)
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'zz_qq_77'$"):
        function("a", "b", "c", zz_qq_77=3)
    with pytest.raises(TypeError, match=rf"^{name}\(\) .*'patient_rgex'; did you mean 'patient_regex'\?$"):
        function("a", patient_rgex="x")


@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (np.zeros((8, 8), np.uint8), r"the shape \(8, 8\); an image is \(H, W, 1\) or \(H, W, 3\)"),
        (np.zeros((8, 8, 4), np.uint8), r"the shape \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"the shape \(0, 8, 3\)"),
        (Image.new("RGB", (8, 8)), "pixels are an array, not Image"),
        (np.zeros((8, 8, 3), np.float32), "pixels are float32; an image has whole numbers"),
    ],
)
def test_pixels_of_another_kind_are_refused(predictor: Predictor, pixels: NDArray[np.uint8], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        predictor.predict_pixels(pixels)


def test_arrays_are_no_paths(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match=r"images are paths, not ndarray; give decoded images to predict_pixels"):
        predictor.predict([np.zeros((8, 8, 3), np.uint8)])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="images are paths, not ndarray"):
        predictor.predict(np.zeros((8, 8, 3), np.uint8))  # type: ignore[arg-type]


def test_similar_takes_packed_images_alone(predictor: Predictor) -> None:
    shape = predictor.bundle.model.preprocessing.shape
    for images in (np.zeros((1, *shape), np.float32), np.zeros((1, 5, 5, 3), np.uint8)):
        with pytest.raises(UsageError, match=r"similar takes packed images, uint8 of shape \(N, "):
            predictor.similar(images, 3)


def test_what_explains_refuses_grey_without_a_channel(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match=r"the shape \(32, 32\)"):
        Explainer(predictor, scale_images=draw_for_scale).explain(np.zeros((32, 32), np.uint8))


@pytest.mark.parametrize(("methods", "number"), [("grad_cam", 1), (["grad_cam"], 1), ("all", len(METHODS))])
def test_methods_can_be_one_name_or_all(predictor: Predictor, tmp_path: Path, methods: str, number: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    bundle = predictor.bundle.folder
    kept = {"gate": False, "pictures": False, "maps": False}
    assert len(clearmargin.explain(bundle, [tmp_path / "a.png"], tmp_path / "out", methods=methods, **kept)) == number
