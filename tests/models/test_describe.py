"""What is said of a model's layers is what torch does, counted another way."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from tests.bundle.keras.files import write_small
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clearmargin.bundle.keras.network import read_network
from clearmargin.graph import Conv, ConvTranspose, Dense, Flatten, Graph, Merge
from clearmargin.models import MODELS, build_model, summaries
from clearmargin.models.contract import Classifier, count_parameters
from clearmargin.models.describe import Description, Layer, describe_model
from clearmargin.models.ensemble import Ensemble
from clearmargin.models.graph import GraphClassifier
from clearmargin.models.trace import Trace

Shape = tuple[int, int, int]
SHAPES: list[Shape] = [(50, 50, 3), (40, 24, 1)]


def flops(model: nn.Module, shape: Shape) -> int:
    image = torch.zeros(1, shape[2], shape[0], shape[1])
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:  # it does not know the fused attention of a CPU
        model(image)
    return int(counter.get_total_flops())


def check(model: Classifier, shape: Shape) -> Description:
    """What holds for any model."""
    description = describe_model(model, shape)
    assert description.multiply_adds * 2 == flops(model, shape)
    assert description.parameters == sum(each.numel() for each in model.parameters())
    assert description.trainable == count_parameters(model)
    assert description.networks * sum(layer.parameters for layer in description.layers) == description.parameters
    assert description.networks * sum(each.multiply_adds for each in description.layers) == description.multiply_adds
    header = len(save({name: torch.empty(0) for name in model.state_dict()}))
    assert 0 <= len(save(model.state_dict())) - description.weight_bytes <= 2 * header
    first, last = description.layers[0], description.layers[-1]
    assert (first.name, first.shape) == ("input", (shape[2], shape[0], shape[1]))
    assert (last.kind, last.shape) == ("logit", ())
    assert all(source < target for source, target in description.edges)
    reached = {0} | {target for source, target in description.edges}
    assert reached == set(range(len(description.layers)))
    assert {source for source, _ in description.edges} == set(range(len(description.layers) - 1))
    return description


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_costs_and_parameters_are_those_that_torch_counts(name: str, shape: Shape) -> None:
    check(build_model(name, shape), shape)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_networks_of_timm_are_described_as_any_other(timm: ModuleType, name: str) -> None:
    description = check(build_model(f"timm:{name}", (40, 40, 3)), (40, 40, 3))
    kinds = {layer.kind for layer in description.layers}
    assert {"convolution", "dense", "add"} <= kinds
    assert ("attention" in kinds) == (name == "test_vit")


def test_cbis_ddsm_is_what_a_hand_counts() -> None:
    layers = describe_model(build_model("cbis_ddsm", (64, 64, 3)), (64, 64, 3)).layers
    expected = [
        Layer("input", "image", "", (3, 64, 64), 0, 0),
        Layer("features.0", "convolution", "3×3, 32", (32, 62, 62), 32 * 27 + 32, 62 * 62 * 32 * 27),
        Layer("features.1", "ReLU", "", (32, 62, 62), 0, 0),
        Layer("features.2", "max pool", "2×2", (32, 31, 31), 0, 0),
        Layer("features.3", "convolution", "3×3, 64", (64, 29, 29), 64 * 288 + 64, 29 * 29 * 64 * 288),
        Layer("features.4", "ReLU", "", (64, 29, 29), 0, 0),
        Layer("head.0", "max pool", "2×2", (64, 14, 14), 0, 0),
        Layer("head.1", "flatten", "", (12544,), 0, 0),
        Layer("head.2", "dense", "64", (64,), 12544 * 64 + 64, 12544 * 64),
        Layer("head.3", "ReLU", "", (64,), 0, 0),
        Layer("head.4", "dropout", "0.3", (64,), 0, 0),
        Layer("head.5", "dense", "1", (1,), 65, 64),
        Layer("output", "logit", "", (), 0, 0),
    ]
    assert list(layers) == expected


def test_a_residual_block_is_one_with_its_short_cut() -> None:
    description = describe_model(build_model("residual", (32, 32, 3)), (32, 32, 3))
    names = [layer.name for layer in description.layers]
    edges = {(names[source], names[target]) for source, target in description.edges}
    assert {("features.2", "features.3.conv1"), ("features.2", "features.3.add")} <= edges
    assert ("features.3.norm2", "features.3.add") in edges
    assert {("features.5.norm2", "features.5.add"), ("features.5.shortcut.1", "features.5.add")} <= edges
    assert ("features.4.ReLU_2", "features.5.shortcut.0") in edges
    assert [layer.name for layer in description.layers if layer.block == "features.3"] == [
        f"features.3.{each}" for each in ("conv1", "norm1", "ReLU", "conv2", "norm2", "add", "ReLU_2")
    ]
    assert sum(layer.kind == "add" for layer in description.layers) == 6


def test_the_softmax_of_two_outputs_is_said() -> None:
    assert describe_model(build_model("cancernet", (48, 48, 3)), (48, 48, 3)).layers[-1].detail == (
        "difference of the two outputs"
    )


def test_an_ensemble_is_one_network_several_times() -> None:
    shape = (32, 32, 3)
    one = check(build_model("cnn_3conv", shape), shape)
    whole = check(Ensemble([build_model("cnn_3conv", shape, seed=seed) for seed in range(3)]).eval(), shape)
    assert (one.networks, whole.networks) == (1, 3)
    assert whole.layers[:-1] == one.layers[:-1]
    assert whole.layers[-1].detail == "mean of 3 networks"
    assert whole.multiply_adds == 3 * one.multiply_adds
    assert whole.weight_bytes == 3 * one.weight_bytes


class Odd(Classifier):
    """A layer that is passed twice, one that is never passed, work in place, functions with weights, two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.never = nn.Linear(5, 7)
        self.up = nn.ConvTranspose2d(3, 6, 2, stride=2)
        self.grouped = nn.Conv2d(6, 12, (3, 1), groups=3, dilation=2, stride=2)
        self.drop = nn.Dropout(0.1)
        self.activate = nn.ReLU(inplace=True)
        self.token = nn.Parameter(torch.zeros(12, 1, 1))
        self.kernel = nn.Parameter(torch.ones(12, 12))

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.activate(self.twice(self.twice(x)))
        x = self.grouped(self.up(x)) + self.token
        return torch.cat([self.drop(x), x], dim=1)

    def forward_head(self, features: Tensor) -> Tensor:
        left, right = features.chunk(2, dim=1)
        pooled = (left * right.sigmoid()).mean(dim=(2, 3))
        return (pooled @ self.kernel)[:, 0]


def test_what_is_odd_is_counted_once_and_told() -> None:
    model = Odd().eval()
    description = describe_model(model, (16, 16, 3))
    by_name = {layer.name: layer for layer in description.layers}
    twice = [layer for layer in description.layers if layer.name == "twice"]
    assert [(each.parameters, each.detail) for each in twice] == [(84, "3×3, 3"), (0, "3×3, 3, again")]
    assert twice[0].multiply_adds == twice[1].multiply_adds == 16 * 16 * 3 * 27
    assert by_name["up"].kind == "transposed convolution"
    assert by_name["up"].multiply_adds == 16 * 16 * 3 * 6 * 4
    assert by_name["grouped"].detail == "3×1, stride 2, dilation 2, 12, 3 groups"
    assert by_name["unused"].parameters == 5 * 7 + 7
    assert by_name["add"].parameters == 12
    assert by_name["product"].parameters == by_name["product"].multiply_adds == 144
    assert description.multiply_adds * 2 == flops(model, (16, 16, 3))
    assert sum(layer.parameters for layer in description.layers) == description.parameters
    names = [layer.name for layer in description.layers]
    edges = {(names[source], names[target]) for source, target in description.edges}
    # Dropout hands on the tensor that the other branch takes too, and is not taken for its source.
    assert {("add", "drop"), ("drop", "concatenate"), ("add", "concatenate")} <= edges
    assert {("twice", "activate"), ("activate", "up")} <= edges
    assert ("twice", "up") not in edges


class Attending(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward_features(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).unflatten(2, x.shape[2:])

    def forward_head(self, features: Tensor) -> Tensor:
        return F.relu(features).mean(dim=(1, 2, 3))


def test_torchs_own_attention_is_looked_into() -> None:
    model = Attending().eval()
    description = describe_model(model, (8, 8, 3))
    # In and out projections of 64 tokens, and each token with each, for the weights and for the sum.
    assert description.multiply_adds == 64 * 3 * 9 + 64 * 9 + 2 * 64 * 64 * 3
    assert sum(layer.parameters for layer in description.layers) == description.parameters


def test_describing_leaves_the_model_as_it_was() -> None:
    model = build_model("cancernet", (48, 48, 3)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    describe_model(model, (48, 48, 3))
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_model_that_fails_is_left_without_hooks() -> None:
    model = build_model("cnn_3conv", (32, 32, 3))
    with pytest.raises(RuntimeError):
        describe_model(model, (32, 32, 1))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_every_model_is_said_what_it_is_for() -> None:
    assert list(summaries()) == list(MODELS)
    assert all(summaries().values())


def test_an_imported_network_has_its_own_layers_and_the_costs_of_its_trace(tmp_path: Path) -> None:
    network = read_network(write_small(tmp_path / "a.h5")).classifier()
    found = describe_model(network, (8, 8, 3))
    assert [(each.name, each.kind, each.detail) for each in found.layers] == [
        ("input", "image", ""),
        ("conv", "convolution", "3×3, 4"),
        ("conv_activation", "ReLU", ""),
        ("mean", "mean pool", "global"),
        ("dense", "dense", "1"),
        ("output", "logit", ""),
    ]
    assert found.edges == ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))
    trace = Trace(network).run(torch.zeros(1, 3, 8, 8))
    assert found.multiply_adds == sum(step.multiply_adds for step in trace.steps)
    assert [each.parameters for each in found.layers] == [0, 112, 0, 0, 5, 0]
    assert found.parameters == 117


def test_the_costs_of_every_kind_of_convolution_are_those_of_its_trace() -> None:
    nodes = (
        Conv(name="grouped", inputs=("image",), weights="a", filters=6, kernel=(3, 3), padding="same", groups=3),
        Conv(name="again", inputs=("grouped",), weights="b", filters=6, kernel=(3, 3), padding="same"),
        Conv(name="shared", inputs=("again",), weights="b", filters=6, kernel=(3, 3), padding="same"),
        Merge(name="sum", inputs=("again", "shared"), operation="add"),
        ConvTranspose(name="up", inputs=("sum",), weights="c", filters=4, kernel=(2, 2), strides=(2, 2)),
        Dense(name="mixed", inputs=("up",), weights="d", units=5),
        Flatten(name="flat", inputs=("mixed",)),
        Dense(name="logits", inputs=("flat",), weights="e", units=2),
    )
    graph = Graph(input=(8, 6, 3), nodes=nodes, malignant=1)
    network = GraphClassifier(graph).eval()
    found = describe_model(network, (8, 6, 3))
    trace = Trace(network).run(torch.zeros(1, 3, 8, 6))
    assert found.multiply_adds == sum(step.multiply_adds for step in trace.steps) > 0
    by_name = {each.name: each for each in found.layers}
    assert (by_name["grouped"].kind, by_name["grouped"].detail) == ("depthwise convolution", "3×3, 6")
    assert (by_name["sum"].kind, by_name["sum"].detail) == ("add", "again and shared")
    assert (by_name["again"].parameters, by_name["shared"].parameters) == (3 * 3 * 6 * 6 + 6, 0)
    assert by_name["up"].shape == (4, 16, 12)
    assert sum(each.parameters for each in found.layers) == found.parameters
    assert "difference of the two outputs" in by_name["output"].detail
