"""What an answer repeats of the header of the image that it is about: whose it is, and which image is meant.

The header is hostile until it is checked. Only the elements named here are looked at, within bounds. What identifies
the image and its patient must be there as the standard has it, or the image is refused; anything else that is not is
left out. No message holds a value of the header.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from pydicom.datadict import dictionary_VR
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from clearmargin.errors import ImageError
from clearmargin.images.dicom import is_dicom
from clearmargin.images.dicom.header import Elements, Header, read_header, silenced_pydicom

Modality = Literal["MG", "US"]

PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"),
)
"""Of the modules Patient and General Study; private elements and all others stay behind."""
BODY_PART = ("BodyPartExamined", "Laterality")
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_LOSS = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_KEYWORDS = (
    *("SpecificCharacterSet", "Modality", "ImageLaterality", "NumberOfFrames"),
    *("PatientIdentityRemoved", "DeidentificationMethod", *_IDENTITY, *PATIENT_AND_STUDY, *BODY_PART, *_LOSS),
)
_LAST_TAG = 0x00282114  # LossyImageCompressionMethod
_MAX_READS = 100_000  # as for the facts that data sources read
_MAX_VALUE_BYTES = 1 << 16
_MAX_VALUES = 8
_LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000})
_ULTRASOUND = frozenset(f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("3", "3.1", "6", "6.1", "6.2"))


@dataclass(frozen=True, slots=True)
class Source:
    """One DICOM image, as far as its answer repeats its header; texts are as the standard allows them."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    modality: Modality
    frame: int | None
    """Which frame is meant, counted from 1; None of an image with one frame."""
    patient_and_study: Mapping[str, str]
    """Values by keyword of PATIENT_AND_STUDY; what the image does not say, or not as it should, is not there."""
    body_part: Mapping[str, str]
    """Values by keyword of BODY_PART; of the side, `L` or `R`."""
    is_identity_removed: bool | None
    """None where the image does not say."""
    deidentification: tuple[str, ...]
    """How, in the image's own words; only where the identity was removed."""
    is_lossy: bool
    """Its pixels have been through lossy compression, now or before."""
    lossy_ratios: tuple[str, ...]
    lossy_methods: tuple[str, ...]


def read_source(data: bytes, name: str, *, frame: int | None = None) -> Source:
    """What the answer repeats of the header of `data`.

    Args:
        data: the file.
        name: used in messages only.
        frame: which one of several is meant, counted from 1; whether it exists is for the decoder to say.

    Raises:
        ImageError: not DICOM, or damaged; or it does not say as it should which image it is, of which study and whose.
    """
    if not is_dicom(data):
        raise ImageError("unsupported", name, "is not a DICOM image")
    bounds = {"max_reads": _MAX_READS, "max_value_bytes": _MAX_VALUE_BYTES, "last_tag": _LAST_TAG}
    with silenced_pydicom():
        return _source(read_header(data, name, _KEYWORDS, **bounds), frame)


def _source(header: Header, frame: int | None) -> Source:
    sop_class, sop_uid, study_uid, series_uid = (_needed_uid(header, keyword) for keyword in _IDENTITY)
    if header.values("PatientID") and _value(header, "PatientID") is None:
        raise header.error(
            "unreadable", "its patient ID (0010,0020) is not as DICOM allows it; nothing is filed under it"
        )
    side = _value(header, "ImageLaterality") or _value(header, "Laterality")
    body_part = {"BodyPartExamined": _value(header, "BodyPartExamined"), "Laterality": side}
    removed = _value(header, "PatientIdentityRemoved")
    is_lossy = _value(header, "LossyImageCompression") == "01" or header.syntax in _LOSSY
    return Source(
        study_uid=study_uid,
        series_uid=series_uid,
        sop_uid=sop_uid,
        sop_class=sop_class,
        modality="US" if header.word("Modality") == "US" or sop_class in _ULTRASOUND else "MG",
        frame=(frame or 1) if (header.integer("NumberOfFrames") or 1) > 1 else None,
        patient_and_study=_present({keyword: _value(header, keyword) for keyword in PATIENT_AND_STUDY}),
        body_part=_present(body_part),
        is_identity_removed=None if removed is None else removed == "YES",
        deidentification=_values(header, "DeidentificationMethod") if removed == "YES" else (),
        is_lossy=is_lossy,
        lossy_ratios=_values(header, "LossyImageCompressionRatio") if is_lossy else (),
        lossy_methods=_values(header, "LossyImageCompressionMethod") if is_lossy else (),
    )


def _needed_uid(header: Header, keyword: str) -> str:
    uid = _value(header, keyword)
    if uid is None:
        words = "".join(f" {letter}" if letter.isupper() else letter for letter in keyword.removesuffix("UID")).strip()
        words = words.replace("S O P", "SOP")
        raise header.error("unreadable", f"its header has no valid {words} UID, which an answer in DICOM must repeat")
    return uid


def _present(values: Mapping[str, str | None]) -> dict[str, str]:
    return {keyword: value for keyword, value in values.items() if value is not None}


def _value(header: Elements, keyword: str) -> str | None:
    """The one value of the element; None where there is none, more than one, or one that its kind does not allow."""
    values = _values(header, keyword)
    if len(values) != 1 or values[0] not in _TERMS.get(keyword, values):
        return None
    return values[0]


def _values(header: Elements, keyword: str) -> tuple[str, ...]:
    """The values of the element; empty where one of them is not as its kind allows."""
    kind = dictionary_VR(keyword)
    found = header.values(keyword)
    if not found or len(found) > _MAX_VALUES or kind != header.dataset[keyword].VR:
        return ()
    texts = [str(value).strip(" \0") for value in found]
    is_plain = header.text("SpecificCharacterSet") is None  # then other letters than those of ASCII mean nothing
    if not all(text and (text.isascii() or not is_plain) and is_allowed(text, kind) for text in texts):
        return ()
    return tuple(texts)


def is_allowed(text: str, vr: str) -> bool:
    r"""Whether a text without padding is one value of this kind (PS3.5, table 6.2-1).

    >>> is_allowed("DOE^JANE", "PN"), is_allowed("20240230", "DA"), is_allowed("a\nb", "LO"), is_allowed("1.02", "UI")
    (True, False, False, False)
    """
    if "\\" in text or any(unicodedata.category(letter) in _UNSEEN for letter in text):
        return False
    return _RULES[vr](text)


def _is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{8}", text, re.ASCII) is not None and date.fromisoformat(text) is not None
    except ValueError:
        return False


def _is_name(text: str) -> bool:
    groups = text.split("=")
    return len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


_TERMS = {
    "PatientSex": ("F", "M", "O"),
    "ImageLaterality": ("L", "R"),
    "Laterality": ("L", "R"),
    "PatientIdentityRemoved": ("YES", "NO"),
}
"""The only values of these elements that mean anything here."""
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control and format characters, halves of characters and what is no character: no text for people has them."""
_NO_TEXT = "\N{REPLACEMENT CHARACTER}"
_RULES: dict[str, Callable[[str], bool]] = {
    "CS": _matches(r"[A-Z0-9_ ]{1,16}"),
    "DA": _is_date,
    "DS": _matches(r"(?=.{1,16}\Z)[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"),
    "LO": lambda text: len(text) <= 64 and _NO_TEXT not in text,
    "PN": lambda text: _is_name(text) and _NO_TEXT not in text,
    "SH": lambda text: len(text) <= 16 and _NO_TEXT not in text,
    "TM": _matches(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"),
    "UI": _matches(r"(?=.{1,64}\Z)(0|[1-9]\d*)(\.(0|[1-9]\d*))*"),
}
