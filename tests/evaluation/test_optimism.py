"""The gap between a random split and new patients is found where a model can know patients, and else not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from clearmargin.errors import DataError
from clearmargin.evaluation import metrics
from clearmargin.evaluation.optimism import COLUMNS, optimism

FOLDS = 4


def cross_validate(seed: int, *, patients_differ: bool, n_patients: int = 30, repeats: int = 1) -> list[pd.DataFrame]:
    """Out-of-fold predictions under random folds, and under folds of patients.

    Where patients differ each has a place in feature space and a share of malignant images of its own, which
    neighbours give away; where they do not, every image is a patient's by name only.
    """
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), 8)
    share = rng.beta(1, 1, size=n_patients) if patients_differ else np.full(n_patients, 0.5)
    labels = (rng.random(len(patients)) < share[patients]).astype(np.int64)
    places = rng.normal(scale=3.0 if patients_differ else 0.0, size=(n_patients, 4))[patients]
    features = places + rng.normal(size=(len(patients), 4)) + 0.7 * labels[:, None]
    learner = KNeighborsClassifier(5) if patients_differ else GaussianNB()
    tables = []
    for by_patient in (False, True):
        rows = []
        for repeat in range(repeats):
            luck = 100 * seed + repeat
            if by_patient:
                dealt = GroupKFold(FOLDS, shuffle=True, random_state=luck).split(features, labels, patients)
            else:
                dealt = KFold(FOLDS, shuffle=True, random_state=luck).split(features)
            for fold, (train, test) in enumerate(dealt):
                probabilities = learner.fit(features[train], labels[train]).predict_proba(features[test])[:, 1]
                rows.append(rows_of(test, patients, labels, probabilities).assign(repeat=repeat, fold=fold))
        tables.append(pd.concat(rows, ignore_index=True))
    return tables


def rows_of(
    images: NDArray[np.int64],
    patients: NDArray[np.int64],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [f"{image:05d}.png" for image in images],
            "patient_id": [f"P{patient:03d}" for patient in patients[images]],
            "label": labels[images],
            "probability": probabilities,
            "decision": np.where(probabilities >= 0.5, "malignant", "benign"),
        }
    )


@pytest.fixture(scope="module")
def tables() -> list[pd.DataFrame]:
    return cross_validate(0, patients_differ=True, repeats=2)


@pytest.fixture(scope="module")
def result(tables: list[pd.DataFrame]) -> dict[str, Any]:
    return optimism(*tables, resamples=200, seed=0)


class TestFigures:
    def test_each_is_the_mean_over_folds_by_images(self, tables: list[pd.DataFrame], result: dict[str, Any]) -> None:
        for name, table in zip(("random", "patient"), tables, strict=True):
            folds = [rows for _, rows in table.groupby(["repeat", "fold"])]
            images = [len(rows) for rows in folds]
            ranked = [metrics.auroc(rows["label"].to_numpy(), rows["probability"].to_numpy()) for rows in folds]
            right = [float(((rows["decision"] == "malignant") == (rows["label"] == 1)).mean()) for rows in folds]
            assert result[name]["auroc"]["value"] == pytest.approx(np.average(ranked, weights=images))
            assert result[name]["accuracy"]["value"] == pytest.approx(np.average(right, weights=images))
        assert (result["n_images"], result["n_patients"]) == (240, 30)
        assert result["folds"] == {"random": FOLDS, "patient": FOLDS}
        assert result["repeats"] == {"random": 2, "patient": 2}

    def test_the_gap_is_the_difference_and_lies_in_its_interval(self, result: dict[str, Any]) -> None:
        assert set(result["gap"]) == set(metrics.FIGURES)
        for name, gap in result["gap"].items():
            assert gap["value"] == pytest.approx(result["random"][name]["value"] - result["patient"][name]["value"])
            low, high = gap["ci"]
            assert low <= gap["value"] <= high
            assert (gap["p"] < 0.05) == (not low <= 0 <= high)

    def test_the_same_folds_have_no_gap_at_all(self, tables: list[pd.DataFrame]) -> None:
        _, patient = tables
        same = optimism(patient, patient[patient["repeat"] >= 0], resamples=50, seed=0)
        assert same["gap"]["auroc"]["value"] == 0

    def test_the_order_of_rows_does_not_matter_and_json_takes_it(
        self, tables: list[pd.DataFrame], result: dict[str, Any]
    ) -> None:
        shuffled = [table.sample(frac=1, random_state=1).assign(fold=10 - table["fold"]) for table in tables]
        again = optimism(*shuffled, resamples=200, seed=0)
        for name in ("random", "patient", "gap"):
            for figure, found in result[name].items():
                assert again[name][figure]["value"] == pytest.approx(found["value"])
                assert again[name][figure]["ci"] == pytest.approx(found["ci"])
        json.dumps(result, allow_nan=False)

    def test_a_fold_without_a_class_is_left_out_of_what_needs_it(self, tables: list[pd.DataFrame]) -> None:
        random, patient = (table[table["repeat"] == 0] for table in tables)
        # One patient, all benign, makes a fold of her own.
        alone = patient["patient_id"] == "P000"
        labels = {
            name: table["label"].where(table["patient_id"] != "P000", 0)
            for name, table in (("random", random), ("patient", patient))
        }
        patient = patient.assign(fold=patient["fold"].where(~alone, 9), label=labels["patient"])
        found = optimism(random.assign(label=labels["random"]), patient, resamples=50, seed=0)
        others = patient[~alone]
        expected = np.average(
            [metrics.auroc(r["label"].to_numpy(), r["probability"].to_numpy()) for _, r in others.groupby("fold")],
            weights=others.groupby("fold").size(),
        )
        assert found["patient"]["auroc"]["value"] == pytest.approx(expected)


class TestGap:
    def test_one_is_found_where_a_learner_can_know_patients(self) -> None:
        studies = [cross_validate(seed, patients_differ=True, n_patients=40) for seed in range(10)]
        results = [optimism(*tables, resamples=60, seed=0) for tables in studies]
        found = [result for result in results if result["gap"]["auroc"]["p"] < 0.05]
        assert len(found) >= 9
        for result in found:
            assert result["gap"]["auroc"]["ci"][0] > 0
            assert result["text"].startswith("A random split would have told you AUROC 0.")
            assert "too much (0." in result["text"]

    def test_the_interval_holds_0_about_95_times_in_100_where_patients_do_not_differ(self) -> None:
        studies = 50
        claimed = 0
        for seed in range(studies):
            found = optimism(*cross_validate(seed, patients_differ=False), resamples=60, seed=0)
            claimed += found["gap"]["auroc"]["p"] < 0.05
        # 50 studies leave a standard error of 3 %.
        assert claimed / studies <= 0.12

    def test_without_evidence_the_sentence_says_so_and_how_large_it_may_be(self) -> None:
        found = optimism(*cross_validate(1, patients_differ=False), resamples=60, seed=0)
        assert found["gap"]["auroc"]["p"] > 0.05
        assert found["text"].startswith(
            "No evidence of a gap in AUROC on 30 patients: a random split would have told you AUROC"
        )
        assert "may be anything from -0.0" in found["text"]
        assert found["note"].startswith("one repeat")

    def test_several_repeats_need_no_note(self, result: dict[str, Any]) -> None:
        assert result["note"] is None


class TestRefused:
    @pytest.mark.parametrize("column", COLUMNS)
    def test_a_missing_column(self, tables: list[pd.DataFrame], column: str) -> None:
        with pytest.raises(DataError, match=f"the random folds lack {column}"):
            optimism(tables[0].drop(columns=column), tables[1], resamples=10, seed=0)

    def test_other_images_patients_or_labels(self, tables: list[pd.DataFrame]) -> None:
        random, patient = tables
        with pytest.raises(DataError, match=r"the first that differs is '00007\.png'"):
            optimism(random[random["path"] != "00007.png"], patient, resamples=10, seed=0)
        turned = random.assign(label=random["label"].where(random["path"] != "00009.png", 1 - random["label"]))
        with pytest.raises(DataError, match=r"the first that differs is '00009\.png'"):
            optimism(turned, patient, resamples=10, seed=0)

    def test_an_image_twice_or_not_at_all_in_a_repeat(self, tables: list[pd.DataFrame]) -> None:
        random, patient = tables
        with pytest.raises(DataError, match="is predicted twice in a repeat of the random folds"):
            optimism(pd.concat([random, random.iloc[[0]]]), patient, resamples=10, seed=0)
        with pytest.raises(DataError, match="is missing in a repeat of the random folds"):
            optimism(random.iloc[1:], patient, resamples=10, seed=0)

    def test_a_patient_in_two_folds(self, tables: list[pd.DataFrame]) -> None:
        with pytest.raises(DataError, match=r"patient 'P000' is in \d folds of repeat 0 of the patient folds"):
            optimism(tables[1], tables[0], resamples=10, seed=0)

    def test_decisions_that_follow_no_threshold(self, tables: list[pd.DataFrame]) -> None:
        random, patient = tables
        turned = random.assign(decision=random["decision"].map({"benign": "malignant", "malignant": "benign"}))
        with pytest.raises(DataError, match="follow no threshold"):
            optimism(turned, patient, resamples=10, seed=0)
        withheld = random.assign(decision=random["decision"].where(random.index > 0, "abstain"))
        with pytest.raises(DataError, match="without abstaining"):
            optimism(withheld, patient, resamples=10, seed=0)

    def test_unknown_patients(self, tables: list[pd.DataFrame]) -> None:
        random, patient = tables
        with pytest.raises(DataError, match="have no patient_id"):
            optimism(random.assign(patient_id=None), patient, resamples=10, seed=0)
