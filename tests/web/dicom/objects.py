"""Sources of many kinds, and what is made of them, without a model."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit
from tests.images.dicom_files import ULTRASOUND, colour_phantom, decode, dicom_bytes, phantom

from clearmargin.bundle.schema import SaliencyScale
from clearmargin.explanation.explainer import Explanation
from clearmargin.images.limits import Pixels
from clearmargin.images.preprocess import Placement
from clearmargin.types import Prediction, Record
from clearmargin.web.answers import (
    AbstentionFacts,
    ContextFacts,
    Figure,
    GateFacts,
    InputFacts,
    LineageFacts,
    ModelAnswer,
    PointFacts,
    SimilarFacts,
)
from clearmargin.web.dicom.secondary_capture import secondary_capture
from clearmargin.web.dicom.source import read_source
from clearmargin.web.dicom.structured_report import structured_report

MODEL = ModelAnswer(
    name="idc",
    architecture="residual",
    parameters=1000,
    content="mammogram",
    input=InputFacts(width=32, height=32, channels=3),
    operating_point=PointFacts(
        name="balanced",
        rule="largest balanced accuracy",
        threshold=0.4321,
        chosen_on="validation",
        sensitivity=Figure(value=0.9, ci=(0.81, 0.95)),
        specificity=Figure(value=0.7, ci=None),
        achieved_on="test",
    ),
    calibration="temperature",
    abstention=AbstentionFacts(active=False, coverage=None, between=None, reason="not chosen"),
    gate=GateFacts(active=False, reason="switched off"),
    context=ContextFacts(
        active=False, step=None, operating_point=None, abstention=None, reason="neighbours do not count"
    ),
    similar=SimilarFacts(available=False, images=0, pseudonymous=False),
    methods=[],
    prevalence=None,
    stamp="image-level split: optimistic",
    lineage=LineageFacts(
        recipe="default",
        split="image",
        patients=17,
        images=1234,
        created="2026-01-02T03:04:05+00:00",
        clearmargin="0.1.0",
        sha256="0123456789abcdef" * 4,
    ),
    test=None,
    intended_use="For research and education.",
)
MALIGNANT = Prediction(Record(""), 1.2, 0.7712345678901234, "malignant", "not gated")
ABSTAINED = Prediction(Record(""), 0.0, 0.45, "abstain", "too uncertain for the promised coverage of 0.9")
REFUSED = Prediction(Record(""), None, None, "refused", "size: 32×40 pixels, 3 times smaller than (100×100)")

JAPANESE, GREEK = "Yamada^Tarou=山田^太郎=やまだ^たろう", "Διονυσιος^Άννα"
WHOLE = {
    "StudyDate": "20240229",
    "StudyTime": "120000.5",
    "StudyID": "S1",
    "AccessionNumber": "A-7",
    "StudyDescription": "Screening",
    "ReferringPhysicianName": "ROE^RICHARD",
    "PatientBirthDate": "19600101",
    "PatientSex": "F",
    "IssuerOfPatientID": "HOSPITAL",
    "BodyPartExamined": "BREAST",
    "ImageLaterality": "L",
}
KINDS: dict[str, tuple[bytes, int | None]] = {
    "mammogram": (dicom_bytes(phantom(), **WHOLE), None),
    "inverted": (dicom_bytes(phantom(), photometric="MONOCHROME1"), None),
    "16 bit": (dicom_bytes(phantom(bits=16), bits=16), None),
    "frames": (
        dicom_bytes([phantom(), phantom(seed=1), phantom(seed=2)], Modality="US", SOPClassUID=f"{ULTRASOUND[:-3]}3.1"),
        2,
    ),
    "ultrasound": (
        dicom_bytes(colour_phantom(), photometric="RGB", bits=8, Modality="US", SOPClassUID=ULTRASOUND),
        None,
    ),
    "retired ultrasound": (
        dicom_bytes(colour_phantom(), photometric="RGB", bits=8, Modality="US", SOPClassUID=ULTRASOUND[:-2]),
        None,
    ),
    "lossy": (
        dicom_bytes(colour_phantom(), JPEGBaseline8Bit, photometric="YBR_FULL", bits=8, Modality="US"),
        None,
    ),
    "nameless": (dicom_bytes(phantom(), PatientName=None, PatientID=None), None),
    "japanese": (
        dicom_bytes(phantom(), SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=JAPANESE),
        None,
    ),
    "greek": (dicom_bytes(phantom(), SpecificCharacterSet="ISO_IR 126", PatientName=GREEK), None),
    "without identity": (
        dicom_bytes(phantom(), PatientIdentityRemoved="YES", DeidentificationMethod=["by hand", "twice"]),
        None,
    ),
}


def explanation(pixels: Pixels, prediction: Prediction) -> Explanation:
    """An invented map that grows from the top to the bottom."""
    height, width = pixels.shape[:2]
    values = np.linspace(-1, 1, width * height, dtype=np.float32).reshape(height, width)
    place = Placement((width, height), (0, 0, width, height), False, (width, height))
    scale = SaliencyScale(saturation=1.0, rule="invented", images=3, of="invented images")
    assert prediction.logit is not None and prediction.probability is not None
    logit, chance = prediction.logit, prediction.probability
    point = MODEL.operating_point
    return Explanation(
        Record(""),
        "grad_cam",
        values,
        place,
        logit,
        chance,
        prediction.decision,
        point.threshold,
        scale,
        reason=prediction.reason,
    )


def capture_of(data: bytes, prediction: Prediction = MALIGNANT, *, frame: int | None = None) -> Dataset:
    """The Secondary Capture, written and read again."""
    pixels = decode(data, frame=frame)
    explained = None if prediction.probability is None else explanation(pixels, prediction)
    return reread(secondary_capture(read_source(data, "a.dcm", frame=frame), pixels, prediction, explained, MODEL))


def report_of(data: bytes, prediction: Prediction = MALIGNANT, *, frame: int | None = None) -> Dataset:
    """The Structured Report, written and read again."""
    return reread(structured_report(read_source(data, "a.dcm", frame=frame), prediction, MODEL))


def reread(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(file_bytes(dataset)))


def file_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def run_tool(name: str, *arguments: object) -> tuple[str, str]:
    """What a program of dcmtk or dicom3tools says on its outputs; where it must be there, its absence is a failure."""
    program = shutil.which(name)
    if program is None:
        if os.environ.get("CLEARMARGIN_REQUIRE_DICOM_TOOLS") == "1":
            pytest.fail(f"{name} is required and not installed")
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60, encoding="utf-8"
    )
    return done.stdout, done.stderr


def errors_of(dataset: Dataset, folder: Path) -> list[str]:
    """The lines of dciodvfy that are errors."""
    path = folder / "object.dcm"
    path.write_bytes(file_bytes(dataset))
    out, err = run_tool("dciodvfy", path)
    lines = [*out.splitlines(), *err.splitlines()]
    assert any(line in ("SCImage", "ComprehensiveSR") for line in lines), lines  # it knew what it looked at
    return [line for line in lines if line.startswith("Error")]


def content_items(item: Dataset, meaning: str) -> list[Any]:
    """All content items below this one whose name has this meaning."""
    found = []
    for child in item.get("ContentSequence", []):
        if child.ConceptNameCodeSequence[0].CodeMeaning == meaning:
            found.append(child)
        found += content_items(child, meaning)
    return found
