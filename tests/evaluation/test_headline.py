"""What is said of the headline split besides its figures, against plain loops."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from clearmargin.decision import Abstention, decide, probability
from clearmargin.evaluation import metrics
from clearmargin.evaluation.assemble import images_of
from clearmargin.evaluation.choices import Choices
from clearmargin.evaluation.figures import Cases, Resampling
from clearmargin.evaluation.headline import at_prevalence, describe_headline
from clearmargin.settings import EvaluateSettings
from clearmargin.types import MANIFEST_COLUMNS

Draw = Callable[..., Any]
Build = Callable[..., pd.DataFrame]
At = Callable[..., Choices]

REGION = Abstention(coverage=0.8, low=0.35, high=0.6, n_units=40, unit="patient")


def describe(frame: pd.DataFrame, choices: Choices, **changes: Any) -> dict[str, Any]:
    columns = changes.pop("columns", None)
    thresholds = changes.pop("thresholds", choices.point.threshold)
    rows = frame.assign(threshold=thresholds)
    settings = EvaluateSettings(**({"resamples": 100} | changes))
    resampling = Resampling(settings.resamples, 3)
    return describe_headline(rows, images_of(rows), choices, settings=settings, resampling=resampling, columns=columns)


@pytest.fixture
def frame(clustered: Draw, frame_of: Build) -> pd.DataFrame:
    return frame_of(clustered(1, n_patients=25, images_each=12), threshold=0.45)


def withheld(frame: pd.DataFrame, threshold: float, region: Abstention) -> pd.DataFrame:
    decisions = decide(frame["probability"].to_numpy(), threshold, abstain_between=region.between)
    return frame.assign(decision=decisions)


def test_the_blocks_are_those_of_the_contract_and_clean_json(frame: pd.DataFrame, choices_at: At) -> None:
    always = ["within_patients", "calibration", "abstention", "risk_coverage", "decision_curve"]
    blocks = describe(frame, choices_at(0.45))
    assert list(blocks) == always
    manifest = frame[["path"]].reindex(columns=MANIFEST_COLUMNS).assign(site=["a", "b"] * 150)
    deciding = choices_at(0.45, abstention=REGION)
    blocks = describe(withheld(frame, 0.45, REGION), deciding, prevalence=0.01, columns=manifest)
    assert list(blocks) == [*always, "at_prevalence", "subgroups"]
    assert list(blocks["subgroups"]) == ["site"]
    assert json.loads(json.dumps(blocks, allow_nan=False)) == blocks


def test_subgroups_are_those_asked_for_or_none(frame: pd.DataFrame, choices_at: At) -> None:
    manifest = frame[["path"]].assign(site=["a", "b"] * 150, hospital=["x", "y", "z"] * 100)
    asked = describe(frame, choices_at(0.45), columns=manifest, subgroups=("hospital",))["subgroups"]
    assert list(asked) == ["hospital"]
    for group, start in zip(asked["hospital"]["groups"], range(3), strict=True):
        rows = frame.iloc[start::3]
        assert (group["value"], group["n_images"]) == ("xyz"[start], 100)
        assert group["sensitivity"]["value"] == pytest.approx(
            oracle.recall_score(rows["label"], rows["probability"] >= 0.45)
        )
        assert group["auroc"]["value"] == pytest.approx(oracle.roc_auc_score(rows["label"], rows["probability"]))
    assert "subgroups" not in describe(frame, choices_at(0.45), columns=manifest, subgroups=())


def test_within_patients_is_the_spread_of_each_patients_own_figures(frame: pd.DataFrame, choices_at: At) -> None:
    frame.loc[:11, "label"] = 0  # a patient without a malignant image
    frame.loc[12:23, "label"] = 1
    frame = frame.sample(frac=1, random_state=0)  # a patient's images need not stand together
    block = describe(frame, choices_at(0.45))["within_patients"]
    own: dict[str, list[float]] = {"auroc": [], "sensitivity": [], "specificity": [], "accuracy": []}
    for _, rows in frame.groupby("patient_id"):
        labels, called = rows["label"], rows["probability"] >= 0.45
        own["accuracy"].append(oracle.accuracy_score(labels, called))
        if (labels == 1).any():
            own["sensitivity"].append(oracle.recall_score(labels, called))
        if (labels == 0).any():
            own["specificity"].append(oracle.recall_score(labels, called, pos_label=0))
        if labels.nunique() == 2:
            own["auroc"].append(oracle.roc_auc_score(labels, rows["probability"]))
    assert list(block) == list(own)
    assert len(own["accuracy"]) == 25
    assert len(own["auroc"]) <= 23
    for name, values in own.items():
        expected = {
            "n": len(values),
            "min": min(values),
            "q1": np.percentile(values, 25),
            "median": np.median(values),
            "q3": np.percentile(values, 75),
            "max": max(values),
        }
        assert block[name] == pytest.approx(expected)


def test_within_patients_a_figure_that_no_patient_has_says_so(frame: pd.DataFrame, choices_at: At) -> None:
    alike = frame.assign(label=0)
    block = describe(alike, choices_at(0.45))["within_patients"]
    assert block["auroc"] == block["sensitivity"] == {"n": 0, "reason": "defined for no patient"}
    assert block["specificity"]["n"] == 25
    unknown = describe(frame.assign(patient_id=None), choices_at(0.45))["within_patients"]
    assert unknown == {"not_applicable": "patients are unknown"}


def test_the_reliability_is_mean_probability_and_share_of_malignant_in_each_bin(
    frame: pd.DataFrame, choices_at: At
) -> None:
    block = describe(frame, choices_at(0.45))["calibration"]
    rows = frame.assign(bin=np.minimum((frame["probability"] * 10).astype(int), 9)).groupby("bin")
    assert len(block["reliability"]) == rows.ngroups
    for entry, (number, inside) in zip(block["reliability"], rows, strict=True):
        assert entry["n"] == len(inside)
        assert (entry["lower"], entry["upper"]) == pytest.approx((int(str(number)) / 10, (int(str(number)) + 1) / 10))
        assert entry["mean_probability"] == pytest.approx(inside["probability"].mean())
        assert entry["observed"] == pytest.approx(inside["label"].mean())
        assert entry["ci"][0] <= entry["observed"] <= entry["ci"][1]


def test_the_expected_ece_is_what_labels_drawn_from_the_probabilities_show(frame: pd.DataFrame, choices_at: At) -> None:
    block = describe(frame, choices_at(0.45))["calibration"]
    rng = np.random.default_rng(9)
    values = frame["probability"].to_numpy()
    drawn = [metrics.ece((rng.random(len(values)) < values).astype(np.int64), values) for _ in range(400)]
    assert block["ece_expected"] == pytest.approx(np.mean(drawn), rel=0.05)
    assert block["ece_expected_high"] == pytest.approx(np.quantile(drawn, 0.95), rel=0.1)
    assert f"{block['ece_expected']:.3f}" in block["ece_note"]


def naive_abstention(frame: pd.DataFrame, thresholds: Any) -> dict[str, float]:
    frame = frame.assign(threshold=thresholds)
    covered: dict[str, list[float]] = {"covered": [], "covered_malignant": [], "covered_benign": []}
    deferred = wrong_decided = wrong_all = 0
    for _, rows in frame.groupby("patient_id"):
        fine: dict[int, list[bool]] = {0: [], 1: []}
        for label, value, decision, threshold in zip(
            rows["label"], rows["probability"], rows["decision"], rows["threshold"], strict=True
        ):
            right = decision == ("malignant" if label else "benign")
            fine[label].append(right or decision == "abstain")
            deferred += decision == "abstain"
            wrong_decided += not (right or decision == "abstain")
            wrong_all += (value >= threshold) != (label == 1)
        covered["covered"].append(float(np.mean(fine[0] + fine[1])))
        for name, label in (("covered_malignant", 1), ("covered_benign", 0)):
            if fine[label]:
                covered[name].append(float(np.mean(fine[label])))
    return {name: float(np.mean(values)) for name, values in covered.items()} | {
        "deferred": deferred / len(frame),
        "error_decided": wrong_decided / (len(frame) - deferred),
        "error_all": wrong_all / len(frame),
    }


def test_the_abstention_is_that_of_plain_loops_over_patients(frame: pd.DataFrame, choices_at: At) -> None:
    frame = withheld(frame, 0.45, REGION)
    assert 30 < (frame["decision"] == "abstain").sum() < 200
    block = describe(frame, choices_at(0.45, abstention=REGION))["abstention"]
    expected = naive_abstention(frame, 0.45)
    assert list(block) == ["coverage", *expected]
    assert block["coverage"] == 0.8
    for name, value in expected.items():
        assert block[name]["value"] == pytest.approx(value)
        assert block[name]["ci"][0] <= value <= block[name]["ci"][1]


def test_the_abstention_of_folds_goes_by_each_folds_own_decisions_and_threshold(
    frame: pd.DataFrame, choices_at: At
) -> None:
    fold = frame["patient_id"].astype(int) % 2
    other = Abstention(coverage=0.8, low=0.6, high=0.8, n_units=40, unit="patient")
    parts = [withheld(frame[fold == 0], 0.45, REGION), withheld(frame[fold == 1], 0.7, other)]
    frame = pd.concat(parts).sort_index()
    thresholds = np.where(fold == 0, 0.45, 0.7)
    blocks = describe(frame, choices_at(0.5, abstention=REGION), thresholds=thresholds)
    expected = naive_abstention(frame, thresholds)
    assert {name: blocks["abstention"][name]["value"] for name in expected} == pytest.approx(expected)


def test_where_nothing_is_promised_the_abstention_says_why(frame: pd.DataFrame, choices_at: At) -> None:
    reason = "a coverage of 0.9 needs at least 9 validation patients, and there are 5"
    assert describe(frame, choices_at(0.45, abstention=reason))["abstention"] == {"not_applicable": reason}


def test_where_everything_is_withheld_the_error_of_the_decided_is_null_with_a_reason(
    frame: pd.DataFrame, choices_at: At
) -> None:
    region = Abstention(coverage=0.9, low=0.0, high=1.0, n_units=40, unit="patient")
    block = describe(withheld(frame, 0.45, region), choices_at(0.45, abstention=region))["abstention"]
    assert block["deferred"]["value"] == block["covered"]["value"] == 1.0
    assert block["error_decided"]["value"] is block["error_decided"]["ci"] is None
    assert block["error_decided"]["reason"]


def naive_risk(frame: pd.DataFrame, thresholds: Any) -> list[float]:
    """Share wrong among the n surest, for every n; no two images are equally sure here."""
    values = frame["probability"].to_numpy()
    distance = np.abs(np.log(values / (1 - values)) - np.log(thresholds / (1 - thresholds)))
    wrong = (values >= thresholds) != (frame["label"].to_numpy() == 1)
    surest = wrong[np.argsort(-distance)]
    return [float(surest[:n].mean()) for n in range(1, len(frame) + 1)]


def check_risk(block: dict[str, Any], expected: list[float]) -> None:
    assert block["decided"] == pytest.approx(np.arange(20, 0, -1) / 20)
    assert block["error"] == pytest.approx([expected[15 * n - 1] for n in range(20, 0, -1)])  # 300 images
    assert block["area"]["value"] == pytest.approx(np.mean(expected))
    assert len(block["ci"]) == 20
    for ends, error in zip(block["ci"], block["error"], strict=True):
        assert ends is None or ends[0] <= error <= ends[1]


def test_the_risk_coverage_curve_is_the_error_among_the_surest(frame: pd.DataFrame, choices_at: At) -> None:
    check_risk(describe(frame, choices_at(0.45))["risk_coverage"], naive_risk(frame, np.full(300, 0.45)))


def test_the_risk_coverage_of_folds_takes_each_image_by_the_threshold_of_its_fold(
    frame: pd.DataFrame, choices_at: At
) -> None:
    thresholds = np.where(frame["patient_id"].astype(int) % 2 == 0, 0.3, 0.7)
    block = describe(frame, choices_at(0.5), thresholds=thresholds)["risk_coverage"]
    check_risk(block, naive_risk(frame, thresholds))
    assert block["error"][0] == pytest.approx(np.mean((frame["probability"] >= thresholds) != frame["label"]))


def test_the_decision_curve_is_net_benefit_by_its_definition(frame: pd.DataFrame, choices_at: At) -> None:
    block = describe(frame, choices_at(0.45))["decision_curve"]
    assert block["threshold"] == pytest.approx(np.arange(1, 100) / 100)
    labels, values = frame["label"].to_numpy(), frame["probability"].to_numpy()
    for place in (0, 9, 44, 60, 98):
        pt = (place + 1) / 100
        called = values >= pt
        true, false = (called & (labels == 1)).sum(), (called & (labels == 0)).sum()
        assert block["model"][place] == pytest.approx((true - false * pt / (1 - pt)) / 300)
        assert block["treat_all"][place] == pytest.approx(labels.mean() - (1 - labels.mean()) * pt / (1 - pt))
    assert all(ends is None or ends[0] <= ends[1] for ends in block["ci"])


def test_curves_take_fewer_resamples_and_the_same_seed(frame: pd.DataFrame, choices_at: At) -> None:
    many, fewer = (describe(frame, choices_at(0.45), resamples=number) for number in (700, 500))
    assert many["risk_coverage"] == fewer["risk_coverage"]
    assert many["decision_curve"] == fewer["decision_curve"]


@pytest.mark.parametrize("prevalence", [0.01, 0.3, 0.9])
def test_ppv_and_npv_at_a_prevalence_are_those_of_bayes(prevalence: float) -> None:
    # Sensitivity 0.8 and specificity 0.9: 20 of 25 malignant and 90 of 100 benign images.
    labels = np.repeat([1, 1, 0, 0], [20, 5, 90, 10])
    probabilities = np.repeat([0.9, 0.1, 0.1, 0.9], [20, 5, 90, 10])
    images = Cases("image", "patient", labels, probabilities, probabilities >= 0.5, np.arange(125) % 25, 25)
    block = at_prevalence(images, prevalence, Resampling(300, 0))
    found, alarms = 0.8 * prevalence, 0.1 * (1 - prevalence)
    assert block["ppv"]["value"] == pytest.approx(found / (found + alarms))
    cleared, missed = 0.9 * (1 - prevalence), 0.2 * prevalence
    assert block["npv"]["value"] == pytest.approx(cleared / (cleared + missed))
    assert (block["prevalence"], block["observed"]) == (prevalence, 0.2)
    for name in ("ppv", "npv"):
        assert block[name]["ci"][0] < block[name]["value"] < block[name]["ci"][1]


def test_at_the_prevalence_of_the_data_ppv_and_npv_are_the_datas_own(frame: pd.DataFrame, choices_at: At) -> None:
    share = float(frame["label"].mean())
    block = describe(frame, choices_at(0.45), prevalence=share)["at_prevalence"]
    called = frame["probability"] >= 0.45
    assert block["observed"] == pytest.approx(share)
    assert block["ppv"]["value"] == pytest.approx(oracle.precision_score(frame["label"], called))
    assert block["npv"]["value"] == pytest.approx(oracle.precision_score(frame["label"], called, pos_label=0))


def test_at_a_prevalence_what_is_undefined_is_null_with_a_reason(frame: pd.DataFrame, choices_at: At) -> None:
    benign = frame.assign(label=0, probability=0.1, logit=-2.0, decision="benign")
    block = describe(benign, choices_at(0.45), prevalence=0.1)["at_prevalence"]
    for name in ("ppv", "npv"):
        assert block[name]["value"] is block[name]["ci"] is None
        assert block[name]["reason"]


def test_probabilities_of_exactly_0_and_1_and_one_image_stay_clean_json(frame: pd.DataFrame, choices_at: At) -> None:
    logits = np.resize([-800.0, 800.0, 0.0], 300)
    certain = frame.assign(logit=logits, probability=probability(logits))
    for rows in (certain, certain[:1], certain[:13]):
        blocks = describe(withheld(rows, 0.45, REGION), choices_at(0.45, abstention=REGION), prevalence=0.2)
        json.dumps(blocks, allow_nan=False)
