"""A model of ours as a graph, in Keras' order: a map is flattened row by row, its channels last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from clearmargin.errors import UsageError
from clearmargin.graph import (
    INPUT,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Graph,
    Merge,
    Node,
    Pad,
    Pool,
    Relu,
    Shape,
    next_shape,
    same_padding,
)
from clearmargin.models.contract import Classifier, LayeredClassifier
from clearmargin.models.dropout import Dropout as OurDropout
from clearmargin.models.ensemble import Ensemble
from clearmargin.models.graph import GraphClassifier, tensor_name
from clearmargin.models.residual import Block, Residual


@dataclass(frozen=True, slots=True)
class Traced:
    """A graph and its tensors, by the names that `Graph.weights` has for them."""

    graph: Graph
    tensors: dict[str, Tensor]


@dataclass(slots=True)
class _Tracer:
    shape: tuple[int, int, int]
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    prefix: str = ""
    flattened: Shape | None = None
    """Of the map behind the flat values at hand; its axes are turned round in the next dense layer."""

    def __post_init__(self) -> None:
        self.shapes[INPUT] = self.shape

    def add(self, kind: type[Node], inputs: Sequence[str], base: str, **fields: Any) -> str:
        number = self.numbers.get(self.prefix + base, 0) + 1
        self.numbers[self.prefix + base] = number
        name = f"{self.prefix}{base}_{number}"
        if "weights" in kind.model_fields:
            fields["weights"] = name
        node = kind(name=name, inputs=tuple(inputs), **fields)
        self.shapes[name] = next_shape(node, self.shapes)
        self.nodes.append(node)
        return name

    def keep(self, node: str, module: nn.Module, *names: str) -> None:
        found = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        self.tensors |= {f"{node}.{name}": found[name].detach().clone() for name in names if name in found}

    def classifier(self, model: nn.Module) -> str:
        """The nodes of a whole model; the name of its outputs."""
        match model:
            case Ensemble():
                return self._ensemble(model)
            case LayeredClassifier():
                return self.chain(model.head, self.chain(model.features, INPUT))
            case Residual():
                features = self.chain(model.features, INPUT)
                mean = self.add(GlobalPool, [features], "global_average_pooling2d", mode="average")
                return self.layer(model.classify, self.layer(model.dropout, mean))
        raise UsageError(
            f"a network of the kind {type(model).__name__} has no layers that Keras knows; export it with --to onnx."
        )

    def _ensemble(self, model: Ensemble) -> str:
        outputs = []
        for number, member in enumerate(model.members, start=1):
            self.prefix, self.flattened = f"network{number}_", None
            outputs.append(self.classifier(member))
        self.prefix = ""
        return self.add(Merge, outputs, "average", operation="average")

    def chain(self, layers: nn.Module, start: str) -> str:
        for layer in layers.children():
            start = self.layer(layer, start)
        return start

    def layer(self, layer: nn.Module, start: str) -> str:
        match layer:
            case nn.Conv2d():
                return self._convolution(layer, start)
            case nn.Linear():
                return self._dense(layer, start)
            case nn.BatchNorm2d() | nn.BatchNorm1d():
                name = self.add(BatchNorm, [start], "batch_normalization", epsilon=layer.eps)
                self.keep(name, layer, "weight", "bias", "running_mean", "running_var")
                return name
            case nn.ReLU():
                return self.add(Relu, [start], "re_lu")
            case nn.MaxPool2d() if layer.padding == 0 and layer.dilation == 1 and not layer.ceil_mode:
                strides = _pair(layer.stride)
                return self.add(
                    Pool, [start], "max_pooling2d", mode="max", size=_pair(layer.kernel_size), strides=strides
                )
            case nn.Dropout() | OurDropout():
                return self.add(Dropout, [start], "dropout", rate=layer.p)
            case nn.Flatten():
                self.flattened = self.shapes[start]
                return self.add(Flatten, [start], "flatten")
            case Block():
                return self._block(layer, start)
        raise UsageError(f"the layer {layer} has no counterpart in Keras; export the model with --to onnx.")

    def _convolution(self, layer: nn.Conv2d, start: str) -> str:
        kernel, strides, dilation = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.dilation)
        assert not isinstance(layer.padding, str)
        margins = [(margin, margin) for margin in _pair(layer.padding)]
        sides = self.shapes[start][:2]
        same = [same_padding(*each) for each in zip(sides, kernel, strides, dilation, strict=True)]
        padding = "valid" if margins == [(0, 0), (0, 0)] else "same" if margins == same else "explicit"
        if padding == "explicit":
            start = self.add(Pad, [start], "zero_padding2d", margins=(*margins[0], *margins[1]))
        name = self.add(
            Conv,
            [start],
            "depthwise_conv2d" if layer.groups > 1 else "conv2d",
            filters=layer.out_channels,
            kernel=kernel,
            strides=strides,
            padding="same" if padding == "same" else "valid",
            dilation=dilation,
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        self.keep(name, layer, "weight", "bias")
        return name

    def _dense(self, layer: nn.Linear, start: str) -> str:
        name = self.add(Dense, [start], "dense", units=layer.out_features, bias=layer.bias is not None)
        self.keep(name, layer, "weight", "bias")
        if self.flattened is not None and len(self.flattened) == 3:
            height, width, channels = self.flattened
            weight = self.tensors[f"{name}.weight"].reshape(-1, channels, height, width)
            self.tensors[f"{name}.weight"] = weight.permute(0, 2, 3, 1).reshape(layer.out_features, -1).contiguous()
        self.flattened = None
        return name

    def _block(self, block: Block, start: str) -> str:
        inner = self.layer(block.norm1, self.layer(block.conv1, start))
        inner = self.add(Relu, [inner], "re_lu")
        inner = self.layer(block.norm2, self.layer(block.conv2, inner))
        beside = start if isinstance(block.shortcut, nn.Identity) else self.chain(block.shortcut, start)
        return self.add(Relu, [self.add(Merge, [inner, beside], "add", operation="add")], "re_lu")


def trace_model(model: Classifier, shape: tuple[int, int, int]) -> Traced:
    """The graph of a model, and its tensors.

    Args:
        model: one of the recipes' networks, `residual`, an imported one, or several of those.
        shape: (H, W, C) of its images.

    Raises:
        UsageError: another kind of network.
    """
    if isinstance(model, GraphClassifier):
        state = model.state_dict()
        tensors = {key: state[tensor_name(key)].detach().clone() for key in model.graph.weights}
        return Traced(model.graph, tensors)
    tracer = _Tracer(shape)
    with torch.no_grad():
        tracer.classifier(model)
    if shape[2] not in (1, 3):
        raise UsageError("a model of Keras is written for images of one channel or three.")
    graph = Graph(input=(shape[0], shape[1], 3 if shape[2] == 3 else 1), nodes=tuple(tracer.nodes))
    return Traced(graph, tracer.tensors)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
