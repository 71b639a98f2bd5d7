"""The torch model of a bundle, for work that needs gradients; prediction uses ONNX Runtime instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import safetensors.torch
import torch
from safetensors import SafetensorError

from clearmargin.bundle.read import FIELD, Bundle
from clearmargin.errors import BundleError, MissingExtra, UsageError
from clearmargin.graph import Graph
from clearmargin.models import build_model
from clearmargin.models.backbones import BackboneOptions
from clearmargin.models.contract import Classifier
from clearmargin.models.ensemble import Ensemble
from clearmargin.models.graph import GraphClassifier


def load_torch_model(bundle: Bundle, *, field: bool = False) -> Classifier:
    """The model in evaluation mode on the CPU, with the weights of the bundle.

    Args:
        bundle: verified.
        field: the networks that see the field around a patch, instead of those that see the image.

    Raises:
        BundleError: model.json names an architecture that this version has not, or the weights do not fit it.
    """
    architecture, shape = bundle.model.architecture, bundle.model.preprocessing.shape
    if architecture.graph is not None:
        return _load_graph(bundle, architecture.graph)
    if field:
        size = (architecture.field or 0) * (architecture.thumbnail or 0)
        shape = (size, size, shape[2])
    try:
        options = BackboneOptions(architecture.head, architecture.input_px, architecture.arguments)
        networks = [build_model(architecture.name, shape, options=options) for _ in range(architecture.ensemble)]
    except MissingExtra as error:
        raise BundleError(f"{bundle.folder}: {error}") from None
    except UsageError as error:
        raise BundleError(
            f"{bundle.folder}: {error} Use the version of clearmargin that wrote the bundle, or a newer one."
        ) from None
    model = networks[0] if len(networks) == 1 else Ensemble(networks)
    with _fitting(bundle):
        model.load_state_dict(safetensors.torch.load(bundle.read(FIELD[1] if field else "weights.safetensors")))
    return model.eval()


def _load_graph(bundle: Bundle, graph: Graph) -> Classifier:
    with torch.device("meta"):  # nothing is allocated for what model.json says; the file's tensors take the places
        model = GraphClassifier(graph)
    with _fitting(bundle):
        tensors = safetensors.torch.load(bundle.read("weights.safetensors"))
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return model.eval()


@contextmanager
def _fitting(bundle: Bundle) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{bundle.folder}: the weights do not fit the architecture ({text}). Make the bundle anew."
        ) from None
