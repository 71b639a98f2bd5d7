"""How long the search for near duplicates takes, how much memory it needs, and how many planted copies it finds.

The images are windows of slides, at any angle, so that no two are the same; of one in a hundred a copy is planted:
turned, cropped by 4 % at most, JPEG of quality 50, brighter or darker by up to 20 %.

python benchmarks/similar.py --images 277524
python benchmarks/similar.py --data FOLDER --images 277524      (the patches of FOLDER first, then windows of them)
"""

from __future__ import annotations

import argparse
import io
import itertools
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clearmargin.data.audit.similar import are_flat, find_similar, thumbnail
from clearmargin.data.phantom import PhantomSettings, draw_slide
from clearmargin.data.walk import walk_files
from clearmargin.images.read import is_image

PATIENTS = 279
PATCH_PX = 50
SHEET = 24
"""Patches along the side of a sheet, from which windows are cut."""
PLANTED = 100
Pixels = NDArray[np.uint8]
Place = tuple[int, float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of patches; phantom slides if not given")
    parser.add_argument("--images", type=int, default=50_000, help="how many images to search")
    options = parser.parse_args()
    rng = np.random.default_rng(0)

    count = options.images - options.images // PLANTED
    thumbnails = np.empty((options.images, 32, 32), dtype=np.uint8)
    places = np.zeros((options.images, 3))
    copied = rng.choice(count, options.images - count, replace=False)
    copies = dict(zip(copied.tolist(), range(count, options.images), strict=True))
    spent = 0.0
    for row, (places[row], pixels) in enumerate(itertools.islice(distinct_patches(options.data, rng), count)):
        started = time.perf_counter()
        thumbnails[row] = thumbnail(pixels)
        spent += time.perf_counter() - started
        if row in copies:
            thumbnails[copies[row]], places[copies[row]] = thumbnail(_copy(pixels, rng)), places[row]

    before = _peak_mb()
    started = time.perf_counter()
    groups = find_similar(thumbnails)
    seconds = time.perf_counter() - started
    group_of = {row: number for number, group in enumerate(groups) for row in group.rows if group.certainty == "likely"}
    findable = [(row, copy) for row, copy in copies.items() if not are_flat(thumbnails[row][None])[0]]
    found = sum(row in group_of and group_of[row] == group_of.get(copy) for row, copy in findable)
    apart = [group for group in groups if np.ptp(places[list(group.rows)], axis=0).max() > PATCH_PX / 2]
    sure = sum(group.certainty == "likely" for group in apart)
    print(f"{options.images:,} images, {are_flat(thumbnails).sum():,} of them flat")
    print(f"thumbnail       {spent / count * 1e6:>8.1f} µs an image")
    print(f"search          {seconds:>8.1f} s, {seconds / options.images * 1e6:.0f} µs an image")
    print(f"memory          {_peak_mb():>8,.0f} MB at most; {before:,.0f} MB before the search, thumbnails included")
    print(f"planted copies  {found:>8,} of {len(findable):,} found ({found / max(1, len(findable)):.1%})")
    print(f"groups          {len(groups):>8,}; {len(apart):,} hold images of different places, {sure:,} of them likely")


def distinct_patches(data: Path | None, rng: np.random.Generator) -> Iterator[tuple[Place, Pixels]]:
    """Patches without end, no two the same: those of the folder, then windows of them; each with its place."""
    patches = _patches(data) if data else []
    sheets = _sheets(patches) if patches else [draw_slide(i, PhantomSettings(patients=24)).image for i in range(24)]
    yield from zip(map(_place, itertools.count()), patches)  # noqa: B905
    yield from _windows(sheets, rng)


def write_distinct(root: Path, data: Path | None, images: int, *, darker: bool = False) -> None:
    """An IDC-style folder of so many patches, no two the same, of 279 patients with both classes each.

    Args:
        root: to be made.
        data: a folder of patches; phantom slides when None.
        images: how many.
        darker: halve the light of malignant ones, so that there is something to learn.
    """
    for label in ("0", "1"):
        for patient in range(PATIENTS):
            (root / f"P{patient:03}" / label).mkdir(parents=True)
    patches = distinct_patches(data, np.random.default_rng(0))
    for number, (_, drawn) in enumerate(itertools.islice(patches, images)):
        label, patient = number // PATIENTS % 2, f"P{number % PATIENTS:03}"
        name = f"{patient}_idx5_x{number // PATIENTS * 50 + 1}_y1_class{label}.png"
        pixels = drawn // 2 if darker and label else drawn
        Image.fromarray(pixels).save(root / patient / str(label) / name, compress_level=1)


def _patches(folder: Path) -> list[Pixels]:
    images = (np.asarray(Image.open(folder / name).convert("RGB")) for name in walk_files(folder) if is_image(name))
    return [image for image in images if image.shape[:2] == (PATCH_PX, PATCH_PX)]


def _sheets(patches: list[Pixels]) -> list[Pixels]:
    """Patches side by side, in the order of their names."""
    whole = len(patches) // SHEET**2 * SHEET**2
    grid = np.stack(patches[:whole]).reshape(-1, SHEET, SHEET, PATCH_PX, PATCH_PX, 3)
    return list(grid.transpose(0, 1, 3, 2, 4, 5).reshape(-1, SHEET * PATCH_PX, SHEET * PATCH_PX, 3))


def _place(patch: int) -> Place:
    """Number of the sheet and the centre of a patch in it, as `_sheets` lays them."""
    sheet, rest = divmod(patch, SHEET**2)
    row, column = divmod(rest, SHEET)
    return sheet, (column + 0.5) * PATCH_PX, (row + 0.5) * PATCH_PX


def _windows(sheets: list[Pixels], rng: np.random.Generator) -> Iterator[tuple[Place, Pixels]]:
    """Windows at random places, angles and, a little, scales; the place is that of the centre."""
    pictures = [Image.fromarray(sheet) for sheet in sheets]
    reach, middle = PATCH_PX * 0.8, PATCH_PX / 2
    while True:
        number = int(rng.integers(len(pictures)))
        picture = pictures[number]
        x, y = rng.uniform(reach, picture.width - reach), rng.uniform(reach, picture.height - reach)
        angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.1)
        across, down = scale * np.cos(angle), scale * np.sin(angle)
        affine = (across, -down, x - middle * (across - down), down, across, y - middle * (across + down))
        size = (PATCH_PX, PATCH_PX)
        window = picture.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        yield (number, x, y), np.asarray(window)


def _copy(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    turned = np.rot90(pixels, int(rng.integers(4)))
    if rng.integers(2):
        turned = turned[:, ::-1]
    top, bottom, left, right = rng.integers(0, 3, 4)
    cropped = turned[top : PATCH_PX - bottom, left : PATCH_PX - right]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(cropped)).save(buffer, "JPEG", quality=50)
    return np.clip(np.asarray(Image.open(buffer)) * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
