"""From the description of a model to a graph: inputs, nested models, shared layers, and what the last layer means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from clearmargin.bundle.keras.build import Array, Builder, Call, Place
from clearmargin.bundle.keras.configs import Layer, Model
from clearmargin.bundle.keras.layers import read_layer
from clearmargin.errors import DataError, one_line
from clearmargin.graph import (
    INPUT,
    Activation,
    Conv,
    Dropout,
    Elu,
    Flatten,
    Graph,
    Node,
    Pad,
    Relu,
    Rescale,
    Reshape,
    Shape,
    Softmax,
)

Head = Literal["sigmoid", "sigmoids", "softmax", "linear"]
"""`sigmoids` are two outputs, each with a sigmoid of its own."""

_DEPTH = 20
_FORMATS = {"channels_first": "first", "th": "first", "channels_last": "last", "tf": "last"}
_SQUASHING = (Softmax, Activation, Relu, Elu)
_THROUGH = (Dropout, Flatten, Reshape)


@dataclass(frozen=True, slots=True)
class Converted:
    """A graph without its weights: `arrays` says where they are in the file, `constants` which are not in it."""

    graph: Graph
    head: Head
    arrays: Mapping[Place, Sequence[Array]]
    constants: Mapping[str, tuple[Shape, float]]
    channels_first: bool
    rescaling: Rescale | None
    """What the file's network begins with, where that is a rescaling of the pixels."""


def convert_model(
    model: Model,
    path: Path,
    *,
    keras: tuple[int, int],
    tf_keras: bool = False,
    size: tuple[int, int] | None = None,
    bgr: bool = False,
    malignant: Literal[0, 1] = 1,
    rescale: tuple[float, float] | None = None,
) -> Converted:
    """The graph of a described model.

    Args:
        model: as read.
        path: for messages.
        keras: the version that wrote the file, as far as is known.
        tf_keras: the version is one of TensorFlow's own Keras.
        size: (width, height) for a model that takes any, or to confirm its own.
        bgr: its channels are blue, green, red.
        malignant: the output that is malignant.
        rescale: (scale, offset) to be applied to the pixels inside of the network.

    Raises:
        DataError: a layer that is not known, or another kind of model than one from an image to benign or malignant.
    """
    order = _channel_order(model, path)
    half_pixel = tf_keras or keras >= (2, 3)
    builder = Builder(path, order, keras[0], half_pixel)
    shape = _input_shape(model, path, order=order, size=size)
    builder.shapes[INPUT] = shape
    start = INPUT
    if rescale is not None:
        start = builder.add(Rescale, [start], "scale", scale=(rescale[0],), offset=(rescale[1],))
    if bgr:
        start = _turn_channels(builder, start, shape)
    outputs = _run(builder, model, [start], (), 0)
    if len(outputs) != 1:
        raise DataError(f"{path}: the model has {len(outputs)} outputs; one that says benign or malignant is needed.")
    nodes, head = _take_head(builder, outputs[0])
    try:
        graph = Graph(input=shape, nodes=tuple(nodes), malignant=malignant, apart=head == "sigmoids")
    except ValidationError as error:
        raise DataError(f"{path}: {error.errors()[0]['msg'].removeprefix('Value error, graph: ')[:200]}.") from None
    used = set(graph.weights)
    arrays = {place: each for place, each in builder.arrays.items() if any(array.key in used for array in each)}
    constants = {key: value for key, value in builder.constants.items() if key in used}
    first = next((node for node in graph.nodes if node.inputs == (start,)), None)
    rescaling = first if isinstance(first, Rescale) else None
    return Converted(graph, head, arrays, constants, order == "first", rescaling)


def _run(builder: Builder, model: Model, inputs: list[str], scope: Place, depth: int) -> list[str]:
    """The outputs of the model, called on `inputs`."""
    if depth > _DEPTH:
        raise DataError(f"{builder.path}: models lie more than {_DEPTH} deep in each other.")
    if model.sequential:
        for layer in model.layers:
            if layer.kind != "InputLayer":
                inputs = _call(builder, layer, inputs, scope, depth)
        return inputs
    if len(model.inputs) != len(inputs):
        raise DataError(
            f"{builder.path}: the model '{one_line(model.name)}' takes {len(model.inputs)} inputs; one image is what "
            "can be given."
        )
    values: dict[tuple[str, int], list[str]] = {
        (source[0], source[1]): [name] for source, name in zip(model.inputs, inputs, strict=True)
    }
    waiting = [
        (layer, number, sources)
        for layer in model.layers
        if layer.kind != "InputLayer"
        for number, sources in enumerate(layer.calls)
    ]
    _skip_calls_outside(model, values, waiting)
    while waiting:
        ready = [each for each in waiting if all(source[:2] in values for source in each[2])]
        if not ready:
            raise DataError(
                f"{builder.path}: the layers of '{one_line(model.name)}' go round in a circle, or lead from nowhere."
            )
        for layer, number, sources in ready:
            taken = [_pick(builder, values[source[:2]], source) for source in sources]
            values[layer.name, number] = _call(builder, layer, taken, scope, depth)
        done = {(layer.name, number) for layer, number, _ in ready}
        waiting = [each for each in waiting if (each[0].name, each[1]) not in done]
    missing = [source for source in model.outputs if source[:2] not in values]
    if missing:
        raise DataError(f"{builder.path}: the output '{one_line(missing[0][0])}' is not computed. The file is damaged.")
    return [_pick(builder, values[source[:2]], source) for source in model.outputs]


def _skip_calls_outside(
    model: Model, values: Mapping[tuple[str, int], object], waiting: list[tuple[Layer, int, tuple[Any, ...]]]
) -> None:
    """Renumbers calls of a layer that was used outside of this model before, as Keras 2 counted those too."""
    wanted = {source[:2] for each in waiting for source in each[2]} | {source[:2] for source in model.outputs}
    for layer in model.layers:
        numbers = sorted(number for name, number in wanted if name == layer.name)
        if layer.kind == "InputLayer" or len(layer.calls) != len(numbers) or not numbers:
            continue
        if numbers != list(range(len(numbers))) and (layer.name, numbers[0]) not in values:
            for place, (other, number, sources) in enumerate(waiting):
                if other is layer:
                    waiting[place] = (layer, numbers[number], sources)


def _pick(builder: Builder, outputs: Sequence[str], source: tuple[str, int, int]) -> str:
    if not 0 <= source[2] < len(outputs):
        raise DataError(f"{builder.path}: '{one_line(source[0])}' has no output {source[2]}. The file is damaged.")
    return outputs[source[2]]


def _call(builder: Builder, layer: Layer, inputs: list[str], scope: Place, depth: int) -> list[str]:
    place = (*scope, layer.name)
    if layer.model is not None:
        return _run(builder, layer.model, inputs, place, depth + 1)
    if not inputs:
        raise DataError(f"{builder.path}: the layer '{one_line(layer.name)}' takes nothing. The file is damaged.")
    return [read_layer(Call(builder, layer, place, tuple(inputs)))]


def _channel_order(model: Model, path: Path) -> Literal["last", "first"]:
    found = {
        _FORMATS.get(str(value), "other")
        for layer in model.walk()
        if layer.kind not in ("Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D")
        for value in (layer.config.get("data_format"), layer.config.get("dim_ordering"))
        if value not in (None, "default")
    }
    if found <= {"last"}:
        return "last"
    if found == {"first"}:
        return "first"
    raise DataError(f"{path}: some layers have the channels first and others last, which is not supported.")


def _input_shape(
    model: Model, path: Path, *, order: Literal["last", "first"], size: tuple[int, int] | None
) -> tuple[int, int, Literal[1, 3]]:
    given = _declared_shape(model, path)
    sides = list(given) if order == "last" else [*given[1:], *given[:1]]
    if len(sides) != 3 or sides[2] not in (1, 3):
        raise DataError(
            f"{path}: the model takes inputs of shape {tuple(given)}; an image of three channels or one, "
            "(height, width, 3), is what can be given."
        )
    wanted = (None, None) if size is None else (size[1], size[0])
    height, width = (own if own is not None else side for own, side in zip(wanted, sides, strict=False))
    if height is None or width is None:
        raise DataError(f"{path}: the model takes images of any size; say which with --size WIDTH,HEIGHT.")
    if any(side not in (None, own) for side, own in zip(sides, (height, width), strict=False)):
        raise DataError(f"{path}: the model takes images of {sides[1]}×{sides[0]} pixels, not of {width}×{height}.")
    if not (4 <= height <= 2048 and 4 <= width <= 2048):
        raise DataError(f"{path}: the model takes images of {width}×{height} pixels; 4 to 2,048 a side can be given.")
    return height, width, 3 if sides[2] == 3 else 1


def _declared_shape(model: Model, path: Path) -> Sequence[int | None]:
    here: Model | None = model
    while here is not None:
        if not here.sequential and len(here.inputs) != 1:
            raise DataError(f"{path}: the model takes {len(here.inputs)} inputs; one image is what can be given.")
        layer = (
            here.layers[0]
            if here.sequential
            else next((each for each in here.layers if each.name == here.inputs[0][0]), None)
        )
        if layer is None:
            break
        config = layer.config
        shape = config.get("batch_input_shape") or config.get("batch_shape")
        if shape is None and isinstance(config.get("input_shape") or config.get("shape"), list):
            shape = [None, *(config.get("input_shape") or config["shape"])]
        if shape is None and layer.model is None:
            shape = here.build_shape
        if (
            isinstance(shape, list)
            and 2 <= len(shape) <= 8
            and all(each is None or type(each) is int for each in shape)
        ):
            return shape[1:]
        here = layer.model
    raise DataError(f"{path}: the model does not say what it takes; save it after it was called or built.")


def _turn_channels(builder: Builder, start: str, shape: Shape) -> str:
    """Blue, green, red from red, green, blue: a convolution of 1 x 1 whose kernel is a permutation."""
    if shape[2] != 3:
        raise DataError(
            f"{builder.path}: the model takes grey images, which have no order of channels. Omit --channels."
        )
    return builder.add(Conv, [start], "bgr", weights=builder.weights(("bgr",)), filters=3, kernel=(1, 1), bias=False)


def _take_head(builder: Builder, output: str) -> tuple[list[Node], Head]:
    """The nodes that the output needs, the last softmax or sigmoid taken away, and what that was."""
    path, shape = builder.path, builder.shapes[output]
    values = math.prod(shape)
    if values > 2:
        raise DataError(
            f"{path}: the model has {values:,} outputs of shape {shape}; one or two are needed: benign, malignant."
        )
    by_name = {node.name: node for node in builder.nodes}
    node = by_name.get(output)
    while isinstance(node, _THROUGH):
        node = by_name.get(node.inputs[0])
    head: Head = "linear"
    replaced: Node | None = None
    if isinstance(node, Softmax):
        if builder.shapes[node.name][-1] != 2:
            raise DataError(
                f"{path}: a softmax over one output always gives 1, so the model says the same of any image."
            )
        head, replaced = "softmax", node
    elif isinstance(node, Activation) and node.function == "sigmoid":
        head, replaced = ("sigmoid" if values == 1 else "sigmoids"), node
    elif isinstance(node, _SQUASHING):
        what = node.function if isinstance(node, Activation) else node.kind
        raise DataError(
            f"{path}: the last layer ends in {what}, which gives no probability: sigmoid, softmax or none can be read."
        )
    elif node is not None and _averages_probabilities(node, by_name):
        raise DataError(
            f"{path}: the output is put together from probabilities, which has no exact logit; it is not supported."
        )
    nodes = builder.nodes
    if replaced is not None:
        source = replaced.inputs[0]
        nodes = [
            each.model_copy(update={"inputs": tuple(source if name == replaced.name else name for name in each.inputs)})
            for each in nodes
            if each is not replaced
        ]
        output = source if output == replaced.name else output
    nodes = _needed(nodes, output)
    if not nodes:
        raise DataError(f"{path}: the model gives back its image.")
    if len(builder.shapes[output]) != 1:  # (1, 1, 2)
        name = f"{output[:100]}__flat"
        nodes.append(Flatten(name=name, inputs=(output,)))
    return nodes, head


def _needed(nodes: Sequence[Node], output: str) -> list[Node]:
    """Those that the output depends on, itself last."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if node.name in wanted:
            wanted |= set(node.inputs)
            kept.append(node)
    return kept[::-1]


def _averages_probabilities(node: Node, by_name: Mapping[str, Node]) -> bool:
    """Whether a softmax or sigmoid reaches this node through nothing that has weights."""
    todo, seen = [node], set()
    while todo:
        here = todo.pop()
        if here.name in seen:
            continue
        seen.add(here.name)
        if isinstance(here, Softmax) or (isinstance(here, Activation) and here.function == "sigmoid"):
            return True
        if not hasattr(here, "weights") and not isinstance(here, Pad):
            todo += [by_name[name] for name in here.inputs if name in by_name]
    return False
