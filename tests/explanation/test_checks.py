"""The checks of honesty measure what they say; a network that looks at one corner is found out by all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.bundle.small_bundle import lived_model
from torch import Tensor, nn

from clearmargin.explanation.checks import (
    layers_from_the_head,
    perturbation_scores,
    points_inside,
    randomised,
    rank_correlation,
)
from clearmargin.explanation.methods import METHODS
from clearmargin.explanation.scale import explain_packed, measure_scales, to_input
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.models.contract import Classifier
from clearmargin.models.ensemble import Ensemble

SPEC = Preprocessing(width=24, height=24)
every_method = pytest.mark.parametrize("method", METHODS)


class Corner(Classifier):
    """The logit is how dark the upper left quarter is, beside channels that do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Linear(3, 1, bias=False)
        nn.init.constant_(self.weigh.weight, 4.0)

    def forward_features(self, x: Tensor) -> Tensor:
        dark = nn.functional.avg_pool2d(1 - x, 4)
        dark[:, :, 3:] = 0
        dark[:, :, :, 3:] = 0
        return dark

    def forward_head(self, features: Tensor) -> Tensor:
        return self.weigh(features.mean(dim=(2, 3)))[:, 0]


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 120, (24, 24, 3)).astype(np.uint8)


def explain(model: Classifier, method: str) -> np.ndarray:
    return explain_packed(model, SPEC, image()[None], method=method)[0]


@every_method
def test_the_map_points_where_the_network_looks(method: str) -> None:
    values = explain(Corner(), method)
    region = np.zeros((24, 24), bool)
    region[:14, :14] = True  # with the width of a place of the map, between which it is interpolated
    assert points_inside(values, region) == 1
    assert np.abs(values[region]).sum() > 0.9 * np.abs(values).sum()


@every_method
def test_deleting_what_the_map_shows_costs_more_than_the_rest(method: str) -> None:
    model = Corner()
    values = explain(model, method)
    # A bright surround, so that hiding the corner by its blur brightens it.
    picture = np.full((24, 24, 3), 250, np.uint8)
    picture[:12, :12] = image()[:12, :12]
    deletion, insertion = perturbation_scores(model, SPEC, picture, values)
    reverse = perturbation_scores(model, SPEC, picture, -values)
    assert deletion < reverse[0]
    assert insertion > reverse[1]


def draw_blobs(number: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy images, every other one with a dark blob; labels; and where the blobs are."""
    generator = np.random.default_rng(seed)
    labels = np.arange(number) % 2
    y, x = np.mgrid[:24, :24]
    middles = generator.integers(5, 19, (number, 2, 1, 1))
    regions = (np.hypot(y - middles[:, 0], x - middles[:, 1]) < 5) & (labels[:, None, None] == 1)
    noise = generator.normal(190, 30, (number, 24, 24, 3))
    images = (noise - 110 * regions[..., None]).clip(0, 255).astype(np.uint8)
    return images, labels, regions


@pytest.fixture(scope="module")
def trained() -> Classifier:
    """A network that tells blobs, after a second of training."""
    torch.set_num_threads(1)
    torch.manual_seed(0)  # of dropout
    model = build_model("cbis_ddsm", SPEC.shape).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    images, labels, _ = draw_blobs(640, seed=0)
    x, y = to_input(images, SPEC), torch.from_numpy(labels).float()
    for rows in torch.arange(640).repeat(4).split(32):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return draw_blobs(16, seed=1)


def explain_all(model: Classifier, images: np.ndarray, method: str) -> np.ndarray:
    return explain_packed(model, SPEC, images, method=method)


@every_method
def test_the_map_changes_when_weights_are_shuffled(
    method: str, trained: Classifier, blobs: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    images = blobs[0][1::2]
    own = explain_all(trained, images, method)
    same = explain_all(randomised(trained, 0), images, method)
    assert [rank_correlation(a, b) for a, b in zip(own, same, strict=True)] == pytest.approx([1] * len(own))
    every = len(layers_from_the_head(trained))
    others = [explain_all(randomised(trained, every, seed=seed), images, method) for seed in range(3)]
    changed = [abs(rank_correlation(a, b)) for other in others for a, b in zip(own, other, strict=True)]
    assert np.mean(changed) < 0.75  # two convolutions show a blob whatever their weights; see docs/explain.md for more


@every_method
def test_a_benign_image_does_not_glow_and_a_malignant_one_glows_in_the_lesion(
    method: str, trained: Classifier, blobs: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    images, labels, regions = blobs
    full = measure_scales(trained, SPEC, images, of="tests", methods=[method])[method].saturation
    strength = np.clip(explain_all(trained, images, method) / full, 0, 1)
    malignant, benign = strength[labels == 1], strength[labels == 0]
    # Covering plain tissue tells something too, to a network that has seen so little.
    assert benign.mean() < (0.8 if method == "occlusion" else 0.4) * malignant.mean()
    near = np.stack([ndimage.binary_dilation(region, iterations=3) for region in regions[labels == 1]])
    hits = [points_inside(values, region) for values, region in zip(malignant, near, strict=True)]
    assert np.mean(hits) > 0.8 > 1.5 * near.mean()


def test_layers_come_from_the_head_down_and_copies_leave_the_model_alone() -> None:
    model = lived_model("cnn_3conv", SPEC.shape)
    layers = [layer for alike in layers_from_the_head(model) for layer in alike]
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Linear", "Linear", "Conv2d", "Conv2d", "Conv2d"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = randomised(model, 2, seed=3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        changed = not torch.equal(other.state_dict()[name], tensor)
        assert changed == (name.startswith("head") and tensor.numel() > 1), name
        assert torch.equal(other.state_dict()[name].flatten().sort()[0], tensor.flatten().sort()[0])
    assert len(layers_from_the_head(Ensemble([model, other]))) == 5
    assert len(layers_from_the_head(Ensemble([model, other]))[0]) == 2


def test_a_map_that_is_the_same_everywhere_is_like_no_other() -> None:
    assert rank_correlation(np.ones((3, 3)), np.arange(9.0).reshape(3, 3)) == 0
