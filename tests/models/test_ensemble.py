"""Several networks as one are the mean of their logits, under the contract of every model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clearmargin.models import MODELS, build_model
from clearmargin.models.contract import Classifier, count_parameters
from clearmargin.models.ensemble import Ensemble

SHAPE = (32, 40, 3)


def images(number: int) -> Tensor:
    return torch.rand(number, SHAPE[2], SHAPE[0], SHAPE[1], generator=torch.Generator().manual_seed(0))


def members(name: str, number: int) -> list[Classifier]:
    """Networks that differ, with running statistics as after training."""
    models = [build_model(name, SHAPE, seed=seed) for seed in range(number)]
    generator = torch.Generator().manual_seed(1)
    for model in models:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_mean is not None:
                    layer.running_mean.uniform_(-0.2, 0.2, generator=generator)
        model.eval()
    return models


@pytest.mark.parametrize("name", MODELS)
def test_the_logit_is_the_mean_of_the_members_logits(name: str) -> None:
    models, x = members(name, 3), images(4)
    with torch.no_grad():
        logits = Ensemble(models).eval()(x)
        each = torch.stack([model(x) for model in models])
    assert logits.shape == (4,)
    assert (each.std(dim=0) > 1e-4).all()
    torch.testing.assert_close(logits, each.mean(dim=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_forward_is_head_of_features_which_are_the_members_side_by_side(name: str) -> None:
    models, x = members(name, 3), images(2)
    whole = Ensemble(models).eval()
    with torch.no_grad():
        features = whole.forward_features(x)
        assert torch.equal(whole(x), whole.forward_head(features))
        each = [model.forward_features(x) for model in models]
    assert features.ndim == 4
    assert torch.equal(features, torch.cat(each, dim=1))


def test_one_member_is_that_network() -> None:
    (model,), x = members("residual", 1), images(3)
    with torch.no_grad():
        assert torch.equal(Ensemble([model]).eval()(x), model(x))


def test_the_order_of_the_members_does_not_matter() -> None:
    models, x = members("cbis_ddsm", 4), images(3)
    with torch.no_grad():
        one, other = Ensemble(models).eval()(x), Ensemble(models[::-1]).eval()(x)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_it_holds_every_weight_of_its_members_and_takes_them_back() -> None:
    models, x = members("residual", 2), images(3)
    whole = Ensemble(models).eval()
    assert count_parameters(whole) == sum(count_parameters(model) for model in models)
    empty = Ensemble([build_model("residual", SHAPE, seed=9) for _ in range(2)]).eval()
    empty.load_state_dict(whole.state_dict())
    with torch.no_grad():
        assert torch.equal(empty(x), whole(x))


def test_evaluation_mode_and_gradients_reach_every_member() -> None:
    models = members("cnn_50", 2)
    whole = Ensemble(models)
    whole.train()
    assert all(model.training for model in models)
    whole.eval()
    assert not any(layer.training for layer in whole.modules())
    whole(images(2)).sum().backward()
    for model in models:
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
