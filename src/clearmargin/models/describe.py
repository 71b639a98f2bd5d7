"""What a model is made of: its layers in the order that an image passes them, with shapes, parameters and costs.

Everything is found by passing one black image, so it holds for any model, whatever it is built of; the layers of an
imported graph, which says what it is, are its nodes. Multiply-adds are
those of convolutions and matrix products (dense layers and attention among them), as papers count them: biases, norms,
activations and pools are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from clearmargin.errors import counted
from clearmargin.graph import Graph, Shape
from clearmargin.models.contract import Classifier, count_parameters
from clearmargin.models.ensemble import Ensemble
from clearmargin.models.graph import GraphClassifier
from clearmargin.models.graph_layers import node_edges, node_multiply_adds, node_parameters, node_words
from clearmargin.models.trace import MERGES, Operation, Step, Trace

_TWO_OUTPUTS = "difference of the two outputs"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, or an operation between layers, of one image.

    `name` is the module's (`features.3.conv1`), or that of the module that computes it and a word (`features.3.add`).
    `kind` is what it is (`convolution`), `detail` how (`3×3, stride 2, 64`). `shape` is the output's without the batch:
    (C, H, W), or (N,) of a dense layer, () of the logit. `parameters` are counted where they are first used,
    `multiply_adds` at each use. `block` is the module in which branches meet and this stands, "" outside of any.
    """

    name: str
    kind: str
    detail: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    block: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """The layers of a model, the image first and the logit last, and which takes what.

    `edges` are (from, to) as indices of `layers`. Of an ensemble the layers are those of one of its `networks`, which
    are alike; the totals below are of all of them. `values` counts what the file of weights holds: parameters and
    running statistics, `weight_bytes` what that takes. `multiply_adds` are for one image.
    """

    layers: tuple[Layer, ...]
    edges: tuple[tuple[int, int], ...]
    networks: int
    trainable: int
    parameters: int
    values: int
    weight_bytes: int
    multiply_adds: int


def describe_model(model: Classifier, shape: tuple[int, int, int]) -> Description:
    """The layers, connections and costs of the model for images of the shape.

    The model is left as it was; nothing is trained or changed.

    Args:
        model: any.
        shape: (H, W, C) of the images.
    """
    networks = len(model.members) if isinstance(model, Ensemble) else 1
    one = model.members[0] if isinstance(model, Ensemble) else model
    if isinstance(one, GraphClassifier):
        layers = _graph_layers(one.graph)
        return _describe(model, layers, node_edges(one.graph), networks, sum(each.multiply_adds for each in layers))
    parameter = next(model.parameters(), torch.zeros(0))
    image = torch.zeros(1, shape[2], shape[0], shape[1], dtype=parameter.dtype, device=parameter.device)
    training = {module: module.training for module in one.modules()}
    one.eval()
    try:
        trace = Trace(one).run(image)
    finally:
        for module, was in training.items():
            module.training = was
    multiply_adds = sum(step.multiply_adds for step in trace.steps)
    return _describe(model, _layers(trace, networks), _edges(trace), networks, multiply_adds)


def _describe(
    model: Classifier,
    layers: tuple[Layer, ...],
    edges: tuple[tuple[int, int], ...],
    networks: int,
    multiply_adds: int,
) -> Description:
    state = model.state_dict().values()
    return Description(
        layers=layers,
        edges=edges,
        networks=networks,
        trainable=count_parameters(model),
        parameters=sum(each.numel() for each in model.parameters()),
        values=sum(each.numel() for each in state if each.is_floating_point()),
        weight_bytes=sum(each.numel() * each.element_size() for each in state),
        multiply_adds=networks * multiply_adds,
    )


def _graph_layers(graph: Graph) -> tuple[Layer, ...]:
    shapes, parameters = graph.shapes, node_parameters(graph)
    layers = [Layer("input", "image", "", _channels_first(graph.input), 0, 0)]
    for node in graph.nodes:
        inputs, shape = [shapes[name] for name in node.inputs], shapes[node.name]
        kind, detail = node_words(node, inputs[0][-1])
        cost = node_multiply_adds(node, inputs, shape)
        layers.append(Layer(node.name, kind, detail, _channels_first(shape), parameters[node.name], cost))
    notes = _TWO_OUTPUTS if graph.output == (2,) and not graph.apart else ""
    return (*layers, Layer("output", "logit", notes, (), 0, 0))


def _channels_first(shape: Shape) -> tuple[int, ...]:
    return (shape[2], *shape[:2]) if len(shape) == 3 else tuple(shape)


def _layers(trace: Trace, networks: int) -> tuple[Layer, ...]:
    names = _names(trace.steps)
    blocks = {step.path for step in trace.steps if _meets(step) and step.path}
    passed: set[nn.Module] = set()
    layers = []
    for step, name in zip(trace.steps, names, strict=True):
        kind, detail = _words(step.what, step.shape)
        block = min((each for each in blocks if f"{step.path}.".startswith(f"{each}.")), key=len, default="")
        if _meets(step):
            detail = " and ".join(names[source].removeprefix(f"{step.path}.") for source in sorted(step.inputs))
        elif isinstance(step.what, nn.Module):
            detail = ", ".join(filter(None, (detail, "again" if step.what in passed else "")))
            passed.add(step.what)
        layers.append(Layer(name, kind, detail, _of_one(step.shape), step.parameters, step.multiply_adds, block))
    notes = []
    if _of_one(trace.steps[max(trace.output, default=0)].shape) == (2,):
        notes.append(_TWO_OUTPUTS)
    if networks > 1:
        notes.append(f"mean of {networks} networks")
    if trace.unused:
        text = counted(trace.unused, "parameter that no image passes", "parameters that no image passes")
        layers.append(Layer("unused", "unused", text, (), trace.unused, 0))
    return (*layers, Layer("output", "logit", ", ".join(notes), (), 0, 0))


def _edges(trace: Trace) -> tuple[tuple[int, int], ...]:
    last = len(trace.steps) + bool(trace.unused)
    pairs = [(source, number) for number, step in enumerate(trace.steps) for source in sorted(step.inputs)]
    return (*pairs, *((source, last) for source in sorted(trace.output)))


def _meets(step: Step) -> bool:
    return isinstance(step.what, Operation) and step.what.name in MERGES and len(step.inputs) > 1


def _names(steps: list[Step]) -> list[str]:
    """A name of its own for each step; a layer that is passed again keeps its name."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for step in steps:
        if isinstance(step.what, nn.Module) or step.what.name == "input":
            names.append(step.path or type(step.what).__name__)
            continue
        word = _OPERATIONS.get(step.what.name, step.what.name.strip("_")).replace(" ", "_")
        name = f"{step.path}.{word}" if step.path else word
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def _of_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the batch, where that is still the first axis."""
    return shape[1:] if shape[:1] == (1,) else shape


_OPERATIONS: Mapping[str, str] = {
    "_adaptive_avg_pool2d": "mean pool", "_batch_norm_impl_index": "batch norm",
    "_native_batch_norm_legit_no_training": "batch norm", "_softmax": "softmax", "adaptive_max_pool2d": "max pool",
    "addmm": "product", "addmv": "product", "amax": "max", "avg_pool1d": "mean pool", "avg_pool2d": "mean pool",
    "baddbmm": "product", "bmm": "product", "cat": "concatenate", "cudnn_batch_norm": "batch norm", "div": "divide",
    "dot": "product", "elu": "ELU", "gelu": "GELU", "hardtanh": "clamp", "max_pool1d": "max pool",
    "max_pool2d_with_indices": "max pool", "mm": "product", "mul": "multiply", "mv": "product",
    "native_batch_norm": "batch norm", "native_group_norm": "group norm", "native_layer_norm": "layer norm",
    "relu": "ReLU", "relu6": "ReLU", "silu": "SiLU", "sub": "subtract", "upsample_bicubic2d": "resize",
    "upsample_bilinear2d": "resize", "upsample_nearest2d": "resize",
}  # fmt: skip


def _words(what: nn.Module | Operation, shape: tuple[int, ...]) -> tuple[str, str]:
    """Kind and detail."""
    if isinstance(what, Operation):
        return _operation_words(what)
    match what:
        case nn.modules.conv._ConvNd():
            return _convolution_words(what)
        case nn.Linear():
            return "dense", f"{what.out_features}"
        case nn.modules.batchnorm._NormBase():
            return "batch norm", ""
        case nn.LayerNorm():
            return "layer norm", ""
        case nn.GroupNorm():
            return "group norm", counted(what.num_groups, "group", "groups")
        case nn.MaxPool1d() | nn.MaxPool2d() | nn.AvgPool1d() | nn.AvgPool2d():
            kind = "max pool" if isinstance(what, nn.MaxPool1d | nn.MaxPool2d) else "mean pool"
            return kind, _window(what.kernel_size, what.stride, dimensions=len(shape) - 2)
        case nn.AdaptiveAvgPool1d() | nn.AdaptiveAvgPool2d():
            return "mean pool", "global" if set(shape[2:]) == {1} else "adaptive"
        case nn.AdaptiveMaxPool1d() | nn.AdaptiveMaxPool2d():
            return "max pool", "global" if set(shape[2:]) == {1} else "adaptive"
        case nn.Flatten():
            return "flatten", ""
    rate = getattr(what, "p", getattr(what, "drop_prob", None))
    if "Drop" in type(what).__name__ and isinstance(rate, float | int):
        return "dropout", f"{rate:g}"
    return type(what).__name__, ""


def _convolution_words(layer: nn.modules.conv._ConvNd) -> tuple[str, str]:
    parts = [_window(layer.kernel_size, layer.stride, usual=(1,) * len(layer.stride))]
    if set(layer.dilation) != {1}:
        parts.append(f"dilation {_each(layer.dilation)}")
    parts.append(f"{layer.out_channels}")
    kind = "transposed convolution" if layer.transposed else "convolution"
    if layer.groups == layer.in_channels > 1:
        kind = f"depthwise {kind}"
    elif layer.groups > 1:
        parts.append(f"{layer.groups} groups")
    return kind, ", ".join(parts)


def _operation_words(operation: Operation) -> tuple[str, str]:
    name, arguments = operation.name, operation.arguments
    kind = _OPERATIONS.get(name, name.strip("_"))
    if name == "input":
        return "image", ""
    if name.startswith("_scaled_dot_product"):
        return "attention", counted(arguments[0][1], "head", "heads")
    if name in ("convolution", "_convolution"):
        kernel = arguments[1]
        return "convolution", f"{_window(kernel[2:], arguments[3], usual=(1,) * (len(kernel) - 2))}, {kernel[0]}"
    if kind in ("max pool", "mean pool") and not name.lstrip("_").startswith("adaptive"):
        return kind, _window(arguments[1], arguments[2] if len(arguments) > 2 and arguments[2] else arguments[1])
    if name == "mean" and len(arguments) > 1 and len(arguments[0]) == 4 and len(arguments[1]) == 2:
        return "mean pool", "global"
    return kind, ""


def _window(kernel: object, stride: object, *, usual: object = None, dimensions: int = 2) -> str:
    """Size and stride of a sliding window, the latter where it is not the usual one: a pool's own size, else 1.

    >>> _window((3, 3), (2, 2), usual=(1, 1)), _window(2, 2), _window(3, 2)
    ('3×3, stride 2', '2×2', '3×3, stride 2')
    """
    sizes, steps = _spread(kernel, dimensions), _spread(stride, dimensions)
    size = "×".join(map(str, sizes))
    return size if steps == (sizes if usual is None else usual) else f"{size}, stride {_each(steps)}"


def _spread(value: object, dimensions: int) -> tuple[int, ...]:
    return (value,) * dimensions if isinstance(value, int) else tuple(value)  # type: ignore[arg-type]  # torch's sizes


def _each(values: tuple[int, ...]) -> str:
    return f"{values[0]}" if len(set(values)) == 1 else "×".join(map(str, values))
