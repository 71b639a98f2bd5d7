from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearmargin.decision import logit, probability, sigmoid
from clearmargin.errors import UsageError
from clearmargin.evaluation import metrics
from clearmargin.evaluation.prevalence import ppv_npv_at, shift_prior

share = st.floats(0, 1)
inside = st.floats(1e-6, 1 - 1e-6)


@given(table=st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(lambda t: t[0] + t[1] and t[2] + t[3]))
def test_at_the_prevalence_of_the_data_they_are_those_of_the_table(table: list[int]) -> None:
    counts = np.array(table).reshape(2, 2)
    prevalence = counts[1].sum() / counts.sum()
    ppv, npv = ppv_npv_at(metrics.sensitivity(counts), metrics.specificity(counts), prevalence)
    np.testing.assert_allclose(ppv, metrics.ppv(counts), atol=1e-9)
    np.testing.assert_allclose(npv, metrics.npv(counts), atol=1e-9)


def test_a_screening_population_by_hand() -> None:
    ppv, npv = ppv_npv_at(0.9, 0.95, 0.01)  # of 10,000: 90 of 100 found, 495 of 9,900 alarmed
    assert float(ppv) == pytest.approx(90 / 585)
    assert float(npv) == pytest.approx(9405 / 9415)


def test_resampled_figures_go_in_as_arrays_and_what_is_undefined_stays_so() -> None:
    ppv, npv = ppv_npv_at(np.array([0.0, 1.0, np.nan, 0.5]), np.array([1.0, 0.0, 0.5, 0.5]), 0.3)
    np.testing.assert_allclose(ppv, [np.nan, 0.3, np.nan, 0.3])
    np.testing.assert_allclose(npv, [0.7, np.nan, np.nan, 0.7])


@pytest.mark.parametrize("prevalence", [-0.1, 1.1, float("nan")])
def test_a_prevalence_that_is_no_share_is_refused(prevalence: float) -> None:
    with pytest.raises(UsageError, match="prevalence is"):
        ppv_npv_at(0.9, 0.9, prevalence)
    with pytest.raises(UsageError, match="prevalence is"):
        shift_prior(np.array([0.5]), 0.5, prevalence)
    with pytest.raises(UsageError, match="prevalence is"):
        shift_prior(np.array([0.5]), prevalence, 0.5)


@given(values=st.lists(share, min_size=1, max_size=20).map(np.array), here=inside, there=inside)
def test_a_shift_goes_back_keeps_the_order_and_moves_the_logit_by_a_constant(
    values: np.ndarray, here: float, there: float
) -> None:
    shifted = shift_prior(values, here, there)
    assert ((shifted >= 0) & (shifted <= 1)).all()
    assert (np.diff(shifted[np.argsort(values)]) >= -1e-15).all()
    np.testing.assert_allclose(shift_prior(values, here, here), values, atol=1e-12)
    moved = logit(np.array([there])) - logit(np.array([here]))
    middling = values[(values > 1e-9) & (values < 1 - 1e-9)]
    np.testing.assert_allclose(shift_prior(middling, here, there), sigmoid(logit(middling) + moved), rtol=1e-6)


def test_certainty_stays_certainty() -> None:
    assert shift_prior(np.array([0.0, 1.0]), 0.5, 1e-9).tolist() == [0.0, 1.0]


def test_shifted_probabilities_are_calibrated_where_malignant_is_rarer() -> None:
    rng = np.random.default_rng(0)

    def draw(prevalence: float) -> tuple[np.ndarray, np.ndarray]:
        """Labels and logits of the likelihood ratio, which does not know the prevalence."""
        labels = (rng.random(200_000) < prevalence).astype(np.int64)
        return labels, 2 * (rng.normal(size=len(labels)) + 2 * labels - 1)  # of N(1, 1) against N(-1, 1)

    labels, logits = draw(0.5)
    assert metrics.ece(labels, probability(logits)) < 0.005
    labels, logits = draw(0.03)
    assert metrics.ece(labels, probability(logits)) > 0.05
    assert metrics.ece(labels, shift_prior(probability(logits), 0.5, 0.03)) < 0.003
