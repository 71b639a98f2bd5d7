"""DICOM files that are not read, or that are damaged or hostile: always one ImageError that names no patient."""

from __future__ import annotations

import io
import logging
import struct
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from tests.images.dicom_files import (
    LOSSLESS,
    LOSSY,
    MAMMOGRAPHY,
    NATIVE,
    PATIENT,
    ULTRASOUND,
    after_meta,
    bare_jpeg,
    decode,
    dicom_bytes,
    encode,
    header,
    lossless_jpeg,
    lut,
    phantom,
    refusal,
    whole_range,
    write,
)

from clearmargin.errors import ImageError
from clearmargin.images.dicom import is_dicom
from clearmargin.images.dicom.tags import read_dicom_tags
from clearmargin.images.limits import Limits

PHANTOM = phantom()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"Modality": "CT"}, "is a CT image (modality CT), not a mammogram or an ultrasound"),
        ({"Modality": "XA"}, "is another kind of image (modality XA), not a mammogram or an ultrasound"),
        ({"Modality": "DOE^JANE"}, "is another kind of image, not a mammogram or an ultrasound"),
        (
            {"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
            "does not say what it shows (no modality); mammograms and ultrasound are read",
        ),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "is a presentation state, not an image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "is a structured report, not an image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "is a segmentation or a registration, not an image"),
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, "is a DICOM directory (DICOMDIR), not an image"),
        ({"HighBit": 15}, "its highest bit is 15 where 12 bits are used"),
        ({"BitsAllocated": 32}, "has 32-bit pixels; save it with 8 or 16 bits"),
        ({"PhotometricInterpretation": "HSV"}, "its colour space (HSV) is not read; save it as grey or RGB"),
        ({"VOILUTFunction": "CUBIC", "WindowCenter": 1, "WindowWidth": 9}, "its window is neither linear"),
    ],
)
def test_what_is_no_mammogram_is_refused_with_a_reason(said: dict[str, Any], reason: str) -> None:
    kind, why = refusal(dicom_bytes(PHANTOM, **said))
    assert kind == "unsupported"
    assert why.startswith(reason)


def test_the_class_of_the_object_stands_in_for_a_missing_modality() -> None:
    for sop_class in (MAMMOGRAPHY, ULTRASOUND):
        assert decode(dicom_bytes(PHANTOM, Modality=None, SOPClassUID=sop_class)).any()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"Rows": None}, "its header does not say how large the image is"),
        ({"Columns": 0}, "its header does not say how large the image is"),
        ({"BitsStored": 17}, "its header says that 17 of 16 bits are used"),
        ({"PixelRepresentation": None}, "its header does not say how its pixels are stored"),
        ({"SamplesPerPixel": 3}, "its header says MONOCHROME2 with 3 values a pixel"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "its rescale slope is 0, which makes every pixel the same"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "its window has a width of 0; read it with its whole stored range"),
        ({"WindowCenter": 5}, "its window has a center or a width only; read it with its whole stored range"),
        ({"WindowCenter": 60000, "WindowWidth": 2}, "every pixel is shown with the same value"),
        ({"VOILUTSequence": lut(np.arange(4096), bits=10)}, "a look-up table in its header has values of more than"),
        ({"ModalityLUTSequence": [Dataset()]}, "a look-up table in its header is damaged"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(said: dict[str, Any], reason: str) -> None:
    kind, why = refusal(dicom_bytes(PHANTOM, **said))
    assert kind == "unreadable"
    assert why.startswith(reason)


def test_files_without_integer_pixels_are_refused() -> None:
    dataset = header(PHANTOM, "MONOCHROME2", bits=12)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    assert refusal(buffer.getvalue()) == ("unsupported", "holds no image")
    dataset.FloatPixelData = PHANTOM.astype("<f4").tobytes()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    assert refusal(buffer.getvalue())[1] == "has float pixels; save it with 8 or 16 bits"


@pytest.mark.parametrize(
    ("syntax", "named"),
    [
        ("1.2.840.10008.1.2.4.102", "video"),
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.110", "JPEG XL"),
        ("1.2.840.113619.5.2", "a maker's own"),
    ],
)
def test_other_transfer_syntaxes_are_refused_by_name(syntax: str, named: str) -> None:
    data = dicom_bytes(PHANTOM)
    written = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    assert written in data
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    data = data.replace(written, b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value)
    reason = f"its transfer syntax ({named}) is not read; save it uncompressed"
    assert refusal(data) == ("unsupported", reason)


def test_deflated_files_are_refused_before_they_are_inflated() -> None:
    plain = dicom_bytes(PHANTOM)
    meta = pydicom.dcmread(io.BytesIO(plain)).file_meta
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    buffer.write(bytes(128) + b"DICM")
    pydicom.filewriter.write_file_meta_info(buffer, meta)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    buffer.write(squeeze.compress(bytes(50_000_000)) + squeeze.flush())
    tracemalloc.start()
    try:
        reason = "is deflated DICOM, which is not read; save it uncompressed"
        assert refusal(buffer.getvalue()) == ("unsupported", reason)
        with pytest.raises(ImageError, match="deflated"):
            read_dicom_tags(buffer.getvalue(), "a.dcm")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_constant_image_is_an_error_and_not_a_black_one() -> None:
    reason = "every pixel has the same value; the decoder or the file is broken"
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless):
        assert refusal(dicom_bytes(np.zeros((32, 32), np.uint16), syntax)) == ("unreadable", reason)
    flat = np.full((32, 32, 3), 90, np.uint8)
    assert refusal(dicom_bytes(flat, photometric="RGB", bits=8)) == ("unreadable", reason)


def test_too_many_pixels_are_refused_before_anything_is_decoded() -> None:
    data = dicom_bytes(PHANTOM, Rows=60000, Columns=60000)
    reason = "60,000 × 60,000 pixels, more than the limit of 89,478,485"
    assert refusal(data) == ("too_large", reason)
    assert refusal(dicom_bytes(PHANTOM), limits=Limits(max_pixels=PHANTOM.size - 1))[0] == "too_large"
    decode(dicom_bytes(PHANTOM), limits=Limits(max_pixels=PHANTOM.size))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, JPEGExtended12Bit])
def test_a_compressed_image_of_another_size_never_reaches_its_decoder(syntax: UID) -> None:
    dataset = header(PHANTOM, "MONOCHROME2", bits=12)
    bomb = {
        JPEGLosslessSV1: bare_jpeg(65535, 65535),
        JPEGLSLossless: bare_jpeg(65535, 65535, marker=0xF7),
        JPEGExtended12Bit: bare_jpeg(65535, 65535, marker=0xC1),
        JPEG2000Lossless: b"\xff\x4f\xff\x51\0\x29\0\0"
        + struct.pack(">8IH3B", 65535, 65535, 0, 0, 65535, 65535, 0, 0, 1, 11, 1, 1)
        + b"\xff\xd9",
    }[syntax]
    kind, reason = refusal(write(dataset, encapsulate([bomb + b"\0" * (len(bomb) % 2)]), syntax))
    assert kind == "unreadable"
    assert reason == "its compressed image has 65,535 × 65,535 pixels where its header says 32 × 40"


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        (JPEGLosslessSV1, bare_jpeg(40, 32, marker=0xC0, bits=8)),
        (JPEGExtended12Bit, bare_jpeg(40, 32, marker=0xC2, bits=12)),
        (JPEGExtended12Bit, bare_jpeg(40, 32, marker=0xC3, bits=12)),
        (JPEGBaseline8Bit, bare_jpeg(40, 32, marker=0xF7, bits=8)),
        (JPEGLosslessSV1, b"\xff\xd8\xff\xda\0\2\xff\xd9"),
        (JPEG2000Lossless, b"no image at all \xff\xd9"),
        (JPEGLosslessSV1, bare_jpeg(40, 32)),
        (JPEGLSLossless, bare_jpeg(40, 32, marker=0xF7)),
    ],
)
def test_what_is_not_the_promised_kind_of_image_is_refused(syntax: UID, frame: bytes) -> None:
    dataset = header(PHANTOM, "MONOCHROME2", bits=12)
    data = write(dataset, encapsulate([frame + b"\0" * (len(frame) % 2)]), syntax)
    assert refusal(data)[0] in ("unreadable", "unsupported")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (3, 0x01),
        (3, 0xD0),
        (5, 3),
        (11, 9),
        (15, 0),
        (16, 0),
        (16, 0x01),
        (18, 1),
        (24, 200),
        (-1, 0),
        (57, 0),
        (60, 9),
    ],
)
def test_a_lossless_jpeg_with_a_damaged_header_does_not_end_the_process(place: int, value: int) -> None:
    dataset = header(PHANTOM, "MONOCHROME2", bits=12)
    frame = bytearray(lossless_jpeg(PHANTOM, 12, 1))
    frame[place] = value
    data = write(dataset, encapsulate([bytes(frame) + b"\0" * (len(frame) % 2)]), JPEGLosslessSV1)
    assert refusal(data, isolated=True)[0] in ("unreadable", "truncated", "unsupported")


def test_a_segment_that_has_no_length_is_no_place_to_hide() -> None:
    dataset = header(PHANTOM, "MONOCHROME2", bits=12)
    frame = lossless_jpeg(PHANTOM, 12, 1)
    hidden = frame[:2] + b"\xff\x01\x00\x04\x00\x00" + frame[2:]
    assert refusal(write(dataset, encapsulate([hidden]), JPEGLosslessSV1))[0] == "unreadable"


def test_run_lengths_that_expand_beyond_the_image_are_refused() -> None:
    dataset = header(phantom(bits=8), "MONOCHROME2", bits=8)
    bomb = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x05" * 500_000 + b"\x00\x01" * 10
    assert refusal(write(dataset, encapsulate([bomb]), RLELossless), isolated=True)[0] == "unreadable"


@pytest.mark.parametrize("starts", [(0, 64), (300, 64), (64, 64)])
def test_run_lengths_whose_parts_do_not_follow_each_other_are_refused(starts: tuple[int, int]) -> None:
    dataset = header(PHANTOM, "MONOCHROME2", bits=12)
    coded = bytearray(encode(PHANTOM, dataset, RLELossless))
    struct.pack_into("<2I", coded, 4, *starts)
    reason = "its compressed pixels are damaged"
    assert refusal(write(dataset, encapsulate([bytes(coded)]), RLELossless)) == ("unreadable", reason)


def test_absurd_nesting_and_endless_headers_end_soon() -> None:
    plain = dicom_bytes(PHANTOM)
    start = after_meta(plain)
    nested = (b"\x08\x00\x40\x11SQ\0\0" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4) * 50_000
    empty = b"\x09\x00\x01\x00UN\0\0\0\0\0\0" * 1_500_000
    sized = b"\x08\x00\x40\x11SQ\0\0" + b"\xff\xff\xff\x7f"
    before = time.perf_counter()
    for extra, kind in ((nested, "unreadable"), (empty, "unreadable"), (sized, "truncated")):
        data = plain[:start] + extra + plain[start:]
        assert refusal(data)[0] == kind
        with pytest.raises(ImageError):
            read_dicom_tags(data, "a.dcm")
    assert time.perf_counter() - before < 30


def test_what_pydicom_says_elsewhere_is_heard_again_after_reading() -> None:
    before = logging.getLogger("pydicom").level, pydicom.config.settings.reading_validation_mode, warnings.filters[:]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_dicom_tags, [dicom_bytes(PHANTOM)] * 50, ["a.dcm"] * 50))
    after = logging.getLogger("pydicom").level, pydicom.config.settings.reading_validation_mode, warnings.filters[:]
    assert after == before


def test_icons_inside_the_header_are_not_the_image() -> None:
    icon = header(np.zeros((4, 4)), "MONOCHROME2", bits=8)
    icon.add_new(0x7FE00010, "OB", bytes(16))
    np.testing.assert_array_equal(decode(dicom_bytes(PHANTOM, IconImageSequence=[icon])), whole_range(PHANTOM))


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS, *LOSSY], ids=lambda syntax: syntax.keyword)
def test_a_file_cut_anywhere_is_an_error(syntax: UID) -> None:
    data = dicom_bytes(phantom(rows=32, columns=32), syntax)
    lengths = {*range(0, len(data), max(1, len(data) // 250)), *range(len(data) - 20, len(data))}
    for length in sorted(lengths):
        kind, reason = refusal(data[:length])
        assert kind in ("truncated", "unsupported", "unreadable")
        assert kind == "truncated" or length < len(data) // 2, (length, len(data), reason)


def test_what_follows_the_pixels_may_be_cut() -> None:
    data = dicom_bytes(PHANTOM)
    padded = data + struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 64) + bytes(64)
    for length in range(len(data), len(padded) + 1):
        np.testing.assert_array_equal(decode(padded[:length]), whole_range(PHANTOM))


def test_pixel_data_of_another_length_than_promised_are_refused() -> None:
    dataset = header(PHANTOM, "MONOCHROME2", bits=12)
    data = PHANTOM.astype("<u2").tobytes()
    assert refusal(write(dataset, data[:-2], ExplicitVRLittleEndian))[0] == "truncated"
    np.testing.assert_array_equal(
        decode(write(dataset, data + bytes(16), ExplicitVRLittleEndian)), whole_range(PHANTOM)
    )
    for wrong in ({"Columns": 31}, {"Rows": 39}):
        assert refusal(dicom_bytes(PHANTOM, **wrong))[0] == "unreadable"


@settings(max_examples=250)
@given(
    syntax=st.sampled_from([*NATIVE, RLELossless, JPEGLSLossless, JPEG2000Lossless]),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_changed_bytes_give_an_image_of_the_right_kind_or_one_error(
    syntax: UID, places: list[tuple[float, int]]
) -> None:
    data = bytearray(CHANGEABLE[syntax])
    for place, value in places:
        data[int(place * len(data))] = value
    try:
        pixels = decode(bytes(data), limits=Limits(max_pixels=10_000))
    except ImageError as error:
        assert PATIENT not in str(error)
        assert "P-031" not in str(error)
    else:
        assert pixels.ndim == 3
        assert pixels.dtype in (np.uint8, np.uint16)
    try:
        read_dicom_tags(bytes(data), "a.dcm")
    except ImageError as error:
        assert PATIENT not in str(error)


CHANGEABLE = {syntax: dicom_bytes(phantom(rows=32, columns=32), syntax) for syntax in [*NATIVE, *LOSSLESS]}


@given(data=st.binary(max_size=300))
def test_any_bytes_give_one_error(data: bytes) -> None:
    for start in (b"", bytes(128) + b"DICM", bytes(128) + b"DICM\x02\0\x10\0UI"):
        is_dicom(start + data)
        with pytest.raises(ImageError):
            decode(start + data)


def test_nothing_is_logged_or_warned(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    files = [dicom_bytes(PHANTOM, syntax) for syntax in [*NATIVE, *LOSSLESS, *LOSSY]]
    files.append(dicom_bytes(PHANTOM).replace(b"P-031 ", b"\xff\xfe\xfd\xfc\xfb\xfa"))
    caplog.clear()
    for data in files:
        decode(data)
        read_dicom_tags(data, "a.dcm")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
