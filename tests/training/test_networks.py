"""Cross-fitted networks: who each is trained on, who answers for whom, and what resuming must not change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.training.toy_training import Heard, lasting, plain_config, toy_images, weights

from clearmargin.errors import Interrupted
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.models.contract import Classifier, Deployed
from clearmargin.settings import RunConfig
from clearmargin.training import networks
from clearmargin.training.batches import TrainingImages
from clearmargin.training.loop import Fitted, fit_model
from clearmargin.training.networks import Trained, train_networks
from clearmargin.types import Listener

dealt = np.array([number // 2 % 3 for number in range(30)] + [-1] * 6)
"""Of the 36 toy images, the last six are kept away."""


def config(**changes: Any) -> RunConfig:
    return plain_config(**({"epochs": 2} | changes)).model_copy(update={"deterministic": True})


def fit(
    run: Path,
    settings: RunConfig,
    *,
    parts: np.ndarray | None = dealt,
    data: TrainingImages | None = None,
    fit_one: Callable[..., Fitted] = fit_model,
    listener: Listener = Listener(),
) -> Trained:
    run.mkdir(exist_ok=True)
    spec = Preprocessing(width=16, height=16)

    def train_one(data: TrainingImages, settings: RunConfig, run: Path, fingerprint: str) -> Fitted:
        model = build_model("cbis_ddsm", spec.shape, seed=settings.seed)
        return fit_one(model, data, settings, spec, run=run, fingerprint=fingerprint, listener=listener)

    return train_networks(
        train_one,
        data or toy_images(),
        settings,
        parts=parts,
        run=run,
        fingerprint="toy",
        listener=listener,
    )


def scores(model: Classifier, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return Deployed(model, 0.0, 1.0).eval()(torch.from_numpy(images))[0].numpy()


def logits_of(trained: Trained, images: np.ndarray) -> np.ndarray:
    def of(number: int | None, rows: np.ndarray) -> np.ndarray:
        return scores(trained.model if number is None else trained.networks[number].model, images[rows])

    return trained.logits(of, len(images))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    run = tmp_path_factory.mktemp("networks") / "whole"
    return run, fit(run, config())


def test_each_network_is_trained_without_one_part_and_validated_on_it(tmp_path: Path) -> None:
    seen: list[TrainingImages] = []
    seeds: list[int] = []

    def watched(model: Classifier, data: TrainingImages, settings: RunConfig, *rest: Any, **more: Any) -> Fitted:
        seen.append(data)
        seeds.append(settings.seed)
        return fit_model(model, data, settings, *rest, **more)

    fit(tmp_path / "run", plain_config(epochs=1), fit_one=watched)
    assert len(seen) == 3
    for number, data in enumerate(seen):
        assert set(data.validation) == set(np.flatnonzero(dealt == number))
        assert set(data.train) == set(np.flatnonzero((dealt != number) & (dealt >= 0)))
    assert len(set(seeds)) == 3


def test_every_image_is_answered_by_the_network_that_has_not_seen_it_and_test_by_all(
    trained: tuple[Path, Trained],
) -> None:
    _, whole = trained
    images = np.asarray(toy_images().images)
    by_network = np.stack([scores(network.model, images) for network in whole.networks])
    expected = np.where(dealt >= 0, by_network[np.maximum(dealt, 0), np.arange(36)], by_network.mean(axis=0))
    np.testing.assert_allclose(logits_of(whole, images), expected, atol=1e-5)


def test_one_network_answers_for_all_where_nothing_is_cross_fitted(tmp_path: Path) -> None:
    alone = fit(tmp_path / "run", config(), parts=None)
    assert (len(alone.networks), alone.parts) == (1, None)
    assert alone.model is alone.networks[0].model
    images = np.asarray(toy_images().images)
    np.testing.assert_array_equal(logits_of(alone, images), scores(alone.model, images))
    assert not (tmp_path / "run" / "checkpoint" / "0").exists()
    assert (tmp_path / "run" / "checkpoint").is_dir()


def test_the_history_of_the_run_is_the_mean_of_its_networks(trained: tuple[Path, Trained]) -> None:
    run, whole = trained
    parts = [pd.read_csv(run / "checkpoint" / str(number) / "history.csv") for number in range(3)]
    expected = pd.concat(parts).groupby("epoch").mean()
    pd.testing.assert_frame_equal(pd.read_csv(run / "history.csv").set_index("epoch"), expected, rtol=1e-6)
    assert [len(network.history) for network in whole.networks] == [2, 2, 2]


def test_networks_that_stop_early_leave_the_mean_to_the_others(tmp_path: Path) -> None:
    histories = [[{"epoch": 1.0, "loss": 4.0}], [{"epoch": 1.0, "loss": 2.0}, {"epoch": 2.0, "loss": 1.0}]]
    assert networks._mean_history(histories) == [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 1.0}]


BATCHES = 2 * 3
"""Of each network: two epochs of 20 images, eight at a time."""


@pytest.mark.parametrize("stop", [BATCHES + 1, BATCHES + 3, 2 * BATCHES, 2 * BATCHES + 2])
def test_a_run_stopped_in_any_network_and_resumed_is_the_uninterrupted_run(
    trained: tuple[Path, Trained], tmp_path: Path, stop: int
) -> None:
    _, whole = trained
    with pytest.raises(Interrupted):
        fit(tmp_path / "run", config(), listener=Heard(stop_at=stop))
    heard = Heard()
    resumed = fit(tmp_path / "run", config(), listener=heard)
    assert heard.batches == 3 * BATCHES - stop
    for one, other in zip(whole.networks, resumed.networks, strict=True):
        assert lasting(one.history) == lasting(other.history)
        for name, tensor in weights(one).items():
            assert torch.equal(tensor, weights(other)[name]), name
    images = np.asarray(toy_images().images)
    np.testing.assert_array_equal(logits_of(whole, images), logits_of(resumed, images))


def test_images_that_are_kept_away_change_nothing(trained: tuple[Path, Trained], tmp_path: Path) -> None:
    _, whole = trained
    data = toy_images()
    images, labels = np.asarray(data.images).copy(), data.labels.copy()
    images[dealt == -1] = 255
    labels[dealt == -1] = 1 - labels[dealt == -1]
    other = fit(tmp_path / "run", config(), data=replace(data, images=images, labels=labels))
    for one, two in zip(whole.networks, other.networks, strict=True):
        assert lasting(one.history) == lasting(two.history)
        for name, tensor in weights(one).items():
            assert torch.equal(tensor, weights(two)[name]), name


def test_a_part_decides_over_its_own_network_only_by_being_left_out(
    trained: tuple[Path, Trained], tmp_path: Path
) -> None:
    """Other images in part 1 leave network 1 as it is, and change the others."""
    _, whole = trained
    data = toy_images()
    images = np.asarray(data.images).copy()
    images[dealt == 1] = 255 - images[dealt == 1]
    other = fit(tmp_path / "run", config(restore_best=False), data=replace(data, images=images))
    plain = fit(tmp_path / "plain", config(restore_best=False))
    same = [
        all(torch.equal(tensor, weights(two)[name]) for name, tensor in weights(one).items())
        for one, two in zip(plain.networks, other.networks, strict=True)
    ]
    assert same == [False, True, False]
    assert len(whole.networks) == 3


@pytest.mark.parametrize(("load", "threads", "told"), [(6.0, 2, True), (6.0, 1, False), (1.0, 2, False)])
def test_a_busy_machine_is_told_of_where_several_threads_would_wait_for_it(
    load: float, threads: int, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    heard = Heard()
    networks.note_of_load(heard)
    assert (heard.notes != []) == told
    assert all("OMP_NUM_THREADS=1" in note for note in heard.notes)
