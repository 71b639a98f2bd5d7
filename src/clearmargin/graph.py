"""A network as data: its layers in the order in which they are computed, with Keras' meaning of each.

Values only, checked as what a stranger wrote: every number is bounded, and shapes follow from the layers, so that no
file can ask for more memory than the limits here. `models/graph.py` computes a graph, `bundle/keras/` reads and
writes Keras files as graphs. Shapes are those of one image in Keras' order, (H, W, C) for a map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

INPUT = "image"
"""The name under which nodes take the image."""
MAX_NODES = 4096
MAX_VALUES = 2**26
"""Of one feature map of one image: 256 MiB."""
MAX_PARAMETERS = 2**29
"""Of all weights: 2 GiB."""

Shape = tuple[int, ...]

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,120}$")]
_Side = Annotated[int, Field(ge=1, le=1024)]
_Pair = tuple[_Side, _Side]
_Channels = Annotated[int, Field(ge=1, le=2**20)]
_Margin = Annotated[int, Field(ge=0, le=4096)]
_Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
_Small = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]
_Padding = Literal["valid", "same"]
_Order = Literal["last", "first"]
"""Where channels stand in the order in which a map's values are counted."""
_Interpolation = Literal["nearest", "bilinear"]


class _Node(BaseModel):
    """One layer. Its inputs are names of nodes before it, or INPUT."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Name
    inputs: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=64)]

    def output(self, shapes: Sequence[Shape]) -> Shape:
        """The shape of what it gives for inputs of these shapes.

        Raises:
            ValueError: it cannot take them.
        """
        return _one(shapes)

    def parameters(self, shapes: Sequence[Shape]) -> dict[str, Shape]:  # noqa: ARG002
        """Name and shape of its weights as torch has them, for inputs of these shapes."""
        return {}


class _Weighted(_Node):
    weights: _Name
    """Where its weights are; two nodes that share them name the same."""


class Conv(_Weighted):
    """A convolution; a depthwise one has as many groups as input channels."""

    kind: Literal["conv"] = "conv"
    filters: _Channels
    kernel: _Pair
    strides: _Pair = (1, 1)
    padding: _Padding = "valid"
    dilation: _Pair = (1, 1)
    groups: _Channels = 1
    bias: bool = True

    def output(self, shapes: Sequence[Shape]) -> Shape:
        height, width, channels = _map(shapes)
        if channels % self.groups or self.filters % self.groups:
            raise ValueError(f"{channels} channels and {self.filters} filters are no multiple of {self.groups} groups")
        sides = [
            _windows(side, kernel, stride, dilation, self.padding)
            for side, kernel, stride, dilation in zip(
                (height, width), self.kernel, self.strides, self.dilation, strict=True
            )
        ]
        return (*sides, self.filters)

    def parameters(self, shapes: Sequence[Shape]) -> dict[str, Shape]:
        kernel = (self.filters, _map(shapes)[2] // self.groups, *self.kernel)
        return {"weight": kernel, **({"bias": (self.filters,)} if self.bias else {})}


class ConvTranspose(_Weighted):
    kind: Literal["conv_transpose"] = "conv_transpose"
    filters: _Channels
    kernel: _Pair
    strides: _Pair = (1, 1)
    padding: _Padding = "valid"
    bias: bool = True

    def output(self, shapes: Sequence[Shape]) -> Shape:
        height, width, _ = _map(shapes)
        sides = [
            side * stride + (max(kernel - stride, 0) if self.padding == "valid" else 0)
            for side, kernel, stride in zip((height, width), self.kernel, self.strides, strict=True)
        ]
        return (*sides, self.filters)

    def parameters(self, shapes: Sequence[Shape]) -> dict[str, Shape]:
        kernel = (_map(shapes)[2], self.filters, *self.kernel)
        return {"weight": kernel, **({"bias": (self.filters,)} if self.bias else {})}


class Dense(_Weighted):
    """A linear map of the last axis."""

    kind: Literal["dense"] = "dense"
    units: _Channels
    bias: bool = True

    def output(self, shapes: Sequence[Shape]) -> Shape:
        return (*_one(shapes)[:-1], self.units)

    def parameters(self, shapes: Sequence[Shape]) -> dict[str, Shape]:
        return {"weight": (self.units, _one(shapes)[-1]), **({"bias": (self.units,)} if self.bias else {})}


class BatchNorm(_Weighted):
    """Normalises each entry of the last axis by stored statistics."""

    kind: Literal["batch_norm"] = "batch_norm"
    epsilon: _Small

    def parameters(self, shapes: Sequence[Shape]) -> dict[str, Shape]:
        size = (_one(shapes)[-1],)
        return {"weight": size, "bias": size, "running_mean": size, "running_var": size}


class LayerNorm(_Weighted):
    """Normalises over the last axis."""

    kind: Literal["layer_norm"] = "layer_norm"
    epsilon: _Small

    def parameters(self, shapes: Sequence[Shape]) -> dict[str, Shape]:
        size = (_one(shapes)[-1],)
        return {"weight": size, "bias": size}


class PRelu(_Weighted):
    """A leaky ReLU whose slopes are weights."""

    kind: Literal["prelu"] = "prelu"
    shape: Annotated[tuple[_Channels, ...], Field(min_length=1, max_length=3)]
    """Of the slopes, in Keras' order; 1 along an axis that shares them."""

    def output(self, shapes: Sequence[Shape]) -> Shape:
        shape = _one(shapes)
        if len(shape) != len(self.shape) or any(
            own not in (1, side) for own, side in zip(self.shape, shape, strict=True)
        ):
            raise ValueError(f"slopes of shape {self.shape} do not fit {shape}")
        return shape

    def parameters(self, shapes: Sequence[Shape]) -> dict[str, Shape]:  # noqa: ARG002
        return {"weight": self.shape if len(self.shape) < 3 else (self.shape[2], self.shape[0], self.shape[1])}


class Pool(_Node):
    """Of averages, what lies outside of the map does not count."""

    kind: Literal["pool"] = "pool"
    mode: Literal["max", "average"]
    size: _Pair
    strides: _Pair
    padding: _Padding = "valid"

    def output(self, shapes: Sequence[Shape]) -> Shape:
        height, width, channels = _map(shapes)
        sides = [
            _windows(side, kernel, stride, 1, self.padding)
            for side, kernel, stride in zip((height, width), self.size, self.strides, strict=True)
        ]
        return (*sides, channels)


class GlobalPool(_Node):
    kind: Literal["global_pool"] = "global_pool"
    mode: Literal["max", "average"]
    keepdims: bool = False

    def output(self, shapes: Sequence[Shape]) -> Shape:
        channels = _map(shapes)[2]
        return (1, 1, channels) if self.keepdims else (channels,)


class Pad(_Node):
    """Zeros around the map: above, below, left, right."""

    kind: Literal["pad"] = "pad"
    margins: tuple[_Margin, _Margin, _Margin, _Margin]

    def output(self, shapes: Sequence[Shape]) -> Shape:
        height, width, channels = _map(shapes)
        above, below, left, right = self.margins
        return (height + above + below, width + left + right, channels)


class Crop(_Node):
    """Takes rows and columns away: above, below, left, right."""

    kind: Literal["crop"] = "crop"
    margins: tuple[_Margin, _Margin, _Margin, _Margin]

    def output(self, shapes: Sequence[Shape]) -> Shape:
        height, width, channels = _map(shapes)
        above, below, left, right = self.margins
        return (height - above - below, width - left - right, channels)


class Resize(_Node):
    """To this height and width; pixels are squares whose centres lie half a pixel in."""

    kind: Literal["resize"] = "resize"
    size: tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]]
    interpolation: _Interpolation = "nearest"

    def output(self, shapes: Sequence[Shape]) -> Shape:
        return (*self.size, _map(shapes)[2])


class Activation(_Node):
    kind: Literal["activation"] = "activation"
    function: Literal[
        "relu6", "selu", "gelu", "silu", "hard_silu", "mish", "sigmoid", "hard_sigmoid", "tanh", "softplus",
        "softsign", "exponential",
    ]  # fmt: skip


class Relu(_Node):
    """x above the threshold, cut at max_value; below it negative_slope * (x - threshold)."""

    kind: Literal["relu"] = "relu"
    max_value: Annotated[float, Field(gt=0, le=1e9)] | None = None
    negative_slope: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    threshold: _Number = 0.0


class Elu(_Node):
    kind: Literal["elu"] = "elu"
    alpha: _Number = 1.0


class Softmax(_Node):
    """Over the last axis."""

    kind: Literal["softmax"] = "softmax"


class Rescale(_Node):
    """scale * x + offset; one number, or one for each entry of the last axis."""

    kind: Literal["rescale"] = "rescale"
    scale: Annotated[tuple[_Number, ...], Field(min_length=1, max_length=4096)]
    offset: Annotated[tuple[_Number, ...], Field(min_length=1, max_length=4096)]

    def output(self, shapes: Sequence[Shape]) -> Shape:
        shape = _one(shapes)
        if not {len(self.scale), len(self.offset)} <= {1, shape[-1]}:
            raise ValueError(f"{max(len(self.scale), len(self.offset))} scales do not fit {shape[-1]} channels")
        return shape


class Dropout(_Node):
    """The identity, but for whoever trains the network further."""

    kind: Literal["dropout"] = "dropout"
    rate: Annotated[float, Field(ge=0, lt=1)]


class Merge(_Node):
    """Entry by entry; a side of 1 stands for all."""

    kind: Literal["merge"] = "merge"
    operation: Literal["add", "subtract", "multiply", "average", "maximum", "minimum"]

    def output(self, shapes: Sequence[Shape]) -> Shape:
        if len(shapes) < 2 or (self.operation == "subtract" and len(shapes) != 2):
            raise ValueError(f"{self.operation} cannot take {len(shapes)} inputs")
        if len({len(shape) for shape in shapes}) != 1:
            raise ValueError(f"inputs of shapes {list(shapes)} have different numbers of axes")
        merged = []
        for sides in zip(*shapes, strict=True):
            largest = max(sides)
            if not set(sides) <= {1, largest}:
                raise ValueError(f"inputs of shapes {list(shapes)} do not fit together")
            merged.append(largest)
        return tuple(merged)


class Concat(_Node):
    kind: Literal["concat"] = "concat"
    axis: Annotated[int, Field(ge=0, le=2)]
    """In Keras' order, that of the batch not counted."""

    def output(self, shapes: Sequence[Shape]) -> Shape:
        first = shapes[0]
        if self.axis >= len(first) or any(
            len(shape) != len(first)
            or shape[: self.axis] != first[: self.axis]
            or shape[self.axis + 1 :] != first[self.axis + 1 :]
            for shape in shapes
        ):
            raise ValueError(f"inputs of shapes {list(shapes)} cannot be put together along axis {self.axis + 1}")
        return (*first[: self.axis], sum(shape[self.axis] for shape in shapes), *first[self.axis + 1 :])


class Flatten(_Node):
    kind: Literal["flatten"] = "flatten"
    order: _Order = "last"

    def output(self, shapes: Sequence[Shape]) -> Shape:
        return (math.prod(_one(shapes)),)


class Reshape(_Node):
    kind: Literal["reshape"] = "reshape"
    target: Annotated[tuple[_Channels, ...], Field(min_length=1, max_length=3)]
    """In Keras' order for channels last, whatever `order` is."""
    order: _Order = "last"

    def output(self, shapes: Sequence[Shape]) -> Shape:
        if math.prod(_one(shapes)) != math.prod(self.target):
            raise ValueError(f"{_one(shapes)} cannot become {self.target}")
        return self.target


class Permute(_Node):
    """Axis i of the output is axis order[i] of the input, that of the batch not counted."""

    kind: Literal["permute"] = "permute"
    order: Annotated[tuple[Annotated[int, Field(ge=0, le=2)], ...], Field(min_length=1, max_length=3)]

    def output(self, shapes: Sequence[Shape]) -> Shape:
        shape = _one(shapes)
        if sorted(self.order) != list(range(len(shape))):
            raise ValueError(f"{self.order} is no order of {len(shape)} axes")
        return tuple(shape[axis] for axis in self.order)


Node = (
    Conv | ConvTranspose | Dense | BatchNorm | LayerNorm | PRelu | Pool | GlobalPool | Pad | Crop | Resize | Activation
    | Relu | Elu | Softmax | Rescale | Dropout | Merge | Concat | Flatten | Reshape | Permute
)  # fmt: skip


class Graph(BaseModel):
    """A network from one image to one or two outputs, the softmax or sigmoid behind them taken away.

    >>> graph = Graph(
    ...     input=(8, 8, 3),
    ...     nodes=(
    ...         Conv(name="a", inputs=("image",), weights="a", filters=4, kernel=(3, 3)),
    ...         GlobalPool(name="b", inputs=("a",), mode="average"),
    ...         Dense(name="c", inputs=("b",), weights="c", units=1),
    ...     ),
    ... )
    >>> graph.shapes["a"], graph.parameters
    ((6, 6, 4), 117)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: tuple[Annotated[int, Field(ge=1, le=2048)], Annotated[int, Field(ge=1, le=2048)], Literal[1, 3]]
    """(H, W, C) of the image."""
    nodes: Annotated[
        tuple[Annotated[Node, Field(discriminator="kind")], ...], Field(min_length=1, max_length=MAX_NODES)
    ]
    """In the order in which they are computed; the last one is the output."""
    malignant: Literal[0, 1] = 1
    """Of two outputs, which one is malignant. Of one output: 1 if it is the logit of malignant, 0 if of benign."""
    apart: bool = False
    """Two outputs are two answers, and that of malignant alone is its logit; otherwise it is their difference."""

    @model_validator(mode="after")
    def _computable(self) -> Self:
        if math.prod(self.output) not in (1, 2) or len(self.output) != 1:
            raise ValueError(f"graph: the output has the shape {self.output}, and must have one value or two")
        if self.apart and self.output != (2,):
            raise ValueError("graph: one output is not apart from others")
        used = {name for node in self.nodes for name in node.inputs}
        idle = [node.name for node in self.nodes[:-1] if node.name not in used]
        if idle:
            raise ValueError(f"graph: {idle[0]} leads nowhere")
        if sum(math.prod(shape) for shape in self.weights.values()) > MAX_PARAMETERS:
            raise ValueError(f"graph: more than {MAX_PARAMETERS:,} weights")
        return self

    @property
    def output(self) -> Shape:
        return self.shapes[self.nodes[-1].name]

    @property
    def parameters(self) -> int:
        """How many trainable values there are."""
        return sum(math.prod(shape) for name, shape in self.weights.items() if ".running_" not in name)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """What each node gives, by its name; of the image too.

        Raises:
            ValueError: nodes that do not fit together, or are beyond the limits.
        """
        shapes: dict[str, Shape] = {INPUT: self.input}
        for node in self.nodes:
            shapes[node.name] = next_shape(node, shapes)
        return shapes

    @cached_property
    def weights(self) -> Mapping[str, Shape]:
        """Shape of each tensor of weights by name, `NODE.PARAMETER`.

        Raises:
            ValueError: nodes that share weights and do not agree on their shape.
        """
        found: dict[str, Shape] = {}
        kinds: dict[str, str] = {}
        for node in self.nodes:
            if not isinstance(node, _Weighted):
                continue
            needed = node.parameters([self.shapes[name] for name in node.inputs])
            if kinds.setdefault(node.weights, node.kind) != node.kind:
                raise ValueError(f"graph: {node.name} takes the weights of another kind of layer")
            for name, shape in needed.items():
                key = f"{node.weights}.{name}"
                if found.setdefault(key, shape) != shape:
                    raise ValueError(f"graph: {node.name} shares weights of shape {found[key]}, and needs {shape}")
        return found


def next_shape(node: Node, shapes: Mapping[str, Shape]) -> Shape:
    """What a further node gives, checked against the limits.

    Args:
        node: the node.
        shapes: of the nodes before it, by name.

    Raises:
        ValueError: it does not fit, in one sentence that names it.
    """
    if node.name in shapes:
        raise ValueError(f"graph: the name {node.name} is there twice")
    missing = [name for name in node.inputs if name not in shapes]
    if missing:
        raise ValueError(f"graph: {node.name} takes {missing[0]}, which is not before it")
    if len(node.inputs) > 1 and not isinstance(node, Merge | Concat):
        raise ValueError(f"graph: {node.name} ({node.kind}) takes one input")
    try:
        shape = node.output([shapes[name] for name in node.inputs])
    except ValueError as error:
        raise ValueError(f"graph: {node.name} ({node.kind}): {error}") from None
    if min(shape) < 1:
        raise ValueError(f"graph: the images are too small: nothing is left of them at {node.name} ({node.kind})")
    if math.prod(shape) > MAX_VALUES:
        raise ValueError(f"graph: {node.name} gives {math.prod(shape):,} values, more than {MAX_VALUES:,}")
    return shape


def same_padding(side: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """What Keras' `same` adds before and after a side; the odd one goes after.

    >>> same_padding(50, 3, 2)
    (0, 1)
    """
    total = max(0, (math.ceil(side / stride) - 1) * stride + (kernel - 1) * dilation + 1 - side)
    return total // 2, total - total // 2


def _windows(side: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    if padding == "same":
        return math.ceil(side / stride)
    return (side - (kernel - 1) * dilation - 1) // stride + 1


def _one(shapes: Sequence[Shape]) -> Shape:
    (shape,) = shapes
    return shape


def _map(shapes: Sequence[Shape]) -> tuple[int, int, int]:
    shape = _one(shapes)
    if len(shape) != 3:
        raise ValueError(f"needs a map (H, W, C), and gets the shape {shape}")
    return shape[0], shape[1], shape[2]
