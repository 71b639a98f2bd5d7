"""How far the neighbours of a patch count: chosen on validation, and not at all where patients left out gain nothing.

One number is chosen, and whether a second network is heard, so that a handful of patients is enough. Weights for each
network and several widths, fitted by logistic regression, were no better on patients left out, and moved the logits of
different fits apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.context import Cells, Floats, Grid, lay_out, mean_logit, on_lattice, smooth
from clearmargin.evaluation.logistic import fit_logistic

SCALES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Standard deviations, in steps of the lattice, that are tried."""
FEWEST_PATIENTS = 4
_FOLDS = 5
_RIDGE = np.array([1.0, 0.0])
"""So that logits that tell the classes apart without error have a slope."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of a model's context before anything is fitted: the step of the lattice, and the field it sees."""

    step: int
    field: int | None = None
    thumbnail: int | None = None


@dataclass(frozen=True, slots=True)
class ContextChoice:
    """The grid, the logits in context (N,), and the log loss of patients left out, alone and in context."""

    grid: Grid
    logits: Floats
    log_loss: tuple[float, float]


def slide_places(frame: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
    """(N,) number of the slide, x and y of each row, or None where one is missing."""
    columns = frame[["slide_id", "x", "y"]]
    if len(columns) == 0 or bool(columns.isna().any(axis=None)) or bool((columns["slide_id"] == "").any()):
        return None
    slides = frame.groupby(["patient_id", "slide_id"], dropna=False, sort=False).ngroup()
    numbers, x, y = (np.asarray(values, dtype=np.int64) for values in (slides, columns["x"], columns["y"]))
    return numbers, x, y


def find_cells(frame: pd.DataFrame, step: int) -> Cells | None:
    """Where the images lie, or None where one of them has no place on the lattice of this step."""
    places = slide_places(frame)
    if places is None or not on_lattice(*places, step).all():
        return None
    return lay_out(*places, step)


def why_too_few(n_patients: int) -> str:
    """Why no context can be judged on so many patients; nothing where it can."""
    if n_patients >= FEWEST_PATIENTS:
        return ""
    return f"context is judged on {FEWEST_PATIENTS} validation patients or more, and there are {n_patients}"


def choose_context(
    labels: NDArray[np.integer],
    logits: Sequence[Floats],
    cells: Cells,
    patients: NDArray[np.object_],
    *,
    step: int,
) -> ContextChoice | str:
    """The grid of the lowest log loss on patients left out, or why there is none.

    The loss is that of sigmoid(slope * logit + intercept), fitted on the other patients; that of the first network
    alone must be above it.

    Args:
        labels: (N,) of 0 and 1.
        logits: of each network, (N,).
        cells: where the patches lie.
        patients: (N,) ids.
        step: of their lattice.
    """
    codes = pd.factorize(patients, sort=True)[0]
    n_patients = int(codes.max()) + 1
    if too_few := why_too_few(n_patients):
        return too_few
    folds = _deal(codes, n_patients)
    if any(len(np.unique(labels[folds != fold])) < 2 for fold in np.unique(folds)):
        return "too few validation patients have either class to judge what context gains"
    alone = _held_out_loss(logits[0], labels, folds)
    losses: dict[tuple[Literal[1, 2], float], float] = {}
    for networks in _counts(logits):
        mean = mean_logit(logits[:networks])
        for scale in SCALES:
            losses[networks, scale] = _held_out_loss(smooth(mean, cells, scale), labels, folds)
    best = min(losses, key=lambda each: losses[each])
    if not losses[best] < alone:
        return f"patients left out gain nothing by it (log loss {alone:.4f} alone, {losses[best]:.4f} in context)"
    grid = Grid(step=step, networks=best[0], scale=best[1])
    return ContextChoice(grid, grid.apply(logits[: grid.networks], cells), (alone, losses[best]))


def _counts(logits: Sequence[Floats]) -> tuple[Literal[1, 2], ...]:
    """How many of the networks may be heard: the first, or both where there are two."""
    return (1,) if len(logits) == 1 else (1, 2)


def _deal(codes: NDArray[np.integer], n_patients: int) -> NDArray[np.integer]:
    """(N,) the fold of each image: patients in turn, the largest first, so that folds are of like size."""
    sizes = np.bincount(codes, minlength=n_patients)
    folds = np.empty(n_patients, dtype=np.int64)
    folds[np.argsort(-sizes, kind="stable")] = np.arange(n_patients) % min(_FOLDS, n_patients)
    return np.asarray(folds[codes])


def _held_out_loss(logits: Floats, labels: NDArray[np.integer], folds: NDArray[np.integer]) -> float:
    """Log loss of the images under a slope and an intercept that were fitted on the other folds."""
    features = np.column_stack([logits, np.ones(len(labels))])
    scores = np.empty(len(labels))
    for fold in np.unique(folds):
        inside = folds != fold
        scores[~inside] = features[~inside] @ fit_logistic(features[inside], labels[inside], ridge=_RIDGE)
    return float(np.mean(np.logaddexp(0, scores) - labels * scores))
