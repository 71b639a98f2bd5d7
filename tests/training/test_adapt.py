"""Settings adapted to the images: longer for few, other changes for grey ones, large data in colour as written."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.training.toy_training import Heard

import clearmargin
from clearmargin.config import check_config, dump_config, load_recipe, read_config, recipe_names
from clearmargin.errors import Interrupted
from clearmargin.settings import RunConfig, TrainSettings
from clearmargin.training.adapt import adapt_to_images, are_grey, describe_adapted
from clearmargin.training.batches import batch_bounds
from clearmargin.types import Content

DEFAULT = load_recipe("default")


def painted(
    colour: tuple[int, int, int], *, number: int = 6, px: int = 8
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((number, px, px, 3), colour, np.uint8)


def of(epochs: int, batch_size: int, min_steps: int) -> RunConfig:
    return RunConfig(train=TrainSettings(epochs=epochs, batch_size=batch_size, min_steps=min_steps))


class TestEpochs:
    @given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 2000), st.integers(2, 5000))
    def test_are_the_fewest_that_make_the_steps_and_never_fewer_than_written(
        self, epochs: int, batch_size: int, min_steps: int, images: int
    ) -> None:
        steps = len(batch_bounds(images, batch_size))
        adapted = adapt_to_images(of(epochs, batch_size, min_steps), images=images, grey=False).train.epochs
        assert adapted >= epochs
        assert adapted * steps >= min_steps
        assert adapted == epochs or (adapted - 1) * steps < min_steps

    def test_more_images_never_make_more_epochs(self) -> None:
        epochs = [adapt_to_images(DEFAULT, images=images, grey=False).train.epochs for images in range(2, 4000, 7)]
        assert epochs == sorted(epochs, reverse=True)

    def test_set_by_hand_they_are_kept_for_two_images(self) -> None:
        config = load_recipe("default", {"epochs": 3})
        assert adapt_to_images(config, images=2, grey=False).train.epochs == 3


class TestChanges:
    def test_grey_images_are_not_turned_upside_down_nor_stained(self) -> None:
        augment = adapt_to_images(DEFAULT, images=500, grey=True).augment
        assert (augment.quarter_turns, augment.vertical_flip, augment.stain) == (False, False, 0.0)
        assert augment.horizontal_flip

    @pytest.mark.parametrize("name", [name for name in recipe_names() if name not in ("default", "transfer")])
    def test_the_recipes_of_other_systems_run_as_their_authors_wrote_them(self, name: str) -> None:
        config = load_recipe(name)
        for grey in (False, True):
            assert adapt_to_images(config, images=10, grey=grey) == config

    def test_once_adapted_there_is_nothing_to_adapt(self) -> None:
        once = adapt_to_images(DEFAULT, images=48, grey=True)
        assert adapt_to_images(once, images=48, grey=True) == once
        assert check_config(once.model_dump(mode="json")) == once

    @pytest.mark.parametrize("grey", [False, True])
    def test_a_saved_config_is_adapted_as_the_first(self, grey: bool) -> None:
        saved = check_config(tomllib.loads(dump_config(DEFAULT)))
        first, again = (adapt_to_images(each, images=100, grey=grey) for each in (DEFAULT, saved))
        assert first == again


def test_large_data_in_colour_are_trained_as_the_recipe_says() -> None:
    adapted = adapt_to_images(DEFAULT, images=13_000, grey=False)
    assert adapted.augment == DEFAULT.augment
    assert adapted.train == DEFAULT.train.model_copy(update={"min_steps": 0})
    assert describe_adapted(DEFAULT, adapted) == []


def test_what_was_adapted_is_said_with_the_settings_that_say_so() -> None:
    written = DEFAULT.train.epochs
    longer, other = describe_adapted(DEFAULT, adapt_to_images(DEFAULT, images=40, grey=True))
    assert f"epochs instead of {written}" in longer
    assert "train.min_steps" in longer
    assert "augment_grey" in other


class TestGrey:
    @pytest.mark.parametrize("content", get_args(Content))
    def test_known_content_decides_whatever_the_pixels_say(self, content: Content) -> None:
        for colour in ((200, 120, 170), (90, 90, 90)):
            assert are_grey(painted(colour), content=content) == (content != "histology")

    def test_pixels_decide_of_unknown_content(self) -> None:
        assert are_grey(painted((90, 90, 90)))
        assert are_grey(painted((90, 90, 90))[..., :1])
        assert not are_grey(painted((200, 120, 170)))

    def test_marks_in_colour_and_a_few_coloured_images_change_nothing(self) -> None:
        images = painted((90, 90, 90), number=9, px=40)
        images[:, :3, :3] = (255, 255, 0)
        images[:4] = (200, 120, 170)
        assert are_grey(images)

    def test_of_many_images_some_spread_over_all_are_looked_at(self) -> None:
        images = np.concatenate([painted((90, 90, 90), number=400), painted((200, 120, 170), number=600)])
        assert not are_grey(images)
        assert are_grey(images[:600])


def grey_folder(root: Path) -> Path:
    """24 grey images in folders of their class; malignant ones are darker in their middle."""
    generator = np.random.default_rng(0)
    for number in range(24):
        label = number % 2
        pixels = generator.integers(90, 200, (16, 16)).astype(np.uint8)
        pixels[4:12, 4:12] -= np.uint8(80 * label)
        folder = root / ("benign", "malignant")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def test_a_run_is_trained_as_adapted_and_keeps_the_settings_as_written(tmp_path: Path) -> None:
    heard = Heard()
    settings = {"train.min_steps": 9, "train.epochs": 2, "evaluate.resamples": 100, "batch_size": 8, "crossfit": 0}
    run = clearmargin.train(
        grey_folder(tmp_path / "data"), tmp_path / "run", by="image", settings=settings, listener=heard
    )
    epochs = len(pd.read_csv(run.folder / "history.csv"))
    images = (pd.read_csv(run.folder / "split.csv")["split"] == "train").sum()
    assert epochs == -(-9 // len(batch_bounds(images, 8))) > 2
    assert any("epochs instead of 2" in note for note in heard.notes)
    assert any("augment_grey" in note for note in heard.notes)
    report = run.report.read_text(encoding="utf-8")
    assert f"{epochs} of at most {epochs} epochs" in report
    assert "rotate 10°" in report
    saved = read_config(run.folder / "config.toml")
    assert (saved.train.epochs, saved.train.min_steps) == (2, 9)
    assert saved.augment == DEFAULT.augment


def test_a_stopped_run_on_few_images_goes_on_to_its_adapted_end(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_folder(patients=5, per_class=2)
    settings = {
        "train.min_steps": 6,
        "train.epochs": 1,
        "evaluate.resamples": 100,
        "precision": "32-true",
        "crossfit": 0,
    }
    whole = clearmargin.train(data, tmp_path / "whole", settings=settings)
    with pytest.raises(Interrupted):
        clearmargin.train(data, tmp_path / "pieces", settings=settings, listener=Heard(stop_at=4))
    pieces = clearmargin.train(data, tmp_path / "pieces", resume=True)
    one, other = (pd.read_csv(run.folder / "history.csv") for run in (whole, pieces))
    clock = ["seconds", "images_per_second"]
    assert len(one) == 6
    pd.testing.assert_frame_equal(one.drop(columns=clock), other.drop(columns=clock), check_exact=True)
    assert (whole.bundle / "weights.safetensors").read_bytes() == (pieces.bundle / "weights.safetensors").read_bytes()
