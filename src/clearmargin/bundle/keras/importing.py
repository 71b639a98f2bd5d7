"""`import_keras`: a Keras file to a bundle. What the file does not say of the model is left unknown, never made up."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearmargin import __version__
from clearmargin.bundle.export import export_onnx
from clearmargin.bundle.keras.configs import read_model
from clearmargin.bundle.keras.convert import Converted, Head, convert_model
from clearmargin.bundle.keras.files import KerasFile, open_keras
from clearmargin.bundle.keras.real import Answer, ask_keras
from clearmargin.bundle.keras.recipes import read_by_recipe
from clearmargin.bundle.keras.weights import read_tensors
from clearmargin.bundle.keras.write import write_keras
from clearmargin.bundle.schema import IMPORTED, Architecture, Imported, Lineage, ModelFile
from clearmargin.bundle.write import Network, check_new, write_bundle
from clearmargin.errors import DataError
from clearmargin.graph import Graph
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Deployed, normalise, scale_pixels
from clearmargin.models.graph import GraphClassifier, tensor_name
from clearmargin.types import Listener, OperatingPoint

_CHECKED_IMAGES = 8
_UNKNOWN = "the file that the model was imported from holds no rule for it"
_DEFAULT_SCALE = Fraction(1, 255)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a Keras file does not say, and the user has to.

    Attributes:
        malignant_index: of two outputs, the one that is malignant; of one output, 1 if it is of malignant, 0 if of
            benign.
        scale: pixels from 0 to 255 are multiplied by it; None is 1/255, or 1 where the network itself rescales.
        offset: and this is added.
        channels: their order as the network was trained.
        size: (width, height), for a network that takes any.
        fit: how images of another size become that size.
        recipe: whose network a file of weights alone belongs to.
    """

    malignant_index: Literal[0, 1] = 1
    scale: Fraction | None = None
    offset: Fraction = Fraction(0)
    channels: Literal["rgb", "bgr"] = "rgb"
    size: tuple[int, int] | None = None
    fit: Literal["pad", "stretch"] = "stretch"
    recipe: str | None = None


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """What came of an import. `difference` is the largest of a probability from Keras; `compared` says of what."""

    folder: Path
    model: ModelFile
    head: Head
    difference: float | None
    compared: str


@dataclass(frozen=True, slots=True)
class KerasNetwork:
    """The network of a file, with what is known of its pixels and its output."""

    graph: Graph
    tensors: dict[str, Tensor]
    head: Head
    channels_first: bool
    scale: Fraction
    offset: Fraction
    keras_version: str | None
    format: Literal["h5", "keras"]
    whole: bool = True
    """The file describes the network, so that Keras can open it."""
    inside: bool = False
    """Scale and offset are part of the network, which then gets pixels from 0 to 1."""

    def classifier(self) -> GraphClassifier:
        """The network with its weights, in evaluation mode."""
        network = GraphClassifier(self.graph)
        network.load_state_dict({tensor_name(key): tensor for key, tensor in self.tensors.items()})
        return network.eval()


def import_keras(
    file: Path, out: Path, options: ImportOptions = ImportOptions(), *, listener: Listener = Listener()
) -> ImportedModel:
    """A bundle in `out` with the network of a Keras file, of any Keras; nothing in the file is run.

    Where Keras is installed, it is asked for its probabilities on random images and the largest difference is reported.

    Raises:
        DataError: not a file that can be read, or not a network from one image to benign or malignant; names the layer.
        UsageError: something is at `out` already.
        BundleError: the exported network differs from the imported one.
    """
    check_new(out)
    listener.stage("read")
    read = read_network(file, options, listener=listener)
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


def read_network(
    file: Path, options: ImportOptions = ImportOptions(), *, listener: Listener = Listener()
) -> KerasNetwork:
    """The network of a Keras file.

    Raises:
        DataError: not a file that can be read, or not a network from one image to benign or malignant; names the layer.
    """
    with open_keras(file) as opened:
        return _read(opened, options, listener)


def parse_version(text: str | None) -> tuple[int, int]:
    """Major and minor version of a Keras; a file that does not say was written by Keras 1.

    >>> parse_version("2.15.0-tf"), parse_version(None)
    ((2, 15), (1, 0))
    """
    found = re.match(r"(\d{1,3})\.(\d{1,3})", text or "")
    return (int(found[1]), int(found[2])) if found else (1, 0)


def _read(file: KerasFile, options: ImportOptions, listener: Listener) -> KerasNetwork:
    bgr = options.channels == "bgr"
    if file.config is None:
        graph, tensors, own_scale, own_offset = read_by_recipe(file, options.recipe, size=options.size, bgr=bgr)
        graph = graph.model_copy(update={"malignant": options.malignant_index})
        head: Head = "softmax" if graph.output == (2,) else "sigmoid"
        scale, offset = (own_scale, own_offset) if options.scale is None else (options.scale, options.offset)
        return KerasNetwork(graph, tensors, head, False, scale, offset, file.keras_version, file.format, whole=False)
    if options.recipe is not None:
        listener.note(f"The file describes its network itself; the recipe '{options.recipe}' is not needed.")
    model = read_model(file.config, file.path)
    keras = parse_version(file.keras_version)
    tf_keras = bool(file.keras_version and file.keras_version.endswith("-tf"))

    def convert(rescale: tuple[float, float] | None) -> Converted:
        return convert_model(
            model,
            file.path,
            keras=keras,
            tf_keras=tf_keras,
            size=options.size,
            bgr=bgr,
            malignant=options.malignant_index,
            rescale=rescale,
        )

    converted = convert(None)
    offset, scale = options.offset, options.scale or (Fraction(1) if converted.scales_itself else _DEFAULT_SCALE)
    if options.scale is None and converted.scales_itself:
        listener.note("The network rescales its pixels itself, so it gets them from 0 to 255 (--scale changes that).")
    inside = not 0 <= -offset <= 255 * scale  # outside of what the preprocessing spec can say
    if inside:
        converted = convert((float(scale * 255), float(offset)))
    tensors = read_tensors(file, model, converted, keras=keras)
    return KerasNetwork(
        converted.graph,
        tensors,
        converted.head,
        converted.channels_first,
        scale,
        offset,
        file.keras_version,
        file.format,
        inside=inside,
    )


def _preprocessing(read: KerasNetwork, options: ImportOptions) -> Preprocessing:
    """Value * scale + offset = (value / 255 - mean) / std."""
    if read.scale <= 0:
        raise DataError("--scale must be above 0: pixels are multiplied by it.")
    height, width, channels = read.graph.input
    scale, offset = (_DEFAULT_SCALE, Fraction(0)) if read.inside else (read.scale, read.offset)
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
        logits = Deployed(network, preprocessing.mean, preprocessing.std)(torch.from_numpy(images))
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
