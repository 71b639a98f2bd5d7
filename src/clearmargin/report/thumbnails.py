"""Thumbnails of what the audit found, as data URIs within a budget, so that a page has a bounded size.

Images come through the caller's `load_image`, never from disk here. 16 bits become 8 by the scale of the
container, the same for every image, so that a dark image stays dark.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import escape
from numpy.typing import NDArray
from PIL import Image

from clearmargin.errors import ImageError
from clearmargin.report.findings import Values, clean, groups_of, paths_of, short_path

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
LoadImage = Callable[[str], Pixels]

LONGEST_PX = 96
MOST_OF_FINDING = 12
MOST_GROUPS = 6
MOST_OF_GROUP = 4
MOST_WITHOUT_PICTURE = 3
"""Of a finding none of whose files can be shown: the reasons repeat themselves."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One file; `source` is a data URI, or None with the `reason` why there is no picture."""

    name: str
    file_name: str
    label: str
    source: str | None = None
    width: int = 1
    height: int = 1
    deep: bool = False
    reason: str | None = None

    @property
    def cost(self) -> int:
        """Bytes of the page, about."""
        twice = size_on_page(self.file_name) + size_on_page(self.label)  # in the text and for those who cannot see
        return len(self.source or "") + size_on_page(self.name) + 2 * twice + size_on_page(self.reason or "") + 200


@dataclass(frozen=True, slots=True)
class Gallery:
    """The thumbnails of one finding: groups of files that belong together, or one group of examples.

    `sizes` holds the true size of each group shown, `n_of` the number of all files (or groups, where grouped).
    """

    groups: tuple[tuple[Thumbnail, ...], ...] = ()
    sizes: tuple[int, ...] = ()
    grouped: bool = False
    n_of: int = 0

    @property
    def n_shown(self) -> int:
        """Groups where grouped, otherwise files."""
        return len(self.groups) if self.grouped else sum(map(len, self.groups))

    @property
    def deep(self) -> bool:
        """At least one of the images has 16 bits."""
        return any(each.deep for group in self.groups for each in group)


def build_galleries(
    findings: Sequence[Values],
    load_image: LoadImage,
    *,
    root: str,
    labels: Mapping[str, str],
    unusable: Collection[str],
    allowance: int,
) -> list[Gallery]:
    """A gallery for each finding, together at most `allowance` bytes of the page.

    What one finding leaves of its share the next ones have. An image is loaded once, however often it is found.

    Args:
        findings: in the order of the page.
        load_image: path to (H, W, 1) grey or (H, W, 3) RGB, uint8 or uint16; an `ImageError` becomes a
            placeholder with its reason.
        root: paths are shown as seen from here.
        labels: path to what is known of the image, as `malignant, patient P-1`.
        unusable: paths in quarantine, which are not opened again.
        allowance: bytes of the page for all thumbnails together.
    """
    known: dict[str, Thumbnail] = {}

    def look_up(path: str) -> Thumbnail:
        if path not in known:
            known[path] = _thumbnail(path, load_image, root=root, label=labels.get(path, ""))
        return known[path]

    galleries = []
    for number, finding in enumerate(findings):
        share = allowance // (len(findings) - number)
        gallery = _gallery(finding, look_up, unusable=unusable, allowance=share)
        galleries.append(gallery)
        allowance -= sum(each.cost for group in gallery.groups for each in group)
    return galleries


def _gallery(
    finding: Values, look_up: Callable[[str], Thumbnail], *, unusable: Collection[str], allowance: int
) -> Gallery:
    groups = groups_of(finding)
    if groups:
        wanted = [group[:MOST_OF_GROUP] for group in groups[:MOST_GROUPS]]
    else:
        candidates = [path for path in paths_of(finding) if path not in unusable]
        wanted = [[path] for path in _spread(candidates, MOST_OF_FINDING)]
    shown: list[tuple[Thumbnail, ...]] = []
    room = MOST_OF_FINDING
    for members in wanted:
        found: list[Thumbnail] = []
        for path in members[:room]:
            each = look_up(path)
            if each.cost > allowance:
                break
            allowance -= each.cost
            found.append(each)
        if len(found) < min(2, len(members)):  # one copy alone shows nothing
            break
        shown.append(tuple(found))
        room -= len(found)
    if not any(each.source for group in shown for each in group):
        shown = shown[:MOST_WITHOUT_PICTURE]
    if groups:
        return Gallery(tuple(shown), tuple(map(len, groups[: len(shown)])), grouped=True, n_of=len(groups))
    examples = tuple(each for group in shown for each in group)
    return Gallery((examples,) if examples else (), (len(examples),), n_of=len(paths_of(finding)))


def _spread(paths: Sequence[str], most: int) -> list[str]:
    """At most so many, evenly spread: the first of a list are often of one patient."""
    if len(paths) <= most:
        return list(paths)
    return [paths[round(index)] for index in np.linspace(0, len(paths) - 1, most)]


def _thumbnail(path: str, load_image: LoadImage, *, root: str, label: str) -> Thumbnail:
    name = short_path(path, root)
    file_name = clean(path.replace("\\", "/").rstrip("/").rpartition("/")[2] or path, 60)
    label = clean(label, 80)
    try:
        image = load_image(path)
    except ImageError as error:
        return Thumbnail(name, file_name, label, reason=clean(error.reason, 100))
    source, width, height = data_uri(image)
    return Thumbnail(name, file_name, label, source, width, height, deep=image.dtype == np.uint16)


def data_uri(image: Pixels, *, longest_px: int = LONGEST_PX) -> tuple[str, int, int]:
    """The image as a data URI, and its width and height in pixels.

    A smaller image keeps its size; PNG or JPEG, whichever is shorter.

    Args:
        image: (H, W, 1) grey or (H, W, 3) RGB, uint8 or uint16.
        longest_px: of its longer side, at most.
    """
    values = to_bytes(image)
    picture = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    if max(picture.size) > longest_px:
        picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
    candidates = [
        ("png", _encoded(picture, "PNG", optimize=True)),
        ("jpeg", _encoded(picture, "JPEG", quality=85, optimize=True)),
    ]
    kind, encoded = min(candidates, key=lambda each: len(each[1]))
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}", picture.width, picture.height


def size_on_page(text: str) -> int:
    """Bytes that the text takes when it is escaped, with a pair of tags."""
    return len(str(escape(text)).encode()) + len("<li><span></span></li>")


def to_bytes(image: Pixels) -> NDArray[np.uint8]:
    """The same picture with 8 bits, uint8 (H, W, C): 65535 becomes 255 whatever the image holds.

    >>> to_bytes(np.array([[[0], [4095], [65535]]], dtype=np.uint16)).ravel().tolist()
    [0, 15, 255]
    """
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    return (image // 257).astype(np.uint8)


def _encoded(picture: Image.Image, kind: str, **options: int | bool) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return stream.getvalue()
