"""The colour scale of a bundle: one value for each method at which the colour is full, whatever image is explained.

A map that is stretched to what it holds itself always glows somewhere, on a benign image too. Here a map is compared
with those of many images, malignant and benign, so that one without evidence stays dark.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from clearmargin.bundle.schema import SaliencyScale
from clearmargin.errors import BundleError
from clearmargin.explanation.methods import METHODS, find_method, without_anything
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier, normalise, scale_pixels

MOST_IMAGES = 48
_MOST_COSTLY, _FEWEST = 16, 4
"""Images for methods that take more than a gradient, and what even the costliest network is measured on."""
_PERCENTILE = 99
_RULE = f"the {_PERCENTILE}th percentile of the absolute map over all pixels"
_LEAST = 1e-6
"""Saturation of maps that are nothing but zeros and rounding."""
_BUDGET, _MOST = 1.5e11, 2e12
"""Operations that measuring one method may take, besides the fewest images; and what these may take (minutes)."""


def measure_scales(
    model: Classifier,
    preprocessing: Preprocessing,
    images: NDArray[np.uint8],
    *,
    of: str,
    methods: Collection[str] = tuple(METHODS),
    leave_costly: bool = False,
) -> dict[str, SaliencyScale]:
    """The scale of each method, from all the images, or from as many of them as its cost allows.

    How many depends on the network and the size of the images only, never on a clock: equal inputs, equal scales.

    Args:
        model: in evaluation mode, on the CPU.
        preprocessing: of the bundle.
        images: (N, H, W, C) packed, N at least 1, malignant and benign in turn.
        of: what they are, for the record.
        methods: of METHODS.
        leave_costly: leave out methods that take minutes even on the fewest images.
    """
    scales = {}
    operations = _operations(model, images[:1])
    for name in methods:
        method = find_method(name)
        passes = method.passes(preprocessing.height, preprocessing.width)
        if leave_costly and operations * passes * _FEWEST > _MOST:
            continue
        affordable = min(MOST_IMAGES if passes <= 2 else _MOST_COSTLY, int(_BUDGET / max(operations * passes, 1)))
        some = images[: max(_FEWEST, affordable)]
        maps = explain_packed(model, preprocessing, some, method=name)
        saturation = max(float(np.percentile(np.abs(maps), _PERCENTILE)), _LEAST)
        scales[name] = SaliencyScale(saturation=saturation, rule=_RULE, images=len(some), of=of)
    return scales


def explain_packed(
    model: Classifier,
    preprocessing: Preprocessing,
    images: NDArray[np.uint8],
    *,
    method: str,
) -> NDArray[np.float32]:
    """(N, H, W) maps of packed images (N, H, W, C), batch by batch.

    Raises:
        BundleError: a map is not finite.
    """
    compute = find_method(method).compute
    size, maps = batch_size(preprocessing), []
    for start in range(0, len(images), size):
        x = to_input(images[start : start + size], preprocessing)
        maps.append(compute(model, x, without_anything(x)).detach().numpy())
    result: NDArray[np.float32] = np.concatenate(maps).astype(np.float32, copy=False)
    if not np.isfinite(result).all():
        raise BundleError(f"the explanation by '{method}' is no finite number at some place; use another method.")
    return result


def to_input(images: NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """(B, C, H, W) what the network sees of packed images (B, H, W, C)."""
    scaled = scale_pixels(torch.from_numpy(np.array(images)))  # a copy: a memory map may not be writable
    return normalise(scaled, preprocessing.mean, preprocessing.std)


def batch_size(preprocessing: Preprocessing) -> int:
    """How many images are explained at a time."""
    return max(1, min(32, 2**21 // int(np.prod(preprocessing.shape))))


def spread_rows(labels: NDArray[np.integer], rows: NDArray[np.intp], at_most: int = MOST_IMAGES) -> NDArray[np.intp]:
    """Of these rows at most so many, evenly spaced in each class, malignant and benign in turn.

    >>> spread_rows(np.array([0, 0, 0, 0, 1, 1]), np.arange(6), 4).tolist()
    [4, 0, 5, 3]
    """
    of_class = [rows[labels[rows] == label] for label in (1, 0)]
    fewest = min(len(each) for each in of_class)
    share = at_most // 2
    counts = [min(len(each), share if fewest else at_most) for each in of_class]
    picked = [
        each[np.unique(np.linspace(0, len(each) - 1, count).astype(np.intp))] if count else each[:0]
        for each, count in zip(of_class, counts, strict=True)
    ]
    turns = np.concatenate([np.arange(len(each)) for each in picked])
    order = np.lexsort((np.repeat([0, 1], [len(each) for each in picked]), turns))
    chosen: NDArray[np.intp] = np.concatenate(picked)[order]
    return chosen


def _operations(model: Classifier, image: NDArray[np.uint8]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(scale_pixels(torch.from_numpy(np.array(image))))
    return int(counter.get_total_flops())
