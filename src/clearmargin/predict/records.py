"""From what a caller has, rows of a table or paths, to records; light, because single predictions use it too."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from clearmargin.errors import DataError, UsageError
from clearmargin.images.names import parse_breakhis_name, parse_idc_name
from clearmargin.images.place import Place
from clearmargin.images.read import starts_like_dicom
from clearmargin.types import Record


def records_of_rows(
    rows: Iterable[Mapping[str, object]], *, where: str, folder: Path | None = None, first_line: int = 1
) -> Iterator[Record]:
    """A record for each row with `path` and, where known, patient_id, slide_id, x and y; None, NaN and "" are missing.

    A row without a path becomes a record without one, which a predictor refuses while the others go on.

    Args:
        rows: by column name; values as text or as pandas makes them.
        where: what the table is called in a message.
        folder: where relative paths are seen from; the working directory when None.
        first_line: number of the first row in a message.

    Raises:
        DataError: there is no column `path`, or an x or y is no whole number.
    """
    for line, row in enumerate(rows, start=first_line):
        if "path" not in row:
            raise DataError(f"{where} has no column 'path'; found {', '.join(map(str, row)) or 'none'}.")
        path = _text(row["path"]) or ""
        yield Record(
            str(folder / path) if folder is not None and path else path,
            patient_id=_text(row.get("patient_id")),
            slide_id=_text(row.get("slide_id")),
            x=_whole(row.get("x"), where, line),
            y=_whole(row.get("y"), where, line),
        )


def records_of_paths(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Record]:
    """A record for each path, or for the one, as `record_of_path`.

    Raises:
        UsageError: there is something that is no path, such as pixels.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if wrong := [type(each).__name__ for each in given if not isinstance(each, str | os.PathLike)]:
        raise UsageError(
            f"images are paths, not {wrong[0]}; give decoded images to predict_pixels of a predictor, or to explain of "
            "an explainer."
        )
    return [record_of_path(str(path)) for path in given]


def record_of_path(path: str, *, frame: int | None = None) -> Record:
    """A record with what the file's name says of its patient, slide and place, where it is a name of a known data set.

    Args:
        path: of the image.
        frame: of a DICOM file with several, where the path names none.
    """
    name = os.path.basename(path)  # noqa: PTH119  (Path takes five times as long)
    facts, breakhis = parse_idc_name(name), parse_breakhis_name(name)
    if frame is not None and "#" not in name and starts_like_dicom(path):
        path = str(Place(path, frame))
    if breakhis is not None:
        return Record(path, breakhis.patient_id, breakhis.slide_id)
    if facts is None:
        return Record(path)
    patient, x, y, _ = facts
    return Record(path, patient, patient, x, y)


def _text(value: object) -> str | None:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # pandas' own, without importing pandas
        return None
    if isinstance(value, float):  # pandas turns a column of whole numbers into floats as soon as one is missing
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    return str(value) or None


def _whole(value: object, where: str, line: int) -> int | None:
    text = _text(value)
    try:
        number = None if text is None else float(text)
    except ValueError:
        number = math.nan
    if number is None or number.is_integer():
        return None if number is None else int(number)
    raise DataError(f"{where}: row {line} has {text!r} for an x or y; they are whole numbers of pixels.")
