"""Context in cross-validation, evaluation, calibration and optimism: chosen where it may be, used where it can be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tests.slides import PATCHES, PX, Placed, slides_config, write_slides

from clearmargin.bundle.read import FIELD, Bundle, read_bundle
from clearmargin.context import Grid, lay_out
from clearmargin.evaluation.choices import NO_CONTEXT, Choices, choose
from clearmargin.evaluation.context import Surroundings, slide_places
from clearmargin.evaluation.predictions import read_predictions
from clearmargin.images.names import parse_idc_name
from clearmargin.predict.predictor import Predictor, load_bundle
from clearmargin.settings import RunConfig
from clearmargin.studies import cross_validation
from clearmargin.studies.cross_validation import cross_validate, decide_out_of_fold
from clearmargin.studies.external import evaluate_bundle
from clearmargin.studies.optimism import measure_optimism
from clearmargin.studies.recalibration import recalibrate
from clearmargin.types import ALONE_COLUMNS
from clearmargin.workflow import Run


@pytest.fixture(scope="module", autouse=True)
def _quick(placed: Placed) -> Any:
    from tests.slides import make_quick

    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, placed.run.parent / "cache")
        # What a report says is tested elsewhere.
        for module in ("workflow", "studies.cross_validation", "studies.external"):
            patch.setattr(f"clearmargin.{module}.finish", _finish_without_report)
        yield


def _finish_without_report(out: Path, metrics: Any, images: Any, log: Any, **_: Any) -> None:
    from clearmargin.training.run_folder import finish_run

    finish_run(out, {"protocol": metrics["protocol"], "stamp": None})


@dataclass(frozen=True)
class CrossValidated:
    config: RunConfig
    run: Run
    table: pd.DataFrame

    @property
    def folds(self) -> list[Path]:
        return sorted((self.run.folder / "folds").iterdir())


@pytest.fixture(scope="module")
def crossed(placed: Placed, tmp_path_factory: pytest.TempPathFactory) -> CrossValidated:
    config = slides_config(placed.data, split__folds=3)
    run = cross_validate(config, tmp_path_factory.mktemp("crossed") / "run")
    return CrossValidated(config, run, read_predictions(run.folder / "predictions.csv"))


def test_a_fold_trains_one_network_of_each_kind_whatever_crossfit_says(crossed: CrossValidated) -> None:
    assert crossed.config.train.crossfit == 3
    for fold in crossed.folds:
        assert not (fold / "networks").exists()
        assert (fold / "field" / "history.csv").is_file()
        assert read_bundle(fold).model.architecture.ensemble == 1


def test_logits_are_those_of_the_fold_that_left_the_patient_out(crossed: CrossValidated) -> None:
    said = crossed.table.set_index("path")
    assert len(said) == 12 * PATCHES
    for fold in crossed.folds:
        part = read_predictions(fold / "predictions.csv")
        tested = part[part["split"] == "test"]
        assert not set(tested["patient_id"]) & set(part[part["split"] != "test"]["patient_id"])
        own = tested["logit_alone"] if "logit_alone" in tested else tested["logit"]
        np.testing.assert_array_equal(said["logit_alone"][tested["path"]], own)
        np.testing.assert_array_equal(said["logit_field"][tested["path"]], tested["logit_field"])


def test_each_fold_is_decided_by_the_context_of_the_others(crossed: CrossValidated) -> None:
    raw = crossed.table.assign(logit=crossed.table["logit_alone"]).drop(columns=list(ALONE_COLUMNS))
    folds = crossed.table["path"].map(pd.read_csv(crossed.run.folder / "split.csv").set_index("path")["fold"])
    for fold in range(3):
        chosen = choose(raw[folds != fold], crossed.config.evaluate, seed=0, surroundings=Surroundings(PX, 3, 5))
        expected = chosen.apply(raw[folds == fold])
        here = crossed.table[folds == fold]
        for name in ("logit", "probability", "probability_alone"):
            np.testing.assert_allclose(here[name], expected[name], rtol=1e-12)
        assert here["decision"].tolist() == expected["decision"].tolist()
        assert here["decision_alone"].tolist() == expected["decision_alone"].tolist()


def test_the_figures_of_the_whole_are_in_context_and_alone(crossed: CrossValidated) -> None:
    metrics, table = crossed.run.metrics, crossed.table
    image, alone = metrics["test"]["image"]["auroc"], metrics["test"]["image_alone"]["auroc"]
    assert image["value"] == pytest.approx(roc_auc_score(table["label"], table["probability"]))
    assert alone["value"] == pytest.approx(roc_auc_score(table["label"], table["probability_alone"]))
    assert image["value"] > alone["value"]
    assert metrics["context"]["kind"] == "grid"
    assert metrics["context"]["networks"] == 2


def test_the_bundle_holds_the_mean_of_the_networks_of_either_kind(crossed: CrossValidated, placed: Placed) -> None:
    whole, parts = load_bundle(crossed.run.folder), [load_bundle(fold) for fold in crossed.folds]
    assert whole.bundle.model.architecture.ensemble == 3
    assert set(FIELD) <= set(whole.bundle.sums)
    frame, images = placed.images.manifest.frame, placed.images.store.images
    places = slide_places(frame)
    assert places is not None
    cells = lay_out(*places, PX)
    rows = np.arange(40)
    mean = np.mean([part.logits(images[rows]) for part in parts], axis=0)
    np.testing.assert_allclose(whole.logits(images[rows]), mean, atol=1e-4)
    mean = np.mean([part.field_logits(images, cells) for part in parts], axis=0)
    np.testing.assert_allclose(whole.field_logits(images, cells), mean, atol=1e-4)


def test_with_three_patients_the_bundle_of_a_cross_validation_can_still_be_read(tmp_path: Path) -> None:
    """Folds train a network for the field, and then there are too few patients to weigh it."""
    data = write_slides(tmp_path / "data", patients=3, seed=2)
    run = cross_validate(slides_config(data, split__folds=3, train__epochs=1), tmp_path / "run")
    model = read_bundle(run.folder).model
    assert model.context is None
    assert model.no_context == "context is judged on 4 validation patients or more, and there are 3"
    assert load_bundle(run.folder).predict([next(iter(data.rglob("*.png")))])["probability"].notna().all()


def test_where_context_pays_in_some_folds_only_it_counts_in_none_and_says_so(
    monkeypatch: pytest.MonkeyPatch, crossed: CrossValidated
) -> None:
    raw = crossed.table.assign(logit=crossed.table["logit_alone"]).drop(columns=list(ALONE_COLUMNS))
    fold_of = pd.read_csv(crossed.run.folder / "split.csv").set_index("path")["fold"]
    raw = raw.assign(fold=raw["path"].map(fold_of))
    real = cross_validation.choose
    refused = "patients left out gain nothing by it"

    def sometimes(rows: pd.DataFrame, *rest: Any, **more: Any) -> Choices:
        surroundings = refused if set(rows["fold"]) == {0, 1} else more["surroundings"]
        return real(rows, *rest, **(more | {"surroundings": surroundings}))

    monkeypatch.setattr(cross_validation, "choose", sometimes)
    table, by_fold, overall = decide_out_of_fold(raw, crossed.config, Surroundings(PX, 3, 5))
    assert not set(ALONE_COLUMNS) & set(table.columns)
    np.testing.assert_array_equal(table["logit"], raw["logit"])
    assert all(choices.alone is None for choices in (overall, *by_fold.values()))
    assert isinstance(overall.context, str)
    assert overall.context != NO_CONTEXT  # places are known, so that is not the reason
    assert any("decided by itself" in remark for remark in overall.remarks())


def evaluated(bundle: Path | Bundle, data: Path, out: Path, **changes: Any) -> tuple[Run, pd.DataFrame]:
    predictor = Predictor(bundle) if isinstance(bundle, Bundle) else load_bundle(bundle)
    run = evaluate_bundle(predictor, slides_config(data, **changes), out)
    return run, read_predictions(run.folder / "predictions.csv")


@pytest.fixture(scope="module")
def external(placed: Placed, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, pd.DataFrame]:
    return evaluated(placed.run, placed.others, tmp_path_factory.mktemp("external") / "out")


def test_other_patients_are_decided_in_the_context_of_the_bundle(
    placed: Placed, external: tuple[Run, pd.DataFrame]
) -> None:
    run, table = external
    columns = ["path", "patient_id", "slide_id", "x", "y"]
    predictor = load_bundle(placed.run, gate=False)  # the figures are of all images, and all are neighbours
    for context, suffix in ((True, ""), (False, "_alone")):
        answers = predictor.predict(table[columns], context=context)
        np.testing.assert_allclose(answers["probability"], table[f"probability{suffix}"], rtol=0, atol=1e-6)
        assert answers["decision"].tolist() == table[f"decision{suffix}"].tolist()
    test = run.metrics["test"]
    assert test["image"]["auroc"]["value"] == pytest.approx(roc_auc_score(table["label"], table["probability"]))
    assert test["image"]["auroc"]["value"] > test["image_alone"]["auroc"]["value"]
    carried = read_bundle(run.folder)
    assert carried.sums == read_bundle(placed.run).sums


def test_an_evaluation_without_context_or_places_is_that_of_the_patch(
    placed: Placed, external: tuple[Run, pd.DataFrame], tmp_path: Path
) -> None:
    known = external[1].set_index("path")
    rows = []
    for path in sorted(placed.others.rglob("*.png")):
        facts = parse_idc_name(path.name)
        assert facts is not None
        patient, x, y, label = facts
        rows.append({"path": str(path), "label": label, "patient_id": patient, "slide_id": patient, "x": x, "y": y})
    frame = pd.DataFrame(rows).astype({"x": "Int64"})
    frame.loc[5, "x"] = pd.NA
    frame.to_csv(tmp_path / "one_without.csv", index=False)
    for number, (data, changes) in enumerate(
        [(placed.others, {"evaluate__context": "none"}), (tmp_path / "one_without.csv", {})]
    ):
        run, table = evaluated(placed.run, data, tmp_path / str(number), **changes)
        assert not set(ALONE_COLUMNS) & set(table.columns)
        assert "image_alone" not in run.metrics["test"]
        np.testing.assert_array_equal(table["probability"], known["probability_alone"][table["path"]])
        assert table["decision"].tolist() == known["decision_alone"][table["path"]].tolist()
        assert run.metrics["test"]["image"] == external[0].metrics["test"]["image_alone"]


def test_calibrating_chooses_context_anew_also_for_a_bundle_that_had_none(placed: Placed, tmp_path: Path) -> None:
    none = slides_config(placed.data, evaluate__context="none")
    without = recalibrate(load_bundle(placed.run), none, tmp_path / "without")
    model = read_bundle(without.folder).model
    assert (model.context, model.no_context) == (None, "evaluate.context is none")
    assert model.architecture.field == 3  # the network stays, for whoever calibrates again
    config = slides_config(placed.others)
    made = {
        name: recalibrate(load_bundle(folder), config, tmp_path / name)
        for name, folder in (("again", placed.run), ("anew", without.folder))
    }
    for name, each in made.items():
        context = read_bundle(each.folder).model.context
        assert context is not None, name
        assert (context.grid.step, context.grid.networks) == (PX, 2)
        assert context.decision_point.chosen_on == "the images of the recalibration"
        assert isinstance(each.choices.context, Grid)
        assert each.n_patients == 4
    bundles = [read_bundle(each.folder) for each in made.values()]
    assert bundles[0].model.context == bundles[1].model.context
    assert [bundle.read("context.onnx") for bundle in bundles] == [read_bundle(placed.run).read("context.onnx")] * 2
    _, table = evaluated(made["anew"].folder, placed.others, tmp_path / "out")
    answers = load_bundle(made["anew"].folder).predict(table[["path", "patient_id", "slide_id", "x", "y"]])
    np.testing.assert_allclose(answers["probability"], table["probability"], rtol=0, atol=1e-6)


def test_calibrating_on_few_patients_takes_the_context_away_and_says_why(placed: Placed, tmp_path: Path) -> None:
    data = write_slides(tmp_path / "data", patients=3, seed=3)
    made = recalibrate(load_bundle(placed.run), slides_config(data), tmp_path / "out")
    model = read_bundle(made.folder).model
    assert model.context is None
    assert model.no_context == "context is judged on 4 validation patients or more, and there are 3"
    assert made.before != made.after


def test_optimism_compares_patch_by_patch(placed: Placed, tmp_path: Path) -> None:
    config = slides_config(placed.others, split__folds=2, train__epochs=1)
    measure_optimism(config, tmp_path / "out")
    for by in ("image", "patient"):
        table = pd.read_csv(tmp_path / "out" / f"predictions_{by}.csv")
        assert not {*ALONE_COLUMNS, "logit_field"} & set(table.columns)
        for fold in (tmp_path / "out" / by).iterdir():
            assert not (fold / "field").exists()
            metrics = json.loads((fold / "metrics.json").read_text())
            assert metrics["context"] == {"not_applicable": "evaluate.context is none"}
