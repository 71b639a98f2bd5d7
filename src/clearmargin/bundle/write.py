"""Writing a bundle: all files under another name first, then renamed; the old one goes last."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from clearmargin.bundle.card import model_card
from clearmargin.bundle.cases import Cases
from clearmargin.bundle.read import CASES, FIELD, SUMS, Bundle
from clearmargin.bundle.schema import ModelFile
from clearmargin.errors import UsageError
from clearmargin.files import disk_errors, make_folder, partial_path


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network as it is kept: its tensors, and the ONNX file that computes the same."""

    weights: Mapping[str, Tensor]
    onnx: bytes

    def safetensors(self) -> bytes:
        """The tensors as a file."""
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in self.weights.items()})


def write_bundle(
    folder: Path,
    model_file: ModelFile,
    network: Network,
    *,
    field: Network | None = None,
    cases: Cases | None = None,
) -> None:
    """Writes the bundle; one that is there already is replaced.

    Args:
        folder: of the bundle.
        model_file: model.json.
        network: that sees one image.
        field: that sees the field of patches around each, where the architecture has one.
        cases: training images that it carries, which model.json must say.

    Raises:
        UsageError: something else is at `folder`.
    """
    contents = {"weights.safetensors": network.safetensors(), "model.onnx": network.onnx}
    if field is not None:
        contents |= dict(zip(FIELD, (field.onnx, field.safetensors()), strict=True))
    if cases is not None:
        contents |= cases.files()
    _write_files(folder, model_file, contents)


def rewrite_bundle(bundle: Bundle, folder: Path, model_file: ModelFile | None = None) -> None:
    """Writes a bundle with the same networks into another folder, under another model.json if one is given.

    The cases go along unless that names none.

    Raises:
        UsageError: something else than a bundle is at `folder`.
    """
    model = model_file or bundle.model
    _write_files(folder, model, _networks_and_cases(bundle, model))


def without_cases(bundle: Bundle) -> Bundle:
    """The same bundle without pictures of training images and whose they are; nothing is written."""
    model = bundle.model.model_copy(update={"cases": None})
    contents = _contents(model, _networks_and_cases(bundle, model))
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return Bundle(bundle.folder, sums, model, _InMemory(contents))


@dataclass(frozen=True, slots=True)
class _InMemory:
    contents: Mapping[str, bytes]

    def read(self, name: str, *, limit: int) -> bytes:
        assert len(self.contents[name]) <= limit
        return self.contents[name]


def _networks_and_cases(bundle: Bundle, model: ModelFile) -> dict[str, bytes]:
    names = ["weights.safetensors", "model.onnx", *(name for name in FIELD if name in bundle.sums)]
    names += [] if model.cases is None else CASES
    return {name: bundle.read(name) for name in names}


def _contents(model_file: ModelFile, others: Mapping[str, bytes]) -> dict[str, bytes]:
    return {
        "model.json": model_file.to_json().encode(),
        **others,
        "MODEL_CARD.md": model_card(model_file).encode(),
    }


def _write_files(folder: Path, model_file: ModelFile, others: Mapping[str, bytes]) -> None:
    _check_replaceable(folder)
    contents = _contents(model_file, others)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in contents.items():
        (partial / name).write_bytes(content)
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items()]
    (partial / SUMS).write_text("".join(sums), encoding="utf-8")
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Passes when a bundle can be made there that takes nobody's place.

    Raises:
        UsageError: something is there already.
        DataError: the folder that is to hold it is not there and cannot be made, or nothing can be written to it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is there already. Give a folder that does not exist yet with --out.")
    with disk_errors(folder):
        make_folder(folder.parent)
        trial = partial_path(folder)
        make_folder(trial)
        trial.rmdir()


def _check_replaceable(folder: Path) -> None:
    if not folder.exists() or (folder / SUMS).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UsageError(f"{folder}: is there already and is no bundle. Give a folder that does not exist yet.")
