"""A bundle that predicts, made once, and images of several kinds on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.bundle.small_bundle import write_working

from clearmargin.images.preprocess import Preprocessing
from clearmargin.predict.predictor import Predictor, load_bundle

SPEC = Preprocessing(width=20, height=16, padding="white", mean=0.4, std=0.3)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "bundle"
    # The threshold lies among the probabilities of the images below, so that both decisions come up.
    write_working(folder, name="cbis_ddsm", spec=SPEC, temperature=1.7, threshold=0.46)
    return folder


@pytest.fixture
def predictor(bundle: Path) -> Predictor:
    return load_bundle(bundle)


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """40 images of several sizes, grey and colour, 8 and 16 bit."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    files = []
    for number in range(40):
        height, width = (int(side) for side in generator.integers(8, 40, 2)) if number % 4 else (16, 20)
        tint = generator.integers(0, 200, 3)
        pixels = (tint + generator.integers(0, 56, (height, width, 3))).astype(np.uint8)
        if number % 5 == 1:
            image = Image.fromarray(pixels[:, :, 0])
        elif number % 5 == 2:
            image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257 + 3)
        else:
            image = Image.fromarray(pixels)
        files.append(folder / f"{number:02}.png")
        image.save(files[-1])
    return files
