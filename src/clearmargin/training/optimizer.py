"""How the weights move: the optimizer that the settings name, and its learning rate at each step."""

from __future__ import annotations

import math
from typing import Any

import torch

from clearmargin.settings import TrainSettings


def build_optimizer(
    model: torch.nn.Module, settings: TrainSettings, *, groups: list[dict[str, Any]] | None = None
) -> torch.optim.Optimizer:
    """The optimizer that the settings name, over all parameters, with its fused step (one pass over memory).

    `groups` divides the parameters where parts of the network are to be treated apart.
    """
    parameters, rate = groups or model.parameters(), settings.learning_rate
    if settings.optimizer == "adagrad":
        # Keras starts the accumulator at 0.1. The decay is part of `learning_rate`.
        return torch.optim.Adagrad(
            parameters,
            rate,
            weight_decay=settings.weight_decay,
            initial_accumulator_value=0.1,
            eps=settings.epsilon,
            fused=True,
        )
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, rate, eps=settings.epsilon, weight_decay=settings.weight_decay, fused=True)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Gives the optimizer a saved state, each moment laid out in memory as its parameter.

    The fused step walks over memory, not over indices: a moment in another layout than its parameter
    (channels last) would silently be that of other weights.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, torch.Tensor) and moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(moment)


def learning_rate(settings: TrainSettings, step: int, steps_per_epoch: int) -> float:
    """The rate of one step, counted from 0 over the whole run.

    >>> settings = TrainSettings(epochs=2, learning_rate=1.0, schedule="cosine")
    >>> [round(learning_rate(settings, step, 2), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    rate = settings.learning_rate / (1 + settings.learning_rate_decay * step)
    if settings.schedule == "constant":
        return rate
    total = settings.epochs * steps_per_epoch
    return rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
