"""The network of a graph keeps the contract: the map is where saliency looks for it, and every path goes through it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from clearmargin.graph import INPUT, Concat, Conv, Dense, Dropout, Flatten, GlobalPool, Graph, Merge, Node, Pool, Relu
from clearmargin.models.graph import GraphClassifier, feature_node


def conv(name: str, source: str, filters: int = 3) -> Conv:
    return Conv(name=name, inputs=(source,), weights=name, filters=filters, kernel=(3, 3), padding="same")


def head(source: str, units: int = 1) -> tuple[Node, ...]:
    return (
        GlobalPool(name="mean", inputs=(source,), mode="average"),
        Dense(name="dense", inputs=("mean",), weights="dense", units=units),
    )


def build(*nodes: Node, malignant: int = 1) -> GraphClassifier:
    graph = Graph(input=(8, 10, 3), nodes=nodes, malignant=1 if malignant else 0)
    model = GraphClassifier(graph)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return model.eval()


CHAIN: tuple[Node, ...] = (
    conv("a", INPUT),
    Relu(name="b", inputs=("a",)),
    conv("c", "b"),
    Relu(name="d", inputs=("c",)),
)
POOLED: tuple[Node, ...] = (
    Pool(name="p", inputs=("d",), mode="max", size=(2, 2), strides=(2, 2)),
    Dropout(name="q", inputs=("p",), rate=0.5),
)
BLOCK: tuple[Node, ...] = (*CHAIN, Merge(name="sum", inputs=("d", "b"), operation="add"))
SKIPPED: tuple[Node, ...] = (*CHAIN, Concat(name="cat", inputs=("d", INPUT), axis=2))
TWO_ENDS: tuple[Node, ...] = (
    conv("a", INPUT),
    conv("l", "a"),
    conv("r", "a"),
    GlobalPool(name="lm", inputs=("l",), mode="average"),
    GlobalPool(name="rm", inputs=("r",), mode="max"),
    Concat(name="both", inputs=("lm", "rm"), axis=0),
    Dense(name="dense", inputs=("both",), weights="dense", units=1),
)
FLAT: tuple[Node, ...] = (
    Flatten(name="flat", inputs=(INPUT,)),
    Dense(name="dense", inputs=("flat",), weights="dense", units=1),
)


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ((*CHAIN, *head("d")), "d"),
        ((*CHAIN, *POOLED, *head("q")), "d"),
        ((*BLOCK, *head("sum")), "sum"),
        ((*SKIPPED, *head("cat")), "cat"),
        (TWO_ENDS, "a"),
        (FLAT, INPUT),
    ],
)
def test_features_are_the_last_map_that_every_path_goes_through(nodes: tuple[Node, ...], wanted: str) -> None:
    model = build(*nodes)
    assert feature_node(model.graph) == wanted
    x = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))
    features = model.forward_features(x)
    height, width, channels = model.graph.shapes[wanted]
    assert features.shape == (2, channels, height, width)
    logits: Tensor = model(x)
    assert logits.shape == (2,)
    assert torch.equal(model.forward_head(features), logits)


def test_two_outputs_are_a_difference_and_the_index_turns_the_sign() -> None:
    nodes = (*CHAIN, *head("d", units=2))
    x = torch.rand(2, 3, 8, 10)
    assert torch.equal(build(*nodes)(x), -build(*nodes, malignant=0)(x))
    one = (*CHAIN, *head("d"))
    assert torch.equal(build(*one)(x), -build(*one, malignant=0)(x))


def test_names_of_layers_cannot_meet_those_of_modules() -> None:
    for name in ("keys", "items", "type", "forward", "training", "requires_grad", "parameters"):
        model = build(conv(name, INPUT), *head(name))
        assert np.isfinite(model(torch.zeros(1, 3, 8, 10)).item())
