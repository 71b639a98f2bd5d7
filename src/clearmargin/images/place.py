"""Where an image is: a file, a member of an archive, a row of an array, and which part of it is meant.

One text says it all, so that a manifest, a split and a prediction can name any image in their column `path`:

    scans/mdb001.pgm                          a file
    IDC.zip/8863/0/8863_idx5_x1_y1_class0.png a member of an archive, read without unpacking
    breastmnist.npz/train_images/12           a row of an array
    us/loop.dcm#frame=3                       a frame, counted from 1
    scans/mdb001.pgm#xywh=440,330,200,200     a box in pixels: left, top, width, height

The last two are media fragments (W3C, Media Fragments URI 1.0, `xywh` in pixels).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from clearmargin.images.file_names import name_on_disk

_BOX = r"\d{1,6},\d{1,6},[1-9]\d{0,5},[1-9]\d{0,5}"
_FRAGMENT = re.compile(
    rf"#(?=[fx])(?:frame=(?P<frame>[1-9]\d{{0,5}})(?:&(?=x)|\Z))?(?:xywh=(?P<box>{_BOX}))?\Z", re.ASCII
)
_ARCHIVE = re.compile(r"\.(?:zip|npz)(?=/|\\)", re.IGNORECASE)

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """A file (or a member of an archive), and the frame and the box (left, top, width, height) of it that are meant."""

    file: str
    frame: int | None = None
    box: Box | None = None

    def __str__(self) -> str:
        return f"{self.file}{self.fragment}"

    @property
    def fragment(self) -> str:
        """What stands behind the file's name.

        >>> Place("a.dcm", frame=2, box=(0, 10, 64, 64)).fragment
        '#frame=2&xywh=0,10,64,64'
        """
        parts = [] if self.frame is None else [f"frame={self.frame}"]
        if self.box is not None:
            parts.append("xywh=" + ",".join(map(str, self.box)))
        return f"#{'&'.join(parts)}" if parts else ""


def parse_place(path: str) -> Place:
    """The place that a path names; a file whose own name looks like a fragment is that file.

    >>> parse_place("mdb001.pgm#xywh=440,330,200,200")
    Place(file='mdb001.pgm', frame=None, box=(440, 330, 200, 200))
    """
    match = _FRAGMENT.search(path) if "#" in path else None
    if match is None or os.path.lexists(path) or os.path.lexists(name_on_disk(path)):
        return Place(path)
    frame = int(match["frame"]) if match["frame"] else None
    if match["box"] is None:
        return Place(path[: match.start()], frame)
    left, top, width, height = map(int, match["box"].split(","))
    return Place(path[: match.start()], frame, (left, top, width, height))


def file_of(path: str) -> str:
    """The path without a fragment, as plain text work: what its extension is looked up by.

    >>> file_of("loop.dcm#frame=3"), file_of("plain.png")
    ('loop.dcm', 'plain.png')
    """
    match = _FRAGMENT.search(path) if "#" in path else None
    return path if match is None else path[: match.start()]


def split_archive(path: str) -> tuple[str, str] | None:
    """The archive on disk and the member within it that a path leads through, or None."""
    for match in _ARCHIVE.finditer(path):
        file = path[: match.end()]
        if os.path.isfile(file):
            return file, path[match.end() + 1 :].replace("\\", "/")
        if not os.path.isdir(file):  # then nothing is below it
            return None
    return None
