"""Synthetic patients, their slides, and the files cut from them.

Invariants: equal settings give equal bytes, a patient does not depend on how many others there are, and
every patient has patches of both labels. How tissue looks is in `drawing.py`.
"""

from __future__ import annotations

import math
import secrets
import shutil
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
from clearmargin.types import MALIGNANT, Label, Listener

_SILENT = Listener()
_LIMITS = {"patients": (1, 9_999), "patches_per_patient": (4, 2_000), "patch_px": (16, 256), "seed": (0, 2**31 - 1)}
_LARGEST_SLIDE_PX = 8_000_000
_CUT_EVERY, _CUT_FIRST = 20, 3
"""Every 20th slide, beginning with the fourth, ends inside its last column of patches."""


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
    """One patch of a patient of its own, uint8 (patch_px, patch_px, 3), well inside or outside a lesion."""
    PhantomSettings(patch_px=patch_px, patches_per_patient=4, seed=seed)
    rng = np.random.default_rng([seed, label, patch_px])
    margin = 16
    inside = np.full((patch_px + 2 * margin,) * 2, 1e3, dtype=np.float32)
    image = paint(draw_traits(rng), inside, inside if label == MALIGNANT else -inside, rng=rng)
    return image[margin:-margin, margin:-margin].copy()


def write_phantom(
    folder: Path,
    settings: PhantomSettings = PhantomSettings(),
    *,
    listener: Listener = _SILENT,
    threads: int = 2,
) -> Path:
    """The folder, with `<patient>/<0|1>/<patient>_idx5_x<X>_y<Y>_class<C>.png` in it, as in the Kaggle IDC data.

    x and y are pixels of the slide, 1 for the first. The folder appears only when all is written; the bytes do
    not depend on the number of threads.

    Raises:
        UsageError: the folder is there already and not empty, or is a file.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"{folder}: already there; give a new folder for the phantom data, or delete this one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial_folder = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    pool = ThreadPoolExecutor(threads)
    try:
        listener.stage("drawing phantom slides")
        jobs = pool.map(partial(_write_patient, partial_folder, settings), range(settings.patients))
        for done, _ in enumerate(jobs, start=1):
            listener.advance(done, settings.patients)
        if folder.is_dir():
            folder.rmdir()
        partial_folder.rename(folder)
    except BaseException:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(partial_folder, ignore_errors=True)
        raise
    pool.shutdown()
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
    return (0.09 * across * smooth_field(rng, (height, width), 0.25 * across) - oval).astype(np.float32)


def _lesion(rng: np.random.Generator, tissue_px: FloatImage, across: float) -> FloatImage:
    """How far inside the lesion a pixel lies, in pixels up to a constant: one focus, at times a second, smaller one."""
    inner = np.argwhere(tissue_px[::8, ::8] > 0.08 * across) * 8
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
    return (ragged - nearest + 2.0 * on_glass).astype(np.float32)


def _choose(
    field: FloatImage, count: int, px: int, *, among: NDArray[np.bool_] | None = None
) -> tuple[float, NDArray[np.bool_]]:
    """A level and the `count` patches (rows, columns) of which more than half the pixels lie above it."""
    height, width = field.shape
    medians = np.array(
        [[np.median(field[y : y + px, x : x + px]) for x in range(0, width, px)] for y in range(0, height, px)]
    )
    if among is not None:
        medians[~among] = -np.inf
    ranked = np.sort(medians, axis=None)[::-1]
    level = float(ranked[count - 1] + ranked[count]) / 2
    return level, medians > level
