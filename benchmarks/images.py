"""Images to measure on: a folder of the user's, or phantom patches, linked under as many names as asked for."""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearmargin.data.phantom import PhantomSettings, write_phantom
from clearmargin.data.walk import walk_files
from clearmargin.images.read import is_image


def add_options(parser: argparse.ArgumentParser, *, images: int) -> None:
    """The options that every benchmark on files has."""
    parser.add_argument("--data", type=Path, help="a folder of images; phantom patches if not given")
    parser.add_argument("--images", type=int, default=images, help="how many files; names repeat the content")


@contextmanager
def folder_of(data: Path | None, images: int) -> Iterator[Path]:
    """An IDC-style folder of `images` files, hard links to the originals under new names."""
    with tempfile.TemporaryDirectory() as temporary:
        originals = data or write_phantom(
            Path(temporary) / "phantom", PhantomSettings(patients=12, patches_per_patient=90)
        )
        files = [originals / name for name in walk_files(originals) if is_image(name)]
        root = Path(temporary) / "linked"
        for number, file in enumerate(itertools.islice(itertools.cycle(files), images)):
            label = file.parent.name if file.parent.name in ("0", "1") else "0"
            folder = root / f"P{number % 279:03}" / label
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"P{number % 279:03}_idx5_x{number * 50 + 1}_y1_class{label}{file.suffix}"
            try:
                os.link(file, target)
            except OSError:  # another file system
                target.write_bytes(file.read_bytes())
        yield root
