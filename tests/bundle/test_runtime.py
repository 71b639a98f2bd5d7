"""ONNX Runtime tells nobody of the models that it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tests.bundle.small_bundle import write_working

from clearmargin.images.preprocess import Preprocessing


def test_a_prediction_writes_nothing_that_could_be_sent_later(tmp_path: Path) -> None:
    write_working(tmp_path / "bundle", name="cbis_ddsm", spec=Preprocessing(width=16, height=16))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home)}
    command = [sys.executable, "-m", "clearmargin", "predict", str(tmp_path / "bundle"), str(tmp_path / "a.png")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert list(home.rglob("*")) == []
