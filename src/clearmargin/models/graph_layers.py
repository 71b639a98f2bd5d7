"""The layers of a graph under its own names, where a trace would show how their sums are computed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from clearmargin.graph import (
    INPUT,
    Activation,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    Dropout,
    Elu,
    GlobalPool,
    Graph,
    LayerNorm,
    Merge,
    Node,
    Pad,
    Pool,
    PRelu,
    Relu,
    Rescale,
    Resize,
    Shape,
)

_WORDS: dict[type[Node], str] = {
    Dense: "dense", BatchNorm: "batch norm", LayerNorm: "layer norm", PRelu: "PReLU", Pad: "zero padding", Crop: "crop",
    Resize: "resize", Elu: "ELU", Dropout: "dropout", Rescale: "rescale", Concat: "concatenate",
}  # fmt: skip
_ACTIVATIONS = {"relu6": "ReLU6", "gelu": "GELU", "silu": "SiLU", "selu": "SELU"}


def node_words(node: Node, channels: int) -> tuple[str, str]:
    """Kind and detail of a layer that takes so many channels."""
    match node:
        case Conv() | ConvTranspose():
            return _convolution_words(node, channels)
        case Pool():
            return _pool_kind(node.mode), _window(node.size, node.strides, node.size)
        case GlobalPool():
            return _pool_kind(node.mode), "global"
        case Activation():
            return _ACTIVATIONS.get(node.function, node.function.replace("_", " ")), ""
        case Relu():
            return ("leaky ReLU" if node.negative_slope else "ReLU6" if node.max_value == 6 else "ReLU"), ""
        case Dense():
            return "dense", f"{node.units}"
        case Dropout():
            return "dropout", f"{node.rate:g}"
        case Merge():
            return node.operation, " and ".join(node.inputs)
        case Concat():
            return "concatenate", " and ".join(node.inputs)
    return _WORDS.get(type(node), node.kind.replace("_", " ")), ""


def node_multiply_adds(node: Node, inputs: Sequence[Shape], output: Shape) -> int:
    """Multiplications, each with its addition, of a convolution or a matrix product; 0 of any other layer."""
    match node:
        case Conv():
            return prod(output) * prod(node.kernel) * inputs[0][2] // node.groups
        case ConvTranspose():
            return prod(inputs[0]) * prod(node.kernel) * node.filters
        case Dense():
            return prod(inputs[0]) * node.units
    return 0


def node_parameters(graph: Graph) -> dict[str, int]:
    """The parameters of each node, counted where they are first used; measured statistics are none."""
    owners: dict[str, str] = {}
    for node in graph.nodes:
        if (weights := getattr(node, "weights", None)) is not None:
            owners.setdefault(weights, node.name)
    counts = dict.fromkeys((node.name for node in graph.nodes), 0)
    for key, shape in graph.weights.items():
        weights, _, parameter = key.rpartition(".")
        if not parameter.startswith("running_"):
            counts[owners[weights]] += prod(shape)
    return counts


def node_edges(graph: Graph) -> tuple[tuple[int, int], ...]:
    """(from, to) among the image, which is 0, the nodes, and the logit behind them."""
    places = {INPUT: 0, **{node.name: number for number, node in enumerate(graph.nodes, start=1)}}
    pairs = [(places[name], places[node.name]) for node in graph.nodes for name in sorted(set(node.inputs))]
    return (*pairs, (len(graph.nodes), len(graph.nodes) + 1))


def _convolution_words(node: Conv | ConvTranspose, channels: int) -> tuple[str, str]:
    parts = [_window(node.kernel, node.strides, (1, 1))]
    kind = "transposed convolution" if isinstance(node, ConvTranspose) else "convolution"
    if isinstance(node, Conv):
        if set(node.dilation) != {1}:
            parts.append(f"dilation {'×'.join(map(str, dict.fromkeys(node.dilation)))}")
        if node.groups == channels > 1:
            kind = "depthwise convolution"
        elif node.groups > 1:
            parts.append(f"{node.groups} groups")
    return kind, ", ".join([*parts, f"{node.filters}"])


def _pool_kind(mode: str) -> str:
    return "max pool" if mode == "max" else "mean pool"


def _window(size: tuple[int, int], strides: tuple[int, int], usual: tuple[int, int]) -> str:
    text = "×".join(map(str, size))
    return text if strides == usual else f"{text}, stride {'×'.join(map(str, dict.fromkeys(strides)))}"
