"""Boxes around lesions, kept inside the image, as they stand in a path (`images/place.py`)."""

from __future__ import annotations

from clearmargin.images.place import Box


def square_box(centre: tuple[float, float], side_px: int, *, width: int, height: int) -> Box:
    """A square around the centre (x, y from the top left), moved to lie inside, smaller only where the image is.

    >>> square_box((5.0, 50.0), 20, width=100, height=100)
    (0, 40, 20, 20)
    """
    side = min(side_px, width, height)
    left = min(max(round(centre[0] - side / 2), 0), width - side)
    top = min(max(round(centre[1] - side / 2), 0), height - side)
    return left, top, side, side


def widened_box(box: Box, margin_px: int, *, width: int, height: int) -> Box:
    """The box with a margin on every side, cut off at the image's edges.

    >>> widened_box((2, 40, 20, 10), 8, width=100, height=100)
    (0, 32, 30, 26)
    """
    left, top = max(box[0] - margin_px, 0), max(box[1] - margin_px, 0)
    right, bottom = min(box[0] + box[2] + margin_px, width), min(box[1] + box[3] + margin_px, height)
    return left, top, right - left, bottom - top
