"""A run that was stopped or killed and resumed is the run that was never stopped, bit for bit."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tests.training.toy_training import (
    Heard,
    lasting,
    toy_config,
    toy_images,
    train,
    train_in_pieces,
    train_to_the_end,
    weights,
)

from clearmargin.errors import Interrupted
from clearmargin.settings import RunConfig
from clearmargin.training.loop import Fitted

RUNS: dict[str, tuple[RunConfig, int]] = {
    "default: adamw, cosine, moving average, stain, dropout": (toy_config(), 16),
    "default in bf16": (toy_config(precision="bf16-mixed"), 16),
    "default with the sampler, best weights and patience": (
        toy_config(balance="sampler", restore_best=True, patience=2, monitor="validation_loss"), 16),
    "cancernet: adagrad with decay, class weights, dropout, warps": (toy_config("cancernet"), 16),
    "cnn_50: adam, dropout": (toy_config("cnn_50"), 24),
    "cbis_ddsm: adam, patience, best weights": (toy_config("cbis_ddsm", epochs=3), 16),
}  # fmt: skip


def same(one: Fitted, other: Fitted) -> None:
    assert lasting(one.history) == lasting(other.history)
    assert (one.best_epoch, one.stopped_early) == (other.best_epoch, other.stopped_early)
    assert weights(one).keys() == weights(other).keys()
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


@pytest.mark.parametrize("name", RUNS)
def test_a_run_stopped_after_every_batch_is_the_uninterrupted_run(name: str, tmp_path: Path) -> None:
    config, px = RUNS[name]
    config = config.model_copy(update={"deterministic": True})
    data = toy_images(px)
    whole = train(tmp_path / "whole", config, data=data)
    pieces, stops = train_in_pieces(tmp_path / "pieces", config, batches=1, data=data)
    assert stops == 12
    same(whole, pieces)


def test_a_run_stopped_twice_in_the_middle_of_an_epoch_is_the_uninterrupted_run(tmp_path: Path) -> None:
    config = toy_config(restore_best=True)
    whole = train(tmp_path / "whole", config)
    pieces, stops = train_in_pieces(tmp_path / "pieces", config, batches=5)
    assert stops == 2
    same(whole, pieces)
    one, other = (pd.read_csv(tmp_path / part / "history.csv") for part in ("whole", "pieces"))
    clock = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(one.drop(columns=clock), other.drop(columns=clock), check_exact=True)


def test_two_runs_with_one_seed_are_the_same_and_another_seed_is_not(tmp_path: Path) -> None:
    first, again, other = (
        train(tmp_path / str(number), toy_config().model_copy(update={"seed": seed}))
        for number, seed in enumerate((1, 1, 2))
    )
    same(first, again)
    assert lasting(first.history) != lasting(other.history)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("batches", [2, 4])
def test_a_signal_saves_the_state_and_ends_as_interrupted(number: signal.Signals, batches: int, run: Path) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match=r"run: stopped in epoch [12], the state is saved\. .*--resume") as caught:
        train(run, toy_config(), listener=Heard(stop_at=batches, number=number))
    assert caught.value.exit_code == 130
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    heard = Heard()
    train(run, toy_config(), listener=heard)
    assert heard.batches == 12 - batches
    assert heard.notes == [f"Resuming after epoch {batches // 4}, batch {batches % 4}."]
    assert heard.totals[-1] == (12, 12)


def test_a_finished_run_that_is_resumed_trains_no_batch_and_gives_the_same_model(run: Path) -> None:
    config = toy_config(restore_best=True, monitor="validation_loss")
    done = train(run, config)
    heard = Heard()
    same(done, train(run, config, listener=heard))
    assert heard.batches == 0


def test_a_run_that_stopped_early_stays_stopped(run: Path) -> None:
    config = toy_config(epochs=50, learning_rate=1e-9, warmup_epochs=0, average_decay=0, patience=1)
    done = train(run, config)
    assert done.stopped_early
    heard = Heard()
    same(done, train(run, config, listener=heard))
    assert heard.batches == 0


def test_checkpoints_are_written_inside_a_long_epoch(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = count_saves(monkeypatch)
    train(run, toy_config(epochs=1, checkpoint_minutes=1e-9))
    assert saved == [(0, 1), (0, 2), (0, 3), (1, 0)]


def test_a_short_epoch_is_saved_once_at_its_end(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = count_saves(monkeypatch)
    train(run, toy_config(epochs=2))
    assert saved == [(1, 0), (2, 0)]


def count_saves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    from clearmargin.training import loop

    saved: list[tuple[int, int]] = []
    write = loop.write_checkpoint

    def counted(folder: Path, state: Any, fingerprint: str) -> None:
        saved.append((state.progress.epoch, state.progress.batch))
        write(folder, state, fingerprint)

    monkeypatch.setattr(loop, "write_checkpoint", counted)
    return saved


def test_a_run_killed_again_and_again_is_the_uninterrupted_run(tmp_path: Path) -> None:
    config = toy_config(epochs=6, checkpoint_minutes=1e-9).model_copy(update={"deterministic": True})
    whole = train(tmp_path / "whole", config)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["clearmargin.training.loop", "clearmargin.models"])
    moments = random.Random(3)
    killed = 0
    for _ in range(5):
        child = processes.Process(target=train_to_the_end, args=(tmp_path / "killed", config))
        child.start()
        began = time.monotonic()
        state = tmp_path / "killed" / "checkpoint" / "state.safetensors"
        while child.is_alive() and not state.exists() and time.monotonic() - began < 60:
            time.sleep(0.01)
        child.join(moments.uniform(0.0, 0.4))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
    assert killed >= 2
    heard = Heard()
    same(whole, train(tmp_path / "killed", config, listener=heard))
    assert heard.batches < 24
