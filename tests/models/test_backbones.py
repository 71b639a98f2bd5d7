"""Pretrained networks keep the contract of models/contract.py, see what they were made to see, and export."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tests.models import keras_squeezenet
from torch import Tensor

from clearmargin.bundle.export import export_onnx
from clearmargin.errors import ConfigError, DataError, MissingExtra, UsageError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model, check_model_name
from clearmargin.models.backbones import AUTO_PX, Backbone, BackboneOptions, Head
from clearmargin.models.contract import count_parameters
from clearmargin.models.timm_trunk import TimmTrunk, fetch_weights, parse_arguments
from clearmargin.models.trunk import Trunk
from clearmargin.models.weights import read_weights

NAMES = {
    "squeezenet": {},
    "timm:test_resnet": {},
    "timm:test_convnext": {},
    "timm:test_vit": {},
}
every_backbone = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.usefixtures("timm")


def build(name: str, shape: tuple[int, int, int] = (40, 40, 3), *, head: str = "linear", seed: int = 0) -> Backbone:
    options = BackboneOptions(head, 64, NAMES.get(name, {}))  # type: ignore[arg-type]
    model = build_model(name, shape, seed=seed, options=options)
    assert isinstance(model, Backbone)
    return model


def images(shape: tuple[int, int, int], number: int = 3) -> Tensor:
    return torch.rand(number, shape[2], shape[0], shape[1], generator=torch.Generator().manual_seed(0))


@every_backbone
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_forward_is_head_of_features_with_the_promised_shapes(name: str, head: str) -> None:
    model, x = build(name, head=head), images((40, 40, 3))
    with torch.no_grad():
        features = model.forward_features(x)
        logits = model(x)
        assert torch.equal(logits, model.forward_head(features))
    assert features.shape[:2] == (3, model.trunk.width)
    assert min(features.shape[2:]) >= 1
    assert logits.shape == (3,)
    assert len(torch.unique(logits)) == 3
    assert not any(part.training for part in model.modules())


@every_backbone
def test_every_parameter_of_the_trunk_is_in_one_stage_and_the_first_sees_the_image(name: str) -> None:
    model = build(name)
    stages = model.stages()
    numbered = [id(parameter) for stage in stages for parameter in stage]
    assert len(numbered) == len(set(numbered))
    assert set(numbered) == {id(parameter) for parameter in model.trunk.parameters()}
    assert len(stages) > 2
    first = next(module for module in model.trunk.modules() if isinstance(module, torch.nn.Conv2d))
    assert id(first.weight) in {id(parameter) for parameter in stages[0]}


@every_backbone
def test_the_seed_alone_decides_a_random_start(name: str) -> None:
    first, again, other = (build(name, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", ["squeezenet", "timm:test_resnet", "timm:test_vit"])
def test_the_export_to_onnx_passes_its_gate(name: str) -> None:
    model = build(name, head="mlp")
    packed = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    assert len(export_onnx(model, Preprocessing(width=40, height=40), packed)) > 1000


def test_a_vgg_exports_without_its_hundred_million_weights_of_dense_layers() -> None:
    options = BackboneOptions("linear", 64, {"mlp_ratio": 0.01})
    model = build_model("timm:vgg11", (40, 40, 3), options=options)
    assert count_parameters(model) < 10e6
    packed = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
    assert len(export_onnx(model, Preprocessing(width=40, height=40), packed)) < 45e6


def test_the_normalisation_of_the_backbone_is_inside() -> None:
    model, x = build("timm:test_resnet", (64, 64, 3)), images((64, 64, 3))
    assert isinstance(model.trunk, TimmTrunk)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.trunk.mean, model.trunk.std))
    with torch.no_grad():
        expected = model.trunk.network.forward_features((x - mean) / std)
        torch.testing.assert_close(model.forward_features(x), expected)
    assert {"mean", "std"} <= set(model.state_dict())  # they travel with the weights


def test_a_grey_image_is_the_image_in_three_equal_channels() -> None:
    grey, colour = build("squeezenet", (40, 40, 1)), build("squeezenet", (40, 40, 3))
    x = images((40, 40, 1))
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.repeat(1, 3, 1, 1)))


def test_small_images_are_enlarged_and_keep_their_proportions() -> None:
    model = build_model("squeezenet", (25, 50, 3))
    assert isinstance(model, Backbone)
    seen: list[Tensor] = []
    model.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images((25, 50, 3)))
        model(images((50, 25, 3)))  # a quarter turn
    assert [tuple(x.shape[2:]) for x in seen] == [(50, 100), (100, 50)]
    assert build_model("squeezenet", (140, 120, 3)).input_px == 140  # type: ignore[union-attr]
    assert AUTO_PX == 100


def test_images_larger_than_the_network_takes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"200×200 pixels are larger than the 160 .*images\.size=\[160, 160\]"):
        build("timm:test_vit", (200, 200, 3))


def test_tokens_are_laid_out_as_they_lie_in_the_image_with_the_class_token_behind_each() -> None:
    model = build("timm:test_vit", (160, 160, 3))
    assert isinstance(model.trunk, TimmTrunk)
    x = images((160, 160, 3), 2)
    with torch.no_grad():
        tokens = model.trunk.network.forward_features((x - model.mean) / model.std)
        features = model.forward_features(x)
    side, width = features.shape[2], tokens.shape[2]
    assert features.shape == (2, 2 * width, side, side)
    assert tokens.shape[1] == 1 + side * side
    for row, column in ((0, 0), (1, 3), (side - 1, 2)):
        assert torch.equal(features[:, :width, row, column], tokens[:, 1 + row * side + column])
        assert torch.equal(features[:, width:, row, column], tokens[:, 0])
    pooled = torch.cat([tokens[:, 1:].mean(dim=1), tokens[:, 0]], dim=1)
    torch.testing.assert_close(model.pool(features), pooled)


def test_a_network_made_to_be_pooled_by_its_mean_gives_no_class_token_and_no_register(timm: ModuleType) -> None:
    trunk = TimmTrunk("test_vit2", {}, {})  # four registers, pooled by the mean
    x = torch.rand(1, 3, *(trunk.fixed_size or (0, 0)))
    trunk.eval()
    with torch.no_grad():
        tokens, features = trunk.network.forward_features(x), trunk(x)
    prefix = tokens.shape[1] - features.shape[2] * features.shape[3]
    assert prefix == trunk.network.num_prefix_tokens > 0
    class_token = trunk.network.cls_token is not None and trunk.network.global_pool != "avg"
    assert features.shape[1] == tokens.shape[2] * (2 if class_token else 1)
    torch.testing.assert_close(features[0, : tokens.shape[2]].flatten(1).T, tokens[0, prefix:])


def test_the_head_standardises_and_leaves_a_constant_feature_alone() -> None:
    head = Head(3, "linear")
    head.standardise(torch.tensor([1000.0, 5.0, 0.0]), torch.tensor([100.0, 1e-9, 0.0]))
    assert head.scale.tolist() == [100.0, 1.0, 1.0]
    seen: list[Tensor] = []
    head.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head(torch.tensor([[1100.0, 5.0, 0.0]]))
    assert seen[0].tolist() == [[1.0, 0.0, 0.0]]


def test_squeezenet_computes_what_its_edition_for_keras_does(tmp_path: Path) -> None:
    path = keras_squeezenet.write_weights(tmp_path / "weights.h5")
    model = build_model("squeezenet", (50, 41, 3), options=BackboneOptions(input_px=50))
    assert isinstance(model, Backbone)
    model.trunk.load(read_weights(path, keras=True), "weights.h5")
    image = np.random.default_rng(1).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    with torch.no_grad():
        actual = model.forward_features(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0]
    expected = keras_squeezenet.features(path, image)
    np.testing.assert_allclose(actual.permute(1, 2, 0).numpy(), expected, rtol=1e-3, atol=1e-3 * expected.max())


@pytest.mark.real
def test_squeezenet_reads_the_real_weights(real_data: Path) -> None:
    path = next((real_data / "backbones" / "squeezenet").glob("*.h5"))
    model = build("squeezenet", (64, 64, 3))
    model.trunk.load(read_weights(path, keras=True), str(path))
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        actual = model.forward_features(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0]
    expected = keras_squeezenet.features(path, image)
    np.testing.assert_allclose(actual.permute(1, 2, 0).numpy(), expected, rtol=1e-3, atol=1e-3 * expected.max())


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_weights_of_timm_load_without_their_classifier(
    timm: ModuleType, timm_weights: Callable[..., Path], name: str
) -> None:
    path = timm_weights(name, seed=5)
    model = build(f"timm:{name}")
    model.trunk.load(read_weights(path), str(path))
    whole = timm.create_model(name, num_classes=10).eval()
    whole.load_state_dict(read_weights(path))
    assert isinstance(model.trunk, TimmTrunk)
    size = model.trunk.fixed_size or (64, 64)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(model.trunk.network.forward_features(x), whole.forward_features(x))


def load_spoiled(path: Path, spoil: Callable[[dict[str, Tensor]], object], trunk: Trunk) -> None:
    weights = read_weights(path)
    spoil(weights)
    trunk.load(weights, "w.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.pop("conv1.0.weight"), r"w\.safetensors: misses 'conv1\.0\.weight'\. It is of another model"),
        (lambda w: w.update({"extra.a": torch.ones(1), "extra.b": torch.ones(1)}), r"has not: 'extra\.a' and 1 more"),
        (lambda w: w.update({"bn1.bias": torch.ones(3)}), r"'bn1\.bias' has the shape \(3,\) where the model has"),
        (lambda w: w["bn1.bias"].fill_(float("nan")), r"'bn1\.bias' holds values that are no finite numbers"),
    ],
)
def test_weights_that_do_not_fit_are_one_line_with_the_place(
    timm_weights: Callable[..., Path], spoil: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    path, trunk = timm_weights("test_resnet"), build("timm:test_resnet").trunk
    before = {name: tensor.clone() for name, tensor in trunk.wanted().items()}
    with pytest.raises(DataError, match=message) as caught:
        load_spoiled(path, spoil, trunk)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trunk.wanted().items())


def test_files_that_could_run_code_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"w\.bin: weights are read from \.safetensors.*can run code"):
        read_weights(tmp_path / "w.bin")
    (tmp_path / "w.safetensors").write_bytes(b"not one")
    with pytest.raises(DataError, match=r"w\.safetensors: cannot be read"):
        read_weights(tmp_path / "w.safetensors")
    (tmp_path / "w.h5").write_bytes(b"not one")
    with pytest.raises(DataError, match=r"w\.h5: cannot be read"):
        read_weights(tmp_path / "w.h5", keras=True)
    with pytest.raises(DataError, match=r"w\.h5: weights are read from \.safetensors"):
        read_weights(tmp_path / "w.h5")
    with pytest.raises(DataError, match="no such file"):
        read_weights(tmp_path / "nowhere.safetensors")


def test_half_precision_is_read_as_single(timm_weights: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = read_weights(timm_weights("test_resnet"))
    save_file(
        {name: tensor.half() for name, tensor in weights.items() if tensor.is_floating_point()},
        tmp_path / "h.safetensors",
    )
    read = read_weights(tmp_path / "h.safetensors")
    assert {tensor.dtype for tensor in read.values()} == {torch.float32}
    build("timm:test_resnet").trunk.load(read, "h")  # without the counters of its norms


def test_without_timm_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"'timm:vgg16' needs timm.*pip install \"clearmargin\[backbones\]\"$"):
        check_model_name("timm:vgg16")
    check_model_name("squeezenet")


def test_an_unknown_name_of_timm_is_refused_with_the_closest() -> None:
    with pytest.raises(UsageError, match=r"no model 'timm:resnet5o' in timm .*did you mean 'timm:resnet5"):
        check_model_name("timm:resnet5o")
    with pytest.raises(UsageError, match="no model 'timm:hf-hub:someone/model'"):
        check_model_name("timm:hf-hub:someone/model")


def test_arguments_reach_the_constructor_and_bad_ones_are_one_line() -> None:
    arguments = parse_arguments(("init_values=1e-5", "act_layer=SiLU", "mlp_layer=SwiGLUPacked"))
    names = [name for name, _ in TimmTrunk("test_vit", arguments, {}).named_parameters()]
    assert any(name.endswith("ls1.gamma") for name in names)
    with pytest.raises(ConfigError, match="there is no layer 'Nonsense'"):
        TimmTrunk("test_vit", {"mlp_layer": "Nonsense"}, {})
    with pytest.raises(UsageError, match=r"timm cannot build 'timm:test_vit' .*model\.arguments"):
        TimmTrunk("test_vit", {"nonsense": 1}, {})
    with pytest.raises(ConfigError, match="key=value"):
        parse_arguments(("init_values",))


def test_hub_weights_come_from_timms_own_place_and_only_as_safetensors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, str]] = []
    hub = ModuleType("huggingface_hub")

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(tmp_path / "model.safetensors")

    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert fetch_weights("resnet18.a1_in1k") == tmp_path / "model.safetensors"
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]

    def fails(*_: str) -> str:
        raise ConnectionError("no route\nto host")

    hub.hf_hub_download = fails  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"cannot be fetched .*no route to host.*--weights FILE\.$"):
        fetch_weights("resnet18")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match="huggingface_hub"):
        fetch_weights("resnet18")


def test_only_a_model_of_timm_imports_timm() -> None:
    code = (
        "import sys, clearmargin, clearmargin.models, clearmargin.training.transfer, clearmargin.predict.predictor;"
        "clearmargin.models.build_model('squeezenet', (32, 32, 3));"
        "assert not {'timm', 'torchvision', 'huggingface_hub', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
