"""Whether a map tells the truth about its network: randomised weights, deletion and insertion, pointing.

What these measure on real images is in docs/explain.md, by benchmarks/explain.py.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import nn

from clearmargin.explanation.scale import to_input
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier
from clearmargin.models.ensemble import Ensemble

_BLUR = 6
"""One part in so many of the shorter side is the standard deviation of the blur that hides what is deleted."""


def layers_from_the_head(model: Classifier) -> list[list[nn.Module]]:
    """The layers that have weights, the last first; of several networks those that do the same side by side."""
    if isinstance(model, Ensemble):
        members = [layers_from_the_head(member) for member in model.members if isinstance(member, Classifier)]
        return [[layer for layers in alike for layer in layers] for alike in zip(*members, strict=True)]
    own = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    return [[layer] for layer in reversed(own)]


def randomised(model: Classifier, layers: int, *, seed: int = 0) -> Classifier:
    """A copy whose last `layers` layers have their weights shuffled, each tensor within itself (Adebayo et al. 2018).

    So the weights keep their distribution, and lose what was learned; the statistics of normalisation too.
    """
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for alike in layers_from_the_head(other)[:layers]:
            for layer in alike:
                for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                    order = torch.randperm(tensor.numel(), generator=generator)
                    tensor.copy_(tensor.flatten()[order].view_as(tensor))
    return other.eval()


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's, over the pixels of two maps; 0 where one of them is the same everywhere.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0]))
    1.0
    """
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(stats.spearmanr(first, second, axis=None).statistic)


def perturbation_scores(
    model: Classifier,
    preprocessing: Preprocessing,
    image: NDArray[np.uint8],
    values: NDArray[np.floating],
    *,
    steps: int = 10,
) -> tuple[float, float]:
    """Deletion and insertion (Petsiuk et al. 2018): the mean logit while pixels go, or come back, in the map's order.

    What is gone is blurred. A map that knows what speaks for malignant has a low first and a high second score.

    Args:
        model: in evaluation mode.
        preprocessing: of the bundle.
        image: (H, W, C) packed.
        values: (H, W), the map.
        steps: in how many steps of equal size the pixels go.
    """
    height, width, _ = image.shape
    sigma = min(height, width) / _BLUR
    blurred = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="nearest")
    hidden = np.rint(blurred).astype(np.uint8)
    rank = np.empty(height * width, dtype=np.int64)
    rank[np.argsort(-values.ravel(), kind="stable")] = np.arange(height * width)
    edges = np.linspace(0, height * width, steps + 1)
    first = rank.reshape(height, width, 1)[None] < edges.reshape(-1, 1, 1, 1)  # the pixels that have had their turn
    series = np.concatenate([np.where(first, hidden, image), np.where(first, image, hidden)])
    with torch.no_grad():
        logits = model(to_input(series, preprocessing)).numpy().astype(np.float64)
    deletion, insertion = (float(np.trapezoid(part)) / steps for part in np.split(logits, 2))
    return deletion, insertion


def points_inside(values: NDArray[np.floating], region: NDArray[np.bool_]) -> float:
    """1 where the map is highest inside the region, else 0 (Zhang et al. 2016); of ties the share that is inside.

    >>> points_inside(np.array([[0, 1], [1, 0]]), np.array([[True, True], [False, False]]))
    0.5
    """
    return float(region[values == values.max()].mean())
