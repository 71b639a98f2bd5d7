"""Two models are compared on what both were tested on, by tests that hold where they are used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sklearn_metrics

from clearmargin.decision import probability
from clearmargin.errors import DataError, UsageError
from clearmargin.evaluation.comparison import COLUMNS, compare_models
from clearmargin.evaluation.delong import delong
from clearmargin.evaluation.foreign import Predictions
from clearmargin.evaluation.pairing import match_paths, pair_models
from clearmargin.evaluation.significance import clustered_mcnemar, delong_difference, holm, mcnemar
from clearmargin.evaluation.verdict import HEADLINE


def draw_models(
    seed: int, *, n_patients: int = 20, images_each: int = 8, gain: float = 0.0, names: Sequence[str] = ("one", "two")
) -> list[Predictions]:
    """Models that share what is hard about a patient and differ in the rest; the last is better by `gain`."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), images_each)
    labels = (rng.random(len(patients)) < rng.beta(1.5, 3.0, size=n_patients)[patients]).astype(np.int64)
    labels[:2] = 0, 1
    if images_each > 1:
        labels[-2:] = 0, 1
    side = 2 * labels - 1
    shared = side + 0.7 * rng.normal(size=n_patients)[patients] + 0.7 * rng.normal(size=len(patients))
    models = []
    for name in names:
        shift, skill = 0.7 * rng.normal(size=(2, n_patients))
        better = gain if name == names[-1] else 0.0
        logits = shared + (better + skill[patients]) * side + shift[patients] + 0.7 * rng.normal(size=len(patients))
        models.append(build_model(name, labels, probability(logits), patients))
    return models


def build_model(
    name: str,
    labels: Sequence[int] | NDArray[np.int64],
    probabilities: Sequence[float] | NDArray[np.float64],
    patients: Sequence[int] | NDArray[np.int64],
    threshold: float | None = 0.5,
) -> Predictions:
    table = pd.DataFrame(
        {
            "path": [f"P{patient:02}/{number:03}.png" for number, patient in enumerate(patients)],
            "patient_id": pd.array([f"P{patient:02}" for patient in patients], dtype="str"),
            "split": "test",
            "label": np.asarray(labels, dtype=np.int64),
            "probability": np.asarray(probabilities, dtype=np.float64),
        }
    )
    return Predictions(name, table, threshold)


def change(model: Predictions, **columns: Any) -> Predictions:
    return replace(model, table=model.table.assign(**columns))


def compare(models: Sequence[Predictions], resamples: int = 200) -> pd.DataFrame:
    return compare_models(models, resamples=resamples, seed=0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    corrected = holm(np.array(p_values))
    # Rejecting by hand: the smallest first, each against 0.05 by those that are left, until one stands.
    rejected: set[int] = set()
    for step, place in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[place] * (len(p_values) - step) >= 0.05:
            break
        rejected.add(int(place))
    assert {int(place) for place in np.flatnonzero(corrected < 0.05)} == rejected
    assert (corrected >= np.array(p_values)).all() and (corrected <= 1).all()


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_mcnemar_is_the_sum_of_the_binomial_tails(pairs: list[tuple[bool, bool]]) -> None:
    right = np.array(pairs)
    only_a, only_b = (right[:, 0] & ~right[:, 1]).sum(), (right[:, 1] & ~right[:, 0]).sum()
    n = int(only_a + only_b)
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    assert mcnemar(right[:, 0], right[:, 1]) == pytest.approx(min(1.0, 2 * tail))


def test_clustered_mcnemar_of_single_images_is_the_classical_statistic() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 60)) < 0.7
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    classical = (only_a - only_b) ** 2 / (only_a + only_b)
    assert clustered_mcnemar(a, b, np.arange(60)) == pytest.approx(stats.chi2.sf(classical * 59 / 60, 1))
    assert clustered_mcnemar(a, a, np.arange(60)) == 1.0
    assert math.isnan(clustered_mcnemar(a, b, np.zeros(60, dtype=np.int64)))


def test_delong_difference_agrees_with_its_interval() -> None:
    for seed in range(20):
        a, b = draw_models(seed, n_patients=40, images_each=1, gain=0.8)
        labels = a.table["label"].to_numpy()
        shares = np.stack([a.table["probability"], b.table["probability"]])
        found = delong_difference(labels, shares)
        assert found is not None
        low, high, p = found
        difference = sklearn_metrics.roc_auc_score(labels, shares[0]) - sklearn_metrics.roc_auc_score(labels, shares[1])
        assert (low + high) / 2 == pytest.approx(difference)
        assert (p < 0.05) == (not low <= 0 <= high)


@pytest.mark.parametrize(
    ("first", "second", "matched"),
    [
        (["a/1.png", "a/2.png"], ["a/2.png", "b/1.png"], {(1, 0)}),
        (["/x/P1/1.png", "/x/P2/1.png"], ["P2/1.png", "P1/1.png"], {(0, 1), (1, 0)}),
        (["/x/P1/1.png", "/x/P2/2.png"], ["D:\\y\\2.jpg", "D:\\y\\1.jpg"], {(0, 1), (1, 0)}),
        (["x/P1/1.png", "x/P2/1.png"], ["y/1.png"], set()),
        (["./a.png"], ["a.png"], {(0, 0)}),
        (["x/1.2.34", "x/1.2.35"], ["1.2.35.dcm"], {(1, 0)}),
    ],
    ids=["same", "root", "name", "ambiguous", "dot", "uid"],
)
def test_paths_match_by_what_tells_them_apart(
    first: list[str], second: list[str], matched: set[tuple[int, int]]
) -> None:
    rows, others, _ = match_paths(pd.Series(first), pd.Series(second))
    assert set(zip(rows.tolist(), others.tolist(), strict=True)) == matched


def test_images_and_patients_that_either_was_trained_on_are_left_out_and_counted() -> None:
    a, b = draw_models(0, n_patients=12, images_each=4)
    part_a = np.where(a.table["patient_id"] == "P00", "train", "test")
    part_b = np.where(b.table["patient_id"].isin(["P01"]), "validation", "test")
    a, b = change(a, split=part_a), change(b, split=part_b)
    a.table.loc[4, "path"] = "elsewhere.png"  # of P01, whose other images B was validated on
    b = replace(b, table=b.table.iloc[:-1])
    pairing = pair_models(a, b)
    assert pairing.counts == {
        **{"test_a": 44, "test_b": 43, "unmatched_a": 2, "unmatched_b": 0},
        **{"trained_images": 7, "trained_patients": 0, "compared": 39},
    }
    assert pairing.n_units == 10


def test_patient_of_one_training_is_left_out_of_the_other_test_even_under_another_name() -> None:
    a, b = draw_models(0, n_patients=12, images_each=4)
    split = np.array(["test"] * 48, dtype=object)
    split[:2] = "train"  # of the first patient, who has two more images in A's test part
    for renamed in (b, change(b, patient_id="Q" + b.table["patient_id"])):
        pairing = pair_models(change(a, split=split), renamed)
        assert pairing.counts["trained_images"] == 2
        assert pairing.counts["trained_patients"] == 2
        assert pairing.n_units == 11
        unnamed = pair_models(change(a, split=split, patient_id=pd.array([None] * 48, dtype="str")), renamed)
        assert unnamed.counts["trained_patients"] == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": [f"x{number}" for number in range(32)]}, "no image of one is in two.*same file names"),
        ({"label": 0}, r"another label in one than in two, the first is 'P.*1 is malignant in both"),
        ({"split": "train"}, "no image is left.*32 are in the train or validation part.*split.csv"),
        ({"patient_id": [f"P{number % 7}" for number in range(32)]}, "do not agree which images are of one patient"),
    ],
)
def test_models_that_cannot_be_compared_are_refused(columns: dict[str, Any], message: str) -> None:
    a, b = draw_models(0, n_patients=4)
    with pytest.raises(DataError, match=message):
        compare([a, change(b, **columns)])


def test_one_class_one_patient_and_one_model_are_refused() -> None:
    a, b = draw_models(0, n_patients=4)
    with pytest.raises(DataError, match="are benign: give test images of both classes"):
        compare([change(a, label=0), change(b, label=0)])
    with pytest.raises(DataError, match="are of one patient: give test images of several"):
        compare([change(a, patient_id="P"), change(b, patient_id="P")])
    with pytest.raises(UsageError, match="one model cannot be compared"):
        compare([a])
    with pytest.raises(UsageError, match="10 resamples"):
        compare([a, b], resamples=10)


def test_alike_names_of_different_patients_are_refused() -> None:
    a, b = draw_models(0, n_patients=4)
    names = [f"y/{path.split('/')[1]}" for path in b.table["path"]]
    assert pair_models(a, change(b, path=names)).matched_by == "the last 1 part of the path"
    with pytest.raises(DataError, match="the names are alike, the images may not be"):
        compare([a, change(b, path=names, patient_id="Q" + b.table["patient_id"])])


def test_figures_are_those_of_the_common_images_in_any_order() -> None:
    a, b = draw_models(1, names=("one", "two"))
    b = replace(b, table=b.table.iloc[:-8])
    table = compare([a, b])
    assert tuple(table.columns) == COLUMNS
    rows = table.set_index("figure")
    common = a.table.iloc[:-8]
    expected = sklearn_metrics.roc_auc_score(common["label"], common["probability"])
    assert rows.loc["auroc", "value_a"] == pytest.approx(expected)
    expected = sklearn_metrics.recall_score(b.table["label"], b.table["probability"] >= 0.5)
    assert rows.loc["sensitivity", "value_b"] == pytest.approx(expected)
    shuffled = [replace(model, table=model.table.sample(frac=1, random_state=3)) for model in (a, b)]
    pd.testing.assert_frame_equal(compare(shuffled), table)


def test_each_model_keeps_its_own_threshold() -> None:
    a, b = draw_models(1)
    rows = compare([replace(a, threshold=0.2), replace(b, threshold=0.7)]).set_index("figure")
    for column, model, threshold in (("value_a", a, 0.2), ("value_b", b, 0.7)):
        expected = sklearn_metrics.recall_score(model.table["label"], model.table["probability"] >= threshold)
        assert rows.loc["sensitivity", column] == pytest.approx(expected)


def test_without_a_threshold_no_figure_at_one_is_made_up() -> None:
    a, b = draw_models(1)
    table = compare([a, replace(b, threshold=None)])
    assert table["figure"].tolist() == ["auroc", "auprc", "brier", "ece"]
    assert any("give the threshold" in note for note in table.attrs["pairs"][0]["notes"])


def test_exchanging_the_models_turns_the_signs_and_nothing_else() -> None:
    a, b = draw_models(2, gain=0.5)
    there, back = compare([a, b]), compare([b, a])
    np.testing.assert_allclose(there["difference"], -back["difference"])
    np.testing.assert_allclose(there["low"], -back["high"], atol=1e-12)
    np.testing.assert_allclose(there["p"], back["p"], rtol=1e-6)
    assert there["p_mcnemar"].dropna().tolist() == back["p_mcnemar"].dropna().tolist()


def test_interval_excludes_nothing_exactly_when_the_test_finds_a_difference() -> None:
    kinds = set()
    for seed in range(12):
        for images_each in (1, 6):
            table = compare(draw_models(seed, n_patients=30, images_each=images_each, gain=0.1 * seed))
            known = table[table["low"].notna()]
            assert len(known) > 8
            excludes = (known["low"] > 0) | (known["high"] < 0)
            at_edge = (known["test"] == "exact McNemar") & (known["p"] < 0.05)
            assert (excludes == (known["p"] < 0.05))[~at_edge].all()
            kinds |= set(known["test"][excludes])
    assert {"DeLong", "exact McNemar", "patient jackknife"} <= kinds


def test_tests_of_single_images_are_used_only_where_each_patient_has_one() -> None:
    single = compare(draw_models(0, n_patients=60, images_each=1)).set_index("figure")
    assert single.loc["auroc", "test"] == "DeLong"
    assert single.loc["sensitivity", "test"] == "exact McNemar"
    assert single.loc["sensitivity", "p"] == single.loc["sensitivity", "p_mcnemar"]
    several = compare(draw_models(0)).set_index("figure")
    assert set(several["test"]) == {"patient jackknife"}
    assert several["p_mcnemar"].dropna().index.tolist() == ["accuracy", "sensitivity", "specificity"]
    assert several.loc["sensitivity", "p"] != several.loc["sensitivity", "p_mcnemar"]
    nobody = [change(model, patient_id=None) for model in draw_models(0, n_patients=60, images_each=1)]
    unknown = compare(nobody)
    assert set(unknown["test"]) == {"image jackknife"}
    assert unknown["p_mcnemar"].isna().all()
    assert "patients are unknown" in unknown.attrs["pairs"][0]["notes"][0]


def test_patients_of_one_file_serve_both() -> None:
    a, b = draw_models(0)
    assert compare([a, change(b, patient_id=None)])["p"].tolist() == compare([a, b])["p"].tolist()


def test_correction_counts_all_pairs_and_the_headline_only() -> None:
    table = compare(draw_models(3, gain=0.6, names=("one", "two", "three")))
    assert len(table) == 3 * 11
    claims = table[table["p_corrected"].notna()]
    assert set(claims["figure"]) == set(HEADLINE)
    np.testing.assert_allclose(claims["p_corrected"], holm(claims["p"].to_numpy()))
    assert table.loc[~table["figure"].isin(HEADLINE), "verdict"].isna().all()
    assert table.attrs["notes"] == []


def test_too_few_resamples_are_told_where_the_bootstrap_decides() -> None:
    many = draw_models(3, n_patients=2_100, images_each=1, names=("one", "two", "three"))
    table = compare(many)
    assert {"patient bootstrap", "DeLong"} <= set(table["test"])
    assert "any of 15 differences" in table.attrs["notes"][0] and "600 or more" in table.attrs["notes"][0]


def test_no_difference_found_is_never_called_equality() -> None:
    for seed in range(5):
        table = compare(draw_models(seed, n_patients=8))
        verdicts = [*table["verdict"].dropna(), table.attrs["pairs"][0]["verdict"]]
        assert not any(word in verdict.lower() for verdict in verdicts for word in ("equal", "same", "as good"))
        row = table.iloc[0]
        if row["p_corrected"] >= 0.05:
            missed = max(abs(row["low"]), abs(row["high"]))
            assert row["verdict"] == (
                f"no evidence of a difference in AUROC (A - B = {row['difference']:+.3f}, 95 % interval "
                f"{row['low']:+.3f} to {row['high']:+.3f}; 8 patients); with so few, a difference of up to "
                f"{missed:.3f} could have been missed"
            )


def test_better_model_is_named_also_where_lower_is_better() -> None:
    table = compare(draw_models(0, n_patients=60, gain=1.5), resamples=400).set_index("figure")
    for figure in ("auroc", "brier"):
        assert "two is better" in table.loc[figure, "verdict"]
    assert table.loc["auroc", "difference"] < 0 < table.loc["brier", "difference"]


def test_model_beside_itself_shows_no_difference() -> None:
    for images_each in (1, 8):
        one = draw_models(0, images_each=images_each)[0]
        table = compare([one, replace(one, name="two")])
        assert (table["difference"] == 0).all()
        assert (table["p"].dropna() == 1).all()
        assert table.attrs["pairs"][0]["verdict"].startswith("No evidence of a difference in AUROC (A - B = +0.000")


def test_difference_in_which_all_patients_agree_is_found_by_their_number() -> None:
    labels, patients = [0, 0, 1, 1] * 10, np.repeat(np.arange(10), 4)
    right = build_model("right", labels, np.where(np.array(labels) == 1, 0.9, 0.1), patients)
    alarmist = build_model("alarmist", labels, np.full(40, 0.9), patients)
    rows = compare([right, alarmist]).set_index("figure")
    assert rows.loc["specificity", "difference"] == 1
    assert rows.loc["specificity", "p"] == pytest.approx(2 / 2**10)
    assert rows.loc["specificity", "test"] == "sign test over patients"
    assert "right is better" in rows.loc["specificity", "verdict"]
    assert rows.loc["npv", "note"] == "undefined for alarmist"


def share_rejected(simulations: int, *, gain: float, images_each: int) -> dict[str, float]:
    """How often anything is claimed, and how often DeLong's test of the images, as if each were a person, would."""
    found = {"any": 0, "auroc": 0, "naive DeLong": 0}
    for seed in range(simulations):
        a, b = draw_models(seed, images_each=images_each, gain=gain)
        table = compare([a, b], resamples=100).set_index("figure")
        found["any"] += bool((table["p_corrected"] < 0.05).any())
        found["auroc"] += bool(table.loc["auroc", "p"] < 0.05)
        labels = a.table["label"].to_numpy()
        areas, covariance = delong(labels, np.stack([a.table["probability"], b.table["probability"]]))
        error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        found["naive DeLong"] += abs(areas[0] - areas[1]) > 1.96 * error
    return {name: count / simulations for name, count in found.items()}


def test_claims_of_no_real_difference_are_as_rare_as_promised_and_naive_ones_are_not() -> None:
    n = 80
    shares = share_rejected(n, gain=0.0, images_each=12)
    # At 5 %, more than this many of them would come up by chance once in a thousand.
    most = float(stats.binom.isf(0.001, n, 0.05)) / n
    assert shares["any"] <= most
    assert shares["auroc"] <= most
    assert shares["naive DeLong"] > most


def test_real_difference_is_found_in_most_cases() -> None:
    assert share_rejected(30, gain=1.6, images_each=12)["any"] > 0.7
