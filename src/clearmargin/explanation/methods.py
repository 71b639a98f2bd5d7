"""The methods of explanation, by name, behind one signature: a model and images in, one map an image out.

    grad_cam               Grad-CAM (Selvaraju et al. 2017): channels weighed by their mean gradient
    grad_cam_pp            Grad-CAM++ (Chattopadhyay et al. 2018): by gradients weighed place by place
    hires_cam              HiResCAM (Draelos & Carin 2020): gradient times feature, place by place
    layer_cam              LayerCAM (Jiang et al. 2021): only gradients that speak for malignant
    integrated_gradients   Sundararajan et al. 2017: gradients on the way from its mean colour to the image
    occlusion              Zeiler & Fergus 2014: what the logit loses when a window is covered

They know the contract of a model (`models/contract.py`) and no layer by its name, so they work for whatever fulfils it,
ensembles too: there the features are those of all networks side by side, and the logit is their mean. Nothing is ever
divided by what one image holds: the unit is logits, so that maps of two images can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clearmargin.errors import UnknownName
from clearmargin.explanation.geometry import enlarge
from clearmargin.models.contract import Classifier

OCCLUSION_SHARE = 5
"""A window covers one part in so many of the shorter side, and moves by half of itself."""
_STEPS = 32
_MOST_STEPS = 128
_RESIDUAL = 0.02
_CHUNK_VALUES = 2**21
"""Input values that go through a network at a time."""

Places = Callable[[Classifier, tuple[int, int, int]], float]
"""Model and shape (C, H, W) of its input."""
Compute = Callable[[Classifier, Tensor, Tensor], Tensor]
"""Model, x (B, C, H, W) normalised, what is there if nothing is (as x, or broadcast to it); gives maps (B, H, W)."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to explain. `signed` maps speak against malignant too, below zero; others are zero or more."""

    title: str
    signed: bool
    unit: str
    compute: Compute
    places: Places
    """How many values side by side make up the logit of an image."""
    passes: Callable[[int, int], int] = lambda height, width: 2  # noqa: ARG005
    """How many times about an image of this height and width goes through the network."""


def grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """(B, h, w): each channel weighed by the mean of its gradient over places, what is below zero left out."""
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * features).sum(dim=1))


def grad_cam_pp(features: Tensor, gradients: Tensor) -> Tensor:
    """(B, h, w): each channel weighed by its gradients, those first that few places share.

    The weights of the paper are g² / (2 g² + g³ ΣA), and count where g is above zero, which makes them 1 / (2 + g ΣA).
    Its factor exp(logit), the same for all places of an image, is left out: the paper divides it away again, and a
    fixed scale must not have it. Features below zero, which its networks have not, do not lower ΣA below zero.
    """
    total = F.relu(features.sum(dim=(2, 3), keepdim=True))
    towards = F.relu(gradients)
    weights = (towards / (2 + towards * total)).sum(dim=(2, 3), keepdim=True)
    return F.relu((weights * features).sum(dim=1))


def hires_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """(B, h, w): gradient times feature, summed over channels, what is below zero left out."""
    return F.relu((gradients * features).sum(dim=1))


def layer_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """(B, h, w): as `hires_cam`, of the gradients above zero only."""
    return F.relu((F.relu(gradients) * features).sum(dim=1))


def without_anything(x: Tensor) -> Tensor:
    """(B, C, 1, 1) the mean colour of each image: what integrated gradients begin with, and occlusion covers with.

    Of white, grey, black, a blurred image and this, the last two showed by far the most (docs/explain.md).
    """
    return x.mean(dim=(2, 3), keepdim=True)


def integrated_gradients(model: Classifier, x: Tensor, empty: Tensor) -> Tensor:
    """(B, H, W): (x - empty) times the mean gradient on the straight way between them, summed over channels.

    By completeness a map sums to logit(x) - logit(empty). Gauss-Legendre; the steps are doubled, up to 128, until it
    does so to 2 % (of a logit at least).
    """
    base = empty.expand_as(x)
    with torch.no_grad():
        gained = (model(x) - model(base)).double()
    maps = torch.empty(x.shape[0], *x.shape[2:], dtype=x.dtype)
    waiting, steps = torch.arange(len(x)), _STEPS
    while len(waiting):
        maps[waiting] = torch.stack([integrate(model, x[row], base[row], steps) for row in waiting])
        off = (maps[waiting].double().sum(dim=(1, 2)) - gained[waiting]).abs()
        waiting = waiting[off > _RESIDUAL * gained[waiting].abs().clamp(min=1)]
        steps *= 2
        if steps > _MOST_STEPS:
            break
    return maps


def integrate(model: Classifier, x: Tensor, base: Tensor, steps: int) -> Tensor:
    """(H, W) integrated gradients of one image (C, H, W), by Gauss-Legendre with so many steps."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    at = torch.from_numpy((nodes + 1) / 2).to(x.dtype)
    weight = torch.from_numpy(weights / 2).to(x.dtype)
    total = torch.zeros_like(x)
    for start in range(0, steps, chunk := _at_a_time(x)):
        part = slice(start, start + chunk)
        points = (base + at[part].view(-1, 1, 1, 1) * (x - base)).requires_grad_()
        (gradients,) = torch.autograd.grad(model(points).sum(), points)
        total += (weight[part].view(-1, 1, 1, 1) * gradients.detach()).sum(dim=0)
    return ((x - base) * total).sum(dim=0)


def occlusion(model: Classifier, x: Tensor, empty: Tensor) -> Tensor:
    """(B, H, W): what the logit loses when a window is made empty, the mean over the windows that cover a pixel."""
    hidden = empty.expand_as(x)
    return torch.stack([_occluded(model, image, nothing) for image, nothing in zip(x, hidden, strict=True)])


def occlusion_window(height: int, width: int) -> tuple[int, int]:
    """Side of the square window, and how far it moves, in pixels.

    >>> occlusion_window(50, 50), occlusion_window(128, 84)
    ((10, 5), (17, 8))
    """
    side = max(2, round(min(height, width) / OCCLUSION_SHARE))
    return side, max(1, side // 2)


@torch.no_grad()
def _occluded(model: Classifier, image: Tensor, empty: Tensor) -> Tensor:
    _, height, width = image.shape
    windows = _windows(height, width)
    logit = model(image[None])[0]
    total, covered = torch.zeros(2, height, width, dtype=image.dtype)
    for start in range(0, len(windows), chunk := _at_a_time(image)):
        some = windows[start : start + chunk]
        images = image.repeat(len(some), 1, 1, 1)
        for each, (rows, columns) in zip(images, some, strict=True):
            each[:, rows, columns] = empty[:, rows, columns]
        for lost, (rows, columns) in zip(logit - model(images), some, strict=True):
            total[rows, columns] += lost
            covered[rows, columns] += 1
    mean: Tensor = total / covered
    return mean


def _integration_passes(height: int, width: int) -> int:  # noqa: ARG001
    return 3 * _STEPS  # a gradient costs as much as two


def _occlusion_passes(height: int, width: int) -> int:
    return len(_windows(height, width))


def _windows(height: int, width: int) -> list[tuple[slice, slice]]:
    side, step = occlusion_window(height, width)
    tops, lefts = (range(0, max(length - side + step, 1), step) for length in (height, width))
    return [(slice(top, top + side), slice(left, left + side)) for top in tops for left in lefts]


def _at_a_time(image: Tensor) -> int:
    return max(1, min(128, _CHUNK_VALUES // image.numel()))


def coarse_map(formula: Callable[[Tensor, Tensor], Tensor], model: Classifier, x: Tensor) -> Tensor:
    """(B, h, w): the formula of the features of x and of the logit's gradient there."""
    with torch.no_grad():
        features = model.forward_features(x)
    features = features.detach().requires_grad_()
    logits = model.forward_head(features.clone())  # a copy, which a head may work on in place
    (gradients,) = torch.autograd.grad(logits.sum(), features)
    return formula(features.detach(), gradients.detach())


def _of_features(formula: Callable[[Tensor, Tensor], Tensor]) -> Compute:
    """The method that lays `formula` over the image."""

    def compute(model: Classifier, x: Tensor, empty: Tensor) -> Tensor:  # noqa: ARG001  (every method is called alike)
        channels, height, width = (int(side) for side in x.shape[1:])
        return enlarge(coarse_map(formula, model, x), model, (channels, height, width))

    return compute


def _of_map(model: Classifier, shape: tuple[int, int, int]) -> float:
    with torch.no_grad():
        return float(np.prod(model.forward_features(torch.zeros(1, *shape)).shape[2:]))


def _of_map_without_mean(model: Classifier, shape: tuple[int, int, int]) -> float:  # noqa: ARG001
    return 2  # Grad-CAM++ halves the sum of the gradients, of which Grad-CAM takes the mean


def _of_pixels(model: Classifier, shape: tuple[int, int, int]) -> float:  # noqa: ARG001
    return float(shape[1] * shape[2])


def _of_windows(model: Classifier, shape: tuple[int, int, int]) -> float:  # noqa: ARG001
    return shape[1] * shape[2] / occlusion_window(shape[1], shape[2])[0] ** 2


_PER_CELL = "logits for each place of the feature map"
METHODS: dict[str, Method] = {
    "grad_cam": Method("Grad-CAM", False, _PER_CELL, _of_features(grad_cam), _of_map),
    "grad_cam_pp": Method("Grad-CAM++", False, _PER_CELL, _of_features(grad_cam_pp), _of_map_without_mean),
    "hires_cam": Method("HiResCAM", False, _PER_CELL, _of_features(hires_cam), _of_map),
    "layer_cam": Method("LayerCAM", False, _PER_CELL, _of_features(layer_cam), _of_map),
    "integrated_gradients": Method(
        "Integrated gradients", True, "logits for each pixel", integrated_gradients, _of_pixels, _integration_passes
    ),
    "occlusion": Method("Occlusion", True, "logits lost when covered", occlusion, _of_windows, _occlusion_passes),
}
DEFAULT_METHOD = "grad_cam"
EVERY = "all"
"""In the place of names."""


def find_methods(names: str | Sequence[str] = ()) -> list[str]:
    """The names of the methods that are meant, each once: the default one of none, every one where one is `all`.

    Raises:
        UnknownName: there is no such method.

    >>> find_methods("occlusion"), find_methods(), find_methods(["all"]) == list(METHODS)
    (['occlusion'], ['grad_cam'], True)
    """
    given = [names] if isinstance(names, str) else list(names)
    if EVERY in given:
        return list(METHODS)
    for name in given:
        find_method(name)
    return list(dict.fromkeys(given or [DEFAULT_METHOD]))


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UnknownName: there is none; lists the names and the closest.
    """
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    return METHODS[name]
