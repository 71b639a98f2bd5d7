"""Every entry of MODELS keeps the contract of models/contract.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearmargin.config import recipe_names
from clearmargin.errors import UnknownName, UsageError
from clearmargin.models import MODELS, build_model, check_model_name
from clearmargin.models.contract import (
    Classifier,
    Deployed,
    LayeredClassifier,
    count_parameters,
    flat_features,
    normalise,
    scale_pixels,
)
from clearmargin.training.objective import cross_entropy

SHAPES = [(32, 32, 3), (24, 40, 3), (40, 24, 1)]
every_model = pytest.mark.parametrize("name", MODELS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def images(shape: tuple[int, int, int], number: int, *, seed: int = 0) -> Tensor:
    height, width, channels = shape
    return torch.rand(number, channels, height, width, generator=torch.Generator().manual_seed(seed))


def shaken(model: Classifier) -> Classifier:
    """The model a step away from its start, where no weight is exactly zero any more."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


@every_model
@every_shape
def test_forward_is_head_of_features_with_the_promised_shapes(name: str, shape: tuple[int, int, int]) -> None:
    model, x = build_model(name, shape), images(shape, 3)
    with torch.no_grad():
        features = model.forward_features(x)
        logits = model(x)
        assert torch.equal(logits, model.forward_head(features))
    assert features.ndim == 4
    assert features.shape[0] == 3
    assert min(features.shape[2:]) >= 1
    assert logits.shape == (3,)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@every_model
def test_features_of_a_wide_image_are_wide(name: str) -> None:
    with torch.no_grad():
        features = build_model(name, (32, 64, 3)).forward_features(images((32, 64, 3), 1))
    assert features.shape[3] > features.shape[2]


@every_model
def test_gradients_reach_every_parameter(name: str) -> None:
    model = shaken(build_model(name, (32, 32, 3))).train()
    torch.manual_seed(0)
    x = images((32, 32, 3), 8)
    cross_entropy(model(x), torch.tensor([0.0, 1.0] * 4)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@every_model
def test_gradients_reach_the_features_and_the_image(name: str) -> None:
    model = shaken(build_model(name, (32, 32, 3)))
    x = images((32, 32, 3), 2).requires_grad_()
    features = model.forward_features(x)
    by_place, by_pixel = torch.autograd.grad(model.forward_head(features).sum(), [features, x])
    assert by_place.abs().max() > 0
    assert by_pixel.abs().max() > 0


@every_model
def test_the_seed_alone_decides_the_first_weights(name: str) -> None:
    first, again, other = (build_model(name, (32, 32, 3), seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_model
def test_building_a_model_leaves_the_callers_random_numbers_alone(name: str) -> None:
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    build_model(name, (32, 32, 3), seed=99)
    assert torch.equal(torch.rand(4), expected)


@every_model
def test_a_new_model_is_in_evaluation_mode_and_has_seen_no_image(name: str) -> None:
    model = build_model(name, (32, 32, 3))
    assert not any(part.training for part in model.modules())
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.num_batches_tracked == 0
            assert torch.equal(part.running_mean, torch.zeros_like(part.running_mean))
            assert torch.equal(part.running_var, torch.ones_like(part.running_var))


@every_model
def test_a_batch_is_many_batches_of_one(name: str) -> None:
    model, x = shaken(build_model(name, (32, 32, 3))), images((32, 32, 3), 6)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(x[row : row + 1]) for row in range(len(x))])
    np.testing.assert_allclose(together.numpy(), alone.numpy(), rtol=1e-5, atol=1e-5)  # of logits up to a hundred


@every_model
def test_logits_depend_on_the_image(name: str) -> None:
    with torch.no_grad():
        logits = build_model(name, (32, 32, 3))(images((32, 32, 3), 5))
    assert len(torch.unique(logits)) == 5


@pytest.mark.parametrize("name", ["larger_model", "cancernet"])
def test_the_difference_of_two_outputs_has_the_categorical_cross_entropy(name: str) -> None:
    model, x = shaken(build_model(name, (32, 32, 3))), images((32, 32, 3), 16)
    assert isinstance(model, LayeredClassifier)
    labels = torch.arange(16) % 3 % 2
    with torch.no_grad():
        outputs = model.head(model.features(x))
        assert outputs.shape == (16, 2)
        expected = F.cross_entropy(outputs, labels)
        probability = F.softmax(outputs, dim=1)[:, 1]
        logits = model(x)
    torch.testing.assert_close(cross_entropy(logits, labels.float()), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.sigmoid(logits), probability)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("larger_model", (8, 8, 3)), ("cbis_ddsm", (9, 64, 3)), ("cnn_50", (64, 12, 3)),
     ("cnn_3conv", (8, 8, 1)), ("cancernet", (4, 4, 3))],
)  # fmt: skip
def test_images_too_small_for_the_layers_are_a_usage_error(name: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match=rf"{shape[1]}×{shape[0]} pixels are too small.*'{name}'.*images\.size"):
        build_model(name, shape)


def test_the_house_model_takes_the_smallest_images_that_the_settings_allow() -> None:
    assert build_model("residual", (8, 8, 1))(images((8, 8, 1), 2)).shape == (2,)


def test_an_unknown_model_is_refused_with_the_closest_name() -> None:
    with pytest.raises(UnknownName, match=r"no model 'cancernt'; did you mean 'cancernet'\? Known: residual, "):
        build_model("cancernt", (32, 32, 3))
    with pytest.raises(UnknownName):
        check_model_name("Residual ")


def test_every_recipe_has_a_model_of_its_own() -> None:
    assert set(recipe_names()) - {"default", "transfer"} <= set(MODELS)


def test_scaled_pixels_are_the_bytes_over_255_channel_first() -> None:
    packed = torch.arange(2 * 3 * 5 * 3, dtype=torch.uint8).reshape(2, 3, 5, 3)
    scaled = scale_pixels(packed)
    assert scaled.shape == (2, 3, 3, 5)
    assert scaled.dtype == torch.float32
    np.testing.assert_array_equal(scaled.numpy(), packed.numpy().transpose(0, 3, 1, 2).astype(np.float32) / 255)
    assert scale_pixels(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item() == 1.0


def test_normalising_subtracts_the_mean_then_divides() -> None:
    x = torch.tensor([0.0, 0.5, 1.0])
    assert normalise(x, 0.5, 0.25).tolist() == [-2.0, 0.0, 2.0]
    assert normalise(x, 0.0, 1.0) is x
    assert normalise(x, 0.0, 0.5).tolist() == [0.0, 1.0, 2.0]


def test_the_deployed_network_is_scaling_normalising_and_the_model() -> None:
    model = build_model("cnn_3conv", (32, 32, 3))
    packed = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model((packed.permute(0, 3, 1, 2) / 255 - 0.4) / 0.3)
        logits, features = Deployed(model, 0.4, 0.3)(packed)
        maps = model.forward_features((packed.permute(0, 3, 1, 2) / 255 - 0.4) / 0.3)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(features, maps.mean(dim=(2, 3)))


def test_flat_features_counts_values_and_leaves_no_trace() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2))
    assert flat_features(layers, (9, 13, 3)) == 4 * 3 * 5
    assert layers[1].num_batches_tracked == 0
    assert layers.training


def test_only_trainable_values_are_counted() -> None:
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 6
