"""The gate's thresholds: new patients are refused about as seldom as promised, and what is strange is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clearmargin.evaluation.gate import (
    LEAST_IMAGES,
    Member,
    add_refusals,
    describe_refusals,
    fit_features,
    fit_look,
    fit_sizes,
    sample_rows,
)
from clearmargin.gate import FALSE_REFUSALS, Features, Look

NAMES = tuple("abcdef")
VISIBLE = (0.05,) * len(NAMES)
Cohort = tuple[NDArray[np.float64], NDArray[np.str_]]


def draw(rng: np.random.Generator, patients: int, *, images: int = 40, width: int = len(NAMES)) -> Cohort:
    """Values whose spread is as large between patients as within, one of them with a heavy tail; and patients."""
    ids = np.repeat([f"P{number}" for number in range(patients)], images)
    values = np.repeat(rng.normal(size=(patients, width)), images, axis=0) + rng.normal(size=(patients * images, width))
    values[:, 0] = np.exp(values[:, 0])
    return values, ids


@pytest.mark.parametrize(("patients", "cohorts"), [(4, 40), (12, 30), (60, 8)])
def test_new_patients_are_refused_about_as_seldom_as_promised(patients: int, cohorts: int) -> None:
    rng, shares = np.random.default_rng(5), []
    for _ in range(cohorts):
        look = fit_look(*draw(rng, patients), names=NAMES, visible=VISIBLE, chosen_on="train")
        assert isinstance(look, Look)
        new, _ = draw(rng, 60)
        shares.append(float((np.abs(look.distances(new)).max(axis=1) > look.threshold).mean()))
    error = np.std(shares, ddof=1) / np.sqrt(cohorts)
    # The other half is for what the network sees.
    assert np.mean(shares) < FALSE_REFUSALS / 2 + 3 * error
    assert np.mean(shares) < FALSE_REFUSALS
    if patients >= 60:  # where much is known, the gate is not wider than it needs to be
        assert np.mean(shares) > FALSE_REFUSALS / 20


def test_what_a_network_sees_is_judged_on_patients_that_it_was_not_trained_on() -> None:
    rng, shares = np.random.default_rng(6), []
    for _ in range(20):
        values, ids = draw(rng, 30, width=20)
        rows = np.arange(len(ids))
        members = [Member(rows[:800], rows[800:])]
        fitted = fit_features(values, ids, members=members, chosen_on="validation")
        assert isinstance(fitted, Features)
        assert fitted.evidence.n_units == 10
        shares.append(float((fitted.distances(draw(rng, 60, width=20)[0]) > fitted.threshold).mean()))
    assert np.mean(shares) < FALSE_REFUSALS
    strange = np.zeros((1, 20))
    strange[0, 3] = 60
    assert fitted.distances(strange)[0] > fitted.threshold


def test_each_network_is_judged_on_the_patients_that_it_has_not_seen() -> None:
    rng = np.random.default_rng(7)
    values, ids = draw(rng, 12, width=16)
    parts = np.unique(ids, return_inverse=True)[1] % 2
    seen = np.concatenate([values, values], axis=1)
    # In the second half of the features, what the first network was trained on looks like nothing else.
    members = [Member(np.flatnonzero(parts != number), np.flatnonzero(parts == number)) for number in range(2)]
    fitted = fit_features(seen, ids, members=members, chosen_on="out of fold")
    assert isinstance(fitted, Features)
    assert len(fitted.blocks) == 2
    assert fitted.evidence.n_images == len(ids)
    np.testing.assert_allclose(fitted.blocks[0].centre.values[0], values[parts != 0].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(fitted.blocks[1].centre.values[0], values[parts != 1].mean(axis=0), atol=1e-4)


def test_few_held_out_patients_are_too_few_and_all_are_judged_by_the_others() -> None:
    values, ids = draw(np.random.default_rng(8), 8, width=16)
    rows = np.arange(len(ids))
    fitted = fit_features(values, ids, members=[Member(rows[:240], rows[240:])], chosen_on="train and validation")
    assert isinstance(fitted, Features)
    assert fitted.evidence.n_units == 8


def test_fewer_patients_make_a_wider_gate() -> None:
    def threshold(patients: int) -> float:
        found = []
        for seed in range(6):
            cohort = draw(np.random.default_rng(seed), patients)
            look = fit_look(*cohort, names=NAMES, visible=VISIBLE, chosen_on="")
            assert isinstance(look, Look)
            found.append(look.threshold * (look.statistics["b"].high - look.statistics["b"].middle))
        return float(np.median(found))

    assert threshold(4) > threshold(40)


def test_unknown_patients_make_a_wider_gate() -> None:
    values, ids = draw(np.random.default_rng(9), 20)
    known = fit_look(values, ids, names=NAMES, visible=VISIBLE, chosen_on="")
    unknown = fit_look(values, None, names=NAMES, visible=VISIBLE, chosen_on="")
    assert isinstance(known, Look)
    assert isinstance(unknown, Look)
    assert unknown.evidence.unit == "image"
    assert unknown.evidence.n_units == len(values)
    assert unknown.threshold > known.threshold


@pytest.mark.parametrize(
    ("patients", "images", "words"),
    [(2, 40, "2 patients are too few"), (1, 9, "1 patient is too few"), (3, 2, f"{LEAST_IMAGES} are needed")],
)
def test_too_little_gives_a_reason_and_no_threshold(patients: int, images: int, words: str) -> None:
    values, ids = draw(np.random.default_rng(1), patients, images=images)
    for said in (
        fit_look(values, ids, names=NAMES, visible=VISIBLE, chosen_on=""),
        fit_features(values, ids, members=1, chosen_on=""),
    ):
        assert isinstance(said, str)
        assert words.replace("3 are", "8 are") in said or words in said


def test_fewer_than_eight_patients_have_no_bound_of_features() -> None:
    values, ids = draw(np.random.default_rng(1), 7, width=16)
    assert fit_features(values, ids, members=1, chosen_on="") == (
        "7 patients are too few to say how much patients differ; 8 are needed"
    )


def test_the_fit_does_not_depend_on_the_order_of_the_images() -> None:
    values, ids = draw(np.random.default_rng(2), 8)
    order = np.random.default_rng(3).permutation(len(ids))
    first = fit_look(values, ids, names=NAMES, visible=VISIBLE, chosen_on="")
    second = fit_look(values[order], ids[order], names=NAMES, visible=VISIBLE, chosen_on="")
    assert isinstance(first, Look)
    assert isinstance(second, Look)
    assert first.threshold == pytest.approx(second.threshold)
    new = draw(np.random.default_rng(4), 3)[0]
    np.testing.assert_allclose(first.distances(new), second.distances(new), rtol=1e-3, atol=1e-4)


def test_a_constant_statistic_refuses_only_a_visible_difference() -> None:
    values, ids = draw(np.random.default_rng(2), 8)
    values[:, 2] = 0.3
    look = fit_look(values, ids, names=NAMES, visible=VISIBLE, chosen_on="")
    assert isinstance(look, Look)
    column = look.distances(np.full((1, len(NAMES)), 0.3))[0, 2]
    assert column == pytest.approx(0)
    assert look.statistics["c"].high == pytest.approx(0.35)


def test_constant_features_break_nothing() -> None:
    values, ids = draw(np.random.default_rng(2), 8, width=10)
    values[:, :9] = 0
    fitted = fit_features(values, ids, members=1, chosen_on="")
    assert isinstance(fitted, Features)
    assert np.isfinite(fitted.distances(values)).all()
    everything = fit_features(np.zeros_like(values), ids, members=1, chosen_on="")
    assert isinstance(everything, Features)
    assert (everything.distances(np.zeros((2, 10))) <= everything.threshold).all()


@pytest.mark.parametrize(("fixed", "factor"), [(True, 2.0), (False, 8.0)])
def test_sizes_are_those_of_the_longest_and_shortest_longer_side(fixed: bool, factor: float) -> None:
    sizes = fit_sizes(np.array([[50, 50], [50, 11], [20, 48], [60, 5]]), fixed_scale=fixed)
    assert (sizes.smallest, sizes.largest, sizes.factor) == ((20, 48), (60, 5), factor)


def test_a_sample_takes_as_many_of_each_patient_as_it_can() -> None:
    ids = np.array(["a"] * 100 + ["b"] * 5 + ["c"] * 50)
    chosen = sample_rows(np.arange(155), ids, most=45)
    assert len(chosen) == 45
    assert [int((ids[chosen] == name).sum()) for name in "abc"] == [20, 5, 20]
    assert len(sample_rows(np.arange(155), None, most=30)) == 30


def test_refusals_are_counted_by_kind() -> None:
    reasons = [None, "size: 4×4 pixels", "size: 5×5 pixels", "blank: all of one shade"]
    block = describe_refusals(reasons)
    assert block == {"images": 4, "refused": 3, "share": 0.75, "reasons": {"blank": 1, "size": 2}}
    both = add_refusals([block, describe_refusals([None, None])])
    assert both == {"images": 6, "refused": 3, "share": 0.5, "reasons": {"blank": 1, "size": 2}}
