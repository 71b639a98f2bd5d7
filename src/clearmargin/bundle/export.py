"""Export to ONNX with a gate: what ONNX Runtime computes must be what torch computes, or there is no export."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from clearmargin.bundle.onnx_check import check_onnx
from clearmargin.errors import BundleError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier, Deployed
from clearmargin.models.ensemble import Ensemble

if TYPE_CHECKING:
    import onnx_ir

MAX_DIFFERENCE = 1e-4
INPUT, LOGITS, FEATURES = "images", "logits", "features"


def export_onnx(model: Classifier, preprocessing: Preprocessing, images: NDArray[np.uint8]) -> bytes:
    """The network from packed images (B, H, W, C) uint8 to logits (B,) and features (B, D) as an ONNX file.

    What it computes is checked against torch.

    Args:
        model: on the CPU, in evaluation mode.
        preprocessing: its mean and std become part of the network.
        images: (N, H, W, C) real images to check on, N at least 1; random ones are added.

    Raises:
        BundleError: logits or features of ONNX Runtime and torch differ by 1e-4 or more, see `parity`;
            or the file is one that a bundle may not hold.
    """
    deployed = Deployed(model, preprocessing.mean, preprocessing.std).eval()
    content = _export(deployed, preprocessing)
    check_onnx(content, "the ONNX export")
    noise = np.random.default_rng(0).integers(0, 256, (4, *preprocessing.shape), dtype=np.uint8)
    difference = parity(deployed, content, np.concatenate([images, noise]))
    if not difference < MAX_DIFFERENCE:
        raise BundleError(
            f"the ONNX export differs from torch by {difference:.2e} in a logit or a feature (limit "
            f"{MAX_DIFFERENCE:g}); nothing was written. Please report the model and the versions."
        )
    return content


def parity(deployed: Deployed, content: bytes, images: NDArray[np.uint8]) -> float:
    """Largest difference of a logit or a feature between torch and ONNX Runtime on these images.

    Relative to the logit, or to the largest feature of the image, where that is above 1: float32 has seven digits,
    however large the number.
    """
    from clearmargin.bundle.runtime import open_network, run_network  # noqa: PLC0415  (not needed to import this part)

    session = open_network(check_onnx(content, "the ONNX export"))
    with torch.inference_mode():
        expected = [output.numpy() for output in deployed(torch.from_numpy(images))]
    actual = run_network(session, images, "the ONNX export")  # files of early versions give logits only
    apart = []
    for found, wanted in zip(actual, expected[: len(actual)], strict=True):
        largest = np.abs(wanted).reshape(len(images), -1).max(axis=1).reshape([-1] + [1] * (wanted.ndim - 1))
        apart.append((np.abs(found - wanted) / np.maximum(1, largest)).max())
    return float(max(apart))


def _export(deployed: Deployed, preprocessing: Preprocessing) -> bytes:
    example = torch.zeros(2, *preprocessing.shape, dtype=torch.uint8)
    deployed.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # training may lay out weights as NHWC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[LOGITS, FEATURES],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise BundleError("the ONNX export gave nothing; please report the model and the versions.")
    if isinstance(deployed.model, Ensemble):
        _compute_once(program.model)
    content: bytes = program.model_proto.SerializeToString()
    return content


def _compute_once(network: onnx_ir.Model) -> None:
    """What several networks have in common, such as a frozen trunk, is there once and computed once."""
    from onnx_ir.passes.common import (  # noqa: PLC0415
        CommonSubexpressionEliminationPass,
        DeduplicateHashedInitializersPass,
    )

    DeduplicateHashedInitializersPass()(network)
    CommonSubexpressionEliminationPass()(network)
