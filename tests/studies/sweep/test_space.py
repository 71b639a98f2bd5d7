"""A space is read as it is meant, and what is wrong with one is told before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from clearmargin.config import setting_names
from clearmargin.errors import ConfigError
from clearmargin.studies.sweep.space import Choices, Range, Space, check_space, read_space


def read(tmp_path: Path, text: str, **changes: object) -> Space:
    file = tmp_path / "space.toml"
    file.write_text(text)
    space = read_space(file)
    check_space(file, space, "cnn_3conv", changes)
    return space


def test_ranges_and_choices_are_read_with_and_without_quotes(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        '"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }\n'
        "train.batch_size = [32, 64]\n"
        "epochs = { low = 1, high = 8, step = 3 }\n"
        'recipe = ["cnn_3conv", "cancernet"]\n'
        "[augment]\nhorizontal_flip = [true, false]\nzoom = { low = 0, high = 1e-1 }\n",
    )
    assert space.parameters == (
        Choices("augment.horizontal_flip", (True, False)),
        Range("augment.zoom", "float", 0.0, 0.1),
        Choices("recipe", ("cnn_3conv", "cancernet")),
        Choices("train.batch_size", (32, 64)),
        Range("train.epochs", "int", 1, 7, step=3),
        Range("train.learning_rate", "float", 1e-4, 1e-2, log=True),
    )
    assert space.recipes == ("cnn_3conv", "cancernet")
    again = tmp_path / "again.toml"
    again.write_text(tomli_w.dumps(space.table()))
    assert read_space(again) == space


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the space is empty"),
        ("train.lerning_rate = [1, 2]", "no setting 'train.lerning_rate'; did you mean 'train.learning_rate'"),
        ("batchsize = [1, 2]", "batch_size'?"),
        ("train.batch_size = { low = 0, high = 5 }", "'train.batch_size' cannot be 0: it should be greater"),
        ("train.batch_size = { low = 1, high = 2.5 }", "high = 2.5; this setting is a whole number"),
        ("train.epochs = { low = 1, hihg = 5 }", "unknown part 'hihg'; did you mean 'high'"),
        ("train.epochs = { low = 1 }", "'train.epochs' has no high"),
        ("train.epochs = { low = 5, high = 1 }", "low must be below high"),
        ("train.epochs = { low = 1, high = 5, step = 9 }", "step = 9; it must be above 0"),
        ("train.epochs = { low = 1, high = 5, step = 2, log = true }", "keep one of them"),
        ("train.epochs = { low = true, high = 5 }", "low = True; write a number"),
        ("train.epochs = { low = 1, high = 5, log = 1 }", "log = 1; write true or false"),
        ("train.weight_decay = { low = 0, high = 1, log = true }", "on a log scale low must be above 0"),
        ("train.learning_rate = { low = nan, high = 1 }", "low must be below high"),
        ("train.learning_rate = { low = 1, high = inf }", "cannot be inf"),
        ("train.epochs = 3", "is one value, 3; give a list"),
        ("train.epochs = [3]", "1 value to choose from"),
        ("train.epochs = [3, 3]", "a value twice"),
        ("train.epochs = [3, {a = 1}]", "must be a list of numbers, texts"),
        ("train.epochs = [3, 4]\nepochs = [3, 4]", "is there twice"),
        ('train.optimizer = ["adam", "sgd"]', "cannot be 'sgd': it should be 'adam', 'adamw' or 'adagrad'"),
        ("augment.horizontal_flip = { low = 0, high = 1 }", "is no number, and has no range"),
        ('recipe = ["default", "cnn_5"]', "no recipe 'cnn_5'; did you mean 'cnn_50'"),
        ("train = [1, 2]", "'train' is a section"),
        ("seed = [1, 2]", "'seed' cannot be swept: all trials share it"),
        ("split.seed = [1, 2]", "'split.seed' cannot be swept: it changes who is in test"),
        ("split.fractions = [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2]]", "it changes who is in test"),
        ('data.root = ["a", "b"]', "it changes which images there are"),
        ("images.channels = [1, 3]", "images are packed once for all trials"),
        ("train.crossfit = [0, 4]", "a trial trains one network in each fold"),
        ('evaluate.calibration = ["platt", "beta"]', "judged by its AUROC, which it does not change"),
        ("train.epochs = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'space.toml'}: ")
    assert told in message
    assert "\n" not in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        read_space(tmp_path / "nowhere.toml")


def test_nothing_that_touches_data_or_split_can_be_swept(tmp_path: Path) -> None:
    for key in setting_names():
        if key.partition(".")[0] in ("data", "split", "images", "evaluate", "cases", "seed"):
            with pytest.raises(ConfigError, match="cannot be swept"):
                read(tmp_path, f"{key} = [1, 2]")


def test_values_are_held_against_every_recipe_of_the_space(tmp_path: Path) -> None:
    text = 'recipe = ["cnn_3conv", "transfer"]\naugment.zoom = [0.1, 0.2]'
    with pytest.raises(ConfigError, match="features are computed once and cannot be augmented"):
        read(tmp_path, text)
