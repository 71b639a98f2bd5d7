"""Learning rates against formulas, and the optimizers' settings."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import pytest
import torch
from torch import nn

from clearmargin.config import load_recipe
from clearmargin.models import build_model
from clearmargin.settings import TrainSettings
from clearmargin.training.optimizer import build_optimizer, learning_rate


def rates(steps_per_epoch: int = 5, **settings: Any) -> list[float]:
    config = TrainSettings(**({"epochs": 4, "learning_rate": 0.1} | settings))
    return [learning_rate(config, step, steps_per_epoch) for step in range(config.epochs * steps_per_epoch)]


def test_a_constant_rate_is_constant() -> None:
    assert set(rates()) == {0.1}


def test_warming_up_rises_in_equal_steps_to_the_rate_and_stays() -> None:
    values = rates(warmup_epochs=2.0)
    assert values[:10] == pytest.approx([0.1 * (step + 1) / 11 for step in range(10)])
    assert set(values[10:]) == {0.1}


def test_a_cosine_falls_from_the_rate_to_nearly_nothing() -> None:
    values = rates(schedule="cosine")
    assert values[0] == 0.1
    assert values[10] == pytest.approx(0.05)
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < 0.002
    assert values == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(20)])


def test_a_cosine_begins_where_warming_up_ends() -> None:
    values = rates(schedule="cosine", warmup_epochs=1.0)
    assert max(values) == values[5] == 0.1
    assert values[:5] == sorted(values[:5])
    assert values[5:] == sorted(values[5:], reverse=True)
    assert values[12] == pytest.approx(0.05 * (1 + math.cos(math.pi * 7 / 15)))


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    values = rates(schedule="cosine", warmup_epochs=10.0)
    assert values == sorted(values)
    assert max(values) < 0.1


def test_part_of_an_epoch_can_be_the_warm_up() -> None:
    values = rates(warmup_epochs=0.5)
    assert values[2] < 0.1 == values[3]


def test_adagrads_decay_is_that_of_keras() -> None:
    settings = load_recipe("cancernet").train
    for step in (0, 1, 6937, 100_000):
        keras = settings.learning_rate * (1.0 / (1.0 + settings.learning_rate_decay * step))
        assert learning_rate(settings, step, 100) == pytest.approx(keras, rel=1e-12)
    assert (settings.learning_rate, settings.learning_rate_decay) == (1e-2, 1e-2 / 40)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("adagrad", torch.optim.Adagrad)]
)
def test_the_optimizer_is_the_one_of_the_settings(name: str, kind: type) -> None:
    model = nn.Linear(3, 1)
    settings = TrainSettings(optimizer=name, learning_rate=0.02, weight_decay=0.3, epsilon=1e-5)  # type: ignore[arg-type]
    optimizer = build_optimizer(model, settings)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.02, 0.3, 1e-5)
    assert {id(parameter) for parameter in group["params"]} == {id(parameter) for parameter in model.parameters()}


def test_adagrad_starts_where_keras_starts() -> None:
    optimizer = build_optimizer(nn.Linear(2, 1), TrainSettings(optimizer="adagrad"))
    assert len(optimizer.state) == 2
    for state in optimizer.state.values():
        assert torch.equal(state["sum"], torch.full_like(state["sum"], 0.1))


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad"])
def test_fused_step_on_channels_last_weights_is_the_plain_step(name: Literal["adam", "adamw", "adagrad"]) -> None:
    # A large epsilon, because dividing by tiny gradients blows rounding up.
    settings = TrainSettings(optimizer=name, learning_rate=0.01, weight_decay=0.1, epsilon=1e-2)
    model = build_model("cnn_3conv", (32, 32, 3)).to(memory_format=torch.channels_last)
    twin = copy.deepcopy(model)
    ours, plain = build_optimizer(model, settings), build_optimizer(twin, settings)
    plain.param_groups[0] |= {"fused": False, "foreach": False}
    x = torch.randn(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for _ in range(4):
        for network, optimizer in ((model, ours), (twin, plain)):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
