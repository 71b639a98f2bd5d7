from __future__ import annotations

import pytest
import torch

from clearmargin.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.2, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(64, 257), (8, 15, 21, 33)])
def test_share_and_scale_are_those_of_torch(p: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape).contiguous(memory_format=torch.channels_last if len(shape) == 4 else torch.contiguous_format)
    y = Dropout(p).train()(x)
    n = x.numel()
    assert abs((y == 0).float().mean().item() - p) < 4 * (p * (1 - p) / n) ** 0.5
    torch.testing.assert_close(y[y != 0].unique(), torch.tensor([1 / (1 - p)]), rtol=1e-4, atol=0)
    assert y.stride() == x.stride()


def test_neighbours_and_channels_are_dropped_independently() -> None:
    torch.manual_seed(0)
    x = torch.ones(64, 16, 32, 32).contiguous(memory_format=torch.channels_last)
    kept = (Dropout(0.5).train()(x) != 0).float() - 0.5
    for other in (kept.roll(1, 0), kept.roll(1, 1), kept.roll(2, 1), kept.roll(1, 2), kept.roll(1, 3)):
        assert abs((kept * other).mean().item()) < 4 * 0.25 / x.numel() ** 0.5


def test_gradient_flows_where_values_were_kept() -> None:
    x = torch.randn(32, 40, requires_grad=True)
    y = Dropout(0.25).train()(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad != 0, y != 0)


def test_same_seed_gives_the_same_draw_and_evaluation_changes_nothing() -> None:
    x, layer = torch.randn(16, 10), Dropout(0.5)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(layer.train()(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert layer.eval()(x) is x


def test_odd_sizes_and_half_precision_work() -> None:
    for size in (1, 2, 3, 5, 7):
        y = Dropout(0.5).train()(torch.ones(size, dtype=torch.bfloat16))
        assert y.dtype == torch.bfloat16
        assert set(y.tolist()) <= {0.0, 2.0}
