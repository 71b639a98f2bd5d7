"""What luck does to a winner: shares of wins, and a figure that the choice has not flattered."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clearmargin.evaluation.winner import judge_winner

PATIENTS, PER_PATIENT, FOLDS = 30, 6, 3
N = PATIENTS * PER_PATIENT
LABELS = np.tile([0, 1], N // 2)
IDS = np.repeat(np.arange(PATIENTS), PER_PATIENT).astype(str)
FOLD = np.repeat(np.arange(PATIENTS) % FOLDS, PER_PATIENT)


def cross_validated(logits: np.ndarray) -> float:
    return float(np.mean([roc_auc_score(LABELS[fold == FOLD], logits[fold == FOLD]) for fold in range(FOLDS)]))


def test_the_winner_of_nothing_looks_good_and_its_corrected_figure_does_not() -> None:
    apparent, corrected = [], []
    for seed in range(12):
        noise = list(np.random.default_rng(seed).normal(size=(15, N)))
        apparent.append(max(map(cross_validated, noise)))
        luck = judge_winner(LABELS, FOLD, noise, IDS, resamples=60, seed=seed)
        assert luck.corrected is not None
        corrected.append(luck.corrected)
    assert np.mean(apparent) > 0.56
    assert abs(np.mean(corrected) - 0.5) < 0.02


def test_a_clear_winner_wins_always_and_equals_share() -> None:
    good = LABELS + np.random.default_rng(0).normal(size=N) * 0.5
    bad = np.random.default_rng(1).normal(size=N)
    wins = judge_winner(LABELS, FOLD, [bad, good, 3 * good + 1], IDS, resamples=100, seed=0).wins
    assert wins.tolist() == pytest.approx([0.0, 0.5, 0.5])


def test_one_candidate_keeps_its_figure_on_the_whole() -> None:
    good = LABELS + np.random.default_rng(0).normal(size=N)
    luck = judge_winner(LABELS, FOLD, [good], IDS, resamples=200, seed=0)
    assert luck.wins.tolist() == [1.0]
    assert luck.corrected == pytest.approx(cross_validated(good), abs=0.02)


def test_without_patients_images_are_drawn_and_order_of_patients_does_not_matter() -> None:
    logits = [LABELS + np.random.default_rng(seed).normal(size=N) * 2 for seed in range(3)]
    by_image = judge_winner(LABELS, FOLD, logits, None, resamples=50, seed=0)
    by_patient = judge_winner(LABELS, FOLD, logits, IDS, resamples=50, seed=0)
    assert by_image.wins.sum() == pytest.approx(1)
    order = np.random.default_rng(9).permutation(N)
    again = judge_winner(LABELS[order], FOLD[order], [each[order] for each in logits], IDS[order], resamples=50, seed=0)
    np.testing.assert_allclose(again.wins, by_patient.wins)


def test_one_patient_makes_no_corrected_figure() -> None:
    one = np.zeros(N, dtype=int).astype(str)
    luck = judge_winner(LABELS, FOLD, [LABELS.astype(float)], one, resamples=20, seed=0)
    assert luck.corrected is None
