"""Reading a Keras file in a child process: the HDF5 library may crash, hang or eat its memory on a damaged file.

The child (this module, run as a program) reads the file and writes down the graph as JSON and the weights as
safetensors; both are checked again here. It may take a minute and bounded memory; beyond that the file is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from clearmargin.bundle.keras.network import ImportOptions, KerasNetwork, read_network
from clearmargin.errors import BundleError, ClearmarginError, DataError, UsageError
from clearmargin.graph import Graph
from clearmargin.types import Listener

_TIMEOUT_S = 60
_MEMORY_BYTES = 12 << 30
_OUTPUT_BYTES = 4 << 30
_MAX_JSON_BYTES = 64 << 20
_PACKAGES = str(Path(__file__).parents[3])
_ERRORS: dict[str, type[ClearmarginError]] = {"data": DataError, "usage": UsageError, "bundle": BundleError}
_Fraction = Annotated[str, Field(pattern=r"^-?[0-9]{1,40}(/[0-9]{1,40})?$")]


class _Answer(BaseModel):
    """What the child wrote down."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    error: Literal["data", "usage", "bundle"] | None = None
    text: Annotated[str, Field(max_length=4000)] = ""
    notes: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=10)] = ()
    graph: Graph | None = None
    head: Literal["sigmoid", "softmax", "linear"] = "linear"
    channels_first: bool = False
    scale: _Fraction = "1/255"
    offset: _Fraction = "0"
    keras_version: Annotated[str, Field(max_length=40)] | None = None
    format: Literal["h5", "keras"] = "h5"
    whole: bool = True
    inside: bool = False


class _Notes(Listener):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def read_isolated(
    file: Path, options: ImportOptions, *, listener: Listener = Listener(), timeout_s: float = _TIMEOUT_S
) -> KerasNetwork:
    """As `read_network`, in a child process.

    Raises:
        DataError: not a file that can be read, or the child crashed or took longer than `timeout_s`.
        UsageError: the options name no recipe that there is, or one that does not fit.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [_PACKAGES, os.environ.get("PYTHONPATH")]))}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(file), folder, json.dumps(_to_json(options))]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "clearmargin.bundle.keras.isolate", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"{file}: takes longer than {timeout_s:g} s to read. The file is damaged.") from None
        answer = _read_answer(Path(folder) / "answer.json", file, done.returncode)
        for note in answer.notes:
            listener.note(note)
        if answer.error is not None:
            raise _ERRORS[answer.error](answer.text)
        return _rebuild(answer, Path(folder) / "weights.safetensors", file)


def _read_answer(path: Path, file: Path, code: int) -> _Answer:
    if code != 0 or not path.is_file() or path.stat().st_size > _MAX_JSON_BYTES:
        raise DataError(f"{file}: the reader of HDF5 files crashed on it or ran out of memory. The file is damaged.")
    try:
        return _Answer.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{file}: was not read rightly ({error.errors()[0]['msg'][:100]}). The file is damaged."
        ) from None


def _rebuild(answer: _Answer, weights: Path, file: Path) -> KerasNetwork:
    assert answer.graph is not None
    try:
        tensors = safetensors.torch.load_file(weights)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: its weights were not read rightly ({error}). The file is damaged.") from None
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != dict(answer.graph.weights):
        raise DataError(f"{file}: its weights were not read rightly. The file is damaged.")
    known = {each.name for each in fields(KerasNetwork)} - {"graph", "tensors", "scale", "offset"}
    return KerasNetwork(
        graph=answer.graph,
        tensors=tensors,
        scale=Fraction(answer.scale),
        offset=Fraction(answer.offset),
        **answer.model_dump(include=known),
    )


def _to_json(options: ImportOptions) -> dict[str, object]:
    values = asdict(options)
    return {name: str(value) if isinstance(value, Fraction) else value for name, value in values.items()}


def _from_json(values: Mapping[str, object]) -> ImportOptions:
    own = dict(values)
    for name in ("scale", "offset"):
        own[name] = None if own[name] is None else Fraction(str(own[name]))
    size = own["size"]
    own["size"] = (size[0], size[1]) if isinstance(size, list) else None
    return ImportOptions(**own)  # type: ignore[arg-type]  # as the parent wrote them


def _limit_self() -> None:
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return
    for what, most in (("RLIMIT_AS", _MEMORY_BYTES), ("RLIMIT_FSIZE", _OUTPUT_BYTES), ("RLIMIT_CORE", 0)):
        _, hard = resource.getrlimit(getattr(resource, what))
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(getattr(resource, what), (allowed, allowed))


def _main(file: str, folder: str, options: str) -> None:
    _limit_self()
    listener = _Notes()
    try:
        network = read_network(Path(file), _from_json(json.loads(options)), listener=listener)
    except ClearmarginError as error:
        kind = next((name for name, each in _ERRORS.items() if isinstance(error, each)), "data")
        answer = _Answer.model_validate({"error": kind, "text": str(error)[:4000], "notes": tuple(listener.texts)})
    else:
        tensors = {name: tensor.contiguous() for name, tensor in network.tensors.items()}
        safetensors.torch.save_file(tensors, Path(folder) / "weights.safetensors")
        facts = {each.name: getattr(network, each.name) for each in fields(network) if each.name != "tensors"}
        facts |= {"scale": str(network.scale), "offset": str(network.offset), "notes": tuple(listener.texts)}
        answer = _Answer.model_validate(facts)
    (Path(folder) / "answer.json").write_text(answer.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
