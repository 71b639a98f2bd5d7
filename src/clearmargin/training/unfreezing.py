"""Which stages of a pretrained network are trained in an epoch, and how fast each of them.

The head is always trained. Everything is a function of the epoch, so that a resumed run freezes what it would have.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from clearmargin.models.backbones import Backbone
from clearmargin.settings import TransferSettings


def frozen_stages(stages: int, settings: TransferSettings, epoch: int) -> int:
    """How many of so many stages, from the image upwards, are frozen in this epoch (counted from 0).

    >>> settings = TransferSettings(mode="finetune", frozen_epochs=2, unfreeze_every=3)
    >>> [frozen_stages(3, settings, epoch) for epoch in (0, 1, 2, 4, 5, 8, 99)]
    [3, 3, 2, 2, 1, 0, 0]
    """
    if settings.mode != "finetune":
        return 0
    if epoch < settings.frozen_epochs:
        return stages
    if settings.unfreeze_every == 0:
        return 0
    return max(0, stages - 1 - (epoch - settings.frozen_epochs) // settings.unfreeze_every)


def parameter_groups(model: nn.Module, settings: TransferSettings) -> list[dict[str, Any]] | None:
    """The head and each stage as groups of the optimizer, `share` of the learning rate; None where all are alike."""
    if settings.mode != "finetune" or not isinstance(model, Backbone):
        return None
    groups: list[dict[str, Any]] = [{"params": list(model.head.parameters()), "share": 1.0}]
    for depth, stage in enumerate(reversed(model.stages()), start=1):
        groups.append({"params": stage, "share": settings.layer_decay**depth})
    return groups


def freeze(model: nn.Module, settings: TransferSettings, epoch: int) -> None:
    """Readies a model in training mode for this epoch: frozen parts get no gradient, their norms and dropout rest."""
    if settings.mode != "finetune" or not isinstance(model, Backbone):
        return
    stages = model.stages()
    frozen = frozen_stages(len(stages), settings, epoch)
    for number, stage in enumerate(stages):
        for parameter in stage:
            parameter.requires_grad_(number >= frozen)
    for part in model.trunk.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()
