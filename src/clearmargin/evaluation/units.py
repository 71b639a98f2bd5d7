"""The units (patients, or images) that a figure rests on: how many, and how many degrees of freedom they leave.

A patient with sixty images weighs as much in a figure of images as sixty with one. What is made of the degrees of
freedom is decided in `intervals.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clearmargin.evaluation.metrics import Labels
from clearmargin.types import BENIGN, MALIGNANT

Mask = NDArray[np.bool_]

_RATES_OF_ALL = ("accuracy", "brier", "ece")


def units_behind(figure: str, labels: Labels, patients: NDArray[np.integer], *, called: Mask | None = None) -> int:
    """How many units a figure rests on: those that have an image which it counts.

    For sensitivity those with a malignant image, for specificity a benign one, for figures of both the rarer
    of them; for PPV and NPV those with an image that was called so; else all.

    Args:
        figure: a name from FIGURES.
        labels: (N,), 0 benign or 1 malignant.
        patients: (N,), the unit of each image, any number.
        called: (N,), True where the image was called malignant; for `ppv` and `npv` only.

    Raises:
        ValueError: the figure is `ppv` or `npv`, and nothing says what was called.

    >>> units_behind("auroc", np.array([0, 0, 1, 1]), np.array([1, 2, 2, 2]))
    1
    """
    return min(len(np.unique(patients[counted])) for counted in _counted(figure, labels, called))


def degrees_of_freedom(
    figure: str, labels: Labels, patients: NDArray[np.integer], *, called: Mask | None = None
) -> float:
    """The degrees of freedom of a figure's spread, 0 to units - 1: few where few units have most of the images.

    They are the effective number of units (sum w)^2 / sum w^2, w being the images of each that the figure counts,
    but at most their number - 1, which units alike in size have. A figure of both classes has those of each,
    joined as Welch joins two samples, and at most those of all images.

    Args:
        figure: a name from FIGURES.
        labels: (N,), as in `units_behind`.
        patients: (N,), as in `units_behind`.
        called: (N,), as in `units_behind`.

    Raises:
        ValueError: as `units_behind`.

    Source: Kish, Survey Sampling (1965), section 11.7; Welch, Biometrika 34:28 (1947).

    >>> degrees_of_freedom("accuracy", np.array([0, 1, 1, 1]), np.array([1, 2, 3, 3]))  # 4 ** 2 / (1 + 1 + 2 ** 2)
    2.0
    """
    own = [_degrees(patients[counted]) for counted in _counted(figure, labels, called)]
    if len(own) == 1 or min(own) == 0:
        return min(own)
    variances = [1 / (degrees + 1) for degrees in own]
    parts = [variance**2 / degrees for variance, degrees in zip(variances, own, strict=True)]
    return min(sum(variances) ** 2 / sum(parts), _degrees(patients))


def _counted(figure: str, labels: Labels, called: Mask | None) -> list[Mask]:
    """Which images a figure counts, (N,): of both classes a mask each, where it needs both."""
    if figure in _RATES_OF_ALL:
        return [np.full(len(labels), True)]
    if figure in {"ppv", "npv"}:
        if called is None:
            raise ValueError(f"{figure} rests on what was called: give called")
        return [called if figure == "ppv" else ~called]
    malignant, benign = labels == MALIGNANT, labels == BENIGN
    if figure == "specificity":
        return [benign]
    return [malignant] if figure in {"sensitivity", "f1"} else [malignant, benign]


def _degrees(patients: NDArray[np.integer]) -> float:
    """Kish's effective number of the units of these images, at most one less than there are."""
    images = np.unique(patients, return_counts=True)[1].astype(np.float64)
    return min(float(images.sum() ** 2 / (images**2).sum()), len(images) - 1.0) if len(images) else 0.0
