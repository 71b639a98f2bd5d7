"""The network of a Keras file, read in this process; `isolate.py` does the same in a child, for files of strangers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args, get_type_hints

from torch import Tensor

from clearmargin.bundle.keras.configs import read_model
from clearmargin.bundle.keras.convert import Converted, Head, convert_model
from clearmargin.bundle.keras.files import KerasFile, open_keras
from clearmargin.bundle.keras.recipes import read_by_recipe
from clearmargin.bundle.keras.weights import read_tensors
from clearmargin.errors import UsageError
from clearmargin.graph import Graph, Rescale
from clearmargin.models.graph import GraphClassifier, tensor_name
from clearmargin.types import Listener

DEFAULT_SCALE = Fraction(1, 255)
_SMALL, _LARGE, _HALF = 1 / 1024, 1 / 16, 1 / 2
"""What a rescaling makes of 1: between the first two it takes pixels up to 255, from the last on up to 1."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a Keras file does not say, and the user has to.

    Attributes:
        malignant_index: of two outputs, the one that is malignant; of one output, 1 if it is of malignant, 0 if of
            benign.
        scale: pixels from 0 to 255 are multiplied by it; None is 1/255, or 1 where the network begins
            with a rescaling that takes them from 0 to 255.
        offset: and this is added.
        channels: their order as the network was trained.
        size: (width, height), for a network that takes any.
        fit: how images of another size become that size.
        recipe: whose network a file of weights alone belongs to.

    Raises:
        UsageError: a value that is not among these.
    """

    malignant_index: Literal[0, 1] = 1
    scale: Fraction | None = None
    offset: Fraction = Fraction(0)
    channels: Literal["rgb", "bgr"] = "rgb"
    size: tuple[int, int] | None = None
    fit: Literal["pad", "stretch"] = "stretch"
    recipe: str | None = None

    def __post_init__(self) -> None:
        for name in ("malignant_index", "channels", "fit"):
            known = get_args(get_type_hints(ImportOptions)[name])
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"{name} {value!r}: give {' or '.join(map(repr, known))}.")
        if self.scale is not None and self.scale <= 0:
            raise UsageError(f"--scale {self.scale}: must be above 0, since pixels are multiplied by it.")
        if self.size is not None and not (len(self.size) == 2 and all(isinstance(side, int) for side in self.size)):
            raise UsageError(f"size {self.size!r}: give width and height, as (50, 50).")


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


def scale_for(first: Rescale) -> tuple[Fraction, str]:
    """What pixels from 0 to 255 are multiplied by for a network that begins with this, and why, for a person.

    A network is trained on numbers around 0 that span a few units. Of pixels from 0 to 1 and from 0 to 255 those are
    meant which become that; where it is neither or both, it cannot be told, and they are taken from 0 to 1.

    >>> scale_for(Rescale(name="r", inputs=("image",), scale=(1 / 127.5,), offset=(-1.0,)))[0]
    Fraction(1, 1)
    >>> scale_for(Rescale(name="r", inputs=("image",), scale=(5.0,), offset=(-3.5,)))[0]
    Fraction(1, 255)
    """
    one, many = _becomes(first, 1), _becomes(first, 255)
    if _around_zero(one) == _around_zero(many):
        span = max(map(abs, first.scale))
        told, up_to = (True, 255) if _SMALL < span <= _LARGE else (span >= _HALF, 1)
    else:
        told, up_to = True, (1 if _around_zero(one) else 255)
    low, high = one if up_to == 1 else many
    becomes = f"pixels from 0 to {up_to}, which become {low:.3g} to {high:.3g}"
    why = f"The network begins with a rescaling, so it gets {becomes} (--scale changes that)."
    if not told:
        why = (
            f"The network begins with a rescaling that does not tell whether it takes pixels from 0 to 1 or from 0 to "
            f"255: it gets {becomes}; say --scale 1 if 0 to 255 is meant, which becomes {many[0]:.3g} to {many[1]:.3g}."
        )
    return (DEFAULT_SCALE if up_to == 1 else Fraction(1)), why


def _becomes(first: Rescale, most: int) -> tuple[float, float]:
    """The least and the largest that pixels from 0 to `most` become, in any channel."""
    channels = max(len(first.scale), len(first.offset))
    scales, offsets = (values * channels if len(values) == 1 else values for values in (first.scale, first.offset))
    ends = [*offsets, *(scale * most + offset for scale, offset in zip(scales, offsets, strict=True))]
    return min(ends), max(ends)


def _around_zero(reached: tuple[float, float]) -> bool:
    slack = 0.01 * (reached[1] - reached[0])
    return reached[0] <= slack and reached[1] >= -slack


def _read(file: KerasFile, options: ImportOptions, listener: Listener) -> KerasNetwork:
    bgr = options.channels == "bgr"
    if file.config is None:
        if options.offset and options.scale is None:
            raise UsageError(f"--offset {options.offset}: a recipe brings its own scale and offset; give --scale too.")
        graph, tensors, own_scale, own_offset = read_by_recipe(file, options.recipe, size=options.size, bgr=bgr)
        graph = graph.model_copy(update={"malignant": options.malignant_index})
        head: Head = "softmax" if graph.output == (2,) else "sigmoid"
        scale, offset = (own_scale, own_offset) if options.scale is None else (options.scale, options.offset)
        return KerasNetwork(graph, tensors, head, False, scale, offset, file.keras_version, file.format, whole=False)
    if options.recipe is not None:
        listener.note(f"Note: --recipe {options.recipe} changes nothing, since the file describes its network itself.")
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
    offset, scale = options.offset, options.scale or DEFAULT_SCALE
    if options.scale is None and converted.rescaling is not None:
        scale, why = scale_for(converted.rescaling)
        listener.note(why)
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
