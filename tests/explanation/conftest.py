"""A bundle that explains, made once, and images of several kinds on disk."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from tests.bundle.small_bundle import write_working

from clearmargin.bundle.schema import SaliencyScale
from clearmargin.explanation.explainer import Explainer
from clearmargin.explanation.methods import METHODS
from clearmargin.images.preprocess import Preprocessing
from clearmargin.predict.predictor import load_bundle
from clearmargin.types import Record

SPEC = Preprocessing(width=24, height=20, padding="white", mean=0.4, std=0.3)
FULL = 0.02


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    from tests.models.torchvision_stand_in import import_timm

    return import_timm()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "bundle"
    scales = {
        name: SaliencyScale(saturation=FULL, rule="made up", images=3, of="images of validation") for name in METHODS
    }
    write_working(folder, name="cbis_ddsm", spec=SPEC, threshold=0.46, content="histology", saliency=scales)
    return folder


@pytest.fixture(scope="session")
def explainer(bundle: Path) -> Explainer:
    return Explainer(load_bundle(bundle))


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """A patch, a smaller one, a large grey one of 16 bits, something else, and another patch of the first's name."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    files = [
        folder / "a" / "x.png",
        folder / "small.png",
        folder / "large.png",
        folder / "not.png",
        folder / "b" / "X.png",
    ]
    sizes = [(20, 24, 3), (9, 13, 3), (700, 1200), None, (20, 24, 3)]
    for file, size in zip(files, sizes, strict=True):
        if size is None:
            file.write_text("no image")
        elif len(size) == 2:
            Image.fromarray(generator.integers(0, 60_000, size).astype(np.uint16)).save(file)
        else:
            Image.fromarray(generator.integers(0, 255, size).astype(np.uint8)).save(file)
    return [Record(str(file)) for file in files]
