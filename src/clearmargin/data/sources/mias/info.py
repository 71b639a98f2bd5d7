"""The list of lesions that comes with mini-MIAS, `Info.txt`: prose, then a line for each lesion or normal image.

    mdb005 F CIRC B 477 133 30      image, tissue, kind, severity, x and y of the centre, radius
    mdb003 D NORM
    mdb059 F CIRC B                 a lesion without a place
    mdb216 D CALC M *NOTE 3*        another one

x and y are in pixels from the bottom left corner of the image of 1024 × 1024 pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LINE = re.compile(
    r"^\s*(?P<image>mdb\d{3})[ \t,;]+[FGD][ \t,;]+"
    r"(?:(?P<normal>NORM)\b|(?:CALC|CIRC|SPIC|MISC|ARCH|ASYM)[ \t,;]+(?P<severity>[BM])\b"
    r"(?:[ \t,;]+(?P<x>\d{1,4})[ \t,;]+(?P<y>\d{1,4})[ \t,;]+(?P<radius>\d{1,4})\b)?)",
    re.IGNORECASE | re.ASCII,
)
_BEGINS = re.compile(r"^\s*mdb\d{3}\b", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Lesion:
    """One line: whether it is malignant, and x, y and radius in pixels from the bottom left, where they are known."""

    malignant: bool
    circle: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class MiasInfo:
    """The lesions of each image, none for a normal one, and the numbers of lines that could not be understood."""

    lesions: Mapping[str, tuple[Lesion, ...]]
    unclear: tuple[int, ...] = ()


def parse_info(text: str) -> MiasInfo:
    """What the list says; images are called by their lower-case names, such as mdb005.

    >>> parse_info("mdb005 F CIRC B 477 133 30").lesions
    {'mdb005': (Lesion(malignant=False, circle=(477, 133, 30)),)}
    """
    lesions: dict[str, tuple[Lesion, ...]] = {}
    unclear: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.match(line)
        if match is None:
            if _BEGINS.match(line):
                unclear.append(number)
            continue
        image = match["image"].lower()
        found = lesions.setdefault(image, ())
        if match["normal"] is None:
            circle = (int(match["x"]), int(match["y"]), int(match["radius"])) if match["x"] else None
            lesion = Lesion(match["severity"].upper() == "M", circle)
            lesions[image] = (*found, lesion)
    return MiasInfo(lesions, tuple(unclear))
