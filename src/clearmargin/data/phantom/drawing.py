"""Paints haematoxylin-and-eosin tissue: from a patient's traits and a lesion's outline to pixels.

One pixel stands for about 2 µm. Everything is drawn from smooth random fields and cells; no image of a
real person was used. Where tissue and lesion lie is decided in `cohort.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clearmargin.data.phantom.cells import CellKind, FloatImage, draw_cells

# Optical densities of the stains in red, green and blue, after Ruifrok and Johnston (2001), eosin a little redder.
_HAEMATOXYLIN = (0.65, 0.70, 0.29)
_EOSIN = (0.10, 0.96, 0.26)
# Bicubic interpolation lowers the standard deviation of white noise by this factor on average.
_INTERPOLATION_SD = 0.78


@dataclass(frozen=True, slots=True)
class Traits:
    """What is peculiar to one patient's slide: stain, scanner, tissue, tumour.

    Lengths are in pixels. A share is of the area, 0 to 1; `..._cells` is the share of possible places that hold a
    nucleus. A tint is the haematoxylin and the eosin of cytoplasm, where 1 is a dark nucleus.
    """

    haematoxylin: FloatImage
    """(3,): optical density of one unit of the stain in this laboratory; `eosin` likewise."""
    eosin: FloatImage
    light: FloatImage
    """(3,): the colour of bare glass, 0 to 1."""
    blur_px: float

    fibre_angle: float
    fibre_px: float
    fibre_contrast: float
    stroma_cells: float
    fat_share: float
    immune_share: float
    gland_share: float
    gland_cells: float
    gland_tint: tuple[float, float]
    gland_darkness: float
    gland_variety: float
    """How unlike each other benign epithelial nuclei are; `pleomorphism` is the same of malignant ones."""
    nucleus_px: float
    """Radius of a benign epithelial nucleus."""

    tumour_growth: float
    """Radius of a malignant nucleus over that of a benign one."""
    tumour_darkness: float
    tumour_cells: float
    pleomorphism: float
    nest_share: float
    nest_px: float
    nest_tint: tuple[float, float]
    desmoplasia: float
    """Eosin of the stroma inside the lesion over that outside."""
    invasion_px: float
    """Width of the zone in which the lesion fades out."""


def draw_traits(rng: np.random.Generator) -> Traits:
    """A patient's traits; they vary so much that one patient's benign tissue resembles another's malignant."""
    stains = np.clip(np.array([_HAEMATOXYLIN, _EOSIN]) + rng.normal(0.0, 0.065, (2, 3)), 0.02, None)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    stains *= np.exp(rng.normal((0.05, 0.15), 0.24))[:, None]
    return Traits(
        haematoxylin=stains[0].astype(np.float32),
        eosin=stains[1].astype(np.float32),
        light=np.clip(rng.uniform(0.90, 0.98) + rng.normal(0.0, 0.012, 3), 0.85, 1.0).astype(np.float32),
        blur_px=rng.uniform(0.45, 0.85),
        fibre_angle=rng.uniform(0.0, math.pi),
        fibre_px=rng.uniform(2.2, 5.0),
        fibre_contrast=rng.uniform(0.25, 0.75),
        stroma_cells=rng.uniform(0.10, 0.35),
        fat_share=rng.beta(1.6, 4.5),
        immune_share=rng.beta(1.2, 9.0),
        gland_share=rng.uniform(0.08, 0.42),
        gland_cells=rng.uniform(0.55, 0.95),
        gland_tint=(rng.uniform(0.06, 0.36), rng.uniform(0.18, 0.52)),
        gland_variety=rng.uniform(0.05, 0.20),
        gland_darkness=0.85 * math.exp(rng.normal(0.0, 0.18)),
        nucleus_px=1.8 * math.exp(rng.normal(0.0, 0.20)),
        tumour_growth=rng.uniform(1.0, 1.55),
        tumour_darkness=0.90 * math.exp(rng.normal(0.0, 0.18)),
        tumour_cells=rng.uniform(0.50, 0.95),
        pleomorphism=rng.uniform(0.08, 0.30),
        nest_share=rng.uniform(0.40, 0.85),
        nest_px=rng.uniform(12.0, 40.0),
        nest_tint=(rng.uniform(0.08, 0.40), rng.uniform(0.18, 0.54)),
        desmoplasia=rng.uniform(0.65, 1.3),
        invasion_px=rng.uniform(5.0, 18.0),
    )


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> FloatImage:
    """A random surface (H, W) of mean 0 and standard deviation about 1 whose hills are about `scale_px` wide."""
    height, width = shape
    rows, columns = (math.ceil(side / scale_px) + 5 for side in shape)
    knots = rng.standard_normal((rows, columns), dtype=np.float32)
    left, top = rng.uniform(2.0, 3.0, 2)
    box = (left, top, left + width / scale_px, top + height / scale_px)
    field = Image.fromarray(knots).resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.asarray(field, dtype=np.float32) / _INTERPOLATION_SD


def paint(
    traits: Traits, tissue_px: FloatImage, lesion_px: FloatImage, *, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The slide as uint8 (H, W, 3).

    Args:
        traits: the patient's.
        tissue_px: (H, W), how far inside the tissue a pixel lies, in pixels; negative outside.
        lesion_px: the same for the lesion.
        rng: consumed in a fixed order, so that equal seeds give equal slides.
    """
    height, width = tissue_px.shape
    shape = (height, width)
    tissue = _ramp(tissue_px + 3.0 * smooth_field(rng, shape, 9.0), 3.0)
    lesion = _ramp(lesion_px + traits.invasion_px * smooth_field(rng, shape, 15.0), traits.invasion_px)
    fat = _region(rng, shape, 55.0, share=traits.fat_share, edge=0.12) * (1.0 - 0.8 * lesion)
    gland = _region(rng, shape, 38.0, share=traits.gland_share, edge=0.25) * (1.0 - 0.9 * lesion) * (1.0 - fat)
    nest = _region(rng, shape, traits.nest_px, share=traits.nest_share, edge=0.2) * lesion * (1.0 - fat)
    immune = _region(rng, shape, 45.0, share=traits.immune_share, edge=0.6) * (1.0 - fat)
    stroma = np.clip(1.0 - gland - nest, 0.0, 1.0)

    fibres, direction = _fibres(traits, lesion, rng)
    collagen = (0.52 + traits.fibre_contrast * (fibres - 0.5)) * (1.0 + (traits.desmoplasia - 1.0) * lesion)
    eosin = stroma * collagen * (1.0 - 0.3 * fat) + traits.gland_tint[1] * gland + traits.nest_tint[1] * nest
    haematoxylin = 0.06 * stroma + traits.gland_tint[0] * gland + traits.nest_tint[0] * nest
    chances = (
        traits.stroma_cells * stroma * (1.0 - 0.5 * fat),
        traits.gland_cells * gland,
        traits.tumour_cells * nest,
        0.8 * immune,
    )
    haematoxylin += _nuclei(traits, chances, direction, rng)

    cover = tissue * (1.0 - _gaps(fat, gland, rng))
    thickness = cover * np.exp(0.14 * smooth_field(rng, shape, 110.0))
    balance = np.exp(0.08 * smooth_field(rng, shape, 80.0))
    return _scan(traits, haematoxylin * thickness, eosin * thickness * balance, rng)


def _ramp(distance: FloatImage, width: float) -> FloatImage:
    """0 to 1 over `width` about the distance 0."""
    ramp: FloatImage = np.clip(distance / width + 0.5, 0.0, 1.0)
    return ramp


def _region(
    rng: np.random.Generator, shape: tuple[int, int], scale_px: float, *, share: float, edge: float
) -> FloatImage:
    """0 to 1 (H, W): blotches about `scale_px` wide that cover about `share` of the area."""
    field = 0.9 * smooth_field(rng, shape, scale_px) + 0.43 * smooth_field(rng, shape, scale_px / 4)
    level = NormalDist().inv_cdf(1.0 - min(max(share, 0.001), 0.999))
    return _ramp(field - level, edge)


def _fibres(traits: Traits, lesion: FloatImage, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """Collagen from 0 to 1 (H, W), less ordered inside the lesion, and the direction along it in radians."""
    from scipy.ndimage import map_coordinates  # noqa: PLC0415

    height, width = lesion.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cos, sin = math.cos(traits.fibre_angle), math.sin(traits.fibre_angle)
    sway = 16.0 * smooth_field(rng, (height, width), 70.0)
    sway += (3.0 + 5.0 * lesion) * smooth_field(rng, (height, width), 16.0)
    along, across = x * cos + y * sin, y * cos - x * sin + sway
    slope_y, slope_x = np.gradient(across)
    direction = np.arctan2(-slope_x, slope_y)

    reach = math.hypot(height, width) + 100
    knots = rng.random((math.ceil(2 * reach / traits.fibre_px), math.ceil(2 * reach / 28.0)), dtype=np.float32)
    at = [(across + reach) / traits.fibre_px, (along + reach) / 28.0]
    strands: FloatImage = map_coordinates(knots, at, order=1, mode="wrap")
    crumbs = 0.5 + 0.25 * smooth_field(rng, (height, width), 4.0)
    disorder = 0.2 + 0.45 * lesion
    return strands * (1.0 - disorder) + crumbs * disorder, direction


def _nuclei(
    traits: Traits, chances: tuple[FloatImage, ...], direction: FloatImage, rng: np.random.Generator
) -> FloatImage:
    """The haematoxylin (H, W) in all nuclei; chances (H, W) are for stroma, glands, tumour and immune cells."""
    stroma, gland, nest, immune = chances
    size, even, odd = traits.nucleus_px, traits.gland_variety, traits.pleomorphism
    fibroblast = CellKind(0.75 * size, 3.4, spread=0.12, stretch=(1.9, 0.35), depth=0.75, shade=0.10)
    lymphocyte = CellKind(0.75 * size, 3.3, stretch=(1.0, 0.05), wobble=0.03, depth=1.1, shade=0.05)
    epithelium = CellKind(
        size, 2.35, spread=even, stretch=(1.15, even), wobble=even, depth=traits.gland_darkness, shade=even
    )
    tumour = CellKind(
        size * traits.tumour_growth,
        2.2,
        spread=odd,
        stretch=(1.2, odd),
        wobble=odd,
        depth=traits.tumour_darkness,
        shade=odd,
    )
    total = draw_cells(fibroblast, stroma, rng=rng, along=direction)
    total += draw_cells(epithelium, gland, rng=rng)
    total += draw_cells(tumour, nest, rng=rng)
    total += draw_cells(lymphocyte, immune, rng=rng)
    # Where nuclei overlap, a thin section still holds no more than so much stain.
    return np.minimum(total, 1.6)


def _gaps(fat: FloatImage, gland: FloatImage, rng: np.random.Generator) -> FloatImage:
    """0 to 1 (H, W): how empty a pixel is, for fat cells and the lumina of glands hold no stain."""
    fat_cell = CellKind(7.2, 1.8, jitter=0.2, spread=0.07, wobble=0.06)
    lumen = CellKind(3.0, 5.7, spread=0.3, stretch=(1.6, 0.5), wobble=0.15, depth=0.95)
    discs = draw_cells(fat_cell, (fat > 0.5).astype(np.float32), rng=rng)
    # Fat cells are drawn so large that neighbours overlap; where they do, there is the membrane.
    vacuoles = 1.0 - np.minimum(np.abs(discs - 1.0), 1.0)
    lumina = draw_cells(lumen, 0.6 * (gland > 0.9).astype(np.float32), rng=rng)
    gaps: FloatImage = np.minimum(vacuoles + lumina, 1.0)
    return gaps


def _scan(traits: Traits, haematoxylin: FloatImage, eosin: FloatImage, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture that a scanner takes: absorption by both stains (Beer and Lambert), blur, grain."""
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415

    grain = 2.0 * rng.standard_normal(haematoxylin.shape, dtype=np.float32)
    haematoxylin, eosin = (gaussian_filter(stain, traits.blur_px) for stain in (haematoxylin, eosin))
    picture = np.empty((*haematoxylin.shape, 3), dtype=np.uint8)
    for channel in range(3):
        density = haematoxylin * traits.haematoxylin[channel] + eosin * traits.eosin[channel]
        picture[..., channel] = np.clip(np.rint(255.0 * traits.light[channel] * np.exp(-density) + grain), 0, 255)
    return picture
