"""A Structured Report holds the numbers, read back by highdicom's own templates."""

from __future__ import annotations

import highdicom.sr
import pytest
from pydicom.sr.codedict import codes
from tests.images.dicom_files import dicom_bytes, phantom
from tests.web.dicom.objects import (
    ABSTAINED,
    KINDS,
    MALIGNANT,
    MODEL,
    REFUSED,
    WHOLE,
    content_items,
    file_bytes,
    report_of,
)

from clearmargin.errors import ImageError
from clearmargin.images.dicom import decode_dicom
from clearmargin.images.limits import Limits
from clearmargin.types import Prediction, Record
from clearmargin.web.dicom.structured_report import DECISION, DECISIONS, NO_UNIT, PROBABILITY, device_uid


def group_of(data: bytes, prediction: Prediction = MALIGNANT, frame: int | None = None) -> object:
    report = highdicom.sr.ComprehensiveSR.from_dataset(report_of(data, prediction, frame=frame))
    (group,) = report.content.get_image_measurement_groups()
    return group


@pytest.mark.parametrize("kind", KINDS)
def test_the_probability_is_a_measurement_of_the_image(kind: str) -> None:
    data, frame = KINDS[kind]
    group = group_of(data, frame=frame)
    (measured,) = group.get_measurements(PROBABILITY)
    assert measured.value == MALIGNANT.probability
    assert measured.unit == NO_UNIT
    (image,) = group.source_images
    assert image.referenced_sop_instance_uid == "1.2.3.4.5.6"
    assert image.referenced_frame_numbers == (None if frame is None else [frame])


@pytest.mark.parametrize("prediction", [MALIGNANT, ABSTAINED, REFUSED, Prediction(Record(""), -1.0, 0.1, "benign")])
def test_the_decision_is_a_code(prediction: Prediction) -> None:
    group = group_of(KINDS["mammogram"][0], prediction)
    (evaluation,) = group.get_qualitative_evaluations(DECISION)
    assert evaluation.value == DECISIONS[prediction.decision]
    reasons = content_items(group[0], "Reason of a classifier")
    assert [item.TextValue for item in reasons] == ([prediction.reason] if prediction.reason else [])


def test_a_refused_image_has_no_probability() -> None:
    assert group_of(KINDS["mammogram"][0], REFUSED).get_measurements() == []


def test_the_model_is_identified() -> None:
    report = report_of(KINDS["mammogram"][0])
    texts = {name: [item.TextValue for item in content_items(report, f"Algorithm {name}")] for name in _ALGORITHM}
    assert texts["Name"] == ["Clearmargin: idc"]
    assert texts["Version"][0].endswith("bundle 0123456789ab")
    assert f"bundle sha256 {MODEL.lineage.sha256}" in texts["Parameters"]
    assert "image-level split: optimistic" in texts["Parameters"]
    (observer,) = highdicom.sr.ComprehensiveSR.from_dataset(report).content.get_observer_contexts()
    assert observer.observer_identifying_attributes.uid == device_uid(MODEL.lineage.sha256)
    assert device_uid("another") != device_uid(MODEL.lineage.sha256) == device_uid(MODEL.lineage.sha256)


_ALGORITHM = ("Name", "Version", "Parameters")


def test_the_operating_point_is_there_with_its_intervals() -> None:
    report = report_of(KINDS["mammogram"][0])
    (point,) = content_items(report, "Operating point of a classifier")
    (threshold,) = content_items(point, "Threshold of the probability")
    assert threshold.MeasuredValueSequence[0].FloatingPointValue == 0.4321
    (sensitivity,) = content_items(point, "Sensitivity of a classifier")
    assert sensitivity.MeasuredValueSequence[0].FloatingPointValue == 0.9
    for end, value in (("Lower", 0.81), ("Upper", 0.95)):
        (item,) = content_items(sensitivity, f"{end} end of the 95 % interval")
        assert item.MeasuredValueSequence[0].FloatingPointValue == value
    (specificity,) = content_items(point, "Specificity of a classifier")  # which has no interval
    assert [item.ValueType for item in specificity.ContentSequence] == ["TEXT"]


def test_it_is_no_finished_report() -> None:
    report = report_of(KINDS["mammogram"][0])
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "PARTIAL",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert report.ContentQualification == "RESEARCH"
    comments = [item.TextValue for item in report.ContentSequence if item.ValueType == "TEXT"]
    assert any(text.startswith("For research only, not for diagnosis.") for text in comments)


def test_it_belongs_to_the_study_of_its_source_and_names_it_as_evidence() -> None:
    report = report_of(dicom_bytes(phantom(), **WHOLE))
    assert (report.StudyInstanceUID, report.PatientID, report.AccessionNumber) == ("1.2.3.4", "P-031", "A-7")
    evidence = highdicom.sr.ComprehensiveSR.from_dataset(report).get_evidence()
    assert evidence == [("1.2.3.4", "1.2.3.4.5", "1.2.3.4.5.6", "1.2.840.10008.5.1.4.1.1.1.2")]


def test_the_procedure_is_that_of_the_source() -> None:
    for kind, code in (("mammogram", codes.SCT.Mammography), ("ultrasound", codes.SCT.DiagnosticUltrasonography)):
        (item,) = content_items(report_of(KINDS[kind][0]), "Procedure reported")
        assert item.ConceptCodeSequence[0].CodeValue == code.value


def test_codes_of_our_own_are_named_with_their_scheme() -> None:
    report = report_of(KINDS["mammogram"][0])
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeResponsibleOrganization) == (
        "99CLEARMARGIN",
        "Clearmargin",
    )
    designators = {element.value for element in report.iterall() if element.keyword == "CodingSchemeDesignator"}
    assert designators <= {"DCM", "SCT", "UCUM", "RFC5646", "99CLEARMARGIN"}


def test_the_report_sent_again_is_refused() -> None:
    with pytest.raises(ImageError, match="is a structured report"):
        decode_dicom(file_bytes(report_of(KINDS["mammogram"][0])), "a.dcm", Limits())
