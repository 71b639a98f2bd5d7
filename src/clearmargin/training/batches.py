"""Which images make up each batch, and how they get from the store to the device.

Everything random is a function of (seed, epoch, batch), never of what was drawn before: a run that is
resumed in the middle of an epoch draws what it would have drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearmargin.images.fields import Fields


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """The packed images with the rows to train and validate on.

    `images` is (N, H, W, C) uint8, a memory map, an array or fields; `labels` is (N,); `train` and `validation`
    are row numbers.
    """

    images: NDArray[np.uint8] | Fields
    labels: NDArray[np.int8]
    train: NDArray[np.intp]
    validation: NDArray[np.intp]


def derive_seed(*parts: int) -> int:
    """A 63-bit seed mixed from whole numbers, the same on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def epoch_order(
    rows: NDArray[np.intp],
    labels: NDArray[np.int8],
    *,
    balance: Literal["none", "weights", "sampler"],
    seed: int,
    epoch: int,
) -> NDArray[np.intp]:
    """(len(rows),) the rows in the order of this epoch.

    With `sampler` each class makes up half of it: the rarer class is repeated, the other is thinned, both
    without repeating an image before all of its class were drawn.
    """
    generator = np.random.default_rng([seed, epoch])
    if balance != "sampler":
        return generator.permutation(rows)
    half = len(rows) // 2
    parts = []
    for label, size in ((0, len(rows) - half), (1, half)):
        members = rows[labels[rows] == label]
        rounds = [generator.permutation(members) for _ in range(-(-size // len(members)))]
        parts.append(np.concatenate(rounds)[:size])
    return generator.permutation(np.concatenate(parts))


def batch_bounds(n: int, size: int) -> list[tuple[int, int]]:
    """Start and stop of each batch of an epoch of n images.

    A single image that would be left over joins the batch before it: batch normalisation has nothing to
    normalise in a batch of one.

    >>> batch_bounds(10, 4), batch_bounds(9, 4)
    ([(0, 4), (4, 8), (8, 10)], [(0, 4), (4, 9)])
    """
    starts = list(range(0, n, size))
    if size > 1 and n > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def gather(images: NDArray[np.uint8] | Fields, rows: NDArray[np.intp]) -> Tensor:
    """(B, H, W, C) uint8 copies of the images in these rows."""
    return torch.from_numpy(images[rows])
