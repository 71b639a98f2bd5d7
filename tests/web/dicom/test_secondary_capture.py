"""A Secondary Capture shows what was drawn, says what it is, and belongs to the study of its source."""

from __future__ import annotations

import numpy as np
import pytest
from tests.images.dicom_files import decode, dicom_bytes, phantom
from tests.web.dicom.objects import (
    ABSTAINED,
    GREEK,
    JAPANESE,
    KINDS,
    MALIGNANT,
    MODEL,
    REFUSED,
    WHOLE,
    capture_of,
    explanation,
    file_bytes,
)

import clearmargin
from clearmargin.errors import ImageError
from clearmargin.images.dicom import decode_dicom
from clearmargin.images.limits import Limits
from clearmargin.web.dicom.picture import draw_capture


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_the_picture(kind: str) -> None:
    data, frame = KINDS[kind]
    capture = capture_of(data, frame=frame)
    pixels = decode(data, frame=frame)
    np.testing.assert_array_equal(
        capture.pixel_array, draw_capture(pixels, MALIGNANT, explanation(pixels, MALIGNANT), MODEL)
    )
    assert (capture.PhotometricInterpretation, capture.BitsAllocated, capture.SamplesPerPixel) == ("RGB", 8, 3)
    assert not capture.file_meta.TransferSyntaxUID.is_compressed


def test_a_picture_of_an_odd_number_of_bytes_is_whole() -> None:
    captures = [capture_of(dicom_bytes(phantom(rows=rows, columns=701)), REFUSED) for rows in (700, 701)]
    (odd,) = (capture for capture in captures if capture.Rows * capture.Columns % 2)
    assert odd.pixel_array.shape == (odd.Rows, odd.Columns, 3)


def test_it_belongs_to_the_study_of_its_source_in_a_series_of_its_own() -> None:
    data = dicom_bytes(phantom(), **WHOLE)
    first, second = capture_of(data), capture_of(data)
    for capture in (first, second):
        assert capture.StudyInstanceUID == "1.2.3.4"
        assert (capture.PatientID, str(capture.PatientName)) == ("P-031", "DOE^JANE^SECRET")
        for keyword in ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "PatientBirthDate", "PatientSex"):
            assert capture[keyword].value == WHOLE[keyword]
        assert (capture.BodyPartExamined, capture.Laterality) == ("BREAST", "L")
    uids = [first.SeriesInstanceUID, first.SOPInstanceUID, second.SeriesInstanceUID, second.SOPInstanceUID]
    assert len({*uids, "1.2.3.4.5", "1.2.3.4.5.6"}) == 6
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


def test_it_says_what_it_is() -> None:
    capture = capture_of(KINDS["mammogram"][0])
    assert list(capture.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert capture.ConversionType == "WSD"
    assert capture.BurnedInAnnotation == "YES"
    assert capture.ContentQualification == "RESEARCH"
    assert capture.LossyImageCompression == "00"
    assert (capture.Manufacturer, capture.ManufacturerModelName) == ("Clearmargin", "idc")
    assert capture.SoftwareVersions == capture.SecondaryCaptureDeviceSoftwareVersions == clearmargin.__version__
    assert capture.DeviceSerialNumber == MODEL.lineage.sha256
    assert "For research only, not for diagnosis." in capture.DerivationDescription
    assert "Grad-CAM" in capture.DerivationDescription
    for text in ("Malignant (not gated): probability of malignant 0.771", "0.810 to 0.950", "idc", "optimistic"):
        assert text in capture.ImageComments
    (image,) = capture.SourceImageSequence
    assert (image.ReferencedSOPInstanceUID, image.ReferencedSOPClassUID) == (
        "1.2.3.4.5.6",
        "1.2.840.10008.5.1.4.1.1.1.2",
    )
    assert "ReferencedFrameNumber" not in image


def test_the_frame_that_is_meant_is_named() -> None:
    data, frame = KINDS["frames"]
    assert capture_of(data, frame=frame).SourceImageSequence[0].ReferencedFrameNumber == 2


def test_a_refused_image_is_shown_with_the_reason() -> None:
    data = KINDS["mammogram"][0]
    capture = capture_of(data, REFUSED)
    assert capture.ImageComments.startswith("Refused: size: 32×40 pixels")
    assert "refused" in capture.DerivationDescription
    pixels = decode(data)
    other = draw_capture(pixels, type(REFUSED)(REFUSED.record, None, None, "refused", "another reason"), None, MODEL)
    assert other.shape != capture.pixel_array.shape or (other != capture.pixel_array).any()


def test_what_is_withheld_is_called_so_and_why() -> None:
    comments = capture_of(KINDS["mammogram"][0], ABSTAINED).ImageComments
    assert comments.startswith("Cannot tell (too uncertain for the promised coverage of 0.9): probability")


def test_the_band_for_research_is_in_every_picture() -> None:
    for prediction in (MALIGNANT, REFUSED):
        top = capture_of(KINDS["mammogram"][0], prediction).pixel_array[:40]
        assert (top == (150, 20, 20)).all(axis=2).mean() > 0.7
        assert (top > 200).all(axis=2).any()


def test_pixels_that_lost_something_are_said_to_have() -> None:
    assert capture_of(KINDS["lossy"][0]).LossyImageCompression == "01"


def test_an_identity_that_was_removed_stays_so() -> None:
    capture = capture_of(KINDS["without identity"][0])
    assert capture.PatientIdentityRemoved == "YES"
    assert list(capture.DeidentificationMethod) == ["by hand", "twice"]
    silent = capture_of(dicom_bytes(phantom(), PatientIdentityRemoved="YES"))
    assert silent.DeidentificationMethod == "not stated in the source image"


@pytest.mark.parametrize(("kind", "name"), [("japanese", JAPANESE), ("greek", GREEK), ("nameless", "")])
def test_names_of_any_letters_are_repeated(kind: str, name: str) -> None:
    capture = capture_of(KINDS[kind][0])
    assert capture.SpecificCharacterSet == "ISO_IR 192"
    assert str(capture.PatientName or "") == name


def test_the_capture_sent_again_is_refused_as_no_original() -> None:
    with pytest.raises(ImageError, match="captured or derived picture"):
        decode_dicom(file_bytes(capture_of(KINDS["mammogram"][0])), "a.dcm", Limits())
