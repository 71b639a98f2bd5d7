"""What the file names of known data sets say; light to import, because single predictions use it too."""

from __future__ import annotations

import re

_IDC = re.compile(r"^(?P<patient>[^/]+?)_idx\d+_x(?P<x>\d{1,9})_y(?P<y>\d{1,9})_class(?P<label>[01])\.\w+$")


def parse_idc_name(name: str) -> tuple[str, int, int, int] | None:
    """Patient, x, y and label of an IDC file name, or None for a name of another form.

    >>> parse_idc_name("8863_idx5_x451_y1451_class0.png")
    ('8863', 451, 1451, 0)
    """
    match = _IDC.match(name)
    return (match["patient"], int(match["x"]), int(match["y"]), int(match["label"])) if match else None
