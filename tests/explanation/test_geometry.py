"""Places of a feature map lie where the pixels are that can move them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.bundle.small_bundle import lived_model
from torch import Tensor

from clearmargin.explanation.geometry import enlarge, find_middles
from clearmargin.models.contract import Classifier
from clearmargin.models.ensemble import Ensemble


def test_without_padding_the_places_are_those_that_can_be_worked_out() -> None:
    # Convolution 3 (+1), pool 2 (+0.5, twice as far apart), convolution 3 (+2): and once more for cnn_3conv.
    rows, columns = find_middles(lived_model("cbis_ddsm", (24, 32, 3)), (3, 24, 32), (9, 13))
    assert rows.tolist() == [3.5 + 2 * place for place in range(9)]
    assert columns.tolist() == [3.5 + 2 * place for place in range(13)]
    rows, _ = find_middles(lived_model("cnn_3conv", (50, 50, 3)), (3, 50, 50), (9, 9))
    assert rows.tolist() == [8.5 + 4 * place for place in range(9)]


def test_several_networks_lie_as_one() -> None:
    model = lived_model("cbis_ddsm", (24, 24, 3))
    alone, both = (find_middles(each, (3, 24, 24), (9, 9)) for each in (model, Ensemble([model, model]).eval()))
    assert np.array_equal(alone, both)


@pytest.mark.parametrize("side", [40, 50])
def test_what_sees_the_whole_image_is_laid_evenly_over_it(side: int) -> None:
    model = lived_model("residual", (side, side, 3))
    places = 7 if side == 50 else 5
    coarse = torch.rand(2, places, places, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(coarse[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(enlarge(coarse, model, (3, side, side)), expected, rtol=1e-4, atol=1e-5)


def test_features_that_are_the_pixels_stay_in_place() -> None:
    class Pixels(Classifier):
        def forward_features(self, x: Tensor) -> Tensor:
            return x

        def forward_head(self, features: Tensor) -> Tensor:
            return features.mean(dim=(1, 2, 3))

    coarse = torch.rand(1, 6, 7)
    torch.testing.assert_close(enlarge(coarse, Pixels(), (3, 6, 7)), coarse)
