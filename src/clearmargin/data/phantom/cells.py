"""Cells: where they lie, and the soft, wobbly ellipses by which they are drawn.

Nothing here knows of tissue or stain; `drawing.py` says which cells lie where and what their sum means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.floating]
"""In fact float32 nearly everywhere, for speed."""


@dataclass(frozen=True, slots=True)
class CellKind:
    """What cells of a kind have in common."""

    radius_px: float
    """Median."""
    spacing: float
    """Distance between neighbours' places, in radii."""
    jitter: float = 0.38
    """How far a cell strays from its place, in spacings."""
    spread: float = 0.08
    """Standard deviation of the radius' logarithm."""
    stretch: tuple[float, float] = (1.1, 0.1)
    """Mean and standard deviation of the long axis over the short one."""
    wobble: float = 0.05
    """Deviation of the outline from an ellipse, in radii."""
    depth: float = 1.0
    """Median of the value that a cell adds."""
    shade: float = 0.0
    """Standard deviation of the depth's logarithm."""


def draw_cells(
    kind: CellKind, chance: FloatImage, *, rng: np.random.Generator, along: FloatImage | None = None
) -> FloatImage:
    """The sum of all cells, (H, W), 0 where there is none.

    Args:
        kind: what they look like.
        chance: (H, W), with what probability a place there holds a cell.
        rng: for place, size, shape and depth of each.
        along: (H, W), the direction of the long axis in radians; None draws it.
    """
    places = _scatter(kind, chance, rng)
    count = len(places)
    noise = np.clip(rng.standard_normal((2, count)), -2.0, 2.0)
    radius = kind.radius_px * np.exp(kind.spread * noise[0])
    depth = kind.depth * np.exp(kind.shade * noise[1])
    stretch = np.sqrt(np.clip(rng.normal(*kind.stretch, count), 1.0, 2.6))
    tilt = rng.uniform(0.0, math.pi, count)
    if along is not None:
        tilt = along[places[:, 0].astype(int), places[:, 1].astype(int)] + 0.3 * (tilt - math.pi / 2)

    # A window of 2 * half + 1 pixels about each cell, all at once, on a canvas with a margin of half.
    half = math.ceil(float((radius * stretch).max(initial=1.0)) * (1.0 + kind.wobble)) + 1
    step = np.arange(-half, half + 1)
    corner = places.astype(np.int64)
    off = (places - corner)[:, :, None, None]
    dy = (step[:, None] - off[:, 0]).astype(np.float32)
    dx = (step[None, :] - off[:, 1]).astype(np.float32)
    cos, sin, longer = _each(np.cos(tilt)), _each(np.sin(tilt)), _each(stretch)
    u, v = (dx * cos + dy * sin) / longer, (dy * cos - dx * sin) * longer
    phase = rng.uniform(0.0, 2.0 * math.pi, (2, count))
    turn = np.arctan2(v, u)
    waves = np.cos(2.0 * turn + _each(phase[0])) + np.cos(3.0 * turn + _each(phase[1]))
    outline = _each(radius) * (1.0 + 0.5 * kind.wobble * waves)
    cover = np.clip(outline - np.hypot(u, v) + 0.5, 0.0, 1.0)
    cover *= _each(depth)

    height, width = chance.shape[0] + 2 * half, chance.shape[1] + 2 * half
    pixel = (corner @ (width, 1))[:, None, None] + (half + step)[:, None] * width + half + step
    canvas = np.bincount(pixel.ravel(), cover.ravel(), minlength=height * width)
    return canvas.reshape(height, width)[half:-half, half:-half].astype(np.float32)


def _scatter(kind: CellKind, chance: FloatImage, rng: np.random.Generator) -> NDArray[np.float64]:
    """Places (n, 2) as y, x: a jittered, staggered grid of which each place is kept with its chance."""
    height, width = chance.shape
    spacing_px = kind.spacing * kind.radius_px
    rows, columns = math.ceil(height / spacing_px) + 1, math.ceil(width / spacing_px) + 1
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1).astype(np.float64)
    places[1::2, :, 1] += 0.5
    places = (places.reshape(-1, 2) + rng.uniform(-kind.jitter, kind.jitter, (rows * columns, 2))) * spacing_px
    lots = rng.random(len(places))
    inside = (places >= 0).all(axis=1) & (places[:, 0] < height) & (places[:, 1] < width)
    places, lots = places[inside], lots[inside]
    kept: NDArray[np.float64] = places[lots < chance[places[:, 0].astype(int), places[:, 1].astype(int)]]
    return kept


def _each(values: NDArray[np.float64]) -> FloatImage:
    """(n,) as (n, 1, 1): one value for each cell's window."""
    return values.astype(np.float32)[:, None, None]
