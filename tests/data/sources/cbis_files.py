"""Small CBIS-DDSM sets of phantom mammograms in the layouts of Kaggle and TCIA, with the flaws of the real tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tests.images.dicom_files import dicom_bytes

FULL_PX, CROP_PX = (96, 72), 24
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_ROOT = "1.3.6.1.4.1.9590.100.1.2"
_COLUMNS = {
    "mass": ["mass shape", "mass margins", "breast_density"],
    "calc": ["calc type", "calc distribution", "breast density"],
}
_FACTS = ["left or right breast", "image view", "abnormality id", "pathology"]
_PATHS = ["image file path", "cropped image file path", "ROI mask file path"]


@dataclass(frozen=True)
class Lesion:
    """A line of a table. `mask_together` puts crop and mask in one series; `swapped` exchanges the two in the table."""

    patient: int
    pathology: str = "BENIGN"
    table: str = "mass"
    split: str = "train"
    side: str = "LEFT"
    view: str = "CC"
    number: int = 1
    swapped: bool = False
    mask_together: bool = False
    crop_second: bool = False
    """The table calls the second file of the shared series the crop, which is right where `swapped` is set, too."""
    own_series: bool = False
    """The full mammogram has a series of its own in each table."""

    @property
    def folder(self) -> str:
        part = {"train": "Training", "test": "Test"}[self.split]
        return f"{self.table.capitalize()}-{part}_P_{self.patient:05}_{self.side}_{self.view}"

    @property
    def breast_view(self) -> str:
        return f"{self.patient}{self.side}{self.view}" + (self.table if self.own_series else "")

    def uid(self, what: str) -> str:
        """The SeriesInstanceUID of the full mammogram, the crop or the mask."""
        if what == "full":
            return f"{_ROOT}.1{_digits(self.breast_view)}"
        role = "crop" if self.mask_together else what
        return f"{_ROOT}.2{_digits(f'{self.folder}{self.number}{role}')}"


def _digits(text: str) -> str:
    return str(int.from_bytes(text.encode(), "big"))[-24:]


LESIONS = (
    Lesion(1, "MALIGNANT"),
    Lesion(1, "MALIGNANT", view="MLO"),
    Lesion(2, "BENIGN_WITHOUT_CALLBACK", "calc", side="RIGHT"),
    Lesion(3, "BENIGN", split="test"),
    Lesion(4, "MALIGNANT", "calc", split="test", side="RIGHT", view="MLO"),
)


def full_pixels(lesion: Lesion) -> NDArray[np.uint16]:
    """The mammogram of the view of a breast, 12 bit: half an oval with dense tissue, another one in each breast."""
    generator = np.random.default_rng(list(lesion.breast_view.encode()))
    y, x = np.mgrid[0 : FULL_PX[0], 0 : FULL_PX[1]]
    width, height = generator.uniform(0.55, 0.95) * FULL_PX[1], generator.uniform(0.35, 0.5) * FULL_PX[0]
    depth = (1 - (x / width) ** 2 - ((y - generator.uniform(0.42, 0.58) * FULL_PX[0]) / height) ** 2).clip(0)
    light = 0.2 + 0.15 * np.sqrt(depth) + generator.normal(0, 0.02, depth.shape)
    for centre_x, centre_y, radius in generator.uniform((0, 16, 3), (40, 80, 12), (8, 3)):
        light += 0.12 * np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / radius**2)
    return np.rint(np.where(depth > 0, light, 0).clip(0, 1) * 4095).astype(np.uint16)


def crop_pixels(lesion: Lesion) -> NDArray[np.uint16]:
    """A piece from inside the breast, another one for each lesion of it."""
    top = 20 + 3 * lesion.number
    return full_pixels(lesion)[top : top + CROP_PX, 4 : 4 + CROP_PX]


def mask_pixels(lesion: Lesion) -> NDArray[np.uint16]:
    """Black, with a white disc where the lesion is."""
    y, x = np.mgrid[0 : FULL_PX[0], 0 : FULL_PX[1]]
    return np.where((x - 16) ** 2 + (y - 32 - 3 * lesion.number) ** 2 < 100, 4095, 0).astype(np.uint16)


def write_kaggle(root: Path, lesions: Sequence[Lesion] = LESIONS, *, without: Iterable[str] = ()) -> Path:
    """The layout of Kaggle: `csv/` and `jpeg/<SeriesInstanceUID>/`; `without` are series that did not arrive."""
    write_tables(root / "csv", lesions)
    (root / "csv" / "dicom_info.csv").write_text("file_path,image_path,SeriesInstanceUID\n", encoding="utf-8")
    left_out = set(without)
    for lesion in lesions:
        for number, (what, pixels) in enumerate(_images(lesion).items(), start=1):
            folder = root / "jpeg" / lesion.uid(what)
            if lesion.uid(what) in left_out:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            together = lesion.mask_together and what != "full"
            # The names of Kaggle's files are an instance number and a running number, which the tables do not have.
            first = (1 if (what == "crop") != lesion.swapped else 2) if together else 1
            Image.fromarray((pixels >> 4).astype(np.uint8)).save(folder / f"{first}-{100 + number}.jpg", quality=95)
    return root


def write_tcia(
    root: Path, lesions: Sequence[Lesion] = LESIONS, *, renamed: bool = False, without: Iterable[str] = ()
) -> Path:
    """The layout of TCIA: DICOM below folders with the UIDs, or `renamed` as the NBIA retriever does."""
    write_tables(root, lesions)
    left_out = set(without)
    for lesion in lesions:
        for what, pixels in _images(lesion).items():
            uid = lesion.uid(what)
            if uid in left_out:
                continue
            name = lesion.folder if what == "full" else f"{lesion.folder}_{lesion.number}"
            text = {"full": "full mammogram images", "crop": "cropped images", "mask": "ROI mask images"}
            role = "mask" if lesion.mask_together and what == "crop" else what
            series = f"1.000000-{text[role]}-{uid[-5:]}" if renamed else uid
            folder = root / "CBIS-DDSM" / name / (f"07-20-2016-DDSM-NA-{uid[-4:]}" if renamed else f"{uid}.1") / series
            folder.mkdir(parents=True, exist_ok=True)
            number = len(list(folder.iterdir())) if what != "full" else 0
            data = dicom_bytes(
                pixels,
                PatientID=name,
                SeriesInstanceUID=uid,
                SOPClassUID=SECONDARY_CAPTURE,
                SOPInstanceUID=f"{uid}.{number + 1}",
            )
            (folder / (f"1-{number + 1}.dcm" if renamed else f"{number:06}.dcm")).write_bytes(data)
    return root


def write_tables(folder: Path, lesions: Sequence[Lesion]) -> None:
    """The four tables, with the line breaks inside of paths and the columns that the published ones have."""
    folder.mkdir(parents=True, exist_ok=True)
    for table, extra in _COLUMNS.items():
        for split in ("train", "test"):
            these = [lesion for lesion in lesions if (lesion.table, lesion.split) == (table, split)]
            with (folder / f"{table}_case_description_{split}_set.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["patient_id", *extra, *_FACTS, *_PATHS])
                for lesion in these:
                    facts = [lesion.side, lesion.view, lesion.number, lesion.pathology]
                    writer.writerow([f"P_{lesion.patient:05}", "", "", "2", *facts, *_table_paths(lesion)])


def _table_paths(lesion: Lesion) -> list[str]:
    full = f"{lesion.folder}/{lesion.uid('full')}.1/{lesion.uid('full')}/000000.dcm"
    crop, mask = (
        f"{lesion.folder}_{lesion.number}/{lesion.uid(what)}.1/{lesion.uid(what)}/{name}.dcm\n"
        for what, name in zip(("crop", "mask"), _file_names(lesion), strict=True)
    )
    if lesion.swapped and not lesion.mask_together:
        crop, mask = mask, crop
    return [full, crop, mask]


def _file_names(lesion: Lesion) -> tuple[str, str]:
    if not lesion.mask_together:
        return "000000", "000000"
    return ("000001", "000000") if lesion.crop_second else ("000000", "000001")


def _images(lesion: Lesion) -> dict[str, NDArray[np.uint16]]:
    images = {"full": full_pixels(lesion), "crop": crop_pixels(lesion), "mask": mask_pixels(lesion)}
    if lesion.mask_together and lesion.swapped:
        return {"full": images["full"], "mask": images["mask"], "crop": images["crop"]}
    return images
