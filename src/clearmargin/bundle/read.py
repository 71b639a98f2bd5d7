"""Reading a bundle, a folder or one `.clearmargin` file: every file verified against SHA256SUMS before it is used."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clearmargin.bundle.schema import ModelFile, parse_model_file
from clearmargin.bundle.single_file import SUFFIX, SingleFile, open_single_file
from clearmargin.errors import BundleError

REQUIRED = ("model.json", "weights.safetensors", "model.onnx", "MODEL_CARD.md")
FIELD = ("context.onnx", "context.safetensors")
"""The network that sees the field of patches around each, where a bundle has one."""
CASES = ("cases.json", "cases.safetensors")
"""Training images to show beside new ones, where a bundle carries any: large, and verified when they are asked for."""
SUMS = "SHA256SUMS"
_WHAT_TO_GIVE = f"Give a bundle folder, the run folder that holds one, or a {SUFFIX} file."
_KERAS = "; 'clearmargin import-keras' makes one of a Keras file"
_OTHER_FILES = {
    ".onnx": ", but a network alone, without what decides",
    **dict.fromkeys((".h5", ".hdf5", ".keras"), _KERAS),
}
_MAX_BYTES = 4 * 2**30
_MAX_SUMS_BYTES = 2**16
_SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.]+)")


class _Files(Protocol):
    """Where the files of a bundle are."""

    def read(self, name: str, *, limit: int) -> bytes:
        """The bytes of one of them.

        Raises:
            BundleError: it is not there, cannot be read, or is above the limit.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path

    def read(self, name: str, *, limit: int) -> bytes:
        path = self.path / name
        if path.is_symlink() and Path(os.path.realpath(path)).parent != Path(os.path.realpath(self.path)):
            _check_regular(path)
            raise BundleError(f"{path}: is a link that leads out of the bundle. Copy the bundle with its files.")
        return _read_file(path, limit=limit)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle; `folder` is where it lies, which may also be a `.clearmargin` file."""

    folder: Path
    sums: dict[str, str]
    model: ModelFile
    files: _Files

    def read(self, name: str) -> bytes:
        """The verified bytes of one of its files."""
        return _read_verified(self.folder, self.files, name, self.sums)

    @property
    def sha256(self) -> str:
        """The identity of the bundle: the hash of its list of hashes."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.sums.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def find_bundle(path: Path | str) -> Path:
    """The bundle that a user means: a `.clearmargin` file, a bundle folder, or the one inside a run folder.

    Raises:
        BundleError: none of these; says what it is, where that is plain.
    """
    place = Path(path)
    if not os.path.exists(place):  # where Path raises, for a name that is too long, os.path says no
        raise BundleError(f"{path}: no such bundle. {_WHAT_TO_GIVE}")
    if place.suffix.lower() == SUFFIX and place.is_file():
        return place
    for folder in (place, place / "bundle"):
        missing = [name for name in (SUMS, "model.json") if not (folder / name).is_file()]
        if not missing:
            return folder
        if len(missing) == 1:
            raise BundleError(f"{folder}: has no {missing[0]}. The bundle is not whole; copy it anew.")
    if (place / "config.toml").is_file():
        raise BundleError(f"{path}: a run that is not finished; it has no bundle yet. Finish it with train --resume.")
    kind = _OTHER_FILES.get(place.suffix.lower(), "") if place.is_file() else ""
    raise BundleError(f"{path}: not a bundle{kind}. {_WHAT_TO_GIVE}")


def read_bundle(path: Path | str) -> Bundle:
    """The bundle at `path`, all files verified; cases, which few ask for, only by `Bundle.read`.

    Raises:
        BundleError: not a bundle, a file missing or changed, or made by an incompatible version.
    """
    place = find_bundle(path)
    files: _Files = _Folder(place) if place.is_dir() else open_single_file(place, {SUMS, *REQUIRED, *FIELD, *CASES})
    sums = _read_sums(place, files)
    if isinstance(files, SingleFile) and (more := sorted(set(files.members) - {SUMS, *sums})):
        raise BundleError(f"{place}: holds {more[0]}, which {SUMS} does not name. Make the file anew.")
    model_json = b""
    for name in [name for name in sums if name not in CASES]:  # which are verified when somebody asks for them
        content = _read_verified(place, files, name, sums)
        model_json = content if name == "model.json" else model_json
    model = parse_model_file(model_json, str(place / "model.json"))
    if model.architecture.field is not None and (lost := [name for name in FIELD if name not in sums]):
        raise BundleError(f"{place}: has no {' and no '.join(lost)}, which model.json names. Copy the bundle anew.")
    if any((name in sums) != (model.cases is not None) for name in CASES):  # the card says what model.json says
        raise BundleError(
            f"{place}: has not the {' and '.join(CASES)} that model.json speaks of. Copy the bundle anew."
        )
    return Bundle(place, sums, model, files)


def _read_sums(place: Path, files: _Files) -> dict[str, str]:
    path = place / SUMS
    text = files.read(SUMS, limit=_MAX_SUMS_BYTES).decode("ascii", errors="replace")
    if not text.endswith("\n"):
        raise BundleError(f"{path}: ends in the middle of a line. Copy the bundle anew.")
    sums: dict[str, str] = {}
    # Not splitlines: a byte that it takes for a line's end would be a change that nobody notices.
    for line in text.removesuffix("\n").split("\n"):
        found = _SUMS_LINE.fullmatch(line)
        if found is None or found[2] not in (*REQUIRED, *FIELD, *CASES) or found[2] in sums:
            raise BundleError(f"{path}: the line {line[:100]!r} is not one of a bundle. Make the bundle anew.")
        sums[found[2]] = found[1]
    missing = [name for name in REQUIRED if name not in sums]
    if missing:
        raise BundleError(f"{path}: has no line for {', '.join(missing)}. Make the bundle anew.")
    return sums


def _read_verified(place: Path, files: _Files, name: str, sums: dict[str, str]) -> bytes:
    content = files.read(name, limit=_MAX_BYTES)
    if hashlib.sha256(content).hexdigest() != sums[name]:
        raise BundleError(
            f"{place / name}: the content is not the one that {SUMS} names: changed or damaged. Copy the bundle anew."
        )
    return content


def _read_file(path: Path, *, limit: int) -> bytes:
    try:
        _check_regular(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, limit) + 1)  # Python sets aside as much as it is asked to read
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}). The bundle is not whole; copy it anew."
        ) from None
    if len(content) > limit:
        raise BundleError(f"{path}: larger than the limit of {limit:,} bytes.")
    return content


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe or a device would be read for ever
        raise BundleError(f"{path}: is not a regular file. Copy the bundle anew.")
