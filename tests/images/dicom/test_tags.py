"""The facts of a DICOM header: the whitelisted ones, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)
from tests.images.dicom_files import (
    MAMMOGRAPHY,
    PATIENT,
    dicom_bytes,
    phantom,
)

from clearmargin.images.dicom.header import read_header, silenced_pydicom
from clearmargin.images.dicom.tags import DicomTags, read_dicom_tags

PHANTOM = phantom()


def test_the_facts_are_those_of_the_header_and_nothing_else() -> None:
    said: dict[str, Any] = {
        "ImageLaterality": "R",
        "ViewPosition": "MLO",
        "Manufacturer": "Maker",
        "ManufacturerModelName": "One",
        "PatientBirthDate": "19500101",
        "InstitutionName": "Secret Hospital",
        "NumberOfFrames": 7,
    }
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian):
        tags = read_dicom_tags(dicom_bytes(PHANTOM, syntax, **said), "a.dcm")
        assert tags == DicomTags(
            patient_id="P-031",
            study_uid="1.2.3.4",
            series_uid="1.2.3.4.5",
            sop_uid="1.2.3.4.5.6",
            sop_class=MAMMOGRAPHY,
            modality="MG",
            side="right",
            view="MLO",
            scanner="Maker One",
            rows=40,
            columns=32,
            frames=7,
        )
        assert not {"DOE", "1950", "Secret"} & set(str(tags).replace("^", " ").split())


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ({"Laterality": "L"}, "side", "left"),
        ({"ImageLaterality": "B"}, "side", None),
        ({"ImageLaterality": "R", "Laterality": "L"}, "side", "right"),
        ({}, "view", None),
        ({"ViewPosition": "cc"}, "view", "CC"),
        ({"ViewPosition": "a sentence about her"}, "view", None),
        ({"PatientID": ""}, "patient_id", None),
        ({"SpecificCharacterSet": "ISO_IR 192", "PatientID": "Müller-7"}, "patient_id", "Müller-7"),
        ({"SpecificCharacterSet": "ISO_IR 100", "PatientID": "Müller-7"}, "patient_id", "Müller-7"),
        ({"Modality": None}, "modality", None),
        ({"Manufacturer": "Maker"}, "scanner", "Maker"),
        ({"Rows": None}, "rows", None),
    ],
)
def test_a_fact(said: dict[str, Any], field: str, value: object) -> None:
    assert getattr(read_dicom_tags(dicom_bytes(PHANTOM, **said), "a.dcm"), field) == value


@pytest.mark.parametrize(("code", "view"), [("R-10242", "CC"), ("399368009", "MLO"), ("R-10224", "ML"), ("X", None)])
def test_the_view_by_its_code(code: str, view: str | None) -> None:
    item = Dataset()
    item.CodeValue, item.CodeMeaning = code, "a meaning"
    assert read_dicom_tags(dicom_bytes(PHANTOM, ViewCodeSequence=[item]), "a.dcm").view == view


def test_the_facts_need_no_pixels() -> None:
    data = dicom_bytes(PHANTOM, JPEGLSLossless)
    assert read_dicom_tags(data[: data.index(b"\xe0\x7f\x10\x00") + 12], "a.dcm").rows == 40


def test_nothing_but_the_wanted_elements_is_kept() -> None:
    with silenced_pydicom():
        header = read_header(dicom_bytes(PHANTOM), "a.dcm", ["Rows"], max_reads=1000, max_value_bytes=1000)
    assert [element.keyword for element in header.dataset] == ["Rows"]
    assert PATIENT not in str(vars(header.dataset))
