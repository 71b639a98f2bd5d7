"""What one image may cost at most, and what an array of pixels is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import UsageError

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


def check_pixels(pixels: object) -> None:
    """Passes for a decoded image: uint8 or uint16, (H, W, 1) or (H, W, 3).

    Raises:
        UsageError: anything else.
    """
    if not isinstance(pixels, np.ndarray):
        raise UsageError(f"pixels are an array, not {type(pixels).__name__}; an image is (H, W, 1) or (H, W, 3).")
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise UsageError(f"pixels have the shape {pixels.shape}; an image is (H, W, 1) or (H, W, 3).")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UsageError(f"pixels are {pixels.dtype}; an image has whole numbers of 8 or 16 bits, uint8 or uint16.")
