"""The checkpoint: what goes in comes out, and a changed byte is noticed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.training.toy_training import Heard, toy_config, train
from torch import nn

from clearmargin.errors import DataError
from clearmargin.training.checkpoint import FILE_NAME, Progress, State, copy_state, read_checkpoint, write_checkpoint


def some_state() -> State:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 1))
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1 + 0.2, betas=(0.9, 0.98))
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.rand(2, 3, 3, 3)).sum().backward()
        optimizer.step()
    weights = dict(model.state_dict())
    progress = Progress(
        epoch=2,
        batch=1,
        step=7,
        loss_sum=1 / 3,
        best_value=math.pi,
        history=[{"epoch": 1, "train_loss": 0.1 + 0.2}],
    )
    # The average shares its memory with the model, as it may.
    return State(weights, optimizer.state_dict(), average=weights, best=copy_state(model), progress=progress)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) and tensor.dtype == other[name].dtype for name, tensor in one.items()
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "checkpoint", some_state(), "mine")
    return tmp_path / "checkpoint"


def test_what_was_written_is_read(written: Path) -> None:
    before, after = some_state(), read_checkpoint(written, "mine")
    assert after is not None
    assert equal(after.model, before.model)
    assert equal(after.average, before.average)
    assert equal(after.best, before.best)
    assert after.progress == before.progress
    assert after.optimizer["state"].keys() == before.optimizer["state"].keys()
    for index, values in before.optimizer["state"].items():
        assert equal(after.optimizer["state"][index], values)
    (old,), (new,) = before.optimizer["param_groups"], after.optimizer["param_groups"]
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in new.items()} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in old.items()
    }


def test_without_a_checkpoint_there_is_no_state(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "checkpoint", "mine") is None


def test_a_checkpoint_of_another_run_is_refused(written: Path) -> None:
    message = r"state\.safetensors: .* other settings, images, split, weights, precision or version\. Resume"
    with pytest.raises(DataError, match=message):
        read_checkpoint(written, "another")


def test_the_loop_refuses_the_checkpoint_of_another_run_before_it_trains(run: Path) -> None:
    train(run, toy_config(epochs=1), model="cbis_ddsm")
    heard = Heard()
    with pytest.raises(DataError, match="other settings, images, split"):
        train(run, toy_config(epochs=1), model="cbis_ddsm", fingerprint="other", listener=heard)
    assert heard.batches == 0


def test_the_file_is_safetensors_with_json_and_no_pickle(written: Path) -> None:
    with safe_open(written / FILE_NAME, framework="np") as file:
        assert file.metadata()["fingerprint"] == "mine"
        assert "model/0.weight" in file.keys()  # noqa: SIM118
    content = (written / FILE_NAME).read_bytes()
    assert content[8:9] == b"{"
    assert [path.name for path in written.iterdir()] == [FILE_NAME]


def test_a_changed_byte_anywhere_is_noticed(written: Path) -> None:
    path = written / FILE_NAME
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    positions = {*range(0, 40), len(content) - 1, *generator.integers(0, len(content), 250).tolist()}
    for position in sorted(positions):
        changed = bytearray(content)
        changed[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"state\.safetensors: the checkpoint cannot be read \(.+\)\. Remove it"):
            read_checkpoint(written, "mine")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_checkpoint_is_noticed(written: Path, share: float) -> None:
    path = written / FILE_NAME
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="cannot be read"):
        read_checkpoint(written, "mine")


@pytest.mark.parametrize("metadata", [None, {"fingerprint": "mine"}])
def test_safetensors_of_something_else_are_no_checkpoint(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / FILE_NAME, metadata=metadata)
    with pytest.raises(DataError, match="cannot be read"):
        read_checkpoint(tmp_path, "mine")


def test_a_write_that_fails_leaves_the_checkpoint_before_it(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    other = some_state()
    other.progress.epoch = 9
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(written, other, "mine")
    state = read_checkpoint(written, "mine")
    assert state is not None
    assert state.progress.epoch == 2


def test_a_copy_of_the_weights_does_not_change_with_them() -> None:
    layer = nn.Linear(2, 1)
    copied = copy_state(layer)
    with torch.no_grad():
        layer.weight.zero_()
    assert copied["weight"].any()
    assert not copied["weight"].requires_grad
