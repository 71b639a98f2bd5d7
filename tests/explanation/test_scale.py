"""The colour scale is found on malignant and benign images alike, and is the same for the same input."""

from __future__ import annotations

import numpy as np
import pytest
from tests.bundle.small_bundle import lived_model, pictures

from clearmargin.explanation import scale as module
from clearmargin.explanation.methods import METHODS
from clearmargin.explanation.scale import explain_packed, measure_scales, spread_rows
from clearmargin.images.preprocess import Preprocessing

SPEC = Preprocessing(width=20, height=20)


def test_the_scale_is_the_percentile_of_all_pixels() -> None:
    model, images = lived_model("cbis_ddsm", SPEC.shape), pictures(SPEC, 8)
    scales = measure_scales(model, SPEC, images, of="tests")
    assert list(scales) == list(METHODS)
    for name, scale in scales.items():
        maps = explain_packed(model, SPEC, images, method=name)
        assert scale.saturation == pytest.approx(max(float(np.percentile(np.abs(maps), 99)), 1e-6), rel=1e-4)
        assert (scale.images, scale.of) == (8, "tests")
    assert scales == measure_scales(model, SPEC, images, of="tests")


def test_costly_methods_see_fewer_images_and_never_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = lived_model("cbis_ddsm", SPEC.shape), pictures(SPEC, 20)
    methods = ("grad_cam", "occlusion")
    scales = measure_scales(model, SPEC, images, of="tests", methods=methods)
    assert [scales[name].images for name in methods] == [20, 16]
    monkeypatch.setattr(module, "_BUDGET", 1.0)
    scales = measure_scales(model, SPEC, images, of="tests", methods=methods)
    assert [scales[name].images for name in methods] == [4, 4]
    monkeypatch.setattr(module, "_MOST", 1e8)
    scales = measure_scales(model, SPEC, images, of="tests", methods=methods, leave_costly=True)
    assert list(scales) == ["grad_cam"]


def test_images_of_both_classes_in_turn() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    rows = spread_rows(labels, np.arange(100), 48)
    assert labels[rows].sum() == 10
    assert len(rows) == 34
    assert labels[rows[:20]].tolist() == [1, 0] * 10
    assert len(set(rows.tolist())) == len(rows)
    assert spread_rows(labels, np.arange(90), 48).tolist() == np.unique(np.linspace(0, 89, 48).astype(int)).tolist()
    assert spread_rows(labels, np.array([5, 95]), 48).tolist() == [95, 5]


def test_a_network_that_says_nothing_has_a_scale_all_the_same() -> None:
    model = lived_model("cbis_ddsm", SPEC.shape)
    for parameter in model.parameters():
        parameter.data.zero_()
    scales = measure_scales(model, SPEC, pictures(SPEC, 4), of="tests", methods=["grad_cam", "occlusion"])
    assert {scale.saturation for scale in scales.values()} == {1e-6}
