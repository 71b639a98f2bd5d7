"""The decision curve: whether deciding by the model is worth more than treating all or none, over every trade-off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clearmargin.evaluation.bootstrap import draw_units, percentile_interval
from clearmargin.evaluation.metrics import Floats, Labels, Probabilities
from clearmargin.evaluation.weighted import number_units
from clearmargin.types import MALIGNANT


@dataclass(frozen=True, slots=True)
class DecisionCurve:
    """Net benefit at each threshold probability; every array is (n_thresholds,). Treating none has 0.

    `low` and `high` are the 95 % interval of `model` over patients, NaN where there is none, as when the
    model calls nothing malignant in any resample.
    """

    threshold: Floats
    model: Floats
    low: Floats
    high: Floats
    treat_all: Floats


def decision_curve(
    labels: Labels,
    probabilities: Probabilities,
    patients: NDArray[np.generic] | None,
    *,
    thresholds: Floats,
    resamples: int,
    seed: int,
) -> DecisionCurve:
    """Net benefit of calling malignant what reaches the threshold probability pt: TP / n - FP / n * pt / (1 - pt).

    At most the share of malignant images, which is perfect; it is in true findings an image, false alarms
    taken off at the exchange rate that choosing pt implies. Treating all is the same rule with every image
    called malignant. The interval is the percentile interval over resampled patients.

    Args:
        labels: (N,), 0 benign or 1 malignant.
        probabilities: (N,), calibrated, in [0, 1].
        patients: (N,), any hashable id of the patient of each image; None makes every image its own unit.
        thresholds: (n_thresholds,), pt, rising, each in (0, 1).
        resamples: number of resamples.
        seed: as in `resampled_figures`, with whose resamples these agree.

    Raises:
        DataError: there is no image, or an image has no patient.
        ValueError: thresholds out of range or order, or a probability that is not a number.

    Source: Vickers and Elkin, Med. Decis. Making 26:565 (2006).

    >>> labels, probabilities, steps = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]), np.array([0.2, 0.5])
    >>> curve = decision_curve(labels, probabilities, None, thresholds=steps, resamples=9, seed=0)
    >>> curve.model.tolist(), curve.treat_all.tolist()  # 2/4 - 1/4 * 1/4, 1/4 - 1/4; 2/4 - 2/4 * 1/4, 2/4 - 2/4
    ([0.4375, 0.0], [0.375, 0.0])
    """
    steps, values = np.asarray(thresholds, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if not (np.all((steps > 0) & (steps < 1)) and np.all(np.diff(steps) > 0)):
        raise ValueError("the threshold probabilities of a decision curve rise, between 0 and 1")
    if np.isnan(values).any():
        raise ValueError("a probability is not a number, which no threshold can decide")
    units, n_units = number_units(patients, len(values))
    # An image is counted once, at the last threshold that it reaches; it reaches all before that.
    n_cells = len(steps) + 1
    cells = np.searchsorted(steps, values, side="right") + n_cells * (np.asarray(labels) == MALIGNANT)
    # One row a cell: units with one image each would make a full table of images and thresholds.
    reached = sparse.csr_array((np.ones(len(values)), (cells, units)), shape=(2 * n_cells, n_units))
    exchange = steps / (1 - steps)

    def net_benefits(times: NDArray[np.int64]) -> tuple[Floats, Floats]:
        false, true = np.cumsum((reached @ times).reshape(2, n_cells)[:, ::-1], axis=1)[:, ::-1]
        n_images = false[0] + true[0]
        return (true[1:] - false[1:] * exchange) / n_images, (true[0] - false[0] * exchange) / n_images

    model, treat_all = net_benefits(np.ones(n_units, dtype=np.int64))
    resampled = np.empty((resamples, len(steps)))
    for resample in range(resamples):
        drawn = draw_units(n_units, resample=resample, seed=seed)
        resampled[resample] = net_benefits(np.bincount(drawn, minlength=n_units))[0]
    ends = np.array([percentile_interval(of_step) or (np.nan, np.nan) for of_step in resampled.T]).reshape(-1, 2)
    return DecisionCurve(steps, model, ends[:, 0], ends[:, 1], treat_all)
