"""Fitting the gate: what images must be like, so that about 1 % of those of new patients are refused, and not far more.

Each bound is chosen on images that what it judges by was not fitted on: the looks of a patient are judged by those of
other patients, and what a network sees by patients that it was not trained on. It is what the allowed share of these
images exceeds, patients counting alike, shared out evenly among the statistics, and widened by what so few patients
leave unknown: to the upper end of its one-sided 80 % confidence interval, of features 95 % (patients resampled, on the
logarithm, Student's t), and where there are too few images for such a share, along a log-normal tail. Fewer than three
patients have no bounds, and fewer than eight none of features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from clearmargin.errors import counted
from clearmargin.gate import (
    FALSE_REFUSALS,
    Block,
    Evidence,
    Features,
    Floats,
    Gate,
    Look,
    Matrix,
    Sizes,
    Tail,
    fold_features,
    weighted_quantiles,
)

MOST_IMAGES = 20_000
"""Images that a gate is fitted on; of more, as many of each patient as possible."""
NO_FEATURES = "the network gives no features; a model trained anew does"
LEAST_UNITS, LEAST_UNITS_IN_FEATURES = 3, 8
LEAST_IMAGES = 8
UNKNOWN_PATIENTS = 1.5
"""Where patients are unknown, how much they spread is too: thresholds are this many times what images alone give."""
FIXED_SCALE, FREE_SCALE = 2.0, 8.0
"""How many times larger or smaller than in training an image may be: a patch of tissue, whose size on the slide is a
matter of magnification, and a view, which is of one thing however many pixels it has."""

_TAIL = 0.005
_CONFIDENCE = 0.8
_CONFIDENCE_IN_FEATURES = 0.95
"""A patient whose images a network sees otherwise is refused whole, not in part, so few patients tell less."""
_FOLDS = 10
_RESAMPLES = 200
_RIDGE = 0.05  # of the unit matrix in a correlation, however many images there are
_MOST_AXES = 32
_IMAGES_PER_AXIS = 8
_SHORTEST = 1.0  # of a tail: few images of new patients may be a chance
_NEAREST = 0.1  # distances below count as this, since their logarithm says nothing of the tail
_FAINTEST = 1e-3  # of the unit variance of a feature

Rows = NDArray[np.intp]
Patients = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Member:
    """Which images (rows) one network was trained on, and which of the others its threshold may be chosen on."""

    trained: Rows
    held_out: Rows


def sample_rows(rows: Rows, patients: Patients | None, *, most: int = MOST_IMAGES) -> Rows:
    """At most so many of the rows, in their order: evenly from each patient, so that none crowds out the others.

    >>> sample_rows(np.arange(6), np.array(list("aaaabb")), most=4).tolist()
    [0, 3, 4, 5]
    """
    if len(rows) <= most:
        return rows
    if patients is None:
        return rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]
    groups = pd.Series(rows).groupby(pd.factorize(patients[rows])[0]).apply(np.asarray).tolist()
    groups.sort(key=len)
    kept, left = [], most
    for number, group in enumerate(groups):
        share = min(len(group), left // (len(groups) - number))
        kept.append(group[np.linspace(0, len(group) - 1, share).astype(np.intp)] if share else group[:0])
        left -= share
    return np.sort(np.concatenate(kept))


def fit_gate(
    look: Floats,
    *,
    names: Sequence[str],
    visible: Sequence[float],
    sizes: NDArray[np.integer],
    grey: bool | None,
    blank: bool,
    fixed_scale: bool,
    patients: Patients | None,
    features: NDArray[np.floating] | None,
    members: Sequence[Member] | int,
    chosen_on: str,
) -> Gate:
    """The gate of images.

    Args:
        look: (N, S) statistics of each image.
        names: of the statistics.
        visible: the smallest spread of each that counts.
        sizes: (N, 2), width and height of each image before it was fitted.
        grey: all images are in shades of grey, or none is; None where some are.
        blank: some images are of one shade.
        fixed_scale: their size on the slide is a matter of magnification, as that of patches is.
        patients: (N,), or None where unknown.
        features: (N, D) what the networks see, those of several side by side; None where they give none.
        members: of each network, what it was trained on; or how many networks there are, trained on other images.
        chosen_on: what the images are called.
    """
    tested = fit_look(look, patients, names=names, visible=visible, chosen_on=chosen_on)
    seen: Features | str = NO_FEATURES
    if features is not None:
        seen = fit_features(features, patients, members=members, chosen_on=chosen_on)
    return Gate(
        sizes=fit_sizes(sizes, fixed_scale=fixed_scale),
        grey=grey,
        blank=blank,
        look=tested if isinstance(tested, Look) else None,
        no_look=tested if isinstance(tested, str) else None,
        features=seen if isinstance(seen, Features) else None,
        no_features=seen if isinstance(seen, str) else None,
        chosen_on=chosen_on,
    )


def fit_sizes(sizes: NDArray[np.integer], *, fixed_scale: bool) -> Sizes:
    """The range of sizes (N, 2), width and height, and how far beyond it an image may go."""
    longer = sizes.max(axis=1)
    small, large = sizes[longer.argmin()], sizes[longer.argmax()]
    return Sizes(
        smallest=(int(small[0]), int(small[1])),
        largest=(int(large[0]), int(large[1])),
        factor=FIXED_SCALE if fixed_scale else FREE_SCALE,
    )


def fit_look(
    values: Floats, patients: Patients | None, *, names: Sequence[str], visible: Sequence[float], chosen_on: str
) -> Look | str:
    """How images look, with a threshold that judges each patient by the others; or why that cannot be said.

    Args:
        values: (N, S) statistics.
        patients: (N,), or None where unknown.
        names: of the statistics.
        visible: the smallest spread of each that counts.
        chosen_on: what the images are called.
    """
    too_few = _why_too_few(patients, np.arange(len(values)))
    if too_few:
        return too_few
    groups = _groups(patients, len(values))
    weights = _weights(groups)
    widths = np.asarray(visible)

    def unlikeness(rows: Rows, others: Rows) -> Floats:
        return _fit_look(values[others], weights[others], names, widths).distances(values[rows])

    distances = _judged_by_others(unlikeness, groups)
    below, above = np.maximum(-distances, 0), np.maximum(distances, 0)
    reach = np.array([_reach(below, groups), _reach(above, groups)])
    farthest = np.maximum(below / reach[0], above / reach[1]).max(axis=1)
    threshold = 1.0 if patients is not None else UNKNOWN_PATIENTS
    evidence = _evidence(farthest, threshold, groups, patients, chosen_on=chosen_on)
    fitted = _stretch(_fit_look(values, weights, names, widths), reach)
    return fitted.model_copy(update={"threshold": threshold, "evidence": evidence})


def fit_features(
    features: NDArray[np.floating], patients: Patients | None, *, members: Sequence[Member] | int, chosen_on: str
) -> Features | str:
    """What networks see in images, with a threshold chosen on images that they were not trained on; or why not.

    Args:
        features: (N, D), those of several networks side by side.
        patients: (N,), or None where unknown.
        members: of each network, what it was trained on; or how many networks there are, trained on other images.
        chosen_on: what the images are called.
    """
    everyone = np.arange(len(features))
    too_few = _why_too_few(patients, everyone, least=LEAST_UNITS_IN_FEATURES)
    if too_few:
        return too_few
    groups = _groups(patients, len(features))
    weights = _weights(groups)
    parts = fold_features(features, members if isinstance(members, int) else len(members))
    trained = [everyone] * len(parts) if isinstance(members, int) else [member.trained for member in members]
    blocks = tuple(_fit_block(part[rows], weights[rows]) for part, rows in zip(parts, trained, strict=True))
    held_out = everyone[:0]
    if not isinstance(members, int):
        held_out = np.unique(np.concatenate([member.held_out for member in members]))
    if isinstance(members, int) or _why_too_few(patients, held_out, least=LEAST_UNITS_IN_FEATURES):

        def unlikeness(rows: Rows, others: Rows) -> Floats:
            fitted = (_fit_block(part[others], weights[others]).distances(part[rows]) for part in parts)
            mean: Floats = np.mean(list(fitted), axis=0)
            return mean

        # A network may know the images that it was trained on; where too few were held out, all of them are judged,
        # each patient by what it sees in the others.
        rows, distances = everyone, _judged_by_others(unlikeness, groups)
    else:
        rows, distances = held_out, np.full(len(features), -np.inf)
        for block, part, member in zip(blocks, parts, members, strict=True):
            own = member.held_out
            distances[own] = np.maximum(distances[own], block.distances(part[own]))
        distances = distances[rows]
    threshold, evidence = _choose(
        distances, groups[rows], None if patients is None else patients[rows], chosen_on=chosen_on
    )
    return Features(width=features.shape[1], blocks=blocks, threshold=threshold, evidence=evidence)


def describe_refusals(reasons: Sequence[str | None]) -> dict[str, Any]:
    """`gate` of metrics.json: how many images the gate refuses, and for what; reasons are None where it does not."""
    kinds = [reason.split(" (")[0].split(":")[0] for reason in reasons if reason is not None]
    counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    share = len(kinds) / len(reasons) if reasons else None
    return {"images": len(reasons), "refused": len(kinds), "share": share, "reasons": counts}


def add_refusals(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`gate` of metrics.json of a cross-validation, from those of its folds, each on the patients that it tests."""
    images, refused = (sum(block[name] for block in blocks) for name in ("images", "refused"))
    reasons: dict[str, int] = {}
    for block in blocks:
        for kind, count in block["reasons"].items():
            reasons[kind] = reasons.get(kind, 0) + count
    return {"images": images, "refused": refused, "share": refused / images, "reasons": reasons}


def _why_too_few(patients: Patients | None, rows: Rows, *, least: int = LEAST_UNITS) -> str | None:
    if len(rows) < LEAST_IMAGES:
        return (
            f"{counted(len(rows), 'image is', 'images are')} too few to say what is unusual ({LEAST_IMAGES} are needed)"
        )
    n_units = len(rows) if patients is None else len(pd.unique(patients[rows]))
    if n_units < least:
        return (
            f"{counted(n_units, 'patient is', 'patients are')} too few to say how much patients differ; "
            f"{least} are needed"
        )
    return None


def _groups(patients: Patients | None, n: int) -> NDArray[np.intp]:
    """(N,) the number of each image's patient; where patients are unknown, of one of a few groups of images."""
    if patients is None:
        return (np.arange(n) * min(n, _FOLDS) // n).astype(np.intp)
    return pd.factorize(patients, sort=True)[0].astype(np.intp)


def _weights(groups: NDArray[np.intp]) -> Floats:
    """(N,) so that the images of each patient weigh the same together; in all 1."""
    counts = np.bincount(groups)
    weights: Floats = 1.0 / counts[groups] / np.count_nonzero(counts)
    return weights


def _judged_by_others(unlikeness: Callable[[Rows, Rows], Floats], groups: NDArray[np.intp]) -> Floats:
    """(N, ...) distances of each image, by what was fitted on the images of other patients."""
    folds = groups % _FOLDS
    parts = [(np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)) for fold in np.unique(folds)]
    joined = np.concatenate([unlikeness(mine, others) for mine, others in parts])
    distances: Floats = joined[np.argsort(np.concatenate([mine for mine, _ in parts]))]
    return distances


def _choose(
    distances: Floats, groups: NDArray[np.intp], patients: Patients | None, *, chosen_on: str
) -> tuple[float, Evidence]:
    """The threshold for half of the allowed share, since two parts may refuse an image, and on what it was chosen."""
    unknown = UNKNOWN_PATIENTS if patients is None else 1.0
    level = 1 - FALSE_REFUSALS / 2
    widened = _widened_quantile(distances, groups, level, confidence=_CONFIDENCE_IN_FEATURES)
    threshold = max(_NEAREST, widened * unknown)
    return threshold, _evidence(distances, threshold, groups, patients, chosen_on=chosen_on)


def _evidence(
    distances: Floats, threshold: float, groups: NDArray[np.intp], patients: Patients | None, *, chosen_on: str
) -> Evidence:
    return Evidence(
        chosen_on=chosen_on,
        unit="image" if patients is None else "patient",
        n_units=len(distances) if patients is None else len(np.unique(groups)),
        n_images=len(distances),
        share=float(np.clip(_weights(groups)[distances > threshold].sum(), 0, 1)),
    )


def _widened_quantile(
    distances: Floats, groups: NDArray[np.intp], level: float, *, confidence: float = _CONFIDENCE
) -> float:
    """The quantile at that level, patients weighing alike, as large as it may be by what so few leave unknown."""
    quantile = float(weighted_quantiles(distances, _weights(groups), [level])[0])
    tail = float(stats.t.ppf(confidence, len(np.unique(groups)) - 1))
    return quantile * math.exp(tail * _standard_error(distances, groups, level) + _beyond(distances, level))


def _reach(distances: Floats, groups: NDArray[np.intp]) -> Floats:
    """(S + 1,) how far the images of new patients go to one side, in units of the tails of the others.

    Each statistic has its own, beyond which it may refuse as much as any other, so that one in which a few images are
    odd does not make the gate blind to the rest.
    """
    level = 1 - FALSE_REFUSALS / 2 / (2 * distances.shape[1] - 1)
    quantiles = [_widened_quantile(column, groups, level) for column in distances.T]
    reach: Floats = np.maximum(np.array(quantiles), _SHORTEST)
    return reach


def _stretch(look: Look, reach: Floats) -> Look:
    """The look with its tails made so many times longer below and above."""
    tails = {
        name: Tail(
            low=tail.middle - (tail.middle - tail.low) * float(below),
            middle=tail.middle,
            high=tail.middle + (tail.high - tail.middle) * float(above),
        )
        for (name, tail), below, above in zip(look.statistics.items(), *reach[:, :-1], strict=True)
    }
    return look.model_copy(update={"statistics": tails, "joint_edge": look.joint_edge * float(reach[1, -1])})


def _fit_look(values: Floats, weights: Floats, names: Sequence[str], visible: Floats) -> Look:
    """With no threshold yet."""
    share = weights / weights.sum()
    quantiles = np.array([weighted_quantiles(column, share, [_TAIL, 0.5, 1 - _TAIL]) for column in values.T])
    middle = quantiles[:, 1]
    low, high = np.minimum(quantiles[:, 0], middle - visible), np.maximum(quantiles[:, 2], middle + visible)
    spread = np.maximum(np.sqrt(share @ (values - middle) ** 2), visible / 3)
    scaled = (values - middle) / spread
    ridge = max(_RIDGE, len(names) / (len(names) + len(values)))
    correlation = (1 - ridge) * (scaled * share[:, None]).T @ scaled + ridge * np.eye(len(names))
    joint = np.linalg.cholesky(np.linalg.inv(correlation)) / spread[:, None]
    together = np.sqrt((((values - middle) @ joint) ** 2).mean(axis=1))
    return Look(
        statistics={
            name: Tail(low=float(a), middle=float(b), high=float(c))
            for name, a, b, c in zip(names, low, middle, high, strict=True)
        },
        joint=Matrix.of(joint),
        joint_edge=max(float(weighted_quantiles(together, share, [1 - _TAIL])[0]), 1.0),
        threshold=1.0,
        evidence=Evidence(chosen_on="", unit="image", n_units=1, n_images=1, share=0),
    )


def _standard_error(distances: Floats, groups: NDArray[np.intp], level: float) -> float:
    """Of the logarithm of the quantile at that level, each patient weighing alike, by resampling patients."""
    codes = np.unique(groups, return_inverse=True)[1]
    n, order = int(codes.max()) + 1, np.argsort(distances, kind="stable")
    logs, share = np.log(np.maximum(distances[order], _NEAREST)), _weights(codes)[order]
    rng, found = np.random.default_rng(0), np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        times = np.bincount(rng.integers(0, n, n), minlength=n)
        shares = np.cumsum(share * times[codes[order]])
        found[number] = logs[min(int(np.searchsorted(shares, level * shares[-1])), len(logs) - 1)]
    return float(found.std(ddof=1)) * math.sqrt(n / (n - 1))


def _beyond(distances: Floats, level: float) -> float:
    """What to add to the logarithm of the largest distance where there are too few for such a level: a normal tail."""
    n = len(distances)
    missing = float(stats.norm.ppf(level) - stats.norm.ppf(n / (n + 1)))
    return max(0.0, missing) * float(np.log(np.maximum(distances, _NEAREST)).std())


def _fit_block(features: Floats, weights: Floats) -> Block:
    share = weights / weights.sum()
    centre = share @ features
    deviation = features - centre
    spread = np.sqrt(share @ deviation**2)
    # A feature that is constant in training must not be infinitely surprising.
    scale = 1 / np.maximum(spread, max(0.1 * float(np.sqrt(np.mean(spread**2))), 1e-6))
    scaled = deviation * scale
    n, width = features.shape
    variances, directions = np.linalg.eigh((scaled * share[:, None]).T @ scaled)
    n_axes = max(1, min(_MOST_AXES, width // 2, n // _IMAGES_PER_AXIS))
    along = np.maximum(variances[::-1][:n_axes], _FAINTEST)
    rest = max(float(variances[: width - n_axes].mean()) if width > n_axes else 1.0, _FAINTEST)
    parts = {
        "centre": Matrix.of(centre),
        "scale": Matrix.of(scale),
        "axes": Matrix.of(directions[:, ::-1][:, :n_axes]),
        "weights": Matrix.of(np.append(1 / along, 1 / rest)),
    }
    distances = Block(**parts, edge=1.0).distances(features)
    return Block(**parts, edge=max(float(weighted_quantiles(distances, share, [1 - _TAIL])[0]), 1e-3))
