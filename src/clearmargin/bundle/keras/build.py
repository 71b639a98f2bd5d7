"""A graph in the making: nodes with names of their own, and for each weight the array that it comes from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from clearmargin.bundle.keras.configs import Layer
from clearmargin.errors import DataError, one_line
from clearmargin.graph import INPUT, MAX_NODES, Node, Shape, next_shape

Place = tuple[str, ...]
"""A layer: the names of the models that it lies in, and its own."""
Transform = Literal["vector", "conv", "depthwise", "transposed", "dense", "slopes", "variance"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Array:
    """An array that a layer has in the file.

    `shape` is that of Keras 2 and later, `key` the tensor that it becomes, as `Graph.weights` names it (None: not
    needed), and `transform` how.
    """

    name: str
    shape: Shape
    key: str | None
    transform: Transform = "vector"
    trainable: bool = True
    epsilon: float = 0.0


@dataclass(slots=True)
class Builder:
    """Collects nodes and arrays. `order` is where the file's maps have their channels."""

    path: Path
    order: Literal["last", "first"]
    keras: int
    """The major version that wrote the file; 1 where nothing says."""
    half_pixel: bool
    """Bilinear enlargement counts from the centres of pixels, as all but early versions do."""
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    arrays: dict[Place, list[Array]] = field(default_factory=dict)
    constants: dict[str, tuple[Shape, float]] = field(default_factory=dict)
    """Tensors that no array holds, and the number that they are full of."""
    _names: dict[str, int] = field(default_factory=dict)
    _weights: dict[Place, str] = field(default_factory=dict)

    def add(self, kind: type[Node], inputs: Sequence[str], hint: str, **fields: Any) -> str:
        """A further node; gives its name, which is that of the layer where it is free.

        Raises:
            DataError: its numbers are beyond the limits, or it does not fit its inputs.
        """
        name = self._unique(hint)
        try:
            node = kind(name=name, inputs=tuple(inputs), **fields)
            self.shapes[name] = next_shape(node, self.shapes)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{self.path}: the layer '{one_line(hint)[:80]}': {where}: {first['msg'][:150]}.") from None
        except ValueError as error:
            raise DataError(f"{self.path}: {str(error).removeprefix('graph: ')[:250]}.") from None
        self.nodes.append(node)
        if len(self.nodes) > MAX_NODES:
            raise DataError(f"{self.path}: more than {MAX_NODES:,} layers.")
        return name

    def weights(self, place: Place, part: str = "") -> str:
        """The name of a layer's weights, the same each time it is called."""
        key = (*place, f"\0{part}")
        if key not in self._weights:
            taken = set(self._weights.values())
            name = base = _plain("_".join(filter(None, (*place, part))))
            number = 1
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            self._weights[key] = name
        return self._weights[key]

    def expect(self, place: Place, arrays: Sequence[Array]) -> None:
        """Says which arrays the layer has; for a layer that is called again they must be the same.

        Raises:
            DataError: they are not.
        """
        known = self.arrays.setdefault(place, list(arrays))
        if known != list(arrays):
            raise DataError(f"{self.path}: the layer '{one_line(place[-1])}' is called on inputs of different shapes.")

    def _unique(self, hint: str) -> str:
        base = _plain(hint)
        number = self._names.get(base, 0) + 1
        self._names[base] = number
        name = base if number == 1 and base != INPUT else f"{base}__{number}"
        return name if name not in self.shapes else self._unique(name)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer: its config, read with the names of every Keras, and what it is called on."""

    builder: Builder
    layer: Layer
    place: Place
    inputs: tuple[str, ...]

    @property
    def shapes(self) -> list[Shape]:
        return [self.builder.shapes[name] for name in self.inputs]

    @property
    def shape(self) -> Shape:
        """Of its one input.

        Raises:
            DataError: it has several.
        """
        if len(self.inputs) != 1:
            raise self.error(f"takes one input, and has {len(self.inputs)}")
        return self.shapes[0]

    @property
    def hint(self) -> str:
        return "_".join(self.place)

    def error(self, what: str) -> DataError:
        """What is wrong with this layer, as an error."""
        name, kind = one_line(self.layer.name)[:80], one_line(self.layer.kind)[:60]
        return DataError(f"{self.builder.path}: the layer '{name}' ({kind}) {what}.")

    def add(self, kind: type[Node], *, inputs: Sequence[str] | None = None, part: str = "", **fields: Any) -> str:
        """A node of this layer; `part` tells several apart."""
        hint = f"{self.hint}_{part}" if part else self.hint
        return self.builder.add(kind, self.inputs if inputs is None else inputs, hint, **fields)

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of the fields that is there and not null."""
        return next((value for name in names if (value := self.layer.config.get(name)) is not None), default)

    def integer(self, *names: str, default: int | None = None) -> int:
        value = self.get(*names, default=default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"has no whole number as {names[0]}")
        return value

    def number(self, *names: str, default: float) -> float:
        value = self.get(*names, default=default)
        if isinstance(value, dict) and isinstance(value.get("value"), float | int):  # a NumPy number, as TF 2 wrote it
            value = value["value"]
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.error(f"has no number as {names[0]}")
        return float(value)

    def flag(self, *names: str, default: bool) -> bool:
        value = self.get(*names, default=default)
        if not isinstance(value, bool | int):
            raise self.error(f"has neither true nor false as {names[0]}")
        return bool(value)

    def text(self, *names: str, default: str | None = None) -> str:
        value = self.get(*names, default=default)
        if not isinstance(value, str):
            raise self.error(f"has no text as {names[0]}")
        return value

    def pair(self, *names: str, default: int | Sequence[int] | None = None) -> tuple[int, int]:
        """Two whole numbers, or one for both."""
        value = self.get(*names, default=default)
        sides = [value, value] if isinstance(value, int) else value
        if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(type(side) is int for side in sides):
            raise self.error(f"has no pair of whole numbers as {names[0]}")
        return sides[0], sides[1]

    def padding(self) -> str:
        padding = self.text("padding", "border_mode", default="valid")
        if padding not in ("valid", "same"):
            raise self.error(f"has the padding '{one_line(padding)[:20]}', which is not supported (valid and same are)")
        return padding

    def axis(self, value: object, *, rank: int | None = None) -> int:
        """An axis of the file, that of the batch counted, as an axis of Keras' channels-last order without it."""
        rank = len(self.shapes[0]) if rank is None else rank
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if type(value) is not int or not (1 <= value <= rank or -rank <= value <= -1):
            raise self.error(f"works along the axis {str(value)[:20]}, which is not supported")
        axis = value - 1 if value > 0 else value + rank
        return axis if rank != 3 or self.builder.order == "last" else (2, 0, 1)[axis]

    def need_last(self, what: str = "mixes the axes of a map whose channels come first") -> None:
        """Passes unless this is a map whose channels come first.

        Raises:
            DataError: it is.
        """
        if self.builder.order == "first" and any(len(shape) == 3 for shape in self.shapes):
            raise self.error(f"{what}, which is not supported")


def _plain(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text)[:100]
    return name or "layer"


def as_mapping(value: object) -> Mapping[str, Any]:
    """The value where it is an object of JSON, else an empty one."""
    return value if isinstance(value, dict) else {}
