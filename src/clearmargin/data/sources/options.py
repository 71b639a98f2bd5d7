"""What a user may ask of a source, besides where the data are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Choices that only some layouts know; `Source.options` names those that a source takes.

    `view` is the full image or a crop around each lesion; `normal` says what becomes of images without any
    lesion; `magnification` keeps images of these magnifications only, all when empty; `labels` is a CSV with
    the labels, where the images themselves carry none; `frame` is the frame of multi-frame images, from 1.
    """

    view: Literal["full", "crop"] = "full"
    normal: Literal["exclude", "benign"] = "exclude"
    magnification: tuple[int, ...] = ()
    labels: Path | None = None
    frame: int | None = None
