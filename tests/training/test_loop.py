"""What the loop does in an epoch and between epochs, against plain torch and recursions by hand."""

from __future__ import annotations

import math
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from tests.training.toy_training import Heard, plain_config, toy_config, toy_images, train, weights
from torch import Tensor

from clearmargin.errors import ConfigError, DataError
from clearmargin.evaluation.metrics import auroc
from clearmargin.models import build_model
from clearmargin.models.contract import Classifier
from clearmargin.settings import RunConfig
from clearmargin.training import loop
from clearmargin.training.batches import TrainingImages, epoch_order
from clearmargin.training.checkpoint import copy_state
from clearmargin.training.log import HISTORY_COLUMNS
from clearmargin.training.loop import choose_precision


def images_and_labels(data: TrainingImages, rows: Any, mean: float = 0.0, std: float = 1.0) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2) / 255
    return (x - mean) / std, torch.from_numpy(data.labels[rows]).float()


def train_by_hand(data: TrainingImages, config: RunConfig, optimizer_of: Any, rate_of: Any) -> Classifier:
    """The same training in a dozen lines of torch."""
    model = build_model(config.model.name, data.images.shape[1:], seed=config.seed).train()  # type: ignore[arg-type]
    optimizer = optimizer_of(model.parameters())
    step, size = 0, config.train.batch_size
    malignant = float(data.labels[data.train].mean())
    for epoch in range(config.train.epochs):
        order = epoch_order(data.train, data.labels, balance="none", seed=config.seed, epoch=epoch)
        for start in range(0, len(order), size):
            x, y = images_and_labels(data, order[start : start + size])
            each = F.binary_cross_entropy_with_logits(model(x), y, reduction="none")
            if config.train.balance == "weights":
                each = each * torch.where(y == 1, 0.5 / malignant, 0.5 / (1 - malignant))
            optimizer.param_groups[0]["lr"] = rate_of(step)
            optimizer.zero_grad()
            each.mean().backward()
            optimizer.step()
            step += 1
    return model.eval()


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor], atol: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        np.testing.assert_allclose(tensor.numpy(), other[name].numpy(), rtol=1e-3, atol=atol, err_msg=name)


def test_the_loop_is_plain_torch_training_with_adam(run: Path) -> None:
    config, data = plain_config(), toy_images(24)
    fitted = train(run, config, data=data)
    model = train_by_hand(data, config, lambda p: torch.optim.Adam(p, eps=1e-7), lambda step: 1e-3)
    assert_same_weights(weights(fitted), model.state_dict())


def test_the_loop_is_plain_torch_training_with_adagrad_decay_and_class_weights(run: Path) -> None:
    config = plain_config(optimizer="adagrad", learning_rate=1e-2, learning_rate_decay=0.1, balance="weights")
    data = toy_images(24)
    data = TrainingImages(data.images, data.labels, data.train[4::3], data.validation)
    fitted = train(run, config, data=data)
    model = train_by_hand(
        data,
        config,
        lambda p: torch.optim.Adagrad(p, initial_accumulator_value=0.1, eps=1e-7),
        lambda step: 1e-2 / (1 + 0.1 * step),
    )
    assert_same_weights(weights(fitted), model.state_dict())


def test_the_loss_goes_down_and_a_separable_task_is_learned(run: Path) -> None:
    fitted = train(run, toy_config(epochs=12, average_decay=0.9))
    assert fitted.history[-1]["train_loss"] < 0.5 * fitted.history[0]["train_loss"]
    assert fitted.history[-1]["train_accuracy"] == 1
    assert fitted.history[-1]["validation_accuracy"] == 1
    assert fitted.history[-1]["validation_auroc"] == 1


def test_history_has_a_row_an_epoch_and_the_promised_columns(run: Path) -> None:
    heard = Heard()
    fitted = train(run, toy_config(), listener=heard)
    table = pd.read_csv(run / "history.csv")
    assert tuple(table.columns) == HISTORY_COLUMNS
    assert table["epoch"].tolist() == [1, 2, 3]
    for line, row in zip(table.to_dict("records"), fitted.history, strict=True):
        assert line == pytest.approx(row)
    assert heard.rows == fitted.history
    assert heard.stages == ["train"]
    assert heard.totals == [(done, 12) for done in range(1, 13)]
    for column in ("train_accuracy", "validation_accuracy", "validation_auroc"):
        assert table[column].between(0, 1).all()


@pytest.mark.parametrize("average_decay", [0.0, 0.5])
def test_the_last_row_describes_the_model_that_is_kept(run: Path, average_decay: float) -> None:
    data, config = toy_images(), toy_config(average_decay=average_decay)
    fitted = train(run, config, data=data)
    x, y = images_and_labels(data, data.validation, config.images.mean, config.images.std)
    with torch.no_grad():
        logits = fitted.model(x)
    row = fitted.history[-1]
    assert row["validation_loss"] == pytest.approx(float(F.binary_cross_entropy_with_logits(logits, y)), rel=1e-4)
    assert row["validation_accuracy"] == float(((logits > 0) == (y == 1)).float().mean())
    assert row["validation_auroc"] == auroc(data.labels[data.validation], logits.numpy())
    assert not any(part.training for part in fitted.model.modules())
    assert fitted.best_epoch == 3
    assert not fitted.stopped_early
    assert (fitted.precision, fitted.device) == ("32-true", "cpu")


def test_train_loss_and_accuracy_are_means_over_the_images_seen(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, config = toy_images(24), plain_config(epochs=1, learning_rate=1e-12)
    row = train(run, config, data=data).history[0]
    model = build_model("cnn_3conv", (24, 24, 3), seed=0)
    x, y = images_and_labels(data, data.train)
    with torch.no_grad():
        logits = model(x)
    assert row["train_loss"] == pytest.approx(float(F.binary_cross_entropy_with_logits(logits, y)), rel=1e-4)
    assert row["train_accuracy"] == pytest.approx(float(((logits > 0) == (y == 1)).float().mean()))
    assert row["learning_rate"] == 1e-12


def follow(monkeypatch: pytest.MonkeyPatch, name: str, values: list[float]) -> list[dict[str, Tensor]]:
    """Puts these values in the place of the monitor, epoch by epoch; collects the weights that were validated."""
    seen: list[dict[str, Tensor]] = []

    def validate(self: Any) -> dict[str, float]:
        seen.append({key: tensor.clone() for key, tensor in self.kept_weights().items()})
        row = {"validation_loss": 1.0, "validation_accuracy": 0.5, "validation_auroc": 0.5}
        return row | {name: values[len(seen) - 1]}

    monkeypatch.setattr(loop._Trainer, "validate", validate)
    return seen


@pytest.mark.parametrize(
    ("monitor", "values"),
    [
        ("validation_loss", [3.0, 2.0, 2.0, 1.5, 1.5, 1.6, 0.1, 0.1]),
        ("validation_auroc", [0.5, 0.7, 0.7, 0.8, 0.8, 0.2, 1.0, 1.0]),
        ("validation_accuracy", [0.5, 0.7, 0.7, 0.8, 0.8, 0.2, 1.0, 1.0]),
    ],
)
@pytest.mark.parametrize("average_decay", [0.0, 0.5])
def test_training_stops_after_patience_epochs_without_a_better_monitor_and_keeps_the_best(
    run: Path, monkeypatch: pytest.MonkeyPatch, monitor: str, values: list[float], average_decay: float
) -> None:
    seen = follow(monkeypatch, monitor, values)
    config = toy_config(epochs=8, patience=2, monitor=monitor, restore_best=True, average_decay=average_decay)
    fitted = train(run, config, model="cbis_ddsm")
    assert len(fitted.history) == 6  # 5 equals the best so far and 6 is worse
    assert fitted.stopped_early
    assert fitted.best_epoch == 4
    assert all(torch.equal(tensor, seen[3][name]) for name, tensor in weights(fitted).items())
    assert any(not torch.equal(tensor, seen[5][name]) for name, tensor in weights(fitted).items())


def test_a_better_epoch_starts_the_patience_anew(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(monkeypatch, "validation_loss", [3.0, 3.1, 2.0, 2.1, 1.0, 1.1, 1.2, 0.5])
    fitted = train(run, toy_config("cbis_ddsm", epochs=8, patience=2))
    assert (len(fitted.history), fitted.best_epoch, fitted.stopped_early) == (7, 5, True)


def test_without_patience_nothing_stops_early(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = follow(monkeypatch, "validation_loss", [1.0, 2.0, 3.0, 4.0])
    fitted = train(run, toy_config("cbis_ddsm", epochs=4, patience=0))
    assert (len(fitted.history), fitted.best_epoch, fitted.stopped_early) == (4, 1, False)
    assert all(torch.equal(tensor, seen[0][name]) for name, tensor in weights(fitted).items())


def test_without_restoring_the_last_weights_are_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = follow(monkeypatch, "validation_loss", [1.0, 2.0, 3.0])
    fitted = train(run, toy_config(monitor="validation_loss", restore_best=False))
    assert fitted.best_epoch == 3
    assert all(torch.equal(tensor, seen[2][name]) for name, tensor in weights(fitted).items())


def test_the_train_loss_can_be_monitored(run: Path) -> None:
    fitted = train(run, toy_config(epochs=4, monitor="train_loss", restore_best=True))
    losses = [row["train_loss"] for row in fitted.history]
    assert fitted.best_epoch == 1 + losses.index(min(losses))


@pytest.mark.parametrize("most", [0.3, 0.999])
def test_the_moving_average_is_the_recursion_by_hand(run: Path, monkeypatch: pytest.MonkeyPatch, most: float) -> None:
    steps: list[dict[str, Tensor]] = []
    update = loop._Trainer.update_average

    def watched(self: Any) -> None:
        steps.append(copy_state(self.plain))
        update(self)

    monkeypatch.setattr(loop._Trainer, "update_average", watched)
    fitted = train(run, toy_config(average_decay=most))
    average = {name: tensor.double() for name, tensor in build_model("residual", (16, 16, 3)).state_dict().items()}
    assert len(steps) == 12
    for step, trained in enumerate(steps):
        decay = min(most, (1 + step) / (10 + step))
        average = {name: decay * value + (1 - decay) * trained[name] for name, value in average.items()}
    for name, tensor in weights(fitted).items():
        if tensor.is_floating_point():
            np.testing.assert_allclose(tensor.numpy(), average[name].numpy(), atol=1e-5, err_msg=name)
        else:
            assert torch.equal(tensor, steps[-1][name])


def test_training_goes_on_from_its_own_weights_not_from_the_average(tmp_path: Path) -> None:
    with_average, without = (train(tmp_path / str(decay), toy_config(average_decay=decay)) for decay in (0.9, 0.0))
    losses = [[row["train_loss"] for row in fitted.history] for fitted in (with_average, without)]
    assert losses[0] == losses[1]


def test_every_batch_of_every_epoch_is_seen_in_training_mode(run: Path) -> None:
    fitted = train(run, toy_config("cancernet"))
    counts = {int(tensor) for name, tensor in weights(fitted).items() if name.endswith("num_batches_tracked")}
    assert counts == {12}


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_learning_rate(run: Path) -> None:
    with pytest.raises(DataError, match=r"training loss became \S+ in epoch 1, batch \d.*train\.learning_rate=1e\+29"):
        train(run, toy_config(learning_rate=1e30, warmup_epochs=0, schedule="constant"))


def test_weights_spoiled_by_the_last_batch_do_not_end_as_a_model(run: Path) -> None:
    config = plain_config(epochs=1, batch_size=32, learning_rate=1e30)
    with pytest.raises(DataError, match=r"validation loss became \S+ in epoch 1\. Lower the learning rate"):
        train(run, config, data=toy_images(24))


@pytest.mark.parametrize("model", ["cancernet", "residual"])
def test_an_image_that_would_be_left_alone_in_its_batch_is_trained_on_with_the_batch_before(
    run: Path, model: str
) -> None:
    heard = Heard()
    config = toy_config("cancernet", epochs=1)
    train(run, config, data=toy_images(8 if model == "residual" else 16, number=17), model=model, listener=heard)
    assert heard.totals == [(1, 2), (2, 2)]


def test_batches_of_one_image_are_refused_where_they_would_be_normalised(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"'cancernet' has batch normalisation.*set train\.batch_size to 2"):
        train(run, toy_config("cancernet", batch_size=1))
    fitted = train(run, plain_config(batch_size=1, epochs=1), data=toy_images(24, number=4))
    assert len(fitted.history) == 1


def test_no_batch_is_larger_than_twice_the_training_batch(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    gather = loop.gather

    def counted(images: Any, rows: Any) -> Tensor:
        sizes.append(len(rows))
        return gather(images, rows)

    monkeypatch.setattr(loop, "gather", counted)
    train(run, plain_config(epochs=1, batch_size=4), data=toy_images(24))
    assert sizes == [4] * 6 + [2] + [8, 2]


@pytest.mark.parametrize(("channels", "height", "px"), [(1, 16, 16), (3, 24, 16), (1, 16, 24)])
def test_grey_and_oblong_images_train(run: Path, channels: int, height: int, px: int) -> None:
    fitted = train(run, toy_config(epochs=1), data=toy_images(px, height=height, channels=channels))
    assert math.isfinite(fitted.history[0]["validation_loss"])


def test_a_read_only_memory_map_is_trained_on(tmp_path: Path, run: Path) -> None:
    data = toy_images()
    np.save(tmp_path / "images.npy", data.images)
    mapped = TrainingImages(np.load(tmp_path / "images.npy", mmap_mode="r"), data.labels, data.train, data.validation)
    one, other = train(run, toy_config(epochs=1), data=mapped), train(tmp_path / "b", toy_config(epochs=1), data=data)
    assert one.history[0]["train_loss"] == other.history[0]["train_loss"]


def test_the_callers_random_numbers_and_determinism_are_left_alone(run: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    train(run, toy_config(epochs=1).model_copy(update={"deterministic": True}))
    assert torch.equal(torch.rand(2), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_determinism_is_on_while_training_and_off_after_a_failure(run: Path) -> None:
    class Fails(Heard):
        def advance(self, done: int, total: int) -> None:
            raise OSError(str(torch.are_deterministic_algorithms_enabled()))

    with pytest.raises(OSError, match="True"):
        train(run, toy_config().model_copy(update={"deterministic": True}), listener=Fails())
    assert not torch.are_deterministic_algorithms_enabled()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_dropout_and_augmentation_draw_different_numbers(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Tensor, Tensor]] = []

    def watched(x: Tensor, _settings: Any, generator: torch.Generator) -> Tensor:
        state = torch.get_rng_state()
        drawn.append((torch.rand(50, generator=generator), torch.rand(50)))
        torch.set_rng_state(state)
        return x

    monkeypatch.setattr(loop, "augment", watched)
    train(run, toy_config())
    assert len(drawn) == 12
    assert len({tuple(numbers.tolist()) for pair in drawn for numbers in pair}) == 24


def test_training_works_outside_the_main_thread(run: Path) -> None:
    fitted = []
    thread = threading.Thread(target=lambda: fitted.append(train(run, toy_config(epochs=1))))
    thread.start()
    thread.join()
    assert len(fitted[0].history) == 1


@pytest.mark.parametrize(
    ("gpu", "capabilities", "expected"),
    [
        (None, {"avx512_bf16": True, "amx_bf16": False}, "bf16-mixed"),
        (None, {"avx512_bf16": False, "amx_bf16": True}, "bf16-mixed"),
        (None, {"avx512_f": True}, "32-true"),
        (True, {}, "bf16-mixed"),
        (False, {"amx_bf16": True}, "32-true"),
    ],
)
def test_auto_precision_is_bf16_where_the_arithmetic_is_native(
    monkeypatch: pytest.MonkeyPatch, gpu: bool | None, capabilities: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(toy_config(precision="auto").train) == expected
    assert choose_precision(toy_config(precision="32-true").train) == "32-true"
    assert choose_precision(toy_config(precision="bf16-mixed").train) == "bf16-mixed"


def test_auto_precision_trains_on_this_machine(run: Path) -> None:
    config = toy_config(epochs=1, precision="auto")
    fitted = train(run, config)
    assert fitted.precision == choose_precision(config.train)
    assert {tensor.dtype for tensor in weights(fitted).values()} == {torch.float32, torch.int64}
