"""The input gate at work: which images a model refuses because it was shown nothing like them, and why, in words.

Sizes are judged before an image is fitted, the rest batch by batch on what the network sees. Nothing is decided here
of an image in the light of others: alone, in a batch and in any order it is refused or not alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from clearmargin.gate import Features, Floats, Gate, Look
from clearmargin.images.look import LOOK, SHARE_ADDED, is_blank, is_grey, measure_look
from clearmargin.types import GATE_WORDS

_TYPICAL = 0.7
"""A negative that is no farther from training than this, where 1 is the bound, may be that of such an image."""
_NEARER = 2
"""So many times nearer to training than the image is itself, or it tells nothing: that of green ink is pink."""


class InputGate:
    """Says of images, fitted by the bundle's preprocessing, why each is refused, None where it is not."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        names = list(gate.look.statistics) if gate.look is not None else []
        # A statistic of a later version is not known here, and what it would refuse cannot be told.
        self._look = gate.look if names and set(names) <= set(LOOK) else None
        self._columns = [LOOK.index(name) for name in names if name in LOOK]

    @property
    def needs_features(self) -> bool:
        """What the network sees is judged too."""
        return self._gate.features is not None

    def size_refusal(self, width: int, height: int) -> str | None:
        """Why an image of this size, before it is fitted, is refused."""
        sizes = self._gate.sizes
        longer, most, least = max(width, height), max(sizes.largest), max(sizes.smallest)
        if longer > sizes.factor * most:
            against = f"{longer / most:.3g} times the largest training image"
            known = sizes.largest
        elif longer * sizes.factor < least:
            against = f"{least / longer:.3g} times smaller than the smallest training image"
            known = sizes.smallest
        else:
            return None
        return f"{GATE_WORDS['size']}: {width}×{height} pixels, {against} ({known[0]}×{known[1]})"

    def refusals(self, images: NDArray[np.uint8], features: NDArray[np.float32] | None) -> list[str | None]:
        """Why each image is refused, by its look or by what the network sees in it.

        Args:
            images: (N, H, W, C), fitted.
            features: (N, D) of the network; needed where `needs_features`.
        """
        if len(images) == 0:
            return []
        values = measure_look(images)
        reasons: list[str | None] = [None] * len(images)
        if self._look is not None:
            known = values[:, self._columns]
            distances = self._look.distances(known)
            for row in np.flatnonzero(np.abs(distances).max(axis=1) > self._look.threshold):
                particulars = _say_look(self._look, known[row], distances[row])
                reasons[row] = self._say_unlike("look", particulars, images[row])
        part = self._gate.features
        if part is not None and features is not None:
            seen = part.distances(features)
            for far in np.flatnonzero(seen > part.threshold):
                particulars = _say_features(seen[far], part)
                reasons[far] = reasons[far] or self._say_unlike("features", particulars, images[far])
        for fact, place in self._facts(values, images.shape[3]):
            reasons[place] = fact
        return reasons

    def _facts(self, values: Floats, channels: int) -> list[tuple[str, int]]:
        """What needs no threshold, and is said first: blank, without colour, in colour."""
        found: list[tuple[str, int]] = []
        if self._gate.grey is not None and channels == 3:
            grey = is_grey(values)
            if self._gate.grey:
                word = f"{GATE_WORDS['in_colour']}: the training images are in shades of grey"
            else:
                word = f"{GATE_WORDS['grey']}: the training images are in colour"
            found += [(word, int(row)) for row in np.flatnonzero(grey != self._gate.grey)]
        if not self._gate.blank:
            word = f"{GATE_WORDS['blank']}: it is all of one shade"
            found += [(word, int(row)) for row in np.flatnonzero(is_blank(values))]
        return found

    def _say_unlike(self, kind: str, particulars: str, image: NDArray[np.uint8]) -> str:
        """Why an image is refused: what it is itself, and before that whether its negative looks like training."""
        if not self._is_inverted(image):
            return f"{GATE_WORDS[kind]}: {particulars}"
        return f"{GATE_WORDS['inverted']}: its negative is not unlike the training images, and as it is: {particulars}"

    def _is_inverted(self, image: NDArray[np.uint8]) -> bool:
        if self._look is None:
            return False
        both = measure_look(np.stack([image, 255 - image]))[:, self._columns]
        itself, negative = np.abs(self._look.distances(both)).max(axis=1)
        return bool(negative <= min(_TYPICAL, itself / _NEARER))


def _say_look(look: Look, values: Floats, distances: Floats) -> str:
    """The statistic that lies farthest out, in words with its value and what is accepted."""
    single = distances[:-1]
    place = int(np.abs(single).argmax())
    if abs(single[place]) <= look.threshold:
        return "light, colour and texture are together as in no training image"
    name = list(look.statistics)[place]
    high = bool(single[place] > 0)
    shown, write = _SHOWN[name]
    tail = look.statistics[name]
    low = write(tail.middle + (tail.low - tail.middle) * look.threshold)
    top = write(tail.middle + (tail.high - tail.middle) * look.threshold)
    return f"{_FAR[name][high]} ({shown} {write(values[place])}, accepted {low} to {top})"


def _say_features(distance: float, features: Features) -> str:
    times = distance / features.threshold
    return f"{times:.3g} times as far from the training images as it may be"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _part(value: float) -> str:
    return f"{min(1.0, max(0.0, value)):.0%}"


def _share(value: float) -> str:
    return _part(np.exp(value) - SHARE_ADDED)


def _saturation(value: float) -> str:
    return f"{max(0.0, np.exp(value) - SHARE_ADDED):.2f}"


def _ratio(value: float) -> str:
    return f"{np.exp(value):.2f}"


_SHOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "brightness": ("brightness", _number),
    "contrast": ("contrast", _number),
    "skew": ("skewness", _number),
    "near_black": ("black", _share),
    "near_white": ("white", _share),
    "colour": ("saturation", _saturation),
    "red_green": ("red minus green", _number),
    "blue_green": ("blue minus green", _number),
    "colour_noise": ("noise of colour", _ratio),
    "sharp": ("sharpness", _ratio),
    "fine": ("fine detail", _ratio),
    "coarse": ("coarse detail", _ratio),
    "flat": ("uniform area", _part),
}
_FAR: dict[str, tuple[str, str]] = {
    "brightness": ("far darker", "far brighter"),
    "contrast": ("far less contrast", "far more contrast"),
    "skew": ("a few dark places on an even ground", "a few bright places on an even ground"),
    "near_black": ("far less black", "far more black"),
    "near_white": ("far less white", "far more white"),
    "colour": ("far paler", "far more colourful"),
    "red_green": ("another tint, less red", "another tint, less green"),
    "blue_green": ("another tint, less blue", "another tint, less green"),
    "colour_noise": ("its colours hardly change from place to place", "noise of colour"),
    "sharp": ("blurred", "noise, or far sharper"),
    "fine": ("blurred, or far less detail", "noise, or far more detail"),
    "coarse": ("far less structure", "far more structure"),
    "flat": ("grain everywhere", "large uniform areas, as in drawings and screenshots"),
}
"""What lies below training, and what above it."""


def judge(
    gate: Gate, images: NDArray[np.uint8], sizes: Sequence[tuple[int, int]], features: NDArray[np.float32] | None
) -> list[str | None]:
    """Why each of many images is refused, as `Predictor` would; a memory map is read chunk by chunk.

    Args:
        gate: of the bundle.
        images: (N, H, W, C), fitted.
        sizes: width and height of each before that.
        features: (N, D), where the gate has a part for them.
    """
    acting, reasons = InputGate(gate), []
    for start in range(0, len(images), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = None if features is None else features[rows]
        reasons += acting.refusals(np.asarray(images[rows]), part)
    of_size = [acting.size_refusal(width, height) for width, height in sizes]
    return [size or other for size, other in zip(of_size, reasons, strict=True)]


_CHUNK = 1024
