"""The training loop: readable from top to bottom, on an engine that knows about devices and precision.

Only `fabric` touches devices. The loop can stop after any batch and go on later with the very same
arithmetic: order, augmentation and dropout are functions of (seed, epoch, batch), everything else is in
the checkpoint.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from clearmargin.errors import ConfigError, DataError, Interrupted
from clearmargin.evaluation.metrics import auroc
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier, normalise, scale_pixels
from clearmargin.settings import RunConfig, TrainSettings
from clearmargin.training.augment import augment
from clearmargin.training.batches import TrainingImages, batch_bounds, derive_seed, epoch_order, gather
from clearmargin.training.checkpoint import Progress, State, copy_state, read_checkpoint, write_checkpoint
from clearmargin.training.features import TrainingFeatures
from clearmargin.training.log import write_history
from clearmargin.training.objective import class_weights, cross_entropy
from clearmargin.training.optimizer import build_optimizer, learning_rate, load_optimizer
from clearmargin.training.residence import place_images
from clearmargin.training.stop import StopRequest
from clearmargin.training.unfreezing import freeze, parameter_groups
from clearmargin.types import Listener

_DROPOUT, _AUGMENT = 0, 1  # what a batch's random numbers are for
_HIGHER_IS_BETTER = ("validation_accuracy", "validation_auroc")


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model on the CPU in evaluation mode, and how it came about."""

    model: Classifier
    history: list[dict[str, float]]
    best_epoch: int
    stopped_early: bool
    precision: str
    device: str


def fit_model(
    model: Classifier,
    data: TrainingImages | TrainingFeatures,
    config: RunConfig,
    preprocessing: Preprocessing,
    *,
    run: Path,
    fingerprint: str,
    listener: Listener = Listener(),
) -> Fitted:
    """Trains the model, or goes on from the checkpoint in the run folder.

    Writes `history.csv` and `checkpoint/` into `run`.

    Raises:
        ConfigError: batches of one image for a model with batch normalisation.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
        DataError: the loss is no number any more, or the checkpoint is damaged or of another run.
    """
    check_batch_size(model, config)
    listener.stage("train")
    with _determinism(config.deterministic), torch.random.fork_rng(devices=[]):
        trainer = _Trainer(
            model, data, config=config, preprocessing=preprocessing, run=run, fingerprint=fingerprint, listener=listener
        )
        return trainer.fit()


class _Trainer:
    def __init__(
        self,
        model: Classifier,
        data: TrainingImages | TrainingFeatures,
        *,
        config: RunConfig,
        preprocessing: Preprocessing,
        run: Path,
        fingerprint: str,
        listener: Listener,
    ) -> None:
        self.data, self.config, self.preprocessing = data, config, preprocessing
        self.run, self.fingerprint, self.listener = run, fingerprint, listener
        settings = config.train
        self.precision = choose_precision(settings)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        self.fabric = Fabric(devices=1, precision=self.precision)
        # NHWC suits convolutions on CPUs and tensor cores; torch keeps shapes as (B, C, H, W).
        self.plain: Classifier = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weights = class_weights(data.labels[data.train]) if settings.balance == "weights" else (1.0, 1.0)
        self.batches = batch_bounds(len(data.train), settings.batch_size)
        self.steps_per_epoch = len(self.batches)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        optimizer = build_optimizer(self.plain, settings, groups=parameter_groups(self.plain, config.transfer))
        if settings.compile:
            compile_network(self.plain, self.fabric.device)
        self.model, self.optimizer = self.fabric.setup(self.plain, optimizer)
        self.placed = None
        if isinstance(data, TrainingImages):
            self.placed = place_images(data.images, self.fabric.device, settings.images_on)
        self.owed: list[tuple[int, int, Tensor, Tensor]] = []
        self.average: dict[str, Tensor] = copy_state(self.plain) if settings.average_decay else {}
        state = read_checkpoint(run / "checkpoint", fingerprint)
        if state is not None:
            # After the setup: the optimizer takes its moments to where the parameters are by then.
            self.plain.load_state_dict(state.model)
            load_optimizer(optimizer, state.optimizer)
            self.average = self.fabric.to_device(state.average)
            self.best, self.progress = state.best, state.progress
            listener.note(f"Resuming after epoch {self.progress.epoch}, batch {self.progress.batch}.")
        self.saved_at = time.monotonic()

    def fit(self) -> Fitted:
        progress, settings = self.progress, self.config.train
        with StopRequest() as stop:
            while progress.epoch < settings.epochs and not progress.finished:
                self.train_epoch(stop)
                self.end_epoch()
                self.save()
                if stop.requested:
                    raise Interrupted(self.stopped())
        self.plain.load_state_dict(self.best if settings.restore_best and self.best else self.kept_weights())
        self.plain.to("cpu").eval().requires_grad_(True)
        return Fitted(
            self.plain,
            progress.history,
            progress.best_epoch if settings.restore_best else progress.epoch,
            progress.stopped_early,
            self.precision,
            self.fabric.device.type,
        )

    def train_epoch(self, stop: StopRequest) -> None:
        """The batches of one epoch that are not done yet."""
        data, settings, progress = self.data, self.config.train, self.progress
        order = epoch_order(
            data.train, data.labels, balance=settings.balance, seed=self.config.seed, epoch=progress.epoch
        )
        self.model.train()
        freeze(self.plain, self.config.transfer, progress.epoch)
        while progress.batch < self.steps_per_epoch:
            started = time.monotonic()
            start, end = self.batches[progress.batch]
            self.train_batch(order[start:end])
            progress.batch += 1
            progress.step += 1
            progress.epoch_seconds += time.monotonic() - started
            self.listener.advance(
                progress.epoch * self.steps_per_epoch + progress.batch, settings.epochs * self.steps_per_epoch
            )
            in_the_middle = progress.batch < self.steps_per_epoch
            if in_the_middle and (
                stop.requested or time.monotonic() - self.saved_at > 60 * settings.checkpoint_minutes
            ):
                self.save()
                if stop.requested:
                    raise Interrupted(self.stopped())

    def train_batch(self, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> None:
        data, settings, progress = self.data, self.config.train, self.progress
        place = (self.config.seed, progress.epoch, progress.batch)
        torch.manual_seed(derive_seed(*place, _DROPOUT))
        labels = self.fabric.to_device(torch.from_numpy(data.labels[rows].astype(np.float32)))
        generator = torch.Generator(self.fabric.device).manual_seed(derive_seed(*place, _AUGMENT))
        x = self.inputs(rows, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(settings, progress.step, self.steps_per_epoch) * group.get("share", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(x).float()
        loss = cross_entropy(logits, labels, weights=self.weights, smoothing=settings.label_smoothing)
        self.fabric.backward(loss)
        self.optimizer.step()
        self.update_average()
        correct = ((logits.detach() > 0) == (labels > 0.5)).sum()
        self.owed.append((progress.batch, len(rows), loss.detach(), correct))
        if progress.batch + 1 == self.steps_per_epoch or len(self.owed) >= may_owe(self.fabric.device):
            self.read_sums()

    def read_sums(self) -> None:
        """Adds up what the batches since the last time gave; a GPU has computed them by then.

        Raises:
            DataError: a loss is no number.
        """
        progress, owed = self.progress, self.owed
        if not owed:
            return
        losses = torch.stack([loss for *_, loss, _ in owed]).tolist()
        correct = torch.stack([each for *_, each in owed]).tolist()
        for (batch, n, *_), loss, right in zip(owed, losses, correct, strict=True):
            if not math.isfinite(loss):
                raise DataError(self.diverged("training", loss, f"epoch {progress.epoch + 1}, batch {batch + 1}"))
            progress.loss_sum += loss * n
            progress.correct += right
            progress.seen += n
        owed.clear()

    def inputs(
        self, rows: np.ndarray[tuple[int], np.dtype[np.intp]], generator: torch.Generator | None = None
    ) -> Tensor:
        """What the network sees of these rows, changed at random where a generator is given."""
        if isinstance(self.data, TrainingFeatures):
            return self.fabric.to_device(self.data.gather(rows, generator))
        if self.placed is None:
            packed = self.fabric.to_device(gather(self.data.images, rows))
        else:
            packed = self.placed[self.fabric.to_device(torch.from_numpy(rows))]
        x = scale_pixels(packed)
        if generator is not None:
            x = augment(x, self.config.augment, generator)
        return normalise(x, self.preprocessing.mean, self.preprocessing.std)

    def end_epoch(self) -> None:
        """Validates, remembers the best weights, decides on stopping, and starts the next epoch's sums."""
        progress, settings = self.progress, self.config.train
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / progress.seen,
            "train_accuracy": progress.correct / progress.seen,
            **self.validate(),
            "learning_rate": learning_rate(settings, progress.step - 1, self.steps_per_epoch),
            "seconds": round(progress.epoch_seconds, 3),
            "images_per_second": round(progress.seen / max(progress.epoch_seconds, 1e-9), 1),
        }
        progress.history.append(row)
        progress.epoch += 1
        if self.is_better(row[settings.monitor]):
            progress.best_epoch, progress.best_value = progress.epoch, row[settings.monitor]
            if settings.restore_best:
                self.best = {name: tensor.detach().clone() for name, tensor in self.kept_weights().items()}
        elif settings.patience and progress.epoch - progress.best_epoch >= settings.patience:
            progress.finished = progress.stopped_early = True
        progress.batch, progress.seen, progress.correct, progress.loss_sum, progress.epoch_seconds = 0, 0, 0, 0.0, 0.0
        write_history(self.run / "history.csv", progress.history)
        self.listener.epoch(row)

    def validate(self) -> dict[str, float]:
        """Loss, accuracy at logit 0 and AUROC on the validation images, without augmentation.

        Raises:
            DataError: the loss is no number.
        """
        data, trained = self.data, None
        if self.average:
            trained = copy_state(self.plain)
            self.plain.load_state_dict(self.average)
        self.model.eval()
        logits, losses = [], 0.0
        with torch.inference_mode():
            # Twice a training batch: nothing is kept for gradients, so it fits where training did.
            for start, end in batch_bounds(len(data.validation), 2 * self.config.train.batch_size):
                rows = data.validation[start:end]
                labels = self.fabric.to_device(torch.from_numpy(data.labels[rows].astype(np.float32)))
                batch = self.model(self.inputs(rows)).float()
                losses += float(cross_entropy(batch, labels)) * len(rows)
                logits.append(batch.cpu())
        if trained is not None:
            self.plain.load_state_dict(trained)
        scores = torch.cat(logits).numpy()
        truth = data.labels[data.validation]
        loss = losses / len(truth)
        if not math.isfinite(loss):  # the last step of the epoch went too far
            raise DataError(self.diverged("validation", loss, f"epoch {self.progress.epoch + 1}"))
        return {
            "validation_loss": loss,
            "validation_accuracy": float(((scores > 0) == (truth == 1)).mean()),
            "validation_auroc": float(auroc(truth, scores)),
        }

    def is_better(self, value: float) -> bool:
        best = self.progress.best_value
        if best is None:
            return True
        return value > best if self.config.train.monitor in _HIGHER_IS_BETTER else value < best

    def kept_weights(self) -> dict[str, Tensor]:
        return self.average or dict(self.plain.state_dict())

    def update_average(self) -> None:
        decay = self.config.train.average_decay
        if not decay:
            return
        # The average warms up, so that it does not remember the random start.
        decay = min(decay, (1 + self.progress.step) / (10 + self.progress.step))
        with torch.no_grad():
            for name, tensor in self.plain.state_dict().items():
                if tensor.is_floating_point():
                    self.average[name].lerp_(tensor.to(self.average[name]), 1 - decay)
                else:
                    self.average[name].copy_(tensor)

    def save(self) -> None:
        self.read_sums()
        state = State(
            dict(self.plain.state_dict()), self.optimizer.state_dict(), self.average, self.best, self.progress
        )
        write_checkpoint(self.run / "checkpoint", state, self.fingerprint)
        self.saved_at = time.monotonic()

    def diverged(self, loss: str, value: float, when: str) -> str:
        rate = self.config.train.learning_rate
        return (
            f"the {loss} loss became {value} in {when}. "
            f"Lower the learning rate, {rate:g}, for example --set train.learning_rate={rate / 10:g}."
        )

    def stopped(self) -> str:
        progress = self.progress
        return (
            f"{self.run}: stopped in epoch {min(progress.epoch + 1, self.config.train.epochs)}, the state is saved. "
            "Run the same command with --resume to go on."
        )


def check_batch_size(model: torch.nn.Module, config: RunConfig) -> None:
    """Passes unless batches of one image meet batch normalisation, which needs two values to compare.

    Raises:
        ConfigError: they do.
    """
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    if config.train.batch_size == 1 and any(isinstance(layer, norms) for layer in model.modules()):
        raise ConfigError(
            f"the model '{config.model.name}' has batch normalisation and cannot train on batches of one image; "
            "set train.batch_size to 2 or more."
        )


def may_owe(device: torch.device) -> int:
    """Batches whose sums may be unread: a GPU that is asked after each has nothing to do meanwhile."""
    return 1 if device.type == "cpu" else 50


def compile_network(model: torch.nn.Module, device: torch.device) -> None:
    """The network computes as compiled code from its next call on; on a GPU each pass is one recorded graph.

    Raises:
        ConfigError: there is nothing to compile with.
    """
    missing = "a C++ compiler" if device.type == "cpu" else "Triton"
    found = find_compiler() if device.type == "cpu" else importlib.util.find_spec("triton") is not None
    if not found:
        raise ConfigError(f"train.compile needs {missing}, which is not here; leave it off.")
    model.compile(dynamic=False, mode="default" if device.type == "cpu" else "reduce-overhead")


def find_compiler() -> bool:
    """A C++ compiler is here that torch would take."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "cl") if name)


def choose_precision(settings: TrainSettings) -> Literal["32-true", "bf16-mixed"]:
    """The precision that `auto` stands for on this machine: bf16-mixed where bf16 arithmetic is native."""
    if settings.precision != "auto":
        return settings.precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    capabilities = torch.cpu.get_capabilities()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        # cuBLAS has deterministic sums only with a workspace of fixed size; torch insists on it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
