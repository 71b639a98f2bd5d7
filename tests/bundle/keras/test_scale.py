"""A network that begins with a rescaling gets the pixels that it was made for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundle.keras.files import sequential, write_old

from clearmargin.bundle.keras.network import ImportOptions, read_network
from clearmargin.types import Listener

UNIT, BYTES = Fraction(1, 255), Fraction(1)


class Notes(Listener):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def read(path: Path, first: tuple[str, dict[str, Any]], **options: Any) -> tuple[Fraction, list[str]]:
    """The scale that is chosen for a network with this first layer, and what is said of it."""
    kind, config = first
    layers = sequential(
        (kind, {"name": "first", "batch_input_shape": [None, 8, 8, 3], **config}),
        ("GlobalAveragePooling2D", {"name": "mean"}),
        ("Dense", {"name": "dense", "units": 1, "activation": "sigmoid"}),
    )
    dense = [("dense/kernel:0", np.ones((3, 1), np.float32)), ("dense/bias:0", np.zeros(1, np.float32))]
    file = write_old(path / "a.h5", layers, {"first": [], "mean": [], "dense": dense}, version="2.15.0")
    notes = Notes()
    return read_network(file, ImportOptions(**options), listener=notes).scale, notes.texts


IMAGENET = {"axis": -1, "mean": [0.485, 0.456, 0.406], "variance": [0.0524, 0.0502, 0.0506]}
IMAGENET_BYTES = {"axis": -1, "mean": [123.7, 116.3, 103.5], "variance": [3410.0, 3260.0, 3290.0]}


@pytest.mark.parametrize(
    ("first", "scale", "said"),
    [
        (("Rescaling", {"scale": 1 / 255, "offset": 0.0}), BYTES, "from 0 to 255, which become 0 to 1"),
        (("Rescaling", {"scale": 1 / 127.5, "offset": -1.0}), BYTES, "from 0 to 255, which become -1 to 1"),
        (("Rescaling", {"scale": 1.0, "offset": -127.5}), BYTES, "from 0 to 255, which become -128 to 128"),
        (("Rescaling", {"scale": -1.0, "offset": 255.0}), BYTES, "from 0 to 255, which become 0 to 255"),
        (("Normalization", IMAGENET_BYTES), BYTES, "from 0 to 255"),
        (("Rescaling", {"scale": 1 / 0.15, "offset": -0.7 / 0.15}), UNIT, "from 0 to 1, which become -4.67 to 2"),
        (("Rescaling", {"scale": 2.0, "offset": -1.0}), UNIT, "from 0 to 1, which become -1 to 1"),
        (("Rescaling", {"scale": 255.0, "offset": 0.0}), UNIT, "from 0 to 1, which become 0 to 255"),
        (("Rescaling", {"scale": 1.0, "offset": 0.0}), UNIT, "from 0 to 1"),
        (("Normalization", IMAGENET), UNIT, "from 0 to 1"),
        (("Rescaling", {"scale": 0.2, "offset": 0.0}), UNIT, "does not tell whether it takes pixels from 0 to 1 or"),
        (("Rescaling", {"scale": 1 / 65535, "offset": 0.0}), UNIT, "does not tell"),
    ],
)  # fmt: skip
def test_the_pixels_are_those_that_become_small_numbers_around_zero(
    first: tuple[str, dict[str, Any]], scale: Fraction, said: str, tmp_path: Path
) -> None:
    for channels in ("rgb", "bgr"):
        found, notes = read(tmp_path, first, channels=channels)
        assert found == scale
        assert len(notes) == 1
        assert said in notes[0]
        assert "--scale" in notes[0]


def test_a_scale_that_is_given_is_taken_without_a_word(tmp_path: Path) -> None:
    given = Fraction(1, 100)
    assert read(tmp_path, ("Rescaling", {"scale": 0.2, "offset": 0.0}), scale=given) == (given, [])
