"""Which training images a bundle carries, for `predict --similar`, and how their features become comparable.

Only images of train are taken, never any that a figure was computed on. Which ones is no matter of chance: as many of
one class as of the other, so that what is near says something; in a class as many of each patient, as far as they have
so many; of a patient, evenly spaced ones in the order of the manifest. What they are compared by was measured
(docs/similar.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clearmargin.bundle.cases import DIMENSIONS, THUMBNAIL_PX, Case, Cases, project
from clearmargin.bundle.schema import KeptCases
from clearmargin.data.manifest import Manifest
from clearmargin.errors import counted
from clearmargin.predict.session import Session
from clearmargin.settings import RunConfig
from clearmargin.types import LABEL_NAMES, Listener

_WHITENING = 0.25
"""0.5 would give every direction the same spread, and 0 leaves each as it is."""
_LEAST_SHARE = 1e-6
"""Of the largest variance: a direction with less is noise of the arithmetic."""


def keep_cases(
    config: RunConfig,
    manifest: Manifest,
    rows: NDArray[np.intp],
    *,
    images: NDArray[np.uint8],
    onnx: bytes,
    listener: Listener,
) -> Cases | None:
    """The cases that the bundle is to carry; None where the settings keep none, or the network sees no difference.

    Args:
        config: the settings.
        manifest: of the images.
        rows: of those that the network was trained on.
        images: (N, H, W, C), packed.
        onnx: the network.
        listener: hears what is kept.
    """
    keep = config.cases.keep
    if keep == "off" or (keep == "auto" and not config.data.pseudonymise):
        return None
    patients = None if manifest.frame["patient_id"].isna().any() else manifest.frame["patient_id"].to_numpy(dtype=str)
    chosen = choose_cases(manifest.labels(), patients, rows, config.cases.most)
    session = Session(onnx)
    parts = [session.describe(images[part])[1] for part in np.array_split(chosen, -(-len(chosen) // session.batch))]
    features = np.concatenate(parts)
    mean, projection = fit_projection(features)
    if projection.shape[1] == 0:
        listener.note("The bundle carries no cases to compare with: the network sees no difference between images.")
        return None
    thumbnails = make_pictures([images[row] for row in chosen])
    kept = Cases(_rows(config, manifest, chosen), project(features, mean, projection), thumbnails, mean, projection)
    listener.note(
        f"The bundle carries small pictures and ids of {counted(len(chosen), 'training image', 'training images')} "
        "for predict --similar; cases.keep=off leaves them out."
    )
    return kept


def describe_cases(config: RunConfig, cases: Cases | None) -> KeptCases | None:
    """What model.json says of them."""
    if cases is None:
        return None
    return KeptCases(images=len(cases), patients=cases.n_patients, pseudonymous=config.data.pseudonymise)


def choose_cases(
    labels: NDArray[np.int8], patients: NDArray[np.str_] | None, rows: NDArray[np.intp], most: int
) -> NDArray[np.intp]:
    """At most `most` of the rows, rising: as many of either class, in a class evenly of each patient, evenly spaced.

    Args:
        labels: (N,), 0 or 1.
        patients: (N,) ids, where they are known.
        rows: among which to choose; where they have one class only, that class is taken.
        most: 2 or more.

    >>> labels, patients = np.array([0] * 6 + [1] * 2, np.int8), np.array(["A"] * 5 + ["B"] * 3)
    >>> choose_cases(labels, patients, np.arange(8), 5)
    array([0, 5, 6, 7])
    """
    classes = [members for label in (0, 1) if len(members := rows[labels[rows] == label])]
    wanted = min([most // len(classes or [rows]), *(len(members) for members in classes)])
    chosen = [rows[:0]]
    for members in classes:
        names = np.zeros(len(members), dtype=str) if patients is None else patients[members]
        groups = [members[names == name] for name in dict.fromkeys(names.tolist())]
        for group, share in zip(groups, _deal([len(group) for group in groups], wanted), strict=True):
            chosen.append(group[np.arange(share) * len(group) // max(1, share)])
    return np.sort(np.concatenate(chosen))


def _deal(sizes: Sequence[int], total: int) -> list[int]:
    """How many of `total` each gets, as even as the sizes allow; what is left over goes to the first."""
    given = [0] * len(sizes)
    left = min(total, sum(sizes))
    while left:
        hungry = [number for number, size in enumerate(sizes) if given[number] < size]
        share = max(1, left // len(hungry))
        for number in hungry[:left]:
            more = min(share, sizes[number] - given[number])
            given[number] += more
            left -= more
    return given


def fit_projection(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(D,) mean and (D, K) projection to the principal components, at most 64, each of half its spread's exponent.

    Args:
        features: (N, D), N at least 1; K is 0 where all are the same.
    """
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    moved = features.astype(np.float64) - mean
    wide = moved.shape[1] > moved.shape[0]  # the smaller of two matrices that have the same eigenvalues
    values, vectors = np.linalg.eigh((moved @ moved.T if wide else moved.T @ moved) / len(moved))
    order = np.argsort(values)[::-1][: min(DIMENSIONS, len(moved) - 1)]
    order = order[values[order] > max(_LEAST_SHARE * values.max(), np.finfo(np.float32).tiny)]
    values, vectors = values[order], vectors[:, order]
    axes = moved.T @ vectors / np.sqrt(len(moved) * values) if wide else vectors
    return mean, (axes * values**-_WHITENING).astype(np.float32)


def make_pictures(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(N, h, w, C) of images (H, W, C), N at least 1: as they are up to 64 pixels a side, else reduced to that."""
    height, width, channels = images[0].shape
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale == 1:
        return np.stack(images)
    pictures = [Image.fromarray(image[:, :, 0] if channels == 1 else image) for image in images]
    small = [np.asarray(picture.resize(size, Image.Resampling.BOX)) for picture in pictures]
    return np.stack(small).reshape(len(images), size[1], size[0], channels)


def _rows(config: RunConfig, manifest: Manifest, chosen: NDArray[np.intp]) -> tuple[Case, ...]:
    frame = manifest.frame.iloc[chosen]
    names: list[str | None] = [None] * len(chosen)
    if not config.data.pseudonymise:
        seen = manifest.seen_from_root(frame["path"])
        names = [Path(name).name if Path(name).is_absolute() else name for name in seen]
    ids = (frame[name].astype(object).where(frame[name].notna(), None) for name in ("patient_id", "slide_id"))
    rows = zip(*ids, names, manifest.labels()[chosen], strict=True)
    return tuple(
        Case(patient_id=patient, slide_id=slide, path=path, label=LABEL_NAMES[label])
        for patient, slide, path, label in rows
    )
