"""Explanations as files: a picture and the raw map of each, and explanations.jsonl, which names them all.

Each file is whole or not there. The index is written last: a folder without it was interrupted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import UsageError
from clearmargin.explanation.draw import ALPHA, draw_overlay
from clearmargin.explanation.explainer import Explained, Explanation
from clearmargin.explanation.methods import find_method
from clearmargin.explanation.picture import draw_picture
from clearmargin.explanation.words import say_remarks
from clearmargin.files import disk_errors, make_folder, write_text, write_whole
from clearmargin.images.file_names import written_name
from clearmargin.images.place import file_of
from clearmargin.predict.predictor import prediction_row

INDEX = "explanations.jsonl"
_LONGEST = 80
_UNSAFE = re.compile(r"[^\w.-]+")


def check_folder(folder: Path) -> None:
    """Makes the folder, or passes where it is there and empty.

    Raises:
        UsageError: something is in it already, which pictures of the same name would take the place of.
        DataError: nothing can be written there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is there already. Give a folder that does not exist yet with --out.")
    with disk_errors(folder):
        make_folder(folder)


def write_explanations(
    explained: Iterable[Explained],
    folder: Path,
    *,
    alpha: float = ALPHA,
    pictures: bool = True,
    maps: bool = True,
    legend: bool = True,
) -> Iterator[dict[str, Any]]:
    """Writes the files of each image as it comes, and gives a row for each explanation, and for each refused image.

    Args:
        explained: the images, with at least one explanation where they were not refused.
        folder: empty.
        alpha: how much of the image full colour hides, from 0 to 1.
        pictures: write `<name>_<method>.png`.
        maps: write `<name>_<method>.npy`: float32 (H, W) in the network's input, in the unit of the method.
        legend: pictures have the image beside the map and a legend below; without, they are the map over the image.

    Raises:
        DataError: the disk is full, or not writable.
    """
    rows, names = [], _Names()
    with disk_errors(folder):
        for image in explained:
            for row in _write_image(image, folder, names, alpha=alpha, pictures=pictures, maps=maps, legend=legend):
                rows.append(row)
                yield row
        write_text(folder / INDEX, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def explanation_row(explained: Explained, explanation: Explanation | None) -> dict[str, Any]:
    """What is known of an explanation besides its map, flat but for `scale` and `placement`; JSON can hold it."""
    prediction = explained.prediction
    row: dict[str, Any] = {**prediction_row(prediction), "logit": prediction.logit}
    row["path"] = written_name(prediction.record.path)
    if explanation is None:
        return {**row, "threshold": None, "method": None, "remarks": []}
    return {
        **row,
        "threshold": explanation.threshold,
        "method": explanation.method,
        "unit": find_method(explanation.method).unit,
        "scale": explanation.scale.model_dump(),
        "largest": float(explanation.map.max()),
        "smallest": float(explanation.map.min()),
        "plain_logit": explanation.plain_logit,
        "remarks": say_remarks(explanation),
        "placement": asdict(explanation.placement),
    }


def _write_image(
    image: Explained,
    folder: Path,
    names: _Names,
    *,
    alpha: float,
    pictures: bool,
    maps: bool,
    legend: bool,
) -> Iterator[dict[str, Any]]:
    if image.pixels is None:
        yield {**explanation_row(image, None), "picture": None, "map": None}
        return
    name = names.give(image.prediction.record.path)
    for each in image.explanations:
        stem = f"{name}_{each.method}"
        row = {**explanation_row(image, each), "picture": None, "map": None}
        if pictures:
            picture = (
                draw_picture(image.pixels, [each], alpha=alpha)
                if legend
                else draw_overlay(image.pixels, each, alpha=alpha)
            )
            row["picture"] = f"{stem}.png"
            write_whole(folder / f"{stem}.png", picture.save)
        if maps:
            row["map"] = f"{stem}.npy"
            write_whole(folder / f"{stem}.npy", partial(_save, each.map))
        yield row


def _save(values: NDArray[np.float32], path: Path) -> None:
    np.save(path, values, allow_pickle=False)


class _Names:
    """A name for each image, taken from its path, that no other image of this job has, on any file system.

    >>> names = _Names()
    >>> [names.give(path) for path in ("a/x.png", "b/X.png", "b/x-2.jpg", "u.dcm#frame=3")]
    ['x', 'X-2', 'x-2-2', 'u_frame_3']
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def give(self, path: str) -> str:
        file = file_of(path)
        part = path[len(file) :]
        stem = _UNSAFE.sub("_", written_name(Path(file).stem) + part).strip("._")[:_LONGEST] or "image"
        name, number = stem, 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name.casefold())
        return name
