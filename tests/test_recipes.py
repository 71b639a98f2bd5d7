"""Every recipe runs from images to predictions, with the facts of the system that it reproduces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.models import keras_squeezenet

import clearmargin
from clearmargin.config import load_recipe, recipe_names


@pytest.mark.parametrize("recipe", recipe_names())
def test_recipe_runs_from_images_to_predictions(make_folder: Callable[..., Path], recipe: str) -> None:
    data = make_folder(patients=8, px=24)
    settings: dict[str, object] = {"evaluate.resamples": 100}
    if recipe == "transfer":
        settings |= {"model.weights": str(keras_squeezenet.write_weights(data.parent / "weights.h5"))}
    run = clearmargin.train(data, data.parent / "run", recipe=recipe, epochs=1, settings=settings)
    stored = pd.read_csv(run.folder / "predictions.csv")
    assert len(stored) == 64
    if load_recipe(recipe).train.crossfit:  # the others were judged by a network that had not seen them
        stored = stored[stored["split"] == "test"]
    predicted = clearmargin.load_bundle(run.folder).predict(stored["path"].tolist())
    np.testing.assert_allclose(predicted["probability"], stored["probability"], atol=1e-6)
    assert run.metrics["test"]["image"]["n_patients"] == 2
    history = pd.read_csv(run.folder / "history.csv")
    assert history["epoch"].tolist() == [1]


def test_recipes_hold_the_facts_of_their_systems() -> None:
    facts = {
        "larger_model": {"optimizer": "adam"},
        "cbis_ddsm": {"optimizer": "adam", "batch_size": 16, "epochs": 2, "patience": 3},
        "cnn_50": {"optimizer": "adam", "batch_size": 32, "epochs": 200},
        "cnn_3conv": {"optimizer": "adam"},
        "cancernet": {"balance": "weights"},
    }
    assert set(recipe_names()) == {*facts, "default", "transfer"}
    for name, expected in facts.items():
        train = load_recipe(name).train
        assert {key: getattr(train, key) for key in expected} == expected
        assert load_recipe(name).model.name == name
    sizes = {name: load_recipe(name).images.size for name in facts}
    assert sizes["cbis_ddsm"] == (64, 64)
    assert sizes["cnn_50"] == (50, 50)
    assert sizes["cancernet"] == (48, 48)
    augmented = load_recipe("cbis_ddsm").augment
    assert min(augmented.rotate_degrees, augmented.shift, augmented.zoom, augmented.horizontal_flip) > 0


def test_model_option_takes_the_place_of_the_recipes_network(make_folder: Callable[..., Path]) -> None:
    config = load_recipe("default", {"model.name": "cnn_3conv"})
    assert config.model.name == "cnn_3conv"
    assert config.train == load_recipe("default").train
