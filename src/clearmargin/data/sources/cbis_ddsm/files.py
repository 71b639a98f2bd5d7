"""The files of CBIS-DDSM by series, and which of a lesion's files is its crop, whatever the tables say.

The tables name a crop and a mask for each lesion, and in part of them the two are swapped; in most downloads both
lie in one folder under names that tell nothing. What they show decides: a mask has the size of the full mammogram
and two values, a crop is small and grey.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearmargin.data.sources.cbis_ddsm.tables import Lesion
from clearmargin.data.sources.dicom.headers import is_named_dicom, read_headers
from clearmargin.errors import ImageError
from clearmargin.images.limits import Pixels
from clearmargin.images.read import is_image, read_image
from clearmargin.images.size import read_size

_MOST_BETWEEN = 0.1
"""Share of a mask's pixels that are neither black nor white, at most: JPEG blurs the outline of the lesion."""
_NEAR = 1 / 16
"""How far from black or white, as a share of the range, still counts as such: the ringing of JPEG."""
_SMALL = 1 / 2
"""A crop has at most this share of the area of the full mammogram; published ones have less than a fifth."""


@dataclass(frozen=True, slots=True)
class Crop:
    """The crop of a lesion as seen from the root; `is_swapped` when the tables say that this file is the mask."""

    name: str
    is_swapped: bool


def index_series(root: Path, files: Sequence[str], wanted: Collection[str]) -> dict[str, list[str]]:
    """The files of each wanted series, in order, by the UID in their path, else by the one in their DICOM header.

    Headers are read only where a series was not found by its path: the NBIA retriever names folders anew.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    unknown: list[str] = []
    wanted = frozenset(wanted)
    for name in files:
        *folders, file_name = name.split("/")
        stem, _, extension = file_name.rpartition(".")
        has_extension = bool(stem) and not extension.isdecimal()  # 1.2.840.10008 is a UID
        if has_extension and not is_image(name):
            continue
        parts = [*folders, stem if has_extension else file_name]
        series = next((part for part in reversed(parts) if part in wanted), None)
        if series is not None:
            found[series].append(name)
        elif is_named_dicom(name) or not has_extension:
            unknown.append(name)
    if unknown and len(found) < len(wanted):
        for header in read_headers(root, unknown):
            if header.tags is not None and header.tags.series_uid in wanted:
                found[header.tags.series_uid].append(header.name)
    return dict(found)


def choose_full(root: Path, names: Sequence[str]) -> str | None:
    """The full mammogram among the files of its series: the largest that is no mask."""
    if len(names) < 2:
        return names[0] if names else None
    sizes = _read_sizes(root, names)
    by_size = sorted(sizes, key=lambda name: -sizes[name][0] * sizes[name][1])
    return next((name for name in by_size if not _is_mask(root / name)), names[0])


def choose_crop(root: Path, lesion: Lesion, series: dict[str, list[str]], full: str | None) -> Crop | None:
    """The crop among the files that the table names as the lesion's crop and mask; None where there is none.

    Sizes decide where they can; else the smallest file is decoded first. A file that cannot be read is taken only
    where there is no other, so that the audit finds it.

    Args:
        root: the data set.
        lesion: the line of the table.
        series: files by series, see `index_series`.
        full: the full mammogram that the lesion is on, where it is there.
    """
    named_crop, named_mask = series.get(lesion.crop.series, []), series.get(lesion.mask.series, [])
    names = [name for name in dict.fromkeys([*named_crop, *named_mask]) if name != full]
    chosen = _choose_grey(root, names, full)
    if chosen is None:
        return None
    if lesion.crop.series != lesion.mask.series:
        return Crop(chosen, chosen not in named_crop)
    return Crop(chosen, len(names) > 1 and chosen != _named_in_folder(names, lesion))


def _choose_grey(root: Path, names: Sequence[str], full: str | None) -> str | None:
    sizes = _read_sizes(root, names)
    full_size = next(iter(_read_sizes(root, [full]).values()), None) if full is not None else None
    if full_size is not None:
        area = full_size[0] * full_size[1]
        small = [name for name, (width, height) in sizes.items() if width * height <= _SMALL * area]
        as_large = [name for name, size in sizes.items() if size == full_size]
        if len(small) == 1 and len(small) + len(as_large) == len(names):
            return small[0]
    by_size = sorted(sizes, key=lambda name: sizes[name][0] * sizes[name][1])
    grey = next((name for name in by_size if not _is_mask(root / name)), None)
    return grey or next((name for name in names if name not in sizes), None)


def _named_in_folder(names: Sequence[str], lesion: Lesion) -> str:
    """Which of the files in one folder the table means: by name, else by number, 000000.dcm being the first."""
    by_name = next((name for name in names if name.rpartition("/")[2] == lesion.crop.file_name), None)
    if by_name is not None:
        return by_name
    number = lesion.crop.file_name.partition(".")[0]
    return sorted(names)[min(int(number), len(names) - 1) if number.isdecimal() else 0]


def _read_sizes(root: Path, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    sizes = {}
    for name in names:
        try:
            sizes[name] = read_size(root / name)
        except ImageError:  # the audit decodes what is used, and says what is wrong with it
            continue
    return sizes


def _is_mask(path: Path) -> bool:
    try:
        return is_two_valued(read_image(path))
    except ImageError:
        return False


def is_two_valued(pixels: Pixels) -> bool:
    """Nearly all pixels are black, or as bright as the brightest: what a mask is, and a picture of tissue is not.

    >>> ramp = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    >>> is_two_valued(np.where(ramp < 9, 255, 0).astype(np.uint8)), is_two_valued(ramp)
    (True, False)
    """
    brightest = int(pixels.max())
    between = (pixels > brightest * _NEAR) & (pixels < brightest * (1 - _NEAR))
    return float(np.count_nonzero(between)) <= _MOST_BETWEEN * pixels.size
