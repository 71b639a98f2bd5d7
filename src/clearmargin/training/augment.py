"""Random changes to a batch of training images: one draw per image, in batched torch operations.

Bounded by memory bandwidth for flips and colour and by bilinear sampling for the affine part. Images
are (B, C, H, W) float in [0, 1] and stay so.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from clearmargin.settings import AugmentSettings

_DARKEST = 1.0 / 255.0  # optical density of black would be infinite


def augment(x: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    """The batch with every change that the settings switch on.

    Args:
        x: (B, C, H, W) float in [0, 1].
        settings: amounts; 0 or false leaves a change out.
        generator: on the device of x; the only source of randomness.
    """
    x = _turn(x, settings, generator)
    across = _choose(x, generator) if settings.horizontal_flip else None
    down = _choose(x, generator) if settings.vertical_flip else None
    if settings.rotate_degrees or settings.shift or settings.zoom or settings.shear_degrees:
        x = _warp(x, settings, generator, flips=(across, down))
    else:
        x = _flip(_flip(x, across, 3), down, 2)
    return _recolour(x, settings, generator)


def _draw(x: Tensor, amount: float, generator: Generator, *, columns: int = 1) -> Tensor:
    """(B, columns) uniform in [-amount, amount]."""
    return (torch.rand(len(x), columns, generator=generator, device=x.device) * 2 - 1) * amount


def _choose(x: Tensor, generator: Generator) -> Tensor:
    """(B, 1, 1, 1) true for about half of the images."""
    return torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5


def _turn(x: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    if settings.quarter_turns:
        # A quarter turn is a transposition and a flip; half of the images are transposed where that fits.
        if x.shape[2] == x.shape[3]:
            x = torch.where(_choose(x, generator), x.transpose(2, 3).flip(2), x)
        x = torch.where(_choose(x, generator), x.flip((2, 3)), x)
    return x


def _flip(x: Tensor, chosen: Tensor | None, dimension: int) -> Tensor:
    return x if chosen is None else torch.where(chosen, x.flip(dimension), x)


def _warp(
    x: Tensor, settings: AugmentSettings, generator: Generator, *, flips: tuple[Tensor | None, Tensor | None]
) -> Tensor:
    angle = _draw(x, math.radians(settings.rotate_degrees), generator)[:, 0]
    shear = _draw(x, math.radians(settings.shear_degrees), generator)[:, 0]
    scale = 1 + _draw(x, settings.zoom, generator)[:, 0]
    shift = _draw(x, 2 * settings.shift, generator, columns=2)  # the grid runs from -1 to 1
    # Rows of the map from output to input coordinates: rotation, then shear, then zoom. The grid is
    # relative to width and height, so the off-diagonal terms carry the aspect ratio.
    height, width = x.shape[2:]
    aspect = height / width
    theta = torch.zeros(len(x), 2, 3, device=x.device)
    theta[:, 0, 0] = torch.cos(angle) * scale
    theta[:, 0, 1] = -torch.sin(angle + shear) * scale * aspect
    theta[:, 1, 0] = torch.sin(angle) * scale / aspect
    theta[:, 1, 1] = torch.cos(angle + shear) * scale
    theta[:, :, 2] = shift
    for row, chosen in enumerate(flips):  # where the image is sampled anyway, a flip is a sign and costs nothing
        if chosen is not None:
            theta[:, row] = torch.where(chosen[:, 0, 0], -theta[:, row], theta[:, row])
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    warped = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.clamp_(max=1)  # the four weights of a pixel sum to 1 only up to rounding


def _recolour(x: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    if settings.stain:
        # Beer-Lambert: a stain's amount is proportional to optical density, so it is density that varies.
        channels = x.shape[1]
        factor = 1 + _draw(x, settings.stain, generator, columns=channels)[:, :, None, None]
        offset = _draw(x, 0.1 * settings.stain, generator, columns=channels)[:, :, None, None]
        x = torch.exp(torch.log(x.clamp_min(_DARKEST)) * factor - offset)
    if settings.contrast:
        factor = 1 + _draw(x, settings.contrast, generator)[:, :, None, None]
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (x - mean) * factor + mean
    if settings.brightness:
        x = x + _draw(x, settings.brightness, generator)[:, :, None, None]
    return x.clamp(0, 1) if settings.stain or settings.contrast or settings.brightness else x
