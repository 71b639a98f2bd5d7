"""The model zoo: every architecture by name, behind one contract.

A new model is a class and one line in MODELS. What each one is for:

    residual       the house default, a small residual network for patches
    larger_model   two convolutions and three dense layers, as in the recipe of that name
    cbis_ddsm      two convolutions for 64 x 64 mammograms
    cnn_50         convolution + dropout blocks for 50 x 50 histology
    cnn_3conv      three convolutions
    cancernet      separable convolutions for 48 x 48 histology
    squeezenet     a pretrained trunk and a new head, see backbones.py; so is timm:NAME for any name of timm
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from clearmargin.errors import UnknownName, UsageError
from clearmargin.models.backbones import BackboneOptions, build_backbone, check_backbone_name
from clearmargin.models.contract import Classifier
from clearmargin.models.describe import Description, Layer, describe_model
from clearmargin.models.recipes import CancerNet, CbisDdsm, Cnn3Conv, Cnn50, LargerModel
from clearmargin.models.residual import Residual
from clearmargin.settings import is_backbone

__all__ = [
    "MODELS",
    "Description",
    "Layer",
    "build_model",
    "check_model_name",
    "describe_model",
    "summaries",
]

MODELS: dict[str, Callable[[tuple[int, int, int]], Classifier]] = {
    "residual": Residual,
    "larger_model": LargerModel,
    "cbis_ddsm": CbisDdsm,
    "cnn_50": Cnn50,
    "cnn_3conv": Cnn3Conv,
    "cancernet": CancerNet,
    "squeezenet": build_backbone("squeezenet", BackboneOptions()),
}


def build_model(
    name: str, shape: tuple[int, int, int], *, seed: int = 0, options: BackboneOptions = BackboneOptions()
) -> Classifier:
    """A new model with random weights, the same for the same seed.

    Args:
        name: a key of MODELS, or timm:NAME.
        shape: (H, W, C) of the images.
        seed: of the initial weights.
        options: of a backbone.

    Raises:
        UnknownName: no such model.
        MissingExtra: the model needs timm, which is not installed.
        UsageError: the images are too small for its layers.
    """
    check_model_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = (build_backbone(name, options) if is_backbone(name) else MODELS[name])(shape)
            model.eval()
            with torch.no_grad():
                model(torch.zeros(1, shape[2], shape[0], shape[1]))
        except RuntimeError:  # torch's own word for a feature map that shrank to nothing
            size = f"{shape[1]}×{shape[0]}"
            raise UsageError(
                f"images of {size} pixels are too small for the model '{name}'; set images.size."
            ) from None
    return model


def check_model_name(name: str) -> None:
    """Passes for a key of MODELS, and for timm:NAME where timm has it.

    Raises:
        UnknownName: otherwise; lists the names and the closest.
        MissingExtra: the model needs timm, which is not installed.
        UsageError: timm has no such model.
    """
    if is_backbone(name):
        check_backbone_name(name)
    elif name not in MODELS:
        raise UnknownName("model", name, MODELS)


def summaries() -> dict[str, str]:
    """What each of MODELS is for, in the words above."""
    said = dict(re.findall(r"^ {4}(\S+) {2,}(\S.*)$", __doc__ or "", flags=re.MULTILINE))
    return {name: said.get(name, "") for name in MODELS}
