"""The mistakes that the model was surest of, and their thumbnails as data URIs.

Both kinds are shown, missed malignant images and false alarms, since a threshold far from 0.5 would let
one kind push out the other. Images come through the caller's `load_image`, never from disk here.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from clearmargin.errors import ImageError
from clearmargin.types import BENIGN, LABEL_NAMES, MALIGNANT

LoadImage = Callable[[str], NDArray[np.uint8]]

LONGEST_PX = 240
"""Of a thumbnail; a smaller image is embedded as it is and enlarged by the page, pixel by pixel."""


@dataclass(frozen=True, slots=True)
class Card:
    """One mistake; `source` is a data URI, or None with the `reason` why there is no picture."""

    path: str
    file_name: str
    patient_id: str | None
    label: str
    probability: float
    source: str | None
    width: int
    height: int
    reason: str | None = None


def find_mistakes(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Misjudged rows by kind (`missed`, `false_alarms`), the surest first; an abstention is no mistake.

    Args:
        predictions: rows of one split, as `read_predictions` gives them.
    """
    benign, malignant = (predictions["decision"] == name for name in LABEL_NAMES)
    missed = predictions[benign & (predictions["label"] == MALIGNANT)]
    alarms = predictions[malignant & (predictions["label"] == BENIGN)]
    return {
        "missed": missed.sort_values(["probability", "path"], ascending=[True, True]),
        "false_alarms": alarms.sort_values(["probability", "path"], ascending=[False, True]),
    }


def build_cards(mistakes: dict[str, pd.DataFrame], load_image: LoadImage, *, most: int = 12) -> dict[str, list[Card]]:
    """At most `most` cards in all, half of each kind; what one kind leaves free the other fills."""
    half = most // 2
    room = {"missed": most - min(half, len(mistakes["false_alarms"])), "false_alarms": most}
    cards: dict[str, list[Card]] = {}
    for kind, rows in mistakes.items():
        chosen = rows.head(min(room[kind], most - sum(map(len, cards.values()))))
        cards[kind] = [_card(row, load_image) for _, row in chosen.iterrows()]
    return cards


def _card(row: pd.Series, load_image: LoadImage) -> Card:
    path, patient = str(row["path"]), row["patient_id"]
    source, width, height, reason = None, 1, 1, None
    try:
        image = load_image(path)
        source, height, width = data_uri(image), image.shape[0], image.shape[1]
    except ImageError as error:
        reason = error.reason
    return Card(
        path=path,
        file_name=PurePath(path.replace("\\", "/")).name or path,
        patient_id=None if pd.isna(patient) else str(patient),
        label=LABEL_NAMES[int(row["label"])],
        probability=float(row["probability"]),
        source=source,
        width=width,
        height=height,
        reason=reason,
    )


def data_uri(image: NDArray[np.uint8]) -> str:
    """The image as a PNG data URI, reduced to `LONGEST_PX` where it is larger.

    Args:
        image: (H, W, 3) RGB or (H, W, 1) grey, uint8.
    """
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if max(picture.size) > LONGEST_PX:
        picture.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
