"""Programs of other people read the objects and find no fault: dciodvfy (dicom3tools) and dcmtk."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.web.dicom.objects import (
    GREEK,
    JAPANESE,
    KINDS,
    MALIGNANT,
    REFUSED,
    capture_of,
    errors_of,
    file_bytes,
    report_of,
    run_tool,
)

from clearmargin.types import Prediction


@pytest.mark.parametrize("prediction", [MALIGNANT, REFUSED], ids=["decided", "refused"])
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error(kind: str, prediction: Prediction, tmp_path: Path) -> None:
    data, frame = KINDS[kind]
    assert errors_of(capture_of(data, prediction, frame=frame), tmp_path) == []
    assert errors_of(report_of(data, prediction, frame=frame), tmp_path) == []


def test_dciodvfy_would_have_found_one(tmp_path: Path) -> None:
    capture = capture_of(KINDS["mammogram"][0])
    del capture.ConversionType
    assert errors_of(capture, tmp_path) != []


@pytest.mark.parametrize("kind", ["mammogram", "japanese", "greek", "nameless"])
def test_dcmtk_reads_the_names_that_were_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    for made in (capture_of(KINDS[kind][0]), report_of(KINDS[kind][0])):
        path.write_bytes(file_bytes(made))
        out, _ = run_tool("dcm2json", path)
        (name,) = json.loads(out)["00100010"].get("Value", [{}])
        written = {"japanese": JAPANESE, "greek": GREEK, "nameless": "", "mammogram": "DOE^JANE^SECRET"}[kind]
        parts = [part for part in written.split("=") if part]
        assert [name[group] for group in ("Alphabetic", "Ideographic", "Phonetic") if group in name] == parts


@pytest.mark.parametrize("kind", ["mammogram", "frames", "ultrasound"])
def test_dcmtk_shows_the_pixels_that_were_written(kind: str, tmp_path: Path) -> None:
    data, frame = KINDS[kind]
    capture, path = capture_of(data, frame=frame), tmp_path / "object.dcm"
    path.write_bytes(file_bytes(capture))
    run_tool("dcm2pnm", "+op", path, tmp_path / "shown.ppm")
    shown = Image.open(io.BytesIO((tmp_path / "shown.ppm").read_bytes()))
    np.testing.assert_array_equal(np.asarray(shown), capture.pixel_array)


@pytest.mark.parametrize("prediction", [MALIGNANT, REFUSED], ids=["decided", "refused"])
def test_dcmtk_reads_the_report(prediction: Prediction, tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    path.write_bytes(file_bytes(report_of(KINDS["mammogram"][0], prediction)))
    out, err = run_tool("dsrdump", "+Pl", path)
    assert not [line for line in err.splitlines() if line.startswith("E:")]
    assert "Comprehensive SR Document" in out
    assert ('"0.77123456789012"' in out) == (prediction is MALIGNANT)
    assert ('"Refused: not decided"' in out) == (prediction is REFUSED)
    assert "For research only, not for diagnosis." in out
