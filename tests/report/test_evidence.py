"""What the sections of evidence say, and that every one of their blocks may be missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.report.conftest import POINT, Page, describe, simulate

from clearmargin.report import plots
from clearmargin.report.document import plain
from clearmargin.report.groups import IN_ORDER
from clearmargin.report.pictures import result_plots
from clearmargin.report.results import answer, threshold_table
from clearmargin.report.run_files import read_run
from clearmargin.report.write import write_artefacts, write_report

Report = Callable[..., Page]
NEW_BLOCKS = (
    "within_patients",
    "calibration",
    "abstention",
    "risk_coverage",
    "decision_curve",
    "at_prevalence",
    "subgroups",
    "slide",
)


@pytest.fixture(scope="module")
def full_page(full_run: Path) -> Page:
    return Page((full_run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def full_metrics(full_run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((full_run / "metrics.json").read_text(encoding="utf-8"))
    return values


def section(page: Page, anchor: str) -> str:
    return " ".join(page.texts(f"#{anchor}")[0].split())


def without(folder: Path, *names: str) -> None:
    """Takes blocks out of the headline split of metrics.json."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for name in names:
        metrics["test"].pop(name, None)
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


@pytest.mark.parametrize("block", NEW_BLOCKS)
def test_any_block_may_be_missing(block: str, build_run: Callable[..., Any], load_image: Any) -> None:
    folder = build_run().write()
    without(folder, block)
    assert Page(write_report(folder, load_image=load_image).read_text(encoding="utf-8")).texts("p.answer")


def test_a_run_of_an_earlier_version_has_its_report(build_run: Callable[..., Any], load_image: Any) -> None:
    folder = build_run().write()
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for split in ("train", "validation", "test"):
        block = metrics[split]
        for name in NEW_BLOCKS:
            block.pop(name, None)
        for name, entry in block["image"].items():
            if isinstance(entry, dict):
                block["image"][name] = {key: entry[key] for key in ("value", "ci", "reason") if key in entry}
        for name in ("calibration_slope", "calibration_intercept"):
            block["image"].pop(name)
    metrics = {name: value for name, value in metrics.items() if name not in ("abstention", "levels")}
    metrics["calibration"] = {"method": "temperature", "temperature": 1.25}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    written = write_artefacts(folder, load_image=load_image, figures=folder / "figures")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert not page.find("#unsure") + page.find("#useful") + page.find("#groups") + page.find("#elsewhere")
    assert "temperature scaling; temperature 1.250" in section(page, "methods")
    assert {path.name for path in written} >= {"report.html", "CLAIM-2024.md", "roc.svg", "reliability.pdf"}


def test_the_sections_stand_in_the_order_in_which_one_asks(full_page: Page) -> None:
    anchors = [attributes["id"] for tag, attributes, _ in full_page.elements if tag == "section"]
    assert anchors == [
        "answer",
        "sure",
        "curves",
        "unsure",
        "useful",
        "patients",
        "groups",
        "elsewhere",
        "data",
        "mistakes",
        "methods",
        "reproduce",
    ]


def test_how_each_interval_was_made_is_told(full_page: Page, full_metrics: dict[str, Any]) -> None:
    for name in ("auroc", "sensitivity"):
        assert full_metrics["test"]["image"][name]["method"].replace("_", " ") in section(full_page, "sure")


def test_the_interval_over_patients_stands_beside_folds_and_seeds(
    full_page: Page, full_metrics: dict[str, Any]
) -> None:
    [table] = [table for table in full_page.tables() if "Folds: mean" in table[0]]
    [row] = [row for row in table if row[0] == "AUROC"]
    folds, seeds = full_metrics["across_folds"]["auroc"], full_metrics["seeds"]["figures"]["auroc"]
    low, high = full_metrics["test"]["image"]["auroc"]["ci"]
    assert row[2:] == [
        f"{low:.3f}–{high:.3f}",
        f"{folds['mean']:.3f}",
        f"{folds['sd']:.3f}",
        f"{folds['ci'][0]:.3f}–{folds['ci'][1]:.3f}",
        f"{seeds['mean']:.3f}",
        f"{seeds['min']:.3f}–{seeds['max']:.3f}",
    ]


def test_folds_alone_and_seeds_alone_are_shown(report: Report) -> None:
    seeds = {
        "seeds": [1, 2],
        "figures": {"auroc": {"values": [0.8, None], "mean": 0.8, "sd": 0.0, "min": 0.8, "max": 0.8}},
    }
    [table] = [table for table in report(changes={"seeds": seeds}).tables() if "Seeds: mean" in table[0]]
    assert "Folds: mean" not in table[0]
    folds = {"auroc": {"mean": 0.8, "sd": 0.0, "ci": None, "n": 2, "reason": "the folds agree"}}
    [table] = [table for table in report(changes={"across_folds": folds}).tables() if "Folds: mean" in table[0]]
    assert table[1][-1] == "—"


def test_an_interval_that_counts_the_choice_of_the_threshold_stands_beside_one_that_does_not(
    page: Page, metrics: dict[str, Any]
) -> None:
    [table] = [table for table in page.tables() if "Threshold given" in table[0]]
    for label, name in (("Sensitivity (recall)", "sensitivity"), ("NPV", "npv")):
        [row] = [row for row in table if row[0] == label]
        figure = metrics["test"]["image"][name]
        assert row[2:] == [f"{low:.3f}–{high:.3f}" for low, high in (figure["ci"], figure["ci_fixed"])]


def test_what_is_promised_and_what_is_found_stand_together(full_page: Page, full_metrics: dict[str, Any]) -> None:
    told = section(full_page, "unsure")
    stored = full_metrics["abstention"]
    assert f"For probabilities in {stored['low']:.3f}–{stored['high']:.3f} the answer is cannot tell." in told
    assert "80 % of the images are answered rightly or withheld. It rests on 12 validation patients" in told
    assert f"{full_metrics['test']['abstention']['deferred']['value']:.3f}" in told


def test_why_nothing_is_withheld_is_told(report: Report) -> None:
    told = section(report(coverage=0.99), "unsure")
    assert "No answer is withheld: a coverage of 0.99 needs at least 99 validation patients, and there are 12." in told


def test_a_promise_that_holds_without_withholding_is_told_so(report: Report) -> None:
    stored = {"coverage": 0.9, "low": None, "high": None, "n_units": 1, "unit": "patient"}
    told = section(report(changes={"abstention": stored}), "unsure")
    assert "No answer is withheld, since the promise holds without it." in told
    assert "1 validation patient and" in told


def test_groups_stand_in_the_order_of_their_names_whatever_their_figures(
    report: Report, predictions: pd.DataFrame
) -> None:
    page = report(table=predictions, manifest=describe(predictions))
    [table] = [table for table in page.tables() if table[0][0] == "Group"]
    assert [row[0] for row in table[1:]] == ["north <b>", "south|1"]
    assert IN_ORDER in page.texts("p.prose")


def test_a_level_is_told_with_its_pooling(full_page: Page) -> None:
    told = section(full_page, "patients")
    assert "A slide's probability is the mean probability of its images" in told
    assert "20 slides, 240 images, 10 patients." in told


def test_a_group_without_a_figure_has_its_reason(report: Report, predictions: pd.DataFrame) -> None:
    manifest = describe(predictions)
    malignant = predictions["label"] == 1
    manifest["view"] = np.where(malignant & (predictions.index % 2 == 0), "all malignant", "other")
    manifest["view"] = manifest["view"].mask(~malignant & (predictions.index % 3 == 0), "third")
    manifest.loc[malignant & (predictions.index % 5 == 0), "view"] = "third"
    told = section(report(table=predictions, manifest=manifest), "groups")
    assert re.search(r"AUROC|all malignant: — no benign image", told)
    assert "all malignant: — no benign image" in told


def test_external_data_are_compared_and_recalibration_is_offered(full_page: Page) -> None:
    told = section(full_page, "elsewhere")
    assert "brightness 0.61 0.5 to 0.7 0.42 0.33 to 0.55 0.41 −1.30 shifted" in told
    assert "clearmargin recalibrate bundle predictions.csv --out mended" in told


def test_an_external_evaluation_is_not_called_a_test(report: Report, predictions: pd.DataFrame) -> None:
    page = report(protocol="external", table=predictions[predictions["split"] == "test"], without=["split.csv"])
    assert page.texts("p.answer")[0].startswith("On 600 external images of 10 patients, AUROC is ")


def test_a_cross_validation_is_no_external_evaluation(report: Report, predictions: pd.DataFrame) -> None:
    changes = {"protocol/folds": 5, "protocol/repeats": 1}
    page = report(table=predictions[predictions["split"] == "test"], without=["split.csv"], changes=changes)
    assert "On 600 test images of 10 patients never seen in training" in page.texts("p.answer")[0]
    assert "5 folds; 1 repeat" in section(page, "methods")


def test_an_operating_point_that_cannot_be_had_is_told(report: Report) -> None:
    reason = "no threshold has a specificity of 0.99."
    assert reason in section(report(changes={"operating_point/not_attained": reason}), "methods")


def test_what_the_gate_refuses_is_told_once(report: Report) -> None:
    gate = {"images": 240, "refused": 3, "share": 0.0125, "reasons": {"blurred": 2, "no colour": 1}}
    page = report(changes={"gate": gate})
    told = section(page, "unsure")
    assert "its gate refuses 3 of 240 images" in told
    assert "blurred 2" in told
    there = section(report(changes={"gate": gate, "drift": {"text": "The images look alike."}}), "elsewhere")
    assert "its gate refuses 3 of 240 images" in there
    assert "its gate" not in section(report(changes={"gate": {"not_applicable": "few images"}}), "unsure")


def test_a_slope_below_zero_is_written_with_a_minus(report: Report) -> None:
    figure = {"value": -0.25, "ci": [-0.5, 0.125]}
    [table] = [
        table
        for table in report(changes={"test/image/calibration_intercept": figure}).tables()
        if any(row[0].startswith("Calibration intercept") for row in table)
    ]
    [row] = [row for row in table if row[0].startswith("Calibration intercept")]
    assert row[1:] == ["−0.250", "−0.500 to 0.125"]


def test_predictive_values_at_another_prevalence(full_page: Page, full_metrics: dict[str, Any]) -> None:
    image, asked = full_metrics["test"]["image"], full_metrics["test"]["at_prevalence"]["ppv"]["value"]
    found, alarms = image["sensitivity"]["value"], 1 - image["specificity"]["value"]
    assert asked == pytest.approx(found * 0.01 / (found * 0.01 + alarms * 0.99))
    assert f"PPV {asked:.3f}" in section(full_page, "useful")


def test_the_fixture_decides_by_its_point() -> None:
    table = simulate()
    assert (table["decision"].eq("malignant") == (table["probability"] >= POINT.threshold)).all()


def test_differences_of_every_figure_between_groups_are_told(full_page: Page, full_metrics: dict[str, Any]) -> None:
    told = section(full_page, "groups")
    for column in full_metrics["test"]["subgroups"].values():
        for name in ("auroc", "sensitivity", "specificity"):
            assert column["difference"][name]["text"] in told


def test_a_cross_validation_is_not_said_to_be_decided_by_the_threshold_of_the_bundle(
    build_run: Callable[..., Any],
) -> None:
    point = {"name": "balanced", "rule": POINT.rule, "threshold": POINT.threshold, "by_fold": {"0": 0.2, "1": 0.6}}
    folder = build_run("folds", changes={"operating_point": point}).write()
    split = pd.read_csv(folder / "split.csv")
    split.assign(fold=np.arange(len(split)) % 2).to_csv(folder / "split.csv", index=False)
    run = read_run(folder)
    assert "; with each fold decided by the others it finds " in plain(answer(run))
    table = threshold_table(run)
    assert table is not None and table.columns[1] == "of each fold"
    [roc] = [plot for plot in result_plots(run) if plot.name == "roc"]
    labels, probabilities = (run.rows[name].to_numpy() for name in ("label", "probability"))
    called = probabilities >= np.array(run.thresholds)
    assert 0 < called.mean() < 1 and set(run.thresholds) == {0.2, 0.6}
    values = run.block["image"]
    expected = plots.roc(
        labels,
        probabilities,
        called=called,
        sensitivity_interval=tuple(values["sensitivity"]["ci"]),
        specificity_interval=tuple(values["specificity"]["ci"]),
    )
    assert roc.picture is not None and roc.picture.svg == expected.svg


def test_the_promise_of_a_split_by_image_is_not_made_for_a_new_patient(report: Report) -> None:
    words = "drawn without regard to patients, so for a new patient it does not hold."
    assert words in section(report(protocol="image"), "unsure")
    assert words not in section(report(), "unsure")


def test_where_the_promise_was_not_tried_it_is_told_why(report: Report, metrics: dict[str, Any]) -> None:
    reason = "in 3 of 3 folds nothing was withheld, since the others were too few (there are 8)"
    told = section(report(changes={"test": metrics["test"] | {"abstention": {"not_applicable": reason}}}), "unsure")
    assert f"What came of it was not measured: {reason}." in told
