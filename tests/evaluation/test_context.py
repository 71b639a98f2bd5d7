"""How far neighbours count: chosen where new patients gain by it, and refused where they do not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from clearmargin.bundle.schema import Context, ModelFile
from clearmargin.context import Cells, Grid, lay_out, mean_logit, smooth
from clearmargin.decision import decide, probability
from clearmargin.errors import DataError
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.choices import NO_CONTEXT, Choices, choose
from clearmargin.evaluation.context import (
    FEWEST_PATIENTS,
    SCALES,
    ContextChoice,
    Surroundings,
    choose_context,
    find_cells,
    slide_places,
)
from clearmargin.evaluation.predictions import check_predictions, read_predictions, write_predictions
from clearmargin.settings import EvaluateSettings
from clearmargin.training.records import choice_fields
from clearmargin.types import ALONE_COLUMNS, FIELD_COLUMN

STEP, SIDE = 50, 10


def draw_slides(
    seed: int, *, patients: int = 12, signal: float = 1.5, patch_wide: float = 2.0, field: bool = False
) -> pd.DataFrame:
    """A predictions table up to the logits: lesions are regions, `patch_wide` of 0 makes them single patches."""
    rng = np.random.default_rng(seed)
    parts = []
    for patient in range(patients):
        ground = rng.normal(size=(SIDE, SIDE))
        height = gaussian_filter(ground, patch_wide) if patch_wide else ground
        labels = (height > np.quantile(height, rng.uniform(0.4, 0.7))).astype(np.int64).ravel()
        rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
        logits = signal * (labels - 0.5) + 0.2 * rng.normal() + rng.normal(size=len(labels))
        corner = rng.integers(-500, 500, 2)
        part = {
            "patient_id": f"P{patient:02}",
            "slide_id": "S",
            "x": corner[0] + STEP * columns,
            "y": corner[1] + STEP * rows,
            "label": labels,
            "logit": logits,
        }
        if field:
            part[FIELD_COLUMN] = 2 * (labels - 0.5) + 1.5 * rng.normal(size=len(labels))
        parts.append(pd.DataFrame(part).sample(frac=0.8, random_state=patient))
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "path", [f"{number:05}.png" for number in range(len(table))])
    return table.astype({"x": "Int64", "y": "Int64"}).assign(split="validation")


def choose_of(table: pd.DataFrame, *, networks: int = 1) -> ContextChoice | str:
    cells = find_cells(table, STEP)
    assert cells is not None
    logits = [table[name].to_numpy() for name in ("logit", FIELD_COLUMN)[:networks]]
    labels, patients = table["label"].to_numpy(), table["patient_id"].to_numpy(dtype=object)
    return choose_context(labels, logits, cells, patients, step=STEP)


def loss_of_patients_left_out(table: pd.DataFrame, logits: NDArray[np.float64]) -> float:
    """By scikit-learn: the largest patients are dealt first, in turn, to five folds."""
    sizes = table["patient_id"].value_counts()
    ranked = sorted(sizes.index, key=lambda patient: (-sizes[patient], patient))
    fold_of = {patient: number % min(5, len(ranked)) for number, patient in enumerate(ranked)}
    folds, labels = table["patient_id"].map(fold_of).to_numpy(), table["label"].to_numpy()
    chances = np.empty(len(table))
    for fold in set(folds):
        inside = folds != fold
        model = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000)  # the ridge of 1 is on the slope alone
        model.fit(logits[inside, None], labels[inside])
        chances[~inside] = model.predict_proba(logits[~inside, None])[:, 1]
    return float(log_loss(labels, chances))


@pytest.mark.parametrize("networks", [1, 2])
def test_the_scale_has_the_lowest_loss_that_scikit_learn_finds_on_patients_left_out(networks: int) -> None:
    table = draw_slides(1, field=networks == 2)
    found = choose_of(table, networks=networks)
    assert isinstance(found, ContextChoice)
    cells = find_cells(table, STEP)
    assert cells is not None
    mean = mean_logit([table[name].to_numpy() for name in ("logit", FIELD_COLUMN)[:networks]])
    losses = {scale: loss_of_patients_left_out(table, smooth(mean, cells, scale)) for scale in SCALES}
    best = min(losses, key=lambda scale: losses[scale])
    assert found.grid == Grid(step=STEP, scale=best, networks=2 if networks == 2 else 1)
    alone = loss_of_patients_left_out(table, table["logit"].to_numpy())  # of the patch alone, whatever else there is
    assert found.log_loss == pytest.approx((alone, losses[best]), rel=1e-5)
    np.testing.assert_array_equal(found.logits, smooth(mean, cells, best))


def test_new_patients_gain_where_lesions_are_regions() -> None:
    for seed in range(3):
        found = choose_of(draw_slides(seed))
        assert isinstance(found, ContextChoice)
        new = draw_slides(100 + seed)
        cells = find_cells(new, STEP)
        assert cells is not None
        inside = found.grid.apply([new["logit"].to_numpy()], cells)
        gain = roc_auc_score(new["label"], inside) - roc_auc_score(new["label"], new["logit"])
        assert gain > 0.05


def test_context_is_refused_where_labels_do_not_depend_on_neighbours() -> None:
    found = [choose_of(draw_slides(seed, patch_wide=0.0, patients=8)) for seed in range(30)]
    refused = [each for each in found if isinstance(each, str)]
    assert len(refused) >= 29
    assert all(text.startswith("patients left out gain nothing by it (log loss 0.") for text in refused)


def test_a_model_that_says_nothing_gains_nothing() -> None:
    table = draw_slides(2).assign(logit=0.25)
    assert isinstance(choose_of(table), str)


def test_a_model_without_error_has_a_loss_too() -> None:
    table = draw_slides(2)
    assert isinstance(choose_of(table.assign(logit=40.0 * (table["label"] - 0.5))), str)  # nothing is left to gain


@pytest.mark.parametrize("patients", [1, FEWEST_PATIENTS - 1, FEWEST_PATIENTS])
def test_too_few_patients_is_a_reason(patients: int) -> None:
    found = choose_of(draw_slides(1, patients=patients))
    if patients < FEWEST_PATIENTS:
        assert found == f"context is judged on 4 validation patients or more, and there are {patients}"
    else:
        assert isinstance(found, ContextChoice)


def test_too_few_patients_of_a_class_is_a_reason() -> None:
    table = draw_slides(1)
    only = table.assign(label=np.where(table["patient_id"] == "P00", table["label"], 0))
    assert choose_of(only) == "too few validation patients have either class to judge what context gains"


def test_neither_the_order_of_rows_nor_names_and_corners_of_slides_matter() -> None:
    table = draw_slides(3)
    moved = table.assign(slide_id="other", x=table["x"] + 12_345, y=table["y"] - 777).sample(frac=1, random_state=0)
    one, other = choose_of(table), choose_of(moved)
    assert isinstance(one, ContextChoice)
    assert isinstance(other, ContextChoice)
    assert one.grid == other.grid
    assert one.log_loss == pytest.approx(other.log_loss, abs=1e-9)
    np.testing.assert_allclose(other.logits, one.logits[moved.index.to_numpy()], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("column", ["slide_id", "x", "y"])
def test_one_image_without_a_place_leaves_all_without(column: str) -> None:
    table = draw_slides(1, patients=2)
    assert slide_places(table) is not None
    table.loc[5, column] = pd.NA if column != "slide_id" else ""
    assert slide_places(table) is None
    assert find_cells(table, STEP) is None
    assert slide_places(table.iloc[:0]) is None


def test_slides_of_one_name_are_those_of_each_patient() -> None:
    table = draw_slides(1, patients=3)
    cells = find_cells(table, STEP)
    assert cells is not None
    assert (pd.Series(cells.slides).groupby(table["patient_id"]).nunique() == 1).all()
    assert len(set(cells.slides.tolist())) == 3
    assert find_cells(table, 2 * STEP) is None
    finer = find_cells(table, STEP // 2)
    assert finer is not None
    np.testing.assert_array_equal(finer.rows, 2 * cells.rows)


@pytest.fixture(scope="module")
def validation() -> pd.DataFrame:
    return draw_slides(4)


@pytest.fixture(scope="module")
def inside(validation: pd.DataFrame) -> Choices:
    return choose(validation, EvaluateSettings(), seed=0, surroundings=Surroundings(STEP))


def test_everything_is_chosen_again_on_the_logit_in_context(validation: pd.DataFrame, inside: Choices) -> None:
    assert isinstance(inside.context, Grid)
    found = choose_of(validation)
    assert isinstance(found, ContextChoice)
    assert inside.context == found.grid
    plain = choose(validation, EvaluateSettings(), seed=0)
    assert inside.alone == plain
    again = choose(validation.assign(logit=found.logits), EvaluateSettings(), seed=0)
    for name in ("calibration", "point", "abstention", "levels", "how"):
        assert getattr(inside, name) == getattr(again, name)
    assert inside.point != plain.point


def test_where_context_is_refused_the_choices_are_those_of_the_patch_and_the_reason(validation: pd.DataFrame) -> None:
    table = draw_slides(1, patch_wide=0.0)
    plain = choose(table, EvaluateSettings(), seed=0)
    for surroundings, says in (
        (Surroundings(STEP), "patients left out gain nothing by it"),
        (Surroundings(37), NO_CONTEXT),
        ("because", "because"),
        (NO_CONTEXT, NO_CONTEXT),
    ):
        chosen = choose(table, EvaluateSettings(), seed=0, surroundings=surroundings)
        assert chosen.alone is None
        assert isinstance(chosen.context, str)
        assert chosen.context.startswith(says)
        assert (chosen.calibration, chosen.point, chosen.levels) == (plain.calibration, plain.point, plain.levels)
        told = [remark for remark in chosen.remarks() if "decided by itself" in remark]
        assert len(told) == (says != NO_CONTEXT)
        kept = choice_fields(chosen)
        assert (kept["context"], kept["no_context"]) == (None, chosen.context)


def test_a_table_in_context_has_both_decisions(inside: Choices) -> None:
    new = draw_slides(50)
    table = inside.apply(new)
    assert inside.alone is not None
    assert isinstance(inside.context, Grid)
    alone = inside.alone.apply(new)
    np.testing.assert_array_equal(table["logit_alone"], new["logit"])
    np.testing.assert_array_equal(table["probability_alone"], alone["probability"])
    assert table["decision_alone"].tolist() == alone["decision"].tolist()
    cells = find_cells(new, STEP)
    assert cells is not None
    np.testing.assert_array_equal(table["logit"], smooth(new["logit"].to_numpy(), cells, inside.context.scale))
    np.testing.assert_array_equal(table["probability"], probability(table["logit"].to_numpy(), inside.calibration))
    assert inside.applied_to(table) is inside
    assert inside.applied_to(alone) is inside.alone


@pytest.mark.parametrize("lost", ["place", "lattice"])
def test_a_table_with_an_image_off_the_lattice_is_decided_patch_by_patch(inside: Choices, lost: str) -> None:
    new = draw_slides(51)
    new.loc[7, "x"] = pd.NA if lost == "place" else new["x"][7] + 1
    table = inside.apply(new)
    assert inside.alone is not None
    assert not set(ALONE_COLUMNS) & set(table.columns)
    pd.testing.assert_frame_equal(table, inside.alone.apply(new))


def test_what_is_written_down_is_clean_json_and_decides_the_same_when_read(inside: Choices) -> None:
    described = inside.describe()
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    block = described["context"]
    assert isinstance(inside.context, Grid)
    assert {name: block[name] for name in ("kind", "step", "scale", "networks")} == {
        "kind": "grid", "step": STEP, "scale": inside.context.scale, "networks": 1,
    }  # fmt: skip
    assert inside.alone is not None
    alone = inside.alone.describe()
    assert block["alone"] == {name: alone[name] for name in block["alone"]}
    fields = choice_fields(inside)
    context = fields["context"]
    assert isinstance(context, Context)
    read = Context.model_validate_json(context.model_dump_json())
    values = np.linspace(0, 1, 101)
    assert read == context
    assert read.decide(values).tolist() == inside.decide(values).tolist()
    assert read.calibrated_by == inside.calibration
    assert set(fields) <= set(ModelFile.model_fields)


def measure(table: pd.DataFrame, choices: Choices) -> dict[str, Any]:
    return evaluate_predictions(
        table, choices, protocol={"split": "patient"}, settings=EvaluateSettings(resamples=100), seed=0
    )


def test_the_headline_is_in_context_and_the_patch_alone_stands_beside_it(inside: Choices) -> None:
    new = draw_slides(52).assign(split="test")
    table = inside.apply(new)
    metrics = measure(table, inside)
    assert inside.alone is not None
    plain = measure(inside.alone.apply(new), inside.alone)
    test = metrics["test"]
    assert test["image"]["auroc"]["value"] == pytest.approx(roc_auc_score(table["label"], table["logit"]))
    assert test["image_alone"]["auroc"]["value"] == pytest.approx(roc_auc_score(new["label"], new["logit"]))
    called = decide(table["probability_alone"].to_numpy(), inside.alone.point.threshold) == "malignant"
    found = called[table["label"] == 1].mean()
    assert test["image_alone"]["sensitivity"]["value"] == pytest.approx(found)
    assert test["image_alone"] == plain["test"]["image"]
    assert "image_alone" not in plain["test"]
    assert metrics["operating_point"]["threshold"] == inside.point.threshold
    # Told by the columns of the table: choices with a context on a table without are those of the patch.
    assert measure(inside.alone.apply(new), inside)["test"]["image"] == plain["test"]["image"]


def test_the_order_of_the_rows_of_a_table_in_context_does_not_matter(inside: Choices) -> None:
    table = inside.apply(draw_slides(53, patients=6).assign(split="test"))
    assert measure(table, inside) == measure(table.sample(frac=1, random_state=0), inside)


def test_a_decision_alone_that_contradicts_its_probability_is_refused(inside: Choices) -> None:
    table = inside.apply(draw_slides(54, patients=6).assign(split="test"))
    table.loc[table["probability_alone"].idxmax(), "decision_alone"] = "benign"
    with pytest.raises(DataError):
        measure(table, inside)


def test_predictions_in_context_come_back_as_they_were_written(inside: Choices, tmp_path: Any) -> None:
    table = inside.apply(draw_slides(55, patients=3, field=True))
    write_predictions(table, tmp_path / "predictions.csv")
    back = read_predictions(tmp_path / "predictions.csv")
    for name in ("logit", "probability", FIELD_COLUMN, "logit_alone", "probability_alone"):
        np.testing.assert_array_equal(back[name], table[name])
    assert back["decision_alone"].tolist() == table["decision_alone"].tolist()
    assert list(back.columns)[-4:] == [FIELD_COLUMN, *ALONE_COLUMNS]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (FIELD_COLUMN, np.nan), (FIELD_COLUMN, np.inf), ("logit_alone", np.nan), ("probability_alone", 1.5),
        ("probability_alone", -0.1), ("decision_alone", "perhaps"), ("decision_alone", None),
    ],
)  # fmt: skip
def test_a_wrong_value_in_a_column_of_the_context_is_named(inside: Choices, column: str, value: Any) -> None:
    table = inside.apply(draw_slides(56, patients=2, field=True))
    check_predictions(table)
    table[column] = table[column].astype(object)
    table.loc[3, column] = value
    with pytest.raises(DataError, match=rf"^{column} in row 4 "):
        check_predictions(table)


@pytest.mark.parametrize("missing", ALONE_COLUMNS)
def test_a_table_with_half_a_context_is_refused(inside: Choices, missing: str) -> None:
    table = inside.apply(draw_slides(57, patients=2)).drop(columns=missing)
    with pytest.raises(DataError, match=missing):
        check_predictions(table)


def test_cells_of_a_table_are_those_of_its_places() -> None:
    table = draw_slides(5, patients=2)
    places = slide_places(table)
    assert places is not None
    cells, expected = find_cells(table, STEP), lay_out(*places, STEP)
    assert isinstance(cells, Cells)
    for name in ("slides", "rows", "columns"):
        np.testing.assert_array_equal(getattr(cells, name), getattr(expected, name))
