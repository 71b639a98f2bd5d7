"""A Structured Report: what a model says of one DICOM image as numbers and codes that other systems can read.

A Comprehensive SR after TID 1500, whose one measurement group (TID 1501) is about the whole image. What no standard
code means exactly has a code of ours, with its scheme named in the object. How well the model does at its threshold
is no measurement of this image: it stands in a container of its own within the group, which the template allows for.
"""

from __future__ import annotations

import uuid

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from clearmargin import __version__
from clearmargin.types import INTENDED_USE, Prediction
from clearmargin.web.answers import ModelAnswer
from clearmargin.web.dicom.filing import (
    MANUFACTURER,
    RESEARCH_ONLY,
    file_beside,
    new_identity,
    say_figures,
    say_measured_on,
)
from clearmargin.web.dicom.source import Modality, Source

_SERIES_NUMBER = 9802
SCHEME = "99CLEARMARGIN"

PROBABILITY = CodedConcept("probability", SCHEME, "Probability of malignant, by a classifier")
DECISION = CodedConcept("decision", SCHEME, "Decision of a classifier, for research only")
REASON = CodedConcept("reason", SCHEME, "Reason of a classifier")
OPERATING_POINT = CodedConcept("operating-point", SCHEME, "Operating point of a classifier")
THRESHOLD = CodedConcept("threshold", SCHEME, "Threshold of the probability")
SENSITIVITY = CodedConcept("sensitivity", SCHEME, "Sensitivity of a classifier")
SPECIFICITY = CodedConcept("specificity", SCHEME, "Specificity of a classifier")
LOWER = CodedConcept("lower-95", SCHEME, "Lower end of the 95 % interval")
UPPER = CodedConcept("upper-95", SCHEME, "Upper end of the 95 % interval")
MEASURED_ON = CodedConcept("measured-on", SCHEME, "On what it was measured")
COMMENT = CodedConcept("121106", "DCM", "Comment")
NO_UNIT = CodedConcept("1", "UCUM", "no units")
DECISIONS = {
    "benign": CodedConcept("30807003", "SCT", "Benign"),
    "malignant": CodedConcept("21594007", "SCT", "Malignant"),
    "abstain": CodedConcept("82334004", "SCT", "Indeterminate"),
    "refused": CodedConcept("refused", SCHEME, "Refused: not decided"),
}
_PROCEDURES: dict[Modality, CodedConcept] = {
    "MG": CodedConcept("71651007", "SCT", "Mammography"),
    "US": CodedConcept("16310003", "SCT", "Diagnostic ultrasonography"),
}
_CONTAINS = RelationshipTypeValues.CONTAINS
_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


class _Report(ComprehensiveSR):
    """Takes nothing of its evidence by itself: that is `file_beside`'s, for any class of image."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Does nothing."""


def structured_report(source: Source, prediction: Prediction, model: ModelAnswer) -> ComprehensiveSR:
    """A Comprehensive SR, partial and unverified: probability, decision, operating point, model, source image.

    Args:
        source: the header of the image, checked.
        prediction: of this image; where it was refused there is no probability, and the reason is there.
        model: that says it.
    """
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(model)),
        procedure_reported=_PROCEDURES[source.modality],
        imaging_measurements=[_group(source, prediction, model)],
    )
    content[0].ContentSequence.append(_text(COMMENT, f"{RESEARCH_ONLY} {INTENDED_USE}"))
    ours = CodingSchemeIdentificationItem(
        SCHEME, name="Clearmargin's own concepts", version=__version__, responsible_organization=MANUFACTURER
    )
    report = _Report(
        evidence=[_evidence(source)],
        content=content[0],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        coding_schemes=[ours],
        **new_identity(series_number=_SERIES_NUMBER, description="Clearmargin report, for research only", model=model),
    )
    file_beside(report, source)
    return report


def device_uid(bundle_sha256: str) -> str:
    """The UID of a bundle as an observer, wherever it is served (PS3.5, B.2: a UUID below 2.25)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, bundle_sha256).int}"


def _observer(model: ModelAnswer) -> ObserverContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(model.lineage.sha256),
        name=model.name,
        manufacturer_name=MANUFACTURER,
        model_name=model.architecture,
        serial_number=model.lineage.sha256,
    )
    return ObserverContext(
        observer_type=CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
    )


def _group(source: Source, prediction: Prediction, model: ModelAnswer) -> MeasurementsAndQualitativeEvaluations:
    measured = []
    if prediction.probability is not None:
        measured.append(Measurement(name=PROBABILITY, value=prediction.probability, unit=NO_UNIT))
    image = SourceImageForMeasurementGroup(
        source.sop_class, source.sop_uid, None if source.frame is None else [source.frame]
    )
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(generate_uid(prefix=None), "whole image"),
        algorithm_id=AlgorithmIdentification(
            name=f"Clearmargin: {model.name}",
            version=f"{__version__}, bundle {model.lineage.sha256[:12]}",
            manufacturer=MANUFACTURER,
            parameters=_parameters(model),
        ),
        measurements=measured,
        qualitative_evaluations=[QualitativeEvaluation(DECISION, DECISIONS[prediction.decision])],
        source_images=[image],
    )
    more = group[0].ContentSequence
    if prediction.reason:
        more.append(_text(REASON, prediction.reason))
    more.append(_operating_point(model))
    return group


def _parameters(model: ModelAnswer) -> list[str]:
    stamp = [model.stamp] if model.stamp else []
    return [f"bundle sha256 {model.lineage.sha256}", f"architecture {model.architecture}", say_figures(model), *stamp]


def _operating_point(model: ModelAnswer) -> ContainerContentItem:
    point = model.operating_point
    item = ContainerContentItem(OPERATING_POINT, relationship_type=_CONTAINS)
    item.ContentSequence = ContentSequence()
    item.ContentSequence.append(_text(COMMENT, f"{point.name}: {point.rule}"))
    item.ContentSequence.append(_number(THRESHOLD, point.threshold))
    for name, figure in ((SENSITIVITY, point.sensitivity), (SPECIFICITY, point.specificity)):
        if figure.value is not None:
            item.ContentSequence.append(_figure(name, figure.value, figure.ci, say_measured_on(model)))
    return item


def _figure(name: CodedConcept, value: float, interval: tuple[float, float] | None, measured_on: str) -> NumContentItem:
    item = _number(name, value)
    item.ContentSequence = ContentSequence()
    item.ContentSequence.append(_text(MEASURED_ON, measured_on, RelationshipTypeValues.HAS_CONCEPT_MOD))
    for end, number in zip((LOWER, UPPER), interval or (), strict=False):
        item.ContentSequence.append(_number(end, number, RelationshipTypeValues.HAS_PROPERTIES))
    return item


def _number(
    name: CodedConcept, value: float, relationship: RelationshipTypeValues = RelationshipTypeValues.CONTAINS
) -> NumContentItem:
    return NumContentItem(name, float(value), NO_UNIT, relationship_type=relationship)


def _text(
    name: CodedConcept, text: str, relationship: RelationshipTypeValues = RelationshipTypeValues.CONTAINS
) -> TextContentItem:
    return TextContentItem(name, text, relationship_type=relationship)


def _evidence(source: Source) -> Dataset:
    """The source image as highdicom asks for it, without what it would write to the log."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = source.sop_class, source.sop_uid
    image.StudyInstanceUID, image.SeriesInstanceUID = source.study_uid, source.series_uid
    for keyword in _EMPTY:
        setattr(image, keyword, None)
    return image
