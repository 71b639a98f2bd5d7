"""The torch model of a bundle, for work that needs gradients; prediction uses ONNX Runtime instead."""

from __future__ import annotations

import safetensors.torch

from clearmargin.bundle.read import Bundle
from clearmargin.errors import BundleError
from clearmargin.models import build_model
from clearmargin.models.contract import Classifier


def load_torch_model(bundle: Bundle) -> Classifier:
    """The model in evaluation mode on the CPU, with the weights of the bundle.

    Raises:
        BundleError: the weights do not fit the architecture that model.json names.
    """
    model = build_model(bundle.model.architecture.name, bundle.model.preprocessing.shape)
    weights = safetensors.torch.load(bundle.read("weights.safetensors"))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise BundleError(f"{bundle.folder}: the weights do not fit the architecture ({text}).") from None
    return model.eval()
