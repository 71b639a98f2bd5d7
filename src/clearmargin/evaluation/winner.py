"""How much of a winner's figure is luck: candidates compared on the same held-out images, patients drawn again.

The best of many candidates looks better than it is, because it was chosen for looking so. Drawing patients again
shows how often each would have won, and what a winner has on the patients who were not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from clearmargin.evaluation.bootstrap import draw_units
from clearmargin.evaluation.metrics import Floats, Labels
from clearmargin.evaluation.weighted import Integers, build_table, figures_in_chunks, number_units


@dataclass(frozen=True, slots=True)
class Luck:
    """Of several candidates: `wins` (candidates,) is the share of resamples that each wins, ties shared.

    `corrected` is the mean AUROC of each resample's winner on the patients who were not drawn, and `n` in how many
    resamples it could be had; it is None where in fewer than half of them.
    """

    wins: Floats
    corrected: float | None
    n: int


def judge_winner(
    labels: Labels,
    folds: NDArray[np.integer],
    logits: Sequence[NDArray[np.floating]],
    patients: NDArray[np.generic] | None,
    *,
    resamples: int,
    seed: int,
) -> Luck:
    """How often each candidate wins over resamples of patients, and what winners have on the other patients.

    A candidate's figure is the AUROC of the images of a fold, averaged over the folds, as the candidates were chosen.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        folds: (N,), the fold that held each image out.
        logits: of each candidate (N,), each image's by the network that has not seen it.
        patients: (N,); None makes every image its own unit.
        resamples: how many.
        seed: 0 or more.

    Source: Tsamardinos, Greasidou and Borboudakis, Machine Learning 107:1895 (2018), BBC-CV.

    >>> labels, folds = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    >>> better, worse = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0, 0.0])
    >>> judge_winner(labels, folds, [worse, better], None, resamples=50, seed=0).wins.tolist()
    [0.0, 1.0]
    """
    units, n_units = number_units(patients, len(labels))
    drawn = np.stack([_counts(n_units, resample, seed) for resample in range(resamples)])
    inside = np.stack([_figures(labels, folds, each, units, counts=drawn) for each in logits])
    outside = np.stack([_figures(labels, folds, each, units, counts=(drawn == 0).astype(np.int64)) for each in logits])
    usable = np.isfinite(inside).all(axis=0)
    inside, outside = inside[:, usable], outside[:, usable]
    if not usable.any():
        return Luck(np.full(len(logits), 1 / len(logits)), None, 0)
    best = inside == inside.max(axis=0)
    share = best / best.sum(axis=0)
    # Ties are shared here too: the first of them would be no choice of the data.
    on_others = np.where(best, outside * share, 0.0).sum(axis=0)
    defined = on_others[np.isfinite(on_others)]
    corrected = float(defined.mean()) if len(defined) * 2 >= resamples else None
    return Luck(share.mean(axis=1), corrected, len(defined))


def _counts(n_units: int, resample: int, seed: int) -> Integers:
    return np.bincount(draw_units(n_units, resample=resample, seed=seed), minlength=n_units).astype(np.int64)


def _figures(
    labels: Labels,
    folds: NDArray[np.integer],
    logits: NDArray[np.floating],
    units: Integers,
    *,
    counts: Integers,
) -> Floats:
    """The mean over folds of the AUROC where each unit counts as often as a row of counts says, (rows,).

    A fold in which a resample leaves one class only is left out of its mean; NaN where that is so in every fold.
    """
    by_fold = []
    for fold in np.unique(folds):
        rows = folds == fold
        order = rankdata(logits[rows], method="dense")  # AUROC knows ranks only, and these lie in (0, 1]
        table = build_table(
            labels[rows], order / order.max(), units[rows], n_units=counts.shape[1], threshold=0.5, figures=("auroc",)
        )
        found = figures_in_chunks(table, len(counts), lambda chunk: counts[chunk.start : chunk.stop], threshold=0.5)
        by_fold.append(found["auroc"])
    values = np.stack(by_fold)
    there = np.isfinite(values)
    n = there.sum(axis=0)
    sums = np.where(there, values, 0.0).sum(axis=0)
    return np.where(n > 0, sums / np.maximum(n, 1), np.nan)
