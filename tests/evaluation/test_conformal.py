from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearmargin.decision import Abstention, Beta, Calibration, Isotonic, Platt, Temperature, decide, probability
from clearmargin.errors import DataError
from clearmargin.evaluation.conformal import critical_score, fit_abstention, least_units

CALIBRATIONS: list[Calibration] = [
    Temperature(),
    Temperature(temperature=0.05),
    Platt(slope=0.7, intercept=-1.3),
    Beta(a=0.6, b=2.0, c=0.4),
    Beta(a=0.0, b=1e-3, c=-0.2),
    Isotonic(logits=(-1.0, 0.0, 0.5, 2.0), probabilities=(0.0, 0.3, 0.3, 1.0)),
    Isotonic(logits=(0.0,), probabilities=(0.5,)),
]


def fitted(result: Abstention | str) -> Abstention:
    assert isinstance(result, Abstention), result
    return result


def exact_critical_score(scores: list[float], units: list[int], coverage: Fraction) -> float:
    """By the definition, in fractions."""
    n_units = len(set(units))
    for score in sorted(scores):
        mass = sum(
            (
                Fraction(1, (n_units + 1) * units.count(unit))
                for other, unit in zip(scores, units, strict=True)
                if other <= score
            ),
            start=Fraction(0),
        )
        if mass >= coverage:
            return score
    return math.inf


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 6)), min_size=1, max_size=40),
    st.sampled_from([Fraction(1, 10), Fraction(1, 2), Fraction(2, 3), Fraction(3, 4), Fraction(5, 6)]),
)
def test_the_critical_score_is_that_of_the_definition(drawn: list[tuple[int, int]], coverage: Fraction) -> None:
    scores = [float(score) for score, _ in drawn]
    units = np.unique([unit for _, unit in drawn], return_inverse=True)[1]
    n_units = int(units.max()) + 1
    expected = exact_critical_score(scores, units.tolist(), coverage)
    if n_units < least_units(float(coverage)):
        assert math.isinf(expected)
    else:
        assert critical_score(np.array(scores), units, n_units, coverage=float(coverage)) == expected


@given(st.integers(1, 999))
def test_the_fewest_patients_are_those_of_the_formula(thousandths: int) -> None:
    coverage = Fraction(thousandths, 1000)
    assert least_units(float(coverage)) == math.ceil(coverage / (1 - coverage))


@pytest.mark.parametrize(("coverage", "enough"), [(0.9, 9), (0.95, 19), (0.55, 2)])
def test_one_patient_too_few_is_said(coverage: float, enough: int) -> None:
    def fit(n_patients: int) -> Abstention | str:
        labels = np.tile([0, 1], n_patients)
        logits = np.linspace(-1, 1, 2 * n_patients)
        patients = np.repeat(np.arange(n_patients), 2)
        return fit_abstention(labels, logits, patients, coverage=coverage, calibration=Temperature(), threshold=0.5)

    assert fitted(fit(enough)).n_units == enough
    reason = fit(enough - 1)
    there_are = "there is 1" if enough == 2 else f"there are {enough - 1}"
    assert reason == f"a coverage of {coverage:g} needs at least {enough} validation patients, and {there_are}"


@st.composite
def studies(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    n_images = draw(st.integers(4, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = (rng.random(n_images) < 0.4).astype(np.int64)
    logits = draw(st.sampled_from([-3.0, 0.5, 1.0, 10.0])) * (2 * labels - 1) + 2 * rng.normal(size=n_images)
    return labels, np.round(logits, draw(st.sampled_from([0, 1, 9]))), rng.integers(0, 8, size=n_images)


@given(studies(), st.sampled_from(CALIBRATIONS), st.sampled_from([1e-9, 0.1, 0.3, 0.5, 0.7, 1.0]))
@settings(max_examples=300)
def test_the_answer_holds_the_conformal_set_whatever_the_calibration_and_threshold(
    study: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]], calibration: Calibration, threshold: float
) -> None:
    labels, logits, patients = study
    coverage = 0.6
    region = fit_abstention(labels, logits, patients, coverage=coverage, calibration=calibration, threshold=threshold)
    units = np.unique(patients, return_inverse=True)[1]
    n_units = int(units.max()) + 1
    if n_units < least_units(coverage):
        assert isinstance(region, str)
        return
    critical = critical_score(np.where(labels == 1, -logits, logits), units, n_units, coverage=coverage)
    # The neighbours of the ends of the set are where rounding would show.
    ends = [critical, -critical]
    asked = np.concatenate(
        [logits, np.linspace(-12, 12, 201), ends, np.nextafter(ends, np.inf), np.nextafter(ends, -np.inf)]
    )
    probabilities = probability(asked, calibration)
    between = fitted(region).between
    answers = decide(probabilities, threshold, abstain_between=between)
    assert np.isin(answers[asked <= critical], ["benign", "abstain"]).all()
    assert np.isin(answers[asked >= -critical], ["malignant", "abstain"]).all()
    if between is not None:
        assert between[0] <= threshold <= between[1]


def test_one_image_alone_is_answered_as_it_is_among_many() -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, size=500), rng.normal(size=500)
    for calibration in CALIBRATIONS[:4]:
        region = fitted(fit_abstention(labels, logits, None, coverage=0.7, calibration=calibration, threshold=0.5))
        among = decide(probability(logits, calibration), 0.5, abstain_between=region.between)
        alone = [
            decide(probability(np.array([one]), calibration), 0.5, abstain_between=region.between)[0] for one in logits
        ]
        assert among.tolist() == alone


@pytest.mark.parametrize("calibration", CALIBRATIONS[:4], ids=lambda calibration: calibration.method)
def test_rounding_puts_no_logit_outside_the_region(calibration: Calibration) -> None:
    """The sigmoid of a lower logit can be higher by a last digit."""
    for critical in np.random.default_rng(0).uniform(0.1, 4.0, size=50):
        labels, logits = np.tile([0, 1], 5), critical * np.tile([1.0, -1.0], 5)
        between = fitted(
            fit_abstention(labels, logits, None, coverage=0.9, calibration=calibration, threshold=0.5)
        ).between
        inside = critical - np.arange(201) * np.spacing(critical)
        for side in (inside, -inside):
            assert set(decide(probability(side, calibration), 0.5, abstain_between=between)) == {"abstain"}


@given(st.floats(0.01, 5), st.floats(-0.9, 0.9))
@example(3.0, 0.0)
def test_the_region_is_no_wider_than_the_scores_ask_for(critical: float, part: float) -> None:
    """Ten patients err by `critical`, and the threshold lies within."""
    labels, logits = np.tile([0, 1], 5), critical * np.tile([1.0, -1.0], 5)
    threshold = float(probability(np.array([part * critical]))[0])
    region = fit_abstention(labels, logits, np.arange(10), coverage=0.9, calibration=Temperature(), threshold=threshold)
    ends = probability(np.array([-critical, critical]))
    assert fitted(region).between == pytest.approx(tuple(ends), rel=1e-11)


def test_nothing_is_withheld_where_the_threshold_is_good_enough() -> None:
    labels, logits = np.tile([0, 1], 10), np.tile([-2.0, 3.0], 10)
    region = fit_abstention(labels, logits, None, coverage=0.9, calibration=Temperature(), threshold=0.5)
    assert (fitted(region).between, fitted(region).unit) == (None, "image")


def test_a_threshold_that_contradicts_good_scores_withholds_what_it_gets_wrong() -> None:
    labels, logits = np.tile([0, 1], 10), np.tile([-2.0, 3.0], 10)
    low, high = probability(np.array([-2.0, 2.0]))
    for threshold, expected in ((0.01, (0.01, low)), (0.99, (high, 0.99))):
        region = fit_abstention(labels, logits, None, coverage=0.9, calibration=Temperature(), threshold=threshold)
        assert fitted(region).between == pytest.approx(expected, rel=1e-11)


def test_order_and_names_of_patients_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    labels, logits, patients = rng.integers(0, 2, size=200), rng.normal(size=200), rng.integers(0, 20, size=200)
    wanted = {"coverage": 0.8, "calibration": Temperature(), "threshold": 0.4}
    region = fit_abstention(labels, logits, patients, **wanted)
    order = rng.permutation(200)
    names = np.array([f"P-{19 - patient:03d}" for patient in patients], dtype=object)
    assert fit_abstention(labels[order], logits[order], names[order], **wanted) == region


def test_what_is_not_a_number_or_has_no_patient_is_refused() -> None:
    wanted = {"coverage": 0.5, "calibration": Temperature(), "threshold": 0.5}
    with pytest.raises(ValueError, match="not a number"):
        fit_abstention(np.array([0, 1]), np.array([0.0, np.nan]), None, **wanted)
    with pytest.raises(DataError, match="1 of 2 images have no patient"):
        fit_abstention(np.array([0, 1]), np.array([0.0, 1.0]), np.array(["a", None], dtype=object), **wanted)


PATIENTS = 29
COVERAGE = 0.9


def draw_patients(
    rng: np.random.Generator, n_patients: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Patients with 2 to 60 images, the harder the fewer, each with a strong shift of its own and its own mix."""
    n_images = rng.integers(2, 61, size=n_patients)
    patients = np.repeat(np.arange(n_patients), n_images)
    labels = (rng.random(len(patients)) < rng.beta(0.7, 1.2, size=n_patients)[patients]).astype(np.int64)
    ease = (n_images / 30.0)[patients]
    logits = ease * (2 * labels - 1) + (1.5 * rng.normal(size=n_patients))[patients] + rng.normal(size=len(patients))
    return labels, logits, patients


@pytest.fixture(scope="module")
def covered() -> dict[str, NDArray[np.float64]]:
    """For each unit, the share covered of new patients' images, one for each simulated study: (studies,)."""
    rng = np.random.default_rng(7)
    found: dict[str, list[float]] = {"patient": [], "image": []}
    for _ in range(600):
        labels, logits, patients = draw_patients(rng, PATIENTS)
        new_labels, new_logits, new_patients = draw_patients(rng, 100)
        for unit, groups in (("patient", patients), ("image", None)):
            region = fitted(
                fit_abstention(labels, logits, groups, coverage=COVERAGE, calibration=Temperature(), threshold=0.5)
            )
            answers = decide(probability(new_logits), 0.5, abstain_between=region.between)
            right = (answers == "abstain") | ((answers == "malignant") == (new_labels == 1))
            shares = np.bincount(new_patients, weights=right) / np.bincount(new_patients)
            found[unit].append(float(shares.mean()))
    return {unit: np.array(shares) for unit, shares in found.items()}


def test_new_patients_are_covered_as_promised_and_hardly_more(covered: dict[str, NDArray[np.float64]]) -> None:
    mean = covered["patient"].mean()
    error = covered["patient"].std() / math.sqrt(len(covered["patient"]))
    assert error < 0.003
    # The mass at infinity and the largest step of the scores' distribution are 1 / (K + 1) each.
    assert COVERAGE - 3 * error <= mean <= COVERAGE + 2 / (PATIENTS + 1) + 3 * error


def test_images_taken_as_exchangeable_do_not_cover_new_patients(covered: dict[str, NDArray[np.float64]]) -> None:
    error = covered["image"].std() / math.sqrt(len(covered["image"]))
    assert covered["image"].mean() + 5 * error < COVERAGE
