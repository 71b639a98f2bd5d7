"""A graph as a Keras file: the whole model as HDF5 (.h5), which Keras 2 and 3 open, or as .keras, for Keras 3.

The table WRITERS says for each kind of node which layers of Keras it is; those of one node follow each other.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clearmargin.bundle.keras.build import Array
from clearmargin.bundle.keras.weights import snake_case, to_keras
from clearmargin.files import write_whole
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
    Shape,
    Softmax,
)

OUTPUT = "probability"
_H5_VERSION, _KERAS_VERSION = "2.15.0", "3.0.0"
"""Of the formats that are written; both are read by Keras 3."""
_MAX_ATTRIBUTE_BYTES = 64512
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Step:
    """One layer of Keras: its class, its config besides the name, and its arrays in Keras' order."""

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    arrays: tuple[Array, ...] = ()


@dataclass(slots=True)
class _Layer:
    kind: str
    name: str
    config: dict[str, Any]
    calls: list[list[tuple[str, int]]]
    arrays: list[tuple[str, NDArray[np.float32]]]
    shape: Shape | None = None


def write_keras(path: Path, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
    """Writes the network with a softmax over (benign, malignant), or sigmoids, as its output.

    Args:
        path: a name that ends in .keras, or else HDF5 is written; a file that is there is replaced.
        graph: the network; it takes pixels in RGB as its image.
        tensors: its weights, by the names that `Graph.weights` has for them.
    """
    layers, shapes = _layers(graph, tensors)
    write = _write_zip if path.suffix.lower() == ".keras" else _write_h5
    write_whole(path, lambda partial: write(partial, layers, shapes))


def _layers(graph: Graph, tensors: Mapping[str, Tensor]) -> tuple[list[_Layer], dict[tuple[str, int], Shape]]:
    """The layers of Keras in their order, and the shape of what each call of each gives."""
    image = _Layer("InputLayer", INPUT, {}, [], [], graph.input)
    layers = {INPUT: image}
    values: dict[str, tuple[str, int]] = {INPUT: (INPUT, 0)}
    shapes: dict[tuple[str, int], Shape] = {(INPUT, 0): graph.input}
    shared: dict[str, str] = {}
    for node in graph.nodes:
        inputs = [graph.shapes[name] for name in node.inputs]
        taken = [values[name] for name in node.inputs]
        steps = WRITERS[type(node)](node, inputs)
        for number, step in enumerate(steps):
            last = number == len(steps) - 1
            name = node.name if last else f"{node.name}__{number + 1}"
            weights = getattr(node, "weights", None)
            if weights is not None and weights in shared and _same(layers[shared[weights]], step):
                name = shared[weights]
            elif weights is not None:
                shared.setdefault(weights, name)
            if name not in layers:
                arrays = [(each.name, to_keras(each, tensors[str(each.key)].numpy())) for each in step.arrays]
                layers[name] = _Layer(step.kind, name, dict(step.config), [], arrays)
            layers[name].calls.append(taken)
            place = (name, len(layers[name].calls) - 1)
            shapes[place] = graph.shapes[node.name]
            taken = [place]
        values[node.name] = taken[0]
    for step in _head(graph):
        name = OUTPUT if step.kind == "Activation" else f"{OUTPUT}_of_malignant"
        taken = [values[graph.nodes[-1].name]] if name not in layers else taken
        arrays = [(each.name, np.array([[0, 1], [1, 0]], np.float32)) for each in step.arrays]
        layers[name] = _Layer(step.kind, name, dict(step.config), [taken], arrays)
        shapes[name, 0] = graph.output
        values[graph.nodes[-1].name] = (name, 0)
    return _in_keras_order(layers), shapes


def _in_keras_order(layers: Mapping[str, _Layer]) -> list[_Layer]:
    """The layers as Keras will list them: it takes weights by place in this list, not by name.

    That is by depth, what is most calls away from the output first, and for one depth as a search from the output
    meets them.
    """
    met: dict[str, int] = {}
    finished: list[tuple[str, int]] = []
    stack: list[tuple[tuple[str, int], Iterator[tuple[str, int]]]] = []

    def visit(call: tuple[str, int]) -> None:
        met.setdefault(call[0], len(met))
        calls = layers[call[0]].calls
        stack.append((call, iter(calls[call[1]] if calls else ())))

    visit((OUTPUT, 0))
    seen = {(OUTPUT, 0)}
    while stack:
        call, sources = stack[-1]
        following = next((source for source in sources if source not in seen), None)
        if following is None:
            finished.append(call)
            stack.pop()
        else:
            seen.add(following)
            visit(following)
    depths: dict[tuple[str, int], int] = {}
    deepest: dict[str, int] = {}
    for call in reversed(finished):
        name, number = call
        depth = max(depths.get(call, 0), deepest.get(name, 0))
        deepest[name] = depths[call] = depth
        for source in layers[name].calls[number] if layers[name].calls else ():
            depths[source] = max(depth + 1, depths.get(source, 0))
    return sorted(layers.values(), key=lambda layer: (-deepest[layer.name], met[layer.name]))


def _head(graph: Graph) -> list[_Step]:
    """The probability, of malignant or of (benign, malignant)."""
    two = graph.output == (2,)
    turned = []
    if graph.malignant == 0:
        swap = _Step("Dense", {"units": 2, "use_bias": False, "activation": "linear"}, (Array("kernel", (2, 2), None),))
        turned = [swap if two else _Step("Rescaling", {"scale": -1.0, "offset": 0.0})]
    return [*turned, _Step("Activation", {"activation": "softmax" if two and not graph.apart else "sigmoid"})]


def _same(layer: _Layer, step: _Step) -> bool:
    return layer.kind == step.kind and layer.config == dict(step.config)


def _conv(node: Conv, inputs: Sequence[Shape]) -> list[_Step]:
    channels = inputs[0][2]
    common = {
        "kernel_size": list(node.kernel),
        "strides": list(node.strides),
        "padding": node.padding,
        "data_format": "channels_last",
        "dilation_rate": list(node.dilation),
        "activation": "linear",
        "use_bias": node.bias,
    }
    bias = _vector(node.weights, "bias", node.filters) if node.bias else ()
    if node.groups == channels > 1 and node.strides[0] == node.strides[1]:
        multiplier = node.filters // channels
        kernel = Array("depthwise_kernel", (*node.kernel, channels, multiplier), f"{node.weights}.weight", "depthwise")
        return [_Step("DepthwiseConv2D", {**common, "depth_multiplier": multiplier}, (kernel, *bias))]
    kernel = Array("kernel", (*node.kernel, channels // node.groups, node.filters), f"{node.weights}.weight", "conv")
    return [_Step("Conv2D", {**common, "filters": node.filters, "groups": node.groups}, (kernel, *bias))]


def _conv_transpose(node: ConvTranspose, inputs: Sequence[Shape]) -> list[_Step]:
    config = {
        "filters": node.filters,
        "kernel_size": list(node.kernel),
        "strides": list(node.strides),
        "padding": node.padding,
        "data_format": "channels_last",
        "activation": "linear",
        "use_bias": node.bias,
    }
    kernel = Array("kernel", (*node.kernel, node.filters, inputs[0][2]), f"{node.weights}.weight", "transposed")
    bias = _vector(node.weights, "bias", node.filters) if node.bias else ()
    return [_Step("Conv2DTranspose", config, (kernel, *bias))]


def _dense(node: Dense, inputs: Sequence[Shape]) -> list[_Step]:
    kernel = Array("kernel", (inputs[0][-1], node.units), f"{node.weights}.weight", "dense")
    bias = _vector(node.weights, "bias", node.units) if node.bias else ()
    return [_Step("Dense", {"units": node.units, "activation": "linear", "use_bias": node.bias}, (kernel, *bias))]


def _batch_norm(node: BatchNorm, inputs: Sequence[Shape]) -> list[_Step]:
    size = inputs[0][-1]
    config = {"axis": -1, "momentum": 0.99, "epsilon": node.epsilon, "center": True, "scale": True}
    names = (("gamma", "weight"), ("beta", "bias"), ("moving_mean", "running_mean"), ("moving_variance", "running_var"))
    return [_Step("BatchNormalization", config, tuple(Array(a, (size,), f"{node.weights}.{key}") for a, key in names))]


def _layer_norm(node: LayerNorm, inputs: Sequence[Shape]) -> list[_Step]:
    size = inputs[0][-1]
    config = {"axis": -1, "epsilon": node.epsilon, "center": True, "scale": True}
    arrays = (Array("gamma", (size,), f"{node.weights}.weight"), Array("beta", (size,), f"{node.weights}.bias"))
    return [_Step("LayerNormalization", config, arrays)]


def _prelu(node: PRelu, inputs: Sequence[Shape]) -> list[_Step]:
    shared = [axis + 1 for axis, (own, side) in enumerate(zip(node.shape, inputs[0], strict=True)) if own < side]
    alpha = Array("alpha", node.shape, f"{node.weights}.weight", "slopes")
    return [_Step("PReLU", {"shared_axes": shared or None}, (alpha,))]


def _pool(node: Pool, _: Sequence[Shape]) -> list[_Step]:
    config = {
        "pool_size": list(node.size),
        "strides": list(node.strides),
        "padding": node.padding,
        "data_format": "channels_last",
    }
    return [_Step("MaxPooling2D" if node.mode == "max" else "AveragePooling2D", config)]


def _global_pool(node: GlobalPool, _: Sequence[Shape]) -> list[_Step]:
    kind = "GlobalMaxPooling2D" if node.mode == "max" else "GlobalAveragePooling2D"
    return [_Step(kind, {"data_format": "channels_last", "keepdims": node.keepdims})]


def _pad(node: Pad, _: Sequence[Shape]) -> list[_Step]:
    return [_Step("ZeroPadding2D", {"padding": _sides(node.margins), "data_format": "channels_last"})]


def _crop(node: Crop, _: Sequence[Shape]) -> list[_Step]:
    return [_Step("Cropping2D", {"cropping": _sides(node.margins), "data_format": "channels_last"})]


def _sides(margins: tuple[int, int, int, int]) -> list[list[int]]:
    return [list(margins[:2]), list(margins[2:])]


def _resize(node: Resize, inputs: Sequence[Shape]) -> list[_Step]:
    (height, width), (from_height, from_width, _) = node.size, inputs[0]
    if height % from_height == 0 and width % from_width == 0:
        by = [height // from_height, width // from_width]
        return [
            _Step("UpSampling2D", {"size": by, "data_format": "channels_last", "interpolation": node.interpolation})
        ]
    return [_Step("Resizing", {"height": height, "width": width, "interpolation": node.interpolation})]


def _activation(node: Activation, _: Sequence[Shape]) -> list[_Step]:
    if node.function == "hard_sigmoid":  # Keras 2 means something else by the name
        return [_Step("Rescaling", {"scale": 1 / 6, "offset": 0.5}), _relu_step(max_value=1.0)]
    return [_Step("Activation", {"activation": node.function})]


def _relu(node: Relu, _: Sequence[Shape]) -> list[_Step]:
    return [_relu_step(max_value=node.max_value, negative_slope=node.negative_slope, threshold=node.threshold)]


def _relu_step(*, max_value: float | None, negative_slope: float = 0.0, threshold: float = 0.0) -> _Step:
    return _Step("ReLU", {"max_value": max_value, "negative_slope": negative_slope, "threshold": threshold})


def _elu(node: Elu, _: Sequence[Shape]) -> list[_Step]:
    return [_Step("ELU", {"alpha": node.alpha})]


def _softmax(_node: Softmax, _: Sequence[Shape]) -> list[_Step]:
    return [_Step("Softmax", {"axis": -1})]


def _rescale(node: Rescale, _: Sequence[Shape]) -> list[_Step]:
    scale, offset = (values[0] if len(values) == 1 else list(values) for values in (node.scale, node.offset))
    return [_Step("Rescaling", {"scale": scale, "offset": offset})]


def _dropout(node: Dropout, _: Sequence[Shape]) -> list[_Step]:
    return [_Step("Dropout", {"rate": node.rate})]


def _merge(node: Merge, _: Sequence[Shape]) -> list[_Step]:
    return [_Step(node.operation.capitalize())]


def _concat(node: Concat, _: Sequence[Shape]) -> list[_Step]:
    return [_Step("Concatenate", {"axis": node.axis + 1})]


def _flatten(node: Flatten, inputs: Sequence[Shape]) -> list[_Step]:
    return [*_turn(node.order, inputs[0]), _Step("Flatten", {"data_format": "channels_last"})]


def _reshape(node: Reshape, inputs: Sequence[Shape]) -> list[_Step]:
    turned = _turn(node.order, inputs[0])
    if node.order == "first" and len(node.target) == 3:
        height, width, channels = node.target
        return [
            *turned,
            _Step("Reshape", {"target_shape": [channels, height, width]}),
            _Step("Permute", {"dims": [2, 3, 1]}),
        ]
    return [*turned, _Step("Reshape", {"target_shape": list(node.target)})]


def _turn(order: str, shape: Shape) -> list[_Step]:
    return [_Step("Permute", {"dims": [3, 1, 2]})] if order == "first" and len(shape) == 3 else []


def _permute(node: Permute, _: Sequence[Shape]) -> list[_Step]:
    return [_Step("Permute", {"dims": [axis + 1 for axis in node.order]})]


def _vector(weights: str, name: str, size: int) -> tuple[Array, ...]:
    return (Array(name, (size,), f"{weights}.{name}"),)


WRITERS: dict[type[Node], Callable[[Any, Sequence[Shape]], list[_Step]]] = {
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    Dense: _dense,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    PRelu: _prelu,
    Pool: _pool,
    GlobalPool: _global_pool,
    Pad: _pad,
    Crop: _crop,
    Resize: _resize,
    Activation: _activation,
    Relu: _relu,
    Elu: _elu,
    Softmax: _softmax,
    Rescale: _rescale,
    Dropout: _dropout,
    Merge: _merge,
    Concat: _concat,
    Flatten: _flatten,
    Reshape: _reshape,
    Permute: _permute,
}


def _write_h5(path: Path, layers: Sequence[_Layer], _: object) -> None:
    entries = []
    for layer in layers:
        config: dict[str, Any] = {"name": layer.name, "trainable": True, "dtype": "float32", **layer.config}
        if layer.shape is not None:
            config = {
                "name": layer.name,
                "dtype": "float32",
                "batch_input_shape": [None, *layer.shape],
                "sparse": False,
            }
        calls = [[[name, call, 0, {}] for name, call in taken] for taken in layer.calls]
        entries.append({"class_name": layer.kind, "name": layer.name, "config": config, "inbound_nodes": calls})
    model = {"class_name": "Functional", "config": _model_config(entries)}
    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["keras_version"] = _H5_VERSION
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(model)
        group = file.create_group("model_weights")
        group.attrs["keras_version"] = _H5_VERSION
        group.attrs["backend"] = "tensorflow"
        _write_names(group, "layer_names", [layer.name for layer in layers])
        for layer in sorted(layers, key=lambda layer: layer.name):
            own = group.create_group(layer.name)
            names = [f"{layer.name}/{name}:0" for name, _ in layer.arrays]
            _write_names(own, "weight_names", names)
            for name, (_, values) in zip(names, layer.arrays, strict=True):
                own.create_dataset(name, data=values)


def _write_names(group: h5py.Group, key: str, names: Sequence[str]) -> None:
    """The names as Keras keeps them: cut into several attributes where one would be too long for HDF5."""
    encoded = np.array([name.encode() for name in names], dtype=bytes) if names else np.zeros(0, "S1")
    if encoded.nbytes <= _MAX_ATTRIBUTE_BYTES:
        group.attrs[key] = encoded
        return
    for number, part in enumerate(np.array_split(encoded, encoded.nbytes // _MAX_ATTRIBUTE_BYTES + 1)):
        group.attrs[f"{key}{number}"] = part


def _write_zip(path: Path, layers: Sequence[_Layer], shapes: Mapping[tuple[str, int], Shape]) -> None:
    def tensor(place: tuple[str, int]) -> dict[str, Any]:
        shape = {"shape": [None, *shapes[place]], "dtype": "float32", "keras_history": [place[0], place[1], 0]}
        return {"class_name": "__keras_tensor__", "config": shape}

    entries = []
    for layer in layers:
        config: dict[str, Any] = {"name": layer.name, "trainable": True, "dtype": "float32", **layer.config}
        if layer.shape is not None:
            config = {"name": layer.name, "dtype": "float32", "batch_shape": [None, *layer.shape], "sparse": False}
        several = layer.kind in _TAKES_SEVERAL
        calls: list[dict[str, Any]] = [
            {"args": [[tensor(each) for each in taken]] if several else [tensor(taken[0])], "kwargs": {}}
            for taken in layer.calls
        ]
        entries.append({
            "module": "keras.layers",
            "class_name": layer.kind,
            "config": config,
            "registered_name": None,
            "name": layer.name,
            "inbound_nodes": calls,
        })  # fmt: skip
    model = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": _model_config(entries),
        "registered_name": "Functional",
    }
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        numbers: dict[str, int] = {}
        for layer in layers:
            base = snake_case(layer.kind)
            number = numbers.get(base, -1) + 1
            numbers[base] = number
            group = file.create_group(f"layers/{base}" + (f"_{number}" if number else ""))
            group.attrs["name"] = layer.name
            own = group.create_group("vars")
            for place, (_, values) in enumerate(layer.arrays):
                own.create_dataset(str(place), data=values)
    metadata = {"keras_version": _KERAS_VERSION, "date_saved": "1980-01-01@00:00:00"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (
            ("metadata.json", json.dumps(metadata).encode()),
            ("config.json", json.dumps(model).encode()),
            ("model.weights.h5", content.getvalue()),
        ):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)


_TAKES_SEVERAL = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")


def _model_config(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ends: list[Any] = [[INPUT, 0, 0], [OUTPUT, 0, 0]]
    return {
        "name": "clearmargin",
        "trainable": True,
        "layers": list(entries),
        "input_layers": [ends[0]],
        "output_layers": [ends[1]],
    }
