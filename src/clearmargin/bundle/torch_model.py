"""The torch model of a bundle, for work that needs gradients; prediction uses ONNX Runtime instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from clearmargin.bundle.read import FIELD, Bundle
from clearmargin.bundle.weights_check import check_fit, describe_weights, load_weights
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
    content, name = bundle.read(file := FIELD[1] if field else "weights.safetensors"), str(bundle.folder / file)
    if architecture.graph is not None:
        return _load_graph(architecture.graph, content, name)
    if field:
        size = (architecture.field or 0) * (architecture.thumbnail or 0)
        shape = (size, size, shape[2])
    described = describe_weights(content, name)
    try:
        options = BackboneOptions(architecture.head, architecture.input_px, architecture.arguments)
        build = partial(build_model, architecture.name, shape, options=options)
        check_fit(described, _expected(build, architecture.ensemble), name)  # before anything of that size is made
        networks = [build() for _ in range(architecture.ensemble)]
    except MissingExtra as error:
        raise BundleError(f"{bundle.folder}: {error}") from None
    except UsageError as error:
        raise BundleError(
            f"{bundle.folder}: {error} Use the version of clearmargin that wrote the bundle, or a newer one."
        ) from None
    model = networks[0] if len(networks) == 1 else Ensemble(networks)
    with _fitting(name):
        model.load_state_dict(load_weights(content, name))
    return model.eval()


def _expected(build: Callable[[], Classifier], networks: int) -> dict[str, Tensor]:
    """The tensors that so many networks have by name, without their values."""
    try:
        with torch.device("meta"):
            one = build().state_dict()
    except (UsageError, NotImplementedError, RuntimeError, TypeError, ValueError):  # a few of timm look at values
        one = build().state_dict()
    if networks == 1:
        return dict(one)
    return {f"members.{number}.{name}": tensor for number in range(networks) for name, tensor in one.items()}


def _load_graph(graph: Graph, content: bytes, name: str) -> Classifier:
    with torch.device("meta"):  # nothing is allocated for what model.json says; the file's tensors take the places
        model = GraphClassifier(graph)
    with _fitting(name):
        model.load_state_dict(load_weights(content, name), assign=True)
    return model.eval()


@contextmanager
def _fitting(name: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())[:300]
        raise BundleError(f"{name}: the weights do not fit the architecture ({text}). Make the bundle anew.") from None
