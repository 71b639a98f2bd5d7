r"""File names as text that every table, JSON file and page can hold.

A name on disk is bytes, and need not be Unicode: an old archive gives `gew\xe4chs.png`. Python then has a
lone surrogate in its place, on which the writing of Parquet, CSV and UTF-8 fails. So a name is written with
`\udce4` there, spelt out, from the moment it is found, and turned back only to open the file.
"""

from __future__ import annotations

import re

_SPELT_OUT = re.compile(r"\\u(d[89a-f][0-9a-f]{2})")


def written_name(name: str) -> str:
    r"""The name with what is not Unicode spelt out; any other name is unchanged.

    >>> written_name("gew\udce4chs.png")
    'gew\\udce4chs.png'
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def name_on_disk(written: str) -> str:
    r"""The name that `written_name` spelt out.

    >>> name_on_disk(written_name("gew\udce4chs.png")) == "gew\udce4chs.png"
    True
    """
    return _SPELT_OUT.sub(lambda match: chr(int(match[1], 16)), written)
