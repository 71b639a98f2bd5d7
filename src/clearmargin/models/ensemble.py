"""Several networks as one: the logit is the mean of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clearmargin.models.contract import Classifier


class Ensemble(Classifier):
    """Networks of one architecture. Features are theirs side by side, (B, members * channels, h, w)."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward_features(self, x: Tensor) -> Tensor:
        return torch.cat([member.forward_features(x) for member in self._classifiers()], dim=1)

    def forward_head(self, features: Tensor) -> Tensor:
        parts = features.chunk(len(self.members), dim=1)
        logits = [member.forward_head(part) for member, part in zip(self._classifiers(), parts, strict=True)]
        return torch.stack(logits).mean(dim=0)

    def _classifiers(self) -> list[Classifier]:
        return [member for member in self.members if isinstance(member, Classifier)]
