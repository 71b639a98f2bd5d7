"""Small drawn sets in the exact layouts in which data sets are published; a new source is a function and a line."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tests.data.sources.cbis_files import write_kaggle
from tests.data.sources.dicom_files import write_exam_folders

from clearmargin.data.phantom import draw_patch

BREAKHIS_SLIDES = (
    ("B", "A", "adenosis", "14-22549AB"),
    ("B", "A", "adenosis", "14-22549CD"),
    ("B", "F", "fibroadenoma", "14-14134"),
    ("B", "F", "fibroadenoma", "14-14134E"),
    ("M", "DC", "ductal_carcinoma", "14-13412"),
    ("M", "LC", "lobular_carcinoma", "14-13412"),
    ("M", "MC", "mucinous_carcinoma", "14-18842D"),
    ("M", "PC", "papillary_carcinoma", "15-190EF"),
)

MIAS_PROSE = """              MAMMOGRAPHIC IMAGE ANALYSIS SOCIETY
                  MiniMammographic Database

INFORMATION:

1st column: MIAS database reference number.
4th column: Severity of abnormality;
                B - Benign
NOTES
=====
1) The list is arranged in pairs of films.

=================================================================

"""
MIAS_LINES = """mdb001 G CIRC B 535 425 197
mdb002 G CIRC B 522 280 69
mdb003 D NORM
mdb004 D NORM
mdb005 F CIRC B 477 133 30
mdb005 F CIRC B 500 168 26
mdb006 F NORM
mdb059 F CIRC B
mdb144 F MISC B 233 994 29
mdb144 F MISC M 313 540 27
mdb212 G CALC B 687 882 3
mdb216 D CALC M *NOTE 3*
"""
MIAS_IMAGES = ("mdb001", "mdb002", "mdb003", "mdb004", "mdb005", "mdb006", "mdb059", "mdb144", "mdb212", "mdb216")


@dataclass(frozen=True, slots=True)
class Layout:
    """How to write a set below a folder, what to give of it, and what it holds: (images, malignant ones)."""

    write: Callable[[Path], Path]
    images: int
    malignant: int


def save(file: Path, pixels: NDArray[np.uint8], **options: object) -> Path:
    """The file, with its folders, holding the pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)  # type: ignore[arg-type]
    return file


def zip_folder(root: Path, file: Path) -> Path:
    """A .zip file of all that lies below the root, named as seen from it."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in sorted(root.rglob("*")):
            archive.write(entry, entry.relative_to(root))
    return file


def write_idc(root: Path) -> Path:
    """Two patients with two patches of each class."""
    for patient in ("8863", "9173"):
        for label in (0, 1):
            for x in (1, 51):
                name = f"{patient}_idx5_x{x}_y{51 * label + 1}_class{label}.png"
                seed = int(patient) + x + label
                save(root / "IDC_regular_ps50_idx5" / patient / str(label) / name, draw_patch(label, seed, 20))
    return root


def write_folder(root: Path) -> Path:
    """Two splits of two classes."""
    for number, split in enumerate(("train", "test")):
        for label, name in enumerate(("benign", "malignant")):
            save(root / split / name / "a.png", draw_patch(label, 10 * number + label, 20))
    return root


def write_csv(root: Path) -> Path:
    """A table with two images beside it."""
    for label in (0, 1):
        save(root / f"{label}.png", draw_patch(label, label, 20))
    table = root / "images.csv"
    table.write_text("path,label,patient_id\n0.png,benign,A\n1.png,malignant,B\n", encoding="utf-8")
    return table


def write_breakhis(root: Path) -> Path:
    """Eight slides of six patients, at two magnifications."""
    top = root / "BreaKHis_v1" / "histology_slides" / "breast"
    for number, (letter, short, kind, slide) in enumerate(BREAKHIS_SLIDES):
        folder = top / ("benign" if letter == "B" else "malignant") / "SOB" / kind / f"SOB_{letter}_{short}_{slide}"
        for magnification in (40, 400):
            pixels = draw_patch(int(letter == "M"), 1000 * magnification + number, 70)[:46]
            save(folder / f"{magnification}X" / f"SOB_{letter}_{short}-{slide}-{magnification}-001.png", pixels)
    (root / "BreaKHis_v1" / "README.txt").write_text("BreaKHis 1.0", encoding="utf-8")
    return root


def draw_mammogram(lesions: tuple[tuple[int, int, int], ...] = (), *, right: bool, px: int = 1024) -> NDArray[np.uint8]:
    """(px, px) grey: a half oval on black, the chest wall on one side, and a white disc at each (x, y, radius).

    As in mini-MIAS, y counts from the bottom.
    """
    y, x = np.mgrid[:px, :px]
    across = px - x if right else x
    breast = np.hypot(across / 0.7, (y - px / 2)) < px * 0.45
    pixels = np.where(breast, 90, 0).astype(np.uint8)
    for centre_x, centre_y, radius in lesions:
        pixels[np.hypot(x - centre_x, px - y - centre_y) <= radius] = 255
    return pixels


def write_mias(root: Path, *, lines: str = MIAS_LINES, info: str = "Info.txt") -> Path:
    """Ten mammograms and the list with its prose."""
    root.mkdir(parents=True, exist_ok=True)
    (root / info).write_text(MIAS_PROSE + lines, encoding="ascii")
    (root / "Licence.txt").write_text("research only", encoding="ascii")
    for image in MIAS_IMAGES:
        words = [line.split() for line in lines.splitlines() if line.startswith(image)]
        lesions = tuple((int(w[4]), int(w[5]), int(w[6])) for w in words if len(w) == 7)
        save(root / f"{image}.pgm", draw_mammogram(lesions, right=int(image[3:]) % 2 == 1))
    return root


def draw_ultrasound(seed: int, width: int = 80, height: int = 60) -> NDArray[np.uint8]:
    """(height, width, 3) grey speckle."""
    speckle = np.random.default_rng(seed).rayleigh(40, (height, width)).clip(0, 255).astype(np.uint8)
    return np.repeat(speckle[:, :, None], 3, axis=2)


def draw_mask(*boxes: tuple[int, int, int, int], width: int = 80, height: int = 60) -> NDArray[np.bool_]:
    """(height, width), true inside each box of left, top, width, height."""
    mask = np.zeros((height, width), dtype=bool)
    for left, top, box_width, box_height in boxes:
        mask[top : top + box_height, left : left + box_width] = True
    return mask


def write_busi(root: Path) -> Path:
    """Three benign images, one with two masks, two malignant ones and a normal one with its empty mask."""
    top = root / "Dataset_BUSI_with_GT"
    for seed, (kind, count) in enumerate((("benign", 3), ("malignant", 2), ("normal", 1))):
        for number in range(1, count + 1):
            stem = top / kind / f"{kind} ({number})"
            save(stem.with_name(f"{stem.name}.png"), draw_ultrasound(10 * seed + number))
            box = () if kind == "normal" else ((20, 25, 30, 10),)
            save(stem.with_name(f"{stem.name}_mask.png"), draw_mask(*box))
    second = np.repeat(draw_mask((60, 5, 8, 8))[:, :, None], 4, axis=2) * np.uint8(255)
    second[..., 3] = 255  # some of the published masks are RGBA
    save(top / "benign" / "benign (2)_mask_1.png", second)
    return root


def write_breastmnist(root: Path, *, name: str = "breastmnist.npz", sizes: Mapping[str, int] | None = None) -> Path:
    """An .npz file with 4 of 10, 1 of 3 and 2 of 5 images malignant, which it codes 0."""
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    arrays: dict[str, NDArray[np.generic]] = {}
    for split, count in (sizes or {"train": 10, "val": 3, "test": 5}).items():
        arrays[f"{split}_images"] = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) >= count * 2 // 5).astype(np.uint8)[:, None]
    np.savez_compressed(root / name, **arrays)
    return root / name


def pcam_id(number: int) -> str:
    """40 hexadecimal digits, as in PCam."""
    return hashlib.sha1(str(number).encode()).hexdigest()


def write_pcam(root: Path) -> Path:
    """Six labelled patches, of which two are malignant, and two without labels."""
    lines = ["id,label"]
    for number in range(6):
        label = int(number % 3 == 0)
        save(root / "train" / f"{pcam_id(number)}.tif", draw_patch(label, number, 96))
        lines.append(f"{pcam_id(number)},{label}")
    for number in (6, 7):
        save(root / "test" / f"{pcam_id(number)}.tif", draw_patch(0, number, 96))
    (root / "train_labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "sample_submission.csv").write_text(f"id,label\n{pcam_id(6)},0\n{pcam_id(7)},0\n", encoding="utf-8")
    return root


LAYOUTS: dict[str, Layout] = {
    "csv": Layout(write_csv, 2, 1),
    "idc": Layout(write_idc, 8, 4),
    "breakhis": Layout(write_breakhis, 16, 8),
    "busi": Layout(write_busi, 5, 2),
    "mias": Layout(write_mias, 7, 2),
    "medmnist": Layout(write_breastmnist, 18, 7),
    "pcam": Layout(write_pcam, 6, 2),
    "cbis_ddsm": Layout(write_kaggle, 5, 3),
    "dicom": Layout(write_exam_folders, 4, 2),
    "folder": Layout(write_folder, 4, 2),
}
"""A layout for each entry of SOURCES; `write` gives the path that a user would give."""
