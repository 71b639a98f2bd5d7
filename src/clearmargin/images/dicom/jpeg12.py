"""Lossy JPEG of 12 bits as a decoding plugin of pydicom, whose own for GDCM refuses it.

GDCM reads it when it is told that the pixels fill 12 bits; told 16, it takes its decoder for lossless images.
"""

from __future__ import annotations

import gdcm
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.10",)}


def is_available(uid: str) -> bool:
    """What pydicom asks of a plugin."""
    return uid in DECODER_DEPENDENCIES


def decode_12_bit(frame: bytes, runner: DecodeRunner) -> bytes:
    """The values of a grey frame, two bytes each; of another length where GDCM fails."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 12, 12, 11, 0))
    text: str | None = image.GetBuffer()  # bytes in the clothes of a string
    return b"" if text is None else text.encode("utf-8", "surrogateescape")
