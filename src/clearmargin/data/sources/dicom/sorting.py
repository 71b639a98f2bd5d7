"""What becomes of each DICOM file: a row with its label, or the reason why it is left out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clearmargin.data.sources.dicom.headers import Header
from clearmargin.data.sources.dicom.labels import NORMAL, Said
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.walk import label_of_folders
from clearmargin.images.dicom.tags import DicomTags
from clearmargin.images.place import Place
from clearmargin.types import BENIGN, MALIGNANT, Content

CONTENT_OF_MODALITY: dict[str, Content] = {"MG": "mammogram", "US": "ultrasound"}
_TOMOSYNTHESIS = frozenset(f"1.2.840.10008.5.1.4.1.1.13.1.{number}" for number in (3, 4, 5))  # PS3.4, B.5
_DIRECTORY = "1.2.840.10008.1.3.10"
_CODE = re.compile(r"[A-Z]{2,16}")


@dataclass(frozen=True, slots=True)
class DicomImage:
    """One row: the place as seen from the root, with the frame that is meant, and what is known of it."""

    name: str
    tags: DicomTags | None
    said: Said
    label: int

    @property
    def patient_id(self) -> str | None:
        return self.said.patient_id or (self.tags.patient_id if self.tags else None)


@dataclass(slots=True)
class SortedFiles:
    """Files as seen from the root, by what becomes of them."""

    images: list[DicomImage] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    normal: list[str] = field(default_factory=list)
    conflicting: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    several_frames: list[str] = field(default_factory=list)
    tomosynthesis: list[str] = field(default_factory=list)
    others: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def sort_files(headers: Sequence[Header], said: Mapping[str, Said] | None, options: SourceOptions) -> SortedFiles:
    """The files in the order of the headers; `said` is what the table says of each, None where there is no table."""
    found = SortedFiles()
    for header in headers:
        reason = _reason_to_leave_out(header.tags)
        if reason is not None:
            found.others[reason].append(header.name)
            continue
        word = said[header.name] if said is not None else _said_by_folders(header.name)
        if header.tags is None and not word.labels:
            found.unreadable.append(header.name)
            continue
        frames = header.tags.frames if header.tags is not None else 1
        if frames > 1 and (options.frame is None or options.frame > frames):
            found.several_frames.append(header.name)
            if header.tags is not None and header.tags.sop_class in _TOMOSYNTHESIS:
                found.tomosynthesis.append(header.name)
            continue
        name = str(Place(header.name, options.frame if frames > 1 else None))
        label = _label(name, word, found, options)
        if label is not None:
            found.images.append(DicomImage(name, header.tags, word, label))
    return found


def _reason_to_leave_out(tags: DicomTags | None) -> str | None:
    if tags is None:
        return None
    if tags.sop_class == _DIRECTORY:
        return "DICOMDIR"
    if tags.modality not in CONTENT_OF_MODALITY:
        return tags.modality if tags.modality and _CODE.fullmatch(tags.modality) else "no modality"
    return None if tags.rows and tags.columns else f"{tags.modality} without pixels"


def _said_by_folders(name: str) -> Said:
    label = label_of_folders(name)
    if label is None and NORMAL in name.lower().split("/")[:-1]:
        return Said(frozenset({NORMAL}))
    return Said() if label is None else Said(frozenset({label}))


def _label(name: str, said: Said, found: SortedFiles, options: SourceOptions) -> int | None:
    """The label; None after noting why the image has none. One with a conflict is kept, and blocks the audit."""
    labels = said.labels
    if len(labels) > 1:
        found.conflicting.append(name)
        return MALIGNANT if MALIGNANT in labels else BENIGN
    if not labels:
        found.unlabelled.append(name)
        return None
    if NORMAL in labels:
        found.normal.append(name)
        return BENIGN if options.normal == "benign" else None
    return MALIGNANT if MALIGNANT in labels else BENIGN
