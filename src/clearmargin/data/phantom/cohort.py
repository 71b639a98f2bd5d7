"""Synthetic patients, their slides, and the files cut from them.

Invariants: equal settings give equal bytes, a patient does not depend on how many others there are, and
every patient has patches of both labels. How tissue looks is in `drawing.py`.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clearmargin.data.phantom.cells import FloatImage
from clearmargin.data.phantom.drawing import draw_traits, paint, smooth_field
from clearmargin.errors import UsageError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.types import BENIGN, MALIGNANT, Label, Listener

_SILENT = Listener()
_LIMITS = {"patients": (1, 9_999), "patches_per_patient": (4, 2_000), "patch_px": (16, 256), "seed": (0, 2**31 - 1)}
_LARGEST_SLIDE_PX = 8_000_000
_CUT_EVERY, _CUT_FIRST = 20, 3
"""Every 20th slide, beginning with the fourth, ends inside its last column of patches."""

DRAWN = "drawn phantom images"
"""What `draw_for_scale` gives, for the record."""
_DRAWN_OF_EACH = 8


@dataclass(frozen=True, slots=True)
class PhantomSettings:
    """How many patients and patches, how large, and from which seed.

    Raises:
        UsageError: a number that is out of range; the message names it.
    """

    patients: int = 40
    patches_per_patient: int = 90
    patch_px: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, (least, most) = getattr(self, entry.name), _LIMITS[entry.name]
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise UsageError(
                    f"phantom setting '{entry.name}' cannot be {value!r}: give a whole number from {least} to {most}."
                )
        if (area := self.patches_per_patient * self.patch_px**2) > _LARGEST_SLIDE_PX:
            raise UsageError(
                f"phantom settings 'patches_per_patient' and 'patch_px' ask for slides of {area:,} pixels: "
                f"lower one of them, {_LARGEST_SLIDE_PX:,} is the most."
            )


@dataclass(frozen=True, slots=True)
class PhantomSlide:
    """A patient's only slide; row and column of the grids times `patch_px` is a patch's corner in the image."""

    patient_id: str
    image: NDArray[np.uint8]
    """(H, W, 3); H and W need not be multiples of `patch_px`."""
    lesion_px: NDArray[np.bool_]
    """(H, W): the lesion, pixel by pixel."""
    lesion: NDArray[np.bool_]
    """(rows, columns): patches of tissue most of whose pixels are lesion, which makes them malignant."""
    tissue: NDArray[np.bool_]
    """(rows, columns): patches that are cut; the others are mostly glass."""


def draw_slide(patient_index: int, settings: PhantomSettings = PhantomSettings()) -> PhantomSlide:
    """The slide of a patient, counted from 0; `patches_per_patient` of its patches are tissue.

    Raises:
        UsageError: `patient_index` is not that of a patient.
    """
    if not 0 <= patient_index < settings.patients:
        raise UsageError(
            f"there is no phantom patient {patient_index}: 'patient_index' runs from 0 to {settings.patients - 1}."
        )
    rng = np.random.default_rng([settings.seed, patient_index])
    count, px = settings.patches_per_patient, settings.patch_px
    tissue_px = _tissue(rng, count, px)
    level, tissue = _choose(tissue_px, count, px)
    if patient_index % _CUT_EVERY == _CUT_FIRST:
        last = int(np.flatnonzero(tissue.any(axis=0))[-1])
        tissue_px = tissue_px[:, : last * px + int(px * rng.uniform(0.4, 0.8))]
        tissue = tissue[:, : last + 1]
    tissue_px = tissue_px - level

    share = 0.05 + 0.55 * rng.beta(1.5, 1.9)
    lesions = min(max(round(share * count), 1), count - 1)
    lesion_px = _lesion(rng, tissue_px, px * math.sqrt(count))
    level, lesion = _choose(lesion_px, lesions, px, among=tissue)
    lesion_px = lesion_px - level
    image = paint(draw_traits(rng), tissue_px, lesion_px, rng=rng)
    return PhantomSlide(f"P{patient_index + 1:03d}", image, lesion_px > 0, lesion, tissue)


def draw_patch(label: Label, seed: int, patch_px: int = 50) -> NDArray[np.uint8]:
    """One patch, uint8 (patch_px, patch_px, 3), deep inside a lesion or far from one; a seed stands for a patient.

    >>> draw_patch(1, seed=7).shape
    (50, 50, 3)

    Raises:
        UsageError: a number that is out of range; the message names it.
    """
    if label not in (BENIGN, MALIGNANT):
        raise UsageError(f"phantom patch: 'label' cannot be {label!r}: give 0 for benign or 1 for malignant.")
    PhantomSettings(patches_per_patient=4, patch_px=patch_px, seed=seed)  # checks the other two
    rng = np.random.default_rng(seed)
    margin = 16
    inside = np.full((patch_px + 2 * margin,) * 2, 1e3, dtype=np.float32)
    image = paint(draw_traits(rng), inside, inside if label == MALIGNANT else -inside, rng=rng)
    return image[margin:-margin, margin:-margin].copy()


def draw_packed(spec: Preprocessing, sizes: Sequence[int]) -> NDArray[np.uint8]:
    """(2 N, H, W, C) patches as a network takes them: of each of N sizes in pixels a benign and a malignant one.

    >>> draw_packed(Preprocessing(width=8, height=8), [32, 50]).shape
    (4, 8, 8, 3)
    """
    labels: tuple[Label, ...] = (0, 1)
    drawn = [draw_patch(label, seed, px) for seed, px in enumerate(sizes) for label in labels]
    return np.stack([spec.apply(patch) for patch in drawn])


def draw_for_scale(spec: Preprocessing) -> NDArray[np.uint8]:
    """(16, H, W, C) patches as a network takes them, benign and malignant in turn, to find a colour scale on."""
    px = min(max(16, spec.width, spec.height), 256)
    return draw_packed(spec, [px] * _DRAWN_OF_EACH)


def write_phantom(
    folder: Path,
    settings: PhantomSettings = PhantomSettings(),
    *,
    listener: Listener = _SILENT,
    threads: int | None = None,
) -> Path:
    """The folder, with `<patient>/<0|1>/<patient>_idx5_x<X>_y<Y>_class<C>.png` in it, as in the Kaggle IDC data.

    X and Y are the corner's pixel in the slide, counted from 1. The folder appears only when all is written: an
    interrupted job leaves nothing, one that was killed leaves a hidden sibling whose name ends in `.partial`.

    Args:
        folder: a new or an empty one.
        settings: equal settings give equal bytes.
        listener: hears of each patient that is done.
        threads: None takes one for each core, at most 8; the bytes do not depend on it.

    Raises:
        UsageError: the folder holds something already, is a file, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: already there; give a new folder for the phantom data, or delete this one.")
    final = folder.resolve()
    partial_folder = final.with_name(f".{final.name}.{secrets.token_hex(4)}.partial")
    pool = ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 8))
    try:
        partial_folder.mkdir(parents=True)
        listener.stage("draw")
        jobs = pool.map(partial(_write_patient, partial_folder, settings), range(settings.patients))
        for done, _ in enumerate(jobs, start=1):
            listener.advance(done, settings.patients)
        if final.is_dir():
            final.rmdir()
        partial_folder.rename(final)
    except OSError as error:
        raise UsageError(
            f"{folder}: the phantom data cannot be written ({error}); give a folder on a disk with room."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(partial_folder, ignore_errors=True)
    return folder


def _write_patient(folder: Path, settings: PhantomSettings, patient_index: int) -> None:
    slide, px = draw_slide(patient_index, settings), settings.patch_px
    home = folder / slide.patient_id
    for folder_of_label in (home / "0", home / "1"):
        folder_of_label.mkdir(parents=True)
    for row, column in np.argwhere(slide.tissue).tolist():
        label = int(slide.lesion[row, column])
        x, y = column * px, row * px
        patch = Image.fromarray(np.ascontiguousarray(slide.image[y : y + px, x : x + px]))
        name = f"{slide.patient_id}_idx5_x{x + 1}_y{y + 1}_class{label}.png"
        patch.save(home / str(label) / name, compress_level=3)


def _tissue(rng: np.random.Generator, count: int, px: int) -> FloatImage:
    """How far inside a ragged oval a pixel lies, in pixels up to a constant, on a whole number of patches."""
    across = px * math.sqrt(count)
    aspect = math.exp(rng.normal(0.0, 0.12))
    height, width = (math.ceil(1.35 * across * side / px) * px for side in (aspect, 1.0 / aspect))
    y, x = np.ogrid[:height, :width]
    oval = np.hypot((y - height / 2) / aspect, (x - width / 2) * aspect)
    ragged = 0.09 * across * smooth_field(rng, (height, width), 0.25 * across)
    return (ragged - oval).astype(np.float32)


def _lesion(rng: np.random.Generator, tissue_px: FloatImage, across: float) -> FloatImage:
    """How far inside the lesion a pixel lies, in pixels up to a constant: one focus, at times a second, smaller one."""
    sampled = tissue_px[::4, ::4]
    inner = 4 * np.argwhere(sampled > 0.2 * sampled.max())
    height, width = tissue_px.shape
    y, x = np.ogrid[:height, :width]
    nearest = np.full((height, width), np.inf, dtype=np.float32)
    for handicap in (0.0, 0.2 * across) if rng.random() < 0.35 else (0.0,):
        centre = inner[rng.integers(len(inner))]
        tilt, stretch = rng.uniform(0.0, math.pi), math.sqrt(rng.uniform(1.0, 2.2))
        along = (x - centre[1]) * math.cos(tilt) + (y - centre[0]) * math.sin(tilt)
        beside = (y - centre[0]) * math.cos(tilt) - (x - centre[1]) * math.sin(tilt)
        nearest = np.minimum(nearest, np.hypot(along / stretch, beside * stretch) + handicap)
    ragged = 0.07 * across * smooth_field(rng, (height, width), 0.14 * across)
    on_glass = np.minimum(tissue_px + 10.0, 0.0)
    inside: FloatImage = (ragged - nearest + 4.0 * on_glass).astype(np.float32)
    return inside


def _choose(
    field: FloatImage, count: int, px: int, *, among: NDArray[np.bool_] | None = None
) -> tuple[float, NDArray[np.bool_]]:
    """A level and the `count` patches (rows, columns), out of `among`, of which most pixels lie above it."""
    height, width = field.shape
    medians: NDArray[np.floating] = np.array(
        [[np.median(field[y : y + px, x : x + px]) for x in range(0, width, px)] for y in range(0, height, px)]
    )
    if among is not None:
        medians[~among] = -np.inf
    ranked = np.sort(medians, axis=None)[::-1]
    level = float(ranked[count - 1] + ranked[count]) / 2
    return level, np.asarray(medians > level)
