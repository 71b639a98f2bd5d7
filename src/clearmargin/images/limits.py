"""What one image may cost at most, and what an array of pixels is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Window = Literal["stored", "full"]
"""What the values of a DICOM file mean: shown through its own VOI LUT or window, or over their full range."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost at most."""

    max_bytes: int = 512 * 2**20
    max_pixels: int = 89_478_485  # Pillow's own bound against decompression bombs
    max_seconds: float = 30.0
    """Of decoding in a child process (`isolate.py`); what is decoded in this one is bounded by its size."""
    isolate: Literal["risky", "all"] = "risky"
    """Which kinds are decoded in a child: those with a large or complicated decoder, or, of strangers, all."""
