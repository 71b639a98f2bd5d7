"""Frozen features, unfreezing stage by stage, and weights that travel: from settings to a bundle."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.bundle.small_bundle import pictures, write_working
from tests.models import keras_squeezenet
from tests.models.torchvision_stand_in import import_timm
from tests.slides import Placed
from tests.training.toy_training import Heard, lasting, toy_images, train, train_in_pieces, weights

import clearmargin
from clearmargin.bundle.read import read_bundle
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.config import load_recipe
from clearmargin.data.store import Store
from clearmargin.errors import BundleError, ConfigError, DataError, Interrupted
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.models.backbones import Backbone, BackboneOptions
from clearmargin.models.contract import scale_pixels
from clearmargin.predict.session import Session
from clearmargin.settings import RunConfig, TransferSettings
from clearmargin.training import features
from clearmargin.training.features import TrainingFeatures, load_features, turn
from clearmargin.training.transfer import check_pretrained, find_weights, hash_weights
from clearmargin.training.unfreezing import freeze, frozen_stages, parameter_groups


def finetuning(**changes: Any) -> RunConfig:
    settings = {
        "model.name": "squeezenet",
        "model.weights": "somewhere.h5",  # the toy training starts from random weights all the same
        "transfer.mode": "finetune",
        "train.epochs": 3,
        "train.batch_size": 8,
        "train.precision": "32-true",
        "train.restore_best": False,
    }
    return load_recipe("transfer", {**settings, **changes})


def small(seed: int = 0, shape: tuple[int, int, int] = (32, 32, 3)) -> Backbone:
    model = build_model("squeezenet", shape, seed=seed, options=BackboneOptions(input_px=32))
    assert isinstance(model, Backbone)
    return model


@pytest.mark.parametrize("every", [0, 1])
def test_a_frozen_epoch_moves_the_head_alone_and_then_stages_join_from_the_top(run: Path, every: int) -> None:
    before = {name: tensor.clone() for name, tensor in build_model("squeezenet", (32, 32, 3)).state_dict().items()}
    data = toy_images(32)
    for epochs in (1, 2):
        config = finetuning(**{"train.epochs": epochs, "transfer.unfreeze_every": every})
        fitted = train(run.with_name(str(epochs)), config, data=data)
        moved = {
            name.split(".")[1] for name, tensor in weights(fitted).items() if not torch.equal(tensor, before[name])
        }
        joined = {"fire8", "fire9"} if every else {"conv1", *(f"fire{number}" for number in range(2, 10))}
        assert moved == {"layers"} | (joined if epochs == 2 else set())
    assert all(parameter.requires_grad for parameter in fitted.model.parameters())


def test_the_learning_rate_falls_with_depth() -> None:
    settings = TransferSettings(mode="finetune", layer_decay=0.5)
    groups = parameter_groups(small(), settings)
    assert groups is not None
    assert [group["share"] for group in groups] == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert sum(len(group["params"]) for group in groups) == len(list(small().parameters()))
    assert parameter_groups(small(), TransferSettings(mode="none")) is None


def test_a_stage_of_share_zero_point_one_takes_a_tenth_of_the_step(run: Path) -> None:
    before = build_model("squeezenet", (32, 32, 3)).state_dict()
    config = finetuning(**{
        "train.epochs": 1, "train.batch_size": 26, "train.schedule": "constant", "train.learning_rate": 1e-3,
        "train.weight_decay": 0.0, "transfer.frozen_epochs": 0, "transfer.layer_decay": 0.1,
    })  # fmt: skip
    after = weights(train(run, config, data=toy_images(32)))
    # The first step of Adam is the learning rate, whatever the gradient.
    steps = {
        name: float((after[f"{name}.weight"] - before[f"{name}.weight"]).abs().max())
        for name in ("head.layers.0", "trunk.fire9.expand1x1", "trunk.fire7.expand1x1")
    }
    assert list(steps.values()) == pytest.approx([1e-3, 1e-4, 1e-5], rel=0.02)


def test_frozen_norms_rest_and_unfrozen_ones_learn() -> None:
    import_timm()
    model = build_model("timm:test_resnet", (32, 32, 3), options=BackboneOptions(input_px=32))
    settings = TransferSettings(mode="finetune", frozen_epochs=1, unfreeze_every=1)
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for epoch, some in ((0, False), (1, True)):
        model.train()
        freeze(model, settings, epoch)
        assert any(norm.training for norm in norms) == some
        for norm in norms:
            assert norm.training == norm.weight.requires_grad
    assert not norms[0].training
    model.train()
    freeze(model, settings, 99)
    assert all(norm.training for norm in norms)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"frozen_epochs": 0}, [0, 0, 0, 0]),
        ({"frozen_epochs": 2}, [4, 4, 0, 0]),
        ({"frozen_epochs": 0, "unfreeze_every": 1}, [3, 2, 1, 0]),
        ({"frozen_epochs": 1, "unfreeze_every": 2}, [4, 3, 3, 2]),
    ],
)
def test_stages_join_one_by_one_from_the_top(settings: dict[str, int], expected: list[int]) -> None:
    given = TransferSettings(mode="finetune", **settings)  # type: ignore[arg-type]
    assert [frozen_stages(4, given, epoch) for epoch in range(4)] == expected


@pytest.mark.parametrize("model", ["squeezenet", "timm:test_resnet"])
def test_finetuning_stopped_after_every_few_batches_is_the_uninterrupted_run(tmp_path: Path, model: str) -> None:
    import_timm()
    changes = {"model.name": model, "transfer.unfreeze_every": 1, "transfer.layer_decay": 0.7}
    config = finetuning(**changes, **{"train.average_decay": 0.9}).model_copy(update={"deterministic": True})
    data = toy_images(32)
    whole = train(tmp_path / "whole", config, data=data)
    pieces, stops = train_in_pieces(tmp_path / "pieces", config, batches=3, data=data)
    assert stops == 4
    assert lasting(whole.history) == lasting(pieces.history)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(pieces)[name]), name


@pytest.fixture
def store(tmp_path: Path) -> Store:
    images = np.random.default_rng(0).integers(0, 256, (75, 32, 32, 3), dtype=np.uint8)
    return Store(images, tmp_path / "stores" / "abc", 75)


def test_features_are_the_pooled_features_of_each_view(store: Store) -> None:
    backbone = small()
    found = load_features(backbone, store, name="squeezenet", views=8)
    assert (found.shape, found.dtype) == ((75, 8, 512), np.float16)
    for row in (0, 40, 74):
        x = scale_pixels(torch.from_numpy(store.images[row : row + 1]))
        with torch.no_grad():
            for view in range(8):
                expected = backbone.pool(backbone.forward_features(turn(x, view)))[0].numpy()
                np.testing.assert_allclose(found[row, view], expected, rtol=2e-3, atol=1e-3)
    heard = Heard()
    again = load_features(small(), store, name="squeezenet", views=8, listener=heard)
    np.testing.assert_array_equal(again, found)
    assert heard.totals == []
    one = load_features(small(), store, name="squeezenet", views=1, listener=heard)
    np.testing.assert_array_equal(one[:, 0], found[:, 0])
    load_features(small(seed=1), store, name="squeezenet", views=1)
    assert len([folder for folder in store.path.parent.iterdir() if folder.is_dir()]) == 3


def test_the_eight_views_are_the_eight_flips_and_turns() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    views = [turn(x, view)[0, 0] for view in range(8)]
    assert torch.equal(views[0], x[0, 0])
    expected = [each.rot90(quarter) for quarter in range(4) for each in (x[0, 0], x[0, 0].flip(0))]
    assert {tuple(view.flatten().tolist()) for view in views} == {tuple(each.flatten().tolist()) for each in expected}
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8


def test_features_that_were_stopped_go_on_and_a_damaged_chunk_is_done_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    compute = features._of_chunk

    def counted(network: Backbone, images: torch.Tensor, views: int) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(images))
        return compute(network, images, views)

    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(features, "_of_chunk", counted)
        load_features(small(), store, name="squeezenet", views=1)
    assert done == [32, 32]
    partial = next(store.path.parent.glob("*.partial"))
    array = np.lib.format.open_memmap(partial / "features.npy", mode="r+")
    array[3] += 1
    array.flush()
    again: list[int] = []
    monkeypatch.setattr(features, "_of_chunk", lambda *given: (again.append(len(given[1])), compute(*given))[1])
    found = load_features(small(), store, name="squeezenet", views=1)
    assert again == [32, 11]
    other = replace(store, path=store.path.with_name("other"))
    np.testing.assert_array_equal(found, load_features(small(), other, name="squeezenet", views=1))


def test_validation_sees_the_image_as_it_is_and_training_every_view() -> None:
    values = np.arange(4 * 8, dtype=np.float16).reshape(4, 8, 1)
    rows = np.arange(4)
    data = TrainingFeatures(values, np.zeros(4, np.int8), rows, rows)
    assert data.gather(rows, None)[:, 0, 0, 0].tolist() == [0, 8, 16, 24]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([data.gather(rows, generator)[:, 0, 0, 0] for _ in range(200)])
    assert drawn.unique().tolist() == list(range(32))
    mean, deviation = data.spread()
    assert mean.item() == pytest.approx(values.mean())
    assert deviation.item() == pytest.approx(values.astype(float).std())


def test_frozen_random_features_are_refused_and_a_random_start_is_said() -> None:
    with pytest.raises(ConfigError, match=r"frozen with random weights.*--weights FILE.*transfer\.mode=none"):
        check_pretrained(load_recipe("transfer"))
    with pytest.raises(ConfigError, match="frozen with random weights"):
        check_pretrained(load_recipe("transfer", {"transfer.mode": "finetune"}))
    check_pretrained(load_recipe("transfer", {"transfer.mode": "finetune", "transfer.frozen_epochs": 0}))
    heard = Heard()
    assert hash_weights(load_recipe("transfer", {"transfer.mode": "none"}).model, listener=heard) is None
    assert hash_weights(load_recipe("default").model, listener=heard) is None
    assert len(heard.notes) == 1
    assert "starts from random weights" in heard.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "residual"}, r"'residual' is not pretrained"),
        ({"images.std": 0.5}, r"normalises images itself; set images\.mean=0"),
        ({"augment.stain": 0.1}, r"cannot be augmented.*transfer\.views=8"),
        ({"augment_grey.shift": 0.1}, r"cannot be augmented.*transfer\.views=8"),
        ({"model.field": 5}, r"'squeezenet' sees whole images, .*; set model\.field=0"),
    ],
)
def test_settings_that_contradict_each_other_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("transfer", {"model.weights": "w.h5", **changes})


def test_weights_that_are_not_there_are_missed_before_anything_takes_time(make_folder: Callable[..., Path]) -> None:
    data = make_folder(patients=8, px=24)
    with pytest.raises(DataError, match=r"nowhere\.h5: no such file"):
        clearmargin.train(data, data.parent / "run", model="squeezenet", weights=data.parent / "nowhere.h5")
    with pytest.raises(ConfigError, match="hub is for the models of timm"):
        find_weights(load_recipe("transfer", {"model.weights": "hub"}).model)


def test_from_pretrained_features_to_a_bundle_that_needs_no_file_of_weights(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_folder(patients=8, px=24)
    file = keras_squeezenet.write_weights(tmp_path / "weights.h5")
    settings = {"evaluate.resamples": 100, "model.input_px": 40, "transfer.views": 8}
    run = clearmargin.train(
        data, tmp_path / "run", model="squeezenet", weights=file, epochs=4, settings=settings, folds=2
    )
    bundles = [read_bundle(place) for place in (run.folder / "folds" / "0", run.folder)]
    file.rename(tmp_path / "elsewhere.h5")
    packed = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    predictor = clearmargin.load_bundle(run.folder)
    for bundle in bundles:
        assert bundle.model.lineage.weights_sha256 == sha256(tmp_path / "elsewhere.h5")
        assert bundle.model.architecture.input_px == 40
        assert bundle.model.architecture.head == "mlp"
        model = load_torch_model(bundle)
        with torch.no_grad():
            assert torch.isfinite(model(scale_pixels(torch.from_numpy(packed)))).all()
    stored = run.metrics["test"]["image"]
    assert stored["auroc"]["value"] > 0.8
    assert predictor.predict(sorted(data.rglob("*.png"))[:3])["probability"].between(0, 1).all()
    folders = [place for place in (Path(os.environ["CLEARMARGIN_CACHE"]) / "stores").iterdir() if place.is_dir()]
    assert len(folders) == 2  # the images and their features, once for both folds


def test_cross_fitted_networks_share_the_features_and_are_evaluated_in_context_elsewhere(
    placed: Placed, quick_networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARMARGIN_CACHE", str(tmp_path / "cache"))
    file = keras_squeezenet.write_weights(tmp_path / "weights.h5")
    settings = {
        "evaluate.resamples": 100, "model.input_px": 40, "train.crossfit": 2, "split.fractions": (0.55, 0.15, 0.3),
        "train.learning_rate": 1e-2,
    }  # fmt: skip
    run = clearmargin.train(
        placed.data, tmp_path / "run", model="squeezenet", weights=file, epochs=5, settings=settings
    )
    bundle = read_bundle(run.folder)
    assert (bundle.model.architecture.ensemble, bundle.model.lineage.crossfit) == (2, 2)
    assert bundle.model.lineage.weights_sha256 == sha256(file)
    assert bundle.model.architecture.field is None
    assert bundle.model.context is not None
    assert len([place for place in (tmp_path / "cache" / "stores").iterdir() if place.is_dir()]) == 2
    first, second = load_torch_model(bundle).members  # type: ignore[union-attr]
    one, other = first.state_dict(), second.state_dict()
    differing = {name.partition(".")[0] for name in one if not torch.equal(one[name], other[name])}
    assert differing == {"head"}
    elsewhere = clearmargin.evaluate(run.folder, placed.others, tmp_path / "elsewhere")
    assert elsewhere.metrics["test"]["image"]["auroc"]["value"] > 0.7
    clearmargin.calibrate(run.folder, placed.others, tmp_path / "anew")
    anew = read_bundle(tmp_path / "anew").model
    assert (anew.architecture, anew.lineage.weights_sha256) == (bundle.model.architecture, sha256(file))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_begun_with_one_file_of_weights_is_not_gone_on_with_another(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_folder(patients=8, px=24)
    file = keras_squeezenet.write_weights(tmp_path / "weights.h5")
    given: dict[str, Any] = {
        "model": "squeezenet", "weights": file, "epochs": 3, "settings": {"evaluate.resamples": 100},
    }  # fmt: skip

    class HeardInTraining(Heard):
        def advance(self, done: int, total: int) -> None:
            if self.stages[-1] == "train":
                super().advance(done, total)

    with pytest.raises(Interrupted):
        clearmargin.train(data, tmp_path / "run", listener=HeardInTraining(stop_at=2), **given)
    keras_squeezenet.write_weights(file, seed=1)
    with pytest.raises(DataError, match="other settings, images, split, weights"):
        clearmargin.train(data, tmp_path / "run", resume=True, **given)


def test_a_bundle_of_a_model_of_timm_predicts_without_timm_and_says_what_gradients_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_timm()
    spec = Preprocessing(width=24, height=24)
    model = write_working(tmp_path / "bundle", name="timm:test_resnet", spec=spec)
    bundle = read_bundle(tmp_path / "bundle")
    packed = pictures(spec, 2)
    with torch.no_grad():
        expected = model(scale_pixels(torch.from_numpy(packed)))
        torch.testing.assert_close(load_torch_model(bundle)(scale_pixels(torch.from_numpy(packed))), expected)
    monkeypatch.setitem(sys.modules, "timm", None)
    logits = Session(bundle.read("model.onnx")).logits(packed)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
    with pytest.raises(BundleError, match=r"bundle: the model 'timm:test_resnet' needs timm; install it with: pip"):
        load_torch_model(bundle)
