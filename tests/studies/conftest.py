"""A cross-validated run on drawn patients, and images of other patients, shared by the tests of the studies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

import clearmargin
from clearmargin.data.phantom import PhantomSettings, write_phantom

SETTINGS = {
    "evaluate.resamples": 200,
    "train.batch_size": 16,
    "images.size": [32, 32],
    "images.fit": "stretch",
    "cases.keep": "on",
}


@dataclass(frozen=True)
class Crossed:
    """A cross-validated run, its images, and a folder of other patients."""

    data: Path
    others: Path
    folder: Path


@pytest.fixture(scope="session")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Crossed:
    """Three folds of two epochs on 12 drawn patients; 10 others."""
    root = tmp_path_factory.mktemp("studies")
    write_phantom(root / "data", PhantomSettings(patients=12, patches_per_patient=16))
    write_phantom(root / "others", PhantomSettings(patients=10, patches_per_patient=16, seed=7))
    os.environ["CLEARMARGIN_CACHE"] = str(root / "cache")
    run = clearmargin.train(
        root / "data", root / "run", model="larger_model", epochs=2, folds=3, prevalence=0.01, settings=SETTINGS
    )
    return Crossed(root / "data", root / "others", run.folder)
