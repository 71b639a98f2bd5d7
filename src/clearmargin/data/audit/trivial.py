"""How well a trivial classifier of a few facts does on patients that it has not seen.

A ridge regression of the class on step functions: enough to notice that one class is wider, darker or saved
otherwise, too little to look at an image. Patients are never on both sides of a fold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.data.audit.contrast import FEW_VALUES

LEAST_UNITS = 6
"""Patients of each class below which nothing is estimated: chance alone would then often look like a difference."""

_MOST_FOLDS = 5
_MOST_IMAGES = 20_000
_MOST_UNITS = 5_000
_STEPS = 8
_PENALTY = 2.0  # in patients: a step that only two of them support is halved
_RESAMPLES = 1_000
_ROUNDING = 9  # decimals; images with the same facts must tie, whatever the order of a matrix product's sums

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reached:
    """The AUROC of a trivial classifier and its 95 % interval over patients, all in [0, 1]."""

    auroc: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Folds:
    """Which images are used, and the fold in which each is tested.

    `rows` (n,) are the numbers of the images used, ascending; `labels` (n,) are 0 or 1; `units` (n,) number the
    patient (or image) of each; `folds` (n,) go from 0 to `n_folds` - 1. `least` is how many units the class with
    fewer of them has.
    """

    rows: NDArray[np.intp]
    labels: NDArray[np.int8]
    units: NDArray[np.intp]
    folds: NDArray[np.intp]
    n_folds: int
    least: int


def deal_folds(labels: NDArray[np.int8], units: NDArray[np.intp], *, seed: int) -> Folds | None:
    """Folds with whole units and, as far as they allow, the same share of either class; None with too few units.

    Of more than 5,000 units, 2,500 at random of those with and of those without the label 1 are taken, or all there
    are. Beyond 20,000 images, a random share of each unit's images of each class is taken, at least one, so that
    figures stay those of images.

    Args:
        labels: (N,), 0 or 1.
        units: (N,), number of the patient (or image) of each image, 0 or more.
        seed: of the choice of images and of the folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415  (a second to import)

    least = min(len(np.unique(units[labels == label])) for label in (0, 1))
    if least < LEAST_UNITS:
        return None
    rows = _choose_rows(labels, units, seed=seed)
    n_folds = min(_MOST_FOLDS, least // 2)
    folds: NDArray[np.intp] = np.empty(len(rows), dtype=np.intp)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for fold, (_, tested) in enumerate(splitter.split(np.zeros(len(rows)), labels[rows], units[rows])):
        folds[tested] = fold
    _, numbers = np.unique(units[rows], return_inverse=True)
    return Folds(rows, labels[rows], numbers, folds, n_folds, least)


def trivial_auroc(features: pd.DataFrame, folds: Folds, *, seed: int) -> Reached | None:
    """What a trivial classifier of these features reaches on patients it has not seen; None when no feature varies.

    Only images of one fold are compared with each other: scores of different models are not comparable, and
    pooling them would bias the figure (Forman and Scholz, SIGKDD Explorations 12:49, 2010). The interval
    resamples patients with their scores as they are. That leaves out that the models share most of what they
    learnt from; so it is widened by sqrt(2 - 1 / folds), for a correlation of 1 / folds between folds (Nadeau
    and Bengio, Machine Learning 52:239, 2003), and by Student's t for the patients of the rarer class. In
    simulations of 12 to 40 patients without any difference it holds 0.5 in 93 to 100 of 100 cohorts.

    Args:
        features: (N, columns), numbers, or text for a category; a value that is missing can tell, too.
        folds: as `deal_folds` gave them.
        seed: of the resamples.
    """
    from scipy import stats  # noqa: PLC0415  (a second to import)

    from clearmargin.evaluation.bootstrap import agreement_interval, percentile_interval  # noqa: PLC0415

    steps = _steps(features.iloc[folds.rows])
    if steps.shape[1] == 0:
        return None
    value, resampled = _within_fold_auroc(_unseen_ranks(steps, folds), folds, seed=seed)
    if np.isnan(value):
        return None
    interval = percentile_interval(resampled)
    if interval is None:
        agreed = agreement_interval(value, resampled, n_units=int(folds.units.max()) + 1)
        return Reached(value, *(agreed or (0.0, 1.0)))
    width = np.sqrt(2 - 1 / folds.n_folds) * stats.t.ppf(0.975, folds.least - 1) / stats.norm.ppf(0.975)
    low, high = (float(np.clip(value + (end - value) * width, 0, 1)) for end in interval)
    return Reached(value, low, high)


def _unseen_ranks(steps: Floats, folds: Folds) -> Floats:
    """(n,) the rank of each image within its fold, in [0, 1), by a model that has not seen the fold's patients."""
    from sklearn.linear_model import Ridge  # noqa: PLC0415  (a second to import)

    ranks = np.empty(len(steps))
    # Images of one patient repeat each other: the penalty is weighed against patients, not images.
    penalty = _PENALTY * len(steps) / (folds.units.max() + 1)
    for fold in range(folds.n_folds):
        tested = folds.folds == fold
        model = Ridge(alpha=penalty, solver="cholesky").fit(steps[~tested], folds.labels[~tested])
        distinct, places = np.unique(np.round(model.predict(steps[tested]), _ROUNDING), return_inverse=True)
        ranks[tested] = places / len(distinct)
    return ranks


def _within_fold_auroc(ranks: Floats, folds: Folds, *, seed: int) -> tuple[float, Floats]:
    """The share of pairs within a fold that are ranked rightly, and the same in each resample of patients.

    Each fold is lifted above the one before. The pairs across folds are then known beforehand, and what is left
    of the AUROC of all images without them is the AUROC within folds.
    """
    from clearmargin.evaluation.bootstrap import draw_units, resampled_figures  # noqa: PLC0415
    from clearmargin.evaluation.metrics import auroc  # noqa: PLC0415

    lifted = (ranks + folds.folds) / folds.n_folds
    n_units = int(folds.units.max()) + 1
    drawn = resampled_figures(
        folds.labels, lifted, folds.units, threshold=0.5, resamples=_RESAMPLES, seed=seed, figures=("auroc",)
    )["auroc"]
    cells = folds.folds * 2 + folds.labels
    per_unit = np.zeros((n_units, 2 * folds.n_folds))
    np.add.at(per_unit, (folds.units, cells), 1)
    counts = np.stack(
        [
            np.bincount(draw_units(n_units, resample=resample, seed=seed), minlength=n_units) @ per_unit
            for resample in range(_RESAMPLES)
        ]
    )
    value = _without_pairs_across(np.array([auroc(folds.labels, lifted)]), per_unit.sum(axis=0)[None])
    return float(value[0]), _without_pairs_across(drawn, counts)


def _without_pairs_across(lifted_auroc: Floats, counts: Floats) -> Floats:
    """(R,) the AUROC within folds; counts are (R, 2 * folds), benign and malignant images of each fold in turn."""
    benign, malignant = counts[:, 0::2], counts[:, 1::2]
    below = np.cumsum(benign, axis=1) - benign
    across = (malignant * below).sum(axis=1)
    within = (malignant * benign).sum(axis=1)
    won = lifted_auroc * malignant.sum(axis=1) * benign.sum(axis=1) - across
    share = np.full(len(counts), np.nan)
    np.divide(won, within, out=share, where=within > 0)
    return np.asarray(np.clip(np.round(share, _ROUNDING), 0, 1))


def _choose_rows(labels: NDArray[np.int8], units: NDArray[np.intp], *, seed: int) -> NDArray[np.intp]:
    generator = np.random.default_rng(seed)
    rows = _rows_of_some_units(labels, units, generator)
    if len(rows) <= _MOST_IMAGES:
        return rows
    order = generator.permutation(rows)
    cells = pd.Series(2 * units[order] + labels[order])
    turn = cells.groupby(cells).cumcount().to_numpy()
    size = cells.groupby(cells).transform("size").to_numpy()
    taken = np.maximum(1, np.round(size * (_MOST_IMAGES / len(rows))))
    return np.sort(order[turn < taken])


def _rows_of_some_units(
    labels: NDArray[np.int8], units: NDArray[np.intp], generator: np.random.Generator
) -> NDArray[np.intp]:
    names = np.unique(units)
    if len(names) <= _MOST_UNITS:
        return np.arange(len(labels))
    has_one = np.isin(names, units[labels == 1])
    groups = (generator.permutation(names[group])[: _MOST_UNITS // 2] for group in (has_one, ~has_one))
    return np.flatnonzero(np.isin(units, np.concatenate(list(groups))))


def _steps(features: pd.DataFrame) -> Floats:
    """(n, K) ones where a number is above one of its quantiles, or where a category is met."""
    columns: list[NDArray[np.bool_]] = []
    for name in features:
        values = features[name]
        if pd.api.types.is_numeric_dtype(values):
            numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
            known = np.isfinite(numbers)
            edges = np.unique(numbers[known])
            if len(edges) > FEW_VALUES:
                edges = np.unique(np.quantile(numbers[known], np.arange(1, _STEPS) / _STEPS))
            columns += [~known, *(numbers > edge for edge in edges)]
        else:
            codes, names = pd.factorize(values, use_na_sentinel=False)
            columns += [codes == code for code in range(len(names))]
    varying = [column for column in columns if column.any() and not column.all()]
    return np.stack(varying, axis=1).astype(np.float64) if varying else np.empty((len(features), 0))
