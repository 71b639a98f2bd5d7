"""Whether new images, or a model's scores on them, differ from those it was made with by more than patients do.

Images of one patient resemble each other, so that two sets of a few patients always differ. A shift is claimed only
where the mean over the new patients lies farther from that of training than the spread between patients explains.
The value classes that a bundle keeps are in `clearmargin.reference`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from clearmargin.errors import counted
from clearmargin.evaluation.metrics import Floats, Probabilities
from clearmargin.evaluation.significance import holm
from clearmargin.reference import STEPS, Distribution, Reference

Patients = NDArray[np.generic]

ALPHA = 0.05
"""The chance that new patients of the same population are called shifted in anything at all."""
LEAST_SHIFT = 0.2
"""A shift of fewer standard deviations is not called one, however sure it is: Cohen's small effect."""
SCORE = "score"

_LEVELS = np.linspace(0, 1, STEPS)
_LOW, _MIDDLE, _HIGH = 1, STEPS // 2, STEPS - 2  # the quantiles 0.05, 0.5 and 0.95
_FINEST = 0.01
"""All statistics lie in about 0..1; a spread below this counts as this, so that a constant one has a scale."""
_LEAST_RANK = 0.01
_FARTHEST = 4.0
"""A standardised value counts as this at most, so that a few odd images do not make the spread between patients."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
_WHITE, _BLACK = 0.9 * 255, 0.1 * 255
_CHUNK_PIXELS = 2**19


def describe_images(images: NDArray[np.uint8], rows: NDArray[np.intp] | None = None) -> dict[str, Floats]:
    """Simple statistics of each image, by name, each (N,) and in 0..1 (sharpness: 0 to about 1.1).

    brightness: mean of grey. red, green, blue: means of the channels. contrast: standard deviation of grey.
    colourfulness: mean of the largest minus the smallest channel. near_white, near_black: share of pixels brighter
    than 0.9, and darker than 0.1. sharpness: mean absolute difference of neighbouring pixels by contrast, 0 for a
    constant image. Images of one channel have no colours.

    Args:
        images: (M, H, W, C), C = 1 or 3, of one size, as the model sees them; a map is read piece by piece.
        rows: (N,) which of them; all when None.

    Raises:
        ValueError: the array is not of that kind.

    >>> black = np.zeros((1, 4, 4, 1), dtype=np.uint8)
    >>> {name: float(values[0]) for name, values in describe_images(black).items()}["near_black"]
    1.0
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8 or 0 in images.shape[1:]:
        raise ValueError(f"images are {images.dtype} of the shape {images.shape}; uint8 (N, H, W, 1 or 3) is needed")
    n, step = len(images) if rows is None else len(rows), max(1, _CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    # One chunk at least, so that no image still gives every name.
    pieces = [slice(start, start + step) for start in range(0, max(1, n), step)]
    chunks = [_describe_chunk(images[piece if rows is None else rows[piece]]) for piece in pieces]
    return {name: np.concatenate([chunk[name] for chunk in chunks]).astype(np.float64) for name in chunks[0]}


def build_reference(
    statistics: Mapping[str, Floats],
    *,
    patients: Patients | None,
    probabilities: Probabilities,
    held_out_patients: Patients | None,
) -> Reference:
    """What a bundle keeps for later comparison; a distribution of fewer than two patients (or images) is left out.

    Args:
        statistics: of the training images, each (N,), from `describe_images`.
        patients: (N,), their patients; None where unknown, and every image then counts as independent.
        probabilities: (M,), calibrated, of images that the model was not trained on.
        held_out_patients: (M,), their patients, or None.
    """
    found = {name: _distribution(values, patients) for name, values in statistics.items()}
    return Reference(
        unit="image" if patients is None else "patient",
        images={name: entry for name, entry in found.items() if entry is not None},
        score=_distribution(np.asarray(probabilities, dtype=np.float64), held_out_patients),
    )


def compare_with_reference(
    reference: Reference, statistics: Mapping[str, Floats], probabilities: Probabilities, patients: Patients | None
) -> dict[str, Any]:
    """How far the new images and scores lie from the reference: the value of `drift` in metrics.json.

    `score` and each of `inputs` have the quartiles in training and here, `ks` (the largest distance between the two
    cumulative distributions, 0 to 1), `shift` (of the mean over patients, of normal scores: in standard deviations of
    the training images), `p` (corrected) and a `verdict`. It is `shifted` where the shift is at least LEAST_SHIFT and
    p at most ALPHA: a t-test of the means over patients with the spread between training patients, corrected by Holm
    over all statistics and the score, so that for new patients of the same population no shift at all is claimed in
    about 95 % of cases. `text` says it in a sentence.

    Args:
        reference: of the bundle.
        statistics: of the new images, each (N,), with every name of the reference.
        probabilities: (N,), calibrated.
        patients: (N,), or None where unknown: every image then counts as a patient of its own, which claims too much.

    Raises:
        ValueError: there is no image, or a statistic of the reference is missing.

    Source: Holm, Scand. J. Stat. 6:65 (1979); the smallest shift: Cohen, Statistical Power Analysis (1988).
    """
    if missing := [name for name in reference.images if name not in statistics]:
        raise ValueError(f"the statistics lack {', '.join(missing)}")
    if len(probabilities) == 0:
        raise ValueError("there is no image to compare with the reference")
    pairs = [(name, old, statistics[name]) for name, old in reference.images.items()]
    if reference.score is not None:
        pairs.append((SCORE, reference.score, np.asarray(probabilities, dtype=np.float64)))
    tests = [_test(old, values, patients) for _, old, values in pairs]
    corrected = holm(np.array([test.p for test in tests]))
    entries = [
        _entry(name, old, values, test, p=float(p))
        for (name, old, values), test, p in zip(pairs, tests, corrected, strict=True)
    ]
    inputs = entries[: len(reference.images)]
    score = (
        entries[-1] if reference.score is not None else {"not_applicable": "the bundle keeps no distribution of scores"}
    )
    n_units = len(probabilities) if patients is None else len(pd.unique(np.asarray(patients)))
    return {"score": score, "inputs": inputs, "text": _text(inputs, score, n_units=n_units, known=patients is not None)}


@dataclass(frozen=True, slots=True)
class _Test:
    shift: float
    p: float


def _describe_chunk(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    n_images, height, width, channels = images.shape
    planes = np.ascontiguousarray(images.transpose(3, 0, 1, 2)).reshape(channels, n_images, height * width)
    if channels == 3:
        grey = planes[0] * np.float32(_LUMA[0])
        grey += planes[1] * np.float32(_LUMA[1])
        grey += planes[2] * np.float32(_LUMA[2])
    else:
        grey = planes[0].astype(np.float32)
    brightness = grey.mean(axis=1)
    contrast = (grey - brightness[:, None]).std(axis=1)
    described = {"brightness": brightness / 255}
    if channels == 3:
        colour = planes.max(axis=0) - planes.min(axis=0)
        described |= {
            name: plane.mean(axis=1, dtype=np.float32) / 255
            for name, plane in zip(("red", "green", "blue"), planes, strict=True)
        }
        described["colourfulness"] = colour.mean(axis=1, dtype=np.float32) / 255
    described["contrast"] = contrast / 255
    described["near_white"] = (grey > _WHITE).mean(axis=1, dtype=np.float32)
    described["near_black"] = (grey < _BLACK).mean(axis=1, dtype=np.float32)
    square = grey.reshape(n_images, height, width)
    steps = np.zeros(n_images, dtype=np.float32)
    n_steps = height * (width - 1) + (height - 1) * width
    for axis in (1, 2):
        steps += np.abs(np.diff(square, axis=axis)).sum(axis=(1, 2))
    # Rounding leaves a constant image a contrast of far less than one grey level.
    described["sharpness"] = np.where(contrast > 1e-2, steps / max(1, n_steps) / np.maximum(contrast, 1e-2), 0)
    return described


def _distribution(values: Floats, patients: Patients | None) -> Distribution | None:
    if len(values) == 0:
        return None
    quantiles = np.quantile(values, _LEVELS)
    means, counts, inner = _patient_means(_standardised(quantiles, values), patients)
    n_units = len(means)
    if n_units < 2:
        return None
    freedom = len(values) - n_units
    within = inner / freedom if freedom else 0.0
    variance = float(means.var(ddof=1))
    return Distribution(
        quantiles=tuple(quantiles.tolist()),
        centre=float(means.mean()),
        error=math.sqrt(variance / n_units),
        between=math.sqrt(max(0.0, variance - within * float(np.mean(1 / counts)))),
        within=math.sqrt(within),
        n_images=len(values),
        n_units=n_units,
    )


def _standardised(quantiles: Floats | tuple[float, ...], values: Floats) -> Floats:
    """The normal score of each value's rank in training, so that skewed statistics and heaps of zeros do no harm.

    Ranks end at the largest and smallest value; beyond, it goes on by standard deviations.
    """
    knots, points = np.asarray(quantiles), np.asarray(values, dtype=np.float64)
    left, right = _cumulative(knots, points)
    scores = stats.norm.ppf(np.clip((left + right) / 2, _LEAST_RANK, 1 - _LEAST_RANK))
    reach = float(stats.norm.ppf(_LEVELS[_HIGH]))
    above, below = (
        max(float(distance) / reach, _FINEST)
        for distance in (knots[_HIGH] - knots[_MIDDLE], knots[_MIDDLE] - knots[_LOW])
    )
    scores += np.maximum(points - knots[-1], 0) / above + np.minimum(points - knots[0], 0) / below
    return np.clip(scores, -_FARTHEST, _FARTHEST)


def _patient_means(values: Floats, patients: Patients | None) -> tuple[Floats, Floats, float]:
    """Each patient's mean and number of images, and the sum of squares around the means."""
    if patients is None:
        return values, np.ones(len(values)), 0.0
    codes, _ = pd.factorize(np.asarray(patients))
    counts = np.bincount(codes).astype(np.float64)
    means = np.bincount(codes, weights=values) / counts
    return means, counts, float(np.sum((values - means[codes]) ** 2))


def _test(old: Distribution, values: Floats, patients: Patients | None) -> _Test:
    means, counts, _ = _patient_means(_standardised(old.quantiles, values), patients)
    shift = float(means.mean()) - old.centre
    here = (old.between**2 + old.within**2 * float(np.mean(1 / counts))) / len(means)
    error = math.sqrt(here + old.error**2)
    if error == 0:  # a statistic that was constant in training
        return _Test(shift, 1.0 if shift == 0 else 0.0)
    return _Test(shift, float(2 * stats.t.sf(abs(shift) / error, old.n_units - 1)))


def _entry(name: str, old: Distribution, values: Floats, test: _Test, *, p: float) -> dict[str, Any]:
    quartiles = (STEPS // 4, STEPS // 2, STEPS - 1 - STEPS // 4)
    q1, median, q3 = np.quantile(values, _LEVELS[list(quartiles)]).tolist()
    before = [old.quantiles[place] for place in quartiles]
    return {
        "name": name,
        "training": {"median": before[1], "q1": before[0], "q3": before[2]},
        "here": {"median": median, "q1": q1, "q3": q3},
        "ks": _ks(np.asarray(old.quantiles), np.asarray(values, dtype=np.float64)),
        "shift": test.shift,
        "p": p,
        "verdict": "shifted" if p <= ALPHA and abs(test.shift) >= LEAST_SHIFT else "alike",
    }


def _ks(quantiles: Floats, values: Floats) -> float:
    """The largest distance between the cumulative distributions; the reference is linear between its quantiles."""
    points = np.union1d(quantiles, values)
    ordered = np.sort(values)
    right, left = (np.searchsorted(ordered, points, side=side) / len(ordered) for side in ("right", "left"))
    reference_left, reference_right = _cumulative(quantiles, points)
    return float(max(np.abs(right - reference_right).max(), np.abs(left - reference_left).max()))


def _cumulative(quantiles: Floats, points: Floats) -> tuple[Floats, Floats]:
    """The share below each point, and at or below it: where quantiles coincide the distribution jumps."""
    knots, first = np.unique(quantiles, return_index=True)
    last = np.append(first[1:], len(quantiles)) - 1
    place = np.clip(np.searchsorted(knots, points, side="right") - 1, 0, len(knots) - 1)
    after = np.minimum(place + 1, len(knots) - 1)
    gap = np.where(after > place, knots[after] - knots[place], 1.0)
    part = np.clip((points - knots[place]) / gap, 0, 1)
    reached = _LEVELS[last]
    between = reached[place] + part * (_LEVELS[first][after] - reached[place])
    between = np.where(points < knots[0], 0.0, np.where(points >= knots[-1], 1.0, between))
    at_knot = points == knots[place]
    return np.where(at_knot, _LEVELS[first][place], between), between


def _text(inputs: list[dict[str, Any]], score: dict[str, Any], *, n_units: int, known: bool) -> str:
    who = counted(n_units, "patient", "patients") if known else counted(n_units, "image", "images")
    moved = [f"{entry['name']} ({entry['shift']:+.1f})" for entry in inputs if entry["verdict"] == "shifted"]
    sentences = []
    if moved:
        sentences.append(
            f"the images differ from those of training by more than patients do, in standard deviations: "
            f"{', '.join(moved)}; what was measured there may not hold here."
        )
    if score.get("verdict") == "shifted":
        side = "higher" if score["shift"] > 0 else "lower"
        sentences.append(
            f"the scores are {side} than on the images held out of training ({score['shift']:+.1f} standard "
            "deviations), as another share of malignant images alone would make them."
        )
    if not sentences:
        sentences.append(f"no evidence of a shift: {who} of the same kind would differ as much by chance.")
    if not known:
        sentences.append(
            "patients are unknown, so each image counted as a patient: a shift may be that of a few patients."
        )
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
