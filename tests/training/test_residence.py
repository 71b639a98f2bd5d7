"""Images in the memory of the device train as images in a map do, and what cannot lie there is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.toy_training import lasting, toy_config, toy_images, train, weights

from clearmargin.errors import ConfigError, DataError
from clearmargin.images.fields import Fields
from clearmargin.training import loop, residence
from clearmargin.training.residence import place_images

CPU = torch.device("cpu")


def test_training_from_the_device_is_training_from_the_map_bit_for_bit(tmp_path: Path) -> None:
    there = train(tmp_path / "there", toy_config(images_on="device"))
    here = train(tmp_path / "here", toy_config(images_on="host"))
    assert lasting(there.history) == lasting(here.history)
    assert all(torch.equal(tensor, weights(here)[name]) for name, tensor in weights(there).items())


def test_a_cpu_leaves_the_images_where_they_are_unless_told() -> None:
    images = toy_images().images
    assert place_images(images, CPU, "auto") is None
    assert place_images(images, CPU, "host") is None
    placed = place_images(images, CPU, "device")
    assert placed is not None
    np.testing.assert_array_equal(placed.numpy(), images)


def test_a_map_that_cannot_be_written_to_is_copied_chunk_by_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.asarray(toy_images().images)
    np.save(tmp_path / "images.npy", images)
    monkeypatch.setattr(residence, "_CHUNK_BYTES", 5 * images[0].nbytes)
    placed = place_images(np.load(tmp_path / "images.npy", mmap_mode="r"), CPU, "device")
    assert placed is not None
    np.testing.assert_array_equal(placed.numpy(), images)


@pytest.mark.parametrize(("share", "placed"), [(0.4, True), (0.6, False)])
def test_a_device_takes_what_half_of_its_free_memory_holds(
    share: float, placed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = toy_images().images
    monkeypatch.setattr(residence, "_free_bytes", lambda device: int(np.asarray(images).nbytes / share))
    # "meta" stands for a device with memory of its own: it takes shapes and no values.
    assert (place_images(images, torch.device("meta"), "auto") is not None) == placed
    if not placed:
        with pytest.raises(ConfigError, match=r"train\.images_on to auto or host"):
            place_images(images, torch.device("meta"), "device")


def test_fields_stay_and_asking_for_more_is_an_error() -> None:
    fields = Fields.__new__(Fields)
    assert place_images(fields, torch.device("meta"), "auto") is None
    with pytest.raises(ConfigError, match="batch by batch"):
        place_images(fields, CPU, "device")


def test_sums_that_are_read_late_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = train(tmp_path / "once", toy_config())
    monkeypatch.setattr(loop, "may_owe", lambda device: 3)
    late = train(tmp_path / "late", toy_config())
    assert lasting(late.history) == lasting(at_once.history)


def test_a_loss_that_is_read_late_names_its_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "may_owe", lambda device: 50)
    losses = iter([0.5, float("nan"), 0.5, 0.5])
    right = loop.cross_entropy
    monkeypatch.setattr(loop, "cross_entropy", lambda *args, **more: right(*args, **more) * 0 + next(losses))
    with pytest.raises(DataError, match="nan in epoch 1, batch 2"):
        train(tmp_path / "run", toy_config())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute:UserWarning")  # torch of itself
def test_a_compiled_network_learns_what_the_plain_one_does(tmp_path: Path) -> None:
    if not loop.find_compiler():
        pytest.skip("no C++ compiler is here")
    short = {"epochs": 1, "batch_size": 26}
    compiled = train(tmp_path / "compiled", toy_config("larger_model", compile=True, **short))
    plain = train(tmp_path / "plain", toy_config("larger_model", **short))
    assert compiled.history[0]["validation_loss"] == pytest.approx(plain.history[0]["validation_loss"], abs=0.05)
    assert weights(compiled).keys() == weights(plain).keys()


def test_without_a_compiler_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "find_compiler", lambda: False)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler"):
        train(tmp_path / "run", toy_config(compile=True))
