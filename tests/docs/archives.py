"""Published sets in their layouts, of as many patients as a split needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from tests.data.layouts import LAYOUTS, MIAS_LINES, pcam_id, save, write_mias
from tests.data.sources.cbis_files import Lesion, write_kaggle
from tests.data.sources.dicom_files import Shot, put
from tests.small_run import write_patches

from clearmargin.data.phantom import draw_patch

_SHOTS = [Shot(number, f"P-{number}", study=number) for number in range(1, 9)]
DICOM_LABELS = "SOPInstanceUID,label\n" + "".join(f"{shot.sop_uid},{shot.number % 2}\n" for shot in _SHOTS)


def write_archive(root: Path, name: str) -> Path:
    """The set of this source, by the name of `SOURCES`; gives what a user would name."""
    own = {
        "mias": _write_mias,
        "pcam": _write_pcam,
        "cbis_ddsm": _write_cbis,
        "dicom": _write_dicom,
        "busi": _write_busi,
    }
    return own[name](root) if name in own else LAYOUTS[name].write(root)


def write_official(root: Path) -> Path:
    """Patches of IDC below train/, val/ and test/."""
    patients = root.with_name("all")
    write_patches(patients, patients=10, per_class=2, px=24)
    for number, folder in enumerate(sorted(patients.iterdir())):
        part = "test" if number > 7 else "val" if number > 5 else "train"
        shutil.copytree(folder, root / part / folder.name)
    return root


def _write_mias(root: Path) -> Path:
    """Four patients with lesions, two of them malignant; each film has a grain of its own."""
    write_mias(root, lines=MIAS_LINES.replace("mdb001 G CIRC B", "mdb001 G CIRC M"))
    for seed, file in enumerate(sorted(root.glob("*.pgm"))):
        pixels = np.asarray(Image.open(file)).astype(np.int16)
        grain = np.random.default_rng(seed).integers(-20, 21, (32, 32)).repeat(32, 0).repeat(32, 1)
        Image.fromarray(np.where(pixels > 0, pixels + grain, 0).clip(0, 255).astype(np.uint8)).save(file)
    return root


def _write_pcam(root: Path) -> Path:
    """24 patches of which half are malignant."""
    lines = ["id,label"]
    for number in range(24):
        save(root / "train" / f"{pcam_id(number)}.tif", draw_patch(number % 2, number, 96))
        lines.append(f"{pcam_id(number)},{number % 2}")
    (root / "train_labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def _write_cbis(root: Path) -> Path:
    """Twelve patients with a lesion each, four of them in test."""
    words = ("MALIGNANT", "BENIGN")
    lesions = [Lesion(number, words[number % 2], split="test" if number > 8 else "train") for number in range(1, 13)]
    return write_kaggle(root, lesions)


def _write_dicom(root: Path) -> Path:
    """A mammogram of each of eight patients, and the table of labels beside them."""
    files: dict[str, bytes | str] = {f"IM{shot.number:06}": shot.data() for shot in _SHOTS}
    return put(root, files | {"labels.csv": DICOM_LABELS})


def _write_busi(root: Path) -> Path:
    """Twelve images of each class with a mask each."""
    generator = np.random.default_rng(0)
    for kind in ("benign", "malignant"):
        for number in range(1, 13):
            stem = root / "Dataset_BUSI_with_GT" / kind / f"{kind} ({number})"
            pixels = generator.rayleigh(40, (60, 80)).clip(0, 255).astype(np.uint8)
            mask = np.zeros((60, 80), dtype=bool)
            mask[20:40, 25:55] = True
            save(stem.with_name(f"{stem.name}.png"), np.repeat(pixels[:, :, None], 3, axis=2))
            save(stem.with_name(f"{stem.name}_mask.png"), mask)
    return root
