"""Pretrained networks as classifiers: a trunk, its own normalisation of each channel before it, and a new head.

    squeezenet     SqueezeNet v1.1, small and quick
    timm:NAME      any network of timm (the extra `backbones`), foundation encoders of pathology among them

Images may be smaller than what the trunk was made for: the network enlarges them itself, so that what is stored and
what the preprocessing says stay small. Larger ones are for the preprocessing to shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearmargin.errors import UsageError
from clearmargin.models.contract import Classifier
from clearmargin.models.squeezenet import SqueezeNet
from clearmargin.models.timm_trunk import PREFIX, Argument, TimmTrunk, check_timm_name
from clearmargin.models.trunk import Trunk
from clearmargin.settings import is_backbone

HeadName = Literal["linear", "mlp"]
AUTO_PX = 100
"""Longer side that smaller images are enlarged to; docs/transfer.md has the measurements behind it."""
_HIDDEN = 128
_DROPOUT = 0.5


@dataclass(frozen=True, slots=True)
class BackboneOptions:
    """What a backbone is built of besides its name; a bundle keeps them.

    `input_px` is the longer side that images are enlarged to, None for `AUTO_PX`; a trunk of fixed size decides itself.
    `arguments` go to timm's constructor. `pretrained` is timm's pretrained configuration where the weights bring one; a
    bundle is without, since mean and deviation of the channels are among its weights.
    """

    head: HeadName = "linear"
    input_px: int | None = None
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    pretrained: Mapping[str, Any] = field(default_factory=dict)


class Head(nn.Module):
    """Pooled features (B, width) to logits (B,): standardised, then one layer, or a hidden one between.

    `center` and `scale` are of the training features; features of pretrained networks differ a thousandfold in size.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, width: int, kind: HeadName) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        hidden = [nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(_HIDDEN, 1)]
        self.layers = nn.Sequential(*(hidden if kind == "mlp" else [nn.Linear(width, 1)]))

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.layers((pooled - self.center) / self.scale)
        return logits[:, 0]

    def standardise(self, center: Tensor, deviation: Tensor) -> None:
        """Features are centred and scaled by these from now on; one that never varies is only centred."""
        constant = deviation <= 1e-6 * center.abs()
        self.center.copy_(center)
        self.scale.copy_(torch.where(constant, torch.ones_like(deviation), deviation))


class Backbone(Classifier):
    """Trunk and head; features are the trunk's last map, pooled by their mean over places."""

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: Trunk, shape: tuple[int, int, int], options: BackboneOptions) -> None:
        super().__init__()
        height, width, _ = shape
        longer = max(height, width)
        self.trunk, self.options = trunk, options
        self.head = Head(trunk.width, options.head)
        self.register_buffer("mean", torch.tensor(trunk.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(trunk.std).view(1, 3, 1, 1))
        self.input_px = max(trunk.fixed_size) if trunk.fixed_size else options.input_px or max(AUTO_PX, longer)
        self._enlarged = self.input_px / longer
        if self._enlarged < 1:
            raise UsageError(
                f"images of {width}×{height} pixels are larger than the {self.input_px} that the network takes; "
                f"set images.size=[{self.input_px}, {self.input_px}], or images.largest_px={self.input_px}."
            )

    def forward_features(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        height, width = (int(side) for side in x.shape[2:])
        size = self.trunk.fixed_size or (round(height * self._enlarged), round(width * self._enlarged))
        if size != (height, width):
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return self.trunk((x - self.mean) / self.std)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    def pool(self, features: Tensor) -> Tensor:
        """(B, width) means over places."""
        return features.mean(dim=(2, 3))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(self.pool(features))  # type: ignore[no-any-return]

    def stages(self) -> list[list[nn.Parameter]]:
        """The trunk's parameters in groups, from the image upwards; the head is none of them."""
        parameters = dict(self.trunk.named_parameters())
        groups = [[parameters.pop(name) for name in names] for names in self.trunk.stages()]
        return [[*parameters.values(), *groups[0]], *groups[1:]] if parameters else groups


def build_backbone(name: str, options: BackboneOptions) -> Callable[[tuple[int, int, int]], Backbone]:
    """What makes the backbone of this name for images of a shape."""

    def build(shape: tuple[int, int, int]) -> Backbone:
        trunk = (
            TimmTrunk(name.removeprefix(PREFIX), options.arguments, options.pretrained)
            if name.startswith(PREFIX)
            else SqueezeNet()
        )
        return Backbone(trunk, shape, options)

    return build


def check_backbone_name(name: str) -> None:
    """Passes for the name of a backbone that can be built here.

    Raises:
        MissingExtra: it needs timm, which is not installed.
        UsageError: timm has no such model.
    """
    assert is_backbone(name)
    if name.startswith(PREFIX):
        check_timm_name(name.removeprefix(PREFIX))
