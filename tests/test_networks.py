"""From packed images to networks and their logits: what a context needs, and what must not decide anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.slides import PX, Placed, StopInTraining, slides_config

from clearmargin.bundle.read import read_bundle
from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.split import Assignment
from clearmargin.errors import Interrupted
from clearmargin.evaluation.choices import NO_CONTEXT, choose
from clearmargin.evaluation.context import Surroundings
from clearmargin.evaluation.predictions import read_predictions
from clearmargin.images.fields import make_thumbnails
from clearmargin.networks import Images, Learned, find_surroundings, learn, make_fields
from clearmargin.settings import RunConfig
from clearmargin.training.run_folder import is_begun
from clearmargin.types import Listener
from clearmargin.workflow import assign_splits, run_training, tabulate

CONFIG = RunConfig.model_validate({"model": {"field": 5, "thumbnail": 8}})


def manifest_of(*, patients: int = 6, **changes: Any) -> Manifest:
    """Four patches of a slide of each patient; `changes` replace the value in the last row."""
    n = 4 * patients
    columns: dict[str, list[Any]] = {
        "path": [f"/data/{number}.png" for number in range(n)],
        "label": [number % 2 for number in range(n)],
        "patient_id": [f"P{number // 4}" for number in range(n)],
        "slide_id": [f"S{number // 4}" for number in range(n)],
        "x": [50 * (number % 2) for number in range(n)],
        "y": [50 * (number // 2 % 2) for number in range(n)],
    }
    for name, value in changes.items():
        columns[name][-1] = value
    return build_manifest(columns, root=Path("/data"), source="csv")


def test_what_surrounds_a_patch_is_a_lattice_and_the_field_that_is_asked_for() -> None:
    everyone = np.arange(24)
    assert find_surroundings(CONFIG, manifest_of(), everyone) == Surroundings(50, 5, 8)
    without = CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"field": 0})})
    assert find_surroundings(without, manifest_of(), everyone) == Surroundings(50)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"slide_id": None}, NO_CONTEXT), ({"x": None}, NO_CONTEXT), ({"y": None}, NO_CONTEXT),
        ({"patient_id": None}, NO_CONTEXT), ({"x": 51}, "the patches of its slides lie on no common lattice"),
        ({"x": 0}, "the patches of its slides lie on no common lattice"),
    ],
)  # fmt: skip
def test_why_there_is_no_context(changes: dict[str, Any], says: str) -> None:
    assert find_surroundings(CONFIG, manifest_of(**changes), np.arange(24)) == says


def test_settings_and_few_patients_are_reasons_too() -> None:
    manifest, everyone = manifest_of(), np.arange(24)
    changes = {"evaluate": {"context": "none"}}, {"split": {"by": "image"}}
    told = [find_surroundings(RunConfig.model_validate(change), manifest, everyone) for change in changes]
    assert told == ["evaluate.context is none", "a split by image takes slides apart"]
    few = np.flatnonzero(manifest.frame["patient_id"].isin(["P0", "P1", "P2"]))
    assert find_surroundings(CONFIG, manifest, few) == (
        "context is judged on 4 validation patients or more, and there are 3"
    )
    fold = CONFIG.model_copy(update={"split": CONFIG.split.model_copy(update={"folds": 3, "fold": 0})})
    assert find_surroundings(fold, manifest, few) == Surroundings(50, 5, 8)  # folds are weighed together


def test_fields_are_made_of_the_images_and_their_places(placed: Placed) -> None:
    fields, spec = make_fields(placed.images, Surroundings(PX, 3, 4))
    assert spec.shape == (12, 12, 3)
    assert (spec.mean, spec.std) == (0.5, 0.1)
    frame = placed.images.manifest.frame
    small = make_thumbnails(placed.images.store.images, 4)
    row_of = {(s, x, y): n for n, (s, x, y) in enumerate(zip(frame["slide_id"], frame["x"], frame["y"], strict=True))}
    for row in (0, 17, 100):
        slide, x, y = (frame[name][row] for name in ("slide_id", "x", "y"))
        for i, j in np.ndindex(3, 3):
            other = row_of.get((slide, x + PX * (j - 1), y + PX * (i - 1)))
            part = fields[np.array([row])][0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            np.testing.assert_array_equal(part, 240 if other is None else small[other])


@pytest.fixture
def assignment(placed: Placed) -> Assignment:
    return assign_splits(placed.images.manifest, placed.config, Listener())


def same_weights(one: Learned, other: Learned) -> bool:
    pairs = [(one.network, other.network), (one.field, other.field)]
    return all(
        mine is not None and torch.equal(tensor, theirs.weights[name])
        for mine, theirs in pairs
        if theirs is not None
        for name, tensor in (mine.weights if mine else {}).items()
    )


def test_test_patients_never_decide_anything(
    placed: Placed, quick_networks: None, assignment: Assignment, tmp_path: Path
) -> None:
    first = learn(placed.config, assignment, placed.images, out=_made(tmp_path / "first"), listener=Listener())
    test = assignment.splits == "test"
    pixels = np.array(placed.images.store.images)
    pixels[test] = 255 - pixels[test]
    manifest = placed.images.manifest
    frame = manifest.frame.copy()
    frame.loc[test, "label"] = 1 - frame.loc[test, "label"]
    other_manifest = replace(manifest, frame=frame)
    images = Images(
        replace(placed.images.audit, manifest=other_manifest),
        placed.images.preprocessing,
        replace(placed.images.store, images=pixels),
        placed.images.data_sha256,
    )
    changed = Assignment(other_manifest, assignment.splits, assignment.protocol)
    other = learn(placed.config, changed, images, out=_made(tmp_path / "other"), listener=Listener())
    assert first.crossfit == other.crossfit == 3
    assert same_weights(first, other)
    rows = first.chosen_on(assignment)
    np.testing.assert_array_equal(rows, np.flatnonzero(~test))
    for name in ("logits", "field_logits"):
        one, two = getattr(first, name), getattr(other, name)
        np.testing.assert_array_equal(one[~test], two[~test])
        assert not np.array_equal(one[test], two[test])
    choices = [
        choose(tabulate(each, learned).iloc[rows], placed.config.evaluate, seed=0, surroundings=learned.surroundings)
        for each, learned in ((assignment, first), (changed, other))
    ]
    assert choices[0] == choices[1]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_images_are_read_batch_by_batch(
    placed: Placed, quick_networks: None, assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Watched(np.ndarray):
        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, np.ndarray):
                asked.append(len(key))
            return super().__getitem__(key)

    monkeypatch.setattr("clearmargin.predict.session.MAX_BATCH", 64)
    pixels = np.array(placed.images.store.images).view(Watched)
    images = replace(placed.images, store=replace(placed.images.store, images=pixels))
    config = slides_config(placed.data, train__crossfit=0, model__field=0, train__epochs=1)
    learned = learn(config, assignment, images, out=_made(tmp_path / "run"), listener=Listener())
    assert len(learned.logits) == len(pixels) > 64
    assert max(asked) <= 64


def test_without_crossfit_only_validation_chooses(
    placed: Placed, quick_networks: None, assignment: Assignment, tmp_path: Path
) -> None:
    config = slides_config(placed.data, train__crossfit=0, train__epochs=1)
    learned = learn(config, assignment, placed.images, out=_made(tmp_path / "run"), listener=Listener())
    assert learned.crossfit == 0
    np.testing.assert_array_equal(learned.chosen_on(assignment), assignment.rows("validation"))
    assert isinstance(learned.surroundings, str)  # of few patients
    assert learned.surroundings.startswith("context is judged on 4 validation patients or more")
    assert learned.field is None
    assert not (tmp_path / "run" / "field").exists()


def test_too_few_patients_to_cross_fit_is_told_and_one_network_is_trained(
    placed: Placed, quick_networks: None, tmp_path: Path
) -> None:
    manifest = placed.images.manifest
    patients = manifest.frame["patient_id"]
    names = sorted(patients.unique())
    splits = np.where(patients == names[0], "train", np.where(patients == names[1], "validation", "test"))
    listener = StopInTraining(-1, -1)
    config = slides_config(placed.data, model__field=0, train__epochs=1)
    few = Assignment(manifest, splits, "patient")
    learned = learn(config, few, placed.images, out=_made(tmp_path / "run"), listener=listener)
    assert learned.crossfit == 0
    assert listener.notes == [
        "Too few patients have either class to cross-fit the model; one network is trained on train, and what "
        "decides is chosen on validation."
    ]


def test_a_run_keeps_each_network_and_says_what_it_was_chosen_on(placed: Placed) -> None:
    for folder in (placed.run, placed.run / "field"):
        assert (folder / "history.csv").is_file()
        assert sorted(part.name for part in (folder / "checkpoint").iterdir()) == ["0", "1", "2"]
    model = read_bundle(placed.run).model
    assert (model.architecture.ensemble, model.architecture.field, model.lineage.crossfit) == (3, 3, 3)
    assert model.context is not None
    for decisions in (model, model.context):
        assert decisions.decision_point.chosen_on == "train and validation, out of fold"


@pytest.mark.parametrize("network", [1, 4], ids=["the second of the patch", "the second of the field"])
def test_a_run_stopped_in_a_network_and_resumed_is_the_uninterrupted_run(
    placed: Placed, quick_networks: None, tmp_path: Path, network: int
) -> None:
    run = tmp_path / "run"
    stopping = StopInTraining(network, 5)
    with pytest.raises(Interrupted):
        run_training(placed.config, run, images=placed.images, with_report=False, listener=stopping)
    assert is_begun(run)
    assert not (run / "predictions.csv").exists()
    begun = [part for part in ("checkpoint", "field/checkpoint") for n in range(3) if (run / part / str(n)).exists()]
    assert len(begun) == network + 1
    run_training(placed.config, run, images=placed.images, with_report=False, resume=True)
    assert (run / "predictions.csv").read_bytes() == (placed.run / "predictions.csv").read_bytes()
    for name in ("weights.safetensors", "context.safetensors"):
        assert (run / "bundle" / name).read_bytes() == (placed.run / "bundle" / name).read_bytes()
    one, other = read_bundle(run).model, read_bundle(placed.run).model
    assert (one.context, one.calibrated_by, one.decision_point) == (
        other.context, other.calibrated_by, other.decision_point,
    )  # fmt: skip


def test_the_table_of_a_run_has_both_networks_and_both_decisions(placed: Placed) -> None:
    table = read_predictions(placed.run / "predictions.csv")
    assert {"logit_field", "logit_alone", "probability_alone", "decision_alone"} <= set(table.columns)
    test = table[table["split"] == "test"]
    right = [(test[name] == np.where(test["label"] == 1, "malignant", "benign")).mean() for name in
             ("decision", "decision_alone")]  # fmt: skip
    assert right[0] > right[1]
