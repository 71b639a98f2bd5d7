"""From the packed images of a job and its exported network to the gate of the bundle, and what that gate refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearmargin.evaluation.choices import OUT_OF_FOLD, VALIDATION, known_ids
from clearmargin.evaluation.gate import Member, describe_refusals, fit_gate, sample_rows
from clearmargin.gate import Gate, TestShare
from clearmargin.images.look import COLOURS, LOOK, VISIBLE, is_blank, is_grey, measure_look
from clearmargin.images.preprocess import Preprocessing
from clearmargin.networks import Images
from clearmargin.predict.gate import judge
from clearmargin.predict.session import Session
from clearmargin.types import Content

_CHUNK = 1024

Describe = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def describe_with(session: Session) -> Describe | None:
    """What computes the features (N, D) of packed images with a network; None where it gives none."""
    return (lambda images: session.describe(images)[1]) if session.has_features else None


def build_gate(
    images: Images,
    describe: Describe | None,
    *,
    rows: NDArray[np.intp],
    members: Sequence[Member] | int,
    chosen_on: str,
) -> Gate:
    """The gate for images like those in `rows`.

    Args:
        images: of the job.
        describe: computes the features of the network; None where it gives none.
        rows: of the images that the model was shown.
        members: of each network, what it was trained on and what not, rows of `images`; or how many networks there
            are, where no image tells more of a new one than another.
        chosen_on: what the images are called.
    """
    frame = images.manifest.frame
    patients = known_ids(frame.iloc[rows], "patient_id")
    if patients is not None:
        rows = sample_rows(rows, known_ids(frame.assign(patient_id=frame["patient_id"].fillna("")), "patient_id"))
        patients = known_ids(frame.iloc[rows], "patient_id")
    else:
        rows = sample_rows(rows, None)
    sizes = frame[["width", "height"]].to_numpy(dtype=np.int64)[rows]
    look = _in_chunks(measure_look, images.store.images, rows)
    features = None if describe is None else _in_chunks(describe, images.store.images, rows)
    if not isinstance(members, int):
        members = [Member(_places(each.trained, rows), _places(each.held_out, rows)) for each in members]
    grey = _greyness(look, images.preprocessing)
    # Whether an image has colour is then a fact, or cannot be told: how much of it, says nothing.
    kept = [place for place, name in enumerate(LOOK) if name not in COLOURS or grey is False]
    return fit_gate(
        look[:, kept],
        names=[LOOK[place] for place in kept],
        visible=[VISIBLE[place] for place in kept],
        sizes=sizes,
        grey=grey,
        blank=bool(is_blank(look).any()),
        fixed_scale=_has_fixed_scale(images.manifest.content, sizes, images.preprocessing),
        patients=patients,
        features=features,
        members=members,
        chosen_on=chosen_on,
    )


def tried_on(gate: Gate, reasons: Sequence[str | None]) -> Gate:
    """The gate that also keeps how many images of test it refuses."""
    refused = sum(reason is not None for reason in reasons)
    return gate.model_copy(update={"on_test": TestShare(images=len(reasons), refused=refused)})


def refuse(
    gate: Gate, images: Images, describe: Describe | None, *, rows: NDArray[np.intp] | None = None
) -> list[str | None]:
    """Why each image is refused, None where it is not.

    Args:
        gate: of the bundle.
        images: of the job.
        describe: computes the features of the network.
        rows: which images; all when None.
    """
    chosen = np.arange(len(images.store)) if rows is None else rows
    sizes = images.manifest.frame[["width", "height"]].to_numpy(dtype=np.int64)[chosen].tolist()
    reasons: list[str | None] = []
    for start in range(0, len(chosen), _CHUNK):
        part = slice(start, start + _CHUNK)
        block = images.store.images[chosen[part]]
        features = describe(block) if describe is not None and gate.features is not None else None
        reasons += judge(gate, block, [(width, height) for width, height in sizes[part]], features)
    return reasons


def describe_gate(gate: Gate | None, reasons: Sequence[str | None]) -> dict[str, Any]:
    """`gate` of metrics.json: what the gate refuses of the images that the figures are of."""
    if gate is None:
        return {"not_applicable": "the bundle has no gate; it refuses no image for its look"}
    missing = {name: why for name, why in (("no_look", gate.no_look), ("no_features", gate.no_features)) if why}
    return {**describe_refusals(reasons), **missing}


def trained_members(
    trained_parts: NDArray[np.intp] | None, networks: int, splits: NDArray[np.str_], *, by_image: bool
) -> Sequence[Member] | int:
    """Which images each network of a run was trained on, and which of the others it may be judged on.

    Where images of one patient are on both sides of the split, none is new to a network, and their number is given.

    Args:
        trained_parts: (N,) the part of each image in a cross-fitting; None for one network.
        networks: how many there are.
        splits: (N,) of the images.
        by_image: they were split without regard to patients.
    """
    if by_image:
        return networks
    if trained_parts is None:
        return [Member(np.flatnonzero(splits == "train"), np.flatnonzero(splits == "validation"))]
    return [
        Member(
            np.flatnonzero((trained_parts >= 0) & (trained_parts != number)), np.flatnonzero(trained_parts == number)
        )
        for number in range(networks)
    ]


def shown_as(crossfit: int) -> str:
    """What the images of a run are called that its gate is chosen on."""
    return OUT_OF_FOLD if crossfit else f"train and {VALIDATION}"


def _in_chunks(
    measure: Callable[[NDArray[np.uint8]], NDArray[np.floating]], images: NDArray[np.uint8], rows: NDArray[np.intp]
) -> NDArray[np.float64]:
    parts = [measure(images[rows[start : start + _CHUNK]]) for start in range(0, len(rows), _CHUNK)]
    joined: NDArray[np.float64] = np.concatenate(parts).astype(np.float64)
    return joined


def _places(wanted: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where the wanted ones among the rows are."""
    return np.flatnonzero(np.isin(rows, wanted))


def _greyness(look: NDArray[np.float64], spec: Preprocessing) -> bool | None:
    if spec.channels == 1:  # what colours the files had is gone
        return None
    grey = is_grey(look)
    return bool(grey[0]) if grey.all() or not grey.any() else None


def _has_fixed_scale(content: Content | None, sizes: NDArray[np.int64], spec: Preprocessing) -> bool:
    unreduced = bool((sizes <= (spec.width, spec.height)).all())
    return content == "histology" or (content is None and unreduced)
