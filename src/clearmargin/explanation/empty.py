"""What a place looks like where nothing is: what integrated gradients begins with and occlusion covers with."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clearmargin.images.preprocess import Preprocessing
from clearmargin.types import Content

_GREY = 128
_EMPTY: dict[Content | None, int] = {"histology": 240, "mammogram": 0, "ultrasound": 0, "lesion": _GREY, None: _GREY}


def empty_image(preprocessing: Preprocessing, content: Content | None) -> NDArray[np.uint8]:
    """(1, 1, 1, C) packed."""
    return np.full((1, 1, 1, preprocessing.channels), _EMPTY[content], dtype=np.uint8)
