"""The trivial classifier: right against plain counting, honest where there is nothing, whole patients on one side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from clearmargin.data.audit import trivial
from clearmargin.data.audit.trivial import LEAST_UNITS, Folds, deal_folds, trivial_auroc
from clearmargin.evaluation.bootstrap import draw_units


def cohort(
    seed: int, *, patients: int, mixed: bool, uneven: bool = False, effect: float = 0.0
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Facts that belong to the patient more than to the image; `effect` moves the first one in malignant images."""
    generator = np.random.default_rng(seed)
    sizes = np.ceil(generator.lognormal(2, 1.2, patients)).astype(int) if uneven else np.full(patients, 4)
    units = np.repeat(np.arange(patients), sizes)
    if mixed:
        labels = generator.random(len(units)) < generator.beta(1, 2, patients)[units]
    else:
        labels = (generator.permutation(patients) % 2)[units]
    values = generator.normal(size=(patients, 3))[units] + 0.5 * generator.normal(size=(len(units), 3))
    values[:, 0] += effect * labels
    features = pd.DataFrame(values, columns=["red", "green", "blue"])
    features["site"] = np.array(["A", "B", "C"])[generator.integers(0, 3, patients)][units]
    return features, labels.astype(np.int8), units


def reach(features: pd.DataFrame, labels: np.ndarray, units: np.ndarray, seed: int = 0) -> trivial.Reached:
    folds = deal_folds(labels, units, seed=seed)
    assert folds is not None
    found = trivial_auroc(features, folds, seed=seed)
    assert found is not None
    return found


class TestFolds:
    def test_no_patient_is_in_two_folds_and_every_image_is_in_one(self) -> None:
        _, labels, units = cohort(0, patients=40, mixed=True, uneven=True)
        folds = deal_folds(labels, units, seed=0)
        assert folds is not None
        assert folds.rows.tolist() == list(range(len(labels)))
        assert (pd.Series(folds.folds).groupby(folds.units).nunique() == 1).all()
        assert set(folds.folds) == set(range(5)) == set(range(folds.n_folds))

    def test_a_class_in_too_few_patients_gives_none(self) -> None:
        labels = np.array([0] * 10 + [1] * LEAST_UNITS, dtype=np.int8)
        units = np.arange(len(labels))
        assert deal_folds(labels, units, seed=0) is not None
        assert deal_folds(labels[:-1], units[:-1], seed=0) is None
        one_patient_twice = np.minimum(units, len(units) - 2)
        assert deal_folds(labels, one_patient_twice, seed=0) is None

    def test_of_many_images_a_share_of_each_patient_and_class_is_taken(self) -> None:
        sizes = [40_000, 10_000, *[500] * 10, 1]
        units = np.repeat(np.arange(len(sizes)), sizes)
        labels = (np.arange(len(units)) % 4 == 0).astype(np.int8)
        folds = deal_folds(labels, units, seed=3)
        assert folds is not None
        taken = pd.Series(folds.rows).groupby(units[folds.rows]).size()
        share = 20_000 / len(units)
        assert len(taken) == len(sizes)
        assert taken.iloc[:-1].to_numpy() == pytest.approx(np.array(sizes[:-1]) * share, abs=2)
        assert taken.iloc[-1] == 1
        assert folds.labels.mean() == pytest.approx(0.25, abs=0.001)
        assert (folds.labels == labels[folds.rows]).all()

    def test_of_many_patients_as_many_with_as_without_the_class_are_taken(self) -> None:
        units = np.repeat(np.arange(40_000), 3)
        labels = ((units < 3_000) & (np.arange(len(units)) % 3 == 0)).astype(np.int8)
        folds = deal_folds(labels, units, seed=3)
        assert folds is not None
        with_class = units[folds.rows] < 3_000
        assert len(np.unique(units[folds.rows][with_class])) == len(np.unique(units[folds.rows][~with_class])) == 2_500
        assert len(folds.rows) == 15_000
        assert (np.bincount(folds.folds[folds.labels == 1]) == 500).all()


class TestWithinFolds:
    """The figure against counting pairs one by one."""

    @pytest.fixture
    def folds(self) -> Folds:
        _, labels, units = cohort(1, patients=20, mixed=True)
        found = deal_folds(labels, units, seed=1)
        assert found is not None
        return found

    def test_the_figure_counts_the_pairs_of_each_fold(self, folds: Folds) -> None:
        ranks = np.random.default_rng(0).integers(0, 6, len(folds.labels)) / 6
        value, _ = trivial._within_fold_auroc(ranks, folds, seed=5)
        won = pairs = 0.0
        for fold in range(folds.n_folds):
            here = folds.folds == fold
            labels = folds.labels[here]
            of_fold = float(labels.sum() * (1 - labels.astype(int)).sum())
            won += of_fold * roc_auc_score(labels, ranks[here])
            pairs += of_fold
        assert value == pytest.approx(won / pairs, abs=1e-8)

    def test_a_resample_is_the_same_as_a_table_with_the_drawn_patients(self, folds: Folds) -> None:
        ranks = np.random.default_rng(1).integers(0, 6, len(folds.labels)) / 6
        _, resampled = trivial._within_fold_auroc(ranks, folds, seed=5)
        n_units = int(folds.units.max()) + 1
        for resample in (0, 7, 400):
            drawn = draw_units(n_units, resample=resample, seed=5)
            rows = np.concatenate([np.flatnonzero(folds.units == unit) for unit in drawn])
            won = pairs = 0.0
            for i in rows[folds.labels[rows] == 1]:
                for j in rows[(folds.labels[rows] == 0) & (folds.folds[rows] == folds.folds[i])]:
                    won += (ranks[i] > ranks[j]) + 0.5 * (ranks[i] == ranks[j])
                    pairs += 1
            assert resampled[resample] == pytest.approx(won / pairs, abs=1e-8)

    def test_models_never_see_the_patients_they_rank(self) -> None:
        # Each patient has a value of its own: known by heart it tells the class, on new patients it says nothing.
        labels = np.repeat(np.arange(40) % 2, 5).astype(np.int8)
        units = np.repeat(np.arange(40), 5)
        features = pd.DataFrame({"site": [f"S{unit}" for unit in units]})
        assert reach(features, labels, units).auroc == 0.5


class TestReached:
    def test_images_with_the_same_facts_tie(self) -> None:
        _, labels, units = cohort(0, patients=30, mixed=True)
        features = pd.DataFrame({"red": np.where(units % 2, 0.1, 0.2), "blue": np.where(units % 2, 0.3, 0.7)})
        folds = deal_folds(labels, units, seed=0)
        assert folds is not None
        ranks = trivial._unseen_ranks(trivial._steps(features), folds)
        for fold in range(folds.n_folds):
            assert len(set(ranks[folds.folds == fold])) <= 2

    def test_a_fact_that_tells_all_reaches_one_with_an_interval_that_is_not_a_point(self) -> None:
        _, labels, units = cohort(0, patients=24, mixed=True)
        found = reach(pd.DataFrame({"format": np.where(labels, "PNG", "JPEG")}), labels, units)
        assert (found.auroc, found.high) == (1.0, 1.0)
        assert found.low == pytest.approx(0.025 ** (1 / 24))

    def test_values_on_both_sides_of_the_middle_are_seen(self) -> None:
        _, labels, units = cohort(3, patients=60, mixed=False)
        width = np.where(labels == 0, 500, np.where(units % 3 == 0, 400, 600))
        assert reach(pd.DataFrame({"width": width}), labels, units).auroc == 1.0

    def test_a_value_that_is_missing_can_tell(self) -> None:
        _, labels, units = cohort(3, patients=30, mixed=False)
        for values in (pd.Series(np.where(labels, np.nan, 4.0)), pd.Series(np.where(labels, None, "L"), dtype="str")):
            assert reach(pd.DataFrame({"side": values}), labels, units).auroc == 1.0

    def test_a_fact_that_does_not_vary_gives_none(self) -> None:
        _, labels, units = cohort(0, patients=20, mixed=False)
        folds = deal_folds(labels, units, seed=0)
        assert folds is not None
        same = pd.DataFrame({"width": pd.array([50] * len(labels), dtype="Int64"), "format": "PNG", "site": None})
        assert trivial_auroc(same, folds, seed=0) is None

    def test_the_same_seed_gives_the_same_figure(self) -> None:
        table = cohort(0, patients=20, mixed=False, effect=1.0)
        assert reach(*table) == reach(*table)


class TestSimulated:
    """Where the facts say nothing of the class, the interval holds 0.5; where they do, it is seen."""

    @pytest.mark.parametrize(("patients", "mixed", "uneven"), [(12, False, False), (24, False, True), (24, True, True)])
    def test_nothing_is_found_where_nothing_is(self, patients: int, mixed: bool, uneven: bool) -> None:
        found = [
            reach(*cohort(seed, patients=patients, mixed=mixed, uneven=uneven), seed=seed)
            for seed in range(100)
            if deal_folds(*cohort(seed, patients=patients, mixed=mixed, uneven=uneven)[1:], seed=seed) is not None
        ]
        assert len(found) > 80
        values = np.array([each.auroc for each in found])
        assert abs(values.mean() - 0.5) < 3 * values.std() / np.sqrt(len(values))
        covered = np.mean([each.low <= 0.5 <= each.high for each in found])
        assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / len(found))  # what 95 % allow in so few cohorts
        assert np.mean([each.low > 0.6 for each in found]) <= 0.05

    def test_a_strong_effect_is_found_in_nearly_every_cohort(self) -> None:
        found = [reach(*cohort(seed, patients=60, mixed=False, effect=2.5), seed=seed) for seed in range(20)]
        assert np.mean([each.low > 0.6 for each in found]) >= 0.9
        assert all(each.low <= each.auroc <= each.high for each in found)
