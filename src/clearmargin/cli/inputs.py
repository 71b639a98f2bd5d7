"""The images that the arguments of `predict` mean, listed anew each time, so that they are never all in memory."""

from __future__ import annotations

import csv
import glob
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from clearmargin.data.walk import walk_files
from clearmargin.errors import DataError, counted
from clearmargin.images.archive import is_zip
from clearmargin.images.names import image_of_mask
from clearmargin.images.npz import list_arrays
from clearmargin.images.place import parse_place, split_archive
from clearmargin.images.read import is_image, is_whole_slide, starts_like_dicom
from clearmargin.predict.records import record_of_path, records_of_rows
from clearmargin.types import Record


class Inputs:
    """Records in the order of the arguments; folders and .zip files are searched through, masks beside images left out.

    Everything that can be wrong with the list is found when it is made.

    Args:
        paths: images, folders, archives, globs, manifests.
        frame: of DICOM files with several, where the path names none.

    Raises:
        DataError: a path is not there, a glob or folder has no image, a manifest has no column `path` or a bad row.
    """

    def __init__(self, paths: Iterable[str], *, frame: int | None = None) -> None:
        self._places = [place for path in paths for place in _expand(path)]
        self._frame = frame
        self._masks: set[str] = set()
        self._n_slides = 0
        self._n = self._count()
        if self._n_slides:
            words = counted(self._n_slides, "whole-slide file is", "whole-slide files are")
            print(f"Note: {words} left out, which are not read yet: cut them into patches.", file=sys.stderr)
        if self._masks:
            words = counted(len(self._masks), "mask is", "masks are")
            print(f"Note: {words} left out, beside the images they belong to.", file=sys.stderr)

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Record]:
        for place in self._places:
            if _is_table(place):
                yield from _manifest_records(Path(place))
            else:
                for path in _paths_at(place):
                    if path not in self._masks:
                        yield record_of_path(path, frame=self._frame)

    @property
    def sha256(self) -> str:
        """The identity of the list: of what is said of each image, not of its bytes."""
        digest = hashlib.sha256()
        for record in self:
            facts = (record.path, record.patient_id, record.slide_id, record.x, record.y)
            digest.update(f"{facts!r}\n".encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    def _count(self) -> int:
        """How many there are; knows the masks among them afterwards."""
        number, images_of = 0, dict[str, list[str]]()
        for place in self._places:
            before = number
            if _is_table(place):
                number += sum(1 for _ in _manifest_records(Path(place)))
                continue
            slides = _count_slides(place)
            self._n_slides += slides
            for path in _paths_at(place):
                number += 1
                # A folder, or a shell's *.png, means an image and its masks alike; a table says which it means.
                if "_mask" in path and (image := image_of_mask(path)) is not None:
                    images_of.setdefault(image, []).append(path)
            if number == before:
                if slides:
                    words = counted(slides, "whole-slide file", "whole-slide files")
                    raise DataError(f"{place}: holds {words}, which are not read yet: cut them into patches.")
                raise DataError(f"{place}: no images in this folder.")
        if images_of:
            found = (path for place in self._places if not _is_table(place) for path in _paths_at(place))
            self._masks = {mask for path in found for mask in images_of.get(path.rpartition(".")[0], ())}
        return number - len(self._masks)


def _is_table(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in (".csv", ".parquet") and os.path.isfile(path)


def _expand(path: str) -> list[str]:
    """The path itself if anything is there, else what matches it as a glob."""
    # os.path answers no, where Path raises, for a name that is too long or holds a null byte.
    if os.path.lexists(path) or os.path.lexists(parse_place(path).file) or split_archive(path) is not None:
        return [path]
    if not any(character in path for character in "*?["):
        raise DataError(f"{path}: no such file or folder.")
    matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        raise DataError(f"{path}: no file matches.")
    if len(matches) == 1:
        return matches
    wanted = [match for match in matches if os.path.isdir(match) or is_image(match) or starts_like_dicom(match)]
    if not wanted:
        raise DataError(f"{path}: none of the {len(matches):,} matches is an image or a folder.")
    return wanted


def _count_slides(path: str) -> int:
    """The whole-slide files in a folder or an archive, which `_paths_at` passes over."""
    if not (os.path.isdir(path) or is_zip(path)):
        return 0
    return sum(1 for name in walk_files(Path(path)) if is_whole_slide(name))


def _paths_at(path: str) -> Iterator[str]:
    """The path of one image, or those of the images in a folder or an archive."""
    place = Path(path)
    if os.path.isdir(path) or is_zip(path):
        folder = str(place / "_")[:-1]
        for name in walk_files(place):
            if is_image(name) or starts_like_dicom(place / name):
                yield folder + name
    elif place.suffix.lower() == ".npz" and os.path.isfile(path):
        shapes = {name: shape for name, shape in list_arrays(path).items() if len(shape) >= 3}
        if not shapes:
            raise DataError(f"{path}: holds no array of images, (N, H, W) or (N, H, W, 3).")
        for name, shape in shapes.items():
            for row in range(shape[0]):
                yield f"{path}/{name}/{row}"
    else:
        yield path


def _manifest_records(path: Path) -> Iterator[Record]:
    is_empty = True
    for record in records_of_rows(_manifest_rows(path), where=str(path), folder=path.parent, first_line=2):
        is_empty = False
        yield record
    if is_empty:
        raise DataError(f"{path}: the manifest has no rows.")


def _manifest_rows(path: Path) -> Iterator[dict[str, object]]:
    if path.suffix.lower() == ".parquet":
        from clearmargin.data.sources.csv import read_table

        table = read_table(path)
        for values in table.itertuples(index=False, name=None):
            yield dict(zip(table.columns, values, strict=True))
        return
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV ({error}).") from None
