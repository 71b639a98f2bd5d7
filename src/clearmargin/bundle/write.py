"""Writing a bundle: all files under another name first, then one rename."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from clearmargin.bundle.card import model_card
from clearmargin.bundle.read import REQUIRED, SUMS
from clearmargin.bundle.schema import ModelFile


def write_bundle(folder: Path, model_file: ModelFile, *, weights: Mapping[str, Tensor], onnx: bytes) -> None:
    """Writes the bundle; one that is there already is replaced."""
    contents = {
        "model.json": model_file.to_json().encode(),
        "weights.safetensors": save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}),
        "model.onnx": onnx,
        "MODEL_CARD.md": model_card(model_file).encode(),
    }
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in REQUIRED:
        (partial / name).write_bytes(contents[name])
    sums = [f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in REQUIRED]
    (partial / SUMS).write_text("".join(sums), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
