"""Small valid files of every kind that is read, drawn here; and names and tables as the known data sets have them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from tests.bundle.small_bundle import write_invented
from tests.images import dicom_files

from clearmargin.bundle.keras.trace import trace_model
from clearmargin.bundle.keras.write import write_keras
from clearmargin.bundle.single_file import pack_files
from clearmargin.models import build_model

_GENERATOR = np.random.default_rng(3)
RGB = _GENERATOR.integers(0, 256, (7, 9, 3)).astype(np.uint8)
GREY = RGB[:, :, 0].copy()
GREY_16 = _GENERATOR.integers(0, 65536, (7, 9)).astype(np.uint16)
SMOOTH = np.repeat((np.add.outer(np.arange(16), np.arange(24)) * 6).astype(np.uint8)[:, :, None], 3, axis=2)


def encode(image: Image.Image | NDArray[np.generic], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def npy(array: NDArray[Any], version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


@cache
def png_seeds() -> list[bytes]:
    text = PngInfo()
    text.add_text("Comment", "drawn", zip=True)
    text.add_itxt("Title", "drawn", zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY)])
    palette = Image.fromarray(RGB).quantize(8)
    return [
        encode(RGB, "PNG"),
        encode(GREY_16, "PNG", transparency=int(GREY_16[2, 2])),
        encode(palette, "PNG", transparency=3),
        encode(grey_alpha, "PNG"),
        encode(np.dstack([RGB, GREY]), "PNG"),
        encode(GREY > 127, "PNG"),
        encode(RGB, "PNG", pnginfo=text, icc_profile=bytes(200), exif=exif, dpi=(300, 300)),
        encode(palette, "PNG", save_all=True, append_images=[palette.rotate(180)]),
    ]


@cache
def jpeg_seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 8
    image = Image.fromarray(SMOOTH)
    return [
        encode(RGB, "JPEG"),
        encode(SMOOTH[:, :, 0], "JPEG"),
        encode(SMOOTH, "JPEG", progressive=True, exif=exif),
        encode(image.convert("CMYK"), "JPEG"),
        encode(SMOOTH, "JPEG", restart_marker_blocks=1, comment=b"drawn", icc_profile=bytes(99)),
        encode(image, "MPO", save_all=True, append_images=[image]),
    ]


def _bmp_run_lengths(bits: int) -> bytes:
    palette = b"".join(bytes([value, 0, value // 2, 0]) for value in range(16))
    literal = bytes([0, 3, 1, 2, 3, 0]) if bits == 8 else bytes([0, 3, 0x12, 0x30])
    runs = bytes([3, 0x77, 0, 0, 0, 2, 1, 0, 2, 0x33, 0, 0]) + literal + bytes([0, 0, 0, 1])
    offset = 14 + 40 + len(palette)
    header = struct.pack("<2sIII", b"BM", offset + len(runs), 0, offset)
    compression = 1 if bits == 8 else 2
    header += struct.pack("<IiiHHIIiiII", 40, 3, 3, 1, bits, compression, len(runs), 2835, 2835, 16, 16)
    return header + palette + runs


def _bmp_bit_fields() -> bytes:
    header = struct.pack("<2sIII", b"BM", 14 + 56 + 24, 0, 14 + 56)
    header += struct.pack("<IiiHHIIiiII", 56, 3, -2, 1, 32, 3, 24, 0, 0, 0, 0)
    return header + struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(range(24))


@cache
def bmp_seeds() -> list[bytes]:
    old = struct.pack("<2sIII", b"BM", 26 + 8, 0, 26) + struct.pack("<IHHHH", 12, 2, 1, 1, 24) + bytes(range(8))
    return [
        encode(RGB, "BMP"),
        encode(GREY, "BMP"),
        encode(Image.fromarray(RGB).quantize(8), "BMP"),
        encode(GREY > 127, "BMP"),
        *(_bmp_run_lengths(8), _bmp_run_lengths(4), _bmp_bit_fields(), old),
    ]


@cache
def ppm_seeds() -> list[bytes]:
    return [
        encode(RGB, "PPM"),
        encode(GREY, "PPM"),
        encode(GREY_16, "PPM"),
        b"P4\n9 2\n\xff\x80\x00\x80",
        b"P5\n# twelve bits\n3 2\n4095\n" + bytes(range(12)),
        b"P6 2 2 65535 " + bytes(range(24)),
        b"P1 3 2\n1 0 1\n0 1 0\n",
        b"P2 3 2 255\n1 20 255\n0 1 0\n",
        b"P3 2 1 1023\n1 20 1023 0 1 0\n",
        b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0.5, 0.25),
    ]


def _big_tiff() -> bytes:
    tags = [(256, 4, 3), (257, 4, 2), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 16), (278, 4, 2), (279, 4, 6)]
    entries = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II+\0\x08\0\0\0" + struct.pack("<Q", 22) + bytes(range(6)) + struct.pack("<Q", 8) + entries + bytes(8)


@cache
def tiff_seeds() -> list[bytes]:
    bits = Image.fromarray(GREY > 127)
    page = Image.fromarray(RGB)
    compressed = [encode(SMOOTH, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    return [
        encode(RGB, "TIFF"),
        encode(GREY_16, "TIFF"),
        encode(Image.fromarray(RGB).quantize(8), "TIFF"),
        encode(np.dstack([RGB, GREY]), "TIFF", compression="packbits"),
        encode(page.convert("CMYK"), "TIFF"),
        encode(bits, "TIFF", compression="group4"),
        encode(bits, "TIFF", compression="group3"),
        encode(page.convert("YCbCr"), "TIFF"),
        encode(GREY.astype(np.float32), "TIFF"),
        encode(page, "TIFF", save_all=True, append_images=[page]),
        *compressed,
        _big_tiff(),
    ]


@cache
def npy_seeds() -> list[bytes]:
    return [
        npy(GREY),
        npy(RGB, (2, 0)),
        npy(GREY_16.astype(">u2"), (3, 0)),
        npy(np.asfortranarray(RGB)),
        npy(GREY[:, :, None]),
        npy(GREY.astype(np.float64)),
        npy(np.array(["text"])),
        npy(np.zeros((2, 0), np.uint8)),
    ]


@cache
def npz_seeds() -> list[bytes]:
    images, labels = npy(np.stack([RGB, RGB])), npy(np.zeros((2, 1), np.int64))
    names = {"train_images.npy": images, "train_labels.npy": labels}
    return [zipped(names), zipped(names, zipfile.ZIP_STORED), zipped({"a.npy": npy(GREY_16)})]


@cache
def zip_seeds() -> list[bytes]:
    image = encode(RGB, "PNG")
    return [
        zipped({"benign/a.png": image, "malignant/b.png": encode(GREY, "BMP")}, zipfile.ZIP_STORED),
        zipped({"benign/a.png": image, "benign/": b"", "größe.jpg": encode(SMOOTH, "JPEG")}),
        zipped({"d.npz": zipped({"a.npy": npy(np.stack([GREY, GREY]))}), "a.png#frame=1": image}),
    ]


@cache
def dicom_seeds() -> list[bytes]:
    grey, colour = dicom_files.phantom(), dicom_files.colour_phantom()
    syntaxes = [*dicom_files.NATIVE, *dicom_files.LOSSLESS, *dicom_files.LOSSY]
    shown = {"WindowCenter": 2000, "WindowWidth": 1500, "RescaleSlope": 2, "RescaleIntercept": -10}
    return [
        *(dicom_files.dicom_bytes(grey, syntax) for syntax in syntaxes),
        dicom_files.dicom_bytes(grey, photometric="MONOCHROME1", **shown),
        dicom_files.dicom_bytes(colour, photometric="RGB", bits=8, Modality="US"),
        dicom_files.dicom_bytes(colour, JPEGBaseline8Bit, photometric="YBR_FULL_422", bits=8, Modality="US"),
        dicom_files.dicom_bytes([grey, grey[::-1]], ExplicitVRLittleEndian),
    ]


@cache
def parquet_seeds() -> list[bytes]:
    table = pd.DataFrame({"path": ["a.png", "b.png"], "label": [0, 1], "x": [1.0, None], "patient_id": ["P1", None]})
    seeds = []
    for options in ({"index": False}, {"compression": None}, {"row_group_size": 1}):
        stream = io.BytesIO()
        table.to_parquet(stream, **options)  # type: ignore[call-overload]
        seeds.append(stream.getvalue())
    return seeds


CSV_SEEDS: list[bytes] = [
    b"path,label,patient_id\na.png,0,P1\nb.png,malignant,P2\n",
    b"\xef\xbb\xbfpath;label;x;y;official_split\r\n\"a b.png\";benign;1;2;train\r\n'c'.png;1;;;test\r\n",
    b'path\tlabel\tslide_id\n"two\nlines.png"\t1\tS1\n',
    b'path,label,x\n"a,""b"".png",1.0,3e2\n',
]
NAMES: list[str] = [
    "8863_idx5_x451_y1451_class0.png",
    "SOB_B_A-14-22549AB-100-027.png",
    "SOB_M_DC-14-3909-40-014.png",
    "benign (4)_mask_1.png",
    "malignant (12).png",
    "mdb001.pgm",
]
MIAS_LISTS: list[str] = [
    "mdb001 G CIRC B 535 425 197\nmdb002 G CIRC B 522 280 69\nmdb003 D NORM\nmdb059 F CIRC B\n",
    "Some words first.\n\nmdb216 D CALC M *NOTE 3*\nmdb005 F CIRC B 477 133 30\nmdb005 F CIRC B 500 168 26\n",
]
PLACES: list[str] = [
    "scans/mdb001.pgm",
    "IDC.zip/8863/0/8863_idx5_x1_y1_class0.png",
    "breastmnist.npz/train_images/12",
    "us/loop.dcm#frame=3",
    "scans/mdb001.pgm#xywh=440,330,200,200",
    "d.zip/a.dcm#frame=2&xywh=0,0,5,5",
]


@cache
def bundle_seeds() -> list[bytes]:
    """Bundles as one file, one of them with other decisions."""
    seeds = []
    for changes in ({}, {"threshold": 0.9, "stamp": "image-level split: optimistic"}):
        with TemporaryDirectory() as folder:
            written = write_invented(Path(folder) / "bundle", **changes)
            seeds.append(pack_files({file.name: file.read_bytes() for file in written.iterdir()}))
    return seeds


@cache
def keras_seeds() -> list[bytes]:
    """Small networks of Keras 3: a chain, and one with branches."""
    seeds = []
    for name, side in (("cnn_3conv", 32), ("residual", 16)):
        traced = trace_model(build_model(name, (side, side, 3), seed=0).eval(), (side, side, 3))
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            write_keras(path, traced.graph, traced.tensors)
            seeds.append(path.read_bytes())
    return seeds


@cache
def keras_configs() -> list[Any]:
    """How they are described."""
    return [json.loads(members(data)["config.json"]) for data in keras_seeds()]


def members(data: bytes) -> dict[str, bytes]:
    """What a zip holds."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def onnx_seeds() -> list[bytes]:
    """Networks with weights in both forms, attributes of several kinds and a described value."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=1),
            helper.make_node("Transpose", ["floats"], ["x"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[1, 1]),
            helper.make_node("LeakyRelu", ["y"], ["z"], alpha=0.1),
            helper.make_node("Constant", [], ["axes"], value=helper.make_tensor("c", 7, [3], [1, 2, 3])),
            helper.make_node("ReduceMean", ["z", "axes"], ["logits"], keepdims=0),
        ],
        "network",
        [helper.make_tensor_value_info("images", 2, ["batch", 4, 4, 3])],
        [helper.make_tensor_value_info("logits", 1, ["batch"])],
        [numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w"), helper.make_tensor("v", 1, [2], [0.5, 2.0])],
        value_info=[helper.make_tensor_value_info("y", 1, ["batch", 2, 4, 4])],
    )
    opset = [helper.make_opsetid("", 18)]
    return [helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()]


@cache
def weights_seeds() -> list[bytes]:
    """Files of weights and counters."""
    tensors = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2), "norm.count": torch.tensor(3)}
    return [safetensors.torch.save(tensors), safetensors.torch.save(tensors, metadata={"format": "pt"})]
