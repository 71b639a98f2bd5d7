"""SqueezeNet v1.1 (Iandola et al. 2016) up to its last feature map: 0.7 M parameters, 512 channels.

Layers and names are those of the edition for Keras whose ImageNet weights are public: no padding in the first
convolution and in the pools. That edition sees BGR minus the mean of ImageNet on a scale of 0 to 255; here the
first kernel is turned round to RGB when the weights are read, so that only the mean remains.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearmargin.models.trunk import Trunk

_BGR_MEAN = (103.939, 116.779, 123.68)
_FIRE = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
"""Squeezed and (either half of the) expanded channels of each fire module."""
_POOLED_BEFORE = (2, 4, 6)


class SqueezeNet(Trunk):
    """conv1 3x3 stride 2, pool, fire 2 and 3, pool, fire 4 and 5, pool, fire 6 to 9; (B, 512, h, w)."""

    width = 512

    def __init__(self) -> None:
        means = (_BGR_MEAN[2] / 255, _BGR_MEAN[1] / 255, _BGR_MEAN[0] / 255)
        super().__init__(mean=means, std=(1 / 255, 1 / 255, 1 / 255))
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        channels = 64
        for number, (squeezed, expanded) in _FIRE.items():
            self.add_module(f"fire{number}", _Fire(channels, squeezed, expanded))
            channels = 2 * expanded
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # every convolution here has one

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        for number in _FIRE:
            if number in _POOLED_BEFORE:
                x = F.max_pool2d(x, 3, stride=2)
            x = self.get_submodule(f"fire{number}")(x)
        return x

    def stages(self) -> list[list[str]]:
        groups = (("conv1",), ("fire2", "fire3"), ("fire4", "fire5"), ("fire6", "fire7"), ("fire8", "fire9"))
        return [[name for name, _ in self.named_parameters() if name.partition(".")[0] in group] for group in groups]


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze1x1(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))
