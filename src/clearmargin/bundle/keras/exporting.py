"""`export_keras`: a bundle's network as a Keras file, which is read back and compared before it gets its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clearmargin.bundle.keras.network import read_network
from clearmargin.bundle.keras.real import ask_keras
from clearmargin.bundle.keras.trace import Traced, trace_model
from clearmargin.bundle.keras.write import write_keras
from clearmargin.bundle.read import Bundle
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.errors import BundleError, UsageError
from clearmargin.files import write_whole
from clearmargin.graph import INPUT, Graph, Rescale
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier, Deployed

MAX_DIFFERENCE = 1e-4
SUFFIXES = (".h5", ".hdf5", ".keras")
_RANDOM_IMAGES = 8


@dataclass(frozen=True, slots=True)
class ExportedKeras:
    """What was written.

    `difference` is the largest of a logit from torch, `compared` what the real Keras said, `output` what it gives.
    """

    path: Path
    difference: float
    compared: str
    output: str


def export_keras(bundle: Bundle, path: Path, *, images: NDArray[np.uint8] | None = None) -> ExportedKeras:
    """Writes the network as `.h5` or `.keras`, by the name of the file; one that is there is replaced.

    The model takes float RGB pixels divided by 255, (B, H, W, C), and gives what the recipe's author's does: a softmax
    over (benign, malignant), or a sigmoid of malignant. Calibration, threshold and abstention stay in the bundle.

    Args:
        bundle: verified.
        path: of the file.
        images: (N, H, W, C) packed images to compare on besides random ones.

    Raises:
        UsageError: another suffix, or a network that Keras has no layers for.
        BundleError: what was written computes something else than the bundle; nothing is left.
    """
    return write_checked(path, load_torch_model(bundle), bundle.model.preprocessing, images=images)


def write_checked(
    path: Path, model: Classifier, spec: Preprocessing, *, images: NDArray[np.uint8] | None = None
) -> ExportedKeras:
    """As `export_keras`, of a model in evaluation mode that sees what the spec gives."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: give a name that ends in .keras or .h5.")
    traced = _with_scaling(trace_model(model, spec.shape), spec)
    random = np.random.default_rng(0).integers(0, 256, (_RANDOM_IMAGES, *spec.shape), dtype=np.uint8)
    checked = random if images is None else np.concatenate([images, random])
    with torch.inference_mode():
        expected = Deployed(model, spec.mean, spec.std).eval()(torch.from_numpy(checked))[0].numpy()
    said: list[tuple[float, str]] = []

    def write(partial: Path) -> None:
        write_keras(partial, traced.graph, traced.tensors)
        said.append(_check(partial, checked, expected))

    write_whole(path, write)
    return ExportedKeras(path, *said[0], _output(traced.graph))


def _output(graph: Graph) -> str:
    if graph.output == (1,):
        return "sigmoid of malignant (B, 1)"
    return f"{'a sigmoid each of' if graph.apart else 'softmax over'} (benign, malignant), (B, 2)"


def _check(path: Path, images: NDArray[np.uint8], expected: NDArray[np.float32]) -> tuple[float, str]:
    """The largest difference of a logit from torch, and what the real Keras says.

    Raises:
        BundleError: the difference is 1e-4 or more.
    """
    pixels = torch.from_numpy(images).float().div(255)
    with torch.inference_mode():
        actual = read_network(path).classifier()(pixels.permute(0, 3, 1, 2)).numpy()
    difference = float((np.abs(actual - expected) / np.maximum(1, np.abs(expected))).max())
    if not difference < MAX_DIFFERENCE:
        raise BundleError(
            f"the Keras file differs from torch by {difference:.2e} in a logit (limit {MAX_DIFFERENCE:g}); nothing was "
            "written. Please report the model and the versions."
        )
    answer = ask_keras(path, pixels.numpy())
    if not answer.installed:
        return difference, "Keras is not installed, so it was not asked (pip install keras)."
    if answer.outputs is None:
        return difference, f"The real Keras was asked and gave nothing: {answer.reason}."
    off = float(
        np.abs(answer.outputs.reshape(len(images), -1)[:, -1] - 1 / (1 + np.exp(-expected.astype(np.float64)))).max()
    )
    if not off < MAX_DIFFERENCE:
        raise BundleError(
            f"the real Keras differs from torch by {off:.2e} in a probability (limit {MAX_DIFFERENCE:g}); nothing was "
            "written. Please report the model and the versions."
        )
    return difference, f"Opened by the real Keras, probabilities differ by at most {off:.1e}."


def _with_scaling(traced: Traced, spec: Preprocessing) -> Traced:
    """The network for pixels divided by 255, where it wants them normalised further."""
    if (spec.mean, spec.std) == (0.0, 1.0):
        return traced
    graph, name = traced.graph, "normalise"
    while name in graph.shapes:
        name += "_"
    first = Rescale(name=name, inputs=(INPUT,), scale=(1 / spec.std,), offset=(-spec.mean / spec.std,))
    nodes = [
        node.model_copy(update={"inputs": tuple(name if each == INPUT else each for each in node.inputs)})
        for node in graph.nodes
    ]
    scaled = Graph(input=graph.input, nodes=(first, *nodes), malignant=graph.malignant, apart=graph.apart)
    return Traced(scaled, traced.tensors)
