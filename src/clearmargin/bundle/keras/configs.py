"""The description of a model, as Keras 1, 2 or 3 writes it, in one form: layers, and which takes what from which.

Descriptions are data. A class that is not Keras' own, a function, a marshalled lambda: the file is refused by the name
of the layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearmargin.errors import DataError, one_line

MODELS = ("Sequential", "Functional", "Model")
_MAX_LAYERS = 4096
_MODULE = re.compile(r"(tensorflow\.python\.|tensorflow\.|tf_)?keras(\.[A-Za-z0-9_]+){0,8}|builtins")
_NO_CODE = "code in a file is never run. Rebuild the model from Keras' own layers and save it again"

Source = tuple[str, int, int]
"""Of an input: the layer, which of its calls, which of that call's outputs."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; `model` is what is inside of a nested model."""

    kind: str
    name: str
    config: Mapping[str, Any]
    calls: tuple[tuple[Source, ...], ...] = ()
    """In a functional model, the inputs of each call."""
    model: Model | None = None
    trainable: bool = True
    shared_id: int | None = None
    """Of Keras 3: the same wherever one layer object is part of several models."""


@dataclass(frozen=True, slots=True)
class Model:
    """Layers in the file's order. A sequential model has neither inputs nor outputs by name."""

    name: str
    layers: tuple[Layer, ...]
    sequential: bool
    inputs: tuple[Source, ...] = ()
    outputs: tuple[Source, ...] = ()
    trainable: bool = True
    build_shape: Sequence[Any] | None = None

    def walk(self) -> Iterator[Layer]:
        """Every layer, those of nested models too."""
        for layer in self.layers:
            yield layer
            if layer.model is not None:
                yield from layer.model.walk()


@dataclass(slots=True)
class _Reader:
    path: Path
    left: int = field(default=_MAX_LAYERS)

    def model(self, entry: Mapping[str, Any], name: str) -> Model:
        kind, config = entry.get("class_name"), entry.get("config")
        if kind not in MODELS:
            raise DataError(
                f"{self.path}: the model is of the class {_shown(kind)}, which is not Keras' own; {_NO_CODE}."
            )
        self._check_own(entry, name)
        if isinstance(config, list):  # Keras 1 and early 2
            config = {"layers": config}
        if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            raise DataError(f"{self.path}: the model '{name}' has no list of layers. The file is damaged.")
        sequential = kind == "Sequential"
        layers = tuple(self._layer(layer, sequential=sequential) for layer in config["layers"])
        names = [layer.name for layer in layers]
        if not layers or len(set(names)) != len(names):
            raise DataError(f"{self.path}: the model '{name}' has no layers, or two of one name. The file is damaged.")
        own = str(config.get("name") or name)
        build = config.get("build_input_shape") or config.get("batch_input_shape")
        trainable = config.get("trainable", True) is not False
        if sequential:
            return Model(own, layers, True, trainable=trainable, build_shape=build if isinstance(build, list) else None)
        ends = [self._ends(config.get(key), key) for key in ("input_layers", "output_layers")]
        return Model(own, layers, False, inputs=ends[0], outputs=ends[1], trainable=trainable)

    def _layer(self, entry: Any, *, sequential: bool) -> Layer:
        self.left -= 1
        if self.left < 0:
            raise DataError(f"{self.path}: more than {_MAX_LAYERS:,} layers.")
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            raise DataError(f"{self.path}: a layer has no class_name. The file is damaged.")
        kind, config = entry["class_name"], entry.get("config")
        own = config if isinstance(config, dict) else {}
        name = entry.get("name") or own.get("name") or f"{kind.lower()}_{_MAX_LAYERS - self.left}"
        if not isinstance(name, str):
            raise DataError(f"{self.path}: the name of a layer is no text. The file is damaged.")
        self._check_own(entry, name)
        calls = () if sequential else self._calls(entry.get("inbound_nodes"), name)
        shared = identity if type(identity := entry.get("shared_object_id")) is int else None
        if kind in MODELS:
            nested = self.model(entry, name)
            return Layer(kind, name, own, calls, nested, nested.trainable, shared)
        if not isinstance(config, dict):
            raise DataError(f"{self.path}: the layer '{one_line(name)}' has no config. The file is damaged.")
        trainable = config.get("trainable", True) is not False
        return Layer(kind, name, config, calls, trainable=trainable, shared_id=shared)

    def _check_own(self, entry: Mapping[str, Any], name: str) -> None:
        """Passes where every object in the description of a layer is one of Keras' own, as far as it says."""
        # The layers of a model are checked one by one, under their own names.
        skipped = ("inbound_nodes", "compile_config", *(("config",) if entry.get("class_name") in MODELS else ()))
        todo: list[Any] = [{key: value for key, value in entry.items() if key not in skipped}]
        while todo:
            value = todo.pop()
            if isinstance(value, list):
                todo += value
            if not isinstance(value, dict):
                continue
            kind, module, registered = (value.get(key) for key in ("class_name", "module", "registered_name"))
            if kind in ("__lambda__", "Lambda", "function", "__function__"):
                raise DataError(f"{self.path}: the layer '{one_line(name)}' holds code ({_shown(kind)}): {_NO_CODE}.")
            if "class_name" in value and (
                (module is not None and not (isinstance(module, str) and _MODULE.fullmatch(module)))
                or (registered is not None and registered != kind)
            ):
                what = _shown(registered or kind)
                raise DataError(
                    f"{self.path}: the layer '{one_line(name)}' is or holds {what} of {_shown(module)}, which is not "
                    f"Keras' own: {_NO_CODE}."
                )
            todo += value.values()

    def _calls(self, nodes: Any, name: str) -> tuple[tuple[Source, ...], ...]:
        if nodes is None:
            return ()
        if not isinstance(nodes, list) or len(nodes) > _MAX_LAYERS:
            raise self._damaged(name)
        return tuple(self._call(node, name) for node in nodes)

    def _call(self, node: Any, name: str) -> tuple[Source, ...]:
        if isinstance(node, dict):  # Keras 3
            tensors = list(_tensors(node.get("args")))
            keywords = node.get("kwargs") or {}
            if not isinstance(keywords, dict) or list(_tensors(list(keywords.values()))):
                raise DataError(
                    f"{self.path}: the layer '{one_line(name)}' takes inputs by keyword, which is not supported."
                )
            self._check_keywords(keywords, name)
            return tuple(self._source(tensor, name) for tensor in tensors)
        if not isinstance(node, list):
            raise self._damaged(name)
        entries = [node] if node and isinstance(node[0], str) else node
        for entry in entries:
            if isinstance(entry, list) and len(entry) > 3 and isinstance(entry[3], dict):
                self._check_keywords(entry[3], name)
        return tuple(self._source(entry, name) for entry in entries)

    def _check_keywords(self, keywords: Mapping[str, Any], name: str) -> None:
        meant = {key: value for key, value in keywords.items() if value is not None}
        if meant.pop("training", False) or meant:
            raise DataError(
                f"{self.path}: the layer '{one_line(name)}' is called with {_shown(sorted(keywords)[0])}, which is not "
                "supported: only the plain call of a layer is."
            )

    def _ends(self, entries: Any, key: str) -> tuple[Source, ...]:
        if isinstance(entries, dict):
            entries = list(entries.values())
        if not isinstance(entries, list) or not entries:
            raise self._damaged(key)
        if isinstance(entries[0], str):
            entries = [entries]
        return tuple(self._source(entry, key) for entry in entries)

    def _source(self, entry: Any, name: str) -> Source:
        match entry:
            case [str(layer), int(call), int(output), *_]:
                return layer, call, output
        raise self._damaged(name)

    def _damaged(self, name: str) -> DataError:
        return DataError(f"{self.path}: what '{one_line(name)}' takes is not as Keras writes it. The file is damaged.")


def read_model(config: Any, path: Path) -> Model:
    """The model that a file describes.

    Raises:
        DataError: damaged, beyond the limits, or with code or classes that are not Keras' own.
    """
    if not isinstance(config, dict):
        raise DataError(f"{path}: the description of the model is no object. The file is damaged.")
    return _Reader(path).model(config, "model")


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__" and isinstance(value.get("config"), dict):
            yield value["config"].get("keras_history")
        else:
            yield from _tensors(list(value.values()))
    elif isinstance(value, list):
        for each in value:
            yield from _tensors(each)


def _shown(value: object) -> str:
    return f"'{one_line(str(value))[:60]}'"
