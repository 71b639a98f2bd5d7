"""A network that is described by a graph, computed by torch with Keras' meaning of every layer.

Maps are (B, C, H, W) here, everything else is in Keras' order; a layer that mixes the axes of a map turns it round.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    Flatten,
    GlobalPool,
    Graph,
    LayerNorm,
    Merge,
    Node,
    Pad,
    Permute,
    Pool,
    PRelu,
    Relu,
    Rescale,
    Reshape,
    Resize,
    Softmax,
    same_padding,
)
from clearmargin.models.contract import Classifier

_MAP_AXES = (2, 3, 1)
"""Of Keras' axes of a map, the axis here, that of the batch counted."""
_PREFIX = "node_"
"""Keeps names of layers apart from attributes of modules."""
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": F.relu6,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "hard_silu": F.hardswish,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "exponential": torch.exp,
}


class GraphClassifier(Classifier):
    """The network of a graph, its weights zero until they are loaded under the names that `tensor_name` gives.

    Features are the last map that every path goes through, before the pooling and dropout that follow it; where none
    is, the image itself.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleDict()
        for key, shape in graph.weights.items():
            _, name, parameter = tensor_name(key).split(".")
            if name not in self.layers:
                self.layers[name] = nn.Module()
            start = torch.ones(shape) if parameter == "running_var" else torch.zeros(shape)
            if parameter.startswith("running_"):
                self.layers[name].register_buffer(parameter, start)
            else:
                self.layers[name].register_parameter(parameter, nn.Parameter(start))
        self._cut = feature_node(graph)
        names = [node.name for node in graph.nodes]
        self._before = 0 if self._cut == INPUT else names.index(self._cut) + 1
        self._last_use = {name: number for number, node in enumerate(graph.nodes) for name in node.inputs}

    def forward_features(self, x: Tensor) -> Tensor:
        return self._run({INPUT: x}, 0, self._before, self._cut)

    def forward_head(self, features: Tensor) -> Tensor:
        nodes = self.graph.nodes
        outputs = self._run({self._cut: features}, self._before, len(nodes), nodes[-1].name)
        if outputs.shape[1] == 2:
            malignant = outputs[:, self.graph.malignant]
            return malignant if self.graph.apart else malignant - outputs[:, 1 - self.graph.malignant]
        return outputs[:, 0] if self.graph.malignant == 1 else -outputs[:, 0]

    def _run(self, values: dict[str, Tensor], start: int, stop: int, wanted: str) -> Tensor:
        for number in range(start, stop):
            node = self.graph.nodes[number]
            values[node.name] = self._compute(node, [values[name] for name in node.inputs])
            for name in node.inputs:
                if self._last_use[name] == number and name != wanted:
                    values.pop(name, None)
        return values[wanted]

    def _compute(self, node: Node, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        match node:
            case Merge():
                return _merge(node, inputs)
            case Concat():
                return torch.cat(inputs, dim=_MAP_AXES[node.axis] if x.dim() == 4 else node.axis + 1)
            case Flatten():
                return _ordered(x, node.order).flatten(1)
            case Reshape():
                return _reshape(node, x)
            case Permute():
                order = [0, *(axis + 1 for axis in node.order)]
                return _from_keras(_to_keras(x).permute(order))
            case Conv() | ConvTranspose() | Dense() | BatchNorm() | LayerNorm() | PRelu():
                return self._weighted(node, x)
            case _:
                return _plain(node, x)

    def _weighted(self, node: Conv | ConvTranspose | Dense | BatchNorm | LayerNorm | PRelu, x: Tensor) -> Tensor:
        layer = self.layers[_PREFIX + node.weights]
        weight: Tensor = layer.get_parameter("weight")
        bias = None
        if isinstance(node, BatchNorm | LayerNorm) or (not isinstance(node, PRelu) and node.bias):
            bias = layer.get_parameter("bias")
        match node:
            case Conv():
                return _convolve(node, x, weight, bias)
            case ConvTranspose():
                return _convolve_transposed(node, x, weight, bias)
            case Dense():
                return _from_keras(F.linear(_to_keras(x), weight, bias))
            case BatchNorm():
                mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
                scale = weight * torch.rsqrt(variance + node.epsilon)
                assert bias is not None
                return x * _per_channel(scale, x) + _per_channel(bias - mean * scale, x)
            case LayerNorm():
                return _from_keras(F.layer_norm(_to_keras(x), weight.shape, weight, bias, node.epsilon))
            case PRelu():
                return F.relu(x) - weight * F.relu(-x)


def feature_node(graph: Graph) -> str:
    """The name of the node whose map is the features: the last one that every path goes through."""
    shapes = graph.shapes
    last_use = {name: number for number, node in enumerate(graph.nodes) for name in node.inputs}
    crossings, needed_until = [INPUT], last_use[INPUT]
    for number, node in enumerate(graph.nodes):
        if needed_until <= number:  # nothing from before this node is needed after it
            crossings.append(node.name)
        needed_until = max(needed_until, last_use.get(node.name, number))
    maps = [name for name in crossings if len(shapes[name]) == 3]
    spread = [name for name in maps if shapes[name][0] * shapes[name][1] > 1] or maps
    by_name = {node.name: node for node in graph.nodes}
    while len(spread) > 1 and isinstance(by_name.get(spread[-1]), Pool | Dropout | Pad | Crop | Resize):
        spread.pop()
    return spread[-1]


def tensor_name(key: str) -> str:
    """What the model calls the weights that `Graph.weights` calls `key`."""
    return f"layers.{_PREFIX}{key}"


def _plain(node: Node, x: Tensor) -> Tensor:
    """A layer without weights and with one input."""
    match node:
        case Pool():
            return _pool(node, x)
        case GlobalPool():
            pooled = x.amax(dim=(2, 3), keepdim=True) if node.mode == "max" else x.mean(dim=(2, 3), keepdim=True)
            return pooled if node.keepdims else pooled.flatten(1)
        case Pad():
            above, below, left, right = node.margins
            return F.pad(x, (left, right, above, below))
        case Crop():
            above, below, left, right = node.margins
            return x[:, :, above : x.shape[2] - below, left : x.shape[3] - right]
        case Resize():
            if node.interpolation == "nearest":
                return F.interpolate(x, size=node.size, mode="nearest-exact")
            return F.interpolate(x, size=node.size, mode="bilinear", align_corners=False)
        case Activation():
            return _FUNCTIONS[node.function](x)
        case Relu():
            return _relu(node, x)
        case Elu():
            return F.elu(x, node.alpha)
        case Softmax():
            return torch.softmax(x, dim=1 if x.dim() == 4 else -1)
        case Rescale():
            scale, offset = (_per_channel(x.new_tensor(values), x) for values in (node.scale, node.offset))
            return x * scale + offset
        case _:  # Dropout, in evaluation
            return x


def _merge(node: Merge, inputs: list[Tensor]) -> Tensor:
    merged, *others = inputs
    for other in others:
        match node.operation:
            case "add" | "average":
                merged = merged + other
            case "subtract":
                merged = merged - other
            case "multiply":
                merged = merged * other
            case "maximum":
                merged = torch.maximum(merged, other)
            case "minimum":
                merged = torch.minimum(merged, other)
    return merged / len(inputs) if node.operation == "average" else merged


def _convolve(node: Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    margins = (0, 0, 0, 0)
    if node.padding == "same":
        above, below = same_padding(x.shape[2], node.kernel[0], node.strides[0], node.dilation[0])
        left, right = same_padding(x.shape[3], node.kernel[1], node.strides[1], node.dilation[1])
        margins = (left, right, above, below)
    symmetric = margins[0] == margins[1] and margins[2] == margins[3]
    if not symmetric:
        x = F.pad(x, margins)
    padding = (margins[2], margins[0]) if symmetric else (0, 0)
    return F.conv2d(x, weight, bias, node.strides, padding, node.dilation, node.groups)


def _convolve_transposed(node: ConvTranspose, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    full = F.conv_transpose2d(x, weight, None, node.strides)
    wanted, margins = node.output([(x.shape[2], x.shape[3], x.shape[1])]), []
    for axis in (1, 0):
        before = max(node.kernel[axis] - node.strides[axis], 0) // 2 if node.padding == "same" else 0
        margins += [-before, wanted[axis] - full.shape[axis + 2] + before]
    y = F.pad(full, margins)
    return y if bias is None else y + _per_channel(bias, y)


def _pool(node: Pool, x: Tensor) -> Tensor:
    if node.padding == "valid":
        pool = F.max_pool2d if node.mode == "max" else F.avg_pool2d
        return pool(x, node.size, node.strides)
    above, below = same_padding(x.shape[2], node.size[0], node.strides[0])
    left, right = same_padding(x.shape[3], node.size[1], node.strides[1])
    margins = (left, right, above, below)
    if node.mode == "max":
        return F.max_pool2d(F.pad(x, margins, value=float("-inf")), node.size, node.strides)
    inside = F.pad(torch.ones(1, 1, x.shape[2], x.shape[3], dtype=x.dtype, device=x.device), margins)
    share = F.avg_pool2d(inside, node.size, node.strides)
    return F.avg_pool2d(F.pad(x, margins), node.size, node.strides) / share


def _relu(node: Relu, x: Tensor) -> Tensor:
    above = x * (x > node.threshold) if node.threshold != 0 else F.relu(x)
    if node.max_value is not None:
        above = torch.clamp(above, 0, node.max_value)
    return above - node.negative_slope * F.relu(node.threshold - x) if node.negative_slope else above


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, 1, 1) if x.dim() == 4 else values


def _to_keras(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def _from_keras(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


def _ordered(x: Tensor, order: str) -> Tensor:
    """The map with its axes in the order in which its values are counted."""
    return x if order == "first" else _to_keras(x)


def _reshape(node: Reshape, x: Tensor) -> Tensor:
    values, target = _ordered(x, node.order), node.target
    if len(target) == 3 and node.order == "first":
        return values.reshape(-1, target[2], target[0], target[1])
    return _from_keras(values.reshape(-1, *target))
