"""Real patches, mammograms and ultrasound are explained and drawn, whatever their size and depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.bundle.small_bundle import write_working

from clearmargin.explanation.draw import draw_overlay
from clearmargin.explanation.explainer import Explainer
from clearmargin.explanation.picture import draw_picture
from clearmargin.explanation.place import lay_over
from clearmargin.images.preprocess import Preprocessing
from clearmargin.predict.predictor import load_bundle
from clearmargin.types import Record


@pytest.mark.real
@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("idc/*/1/*.png", (400, 400)),
        ("breakhis/*.png", (700, 460)),
        ("busi/malignant/malignant (1).png", None),
        ("mias/*.pgm", (1024, 1024)),
        ("mammo16/1_L_CC.png", None),
    ],
)
def test_real_images(real_data: Path, tmp_path: Path, pattern: str, size: tuple[int, int] | None) -> None:
    file = sorted(real_data.glob(pattern))[0]
    spec = Preprocessing(width=40, height=48, region="breast", orientation="left", padding="black")
    write_working(tmp_path / "bundle", name="cbis_ddsm", spec=spec)
    pixels = np.random.default_rng(0).integers(0, 255, (4, *spec.shape)).astype(np.uint8)
    explainer = Explainer(load_bundle(tmp_path / "bundle"), scale_images=lambda _: pixels)
    (image,) = explainer.explain_records([Record(str(file))], methods=["layer_cam", "occlusion"])
    assert image.pixels is not None
    for each in image.explanations:
        laid = lay_over(each.map, each.placement)
        assert laid.shape == image.pixels.shape[:2]
        left, top, width, height = each.placement.box
        outside = laid.copy()
        outside[top : top + height, left : left + width] = 0
        assert not outside.any()
        overlay = draw_overlay(image.pixels, each)
        assert size is None or overlay.size == size
        assert max(overlay.size) + 8 >= 400 and max(overlay.size) <= 1024
        assert draw_picture(image.pixels, [each]).width > 2 * overlay.width
