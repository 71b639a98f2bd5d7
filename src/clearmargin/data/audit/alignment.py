"""How much two thumbnails are the same picture, once turned, moved and stretched onto each other.

Two patches of stroma, or two that show the edge of the tissue on blank glass, correlate highly as they are. What tells
a copy is the fine detail, each part of it against its own surroundings: so the similarity is the correlation of what is
left when the blur and the local contrast are taken away, over the part that both images show.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearmargin.data.audit.neighbours import CROPPED, THUMBNAIL_PX, Floats, Rows, orientation_scores, spectra

FINE_PX = 2 * THUMBNAIL_PX
"""Of large images more is needed: at 32 px the outlines of any two breasts in mammograms are alike."""
LARGEST_STRETCH, LARGEST_SHIFT = 0.14, 0.08
"""Of the side: what crops of 5 % of each side, of one or both images, can bring about, and a little more."""

_BATCH = 256
_STEPS = 3
_HOPELESS = 0.5
"""Similarity below which no higher resolution is tried."""
_SURE = 0.95
"""Similarity from which no better alignment is looked for."""
_PLAIN = 0.85
"""Least correlation of two copies as they are; a lower one is their similarity."""
_BLURS = (0.85, 1.0, 3.0)
"""Deviations in pixels: the band of detail lies between the first two, its surroundings reach as far as the third."""
_LOCAL, _NOISE = 0.25, 0.35
"""Least contrast that is brought to the level of the rest: as a share of the whole, and in grey levels."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images by their thumbnails, spectra (N, 8, 8) of these, whole and cropped, and finer ones of the larger images.

    `thumbnails` is (M, 32, 32), and `row` (N,) says which of these an image has: they are many, and never copied.
    `fine` is (L, 64, 64), and `fine_row` (N,) the same of it, -1 for none.
    """

    thumbnails: NDArray[np.uint8]
    row: Rows
    plain: Floats
    cropped: Floats
    fine: NDArray[np.uint8]
    fine_row: Rows

    @classmethod
    def of(
        cls,
        thumbnails: NDArray[np.uint8],
        fine: Sequence[NDArray[np.uint8] | None] | None = None,
        *,
        rows: Rows | None = None,
    ) -> Pictures:
        """Of the images in these rows, all when None: thumbnails (M, 32, 32) and, for each, one of (64, 64) or None."""
        rows = np.arange(len(thumbnails)) if rows is None else rows
        finer = [None] * len(rows) if fine is None else [fine[row] for row in rows.tolist()]
        some = [image for image in finer if image is not None]
        has_fine = np.array([image is not None for image in finer], dtype=bool)
        return cls(
            thumbnails,
            rows,
            spectra(thumbnails, rows),
            spectra(thumbnails, rows, cropped=CROPPED),
            np.array(some, dtype=np.uint8).reshape(-1, FINE_PX, FINE_PX),
            np.where(has_fine, np.cumsum(has_fine) - 1, -1),
        )


def similarities(pictures: Pictures, first: Rows, second: Rows) -> Floats:
    """(P,) how alike the pairs of rows are, from 1, the same picture, to -1; the order within a pair does not matter.

    A pair that is hopeless at a lower resolution has the similarity it has there.
    """

    def part(start: int) -> Floats:
        mine, theirs = first[start : start + _BATCH], second[start : start + _BATCH]
        low, high = np.minimum(mine, theirs), np.maximum(mine, theirs)
        result = _compare(pictures, low, high)
        # Either image may be the sharper one, and stretching it blurs it: the better way round counts.
        unsure = (result >= _HOPELESS) & (result < _SURE)
        result[unsure] = np.maximum(result[unsure], _compare(pictures, high[unsure], low[unsure]))
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate([np.empty(0, dtype=np.float32), *pool.map(part, range(0, len(first), _BATCH))])


def _compare(pictures: Pictures, first: Rows, second: Rows) -> Floats:
    turn, warp = _first_guess(pictures, first, second)
    fixed, moved = _laid(pictures.thumbnails, pictures.row[first], pictures.row[second], turn)
    result, warp = _fitted(_halved(fixed), _halved(moved), warp)
    hopeful = result >= _HOPELESS
    result[hopeful], warp[hopeful] = _fitted(fixed[hopeful], moved[hopeful], warp[hopeful])

    mine, theirs = pictures.fine_row[first], pictures.fine_row[second]
    finer = (result >= _HOPELESS) & (mine >= 0) & (theirs >= 0)
    if finer.any():
        fixed, moved = _laid(pictures.fine, mine[finer], theirs[finer], turn[finer])
        result[finer], _ = _fitted(fixed, moved, warp[finer])
    return result


def _laid(images: NDArray[np.uint8], first: Rows, second: Rows, turn: Rows) -> tuple[Floats, Floats]:
    """The pairs (P, px, px) with mean 0, the second images turned."""
    fixed = images[first].astype(np.float32)
    moved = np.empty_like(fixed)
    for way in range(8):
        rows = turn == way
        moved[rows] = _turned(images[second[rows]], way)
    return fixed - fixed.mean(axis=(1, 2), keepdims=True), moved - moved.mean(axis=(1, 2), keepdims=True)


def _fitted(fixed: Floats, moved: Floats, warp: Floats) -> tuple[Floats, Floats]:
    """The similarity at this resolution and the warp that gives it, improved where that is of use."""
    result = _likeness(fixed, moved, warp)
    unsure = np.flatnonzero(result < _SURE)
    fixed, moved, better = fixed[unsure], moved[unsure], warp[unsure]
    for _ in range(_STEPS):
        better = _improved(fixed, moved, better)
    fitted = _likeness(fixed, moved, better)
    warp = warp.copy()
    gains = fitted > result[unsure]
    warp[unsure[gains]], result[unsure[gains]] = better[gains], fitted[gains]
    return result, warp


def _first_guess(pictures: Pictures, first: Rows, second: Rows) -> tuple[Rows, Floats]:
    """How the second image is turned, and the stretch if one of the two is a crop; from the low frequencies."""
    guesses = (
        (pictures.plain[first], pictures.plain[second], 0.0),
        (pictures.cropped[first], pictures.plain[second], -2 * CROPPED),
        (pictures.plain[first], pictures.cropped[second], 2 * CROPPED),
    )
    scores = np.stack([orientation_scores(mine, theirs) for mine, theirs, _ in guesses], axis=1)
    best = scores.reshape(-1, 8 * len(guesses)).argmax(axis=1)
    warp = np.zeros((len(first), 4), dtype=np.float32)
    warp[:, 0] = warp[:, 2] = np.array([stretch for *_, stretch in guesses], dtype=np.float32)[best // 8]
    return best % 8, warp


def _turned(images: NDArray[np.uint8], way: int) -> NDArray[np.uint8]:
    """In the order of the columns of `orientation_scores`."""
    turned = images.transpose(0, 2, 1) if way & 4 else images
    return turned[:, :: -1 if way & 2 else 1, :: -1 if way & 1 else 1]


def _halved(images: Floats) -> Floats:
    half = images.shape[1] // 2
    mean: Floats = images.reshape(-1, half, 2, half, 2).mean(axis=(2, 4))
    return mean


def _sampling(stretch: Floats, shift: Floats, px: int) -> tuple[Floats, Floats, Floats]:
    """Along one axis: matrices (B, px, px) that sample an image and its slope, and (B, px) what lies inside of it."""
    place = ((np.arange(px, dtype=np.float32) + 0.5) / px - 0.5) * (1 + stretch[:, None]) + shift[:, None]
    at = (place + 0.5) * px - 0.5
    pixels = np.arange(px, dtype=np.float32)

    def weights(where: Floats) -> Floats:
        hat: Floats = np.maximum(0, 1 - np.abs(np.clip(where, 0, px - 1)[:, :, None] - pixels))
        return hat

    inside = ((at >= -0.5) & (at <= px - 0.5)).astype(np.float32)
    return weights(at), px * (weights(at + 0.5) - weights(at - 0.5)), inside


def _improved(fixed: Floats, moved: Floats, warp: Floats) -> Floats:
    """One Gauss-Newton step for the warp (B, 4), stretch and shift in x and in y, with gain and offset left free.

    `fixed`, sampled through the warp, comes to look like `moved`; both (B, px, px) with mean 0.
    """
    px = fixed.shape[1]
    across, slope_across, inside_x = _sampling(warp[:, 0], warp[:, 1], px)
    down, slope_down, inside_y = _sampling(warp[:, 2], warp[:, 3], px)
    weight = inside_y[:, :, None] * inside_x[:, None, :]
    rows = fixed @ across.transpose(0, 2, 1)
    slope_x, slope_y = down @ (fixed @ slope_across.transpose(0, 2, 1)), slope_down @ rows
    place = ((np.arange(px, dtype=np.float32) + 0.5) / px - 0.5)[:, None]
    sampled = down @ rows
    terms = np.stack([sampled, np.ones_like(sampled), slope_x * place.T, slope_x, slope_y * place, slope_y], axis=1)
    terms = (terms * weight[:, None]).reshape(-1, 6, px * px)
    normal = terms @ terms.transpose(0, 2, 1)
    # A little damping: where there is no detail in a direction, the warp stays.
    energy = normal[:, 0, 0, None]
    damping = np.concatenate([np.full((len(fixed), 2), 1e-3), energy * [1e-3, 4e-3, 1e-3, 4e-3]], axis=1)
    normal = normal + damping.astype(np.float32)[:, :, None] * np.eye(6, dtype=np.float32)
    seen = terms @ (moved * weight).reshape(-1, px * px, 1)
    solution = np.linalg.solve(normal, seen)[:, :, 0]
    step = np.clip(solution[:, 2:] / np.maximum(solution[:, :1], 0.2), -0.05, 0.05)
    limit = np.array([LARGEST_STRETCH, LARGEST_SHIFT] * 2, dtype=np.float32)
    improved: Floats = np.clip(warp + step, -limit, limit).astype(np.float32)
    return improved


def _likeness(fixed: Floats, moved: Floats, warp: Floats) -> Floats:
    """(B,) the lower one of the correlations of detail and, where that is too low for a copy, of the images."""
    px = fixed.shape[1]
    across, _, inside_x = _sampling(warp[:, 0], warp[:, 1], px)
    down, _, inside_y = _sampling(warp[:, 2], warp[:, 3], px)
    weight = inside_y[:, :, None] * inside_x[:, None, :]
    sampled = down @ fixed @ across.transpose(0, 2, 1)
    plain = _correlation(sampled, moved, weight)
    detail = _correlation(_detail(sampled, weight), _detail(moved, weight), weight)
    return np.where(plain < _PLAIN, np.minimum(plain, detail), detail)


def _detail(images: Floats, weight: Floats) -> Floats:
    """The finest band that outlives compression, everywhere brought to a similar contrast."""
    px = images.shape[1]
    fine, coarse, wide = (_blur(px, sigma) for sigma in _BLURS)
    band = fine @ images @ fine.T - coarse @ images @ coarse.T
    power = band * band * weight
    overall = power.sum(axis=(1, 2), keepdims=True) / weight.sum(axis=(1, 2), keepdims=True)
    local = (wide @ power @ wide.T) / np.maximum(wide @ weight @ wide.T, 1e-3)
    result: Floats = band / np.sqrt(local + _LOCAL**2 * overall + _NOISE**2)
    return result


def _blur(px: int, sigma: float) -> Floats:
    """A matrix (px, px) that blurs along one axis, without a dark border."""
    pixels = np.arange(px)
    weights = np.exp(-((pixels[:, None] - pixels) ** 2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _correlation(first: Floats, second: Floats, weight: Floats) -> Floats:
    total = weight.sum(axis=(1, 2), keepdims=True)
    first = (first - (first * weight).sum(axis=(1, 2), keepdims=True) / total) * weight
    second = (second - (second * weight).sum(axis=(1, 2), keepdims=True) / total) * weight
    power = (first * first).sum(axis=(1, 2)) * (second * second).sum(axis=(1, 2))
    result: Floats = (first * second).sum(axis=(1, 2)) / np.sqrt(np.maximum(power, 1e-12))
    return result
