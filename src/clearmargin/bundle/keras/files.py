"""What is in a Keras file: its description as JSON, and arrays whose shape is known before a byte of them is read.

Only plain arrays of numbers are read. Links, external storage, virtual data sets, compound and object types, and
filters that HDF5 would load as a plug-in are refused, and so are zip files with other members than Keras writes.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import DataError, one_line

Layout = Literal["layers", "store"]
"""How arrays are filed: by the name of each layer (.h5), or in numbered places (.keras, .weights.h5)."""

_MAX_FILE_BYTES = 4 * 2**30
_MAX_CONFIG_BYTES = 16 * 2**20
_MAX_DEPTH = 60
_MAX_OBJECTS = 20_000
_MAX_NAMES = 20_000
_MAX_RATIO = 200
_FREE_BYTES = 16 * 2**20
"""Up to here no rate of compression is suspicious."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_FILTER_NUMBERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, UnicodeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Stored:
    """An array in the file."""

    name: str
    shape: tuple[int, ...]
    _dataset: h5py.Dataset = field(repr=False)
    _path: Path

    def read(self) -> NDArray[np.float32]:
        """Its values. The caller has compared `shape` with what it expects: nothing here bounds it.

        Raises:
            DataError: damaged, or not all numbers are finite.
        """
        with hdf5_errors(self._path):
            values = np.empty(self.shape, dtype=np.float32)
            if values.size:
                self._dataset.read_direct(values)
        if not np.isfinite(values).all():
            raise DataError(f"{self._path}: '{self.name}' holds numbers that are not finite. The file is damaged.")
        return values


@dataclass(frozen=True, slots=True)
class KerasFile:
    """An open file; use it inside `open_keras`."""

    path: Path
    format: Literal["h5", "keras"]
    config: Any
    """The description as JSON; None where the file holds weights alone."""
    keras_version: str | None
    backend: str | None
    layout: Layout
    _group: h5py.Group = field(repr=False)

    def layer_arrays(self) -> dict[str, list[Stored]]:
        """In the layout `layers`: the arrays of each layer, in the file's order of layers and of weights."""
        found: dict[str, list[Stored]] = {}
        with hdf5_errors(self.path):
            for layer in self._names(self._group, "layer_names"):
                place = self._step(self._group, layer)
                if not isinstance(place, h5py.Group):
                    raise DataError(f"{self.path}: '{one_line(layer)}' is no group of weights. The file is damaged.")
                names = self._names(place, "weight_names")
                found[layer] = [self._array(place, name) for name in names]
        return found

    def store_arrays(self) -> dict[str, list[Stored]]:
        """In the layout `store`: the arrays of each place that has some, such as `layers/conv2d_1`."""
        found: dict[str, list[Stored]] = {}
        left = _MAX_OBJECTS

        def walk(group: h5py.Group, place: str, depth: int) -> None:
            nonlocal left
            if depth > _MAX_DEPTH:
                raise DataError(f"{self.path}: groups lie more than {_MAX_DEPTH} deep in each other.")
            names = list(group)
            left -= len(names)
            if left < 0:
                raise DataError(f"{self.path}: more than {_MAX_OBJECTS:,} entries.")
            if place.endswith("/vars"):
                numbered = sorted((name for name in names if name.isdecimal() and len(name) < 6), key=int)
                arrays = [self._array(group, name, shown=f"{place}/{name}") for name in numbered]
                if arrays:
                    found[place.removesuffix("/vars")] = arrays
                return
            for name in names:
                child = self._step(group, name)
                if isinstance(child, h5py.Group):
                    walk(child, f"{place}/{name}" if place else name, depth + 1)

        with hdf5_errors(self.path):
            root = self._step(self._group, "layers")
            walk(root, "layers", 0)
        return found

    def _names(self, group: h5py.Group, key: str) -> list[str]:
        """A list of names in an attribute, which Keras cuts into `key0`, `key1` … where it is long."""
        keys = [key] if key in group.attrs else []
        while not keys or (keys[-1] != key and f"{key}{len(keys)}" in group.attrs):
            if f"{key}{len(keys)}" not in group.attrs:
                break
            keys.append(f"{key}{len(keys)}")
        names: list[str] = []
        for each in keys:
            names += [_text(value) for value in np.atleast_1d(_attribute(group, each, self.path)).tolist()]
        if len(names) > _MAX_NAMES or len(set(names)) != len(names):
            raise DataError(f"{self.path}: {key} lists too many names, or one twice. The file is damaged.")
        return names

    def _step(self, group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset:
        """What lies there, through hard links only."""
        here: h5py.Group | h5py.Dataset = group
        for name in path.split("/"):
            if name in ("", ".", ".."):
                continue
            if not isinstance(here, h5py.Group) or name not in here:
                raise DataError(f"{self.path}: '{one_line(path)}' is not there, and the file names it. It is damaged.")
            if not isinstance(here.get(name, getlink=True), h5py.HardLink):
                raise DataError(f"{self.path}: '{one_line(path)}' is a link; a Keras file has none.")
            here = here[name]
        return here

    def _array(self, group: h5py.Group, name: str, *, shown: str | None = None) -> Stored:
        found = self._step(group, name)
        label = one_line(shown or name)[:200]
        if not isinstance(found, h5py.Dataset):
            raise DataError(f"{self.path}: '{label}' is no array. The file is damaged.")
        if found.external or found.is_virtual:
            raise DataError(f"{self.path}: '{label}' is kept in another file; a Keras file keeps its weights itself.")
        if found.dtype.kind not in "fiu" or found.dtype.itemsize > 8:
            raise DataError(f"{self.path}: '{label}' holds no plain numbers ({found.dtype}).")
        if found.shape is None:
            raise DataError(f"{self.path}: '{label}' is empty. The file is damaged.")
        properties = found.id.get_create_plist()
        filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
        if not filters <= _FILTER_NUMBERS:
            raise DataError(f"{self.path}: '{label}' is compressed in a way that needs a plug-in; none is loaded.")
        if found.chunks and math.prod(found.chunks) > 4 * max(math.prod(found.shape), 2**18):
            raise DataError(f"{self.path}: '{label}' is cut into pieces larger than itself. The file is damaged.")
        return Stored(label, tuple(found.shape), found, self.path)


@contextmanager
def open_keras(path: Path) -> Iterator[KerasFile]:
    """The file, opened for reading; its arrays can be read until it is closed.

    Raises:
        DataError: no such file, not one that Keras writes, damaged, or beyond the limits.
    """
    if path.is_dir():
        raise DataError(
            f"{path}: is a folder. A TensorFlow SavedModel holds a program, which is never run here: load it where it "
            "was made and save it with model.save('model.keras')."
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a Keras model (.h5, .hdf5 or .keras).")
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise DataError(f"{path}: larger than the limit of {_MAX_FILE_BYTES:,} bytes.")
        with path.open("rb") as file:
            start = file.read(len(_HDF5))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    if start.startswith(_HDF5):
        with _open_h5(path, path) as file:
            yield _describe_h5(path, file)
    elif start.startswith(_ZIP):
        config, version, weights = _read_zip(path)
        with _open_h5(path, io.BytesIO(weights)) as file:
            yield KerasFile(path, "keras", config, version, None, "store", file)
    elif start[:1] == b"\x80":
        raise DataError(f"{path}: is a pickle, whatever its name says. Pickles run code when they are opened: refused.")
    else:
        raise DataError(
            f"{path}: is neither HDF5 (.h5) nor a .keras file. Save the model with model.save('model.keras')."
        )


@contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """What HDF5 says of a damaged file becomes one line.

    Raises:
        DataError: an error of HDF5 came up inside.
    """
    try:
        yield
    except _HDF5_ERRORS as error:
        text = one_line(" ".join(str(error).split()))[:150]
        raise DataError(f"{path}: cannot be read as HDF5 ({text}). The file is damaged or cut short.") from None


def parse_config(text: str | bytes, path: Path) -> Any:
    """The JSON, not deeper than is needed.

    Raises:
        DataError: not JSON, or too deep.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the description of the model is no JSON ({str(error)[:100]}).") from None
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise DataError(f"{path}: the description of the model is more than {_MAX_DEPTH} levels deep.")
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
            if isinstance(child, dict | list)
        ]
    return content


@contextmanager
def _open_h5(path: Path, place: Path | io.BytesIO) -> Iterator[h5py.File]:
    with hdf5_errors(path):
        file = h5py.File(place, "r")
    try:
        yield file
    finally:
        file.close()


def _describe_h5(path: Path, file: h5py.File) -> KerasFile:
    with hdf5_errors(path):
        attributes = file.attrs
        config = None
        if "model_config" in attributes:
            config = parse_config(_text(_attribute(file, "model_config", path)), path)
        group = file
        link = file.get("model_weights", getlink=True)
        if isinstance(link, h5py.HardLink):
            group = file["model_weights"]
        elif link is not None:
            raise DataError(f"{path}: 'model_weights' is a link; a Keras file has none.")
        known = {}
        for key in ("keras_version", "backend"):
            owner = group if key in group.attrs else file
            known[key] = _text(_attribute(owner, key, path))[:40] if key in owner.attrs else None
        named = any(key in group.attrs for key in ("layer_names", "layer_names0"))
        if not named and "layers" not in group:
            raise DataError(
                f"{path}: is HDF5, but no model of Keras: it has no layer_names. Save the whole model with "
                "model.save('model.keras')."
            )
    layout: Layout = "layers" if named else "store"
    return KerasFile(path, "h5", config, known["keras_version"], known["backend"], layout, group)


def _attribute(owner: h5py.Group, key: str, path: Path) -> Any:
    stored = h5py.h5a.open(owner.id, key.encode())
    size = math.prod(stored.shape)
    if size == 0:
        return []
    if size > _MAX_NAMES or size * stored.dtype.itemsize > _MAX_CONFIG_BYTES:
        raise DataError(f"{path}: the attribute '{key}' is larger than the limit. The file is damaged.")
    if stored.dtype.kind not in "SOUf" or (stored.dtype.kind == "O" and h5py.check_string_dtype(stored.dtype) is None):
        raise DataError(f"{path}: the attribute '{key}' is no text. The file is damaged.")
    return owner.attrs[key]


def _text(value: object) -> str:
    text = value.decode("utf-8") if isinstance(value, bytes) else value
    if isinstance(text, np.ndarray) and text.size == 1:
        return _text(text.reshape(-1)[0])
    if not isinstance(text, str):
        raise ValueError("an attribute is no text")  # noqa: TRY004  (put into words by `hdf5_errors`)
    if len(text) > _MAX_CONFIG_BYTES:
        raise ValueError("an attribute is too long")
    return text


def _read_zip(path: Path) -> tuple[Any, str | None, bytes]:
    """Description, version and the file of weights inside a .keras file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = _list_members(archive, path)
            metadata = parse_config(_read_member(archive, members["metadata.json"], path, _MAX_CONFIG_BYTES), path)
            config = parse_config(_read_member(archive, members["config.json"], path, _MAX_CONFIG_BYTES), path)
            weights = _read_member(archive, members["model.weights.h5"], path, _MAX_FILE_BYTES // 2)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be read as a .keras file ({str(error)[:100]}). It is damaged.") from None
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return config, version[:40] if isinstance(version, str) else None, weights


def _list_members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        if name not in _MEMBERS and not re.fullmatch(r"assets/?", name):
            raise DataError(f"{path}: holds '{one_line(name)[:80]}', which no .keras file has that can be read here.")
        if name in found or member.flag_bits & 1:
            raise DataError(f"{path}: '{name}' is there twice or encrypted. The file is damaged.")
        found[name] = member
    missing = [name for name in _MEMBERS if name not in found]
    if missing:
        raise DataError(f"{path}: is a zip file, but no .keras file: it has no {missing[0]}.")
    return found


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, limit: int) -> bytes:
    size = member.file_size
    if size > limit or (size > _FREE_BYTES and size > _MAX_RATIO * max(1, member.compress_size)):
        raise DataError(f"{path}: '{member.filename}' would unpack to {size:,} bytes, which is beyond the limits.")
    with archive.open(member) as file:
        content = file.read(size + 1)
    if len(content) != size:
        raise DataError(f"{path}: '{member.filename}' is not as long as it says. The file is damaged.")
    return content
