"""What training minimises: binary cross-entropy of the malignant logit, weighted and smoothed on request.

The categorical cross-entropy of a two-output softmax is the same number, see `models/contract.py`.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def class_weights(labels: NDArray[np.int8]) -> tuple[float, float]:
    """Weights (benign, malignant) inverse to how often each class occurs; their mean over the images is 1.

    >>> class_weights(np.array([0, 0, 0, 1], dtype=np.int8))
    (0.6666666666666666, 2.0)
    """
    malignant = int(np.count_nonzero(labels))
    benign = len(labels) - malignant
    return len(labels) / (2 * benign), len(labels) / (2 * malignant)


def cross_entropy(
    logits: Tensor, labels: Tensor, *, weights: tuple[float, float] = (1.0, 1.0), smoothing: float = 0.0
) -> Tensor:
    """Mean loss of the batch, a scalar at or above 0.

    Args:
        logits: (B,) of malignant.
        labels: (B,) float, 0 or 1.
        weights: of benign and malignant images.
        smoothing: labels become smoothing / 2 and 1 - smoothing / 2.
    """
    targets = labels * (1 - smoothing) + smoothing / 2
    benign, malignant = weights
    each = labels * (malignant - benign) + benign if weights != (1.0, 1.0) else None
    return F.binary_cross_entropy_with_logits(logits, targets, weight=each)
