"""What callers say of their images, as settings; used by every function that reads a folder of them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar

from clearmargin.config import load_recipe
from clearmargin.errors import DataError, closest
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


Function = TypeVar("Function", bound=Callable[..., object])


def checks_image_options(function: Function) -> Function:
    """The function, which refuses keywords that are neither its own nor of ImageOptions, under its own name.

    Raises:
        TypeError: from the function that is given back; names the keyword and the closest that there is.
    """
    own = [name for name, each in inspect.signature(function).parameters.items() if each.kind is not each.VAR_KEYWORD]
    known = [*own, *ImageOptions.__annotations__]

    @functools.wraps(function)
    def checked(*arguments: object, **keywords: object) -> object:
        for name in keywords:
            if name not in known:
                hint = f"; did you mean '{near}'?" if (near := closest(name, known)) else ""
                raise TypeError(f"{function.__name__}() got an unexpected keyword argument '{name}'{hint}")
        return function(*arguments, **keywords)

    return checked  # type: ignore[return-value]


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
