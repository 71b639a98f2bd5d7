"""Looking at the first files of a tree, to tell one layout from another without walking all of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from clearmargin.data.walk import is_tree, walk_files
from clearmargin.images.read import is_image

_LOOK_AT = 200


def has_named_images(path: Path, parse: Callable[[str], object | None]) -> bool:
    """Most of the first images below the path have names, without their folders, that `parse` knows (not None)."""
    if not is_tree(path):
        return False
    names = [name for name in itertools.islice(walk_files(path), _LOOK_AT * 10) if is_image(name)][:_LOOK_AT]
    known = sum(parse(name.rpartition("/")[2]) is not None for name in names)
    return known * 2 > len(names)
