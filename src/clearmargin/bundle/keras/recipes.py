"""Files of weights alone, matched to a recipe's network: by the order of the layers and the shapes of their arrays."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from clearmargin.bundle.keras.build import Array
from clearmargin.bundle.keras.files import KerasFile, Stored
from clearmargin.bundle.keras.trace import trace_model
from clearmargin.bundle.keras.weights import to_torch
from clearmargin.bundle.keras.write import WRITERS
from clearmargin.config import load_recipe, recipe_names
from clearmargin.errors import DataError, UsageError, one_line
from clearmargin.graph import INPUT, Conv, Graph
from clearmargin.models import build_model
from clearmargin.settings import is_backbone

_CLASSES = {
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "Dense": "dense",
    "BatchNormalization": "batch_normalization",
}


def read_by_recipe(
    file: KerasFile, recipe: str | None, *, size: tuple[int, int] | None, bgr: bool
) -> tuple[Graph, dict[str, Tensor], Fraction, Fraction]:
    """The recipe's network with the weights of the file, and the (scale, offset) that its pixels get.

    Args:
        file: one that describes no network.
        recipe: its name or a TOML file.
        size: (width, height), instead of the recipe's.
        bgr: the network was trained on blue, green, red.

    Raises:
        DataError: no recipe was given, or the weights do not fit its network.
        UsageError: the recipe's network is none that Keras could have.
    """
    if recipe is None:
        raise DataError(
            f"{file.path}: holds weights and no description of their network. If it is that of a recipe, say so with "
            f"--recipe NAME ({', '.join(recipe_names())}); else save the whole model with model.save('model.keras'). "
            "Weights of a pretrained backbone are for: clearmargin train DATA --model NAME --weights FILE."
        )
    config = load_recipe(recipe, {})
    if is_backbone(config.model.name):
        raise UsageError(
            f"the network of the recipe '{recipe}' is not one of Keras; weights for it go to train --weights."
        )
    chosen = size or config.images.size
    if isinstance(chosen, str):
        raise DataError(
            f"{file.path}: the recipe '{recipe}' takes images of any size; say which with --size WIDTH,HEIGHT."
        )
    shape = (chosen[1], chosen[0], config.images.channels)
    traced = trace_model(build_model(config.model.name, shape), shape)
    graph, tensors = traced.graph, dict(traced.tensors)
    expected = list(_expected(graph))
    stored = _by_order(file) if file.layout == "layers" else _by_class(file, expected)
    for number, (_, array) in enumerate(expected):
        found = stored[number] if number < len(stored) else None
        if found is None or found.shape != array.shape or array.key is None:
            what = "nothing more" if found is None else f"'{one_line(found.name)}' of shape {found.shape}"
            raise DataError(
                f"{file.path}: does not fit the recipe '{recipe}' for images of {chosen[0]}×{chosen[1]} pixels: where "
                f"'{str(array.key).partition('.')[0]}' needs its {array.name} of shape {array.shape}, the file has "
                f"{what}. Give another --recipe or --size, or save the whole model."
            )
        tensors[array.key] = torch.from_numpy(to_torch(array, found.read()))
    if len(stored) > len(expected):
        raise DataError(
            f"{file.path}: has {len(stored)} arrays of weights, and the recipe '{recipe}' needs {len(expected)}. Give "
            "another --recipe, or save the whole model."
        )
    if bgr:
        graph, tensors = _turn(graph, tensors)
    scale = 1 / (255 * Fraction(config.images.std))
    return graph, tensors, scale, -Fraction(config.images.mean) / Fraction(config.images.std)


def _expected(graph: Graph) -> Iterator[tuple[str, Array]]:
    """Class of the layer and array, in the order of the network."""
    for node in graph.nodes:
        for step in WRITERS[type(node)](node, [graph.shapes[name] for name in node.inputs]):
            for array in step.arrays:
                yield _CLASSES.get(step.kind, step.kind), array


def _by_order(file: KerasFile) -> list[Stored]:
    return [stored for arrays in file.layer_arrays().values() for stored in arrays]


def _by_class(file: KerasFile, expected: Sequence[tuple[str, Array]]) -> list[Stored]:
    """Layers are numbered by their class, so that only the order among those of one class is known."""
    queues: dict[str, deque[list[Stored]]] = {}

    def place(item: tuple[str, Any]) -> tuple[str, int]:
        base, _, number = item[0].rpartition("_")
        return (base, int(number)) if number.isdecimal() else (item[0], 0)

    for name, arrays in sorted(file.store_arrays().items(), key=place):
        base = place((name.rpartition("/")[2], None))[0]
        queues.setdefault(base, deque()).append(arrays)
    found: list[Stored] = []
    separable = bool(queues.get("separable_conv2d"))
    for kind, array in expected:
        if len(found) > expected.index((kind, array)):
            continue  # it came with the arrays of its layer
        wanted = "separable_conv2d" if separable and kind == "depthwise_conv2d" else kind
        queue = queues.get(wanted)
        if not queue:
            break
        found += queue.popleft()
    return found + [stored for queue in queues.values() for arrays in queue for stored in arrays]


def _turn(graph: Graph, tensors: dict[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """The network with its first layer's channels turned round: blue, green, red."""
    turn = Conv(name="bgr", inputs=(INPUT,), weights="bgr", filters=3, kernel=(1, 1), bias=False)
    nodes = [
        node.model_copy(update={"inputs": tuple("bgr" if name == INPUT else name for name in node.inputs)})
        for node in graph.nodes
    ]
    turned = Graph(input=graph.input, nodes=(turn, *nodes), malignant=graph.malignant)
    return turned, {**tensors, "bgr.weight": torch.eye(3).flip(0).reshape(3, 3, 1, 1)}
