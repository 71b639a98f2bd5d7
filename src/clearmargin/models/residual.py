"""The house default: a small residual network (He et al. 2015) that takes images of any size.

Half-resolution stem, three stages of two blocks, global average pooling: about 0.7 M parameters, and
bounded by the matrix rate of the processor. docs/benchmarks.md has the measurements behind the choice.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from clearmargin.models.contract import Classifier
from clearmargin.models.dropout import Dropout

_WIDTHS = (32, 64, 128)
_BLOCKS = 2
_DROPOUT = 0.2


class Residual(Classifier):
    """Stem 3x3 stride 2; stages of residual blocks, each halving the size; mean over places; one logit."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(shape[2], _WIDTHS[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(_WIDTHS[0]),
            nn.ReLU(),
        ]
        inputs = _WIDTHS[0]
        for stage, width in enumerate(_WIDTHS):
            for block in range(_BLOCKS):
                layers.append(Block(inputs, width, stride=2 if stage > 0 and block == 0 else 1))
                inputs = width
        self.features = nn.Sequential(*layers)
        self.dropout = Dropout(_DROPOUT)
        self.classify = nn.Linear(inputs, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.dropout(features.mean(dim=(2, 3))))
        return logits[:, 0]


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm beside a short cut; the last norm starts at zero, so the block does."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
