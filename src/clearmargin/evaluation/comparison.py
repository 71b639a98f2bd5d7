"""Whether two models differ, on the images that both were tested on: differences, intervals, tests, a sentence.

Patients are left out, or drawn, for both models at once, so that what makes a patient hard for both cancels out.
A test that takes each image for a person of its own is used only where each is. Finding no difference is never
called equality. Which images are compared is decided in `pairing.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from clearmargin.errors import UsageError, counted
from clearmargin.evaluation import metrics
from clearmargin.evaluation.bootstrap import MOST_JACKKNIFED, jackknife_figures, resampled_figures
from clearmargin.evaluation.foreign import Predictions
from clearmargin.evaluation.intervals import LEAST_RESAMPLES, difference_interval, p_value
from clearmargin.evaluation.metrics import FIGURES, Floats
from clearmargin.evaluation.pairing import Pairing, pair_models
from clearmargin.evaluation.significance import clustered_mcnemar, delong_difference, holm, mcnemar
from clearmargin.evaluation.units import units_behind
from clearmargin.evaluation.verdict import HEADLINE, SIGNIFICANCE, Row, sum_up
from clearmargin.types import MALIGNANT, Listener

COLUMNS = (
    *("a", "b", "figure", "value_a", "value_b", "difference", "low", "high"),
    *("p", "p_corrected", "test", "p_mcnemar", "note", "verdict"),
)

_NUMBERS = ("value_a", "value_b", "difference", "low", "high", "p", "p_corrected", "p_mcnemar")

Mask = NDArray[np.bool_]


def compare_models(
    models: Sequence[Predictions], *, resamples: int, seed: int, listener: Listener | None = None
) -> pd.DataFrame:
    """One row for each pair of models and figure, with the columns COLUMNS; what there is not is missing.

    `difference` is A - B, `low` and `high` its 95 % interval, `p` two-sided, by `test`: Student's t with the
    jackknife's spread over patients, which keeps the promise of 5 % better than the bootstrap's percentiles
    (`benchmarks/comparison.py`); those beyond MOST_JACKKNIFED patients; DeLong for the AUROC where each patient
    has one image. `p_corrected` (Holm, over
    all pairs and HEADLINE) and `verdict` are there for HEADLINE only. `p_mcnemar` is there for sensitivity,
    specificity and accuracy where patients are known: exact where each has one image, else for clusters. `attrs`
    has `resamples`, `seed`, `models` (letter, name, threshold) and `pairs` (a, b, n_images, n_patients,
    matched_by, images: the counts of `Pairing`, notes, verdict).

    Args:
        models: two or more, with names of their own.
        resamples: bootstrap resamples of patients, 40 or more.
        seed: of the bootstrap, 0 or more.
        listener: hears one step a pair.

    Raises:
        DataError: two models cannot be compared; see `pair_models`.
        UsageError: fewer than two models, too few resamples, or a seed below 0.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
    """
    if len(models) < 2:
        raise UsageError("one model cannot be compared: give two or more run folders or predictions files.")
    if resamples < LEAST_RESAMPLES or seed < 0:
        raise UsageError(
            f"{resamples} resamples, seed {seed}: give {LEAST_RESAMPLES} or more, and a seed of 0 or more."
        )
    listener = listener or Listener()
    letters = [chr(ord("A") + number) if number < 26 else f"M{number + 1}" for number in range(len(models))]
    chosen = list(itertools.combinations(range(len(models)), 2))
    pairings = [pair_models(models[a], models[b]) for a, b in chosen]
    listener.stage("compare models")
    rows: list[list[Row]] = []
    for done, pairing in enumerate(pairings, start=1):
        rows.append(_compare_pair(pairing, resamples=resamples, seed=seed))
        listener.advance(done, len(pairings))
    _correct(rows)
    pairs = [
        sum_up(pairing, of_pair, letters=(letters[a], letters[b]))
        for pairing, of_pair, (a, b) in zip(pairings, rows, chosen, strict=True)
    ]
    frame = pd.DataFrame(list(itertools.chain.from_iterable(rows)), columns=list(COLUMNS))
    frame = frame.astype(dict.fromkeys(_NUMBERS, "float64"))
    frame.attrs = {
        "resamples": resamples,
        "seed": seed,
        "models": [
            {"letter": letter, "name": model.name, "threshold": model.threshold}
            for letter, model in zip(letters, models, strict=True)
        ],
        "pairs": pairs,
        "notes": _few_resamples(rows, resamples),
    }
    return frame


def _compare_pair(pairing: Pairing, *, resamples: int, seed: int) -> list[Row]:
    """The rows of one pair, still without correction and verdict."""
    thresholds = [model.threshold for model in (pairing.a, pairing.b) if model.threshold is not None]
    decided = len(thresholds) == 2
    points = thresholds if decided else [0.5, 0.5]  # without figures at the threshold, it has no effect
    figures = [name for name in FIGURES if decided or name not in metrics.THRESHOLD_FIGURES]
    models = list(zip(pairing.probabilities, points, strict=True))
    called = [metrics.calls(probabilities, point) for probabilities, point in models]
    resampled = [
        resampled_figures(
            pairing.labels,
            probabilities,
            pairing.patients,
            threshold=point,
            resamples=resamples,
            seed=seed,
            figures=figures,
        )
        for probabilities, point in models
    ]
    jackknifed = [_jackknife(pairing, probabilities, point, figures) for probabilities, point in models]
    rows = []
    for figure in figures:
        first, second = (_value(figure, pairing.labels, pairing.probabilities[k], called[k]) for k in (0, 1))
        row: Row = {"a": pairing.a.name, "b": pairing.b.name, "figure": figure}
        row |= {"value_a": first, "value_b": second, "difference": first - second}
        if math.isnan(first - second):
            row["note"] = f"undefined for {pairing.a.name if math.isnan(first) else pairing.b.name}"
        else:
            draws = _Draws(
                resampled[0][figure] - resampled[1][figure],
                jackknifed[0][figure] - jackknifed[1][figure] if jackknifed[0] and jackknifed[1] else None,
            )
            row |= _test(pairing, figure, first - second, draws, called=called)
        rows.append(dict.fromkeys(COLUMNS) | row)
    return rows


@dataclass(frozen=True, slots=True)
class _Draws:
    """The difference in each resample, and without each unit in turn; None where there are too many."""

    resampled: Floats
    jackknifed: Floats | None


def _jackknife(
    pairing: Pairing, probabilities: Floats, threshold: float, figures: Sequence[str]
) -> dict[str, Floats] | None:
    if pairing.n_units > MOST_JACKKNIFED:
        return None
    return jackknife_figures(pairing.labels, probabilities, pairing.patients, threshold=threshold, figures=figures)


def _value(figure: str, labels: NDArray[np.int64], probabilities: Floats, called: Mask) -> float:
    if figure in metrics.THRESHOLD_FIGURES:
        return float(metrics.THRESHOLD_FIGURES[figure](metrics.confusion(labels, called)))
    return metrics.PROBABILITY_FIGURES[figure](labels, probabilities)


def _test(pairing: Pairing, figure: str, difference: float, draws: _Draws, *, called: Sequence[Mask]) -> Row:
    """Interval, p and test of one difference: the best that the data allow."""
    if figure == "auroc" and pairing.one_image_each:
        exact = delong_difference(pairing.labels, pairing.probabilities)
        if exact is not None:
            return {"low": exact[0], "high": exact[1], "p": exact[2], "test": "DeLong"}
    row = _test_over_units(pairing, figure, difference, draws, called=called)
    is_malignant = pairing.labels == MALIGNANT
    cases = {"sensitivity": is_malignant, "specificity": ~is_malignant, "accuracy": np.full(len(is_malignant), True)}
    if figure not in cases or pairing.patients is None:
        return row
    right_a, right_b = ((each == is_malignant)[cases[figure]] for each in called)
    if not pairing.one_image_each:
        return row | {"p_mcnemar": clustered_mcnemar(right_a, right_b, pairing.patients[cases[figure]])}
    p = mcnemar(right_a, right_b)
    row |= {"p": p, "p_mcnemar": p, "test": "exact McNemar"}
    if p >= SIGNIFICANCE and row["low"] is not None and not row["low"] <= 0 <= row["high"]:
        # Of few discordant cases an interval by t is too narrow; it must not contradict the test.
        row |= {"low": min(row["low"], 0.0), "high": max(row["high"], 0.0)}
        row["note"] = "widened to 0, which the exact test does not rule out"
    return row


def _test_over_units(pairing: Pairing, figure: str, difference: float, draws: _Draws, *, called: Sequence[Mask]) -> Row:
    units = np.arange(len(pairing.labels)) if pairing.patients is None else pairing.patients
    n_units = min(units_behind(figure, pairing.labels, units, called=each) for each in called)
    resampled, jackknifed = draws.resampled, draws.jackknifed
    # With n_units - 1 degrees of freedom, not those of the figures: with these, simulated differences cover enough.
    interval = difference_interval(difference, resampled, n_units=n_units, unit=pairing.unit, jackknife=jackknifed)
    p = p_value(difference, resampled, n_units=n_units, jackknife=jackknifed)
    row: Row = {"low": None, "high": None, "p": p, "test": f"{pairing.unit} bootstrap"}
    if not isinstance(interval, str):
        low, high = max(interval.low, -1.0), min(interval.high, 1.0)
        by = f"{pairing.unit} {'jackknife' if interval.method == 'jackknife' else 'bootstrap'}"
        return row | {"low": low, "high": high, "note": interval.note, "test": by}
    row["note"] = interval
    if n_units > 1 and np.isfinite(resampled).all() and np.ptp(resampled) == 0:
        # All units are of one mind, so that there is no spread; how many they are still tells something.
        agreeing = n_units if difference else 0
        row |= {"p": float(stats.binomtest(agreeing, agreeing).pvalue) if agreeing else 1.0}
        row["test"] = f"sign test over {pairing.unit}s" if agreeing else row["test"]
    return row


def _correct(rows: Sequence[Sequence[Row]]) -> None:
    """Corrects the p-values of the headline figures of all pairs."""
    claims = [row for of_pair in rows for row in of_pair if row["figure"] in HEADLINE]
    p_values = np.array([math.nan if row["p"] is None else row["p"] for row in claims], dtype=np.float64)
    for row, corrected in zip(claims, holm(p_values).tolist(), strict=True):
        row["p_corrected"] = corrected


def _few_resamples(rows: Sequence[Sequence[Row]], resamples: int) -> list[str]:
    """A note where the bootstrap of so few resamples cannot show that the surest of so many differences is one."""
    claims = [row["test"] for of_pair in rows for row in of_pair if row["figure"] in HEADLINE and row["test"]]
    n_claims = len(claims)
    needed = math.ceil(2 * n_claims / SIGNIFICANCE)
    if resamples >= needed or not any(test.endswith("bootstrap") for test in claims):
        return []
    return [
        f"{resamples:,} resamples are too few to show any of {counted(n_claims, 'difference', 'differences')} by the "
        f"bootstrap: take {needed:,} or more."
    ]
