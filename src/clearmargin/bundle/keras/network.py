"""The network of a Keras file, read in this process; `isolate.py` does the same in a child, for files of strangers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from torch import Tensor

from clearmargin.bundle.keras.configs import read_model
from clearmargin.bundle.keras.convert import Converted, Head, convert_model
from clearmargin.bundle.keras.files import KerasFile, open_keras
from clearmargin.bundle.keras.recipes import read_by_recipe
from clearmargin.bundle.keras.weights import read_tensors
from clearmargin.graph import Graph
from clearmargin.models.graph import GraphClassifier, tensor_name
from clearmargin.types import Listener

DEFAULT_SCALE = Fraction(1, 255)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a Keras file does not say, and the user has to.

    Attributes:
        malignant_index: of two outputs, the one that is malignant; of one output, 1 if it is of malignant, 0 if of
            benign.
        scale: pixels from 0 to 255 are multiplied by it; None is 1/255, or 1 where the network itself rescales.
        offset: and this is added.
        channels: their order as the network was trained.
        size: (width, height), for a network that takes any.
        fit: how images of another size become that size.
        recipe: whose network a file of weights alone belongs to.
    """

    malignant_index: Literal[0, 1] = 1
    scale: Fraction | None = None
    offset: Fraction = Fraction(0)
    channels: Literal["rgb", "bgr"] = "rgb"
    size: tuple[int, int] | None = None
    fit: Literal["pad", "stretch"] = "stretch"
    recipe: str | None = None


@dataclass(frozen=True, slots=True)
class KerasNetwork:
    """The network of a file, with what is known of its pixels and its output."""

    graph: Graph
    tensors: dict[str, Tensor]
    head: Head
    channels_first: bool
    scale: Fraction
    offset: Fraction
    keras_version: str | None
    format: Literal["h5", "keras"]
    whole: bool = True
    """The file describes the network, so that Keras can open it."""
    inside: bool = False
    """Scale and offset are part of the network, which then gets pixels from 0 to 1."""

    def classifier(self) -> GraphClassifier:
        """The network with its weights, in evaluation mode."""
        network = GraphClassifier(self.graph)
        network.load_state_dict({tensor_name(key): tensor for key, tensor in self.tensors.items()})
        return network.eval()


def read_network(
    file: Path, options: ImportOptions = ImportOptions(), *, listener: Listener = Listener()
) -> KerasNetwork:
    """The network of a Keras file.

    Raises:
        DataError: not a file that can be read, or not a network from one image to benign or malignant; names the layer.
    """
    with open_keras(file) as opened:
        return _read(opened, options, listener)


def parse_version(text: str | None) -> tuple[int, int]:
    """Major and minor version of a Keras; a file that does not say was written by Keras 1.

    >>> parse_version("2.15.0-tf"), parse_version(None)
    ((2, 15), (1, 0))
    """
    found = re.match(r"(\d{1,3})\.(\d{1,3})", text or "")
    return (int(found[1]), int(found[2])) if found else (1, 0)


def _read(file: KerasFile, options: ImportOptions, listener: Listener) -> KerasNetwork:
    bgr = options.channels == "bgr"
    if file.config is None:
        graph, tensors, own_scale, own_offset = read_by_recipe(file, options.recipe, size=options.size, bgr=bgr)
        graph = graph.model_copy(update={"malignant": options.malignant_index})
        head: Head = "softmax" if graph.output == (2,) else "sigmoid"
        scale, offset = (own_scale, own_offset) if options.scale is None else (options.scale, options.offset)
        return KerasNetwork(graph, tensors, head, False, scale, offset, file.keras_version, file.format, whole=False)
    if options.recipe is not None:
        listener.note(f"The file describes its network itself; the recipe '{options.recipe}' is not needed.")
    model = read_model(file.config, file.path)
    keras = parse_version(file.keras_version)
    tf_keras = bool(file.keras_version and file.keras_version.endswith("-tf"))

    def convert(rescale: tuple[float, float] | None) -> Converted:
        return convert_model(
            model,
            file.path,
            keras=keras,
            tf_keras=tf_keras,
            size=options.size,
            bgr=bgr,
            malignant=options.malignant_index,
            rescale=rescale,
        )

    converted = convert(None)
    offset, scale = options.offset, options.scale or (Fraction(1) if converted.scales_itself else DEFAULT_SCALE)
    if options.scale is None and converted.scales_itself:
        listener.note("The network rescales its pixels itself, so it gets them from 0 to 255 (--scale changes that).")
    inside = not 0 <= -offset <= 255 * scale  # outside of what the preprocessing spec can say
    if inside:
        converted = convert((float(scale * 255), float(offset)))
    tensors = read_tensors(file, model, converted, keras=keras)
    return KerasNetwork(
        converted.graph,
        tensors,
        converted.head,
        converted.channels_first,
        scale,
        offset,
        file.keras_version,
        file.format,
        inside=inside,
    )
