"""Small folders of DICOM files as they come out of an archive: odd names, other modalities, several frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from tests.images.dicom_files import MAMMOGRAPHY, ULTRASOUND, dicom_bytes, header, phantom, write

FOR_PROCESSING = f"{MAMMOGRAPHY}.1"
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
CT, REPORT, DIRECTORY = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.1.3.10"
SECRETS = {"PatientName": "DOE^JANE^SECRET", "PatientBirthDate": "19500230", "PatientAddress": "1 Secret Street"}


@dataclass(frozen=True)
class Shot:
    """One mammogram; its UIDs are `1.2.3.<study>`, `….<series>` and `….<number>`."""

    number: int
    patient: str | None = "P-1"
    study: int = 1
    series: int = 1
    side: str | None = "L"
    view: str | None = "CC"

    @property
    def study_uid(self) -> str:
        return f"1.2.3.{self.study}"

    @property
    def series_uid(self) -> str:
        return f"{self.study_uid}.{self.series}"

    @property
    def sop_uid(self) -> str:
        return f"{self.series_uid}.{self.number}"

    def data(self, *, frames: int = 1, **elements: Any) -> bytes:
        """The file; `elements` are added or, where None, taken out."""
        pixels = [phantom(seed=100 * self.number + frame) for frame in range(frames)]
        own = {
            "PatientID": self.patient,
            "StudyInstanceUID": self.study_uid,
            "SeriesInstanceUID": self.series_uid,
            "SOPInstanceUID": self.sop_uid,
            "ImageLaterality": self.side,
            "ViewPosition": self.view,
            "Manufacturer": "ACME",
            "ManufacturerModelName": "Lens 3",
        }
        given = {key: value for key, value in (own | elements).items() if value is not None or key == "PatientID"}
        return dicom_bytes(pixels, **SECRETS, **given)  # type: ignore[arg-type]


def ultrasound(number: int, *, frames: int = 1, patient: str = "P-9") -> bytes:
    """An ultrasound image, or a loop of several."""
    shot = Shot(number, patient, study=9, side=None, view=None)
    return shot.data(frames=frames, Modality="US", SOPClassUID=ULTRASOUND)


def report(number: int) -> bytes:
    """A structured report: DICOM without any image."""
    dataset = header(phantom(), "MONOCHROME2", bits=12, Modality="SR", SOPClassUID=REPORT)
    dataset.SOPInstanceUID = f"1.2.9.{number}"
    del dataset.Rows, dataset.Columns
    dataset.add_new(0x00081030, "LO", SECRETS["PatientName"])
    written = write(dataset, b"", ExplicitVRLittleEndian)
    return written[: written.rindex(b"\xe0\x7f\x10\x00")]  # such a file has no pixel data at all


def put(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """The files, with their folders, below the root."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


SHOTS = (
    Shot(1),
    Shot(2, series=2, view="MLO"),
    Shot(3, "P-2", study=2, side="R"),
    Shot(4, "P-3", study=3, view="MLO"),
)
LABELS = "SOPInstanceUID,label\n" + "".join(
    f"{shot.sop_uid},{label}\n" for shot, label in zip(SHOTS, "1100", strict=True)
)


def write_exam_folders(root: Path) -> Path:
    """An export of an archive: names without extension, odd ones, and the labels in a table beside them."""
    names = ("DICOM/A/IM000001", "DICOM/A/IM000002", "DICOM/B/1.2.3.2.1.3", "DICOM/C/picture.ima")
    files: dict[str, bytes | str] = {name: shot.data() for name, shot in zip(names, SHOTS, strict=True)}
    extra = {"DICOMDIR": report(1), "DICOM/A/SR0001": report(2), "readme.txt": "Exported today.", "labels.csv": LABELS}
    return put(root, files | extra)


def write_class_folders(root: Path) -> Path:
    """The same mammograms below benign/ and malignant/."""
    return put(
        root,
        {
            f"{'malignant' if place < 2 else 'benign'}/{shot.number}.dcm": shot.data()
            for place, shot in enumerate(SHOTS)
        },
    )
