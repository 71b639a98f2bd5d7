"""Keyed hashes in the place of patients, slides and paths, so that nothing written down names a person.

The same key gives the same pseudonym in every run, so that runs can be compared; without the key nobody can
find a person by hashing all known ids. The key is a file of the user's own that is made when first needed:
keep it as long as pseudonyms must stay the same, and apart from what is shared. Where images are read is known in
memory only (`Manifest.originals`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import platformdirs

from clearmargin.data.manifest import Manifest
from clearmargin.errors import DataError, counted
from clearmargin.images.place import file_of, parse_place
from clearmargin.settings import RunConfig
from clearmargin.types import Finding

_KEY_BYTES = 32
_HEX = 16
_PATH_SETTINGS = ("root", "split_file", "exclude_file", "labels_file")


def read_key() -> bytes:
    """The user's key, made now where there is none yet; in $CLEARMARGIN_KEY_FILE, else the user's configuration folder.

    Raises:
        DataError: the file cannot be read or made, or is too short to be a key.
    """
    path = key_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_text(encoding="ascii").strip().encode()
        else:
            key = secrets.token_hex(_KEY_BYTES).encode()
            with os.fdopen(handle, "wb") as file:
                file.write(key + b"\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a key"
        raise DataError(
            f"{path}: the key of pseudonyms cannot be used ({reason}). Name another file in CLEARMARGIN_KEY_FILE."
        ) from None
    if len(key) < _KEY_BYTES:
        raise DataError(f"{path}: too short for a key of pseudonyms. Delete it, and a new one is made.")
    return key


def key_file() -> Path:
    """Where the key is, or would be made."""
    named = os.environ.get("CLEARMARGIN_KEY_FILE")
    return Path(named or Path(platformdirs.user_config_dir("clearmargin")) / "pseudonyms.key")


def pseudonym(kind: str, value: str, key: bytes) -> str:
    """The word that stands for a value of one kind.

    >>> pseudonym("patient", "DOE^JANE", b"key")
    'patient-8e4cb2f7b96ec672'
    """
    return f"{kind}-{hmac.new(key, f'{kind}:{value}'.encode(), hashlib.sha256).hexdigest()[:_HEX]}"


def pseudonymise(manifest: Manifest, key: bytes) -> Manifest:
    """The manifest with keyed hashes for patient_id, slide_id and path; extensions, frames and boxes stay.

    A pseudonym of a path is that of its place below the root, so that a moved data set keeps its pseudonyms.
    The findings keep their kind, severity and numbers; their words, which name files, are replaced.
    """
    paths = manifest.frame["path"].tolist()
    root = pseudonym("data", str(manifest.root), key)

    def hide(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"{root}/{_file_pseudonym(name, key)}" for name in manifest.seen_from_root(names))

    public = hide(paths)
    frame = manifest.frame.assign(
        path=pd.Series(public, dtype="str"),
        patient_id=_column(manifest.frame["patient_id"], "patient", key),
        slide_id=_column(manifest.frame["slide_id"], "slide", key),
    )
    findings = tuple(_hide_words(finding, hide) for finding in manifest.findings)
    originals = dict(zip(public, paths, strict=True))
    return replace(manifest, frame=frame, root=Path(root), findings=findings, originals=originals)


def hide_paths(config: RunConfig, key: bytes) -> RunConfig:
    """The settings with a pseudonym for each path in them, as they are written down."""
    data = config.data
    hidden = {name: pseudonym("data", getattr(data, name), key) for name in _PATH_SETTINGS if getattr(data, name)}
    weights = config.model.weights
    hidden_weights = weights if weights in ("", "hub") else pseudonym("data", weights, key)
    model = config.model.model_copy(update={"weights": hidden_weights})
    return config.model_copy(update={"data": data.model_copy(update=hidden), "model": model})


@contextmanager
def nameless_errors(*paths: str | None) -> Iterator[None]:
    """Errors about the data raised inside lose what they quote and the paths given; they may go into a log.

    Raises:
        DataError: in the place of each.
    """
    try:
        yield
    except DataError as error:
        text = str(error)
        for path in sorted(filter(None, paths), key=len, reverse=True):
            text = text.replace(path, "DATA")
        text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", re.sub(r"(?:DATA|/)[^\s'\":,]*/[^\n'\":,]*", "DATA", text))
        raise DataError(f"{text} (Names are left out: --pseudonymise. Without it the message is whole.)") from None


def _file_pseudonym(path: str, key: bytes) -> str:
    extension = os.path.splitext(file_of(path))[1].lower()
    fragment = parse_place(path).fragment
    shown = extension if len(extension) <= 6 and extension[1:].isalnum() and extension.isascii() else ""
    return f"{pseudonym('image', path, key)}{shown}{fragment}"


def _column(values: pd.Series[str], kind: str, key: bytes) -> pd.Series[str]:
    words = {value: pseudonym(kind, value, key) for value in values.dropna().unique()}
    return values.map(words).astype("str").where(values.notna())


def _hide_words(finding: Finding, hide: Callable[[Iterable[str]], tuple[str, ...]]) -> Finding:
    about = counted(finding.count, "case", "cases") if finding.count else "see its kind"
    return replace(
        finding,
        message=f"{finding.kind.replace('_', ' ')}: {about}; the words, which name files, are left out.",
        paths=hide(finding.paths),
        groups=tuple(hide(group) for group in finding.groups),
    )
