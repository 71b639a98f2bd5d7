"""`import_keras`: a Keras file to a bundle. What the file does not say of the model is left unknown, never made up."""

from __future__ import annotations

import hashlib
import importlib.metadata
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clearmargin import __version__
from clearmargin.bundle.export import export_onnx
from clearmargin.bundle.keras.convert import Head
from clearmargin.bundle.keras.isolate import read_isolated
from clearmargin.bundle.keras.network import DEFAULT_SCALE, ImportOptions, KerasNetwork
from clearmargin.bundle.keras.real import Answer, ask_keras
from clearmargin.bundle.keras.write import write_keras
from clearmargin.bundle.read import SUMS
from clearmargin.bundle.schema import IMPORTED, Architecture, Imported, Lineage, ModelFile
from clearmargin.bundle.single_file import SUFFIX
from clearmargin.bundle.write import Network, check_new, write_bundle
from clearmargin.errors import DataError, UsageError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Deployed, normalise, scale_pixels
from clearmargin.models.graph import GraphClassifier
from clearmargin.types import Listener, OperatingPoint

_CHECKED_IMAGES = 8
_UNSEEN = "the file that the model was imported from says nothing of its training images"
_UNKNOWN = "the file that the model was imported from holds no rule for it"


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """What came of an import. `difference` is the largest of a probability from Keras; `compared` says of what."""

    folder: Path
    model: ModelFile
    head: Head
    difference: float | None
    compared: str


def import_keras(
    file: Path, out: Path, options: ImportOptions = ImportOptions(), *, listener: Listener = Listener()
) -> ImportedModel:
    """A bundle in `out` with the network of a Keras file, of any Keras; nothing in the file is run.

    Where Keras is installed, it is asked for its probabilities on random images and the largest difference is reported.

    Raises:
        DataError: not a file that can be read, or not a network from one image to benign or malignant; names the layer.
        UsageError: something is at `out` already, or the file is a bundle.
        BundleError: the exported network differs from the imported one.
    """
    check_new(out)
    _check_no_bundle(file)
    listener.stage("read")
    read = read_isolated(file, options, listener=listener)
    digest = _hash(file)
    preprocessing = _preprocessing(read, options)
    network = read.classifier()
    listener.stage("export")
    images = np.random.default_rng(0).integers(0, 256, (_CHECKED_IMAGES, *preprocessing.shape), dtype=np.uint8)
    _check_finite(network, preprocessing, images, file)
    onnx = export_onnx(network, preprocessing, images)
    difference, compared = _compare(
        file, read, network, bgr=options.channels == "bgr", preprocessing=preprocessing, images=images
    )
    listener.note(compared)
    model = _model_file(read, preprocessing, digest)
    write_bundle(out, model, Network(network.state_dict(), onnx))
    return ImportedModel(out, model, read.head, difference, compared)


def _check_no_bundle(file: Path) -> None:
    if file.suffix.lower() == SUFFIX or any((each / SUMS).is_file() for each in (file, file / "bundle")):
        raise UsageError(f"{file}: is a bundle already; give it wherever a BUNDLE is asked for.")
    if file.suffix.lower() == ".onnx":
        raise UsageError(f"{file}: is an ONNX file. Give a Keras model (.h5, .hdf5 or .keras).")


def _preprocessing(read: KerasNetwork, options: ImportOptions) -> Preprocessing:
    """Value * scale + offset = (value / 255 - mean) / std."""
    height, width, channels = read.graph.input
    scale, offset = (DEFAULT_SCALE, Fraction(0)) if read.inside else (read.scale, read.offset)
    std = 1 / (255 * scale)
    return Preprocessing(
        width=width,
        height=height,
        channels=channels,
        fit=options.fit,
        interpolation="bilinear",
        mean=float(-offset * std),
        std=float(std),
    )


def _check_finite(
    network: GraphClassifier, preprocessing: Preprocessing, images: NDArray[np.uint8], file: Path
) -> None:
    with torch.inference_mode():
        logits, _ = Deployed(network, preprocessing.mean, preprocessing.std)(torch.from_numpy(images))
    if not bool(torch.isfinite(logits).all()):
        raise DataError(
            f"{file}: the network gives no finite number for random images. Check --scale and --offset, or the file."
        )


def _compare(
    file: Path,
    read: KerasNetwork,
    network: GraphClassifier,
    *,
    bgr: bool,
    preprocessing: Preprocessing,
    images: NDArray[np.uint8],
) -> tuple[float | None, str]:
    """The largest difference of a probability from what the real Keras says, and of what it is."""
    inputs = normalise(scale_pixels(torch.from_numpy(images)), preprocessing.mean, preprocessing.std)
    with torch.inference_mode():
        ours = torch.sigmoid(network(inputs)).numpy()
    reason = "it holds weights alone"
    if read.whole:
        pixels = images.astype(np.float32) * np.float32(read.scale) + np.float32(read.offset)
        pixels = pixels[..., ::-1] if bgr else pixels
        pixels = np.moveaxis(pixels, 3, 1) if read.channels_first else pixels
        answer = ask_keras(file, np.ascontiguousarray(pixels))
        if not answer.installed:
            return None, "Keras is not installed, so nothing was compared with it (pip install keras)."
        difference = _difference(answer, ours, read)
        if difference is not None:
            return difference, f"Probabilities differ from those of the real Keras by at most {difference:.1e}."
        reason = answer.reason
    with tempfile.TemporaryDirectory() as folder:
        rebuilt = Path(folder) / "rebuilt.keras"
        write_keras(rebuilt, read.graph, read.tensors)
        answer = ask_keras(rebuilt, np.ascontiguousarray(inputs.permute(0, 2, 3, 1).numpy()))
    if not answer.installed:
        return None, "Keras is not installed, so nothing was compared with it (pip install keras)."
    difference = _difference(answer, ours, read)
    if difference is None:
        return (
            None,
            f"Nothing was compared with the real Keras: of the file, {reason}; of its rebuild, {answer.reason}.",
        )
    return difference, (
        f"Keras could not be asked about the file itself ({reason}); probabilities differ from those of its rebuild, "
        f"exported from here and opened by Keras, by at most {difference:.1e}."
    )


def _difference(answer: Answer, ours: NDArray[np.float32], read: KerasNetwork) -> float | None:
    if answer.outputs is None:
        return None
    outputs = answer.outputs.reshape(len(ours), -1)
    malignant = read.graph.malignant
    if read.head == "linear":
        logits = outputs[:, malignant] - outputs[:, 1 - malignant] if outputs.shape[1] == 2 else outputs[:, 0]
        values = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    else:
        values = outputs[:, malignant] if outputs.shape[1] == 2 else outputs[:, 0]
    if outputs.shape[1] == 1 and malignant == 0:
        values = 1 - values
    return float(np.abs(values - ours).max())


def _model_file(read: KerasNetwork, preprocessing: Preprocessing, digest: str) -> ModelFile:
    point = OperatingPoint("assumed", "0.5, because the imported file holds no threshold", 0.5, chosen_on="no data")
    return ModelFile(
        architecture=Architecture(name=IMPORTED, parameters=read.graph.parameters, graph=read.graph),
        preprocessing=preprocessing,
        temperature=1.0,
        operating_points={point.name: point},
        operating_point=point.name,
        no_abstention=_UNKNOWN,
        no_levels={"slide": _UNKNOWN, "patient": _UNKNOWN},
        no_context=_UNKNOWN,
        no_gate=_UNSEEN,
        lineage=Lineage(
            clearmargin=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=None,
            seed=None,
            split="unknown",
            data_sha256=None,
            split_sha256=None,
            precision=None,
            metrics=None,
            libraries={name: importlib.metadata.version(name) for name in ("torch", "onnxruntime", "h5py")},
            imported=Imported(file_sha256=digest, format=read.format, keras_version=read.keras_version),
        ),
    )


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
