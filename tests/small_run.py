"""A finished run on small images, for tests of the command line and of the server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class SmallRun:
    """A finished run on small images, and where they are."""

    data: Path
    folder: Path


def train_small(root: Path) -> SmallRun:
    """Two epochs of the default recipe with the residual net on 12 patients of 32 × 32 patches, below `root`."""
    from clearmargin.cli import main

    write_patches(root / "data", patients=12, per_class=6, px=32)
    os.environ["CLEARMARGIN_CACHE"] = str(root / "cache")
    command = ["train", root / "data", "--out", root / "run", "--model", "residual", "--epochs", 2]
    command += ["--set", "evaluate.resamples=200", "--set", "train.batch_size=16"]
    assert main([str(part) for part in command]) == 0
    return SmallRun(root / "data", root / "run")


def write_patches(root: Path, *, patients: int, per_class: int, px: int) -> None:
    """IDC-style patches whose classes differ in colour, patients in tint."""
    generator = np.random.default_rng(1)
    for patient in range(patients):
        tint = generator.integers(-25, 26)
        for label in (0, 1):
            folder = root / f"P{patient:02}" / str(label)
            folder.mkdir(parents=True)
            for number in range(per_class):
                base = np.array([200, 150, 190]) if label == 0 else np.array([150, 90, 165])
                pixels = np.clip(base + tint + generator.integers(-50, 51, (px, px, 3)), 0, 255).astype(np.uint8)
                name = f"P{patient:02}_idx5_x{1 + px * number}_y{1 + px * label}_class{label}.png"
                Image.fromarray(pixels).save(folder / name)
