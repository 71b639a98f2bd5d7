"""What is attacked, and what must hold: the contract or one line of an error of ours, nothing else, and no warning."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from tests.fuzz import mutations, seeds

from clearmargin.bundle.keras.network import read_network
from clearmargin.bundle.onnx_check import check_onnx
from clearmargin.bundle.read import read_bundle
from clearmargin.bundle.weights_check import load_weights
from clearmargin.data.sources import csv
from clearmargin.data.sources.mias.info import parse_info
from clearmargin.errors import BundleError, ClearmarginError, DataError, ImageError
from clearmargin.images import raster
from clearmargin.images.archive import list_members
from clearmargin.images.limits import Limits
from clearmargin.images.names import find_masks, label_of_name, parse_breakhis_name, parse_busi_name, parse_idc_name
from clearmargin.images.npz import list_arrays
from clearmargin.images.place import Place, file_of, parse_place, split_archive
from clearmargin.images.read import decode_image, read_image

LIMITS = Limits(max_bytes=1 << 20, max_pixels=1 << 20, max_seconds=20)
KINDS = {"missing", "empty", "unreadable", "truncated", "not_an_image", "too_large", "unsupported"}


@dataclass(frozen=True)
class Target:
    """Inputs, and a check that passes or raises."""

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], str]
    """Gives what became of the input, in a word."""


@contextmanager
def no_warnings() -> Iterator[None]:
    """A warning that a user would see is an error; Pillow's are silenced by `raster`, as they are for a user."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=UserWarning, module=raster._MODULES)
        yield


def check_pixels(pixels: np.ndarray[Any, Any]) -> None:
    assert pixels.dtype in (np.uint8, np.uint16)
    assert pixels.dtype.isnative
    assert pixels.ndim == 3
    assert pixels.shape[2] in (1, 3)
    assert pixels.size > 0
    assert pixels.shape[0] * pixels.shape[1] <= LIMITS.max_pixels


def check_message(error: ClearmarginError) -> str:
    text = str(error)
    assert text.isprintable()
    assert text.strip()
    assert len(text) < 2_000, len(text)
    if isinstance(error, ImageError):
        assert error.kind in KINDS, error.kind
        return "crashed" if "decoder crashed" in error.reason else error.kind
    return type(error).__name__


def decode(data: bytes, *, isolated: bool = False) -> str:
    with no_warnings():
        try:
            image = decode_image(data, "x", LIMITS, isolated=isolated)
        except ImageError as error:
            return check_message(error)
    check_pixels(image.pixels)
    return "image"


def decode_in_child(data: bytes) -> str:
    """As `decode`, for decoders that may end the process."""
    return decode(data, isolated=True)


_folder = Path(mkdtemp(prefix="clearmargin-inputs-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_number = count()


@contextmanager
def on_disk(data: bytes, extension: str) -> Iterator[Path]:
    """A file of a name that was never there before, so that nothing kept of another one is used."""
    path = _folder / f"{os.getpid()}-{next(_number)}{extension}"
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink()


def read_parts(data: bytes, extension: str, find: Callable[[Path], Sequence[str]]) -> str:
    """Lists what the archive holds and reads the first few as images."""
    with no_warnings(), on_disk(data, extension) as path:
        try:
            parts = find(path)
        except DataError as error:
            return check_message(error)
        outcomes = []
        for part in parts[:4]:
            try:
                pixels = read_image(part, LIMITS)
            except ImageError as error:
                outcomes.append(check_message(error))
            else:
                check_pixels(pixels)
                outcomes.append("image")
    return "image" if "image" in outcomes else (outcomes or ["nothing"])[0]


def read_members(data: bytes) -> str:
    def find(path: Path) -> list[str]:
        names = list_members(str(path))
        assert len(names) == len(set(names))
        assert not any(name.startswith("/") or ".." in name.split("/") for name in names)
        return [f"{path}/{name}" for name in names]

    return read_parts(data, ".zip", find)


def read_rows(data: bytes) -> str:
    def find(path: Path) -> list[str]:
        shapes = list_arrays(str(path))
        return [f"{path}/{name}/{row}" for name in shapes for row in (0, 1)]

    return read_parts(data, ".npz", find)


def read_table(data: bytes, extension: str = ".csv") -> str:
    with no_warnings(), on_disk(data, extension) as path:
        try:
            table = csv.read_table(path)
            assert isinstance(table, pd.DataFrame)
            manifest = csv.read(path)
        except DataError as error:
            return check_message(error)
    assert set(manifest.labels().tolist()) <= {0, 1}
    assert all(Path(name).is_absolute() for name in manifest.frame["path"])
    return "table"


def read_parquet(data: bytes) -> str:
    return read_table(data, ".parquet")


def read_single_file(data: bytes) -> str:
    with no_warnings(), on_disk(data, ".clearmargin") as path:
        try:
            bundle = read_bundle(path)
        except BundleError as error:
            return check_message(error)
        assert all(hashlib.sha256(bundle.read(name)).hexdigest() == digest for name, digest in bundle.sums.items())
    return "bundle"


def check_network(data: bytes) -> str:
    with no_warnings():
        try:
            check_onnx(data, "model.onnx")
        except BundleError as error:
            return check_message(error)
    return "network"


def check_weights(data: bytes) -> str:
    with no_warnings():
        try:
            tensors = load_weights(data, "weights.safetensors")
        except BundleError as error:
            return check_message(error)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    return "weights"


def read_keras(data: bytes) -> str:
    with no_warnings(), on_disk(data, ".keras") as path:
        try:
            network = read_network(path)
        except ClearmarginError as error:
            return check_message(error)
    assert network.graph.output in ((1,), (2,))
    return "network"


def read_description(text: str) -> str:
    """Of a network whose weights are whole: HDF5's own code is kept out, since it may end the process."""
    files = seeds.members(seeds.keras_seeds()[0])
    return read_keras(seeds.zipped(files | {"config.json": text.encode("utf-8", "surrogatepass")}))


def parse_names(name: str) -> str:
    with no_warnings():
        idc, breakhis, busi = parse_idc_name(name), parse_breakhis_name(name), parse_busi_name(name)
        label = label_of_name(name)
        assert find_masks([name, f"{name}_mask.png"]) <= {name, f"{name}_mask.png"}
    assert label in (None, 0, 1)
    if idc is not None:
        assert idc[0]
        assert 0 <= idc[1] < 10**9
        assert 0 <= idc[2] < 10**9
    if breakhis is not None:
        assert breakhis.slide_id.startswith(breakhis.patient_id)
    return "known" if idc or breakhis or busi else "unknown"


def parse_mias(text: str) -> str:
    with no_warnings():
        info = parse_info(text)
    for name, lesions in info.lesions.items():
        assert name == name.lower()
        assert all(0 <= number <= 9999 for lesion in lesions for number in lesion.circle or ())
    return "lesions" if info.lesions else "none"


def parse_places(text: str) -> str:
    with no_warnings():
        place = parse_place(text)
        split_archive(text)
    assert str(place) == text or place != Place(text)  # leading zeros of a box are not kept
    assert file_of(text) == place.file
    assert parse_place(str(place)) == place
    with no_warnings(), suppress(ImageError):
        read_image(_folder / "nowhere" / text.replace("/", "_"), LIMITS)
    return "file" if place == Place(text) else "part"


def _image_target(own: list[bytes], check: Callable[[bytes], str] = decode) -> Target:
    others = [seeds.png_seeds()[0], seeds.jpeg_seeds()[0], seeds.bmp_seeds()[0], seeds.tiff_seeds()[0]]
    return Target(mutations.files(own, [*others, seeds.zip_seeds()[0], seeds.npy_seeds()[0]]), check)


def build_targets() -> dict[str, Target]:
    """Every reader by name."""
    return {
        "png": _image_target(seeds.png_seeds()),
        "jpeg": _image_target(seeds.jpeg_seeds()),
        "bmp": _image_target(seeds.bmp_seeds()),
        "ppm": _image_target(seeds.ppm_seeds()),
        "tiff": _image_target(seeds.tiff_seeds()),
        "npy": _image_target(seeds.npy_seeds()),
        "dicom": _image_target(seeds.dicom_seeds(), decode_in_child),
        "npz": Target(mutations.files(seeds.npz_seeds(), seeds.zip_seeds()), read_rows),
        "zip": Target(mutations.files(seeds.zip_seeds(), seeds.npz_seeds()), read_members),
        "csv": Target(mutations.files(seeds.CSV_SEEDS, seeds.png_seeds()), read_table),
        "parquet": Target(mutations.files(seeds.parquet_seeds(), seeds.png_seeds()), read_parquet),
        "bundle": Target(mutations.files(seeds.bundle_seeds(), seeds.zip_seeds()), read_single_file),
        "onnx": Target(mutations.files(seeds.onnx_seeds(), seeds.png_seeds()), check_network),
        "weights": Target(mutations.files(seeds.weights_seeds(), seeds.npy_seeds()), check_weights),
        "keras": Target(mutations.described(seeds.keras_configs()), read_description),
        "names": Target(mutations.texts(seeds.NAMES), parse_names),
        "mias": Target(mutations.texts(seeds.MIAS_LISTS), parse_mias),
        "place": Target(mutations.texts(seeds.PLACES), parse_places),
    }
