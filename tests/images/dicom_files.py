"""Small phantom mammograms, and DICOM files of them in any transfer syntax and photometric interpretation.

Written with pydicom and with encoders, so that what the decoder reads was not written by the decoder's own code.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import jpeg_ls
import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from scipy.fft import dctn

from clearmargin.errors import ImageError
from clearmargin.images.dicom import decode_dicom
from clearmargin.images.isolate import decode_isolated
from clearmargin.images.limits import Limits, Pixels, Window

NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
LOSSLESS = [RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless]
LOSSY = [JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000]
MAMMOGRAPHY, ULTRASOUND = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.6.1"
PATIENT = "DOE^JANE^SECRET"


def phantom(*, rows: int = 40, columns: int = 32, bits: int = 12, seed: int = 0) -> NDArray[np.uint16]:
    """A breast against the left edge with a mass and noise, black around it; (rows, columns) of `bits` bits."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns]
    depth = 1 - (x / (0.8 * columns)) ** 2 - ((y - rows / 2) / (0.45 * rows)) ** 2
    mass = np.exp(-((x - columns * 0.3) ** 2 + (y - rows * 0.4) ** 2) / (0.02 * rows * columns))
    light = np.where(depth > 0, 0.2 + 0.4 * np.sqrt(depth.clip(0)) + 0.35 * mass, 0)
    light = np.where(depth > 0, light + generator.normal(0, 0.01, light.shape), 0)
    return np.rint(light.clip(0, 1) * (2**bits - 1)).astype(np.uint16)


def colour_phantom(*, rows: int = 40, columns: int = 32) -> NDArray[np.uint8]:
    """A smooth colour image, (rows, columns, 3)."""
    y, x = np.mgrid[0:rows, 0:columns]
    planes = [x / columns * 255, y / rows * 255, 255 - (x + y) / (rows + columns) * 255]
    return np.rint(np.stack(planes, axis=2)).astype(np.uint8)


def header(pixels: NDArray[Any], photometric: str, *, bits: int, **elements: Any) -> Dataset:
    """The data set of one frame, without pixel data; `elements` are added or, where None, taken out."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MAMMOGRAPHY, "1.2.3.4.5.6"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
    dataset.PatientName, dataset.PatientID, dataset.Modality = PATIENT, "P-031", "MG"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:  # what no writer should write, too
            tag = tag_for_keyword(keyword)
            dataset[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE)
    return dataset


def dicom_bytes(
    pixels: NDArray[Any] | list[NDArray[Any]],
    syntax: UID = ExplicitVRLittleEndian,
    *,
    photometric: str = "MONOCHROME2",
    bits: int = 12,
    fragments: int = 1,
    **elements: Any,
) -> bytes:
    """A file with one frame, or with several where `pixels` is a list of frames.

    With one fragment a frame the offset table is there too.
    """
    frames = pixels if isinstance(pixels, list) else [pixels]
    if len(frames) > 1:
        elements = {"NumberOfFrames": len(frames), **elements}
    dataset = header(frames[0], photometric, bits=bits, **elements)
    if syntax in NATIVE:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        size = dataset.BitsAllocated // 8
        data = b"".join(frame.astype(f"{order}u{size}").tobytes() for frame in frames)
        return write(dataset, data + b"\0" * (len(data) % 2), syntax)
    return write(dataset, encapsulate([encode(frame, dataset, syntax) for frame in frames], fragments), syntax)


def write(dataset: Dataset, data: bytes, syntax: UID, *, vr: str | None = None) -> bytes:
    """The file with these pixel data as they are."""
    dataset.add_new(0x7FE00010, vr or ("OW" if dataset.BitsAllocated == 16 else "OB"), data)
    dataset["PixelData"].is_undefined_length = syntax not in NATIVE
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", MAMMOGRAPHY)
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5.6"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encode(pixels: NDArray[Any], dataset: Dataset, syntax: UID) -> bytes:
    """One compressed frame."""
    bits = dataset.BitsStored
    pixels = np.ascontiguousarray(pixels.astype(np.uint8 if bits <= 8 else np.uint16))
    if syntax == RLELossless:
        return _even(_encode_rle(pixels, dataset))
    if syntax in (JPEGLSLossless, JPEGLSNearLossless):
        return _even(_encode_jpeg_ls(pixels, bits, 0 if syntax == JPEGLSLossless else 2))
    if syntax in (JPEG2000Lossless, JPEG2000):
        ratios = None if syntax == JPEG2000Lossless else [2.0]
        space = 1 if pixels.ndim == 3 else 2
        return _even(
            encode_array(pixels, bits, space, "RCT" in dataset.PhotometricInterpretation, compression_ratios=ratios)
        )
    if syntax == JPEGBaseline8Bit:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
        return _even(buffer.getvalue())
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        return _even(lossless_jpeg(pixels, bits, 1 if syntax == JPEGLosslessSV1 else 5))
    return _even(extended_jpeg(pixels))


def _even(frame: bytes | bytearray) -> bytes:
    return bytes(frame) + b"\0" * (len(frame) % 2)


def _encode_rle(pixels: NDArray[Any], dataset: Dataset) -> bytes:
    options = {
        "rows": dataset.Rows,
        "columns": dataset.Columns,
        "samples_per_pixel": dataset.SamplesPerPixel,
        "bits_allocated": dataset.BitsAllocated,
        "bits_stored": dataset.BitsStored,
        "pixel_representation": 0,
        "photometric_interpretation": dataset.PhotometricInterpretation,
        "number_of_frames": 1,
        "planar_configuration": 0,
    }
    return RLELosslessEncoder.encode(pixels.tobytes(), index=0, encoding_plugin="pydicom", **options)


def _encode_jpeg_ls(pixels: NDArray[Any], bits: int, error: int) -> bytes:
    samples = 1 if pixels.ndim == 2 else 3
    return bytes(
        jpeg_ls.encode_buffer(
            pixels.tobytes(), pixels.shape[0], pixels.shape[1], samples, bits, error, 0 if samples == 1 else 2
        )
    )


def extended_jpeg(pixels: NDArray[Any]) -> bytes:
    """A grey JPEG of 12 bits (ITU-T T.81, annex F) written by hand, with quantisation by 1; sides divisible by 8."""
    rows, columns = pixels.shape
    codes = {symbol: f"{number:08b}" for number, symbol in enumerate(_AC_SYMBOLS)}
    coded, before = [], 0
    for top, left in np.ndindex(rows // 8, columns // 8):
        block = pixels[8 * top : 8 * top + 8, 8 * left : 8 * left + 8].astype(np.float64) - 2048
        values = [int(number) for number in np.rint(dctn(block, norm="ortho")).astype(int).ravel()[_ZIGZAG]]
        coded.append(_category(values[0] - before))
        before, run = values[0], 0
        for value in values[1:]:
            if value == 0:
                run += 1
                continue
            coded.append(codes[0xF0] * (run // 16))
            size, bits = _size_and_bits(value)
            coded.append(codes[(run % 16) << 4 | size] + bits)
            run = 0
        coded.append(codes[0] if run else "")
    frame = struct.pack(">BHHBBBB", 12, rows, columns, 1, 1, 0x11, 0)
    dc = bytes([0x00, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    ac = bytes([0x10, *[0] * 7, len(_AC_SYMBOLS), *[0] * 8, *_AC_SYMBOLS])
    return _jpeg(
        [(0xDB, bytes([0] + [1] * 64)), (0xC1, frame), (0xC4, dc), (0xC4, ac)], bytes([1, 1, 0, 0, 63, 0]), coded
    )


_AC_SYMBOLS = [0x00, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 15))]
_ZIGZAG = sorted(range(64), key=lambda place: (sum(divmod(place, 8)), divmod(place, 8)[sum(divmod(place, 8)) % 2 == 0]))


def _jpeg(segments: list[tuple[int, bytes]], scan: bytes, coded: list[str]) -> bytes:
    bits = "".join(coded)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    parts = [*segments, (0xDA, scan)]
    head = b"".join(struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part for marker, part in parts)
    return b"\xff\xd8" + head + data + b"\xff\xd9"


def lossless_jpeg(pixels: NDArray[Any], bits: int, predictor: int) -> bytes:
    """A lossless JPEG (ITU-T T.81, annex H) written by hand, one or three components, any of the seven predictors."""
    planes = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
    rows, columns, samples = planes.shape
    wide = planes.astype(np.int64)
    left, above = np.roll(wide, 1, 1), np.roll(wide, 1, 0)
    corner = np.roll(above, 1, 1)
    guess = [
        left,
        above,
        corner,
        left + above - corner,
        left + ((above - corner) >> 1),
        above + ((left - corner) >> 1),
        (left + above) >> 1,
    ][predictor - 1].copy()
    guess[0], guess[:, 0] = left[0], above[:, 0]
    guess[0, 0] = 2 ** (bits - 1)
    difference = (wide - guess + 32768) % 65536 - 32768
    components = b"".join(struct.pack("BBB", number, 0x11, 0) for number in range(1, samples + 1))
    selectors = b"".join(struct.pack("BB", number, 0) for number in range(1, samples + 1))
    frame = struct.pack(">BHHB", bits, rows, columns, samples) + components
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    coded = [_category(int(number)) for number in difference.ravel()]
    return _jpeg([(0xC3, frame), (0xC4, table)], bytes([samples]) + selectors + bytes([predictor, 0, 0]), coded)


def _category(difference: int) -> str:
    """A difference with Huffman codes of five bits for the 17 categories, in their order."""
    size, bits = _size_and_bits(difference)
    return f"{size:05b}{bits}"


def _size_and_bits(value: int) -> tuple[int, str]:
    size = abs(value).bit_length()
    if size in (0, 16):
        return size, ""
    return size, f"{value if value > 0 else value + 2**size - 1:0{size}b}"


def bare_jpeg(rows: int, columns: int, *, marker: int = 0xC3, bits: int = 12) -> bytes:
    """The headers of a JPEG that promises a size, and no coded data."""
    frame = struct.pack(">BHHBBBB", bits, rows, columns, 1, 1, 0x11, 0)
    return _jpeg([(marker, frame)], bytes([1, 1, 0, 1, 0, 0]), ["0" * 8])


def decode(
    data: bytes,
    *,
    window: Window = "stored",
    frame: int | None = None,
    limits: Limits = Limits(),
    isolated: bool = False,
) -> Pixels:
    """The pixels; `isolated` where a decoder may end the process."""
    decode = decode_isolated if isolated else decode_dicom
    pixels = decode(data, "a.dcm", limits, window=window, frame=frame)
    return pixels[0] if isinstance(pixels, tuple) else pixels


def refusal(data: bytes, **options: Any) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert str(caught.value).startswith("a.dcm: ")
    assert "\n" not in str(caught.value)
    return caught.value.kind, caught.value.reason


def whole_range(values: NDArray[Any], bits: int = 12) -> NDArray[np.uint16]:
    """By hand: unsigned values of `bits` bits over the range of uint16."""
    return np.floor(values / (2**bits - 1) * 65535 + 0.5).astype(np.uint16)[:, :, np.newaxis]


def lut(entries: NDArray[Any], *, first: int = 0, bits: int = 12) -> list[Dataset]:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries) % 65536, first, bits])
    item.add_new(0x00283006, "US", entries.tolist())
    return [item]


def after_meta(data: bytes) -> int:
    """Where the data set begins, behind the file's own header."""
    return 132 + 12 + struct.unpack_from("<I", data, 140)[0]
