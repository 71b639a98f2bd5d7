"""What callers say of their images, as settings; used by every function that reads a folder of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from clearmargin.config import load_recipe
from clearmargin.errors import DataError
from clearmargin.images.file_names import written_name
from clearmargin.settings import DataSettings

Pathlike = str | os.PathLike[str]


class ImageOptions(TypedDict, total=False):
    """Which images are meant: the options of every command that reads a folder of them."""

    source: str | None
    """The layout of the folder, recognised when None."""
    patient_regex: str | None
    """Takes the patient from each path."""
    exclude: Pathlike | None
    """A text file with one path a line to leave out."""
    tolerance: float | None
    """Share of unusable files up to which the job goes on."""
    labels: Pathlike | None
    """A CSV with the labels, for DICOM folders."""
    view: Literal["full", "crop"] | None
    """Full images, or a crop around each lesion; `full` when None."""
    normal: Literal["exclude", "benign"] | None
    """What becomes of images without any lesion; `exclude` when None."""
    magnification: int | Sequence[int]
    """Of BreaKHis, the magnifications to take; all when empty."""
    frame: int | None
    """Of images with several, the frame to take, counted from 1."""
    pseudonymise: bool
    """Patient ids, slide ids and paths leave as keyed hashes."""


def data_settings(changes: Mapping[str, Any]) -> DataSettings:
    return load_recipe("default", given(changes)).data


def data_changes(
    data: Pathlike,
    *,
    source: str | None = None,
    patient_regex: str | None = None,
    exclude: Pathlike | None = None,
    tolerance: float | None = None,
    labels: Pathlike | None = None,
    view: str | None = None,
    normal: str | None = None,
    magnification: int | Sequence[int] = (),
    frame: int | None = None,
    pseudonymise: bool = False,
) -> dict[str, Any]:
    """The settings of the section `data` by their dotted keys; what was not given is None."""
    return {
        "data.root": absolute(data),
        "data.source": source,
        "data.patient_regex": patient_regex,
        "data.exclude_file": absolute(exclude) if exclude is not None else None,
        "data.tolerance": tolerance,
        "data.labels_file": absolute(labels) if labels is not None else None,
        "data.view": view,
        "data.normal": normal,
        "data.magnification": [magnification] if isinstance(magnification, int) else list(magnification) or None,
        "data.frame": frame,
        "data.pseudonymise": pseudonymise or None,
    }


def given(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes that are not None."""
    return {key: value for key, value in changes.items() if value is not None}


def absolute(path: Pathlike) -> str:
    """The absolute path as text that settings and tables can hold.

    Raises:
        DataError: the name is not Unicode.
    """
    full = os.path.abspath(path)
    if full == written_name(full):
        return full
    there = os.path.lexists(full)
    what = "the name is not Unicode and cannot be written down; rename it" if there else "no such file or folder"
    raise DataError(f"{written_name(os.fspath(path))}: {what}.")
