"""Every method is what its paper says, on every model, and equals captum where captum has it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradCam, LayerGradientXActivation, Occlusion
from tests.bundle.small_bundle import lived_model
from torch import Tensor, nn

from clearmargin.errors import UnknownName
from clearmargin.explanation.methods import (
    METHODS,
    coarse_map,
    find_method,
    grad_cam,
    grad_cam_pp,
    hires_cam,
    integrate,
    layer_cam,
    occlusion_window,
)
from clearmargin.models import MODELS, build_model
from clearmargin.models.backbones import BackboneOptions
from clearmargin.models.contract import Classifier
from clearmargin.models.ensemble import Ensemble
from clearmargin.settings import is_backbone

SHAPE = (32, 40, 3)
EMPTY = torch.full((1, 3, 1, 1), 0.9)
CAMS = ("grad_cam", "grad_cam_pp", "hires_cam", "layer_cam")
NAMES = [*MODELS, "timm:test_resnet", "timm:test_vit"]
every_method = pytest.mark.parametrize("method", METHODS)


def images(number: int = 2, *, seed: int = 0) -> Tensor:
    return torch.rand(number, SHAPE[2], SHAPE[0], SHAPE[1], generator=torch.Generator().manual_seed(seed))


def build(name: str) -> Classifier:
    if is_backbone(name):
        return build_model(name, SHAPE, options=BackboneOptions(input_px=64)).eval().requires_grad_(False)
    return lived_model(name, SHAPE).requires_grad_(False)


def explain(method: str, model: Classifier, x: Tensor) -> Tensor:
    return METHODS[method].compute(model, x, EMPTY)


class Either(Classifier):
    """A model, or with the other sign one that calls malignant what it calls benign: of one the map is not zero."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model, self.features, self.sign = model, model.get_submodule("features"), 1

    def forward_features(self, x: Tensor) -> Tensor:
        return self.model.forward_features(x)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.sign * self.model.forward_head(features)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def by_hand(model: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features and the gradient of the logit there, with the whole network in one graph."""
    features = model.forward_features(x.clone().requires_grad_())
    logits = model.forward_head(features)
    return features.detach(), torch.autograd.grad(logits.sum(), features)[0]


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", NAMES)
@every_method
def test_every_method_maps_every_model(method: str, name: str) -> None:
    model, x = build(name), images()
    maps = explain(method, model, x)
    assert maps.shape == (2, *SHAPE[:2])
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert maps.isfinite().all()
    assert METHODS[method].signed or (maps >= 0).all()


@every_method
def test_an_image_among_others_is_explained_as_by_itself(method: str) -> None:
    model, x = build("residual"), images(3)
    together = explain(method, model, x)
    for row in range(3):
        torch.testing.assert_close(explain(method, model, x[row : row + 1])[0], together[row], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["cnn_3conv", "cancernet", "residual"])
def test_grad_cam_is_captums(name: str) -> None:
    model, x = Either(build(name)), images()
    for sign in (1, -1):
        model.sign = sign
        expected = LayerGradCam(model, model.features).attribute(x.requires_grad_(), relu_attributions=True).detach()
        assert_same(coarse_map(grad_cam, model, x.detach()), expected[:, 0])


@pytest.mark.parametrize("name", ["cnn_3conv", "residual"])
def test_hires_cam_is_captums_gradient_times_activation(name: str) -> None:
    model, x = Either(build(name)), images()
    for sign in (1, -1):
        model.sign = sign
        product = LayerGradientXActivation(model, model.features).attribute(x.requires_grad_()).detach()
        assert_same(coarse_map(hires_cam, model, x.detach()), F.relu(product.sum(dim=1)))


def test_integrated_gradients_are_captums() -> None:
    model, x = build("cnn_3conv"), images()
    base = EMPTY.expand_as(x)
    expected = IntegratedGradients(model).attribute(x, base, n_steps=32, method="gausslegendre").sum(dim=1)
    maps = torch.stack([integrate(model, image, base[0], 32) for image in x])
    assert_same(maps, expected.float())


def test_occlusion_is_captums() -> None:
    model, x = build("cnn_3conv"), images()
    side, step = occlusion_window(*SHAPE[:2])
    expected = Occlusion(model).attribute(
        x, sliding_window_shapes=(3, side, side), strides=(3, step, step), baselines=EMPTY.expand(1, 3, *SHAPE[:2])
    )[:, 0]
    torch.testing.assert_close(explain("occlusion", model, x), expected, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_are_complete() -> None:
    for name in ("residual", "cbis_ddsm"):
        model, x = build(name), images(3)
        with torch.no_grad():
            gained = model(x) - model(EMPTY.expand_as(x))
        maps = explain("integrated_gradients", model, x)
        assert ((maps.sum(dim=(1, 2)) - gained).abs() <= 0.02 * gained.abs().clamp(min=1)).all()


def test_layer_cam_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    gradients = torch.tensor([[[[0.5, -1.0]], [[-2.0, 0.25]]]])
    assert layer_cam(features, gradients).tolist() == [[[0.5, 1.0]]]
    assert hires_cam(features, gradients).tolist() == [[[0.0, 0.0]]]  # 0.5 - 6 and -2 + 1 are below zero


def test_grad_cam_pp_is_the_papers_formula() -> None:
    model, x = build("cnn_3conv"), images()
    features, gradients = by_hand(model, x)
    expected = torch.zeros(len(x), *features.shape[2:])
    for image in range(len(x)):
        for channel in range(features.shape[1]):
            a, g = features[image, channel].double(), gradients[image, channel].double()
            denominator = 2 * g**2 + a.sum() * g**3
            alpha = torch.where(denominator != 0, g**2 / torch.where(denominator != 0, denominator, 1), 0)
            expected[image] += ((alpha * F.relu(g)).sum() * a).float()
    expected = F.relu(expected)
    torch.testing.assert_close(grad_cam_pp(features, gradients), expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


def test_grad_cam_pp_bears_features_below_zero() -> None:
    features = torch.tensor([[[[-3.0, 1.0]]]])
    gradients = torch.tensor([[[[1.0, 1.0]]]])  # the paper's denominator, 2 + 1 * (-2), is zero
    assert grad_cam_pp(features, gradients).tolist() == [[[0.0, 1.0]]]


def test_hires_cam_is_grad_cam_where_the_head_is_a_mean_and_a_line() -> None:
    x = images()
    linear, dense = Either(build("residual")), Either(build("cnn_3conv"))
    for sign in (1, -1):
        linear.sign = dense.sign = sign
        grad = explain("grad_cam", linear, x)
        largest = max(1e-6, float(grad.max()))
        torch.testing.assert_close(explain("hires_cam", linear, x), grad, rtol=1e-4, atol=1e-5 * largest)
        hires, grad = explain("hires_cam", dense, x), explain("grad_cam", dense, x)
        assert (hires - grad).abs().max() > 0.1 * hires.abs().max() > 0


def test_with_such_a_head_the_map_sums_to_the_logit_without_its_bias() -> None:
    model, x = build("residual"), images()
    features, gradients = by_hand(model, x)
    with torch.no_grad():
        logits = model(x)
    bias = float(model.get_submodule("classify").bias)
    torch.testing.assert_close((features * gradients).sum(dim=(1, 2, 3)), logits - bias, rtol=1e-3, atol=1e-4)


def members() -> list[Classifier]:
    models = [build_model("cnn_3conv", SHAPE, seed=seed).eval() for seed in range(3)]
    assert not torch.equal(*[next(model.parameters()) for model in models[:2]])
    return models


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion", "layer_cam"])
def test_the_map_of_an_ensemble_is_the_mean_of_its_members(method: str) -> None:
    models, x = members(), images()
    if method == "integrated_gradients":
        base = EMPTY.expand_as(x)[0]
        mean = torch.stack([integrate(model, x[0], base, 16) for model in models]).mean(dim=0)
        torch.testing.assert_close(integrate(Ensemble(models), x[0], base, 16), mean, rtol=1e-3, atol=1e-7)
        return
    mean = torch.stack([explain(method, model, x) for model in models]).mean(dim=0)
    torch.testing.assert_close(explain(method, Ensemble(models), x), mean, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
def test_what_speaks_against_malignant_in_one_member_lowers_what_speaks_for_it_in_another(method: str) -> None:
    models, x = members(), images()
    signed = []
    for model in models:
        features, gradients = by_hand(model, x)
        weights = gradients.mean(dim=(2, 3), keepdim=True) if method == "grad_cam" else gradients
        signed.append((weights * features).sum(dim=1))
    expected = F.relu(torch.stack(signed).mean(dim=0))
    formula = grad_cam if method == "grad_cam" else hires_cam
    torch.testing.assert_close(coarse_map(formula, Ensemble(models), x), expected, rtol=1e-3, atol=1e-7)


def test_a_head_may_work_in_place() -> None:
    class InPlace(Classifier):
        def forward_features(self, x: Tensor) -> Tensor:
            return x[:, :, ::2, ::2] - 0.5

        def forward_head(self, features: Tensor) -> Tensor:
            return nn.functional.relu(features, inplace=True).mean(dim=(1, 2, 3))

    assert all(explain(method, InPlace(), images()).max() > 0 for method in CAMS)


def test_an_unknown_method_is_named_with_the_closest() -> None:
    with pytest.raises(UnknownName, match="no method 'gradcam'; did you mean 'grad_cam'"):
        find_method("gradcam")
