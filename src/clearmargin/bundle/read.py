"""Reading a bundle: every file verified against SHA256SUMS before a byte of it is used."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from clearmargin.bundle.schema import ModelFile, parse_model_file
from clearmargin.errors import BundleError

REQUIRED = ("model.json", "weights.safetensors", "model.onnx", "MODEL_CARD.md")
FIELD = ("context.onnx", "context.safetensors")
"""The network that sees the field of patches around each, where a bundle has one."""
SUMS = "SHA256SUMS"
_MAX_BYTES = 4 * 2**30
_MAX_SUMS_BYTES = 2**16
_SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.]+)")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle folder."""

    folder: Path
    sums: dict[str, str]
    model: ModelFile

    def read(self, name: str) -> bytes:
        """The verified bytes of one of its files."""
        return _read_verified(self.folder, name, self.sums)

    @property
    def sha256(self) -> str:
        """The identity of the bundle: the hash of its list of hashes."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.sums.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def find_bundle(path: Path | str) -> Path:
    """The bundle folder that a user means: the folder itself, or the one inside a run folder.

    Raises:
        BundleError: neither; says what is missing.
    """
    place = Path(path)
    if not os.path.exists(place):  # where Path raises, for a name that is too long, os.path says no
        raise BundleError(f"{path}: no such bundle. Give a bundle folder or the run folder that holds one.")
    for folder in (place, place / "bundle"):
        if (folder / SUMS).is_file() and (folder / "model.json").is_file():
            return folder
    if (place / "config.toml").is_file():
        raise BundleError(f"{path}: a run that is not finished; it has no bundle yet. Finish it with train --resume.")
    raise BundleError(f"{path}: not a bundle; it has no {SUMS} and model.json. Give the folder 'bundle' of a run.")


def read_bundle(path: Path | str) -> Bundle:
    """The bundle at `path`, all files verified.

    Raises:
        BundleError: not a bundle, a file missing or changed, or made by an incompatible version.
    """
    folder = find_bundle(path)
    sums = _read_sums(folder)
    for name in sums:
        _read_verified(folder, name, sums)  # and let go of: weights may be large
    model = parse_model_file(_read_verified(folder, "model.json", sums), str(folder / "model.json"))
    if model.architecture.field is not None and (lost := [name for name in FIELD if name not in sums]):
        raise BundleError(f"{folder}: has no {' and no '.join(lost)}, which model.json names. Copy the bundle anew.")
    return Bundle(folder, sums, model)


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    text = _read_file(path, limit=_MAX_SUMS_BYTES).decode("ascii", errors="replace")
    if not text.endswith("\n"):
        raise BundleError(f"{path}: ends in the middle of a line. Copy the bundle anew.")
    sums: dict[str, str] = {}
    # Not splitlines: a byte that it takes for a line's end would be a change that nobody notices.
    for line in text.removesuffix("\n").split("\n"):
        found = _SUMS_LINE.fullmatch(line)
        if found is None or found[2] not in (*REQUIRED, *FIELD) or found[2] in sums:
            raise BundleError(f"{path}: the line {line[:100]!r} is not one of a bundle. Make the bundle anew.")
        sums[found[2]] = found[1]
    missing = [name for name in REQUIRED if name not in sums]
    if missing:
        raise BundleError(f"{path}: has no line for {', '.join(missing)}. Make the bundle anew.")
    return sums


def _read_verified(folder: Path, name: str, sums: dict[str, str]) -> bytes:
    path = folder / name
    content = _read_file(path, limit=_MAX_BYTES)
    if hashlib.sha256(content).hexdigest() != sums[name]:
        raise BundleError(
            f"{path}: the content is not the one that {SUMS} names: changed or damaged. Copy the bundle anew."
        )
    return content


def _read_file(path: Path, *, limit: int) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would be read for ever
            raise BundleError(f"{path}: is not a regular file. Copy the bundle anew.")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}). The bundle is not whole; copy it anew."
        ) from None
    if len(content) > limit:
        raise BundleError(f"{path}: larger than the limit of {limit:,} bytes.")
    return content
