"""A fold of a trial is a function of what it is given, interrupted or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clearmargin.config import load_recipe
from clearmargin.data.store import Store
from clearmargin.errors import DataError, Interrupted
from clearmargin.images.preprocess import Preprocessing
from clearmargin.settings import RunConfig
from clearmargin.studies.sweep.trial import HELD_OUT, Folds, Packed, Part, judge_fold, part_of
from clearmargin.training import loop
from clearmargin.types import Listener

N = 48
SPEC = Preprocessing(width=32, height=32)


def setting(**changes: Any) -> RunConfig:
    named = {f"train.{name}": value for name, value in changes.items()}
    return load_recipe("larger_model", {"images.size": [32, 32], "train.epochs": 2, "train.batch_size": 8, **named})


def material(root: Path) -> tuple[Packed, Folds, np.ndarray]:
    """Twice as many images as a trial may see; every other one of the store is its own."""
    labels = np.tile(np.array([0, 1], dtype=np.int8), N // 2)
    generator = np.random.default_rng(0)
    images = np.zeros((2 * N, *SPEC.shape), np.uint8)
    images[1::2] = np.clip(generator.integers(0, 200, (N, *SPEC.shape)) + 40 * labels[:, None, None, None], 0, 255)
    roles = np.array(["train"] * 24 + ["validation"] * 8 + [HELD_OUT] * 16)
    store = part_of(Store(images, root / "store", 0), np.arange(1, 2 * N, 2))
    return Packed(store, SPEC, grey=False), Folds(labels, (roles,)), labels


def test_a_part_gives_its_own_images_and_no_others() -> None:
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    part = Part(images, np.array([2, 5, 7]))
    assert len(part) == part.nbytes == 3
    assert part[np.array([2, 0])].ravel().tolist() == [7, 2]
    assert part[0:2].ravel().tolist() == [2, 5]
    with pytest.raises(IndexError):
        part[np.array([3])]


def test_the_value_is_the_auroc_of_what_was_held_out_and_nothing_is_left(tmp_path: Path) -> None:
    packed, folds, labels = material(tmp_path)
    result, logits = judge_fold(packed, folds, setting(), 0, scratch=tmp_path / "scratch")
    assert result.value == pytest.approx(roc_auc_score(labels[32:], logits))
    assert result.epochs == 2
    assert logits.shape == (16,)
    assert not (tmp_path / "scratch").exists()


def test_one_network_is_trained_whatever_the_settings_say_of_several(tmp_path: Path) -> None:
    packed, folds, _ = material(tmp_path)
    once = judge_fold(packed, folds, setting(), 0, scratch=tmp_path / "a")[1]
    several = judge_fold(packed, folds, setting(crossfit=4, seeds=3), 0, scratch=tmp_path / "b")[1]
    np.testing.assert_array_equal(once, several)


def test_images_that_fit_on_the_device_give_the_same(tmp_path: Path) -> None:
    packed, folds, _ = material(tmp_path)
    sent = judge_fold(packed, folds, setting(), 0, scratch=tmp_path / "a")[1]
    placed = judge_fold(packed, folds, setting(images_on="device"), 0, scratch=tmp_path / "b")[1]
    np.testing.assert_array_equal(sent, placed)


def test_an_interrupted_fold_goes_on_to_the_very_same_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, folds, _ = material(tmp_path)
    whole = judge_fold(packed, folds, setting(), 0, scratch=tmp_path / "whole")[1]

    class Asked:
        requested = True

        def __enter__(self) -> Asked:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "StopRequest", Asked)
        judge_fold(packed, folds, setting(), 0, scratch=tmp_path / "parts")
    noted: list[str] = []

    class Hearing(Listener):
        def note(self, text: str) -> None:
            noted.append(text)

    parts = judge_fold(packed, folds, setting(), 0, scratch=tmp_path / "parts", listener=Hearing())[1]
    assert any("Resuming after epoch 0, batch 1" in each for each in noted)
    np.testing.assert_array_equal(parts, whole)


def test_a_rate_that_is_too_high_is_the_trials_own_error(tmp_path: Path) -> None:
    packed, folds, _ = material(tmp_path)
    with pytest.raises(DataError, match="Lower the learning rate"):
        judge_fold(packed, folds, setting(learning_rate=1e30), 0, scratch=tmp_path / "scratch")
