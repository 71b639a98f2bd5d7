"""What an ONNX file of a bundle may hold, checked before ONNX Runtime sees a byte of it.

Hashes protect from damage, not from someone who writes them anew. So a network is held to what our own exports write:
one flat graph of operators of ONNX itself, from `images` to `logits` and perhaps `features`, all of its weights
inside. Refused are operators of other domains (which can call Python or other libraries), functions, subgraphs, weights
in other files, sparse tensors, tensors that say to be larger than they are, and constants that ask for memory without
end. What a network asks for while it runs is bounded by `runtime.py`.

`OPERATORS` was made by exporting, with torch 2.13: every entry of MODELS, ensembles of them, 50 networks of timm
(ResNet, VGG, DenseNet, EfficientNet, NFNet, ConvNeXt, ViT, Swin, MobileViT, LeViT, CoAtNet, Mixer, FastViT and others),
and a network around each layer, activation, padding, pooling, resizing, reduction and indexing of torch that an
imported one may need; and by adding a few near relations of what came out, which other versions of the exporter write.
Each export is checked when it is made, so that what is not listed stops there. Left out on purpose: what runs subgraphs
(If, Loop, Scan), what makes sequences, texts or random numbers, and quantised and complex arithmetic.

The reader is our own (`wire.py`): importing `onnx` takes 0.1 s and 12 MB of a cold start of 0.3 s and 94 MB.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clearmargin.bundle.wire import FIXED_32, VARINT, Field, WireError, read_message
from clearmargin.errors import BundleError

OPERATORS = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip",
    "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace", "Div",
    "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
    "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GroupNormalization",
    "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mish", "Mod",
    "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow", "RMSNormalization", "Range", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Slice",
    "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh",
    "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where",
})  # fmt: skip
OPSETS = range(13, 29)
INPUT, OUTPUTS = "images", ("logits", "features")

_MAX_NODES = 200_000
_MAX_TENSORS = 200_000
_MAX_SIDE = 4096
_MAX_FEATURES = 2**20
_MAX_NUMBER = 2**16
"""Of an attribute such as strides or padding."""
_MAX_ELEMENTS = 2**28
"""Of what one constant asks for, 1 GiB."""
_MAX_SMALL = 64
"""Elements of a constant that can be a shape."""
_SHOWN = 60

_FLOAT, _UINT8, _INT32, _INT64, _BOOL, _FLOAT16, _DOUBLE = 1, 2, 6, 7, 9, 10, 11
_ITEM_BYTES = {_FLOAT: 4, _UINT8: 1, _INT32: 4, _INT64: 8, _BOOL: 1, _FLOAT16: 2, _DOUBLE: 8}

_MODEL = {
    1: Field("ir_version", VARINT),
    2: Field(""), 3: Field(""), 4: Field(""), 5: Field("", VARINT), 6: Field(""), 14: Field(""),
    7: Field("graph"),
    8: Field("opset_import", many=True),
    20: Field("", refused="a part for training"),
    25: Field("", refused="functions of its own"),
    26: Field("", refused="a configuration of devices"),
}  # fmt: skip
_OPSET = {1: Field("domain"), 2: Field("version", VARINT)}
_GRAPH = {
    1: Field("node", many=True),
    2: Field(""), 10: Field(""), 16: Field(""),
    5: Field("initializer", many=True),
    11: Field("input", many=True),
    12: Field("output", many=True),
    13: Field("value_info", many=True),
    14: Field("", refused="a quantisation"),
    15: Field("", refused="a sparse tensor"),
}  # fmt: skip
_NODE = {
    1: Field("input", many=True),
    2: Field("output", many=True),
    3: Field(""), 6: Field(""), 9: Field(""),
    4: Field("op_type"),
    5: Field("attribute", many=True),
    7: Field("domain"),
    8: Field("", refused="an operator with an overload"),
    10: Field("", refused="a configuration of devices"),
}  # fmt: skip
_SUBGRAPH = "a graph within the graph (as If, Loop and Scan have)"
_ATTRIBUTE = {
    1: Field("name"),
    2: Field("f", FIXED_32),
    3: Field("i", VARINT),
    4: Field("s"),
    5: Field("t"),
    6: Field("", refused=_SUBGRAPH),
    7: Field("", FIXED_32, many=True),
    8: Field("ints", VARINT, many=True),
    9: Field("", many=True),
    10: Field("", refused="an attribute of several tensors"),
    11: Field("", refused=_SUBGRAPH),
    13: Field(""),
    14: Field("", refused="an attribute that is a type"),
    15: Field("", refused="an attribute that is a type"),
    20: Field("type", VARINT),
    21: Field("", refused="an attribute of a function"),
    22: Field("", refused="a sparse tensor"),
    23: Field("", refused="a sparse tensor"),
}
_EXTERNAL = "weights that lie in another file"
_TENSOR = {
    1: Field("dims", VARINT, many=True),
    2: Field("data_type", VARINT),
    3: Field("", refused="a tensor in segments"),
    4: Field("float_data"),
    5: Field("int32_data", VARINT, many=True),
    6: Field("", refused="a tensor of texts"),
    7: Field("int64_data", VARINT, many=True),
    8: Field("name"),
    9: Field("raw_data"),
    10: Field("double_data"),
    11: Field("", refused="a tensor of unsigned numbers"),
    12: Field(""),
    13: Field("", refused=_EXTERNAL),
    14: Field("data_location", VARINT),
    16: Field(""),
}
_VALUE = {1: Field("name"), 2: Field("type"), 3: Field(""), 4: Field("")}
_TYPE = {
    1: Field("tensor"),
    4: Field("", refused="a value that is no tensor"),
    5: Field("", refused="a value that is no tensor"),
    6: Field(""),
    8: Field("", refused="a sparse tensor"),
    9: Field("", refused="a value that is no tensor"),
}
_TENSOR_TYPE = {1: Field("elem_type", VARINT), 2: Field("shape")}
_SHAPE = {1: Field("dim", many=True)}
_DIMENSION = {1: Field("value", VARINT), 2: Field("param"), 3: Field("")}

_ASKING: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "Range": (0, 1, 2), "Pad": (1,), "Resize": (2, 3),
}  # fmt: skip
"""Operators whose result is as large as an input says, and which input that is."""

_Shape = list[int | None]


@dataclass(frozen=True, slots=True)
class CheckedNetwork:
    """An ONNX file that holds nothing but what our exports hold; `name` is for messages."""

    content: bytes
    name: str
    image_shape: tuple[int, int, int]
    """(H, W, C) of the images that it takes."""
    outputs: tuple[str, ...]
    """`logits`, and `features` where it gives them; files of early versions do not."""


def check_onnx(content: bytes, name: str) -> CheckedNetwork:
    """The network, which is one such as our exports are.

    Args:
        content: of the file.
        name: of the file, for messages.

    Raises:
        BundleError: it is none; says what it holds that it may not.
    """
    try:
        return CheckedNetwork(content, name, *_check_model(memoryview(content)))
    except WireError as error:
        raise BundleError(f"{name}: refused, since it {error}. Do not trust this file; make the bundle anew.") from None


def _check_model(data: memoryview) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """The shape of an image, and the names of the outputs."""
    model = read_message(data, _MODEL)
    if "graph" not in model or not model["opset_import"]:
        raise WireError("is no ONNX network")
    opsets = [read_message(each, _OPSET) for each in model["opset_import"]]
    for opset in opsets:
        if domain := bytes(opset.get("domain", b"")):
            raise WireError(f"takes operators from '{_text(domain)}', not from ONNX alone")
        if opset.get("version") not in OPSETS:
            raise WireError(f"is of opset {opset.get('version')}, not of {OPSETS.start} to {OPSETS.stop - 1}")
    if len(opsets) != 1:
        raise WireError("names several versions of the operators")
    return _check_graph(read_message(model["graph"], _GRAPH))


def _check_graph(graph: dict[str, Any]) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    if len(graph["node"]) > _MAX_NODES or len(graph["initializer"]) > _MAX_TENSORS:
        raise WireError(f"has more than {_MAX_NODES:,} operators or tensors")
    constants: dict[bytes, list[int | float]] = {}
    names: set[bytes] = set()
    for each in graph["initializer"]:
        tensor = read_message(each, _TENSOR)
        name = bytes(tensor.get("name", b""))
        if name in names:
            raise WireError(f"has two tensors called '{_text(name)}'")
        names.add(name)
        constants[name] = _check_tensor(tensor)
    for each in graph["node"]:
        _check_node(read_message(each, _NODE), constants)
    for each in graph["value_info"]:
        _read_value(each)
    values = ([_read_value(each) for each in graph[side]] for side in ("input", "output"))
    return _check_signature(*values)


def _check_node(node: dict[str, Any], constants: dict[bytes, list[int | float]]) -> None:
    kind, domain = _text(node.get("op_type", b"")), node.get("domain", b"")
    if len(domain):
        raise WireError(f"holds the operator '{kind}' of '{_text(domain)}', which is not one of ONNX")
    if kind not in OPERATORS:
        raise WireError(f"holds the operator '{kind}', which no network of ours has")
    for each in node["attribute"]:
        attribute = read_message(each, _ATTRIBUTE)
        if "t" in attribute:
            values = _check_tensor(read_message(attribute["t"], _TENSOR))
            if kind == "Constant" and len(node["output"]) == 1:
                constants[bytes(node["output"][0])] = values
        numbers = [*attribute["ints"], *([attribute["i"]] if "i" in attribute else [])]
        if not all(-_MAX_NUMBER <= number <= _MAX_NUMBER for number in numbers) and kind != "Constant":
            raise WireError(f"holds an operator '{kind}' with a number beyond {_MAX_NUMBER:,}")
    inputs = node["input"]
    asked = [constants.get(bytes(inputs[place])) for place in _ASKING.get(kind, ()) if place < len(inputs)]
    if any(values and _is_too_much(kind, values) for values in asked):
        raise WireError(f"holds an operator '{kind}' that asks for more than {_MAX_ELEMENTS:,} values")


def _is_too_much(kind: str, values: Iterable[int | float]) -> bool:
    """What a constant input says of the size of the result is beyond any network of ours."""
    sizes = [abs(value) for value in values]
    if not all(math.isfinite(size) for size in sizes):
        return True
    if kind in ("Range", "Pad"):
        return max(sizes, default=0) > (_MAX_ELEMENTS if kind == "Range" else _MAX_NUMBER)
    return math.prod(max(1, size) for size in sizes) > _MAX_ELEMENTS


def _check_tensor(tensor: dict[str, Any]) -> list[int | float]:
    """The values of a tensor that is small enough to be a shape, none of another."""
    kind, dims = tensor.get("data_type"), tensor["dims"]
    if tensor.get("data_location"):
        raise WireError(f"holds {_EXTERNAL}")
    if kind not in _ITEM_BYTES:
        raise WireError(f"holds a tensor of a kind ({kind}) that no network of ours has")
    if any(side < 0 for side in dims) or len(dims) > 8:
        raise WireError("holds a tensor of an impossible shape")
    elements = math.prod(dims)
    written = {
        "raw_data": len(tensor.get("raw_data", b"")) / _ITEM_BYTES[kind],
        "float_data": len(tensor.get("float_data", b"")) / 4,
        "double_data": len(tensor.get("double_data", b"")) / 8,
        "int32_data": len(tensor["int32_data"]),
        "int64_data": len(tensor["int64_data"]),
    }
    there = {name: count for name, count in written.items() if count}
    if len(there) > 1 or sum(there.values()) != elements:
        raise WireError(f"holds a tensor that says to have {elements:,} values and does not")
    own = {_FLOAT: "float_data", _DOUBLE: "double_data", _INT64: "int64_data"}.get(kind, "int32_data")
    if not set(there) <= {"raw_data", own}:
        raise WireError("holds a tensor whose values are of another kind than it says")
    return _values(tensor, kind, elements) if elements <= _MAX_SMALL else []


def _values(tensor: dict[str, Any], kind: int, elements: int) -> list[int | float]:
    if kind == _INT64:
        return tensor["int64_data"] or list(struct.unpack(f"<{elements}q", tensor.get("raw_data", b"")))
    if kind == _FLOAT:
        return list(struct.unpack(f"<{elements}f", tensor.get("raw_data") or tensor.get("float_data", b"")))
    return []


def _read_value(data: memoryview) -> tuple[str, int | None, _Shape | None]:
    """Name, kind and shape of a value, which must be a tensor; None where they are not said."""
    value = read_message(data, _VALUE)
    kind = shape = None
    if "type" in value:
        described = read_message(value["type"], _TYPE)
        tensor = read_message(described["tensor"], _TENSOR_TYPE) if "tensor" in described else {}
        kind = tensor.get("elem_type")
        if "shape" in tensor:
            dims = [read_message(each, _DIMENSION) for each in read_message(tensor["shape"], _SHAPE)["dim"]]
            shape = [None if "param" in dim else dim.get("value") for dim in dims]
    return _text(value.get("name", b"")), kind, shape


def _check_signature(
    inputs: list[tuple[str, int | None, _Shape | None]], outputs: list[tuple[str, int | None, _Shape | None]]
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    match inputs:
        case [(str(taken), kind, [None, int(height), int(width), int(channels)])]:
            shape = (height, width, channels)
            taken_rightly = taken == INPUT and kind == _UINT8 and channels in (1, 3)
            right = taken_rightly and 0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE
        case _:
            shape, right = (0, 0, 0), False
    names, ranks = tuple(name for name, _, _ in outputs), [shape and len(shape) for _, _, shape in outputs]
    right = right and names in (OUTPUTS[:1], OUTPUTS) and all(kind == _FLOAT for _, kind, _ in outputs)
    if not right or ranks != [1, 2][: len(outputs)]:
        raise WireError(
            "is not a network from uint8 images (B, H, W, C) called 'images' to 'logits' (B,) and perhaps "
            "'features' (B, D)"
        )
    width_of_features = outputs[1][2][1] if len(outputs) == 2 and outputs[1][2] is not None else 1
    if width_of_features is not None and not 0 < width_of_features <= _MAX_FEATURES:
        raise WireError(f"gives features that are not 1 to {_MAX_FEATURES:,} numbers")
    return shape, names


def _text(data: bytes | memoryview) -> str:
    """As much of a foreign name as a message repeats."""
    return bytes(data[:_SHOWN]).decode("utf-8", errors="backslashreplace")
