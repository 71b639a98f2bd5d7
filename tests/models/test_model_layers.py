"""The recipes' networks against tables worked by hand from their authors' descriptions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from clearmargin.models import build_model
from clearmargin.models.contract import LayeredClassifier, count_parameters
from clearmargin.models.dropout import Dropout
from clearmargin.models.residual import Residual


def layer_list(model: nn.Module) -> list[str]:
    """One line a layer, in the order in which the image passes them."""
    assert isinstance(model, LayeredClassifier)
    return [describe(layer) for layer in [*model.features, *model.head]]


def describe(layer: nn.Module) -> str:
    match layer:
        case nn.Conv2d():
            assert layer.stride == (1, 1)
            kind = "depthwise" if layer.groups > 1 and layer.groups == layer.in_channels else "conv"
            bias = "" if layer.bias is not None else " no bias"
            padding = " same" if layer.padding == (1, 1) else ""
            assert layer.padding in ((0, 0), (1, 1))
            return f"{kind} {layer.in_channels}-{layer.out_channels} {layer.kernel_size[0]}{padding}{bias}"
        case nn.MaxPool2d():
            assert layer.padding == 0
            assert not layer.ceil_mode
            assert layer.kernel_size == layer.stride
            return f"pool {layer.kernel_size}"
        case nn.Linear():
            return f"dense {layer.in_features}-{layer.out_features}"
        case Dropout():
            return f"dropout {layer.p:g}"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return f"norm {layer.num_features}"
        case nn.ReLU():
            return "relu"
        case nn.Flatten():
            return "flatten"
    raise AssertionError(f"no word for {layer}")


def separable(inputs: int, outputs: int) -> list[str]:
    return [f"depthwise {inputs}-{inputs} 3 same no bias", f"conv {inputs}-{outputs} 1", "relu", f"norm {outputs}"]


def test_larger_model_at_50_px() -> None:
    model = build_model("larger_model", (50, 50, 3))
    assert layer_list(model) == [
        "conv 3-30 5", "relu", "pool 2",        # 50 -> 46 -> 23
        "conv 30-15 3", "relu", "pool 2",       # 23 -> 21 -> 10
        "dropout 0.2", "flatten",               # 15 * 10 * 10 = 1500
        "dense 1500-128", "relu", "dense 128-50", "relu", "dense 50-2",
    ]  # fmt: skip
    assert count_parameters(model) == 2_280 + 4_065 + 192_128 + 6_450 + 102 == 205_025


def test_cbis_ddsm_at_64_px() -> None:
    model = build_model("cbis_ddsm", (64, 64, 3))
    assert layer_list(model) == [
        "conv 3-32 3", "relu", "pool 2",        # 64 -> 62 -> 31
        "conv 32-64 3", "relu", "pool 2",       # 31 -> 29 -> 14
        "flatten",                              # 64 * 14 * 14 = 12544
        "dense 12544-64", "relu", "dropout 0.3", "dense 64-1",
    ]  # fmt: skip
    assert count_parameters(model) == 896 + 18_496 + 802_880 + 65 == 822_337


def test_cnn_50_at_50_px() -> None:
    model = build_model("cnn_50", (50, 50, 3))
    assert layer_list(model) == [
        "conv 3-32 3", "relu", "dropout 0.25", "pool 2",    # 50 -> 48 -> 24
        "conv 32-64 3", "relu", "dropout 0.25", "pool 2",   # 24 -> 22 -> 11
        "conv 64-128 3", "relu", "dropout 0.25", "pool 2",  # 11 -> 9 -> 4
        "flatten",                                          # 128 * 4 * 4 = 2048
        "dense 2048-128", "relu", "dense 128-1",
    ]  # fmt: skip
    assert count_parameters(model) == 896 + 18_496 + 73_856 + 262_272 + 129 == 355_649


def test_cnn_3conv_at_50_px() -> None:
    model = build_model("cnn_3conv", (50, 50, 3))
    assert layer_list(model) == [
        "conv 3-32 3", "relu", "pool 2",
        "conv 32-64 3", "relu", "pool 2",
        "conv 64-128 3", "relu", "pool 2",
        "flatten", "dense 2048-128", "relu", "dense 128-1",
    ]  # fmt: skip
    assert count_parameters(model) == 355_649


def test_cancernet_at_48_px() -> None:
    model = build_model("cancernet", (48, 48, 3))
    assert layer_list(model) == [
        *separable(3, 32), "pool 2", "dropout 0.25",                                                # 48 -> 24
        *separable(32, 64), *separable(64, 64), "pool 2", "dropout 0.25",                           # 24 -> 12
        *separable(64, 128), *separable(128, 128), *separable(128, 128), "pool 2", "dropout 0.25",  # 12 -> 6
        "flatten",                                                                                  # 128 * 6 * 6 = 4608
        "dense 4608-256", "relu", "norm 256", "dropout 0.5", "dense 256-2",
    ]  # fmt: skip
    # A separable convolution of Keras: 9 values an input channel, inputs x outputs, one bias an output.
    convolutions = [155, 2_400, 4_736, 8_896, 17_664, 17_664]
    norms = [2 * width for width in (32, 64, 64, 128, 128, 128)]
    assert count_parameters(model) == sum(convolutions) + sum(norms) + 1_179_904 + 512 + 514 == 1_233_533


def test_residual_counts_its_parameters_by_hand() -> None:
    model = build_model("residual", (50, 50, 3))
    stem = 3 * 32 * 9 + 64
    first = 2 * (2 * 32 * 32 * 9 + 2 * 64)
    second = (32 * 64 * 9 + 64 * 64 * 9 + 2 * 128) + (32 * 64 + 128) + (2 * 64 * 64 * 9 + 2 * 128)
    third = (64 * 128 * 9 + 128 * 128 * 9 + 2 * 256) + (64 * 128 + 256) + (2 * 128 * 128 * 9 + 2 * 256)
    assert count_parameters(model) == stem + first + second + third + 129 == 695_457


def test_residual_halves_the_image_three_times_rounding_up() -> None:
    features = build_model("residual", (50, 33, 3)).forward_features(torch.zeros(1, 3, 50, 33))
    assert features.shape == (1, 128, 7, 5)  # 50 -> 25 -> 13 -> 7, 33 -> 17 -> 9 -> 5


def test_a_residual_block_starts_as_its_short_cut() -> None:
    model = build_model("residual", (32, 32, 3))
    assert isinstance(model, Residual)
    x = torch.rand(1, 32, 8, 8)  # not negative, as behind a ReLU
    with torch.no_grad():
        assert torch.equal(model.features[3](x), x)


@pytest.mark.parametrize("name", ["larger_model", "cbis_ddsm", "cnn_50", "cnn_3conv", "cancernet"])
def test_recipe_weights_start_as_in_keras(name: str) -> None:
    for layer in build_model(name, (48, 48, 3), seed=2).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            fan_out = layer.weight.shape[0] * math.prod(layer.weight.shape[2:])
            bound = math.sqrt(6 / (fan_in + fan_out))  # Glorot and Bengio 2010
            largest = layer.weight.abs().max().item()
            assert largest <= bound
            assert largest > 0.8 * bound
            if layer.bias is not None:
                assert not layer.bias.any()


def test_batch_norm_has_the_constants_of_keras() -> None:
    layers = build_model("cancernet", (48, 48, 3)).modules()
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == 7
    for layer in norms:
        assert layer.eps == 1e-3
        assert layer.momentum == pytest.approx(1 - 0.99)
