"""Which images of a data set look wrong: blank, faint, saturated, blurred, inverted, with writing burned in.

Judged from the table that `measure.py` gives. All but a constant image is an estimate: each finding says how sure it
is and on what grounds, an image that is blank or faint is told as that alone, and none blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.data.audit.measure import MOSTLY_COLOURED
from clearmargin.data.manifest import Manifest
from clearmargin.errors import counted
from clearmargin.types import Certainty, Finding

Mask = NDArray[np.bool_]

_BLANK_SPREAD = 2 / 255
"""Two steps of an 8-bit image: what a sensor's noise and lossy compression make of an empty field."""
_FAINT_PEAK, _LEAST_PEAK = 4096 / 65535, 2.5 / 255
"""12 bits of 16, and most of 10: stored so, an image is nearly black for a person and for a model."""
_FAINT_SPREAD, _FAINT_BLUR_PX = 0.05, 0.4
"""Faint is something, and not noise: it varies by 5 % of its peak, and is smoother than noise, which has 0.32."""

_CLIPPED_GREY = 0.1
"""Share at the peak of a grey image; exposure control aims at some per cent at most."""
_CLIPPED_COLOUR, _SURELY_CLIPPED_COLOUR = 0.25, 0.5
"""Share of pixels with a colour and a channel at its end. Glass is white and does not count."""
_BLACK_COLOUR = 0.25
"""Share of black in a coloured image: stained tissue lets some light through everywhere."""
_TWO_LEVELS, _ANY = 0.98, 0.001
"""Black and white together, and the least of each, that make an image a mask; the rest is its smoothed outline."""

_LEAST_GROUP = 30
_BLURRED_TIMES, _SURELY_BLURRED_TIMES, _BLURRED_DEVIATIONS = 2.0, 3.0, 5.0
"""Twice as wide as in the median image, which a person sees, and far out of what the others are spread over."""

_EVEN, _BRIGHT_FRAME, _DARK_FRAME, _NO_BLACK = 0.5, 0.8, 0.2, 0.1
"""Air round a breast is even. Inverted it is near the peak, and little is black."""
_SURROUNDS_STEP, _SURROUNDS_SPREAD = 0.03, 0.1
"""What it surrounds is darker: on average by little, where the breast is small, but then by much in places."""
_LEAST_GREY = 20
_MIRROR_GAIN = 4.0
"""Mean over three measures of the squared deviations that turning the image saves: as a likelihood, exp(6) to 1."""

_WORD, _PART_OF_A_WORD, _PAIR_OF_CROSSES = 3, 2, 2
_TINTED = 0.0005
"""Share of tinted pixels: a calliper cross of 15 px in an image of 512 × 512 has 0.0003, and there are two."""


def find_quality_problems(manifest: Manifest, measures: pd.DataFrame) -> list[Finding]:
    """What looks wrong, of the kinds blank, faint, saturated, blurred, inverted, burned_in_text.

    Args:
        manifest: N images, their widths and heights known.
        measures: (N, len(MEASURES)) as of `measure.build_measures`, aligned with `manifest.frame`; a row of missing
            values is passed over.
    """
    table = measures.reset_index(drop=True)
    faint = _are_faint(table)
    blank = (table["spread"] < _BLANK_SPREAD).to_numpy() & ~faint
    seen = table.copy()
    seen.loc[blank | faint] = np.nan
    paths = manifest.frame["path"]
    return [
        *_tell_empty(paths, table, blank, faint),
        *_tell_inverted_and_saturated(paths, seen),
        *_tell_blurred(paths, seen, _size_classes(manifest.frame)),
        *_tell_burned_in(paths, seen),
    ]


def _finding(
    paths: pd.Series[str],
    rows: Mask,
    kind: str,
    certainty: Certainty,
    *,
    words: tuple[str, str],
    basis: str,
    fix: str,
) -> Iterator[Finding]:
    """The finding, if there is a row to tell of; `basis` says what it rests on, after the first path."""
    files = tuple(paths[rows])
    if files:
        message = f"{counted(len(files), *words)}, the first is '{files[0]}': {basis}."
        yield Finding(
            kind, "note" if certainty == "possible" else "warning", message, fix, files, len(files), certainty
        )


_LEAVE_OUT = "leave out with --exclude FILE what does not belong here."


def _tell_empty(paths: pd.Series[str], table: pd.DataFrame, blank: Mask, faint: Mask) -> Iterator[Finding]:
    constant = (table["spread"] == 0).to_numpy()
    fix = f"Look at them: empty glass, a failed scan or a failed export; {_LEAVE_OUT}"
    yield from _finding(
        paths,
        constant,
        "blank",
        "certain",
        words=("image has one value in every pixel", "images have one value in every pixel"),
        basis="there is nothing in it",
        fix=fix,
    )
    yield from _finding(
        paths,
        blank & ~constant,
        "blank",
        "likely",
        words=("image looks blank", "images look blank"),
        basis="its grey varies by less than 2 of 255, as noise does",
        fix=fix,
    )
    yield from _finding(
        paths,
        faint,
        "faint",
        "likely",
        words=("image uses only the lowest 1/16 of its range", "images use only the lowest 1/16 of their range"),
        basis="a model sees it nearly black; often 12-bit values were stored in 16 bits",
        fix="Save them again, scaled to the whole range by one factor for all images.",
    )


def _are_faint(table: pd.DataFrame) -> Mask:
    peak, spread = table["peak"], table["spread"]
    low = (peak < _FAINT_PEAK) & (peak > _LEAST_PEAK)
    return (low & (spread >= _FAINT_SPREAD * peak) & (table["blur_px"] >= _FAINT_BLUR_PX)).to_numpy()


def _tell_inverted_and_saturated(paths: pd.Series[str], seen: pd.DataFrame) -> Iterator[Finding]:
    coloured = (seen["coloured"] > MOSTLY_COLOURED).to_numpy()
    grey = (seen["coloured"] <= MOSTLY_COLOURED).to_numpy()
    # A colourless patch among coloured ones is glass, not a scan in grey.
    in_grey_set = grey & (grey.sum() >= coloured.sum())
    two_levels = (
        (seen["dark"] + seen["bright"] >= _TWO_LEVELS) & (seen["dark"] >= _ANY) & (seen["bright"] >= _ANY)
    ).to_numpy() & grey
    scans = in_grey_set & ~two_levels
    inverted = scans & _have_bright_frame(seen)
    mirrored = scans & ~inverted & _fit_better_turned(seen, scans)
    yield from _tell_inverted(paths, inverted, mirrored)

    yield from _finding(
        paths,
        two_levels,
        "saturated",
        "likely",
        words=("image is only black and white", "images are only black and white"),
        basis="a mask or an outline that lies among the images, or a threshold was applied",
        fix=f"Look at them; {_LEAVE_OUT}",
    )
    clipped = scans & ~inverted & (seen["bright"] >= _CLIPPED_GREY).to_numpy()
    black = coloured & (seen["dark"] >= _BLACK_COLOUR).to_numpy()
    surely = coloured & (seen["clipped"] >= _SURELY_CLIPPED_COLOUR).to_numpy()
    perhaps = coloured & (seen["clipped"] >= _CLIPPED_COLOUR).to_numpy() & ~black & ~surely
    fix = f"Look at them, and export them again with less contrast where that is possible; {_LEAVE_OUT}"
    words = ("image is saturated", "images are saturated")
    basis = "a tenth of a grey image at its brightest value, a quarter black or half at the end of a channel in colour"
    yield from _finding(
        paths, clipped | black | surely, "saturated", "likely", words=words, basis=f"at least {basis}", fix=fix
    )
    yield from _finding(
        paths,
        perhaps,
        "saturated",
        "possible",
        words=words,
        basis="a quarter or more of the pixels is at the end of a colour channel, which bright stain can do too",
        fix=fix,
    )


def _tell_inverted(paths: pd.Series[str], inverted: Mask, mirrored: Mask) -> Iterator[Finding]:
    words = ("image looks inverted", "images look inverted")
    yield from _finding(
        paths,
        inverted,
        "inverted",
        "likely",
        words=words,
        basis="an even, bright background surrounds something darker, as in a mammogram with dark and light exchanged",
        fix="Invert them before training, at their source: often MONOCHROME1 was saved as it is stored. "
        "Leave them if light backgrounds are meant.",
    )
    yield from _finding(
        paths,
        mirrored,
        "inverted",
        "possible",
        words=words,
        basis="with dark and light exchanged it is much more like the other images",
        fix="Look at them beside others, and invert at their source those that are negatives.",
    )


def _have_bright_frame(seen: pd.DataFrame) -> Mask:
    frame, peak = seen["frame"], seen["peak"]
    surrounds = (seen["frame_even"] >= _EVEN) & (frame >= _BRIGHT_FRAME * peak)
    darker = (frame - seen["inside"] >= _SURROUNDS_STEP * peak) & (seen["spread"] >= _SURROUNDS_SPREAD * peak)
    return (surrounds & darker & (seen["dark"] <= _NO_BLACK)).to_numpy()


def _fit_better_turned(seen: pd.DataFrame, scans: Mask) -> Mask:
    """Which of the scans is, dark and light exchanged, nearer to the others than it is as it stands.

    Near is measured in robust standard deviations of the mean inside the frame, of the skewness, and of the frame over
    the inside. An even, dark frame is air as it should be, and settles the matter.
    """
    if scans.sum() < _LEAST_GREY:
        return np.zeros(len(seen), dtype=bool)
    above = seen["frame"] - seen["inside"]
    looks = np.stack([seen["inside"], seen["skew"], above], axis=1).astype(np.float64)
    turned = np.stack([1 - seen["inside"], -seen["skew"], -above], axis=1).astype(np.float64)
    middle = np.median(looks[scans], axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(looks[scans] - middle), axis=0), [0.02, 0.1, 0.02])
    gain = (((looks - middle) / spread) ** 2).mean(axis=1) - (((turned - middle) / spread) ** 2).mean(axis=1)
    air = (seen["frame_even"] >= _EVEN) & (seen["frame"] <= _DARK_FRAME * seen["peak"])
    better: Mask = (gain >= _MIRROR_GAIN) & ~air.to_numpy()
    return better


def _size_classes(frame: pd.DataFrame) -> NDArray[np.int64]:
    """(N,) images of one class have sides that differ by less than about two times."""
    area = frame["width"].astype("Float64") * frame["height"].astype("Float64")
    sides = np.sqrt(area.to_numpy(dtype=np.float64, na_value=1.0))
    return np.rint(np.log2(np.maximum(sides, 1.0))).astype(np.int64)


def _tell_blurred(paths: pd.Series[str], seen: pd.DataFrame, sizes: NDArray[np.int64]) -> Iterator[Finding]:
    width = seen["blur_px"].where(seen["blur_px"] > 0)
    group = [sizes, (seen["coloured"] > MOSTLY_COLOURED).to_numpy()]
    logs = np.log(width)
    middle = logs.groupby(group).transform("median")
    spread = 1.4826 * (logs - middle).abs().groupby(group).transform("median")
    enough = logs.groupby(group).transform("count") >= _LEAST_GROUP
    above = logs - middle
    far = enough & (above >= np.log(_BLURRED_TIMES)) & (above >= _BLURRED_DEVIATIONS * spread)
    surely = far & (above >= np.log(_SURELY_BLURRED_TIMES))
    words = ("image is blurred beside the others of its size", "images are blurred beside the others of their size")
    fix = f"Look at them: out of focus, enlarged from a smaller image, or dust on glass; {_LEAVE_OUT}"
    told: tuple[tuple[pd.Series[bool], Certainty, float], ...] = (
        (surely, "likely", _SURELY_BLURRED_TIMES),
        (far & ~surely, "possible", _BLURRED_TIMES),
    )
    for rows, certainty, times in told:
        basis = f"its edges are at least {times:g} times as wide as in the median image"
        yield from _finding(paths, rows.to_numpy(dtype=bool), "blurred", certainty, words=words, basis=basis, fix=fix)


def _tell_burned_in(paths: pd.Series[str], seen: pd.DataFrame) -> Iterator[Finding]:
    writing = seen["characters"] >= _WORD
    callipers = seen["crosses"] >= _PAIR_OF_CROSSES
    colour = seen["tinted"] >= _TINTED
    likely = (writing | callipers | colour).to_numpy()
    possible = ((seen["characters"] >= _PART_OF_A_WORD) | (seen["crosses"] > 0)).to_numpy() & ~likely
    words = ("image has writing or marks burned in", "images have writing or marks burned in")
    parts = (("writing", writing), ("calliper crosses", callipers), ("colour over grey", colour))
    shown = ", ".join(f"{name} in {int(rows.sum()):,}" for name, rows in parts if rows.any())
    fix = (
        "Look at them: a patient's name may be in the pixels; mask it before the images are shared, and the marks "
        "before training, because a model can read the class from them."
    )
    yield from _finding(
        paths,
        likely,
        "burned_in_text",
        "likely",
        words=words,
        basis=f"{shown}; what is drawn is sharper than tissue is imaged",
        fix=fix,
    )
    yield from _finding(
        paths,
        possible,
        "burned_in_text",
        "possible",
        words=("image may have writing or marks burned in", "images may have writing or marks burned in"),
        basis="two shapes like characters or one cross",
        fix=fix,
    )
