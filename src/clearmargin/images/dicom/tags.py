"""The few facts that are taken from a DICOM file's header, and nothing else.

A header holds the patient's name, birth date and much more. What is not one of the fields of `DicomTags` is
stepped over. This runs in the main process, for many files at once, so it is bounded; pixels are never touched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from clearmargin.images.dicom.header import Header

Side = Literal["left", "right"]

_KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "PresentationIntentType", "Manufacturer"),
    *("ManufacturerModelName", "PatientID", "ViewPosition", "StudyInstanceUID", "SeriesInstanceUID", "Laterality"),
    *("ImageLaterality", "NumberOfFrames", "Rows", "Columns", "ViewCodeSequence"),
)
_LAST_TAG = 0x00540220  # of the views' codes
# Real headers have some thousand elements up to there, and no value of these is longer than a page.
_MAX_READS = 100_000
_MAX_VALUE_BYTES = 1 << 16

# PS3.16, CID 4014: SNOMED RT and CT codes of the views.
_VIEW_OF_CODE = {
    **dict.fromkeys(("R-10242", "399162004"), "CC"),
    **dict.fromkeys(("R-10226", "399368009"), "MLO"),
    **dict.fromkeys(("R-10224", "399260004"), "ML"),
    **dict.fromkeys(("R-10228", "399352003"), "LM"),
    **dict.fromkeys(("R-10230", "399099002"), "LMO"),
    **dict.fromkeys(("R-1024A", "399192008"), "XCCL"),
    **dict.fromkeys(("R-1024B", "399101009"), "XCCM"),
}
_SHORT_CODE = re.compile(r"[A-Z][A-Z0-9]{0,7}")
_SIDES: dict[str, Side] = {"L": "left", "R": "right"}


@dataclass(frozen=True, slots=True)
class DicomTags:
    """What is known of an image; None where the file does not say."""

    patient_id: str | None
    study_uid: str | None
    series_uid: str | None
    sop_uid: str | None
    sop_class: str | None
    modality: str | None
    """`MG`, `US`, …"""
    side: Side | None
    view: str | None
    """`CC`, `MLO` or another short code, in capitals."""
    scanner: str | None
    """Manufacturer and model."""
    rows: int | None
    columns: int | None
    frames: int
    """1 where the file does not say."""
    intent: str | None = None
    """`FOR PRESENTATION` to a reader, or `FOR PROCESSING`: raw values of the detector."""


def read_dicom_tags(data: bytes, name: str) -> DicomTags:
    """The facts in the header of `data`; `name` is used in messages only.

    Raises:
        ImageError: the header is cut, damaged or deflated.
    """
    from clearmargin.images.dicom.header import read_header, silenced_pydicom  # noqa: PLC0415  (pydicom is slow)

    bounds = {"max_reads": _MAX_READS, "max_value_bytes": _MAX_VALUE_BYTES, "last_tag": _LAST_TAG}
    with silenced_pydicom():
        return _tags(read_header(data, name, _KEYWORDS, **bounds))


def _tags(header: Header) -> DicomTags:
    maker = [part for keyword in ("Manufacturer", "ManufacturerModelName") if (part := header.text(keyword))]
    side = header.word("ImageLaterality") or header.word("Laterality")
    return DicomTags(
        patient_id=header.text("PatientID"),
        study_uid=header.text("StudyInstanceUID"),
        series_uid=header.text("SeriesInstanceUID"),
        sop_uid=header.text("SOPInstanceUID"),
        sop_class=header.text("SOPClassUID") or header.media_sop_class,
        modality=header.word("Modality"),
        side=_SIDES.get(side or ""),
        view=_view(header),
        scanner=" ".join(maker) or None,
        rows=header.integer("Rows"),
        columns=header.integer("Columns"),
        frames=header.integer("NumberOfFrames") or 1,
        intent=header.word("PresentationIntentType"),
    )


def _view(header: Header) -> str | None:
    word = header.word("ViewPosition")
    if word is not None and _SHORT_CODE.fullmatch(word):
        return word
    code = next((item.text("CodeValue") for item in header.items("ViewCodeSequence")), None)
    return _VIEW_OF_CODE.get(code or "")
