"""The stage, once for all documents, and an export that takes no time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.docs.stage import Stage
from tests.slides import make_quick

from clearmargin.bundle.keras.network import read_network
from clearmargin.bundle.keras.real import Answer


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """What the documents' names stand for; each thing is made by the first test that needs it."""
    return Stage(tmp_path_factory.mktemp("stage"))


def make_light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw no report and measure no colour scales, which take most time and have tests of their own."""
    for module in ("workflow", "studies.cross_validation", "studies.recalibration"):
        monkeypatch.setattr(f"clearmargin.{module}.measure_saliency", lambda *_, **__: {})
    monkeypatch.setattr("clearmargin.report.write.render_report", lambda *_, **__: "<p>Report.</p>")


def _no_keras(path: Path, pixels: NDArray[np.float32]) -> Answer:
    return Answer(None, "Keras is not installed", installed=False)


@pytest.fixture
def quick(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The stage; and in this test too the quick export, no Keras, which takes seconds to start, and one cache."""
    make_quick(monkeypatch, stage.root / "cache")
    for module in ("importing", "exporting"):
        monkeypatch.setattr(f"clearmargin.bundle.keras.{module}.ask_keras", _no_keras)
    monkeypatch.setattr("clearmargin.bundle.keras.importing.read_isolated", read_network)
    assert os.environ["CLEARMARGIN_CACHE"] == str(stage.root / "cache")
    return stage
