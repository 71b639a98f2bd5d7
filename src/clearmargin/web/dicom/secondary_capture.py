"""A Secondary Capture: a picture of what a model says of one DICOM image, for any viewer, in the image's own study."""

from __future__ import annotations

from highdicom.sc import ConversionTypeValues, SCImage
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from clearmargin import __version__
from clearmargin.explanation.explainer import Explanation
from clearmargin.explanation.methods import find_method
from clearmargin.images.limits import Pixels
from clearmargin.types import Prediction
from clearmargin.web.answers import ModelAnswer
from clearmargin.web.dicom.filing import (
    MANUFACTURER,
    RESEARCH_ONLY,
    file_beside,
    new_identity,
    say_figures,
    say_model,
    say_prediction,
    shortened,
)
from clearmargin.web.dicom.picture import draw_capture
from clearmargin.web.dicom.source import BODY_PART, Source

_SERIES_NUMBER = 9801
_LONGEST_ST, _LONGEST_LT = 1024, 10240


def secondary_capture(
    source: Source, pixels: Pixels, prediction: Prediction, explanation: Explanation | None, model: ModelAnswer
) -> SCImage:
    """A Secondary Capture Image, RGB, uncompressed: the image beside the map, or, refused, by itself with the reason.

    Args:
        source: the header of the image, checked.
        pixels: of the image, uint8 or uint16, (H, W, 1) or (H, W, 3).
        prediction: of this image.
        explanation: of this image; None where it was refused.
        model: that says it.
    """
    capture = SCImage(
        draw_capture(pixels, prediction, explanation, model),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # highdicom asks for one; it is taken out below
        study_instance_uid=source.study_uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **new_identity(series_number=_SERIES_NUMBER, description="Clearmargin picture, for research only", model=model),
    )
    file_beside(capture, source)
    # A picture of several panels and a legend has no direction.
    capture.PatientOrientation = []
    capture.ConversionType = ConversionTypeValues.WSD.value
    capture.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    capture.SecondaryCaptureDeviceManufacturerModelName = shortened(model.name)
    capture.SecondaryCaptureDeviceSoftwareVersions = __version__
    # Our writing names nobody, but that of the source, as ultrasound has it, is in the picture too.
    capture.BurnedInAnnotation = "YES"
    capture.DerivationDescription = shortened(_derivation(explanation), _LONGEST_ST)
    comments = (say_prediction(prediction, model), say_figures(model), say_model(model), RESEARCH_ONLY)
    capture.ImageComments = shortened(" ".join(comments), _LONGEST_LT)
    capture.SourceImageSequence = [_reference(source)]
    for keyword in BODY_PART:
        if keyword in source.body_part or keyword == "Laterality":  # which must be there, if empty
            setattr(capture, keyword, source.body_part.get(keyword))
    if source.is_lossy:
        capture.LossyImageCompression = "01"
        if source.lossy_ratios:
            capture.LossyImageCompressionRatio = list(source.lossy_ratios)
        if source.lossy_methods:
            capture.LossyImageCompressionMethod = list(source.lossy_methods)
    else:
        capture.LossyImageCompression = "00"
    return capture


def _derivation(explanation: Explanation | None) -> str:
    if explanation is None:
        return f"The source image at the size of a screen, which the model refused. {RESEARCH_ONLY}"
    return (
        f"The source image at the size of a screen, beside a map ({find_method(explanation.method).title}) of the "
        f"places that moved the logit of a network, over the image in grey. Evidence for this network, not for disease."
        f" {RESEARCH_ONLY}"
    )


def _reference(source: Source) -> Dataset:
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.sop_class, source.sop_uid
    if source.frame is not None:
        item.ReferencedFrameNumber = source.frame
    item.SpatialLocationsPreserved = "NO"
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item
