"""Nothing of test can have a part in the choice: not its labels, and not its images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.studies.sweep.conftest import TEST

from clearmargin.studies.sweep import trial
from clearmargin.studies.sweep.trial import Part
from clearmargin.training.batches import TrainingImages


def flip(data: Path, patients: tuple[str, ...], to: Path) -> Path:
    """A copy of the images in which these patients have their classes the other way round."""
    shutil.copytree(data, to)
    for patient in patients:
        for file in list((to / patient).glob("*/*.png")):
            label = int(file.stem[-1])
            name = f"{file.stem[:-1]}{1 - label}_was{label}.png".replace(f"_was{label}", "")
            place = to / patient / f"new{1 - label}" / name
            place.parent.mkdir(exist_ok=True)
            file.rename(place)
        for label in (0, 1):
            (to / patient / str(label)).rmdir()
            (to / patient / f"new{label}").rename(to / patient / str(label))
    return to


def trials_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv").drop(columns="seconds")


def labels_of(folder: Path) -> pd.Series[int]:
    table = pd.read_csv(folder / "split.csv")
    return table[table["split"] == "test"].sort_values("path")["label"]


def test_flipping_the_labels_of_test_changes_no_trial(
    make_folder: Callable[..., Path], search: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_folder(patients=10, px=32)
    found = search(data, "as_it_is")
    flipped = search(flip(data, TEST, tmp_path / "flipped"), "flipped_test")
    assert (pd.read_csv(found / "folds.csv").shape) == (pd.read_csv(flipped / "folds.csv").shape)
    pd.testing.assert_frame_equal(trials_of(found), trials_of(flipped))
    assert trials_of(found)["value"].notna().all()
    # The very same change to patients of train does change the table, so the comparison can fail.
    other = search(flip(data, ("P00", "P01"), tmp_path / "other"), "flipped_train")
    assert not trials_of(found)["value"].equals(trials_of(other)["value"])


def test_no_trial_is_given_an_image_of_test(
    make_folder: Callable[..., Path], search: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[TrainingImages] = []
    fit = trial.fit

    def spy(model: Any, data: TrainingImages, *arguments: Any, **options: Any) -> Any:
        given.append(data)
        assert options["store"].images is data.images
        return fit(model, data, *arguments, **options)

    monkeypatch.setattr(trial, "fit", spy)
    folder = search(make_folder(patients=10, px=32), "spied")
    split, folds = pd.read_csv(folder / "split.csv"), pd.read_csv(folder / "folds.csv")
    test = split["split"] == "test"
    assert test.any()
    assert np.flatnonzero(test)[0] < np.flatnonzero(~test)[-1]
    assert not set(folds["path"]) & set(split["path"][test])
    assert set(folds["patient_id"]).isdisjoint(TEST)
    assert len(given) == 4
    for data in given:
        assert isinstance(data.images, Part)
        assert len(data.images) == len(data.labels) == (~test).sum()
        assert data.images._rows.tolist() == np.flatnonzero(~test).tolist()
        with pytest.raises(IndexError):
            data.images[np.array([len(data.images)])]
    for number in (1, 2):  # patients are whole, and each is held out in one fold
        assert (folds.groupby("patient_id")[f"fold_{number}"].nunique() == 1).all()
        assert set(folds[f"fold_{number}"]) == {"train", "validation", "held out"}
    assert ((folds[["fold_1", "fold_2"]] == "held out").sum(axis=1) == 1).all()
