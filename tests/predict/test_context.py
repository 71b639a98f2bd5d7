"""Patches in the context of their slides: what a run said, whatever comes in which order, and what is decided alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.slides import PATCHES, PX, Placed, sign_all

from clearmargin.bundle.read import read_bundle
from clearmargin.bundle.write import rewrite_bundle
from clearmargin.context import smooth
from clearmargin.decision import Level
from clearmargin.errors import BundleError
from clearmargin.evaluation.context import find_cells
from clearmargin.evaluation.predictions import read_predictions
from clearmargin.predict.context import find_slides
from clearmargin.predict.pooled import pool_predictions
from clearmargin.predict.predictor import Predictor, load_bundle
from clearmargin.types import Decision, Prediction, Record

STEP = PX


@pytest.fixture(scope="module")
def table(placed: Placed) -> pd.DataFrame:
    """What the run said of its test patients."""
    every = read_predictions(placed.run / "predictions.csv")
    return every[every["split"] == "test"].reset_index(drop=True)


@pytest.fixture
def predictor(placed: Placed) -> Predictor:
    return load_bundle(placed.run)


def records_of(table: pd.DataFrame) -> list[Record]:
    columns = ["path", "patient_id", "slide_id", "x", "y"]
    return [Record(*row[:3], int(row[3]), int(row[4])) for row in table[columns].itertuples(index=False)]


def near(values: Any) -> Any:
    """As far as logits in float32 agree, whose last digit may differ with the place in a batch."""
    return pytest.approx(np.asarray(values, dtype=np.float64), abs=1e-6)


def check_same(some: list[Prediction], others: list[Prediction]) -> None:
    assert [(each.record, each.decision, each.in_context) for each in some] == [
        (each.record, each.decision, each.in_context) for each in others
    ]
    assert [each.probability for each in some] == near([each.probability for each in others])


def of(predictions: Iterator[Prediction]) -> dict[str, Prediction]:
    return {prediction.record.path: prediction for prediction in predictions}


def test_the_run_is_in_context_with_two_networks(predictor: Predictor, table: pd.DataFrame) -> None:
    assert predictor.bundle.model.context is not None
    assert predictor.bundle.model.context.grid.step == STEP
    assert predictor.bundle.model.context.grid.networks == 2
    assert len(table) >= 3 * PATCHES


@pytest.mark.parametrize("context", [True, False])
def test_predict_repeats_what_the_run_said_of_its_test_patients(
    predictor: Predictor, table: pd.DataFrame, context: bool
) -> None:
    answers = predictor.predict(table[["path", "patient_id", "slide_id", "x", "y"]], context=context)
    suffix = "" if context else "_alone"
    assert answers["path"].tolist() == table["path"].tolist()
    assert answers["probability"].to_numpy() == near(table[f"probability{suffix}"])
    assert answers["decision"].tolist() == table[f"decision{suffix}"].tolist()
    assert not np.array_equal(table["probability"], table["probability_alone"])


def test_patches_of_several_slides_may_come_in_any_order(predictor: Predictor, table: pd.DataFrame) -> None:
    mixed = table.sample(frac=1, random_state=0)
    answers = list(predictor.predict_records(iter(records_of(mixed))))
    assert [answer.record.path for answer in answers] == mixed["path"].tolist()
    assert [answer.probability for answer in answers] == near(mixed["probability"])
    assert all(answer.in_context for answer in answers)


def test_only_the_distances_of_places_count(predictor: Predictor, table: pd.DataFrame) -> None:
    moved = [replace(record, x=record.x - 10**6, y=record.y + 10**12) for record in records_of(table)]  # type: ignore[operator]
    answers = predictor.predict_records(moved)
    assert [answer.probability for answer in answers] == near(table["probability"])


def test_a_slide_appears_when_its_last_patch_is_read(
    predictor: Predictor, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = predictor._read

    def watched(record: Record) -> Any:
        reads.append(record.path)
        return read(record)

    monkeypatch.setattr(predictor, "_read", watched)
    monkeypatch.setattr(predictor._session, "batch", 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    records = records_of(table.sort_values(["slide_id", "path"]))
    stream = predictor.predict_records(records)
    assert reads == []
    next(stream)
    assert PATCHES <= len(reads) <= PATCHES + 2 * 4
    for _ in range(PATCHES):
        next(stream)
    assert 2 * PATCHES <= len(reads) <= 2 * PATCHES + 2 * 4
    rest = list(stream)
    assert len(rest) == len(records) - PATCHES - 1


def test_what_cannot_be_read_is_refused_and_missing_around_the_others(
    predictor: Predictor, table: pd.DataFrame, tmp_path: Path
) -> None:
    records = records_of(table)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand nothing")
    lost = {3: str(tmp_path / "broken.png"), 10: str(tmp_path / "nowhere.png")}
    damaged = [replace(record, path=lost.get(row, record.path)) for row, record in enumerate(records)]
    answers = list(predictor.predict_records(damaged))
    assert [row for row, answer in enumerate(answers) if answer.decision == "refused"] == [3, 10]
    assert all(answers[row].reason and answers[row].probability is None for row in lost)
    there = of(predictor.predict_records([record for row, record in enumerate(records) if row not in lost]))
    left = [answer for answer in answers if answer.decision != "refused"]
    check_same(left, [there[answer.record.path] for answer in left])
    assert all(answer.in_context for answer in left)
    whole = [each.probability for row, each in enumerate(predictor.predict_records(records)) if row not in lost]
    assert [each.probability for each in left] != near(whole)


def test_a_slide_of_which_all_or_all_but_one_is_refused_has_no_context(
    predictor: Predictor, table: pd.DataFrame
) -> None:
    first = records_of(table)[:3]
    for kept in (0, 1):
        broken = [replace(record, path=f"/nowhere/{row}.png") for row, record in enumerate(first[kept:])]
        answers = list(predictor.predict_records(first[:kept] + broken))
        assert [answer.in_context for answer in answers] == [False] * 3
        assert [answer.decision == "refused" for answer in answers] == [False] * kept + [True] * (3 - kept)
        assert [answer.probability for answer in answers[:kept]] == near(table["probability_alone"][:kept])


SPOILT: dict[str, Any] = {
    "one place is there twice": lambda slide: [*slide, slide[0]],
    "one patch lies between": lambda slide: [replace(slide[0], x=slide[0].x + 1), *slide[1:]],
    "one patch lies too far away": lambda slide: [replace(slide[0], y=slide[0].y + STEP * 5000), *slide[1:]],
    "there is one patch": lambda slide: slide[:1],
    "the ends are 64 bits apart": lambda slide: [replace(slide[0], x=-(2**62)), replace(slide[1], x=2**62)],
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_slide_is_decided_patch_by_patch_where(how: str, predictor: Predictor, table: pd.DataFrame) -> None:
    slides = [records_of(part) for _, part in table.groupby("slide_id")]
    spoilt = SPOILT[how](slides[0])
    answers = list(predictor.predict_records([*spoilt, *slides[1]]))
    assert [answer.in_context for answer in answers] == [False] * len(spoilt) + [True] * PATCHES
    said = table.set_index("path")
    for answer in answers:
        column = "probability" if answer.in_context else "probability_alone"
        assert answer.probability == pytest.approx(said[column][answer.record.path], abs=1e-6)


@pytest.mark.parametrize("lost", ["slide_id", "x", "y"])
def test_a_patch_without_a_place_is_decided_alone_and_the_others_without_it(
    lost: str, predictor: Predictor, table: pd.DataFrame
) -> None:
    records = records_of(table)[:PATCHES]
    without = [replace(records[0], **{lost: None}), *records[1:]]
    answers = list(predictor.predict_records(without))
    assert [answer.in_context for answer in answers] == [False] + [True] * (PATCHES - 1)
    check_same(answers[1:], list(predictor.predict_records(records[1:])))


@pytest.mark.parametrize("coordinate", [2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**300])
def test_coordinates_beyond_every_slide_are_no_place(
    coordinate: int, predictor: Predictor, table: pd.DataFrame
) -> None:
    rows = table[["path", "patient_id", "slide_id", "x", "y"]].astype({"x": object})[:PATCHES]
    rows.loc[0, "x"] = str(coordinate)
    answers = predictor.predict(rows)
    assert answers["probability"][0] == pytest.approx(table["probability_alone"][0], abs=1e-6)
    assert answers["decision"].notna().all()


def test_slides_of_one_name_are_those_of_each_patient(predictor: Predictor, table: pd.DataFrame) -> None:
    same = [replace(record, slide_id="S") for record in records_of(table)]
    assert [answer.probability for answer in predictor.predict_records(same)] == near(table["probability"])
    one_patient = [replace(record, patient_id="P") for record in same]  # and now places are there twice
    assert not any(answer.in_context for answer in predictor.predict_records(one_patient))


def test_one_image_costs_no_second_network(
    placed: Placed, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = Predictor._open

    def watched(self: Predictor, name: str, shape: tuple[int, int, int]) -> Any:
        opened.append(name)
        return real(self, name, shape)

    monkeypatch.setattr(Predictor, "_open", watched)
    predictor = load_bundle(placed.run)
    records = records_of(table)
    predictor.predict([table["path"][0]])
    assert len(list(predictor.predict_records(records[:1]))) == 1
    predictor.predict_pixels(np.asarray(Image.open(table["path"][0])))
    list(predictor.predict_records(records, context=False))
    assert opened == ["model.onnx"]
    for _ in range(2):
        list(predictor.predict_records(records))
    assert opened == ["model.onnx", "context.onnx"]


def test_a_context_that_does_not_hear_the_second_network_does_not_load_it(
    placed: Placed, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_bundle(placed.run)
    assert whole.model.context is not None
    grid = whole.model.context.grid.model_copy(update={"networks": 1})
    context = whole.model.context.model_copy(update={"grid": grid})
    rewrite_bundle(whole, tmp_path / "bundle", whole.model.model_copy(update={"context": context}))
    predictor = load_bundle(tmp_path / "bundle")
    monkeypatch.setattr(predictor.bundle.__class__, "read", None)
    answers = list(predictor.predict_records(records_of(table)))
    cells = find_cells(table, STEP)
    assert cells is not None
    expected = smooth(table["logit_alone"].to_numpy(), cells, grid.scale)
    np.testing.assert_allclose([answer.logit for answer in answers], expected, rtol=0, atol=1e-5)
    assert all(answer.in_context for answer in answers)


def test_nothing_gives_nothing(predictor: Predictor) -> None:
    assert list(predictor.predict_records([])) == []
    assert find_slides([], STEP).tolist() == []


def test_a_second_network_of_another_size_is_refused_when_it_is_needed(
    placed: Placed, table: pd.DataFrame, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(placed.run / "bundle", folder)
    model = (folder / "model.json").read_text()
    assert '"thumbnail": 5' in model
    (folder / "model.json").write_text(model.replace('"thumbnail": 5', '"thumbnail": 6'))
    sign_all(folder)
    predictor = load_bundle(folder)
    records = records_of(table)
    assert [each.probability for each in predictor.predict_records(records[:1])] == near(table["probability_alone"][:1])
    with pytest.raises(BundleError, match=r"context\.onnx takes .* = \(15, 15, 3\), .* says \(18, 18, 3\)"):
        list(predictor.predict_records(records))


def seen(probability: float | None, *, slide: str = "S", inside: bool = True) -> Prediction:
    record = Record("a.png", "P", slide)
    word: Decision = "refused" if probability is None else "benign"
    return Prediction(record, None if probability is None else 0.0, probability, word, in_context=inside)


@pytest.mark.parametrize(
    ("group", "threshold"),
    [
        ([seen(0.5), seen(0.5)], 0.3),
        ([seen(0.5), seen(None, inside=False)], 0.3),  # what was refused says nothing
        ([seen(0.5), seen(0.5, inside=False)], 0.7),
        ([seen(0.5, inside=False)], 0.7),
    ],
)
def test_whole_slides_are_decided_by_the_rule_of_what_decided_their_patches(
    group: list[Prediction], threshold: float
) -> None:
    alone, inside = Level(threshold=0.7), Level(threshold=0.3)
    (pooled,) = pool_predictions(group, "slide", rule=alone, rule_in_context=inside)
    assert pooled.decision == ("malignant" if threshold == 0.3 else "benign")
    (without,) = pool_predictions(group, "slide", rule=alone)
    assert without.decision == "benign"


def test_places_are_kept_apart_by_slide_and_patient() -> None:
    records = [
        Record("a", "P", "S", 0, 0), Record("b", "P", "S", 50, 0), Record("c", "Q", "S", 0, 0),
        Record("d", None, "S", 0, 0), Record("e", None, "S", 0, 100), Record("f"), Record("g", "Q", "S", 0, 50),
    ]  # fmt: skip
    slides = find_slides(records, 50)
    assert (slides >= 0).tolist() == [True, True, True, True, True, False, True]
    assert slides[0] == slides[1]
    assert slides[2] == slides[6]
    assert slides[3] == slides[4]
    assert len({int(slides[0]), int(slides[2]), int(slides[3])}) == 3
