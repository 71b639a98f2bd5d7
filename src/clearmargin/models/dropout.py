"""Dropout whose random numbers do not cost more than the convolutions around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 2**16


class Dropout(nn.Module):
    """Sets each value to 0 with probability `p` in training and scales the others; the identity otherwise.

    On a CPU torch draws one number for each value, serially: in the recipe `cnn_50` that took 62 % of a step.
    Here one 64-bit number serves four values, so `p` is kept to within 1 / 131,072 and the scale to match.

    Args:
        p: in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped = round(self.p * _LEVELS)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(torch.int16)[: x.numel()]
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            b, c, h, w = x.shape
            draws = draws.view(b, h, w, c).permute(0, 3, 1, 2)
        else:
            draws = draws.view(x.shape)
        kept = draws >= dropped - _LEVELS // 2
        return x * (kept.to(x.dtype) * (_LEVELS / (_LEVELS - dropped)))

    def extra_repr(self) -> str:
        return f"p={self.p}"
