"""Which pixels the places of a feature map stand for, found by asking the network.

A network without padding has feature maps that do not reach the edge of the image. Stretched over it all the same, as
is usual, its map is shifted: by up to 6 pixels of 50 in the recipe `cnn_3conv`. So the pixels that can move a place are
looked up once, in gradients; the middle of them is where the place lies. Where they reach beyond the image, as in deep
networks with padding and in transformers, nothing can be told, and the map is laid evenly over the image.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearmargin.models.contract import Classifier

_INPUTS = 4
_MOST_PLACES = 16
"""Of a row or column that are looked up."""
_KNOWN: WeakKeyDictionary[Classifier, dict[tuple[int, ...], tuple[Tensor, Tensor]]] = WeakKeyDictionary()


def enlarge(coarse: Tensor, model: Classifier, shape: tuple[int, int, int]) -> Tensor:
    """(B, H, W): maps (B, h, w) of the model's features over its images of shape (C, H, W).

    Linear between the middles of places, and constant beyond the outermost.
    """
    known = _KNOWN.setdefault(model, {})
    key = (*shape, *coarse.shape[1:])
    if key not in known:
        known[key] = _weights(model, shape, (int(coarse.shape[1]), int(coarse.shape[2])))
    down, across = known[key]
    return down @ coarse @ across.T


def _weights(model: Classifier, shape: tuple[int, int, int], places: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What each of (H, h) and of (W, w) adds to a pixel."""
    middles = find_middles(model, shape, places)
    sides = [
        np.stack([np.interp(np.arange(length), middle, unit) for unit in np.eye(len(middle))], axis=1)
        for length, middle in zip(shape[1:], middles, strict=True)
    ]
    down, across = (torch.from_numpy(side.astype(np.float32)) for side in sides)
    return down, across


def find_middles(
    model: Classifier, shape: tuple[int, int, int], places: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(h,) rows and (w,) columns of pixels, counted from 0, where the places of the feature map lie."""
    x = torch.rand(_INPUTS, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    features = model.forward_features(x)
    if features.grad_fn is None:
        return _evenly(shape[1], places[0]), _evenly(shape[2], places[1])
    signs = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    lines = []
    for axis, (length, number) in enumerate(zip(shape[1:], places, strict=True)):
        others = np.unique(np.linspace(0, number - 1, _MOST_PLACES).astype(int))
        seen: dict[int, float] = {}
        for place in (number // 2, *others.tolist()):
            total = (features * signs).select(2 + axis, place).sum()
            (gradient,) = torch.autograd.grad(total, x, retain_graph=True)
            touched = np.flatnonzero((gradient != 0).any(dim=3 - axis).any(dim=1).any(dim=0).numpy())
            if len(touched) and touched[0] > 0 and touched[-1] < length - 1:
                seen[place] = float(touched[0] + touched[-1]) / 2
            if not seen:  # where the middle one reaches beyond the image, so do the others
                break
        lines.append(_line(seen, length, number))
    rows, columns = lines
    return rows, columns


def _line(seen: dict[int, float], length: int, number: int) -> NDArray[np.float64]:
    """All middles, on the line through the first and the last that is known."""
    if len(seen) < 2:
        return _evenly(length, number)
    first, last = min(seen), max(seen)
    step = (seen[last] - seen[first]) / (last - first)
    if step <= 0:
        return _evenly(length, number)
    middles: NDArray[np.float64] = seen[first] + step * (np.arange(number, dtype=np.float64) - first)
    return middles


def _evenly(length: int, number: int) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = (np.arange(number) + 0.5) * length / number - 0.5
    return middles
