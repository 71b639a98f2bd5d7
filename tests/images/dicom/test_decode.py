"""DICOM: every transfer syntax and every way to say what is shown gives the same picture."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from tests.images.dicom_files import (
    LOSSLESS,
    LOSSY,
    MAMMOGRAPHY,
    NATIVE,
    ULTRASOUND,
    after_meta,
    colour_phantom,
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

PHANTOM = phantom()
COLOUR = colour_phantom()
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"

# The same picture, said in different ways. A LINEAR window of width w spans w - 1 values (PS3.3, C.11.2.1.2.1).
SAME_PICTURE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "linear window": {"WindowCenter": 2048, "WindowWidth": 4096},
    "first of two windows": {"WindowCenter": [2048, 100], "WindowWidth": [4096, 50]},
    "exact window": {"WindowCenter": 2047.5, "WindowWidth": 4095, "VOILUTFunction": "LINEAR_EXACT"},
    "rescale": {"RescaleSlope": 2, "RescaleIntercept": -100},
    "rescale and window": {
        "RescaleSlope": 2,
        "RescaleIntercept": -100,
        "WindowCenter": 3995.5,
        "WindowWidth": 8191,
    },
    "VOI LUT": {"VOILUTSequence": lut(np.arange(4096))},
    "VOI LUT before window": {"VOILUTSequence": lut(np.arange(4096)), "WindowCenter": 5, "WindowWidth": 3},
    "modality LUT": {"ModalityLUTSequence": lut(np.arange(4096))},
    "modality LUT and window": {
        "ModalityLUTSequence": lut(np.arange(4096) * 16, bits=16),
        "WindowCenter": 32760.5,
        "WindowWidth": 65521,
    },
}


@pytest.mark.parametrize("said", SAME_PICTURE)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", NATIVE + LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_every_lossless_file_of_a_picture_gives_the_same_array(syntax: UID, photometric: str, said: str) -> None:
    stored = PHANTOM if photometric == "MONOCHROME2" else 4095 - PHANTOM
    pixels = decode(dicom_bytes(stored, syntax, photometric=photometric, **SAME_PICTURE[said]))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, whole_range(PHANTOM))


@pytest.mark.parametrize(("syntax", "error"), [*zip(LOSSY, [1, 2, 24], strict=True)], ids=str)
def test_lossy_files_stay_within_their_error(syntax: UID, error: int) -> None:
    values = decode(dicom_bytes(PHANTOM, syntax)).astype(np.float64) * 4095 / 65535
    assert np.abs(values[:, :, 0] - PHANTOM).max() <= error + 0.1


@pytest.mark.parametrize("bits", [8, 10, 12, 13, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_lossless_jpeg_with_every_predictor_and_depth(predictor: int, bits: int) -> None:
    stored = phantom(bits=bits)
    dataset = header(stored, "MONOCHROME2", bits=bits)
    pixels = decode(write(dataset, encapsulate([lossless_jpeg(stored, bits, predictor)]), JPEGLossless))
    expected = stored[:, :, np.newaxis] if bits == 8 else whole_range(stored, bits)
    np.testing.assert_array_equal(pixels, expected)


def test_jpeg_baseline_in_grey_is_8_bit() -> None:
    stored = phantom(bits=8)
    pixels = decode(dicom_bytes(stored, JPEGBaseline8Bit, bits=8))
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[:, :, 0].astype(int) - stored).mean() < 2


@pytest.mark.parametrize("syntax", NATIVE + LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_8_bits_that_are_shown_as_stored_stay_8_bits(syntax: UID) -> None:
    stored = phantom(bits=8)
    pixels = decode(dicom_bytes(stored, syntax, bits=8))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:, :, 0], stored)
    inverted = decode(dicom_bytes(255 - stored, syntax, bits=8, photometric="MONOCHROME1"))
    np.testing.assert_array_equal(inverted, pixels)


def test_a_window_by_hand() -> None:
    # Center 2, width 3: below 0.5 black, above 2.5 white, between (x - 1.5) / 2 + 0.5.
    stored = np.array([[0, 1, 2, 3]], np.uint16)
    pixels = decode(dicom_bytes(stored, WindowCenter=2, WindowWidth=3))
    assert pixels.ravel().tolist() == [0, 16384, 49151, 65535]
    exact = decode(dicom_bytes(stored, WindowCenter=2, WindowWidth=2, VOILUTFunction="LINEAR_EXACT"))
    assert exact.ravel().tolist() == [0, 0, 32768, 65535]
    step = decode(dicom_bytes(stored, WindowCenter=2, WindowWidth=1))
    assert step.ravel().tolist() == [0, 0, 65535, 65535]
    sigmoid = decode(dicom_bytes(stored, WindowCenter=2, WindowWidth=4, VOILUTFunction="SIGMOID"))
    assert sigmoid[0, 2, 0] == 32768
    assert sigmoid[0, 3, 0] == round(65535 / (1 + np.exp(-1)))


def test_the_order_is_modality_then_window_then_polarity() -> None:
    # Rescaled 0, 10, 20, 30; the window from 10 to 20 gives 0, 0, 1, 1; inverted last: 1, 1, 0, 0.
    stored = np.array([[0, 1, 2, 3]], np.uint16)
    said = {"WindowCenter": 15, "WindowWidth": 10, "VOILUTFunction": "LINEAR_EXACT"}
    pixels = decode(dicom_bytes(stored, photometric="MONOCHROME1", RescaleSlope=10, RescaleIntercept=0, **said))
    assert pixels.ravel().tolist() == [65535, 65535, 0, 0]


def test_the_full_range_ignores_window_and_table_but_not_the_rescale() -> None:
    for said in ({"WindowCenter": 40, "WindowWidth": 80}, {"VOILUTSequence": lut(np.arange(4096)[::-1])}):
        np.testing.assert_array_equal(decode(dicom_bytes(PHANTOM, **said), window="full"), whole_range(PHANTOM))
    negative = decode(dicom_bytes(PHANTOM, RescaleSlope=-1, RescaleIntercept=0), window="full")
    np.testing.assert_array_equal(negative, whole_range(4095 - PHANTOM))


def test_the_range_is_the_possible_one_and_not_that_of_the_image() -> None:
    dark, bright = decode(dicom_bytes(PHANTOM // 8)), decode(dicom_bytes(PHANTOM))
    assert dark.max() < bright.max() / 7


FLOATS = st.floats(-3000, 3000).map(lambda value: round(value, 2))


@settings(max_examples=60)
@given(
    center=FLOATS,
    width=st.floats(2, 5000).map(lambda value: round(value, 2)),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    slope=st.sampled_from([0.5, 1, 2.25, -1.5]),
    intercept=st.sampled_from([0, -1024, 12.5]),
    signed=st.booleans(),
)
def test_windows_agree_with_pydicom(  # noqa: PLR0917  (hypothesis gives them by name)
    center: float, width: float, function: str, slope: float, intercept: float, signed: bool
) -> None:
    stored = np.array([[0, 1, 2, 5, 100, 1000, 2046, 2047, 2048, 2049, 3000, 4000, 4094, 4095]], np.uint16)
    said = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}
    said |= {"RescaleSlope": slope, "RescaleIntercept": intercept, "PixelRepresentation": int(signed)}
    dataset = header(stored, "MONOCHROME2", bits=12, **said)
    values = np.where(stored > 2047, stored.astype(int) - 4096, stored) if signed else stored.astype(int)
    with np.errstate(over="ignore"):  # of pydicom's sigmoid
        windowed = apply_voi_lut(apply_modality_lut(values, dataset), dataset)
    ends = [(-2048 if signed else 0) * slope + intercept, (2047 if signed else 4095) * slope + intercept]
    expected = (windowed - ends[0]) / (ends[1] - ends[0]) * 65535
    try:
        pixels = decode(dicom_bytes(stored, **said))
    except ImageError as error:
        assert "every pixel is shown with the same value" in error.reason
        assert np.ptp(np.rint(expected)) <= 1
        return
    np.testing.assert_allclose(pixels.ravel(), expected.ravel(), atol=0.51)


@pytest.mark.parametrize(("bits", "first"), [(8, 0), (12, 100), (16, 0), (16, -50)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", NATIVE[:2], ids=lambda syntax: syntax.keyword)
def test_tables_agree_with_pydicom(syntax: UID, bits: int, first: int, signed: bool) -> None:
    if syntax == ImplicitVRLittleEndian and not signed:
        first = abs(first)  # without value representations, the sign of the pixels is that of the table
    entries = np.random.default_rng(1).integers(0, 2**bits, 3000)
    descriptor = [len(entries), first, bits]
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        item = Dataset()
        item.add_new(0x00283002, "SS" if first < 0 else "US", descriptor)
        item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
        data = dicom_bytes(PHANTOM, syntax, **{keyword: [item]}, PixelRepresentation=int(signed))
        values = np.where(PHANTOM > 2047, PHANTOM.astype(int) - 4096, PHANTOM) if signed else PHANTOM.astype(int)
        looked_up = entries[np.clip(values - first, 0, len(entries) - 1)]
        if bits == 16:  # pydicom has no 12-bit modality tables, and counts the places of 8-bit tables in 8 bits
            dataset = pydicom.dcmread(io.BytesIO(data))
            np.testing.assert_array_equal(apply_voi_lut(apply_modality_lut(values, dataset), dataset), looked_up)
        np.testing.assert_allclose(decode(data)[:, :, 0], looked_up / (2**bits - 1) * 65535, atol=0.51)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_padding_is_black_whatever_the_polarity(photometric: str, syntax: UID) -> None:
    stored = np.array([[0, 1, 7, 8, 9, 4095]], np.uint16)
    one = decode(dicom_bytes(stored, syntax, photometric=photometric, PixelPaddingValue=0))
    assert one[0, 0, 0] == 0
    assert (one[0, 1, 0] > 65000) == (photometric == "MONOCHROME1")
    said = {"PixelPaddingValue": 7, "PixelPaddingRangeLimit": 9}
    several = decode(dicom_bytes(stored, syntax, photometric=photometric, **said)).ravel()
    assert several[2:5].tolist() == [0, 0, 0]
    assert (several[:2] > 0).all() == (photometric == "MONOCHROME1")


def test_signed_padding_that_its_writer_calls_unsigned_is_padding() -> None:
    stored = np.array([[-2000, -1, 0, 100]], np.int16)
    dataset = header(stored, "MONOCHROME1", bits=16, PixelRepresentation=1)
    dataset.add_new(0x00280120, "US", 65536 - 2000)
    pixels = decode(write(dataset, stored.astype("<i2").tobytes(), ExplicitVRLittleEndian)).ravel()
    assert pixels[0] == 0
    assert pixels[1] > pixels[2] > pixels[3] > 0


def test_bits_above_the_stored_ones_are_cleared() -> None:
    overlay = PHANTOM | 0x8000
    dataset = header(overlay, "MONOCHROME2", bits=12)
    pixels = decode(write(dataset, overlay.astype("<u2").tobytes(), ExplicitVRLittleEndian))
    np.testing.assert_array_equal(pixels, whole_range(PHANTOM))


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS], ids=lambda syntax: syntax.keyword)
def test_signed_values_are_counted_from_the_lowest_one(syntax: UID) -> None:
    patterns = (PHANTOM.astype(int) - 2048) & 4095
    pixels = decode(dicom_bytes(patterns, syntax, PixelRepresentation=1))
    np.testing.assert_array_equal(pixels, whole_range(PHANTOM))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_the_highest_coded_bit_is_the_sign_of_signed_pixels(syntax: UID) -> None:
    # Coded with 12 bits without a sign, -1 is 4095; the header says that the pixels are signed, of 16 bits.
    coded = encode(PHANTOM, header(PHANTOM, "MONOCHROME2", bits=12), syntax)
    dataset = header(PHANTOM, "MONOCHROME2", bits=16, PixelRepresentation=1)
    values = np.where(PHANTOM > 2047, PHANTOM.astype(int) - 4096, PHANTOM)
    pixels = decode(write(dataset, encapsulate([coded]), syntax))
    np.testing.assert_array_equal(pixels, whole_range(values + 32768, 16))


def test_lossy_values_beyond_the_stored_bits_do_not_wrap() -> None:
    bright = np.minimum(PHANTOM.astype(int) * 2, 4095)
    bright[::2, ::2] = 4094
    coded = encode(bright, header(bright, "MONOCHROME2", bits=13), JPEGLSNearLossless)
    pixels = decode(write(header(bright, "MONOCHROME2", bits=12), encapsulate([coded]), JPEGLSNearLossless))
    assert np.abs(pixels[:, :, 0] * (4095 / 65535) - bright).max() < 2.1


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS, JPEGLSNearLossless, JPEGBaseline8Bit], ids=lambda s: s.keyword)
def test_colours_come_out_as_rgb(syntax: UID) -> None:
    photometric = {JPEGBaseline8Bit: "YBR_FULL", JPEG2000Lossless: "YBR_RCT"}.get(syntax, "RGB")
    data = dicom_bytes(COLOUR, syntax, photometric=photometric, bits=8, Modality="US", SOPClassUID=ULTRASOUND)
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - COLOUR).max() <= {JPEGBaseline8Bit: 5, JPEGLSNearLossless: 2}.get(syntax, 0)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLosslessSV1, JPEGLSLossless])
def test_luminance_and_colour_differences_become_rgb(syntax: UID) -> None:
    ybr = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    pixels = decode(dicom_bytes(ybr, syntax, photometric="YBR_FULL", bits=8))
    np.testing.assert_allclose(pixels.astype(int), convert_color_space(ybr, "YBR_FULL", "RGB").astype(int), atol=1)
    assert np.abs(pixels.astype(int) - COLOUR).max() <= 3


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("is_jfif", [False, True])
def test_a_jpeg_that_says_itself_how_its_colours_are_coded_is_believed(is_jfif: bool, photometric: str) -> None:
    # pydicom converts colours twice where an Adobe segment says YCbCr and the header does too.
    coded = encode(COLOUR, header(COLOUR, "RGB", bits=8), JPEGBaseline8Bit)
    behind_jfif = 4 + int.from_bytes(coded[4:6], "big")
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x01"
    coded = (coded[:behind_jfif] if is_jfif else coded[:2]) + adobe + coded[behind_jfif:]
    pixels = decode(write(header(COLOUR, photometric, bits=8), encapsulate([coded]), JPEGBaseline8Bit))
    assert np.abs(pixels.astype(int) - COLOUR).max() <= 5


def test_planes_and_pairs_of_uncompressed_colours() -> None:
    dataset = header(COLOUR, "RGB", bits=8, PlanarConfiguration=1)
    planes = write(dataset, np.moveaxis(COLOUR, 2, 0).tobytes(), ExplicitVRLittleEndian)
    np.testing.assert_array_equal(decode(planes), COLOUR)
    ybr = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    pairs = np.stack([ybr[:, 0::2, 0], ybr[:, 1::2, 0], ybr[:, 0::2, 1], ybr[:, 0::2, 2]], axis=2)
    dataset = header(COLOUR, "YBR_FULL_422", bits=8)
    pixels = decode(write(dataset, pairs.tobytes(), ExplicitVRLittleEndian))
    assert np.abs(pixels.astype(int) - COLOUR).max() <= 20


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_agree_with_pydicom(bits: int) -> None:
    stored = phantom(bits=8)
    generator = np.random.default_rng(2)
    said: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        said[f"{colour}PaletteColorLookupTableDescriptor"] = [200, 10, bits]
        entries = generator.integers(0, 2**bits, 200)
        said[f"{colour}PaletteColorLookupTableData"] = entries.astype("<u2" if bits == 16 else "u1").tobytes()
    data = dicom_bytes(stored, bits=8, photometric="PALETTE COLOR", **said)
    expected = apply_color_lut(stored, pydicom.dcmread(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(data), expected >> 8 if bits == 16 else expected)


@pytest.mark.parametrize("shape", [(3, 3), (4, 4)])
@pytest.mark.parametrize("frame", [1, 2, 3])
def test_8_bit_words_in_big_endian_are_swapped(shape: tuple[int, int], frame: int) -> None:
    frames = [np.arange(9 if shape == (3, 3) else 16, dtype=np.uint8).reshape(shape) + 20 * n for n in range(3)]
    data = b"".join(part.tobytes() for part in frames)
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype("<u2").tobytes()
    dataset = header(frames[0], "MONOCHROME2", bits=8, NumberOfFrames=3)
    dicom = write(dataset, words, ExplicitVRBigEndian, vr="OW")
    np.testing.assert_array_equal(decode(dicom, frame=frame)[:, :, 0], frames[frame - 1])


# Frames.

FRAMES = [phantom(seed=number) for number in range(3)]


@pytest.mark.parametrize("fragments", [1, 2])
@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS], ids=lambda syntax: syntax.keyword)
def test_one_frame_of_several_is_the_one_asked_for(syntax: UID, fragments: int) -> None:
    data = dicom_bytes(FRAMES, syntax, fragments=fragments)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(decode(data, frame=number), whole_range(FRAMES[number - 1]))


@pytest.mark.parametrize("fragments", [1, 2])
def test_frames_without_a_table_are_told_apart_by_their_ends(fragments: int) -> None:
    dataset = header(FRAMES[0], "MONOCHROME2", bits=12, NumberOfFrames=3)
    coded = [encode(frame, dataset, JPEGLSLossless) for frame in FRAMES]
    data = write(dataset, encapsulate(coded, fragments, has_bot=False), JPEGLSLossless)
    np.testing.assert_array_equal(decode(data, frame=2), whole_range(FRAMES[1]))


def test_frames_by_the_extended_table() -> None:
    dataset = header(FRAMES[0], "MONOCHROME2", bits=12, NumberOfFrames=3)
    coded, offsets, lengths = encapsulate_extended([encode(frame, dataset, RLELossless) for frame in FRAMES])
    dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    np.testing.assert_array_equal(decode(write(dataset, coded, RLELossless), frame=3), whole_range(FRAMES[2]))


def test_a_table_does_not_matter_where_there_is_one_frame() -> None:
    dataset = header(PHANTOM, "MONOCHROME2", bits=12)
    coded = encapsulate([encode(PHANTOM, dataset, JPEGLSLossless)], 2, has_bot=False)
    table = struct.pack("<4sI2I", coded[:4], 8, 0, 12)  # of the fragments, which some writers give
    np.testing.assert_array_equal(decode(write(dataset, table + coded[8:], JPEGLSLossless)), whole_range(PHANTOM))


def test_a_table_of_frames_that_points_elsewhere_is_refused() -> None:
    dataset = header(FRAMES[0], "MONOCHROME2", bits=12, NumberOfFrames=3)
    coded = bytearray(encapsulate([encode(frame, dataset, RLELossless) for frame in FRAMES], 2))
    struct.pack_into("<I", coded, 12, 4)
    assert refusal(write(dataset, bytes(coded), RLELossless), frame=2)[0] == "unreadable"


def test_several_frames_need_a_choice_within_them() -> None:
    data = dicom_bytes(FRAMES)
    assert refusal(data) == ("unsupported", "has 3 frames; choose one with --frame")
    assert refusal(data, frame=4) == ("unsupported", "has 3 frames; there is no frame 4")
    assert refusal(data, frame=0) == ("unsupported", "has 3 frames; there is no frame 0")
    assert refusal(dicom_bytes(PHANTOM), frame=2) == ("unsupported", "has 1 frame; there is no frame 2")
    np.testing.assert_array_equal(decode(dicom_bytes(PHANTOM), frame=1), whole_range(PHANTOM))


def test_a_window_and_a_rescale_for_each_frame_are_found() -> None:
    def group(center: float) -> Dataset:
        window, item = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, 4095, "LINEAR_EXACT"
        item.FrameVOILUTSequence = [window]
        return item

    rescale, shared = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, 1000
    shared.PixelValueTransformationSequence = [rescale]
    said = {"SharedFunctionalGroupsSequence": [shared]}
    own = {"PerFrameFunctionalGroupsSequence": [group(0), group(1000 + 2047.5)]}
    frames = [PHANTOM, PHANTOM]
    np.testing.assert_array_equal(decode(dicom_bytes(frames, **said, **own), frame=2), whole_range(PHANTOM))
    np.testing.assert_array_equal(decode(dicom_bytes(frames, **said), frame=1), whole_range(PHANTOM))
    shared.FrameVOILUTSequence = group(77).FrameVOILUTSequence
    np.testing.assert_array_equal(decode(dicom_bytes(frames, **said, **own), frame=2), whole_range(PHANTOM))
    assert (decode(dicom_bytes(frames, **own), frame=1)[PHANTOM == 0] == 32768).all()


def test_only_the_frame_asked_for_is_touched() -> None:
    data = dicom_bytes([phantom(rows=400, columns=400, seed=number) for number in range(12)])
    tracemalloc.start()
    try:
        decode(data, frame=12)
        assert tracemalloc.get_traced_memory()[1] < 12 * 400 * 400
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_files_without_their_own_header_are_read(syntax: UID) -> None:
    data = dicom_bytes(PHANTOM, syntax)
    for headless in (data[132:], data[after_meta(data) :]):
        assert is_dicom(headless)
        np.testing.assert_array_equal(decode(headless), whole_range(PHANTOM))
        assert read_dicom_tags(headless, "a.dcm").patient_id == "P-031"


def test_what_is_another_format_is_no_dicom() -> None:
    starts = [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"II*\0",
        b"MM\0*",
        b"BM",
        b"P5\n",
        b"PK\x03\x04",
        b"",
        b"\x08\0",
    ]
    assert not any(is_dicom(start + bytes(200)) for start in starts)


def _mammogram_of(name: str) -> tuple[bytes, Dataset]:
    """A test file of pydicom's, called a mammogram and shown as stored."""
    dataset = pydicom.dcmread(PYDICOM_FILES / name)
    dataset.Modality, dataset.SOPClassUID = "MG", MAMMOGRAPHY
    for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"):
        if keyword in dataset:
            delattr(dataset, keyword)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue(), dataset


REAL_GREY = [
    "693_J2KI.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
]
REAL_COLOUR = [
    "ExplVR_BigEnd.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_jpeg_no_color_transform_2.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jpeg_app14_dcmd.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_jpeg_lossy_gdcm.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "examples_jpeg2k.dcm",
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
]


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("name", REAL_GREY)
def test_grey_files_of_other_writers_agree_with_pydicom(name: str) -> None:
    data, dataset = _mammogram_of(name)
    values = pydicom.pixels.pixel_array(dataset).astype(np.float64)
    low = -(2.0 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
    pixels = decode(data)
    expected = (values - low) / (2.0**dataset.BitsStored - 1) * np.iinfo(pixels.dtype).max
    np.testing.assert_allclose(pixels[:, :, 0], expected, atol=0.51)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("name", REAL_COLOUR)
def test_colour_files_of_other_writers_agree_with_pydicom(name: str) -> None:
    data, dataset = _mammogram_of(name)
    expected = pydicom.pixels.pixel_array(dataset, index=0)
    np.testing.assert_allclose(decode(data, frame=1).astype(int), expected.astype(int), atol=1)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("CT_small.dcm", "unsupported", "is a CT image (modality CT), not a mammogram or an ultrasound"),
        ("MR_small.dcm", "unsupported", "is an MR image (modality MR), not a mammogram or an ultrasound"),
        ("test-SR.dcm", "unsupported", "is a structured report, not an image"),
        ("liver_1frame.dcm", "unsupported", "is a segmentation or a registration, not an image"),
        ("image_dfl.dcm", "unsupported", "is deflated DICOM, which is not read; save it uncompressed"),
        ("examples_ybr_color.dcm", "unsupported", "has 30 frames; choose one with --frame"),
        ("rtplan_truncated.dcm", "truncated", "the file ends before the end of its DICOM header"),
    ],
)
def test_real_files_that_are_refused(name: str, kind: str, reason: str) -> None:
    assert refusal((PYDICOM_FILES / name).read_bytes()) == (kind, reason)


def test_a_palette_of_a_real_ultrasound_agrees_with_pydicom() -> None:
    data = (PYDICOM_FILES / "examples_palette.dcm").read_bytes()
    dataset = pydicom.dcmread(io.BytesIO(data))
    expected = apply_color_lut(pydicom.pixels.pixel_array(dataset), dataset)
    np.testing.assert_array_equal(decode(data), expected >> 8 if expected.dtype == np.uint16 else expected)


@pytest.mark.real
def test_the_real_mammogram_and_ultrasound_are_read(real_data: Path) -> None:
    data = (real_data / "dicom" / "MG_Explicit_Little.dcm").read_bytes()
    stored = pydicom.dcmread(io.BytesIO(data)).pixel_array.astype(np.float64)
    # Its window, center 127.5 and width 256, spans 255 values from -0.5 on.
    np.testing.assert_allclose(decode(data)[:, :, 0], ((stored + 0.5) / 255).clip(0, 1) * 65535, atol=0.51)
    np.testing.assert_array_equal(decode(data, window="full")[:, :, 0], stored)
    tags = read_dicom_tags(data, "a.dcm")
    assert (tags.modality, tags.side, tags.view, tags.rows) == ("MG", "right", "CC", 512)
    data = (real_data / "dicom" / "US_Explicit_Big_RGB.dcm").read_bytes()
    np.testing.assert_array_equal(decode(data), pydicom.dcmread(io.BytesIO(data)).pixel_array)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "what"),
    [("CT_JPEG70.dcm", "a CT image"), ("OT_Implicit_Little_Headless.dcm", "a captured or derived picture")],
)
def test_the_other_real_files_are_refused(name: str, what: str, real_data: Path) -> None:
    data = (real_data / "dicom" / name).read_bytes()
    assert is_dicom(data)
    assert refusal(data)[1].startswith(f"is {what} (modality {name[:2]})")
