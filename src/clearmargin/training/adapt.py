"""A recipe's settings adapted to the images at hand: how long to train, and which random changes suit them.

A function of the settings and the images alone, so that a run that is resumed gets what it had. What the user set
by hand is not touched: `config.load_recipe` has seen to that. Data of thousands of colour images keep the recipe
as it is written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clearmargin.settings import RunConfig
from clearmargin.training.batches import batch_bounds
from clearmargin.types import Content

_SAMPLE = 256
_GREYEST_COLOUR = 3.0  # IDC patches have 54 in the median, ultrasound with coloured marks at most 1.5


def adapt_to_images(config: RunConfig, *, images: int, grey: bool) -> RunConfig:
    """The settings that these training images are trained with, in which there is nothing left to adapt.

    Args:
        config: as the recipe and the user wrote it.
        images: how many there are to train on.
        grey: they are in shades of grey.

    >>> config = RunConfig(train={"epochs": 20, "batch_size": 50, "min_steps": 100})
    >>> [adapt_to_images(config, images=n, grey=False).train.epochs for n in (10, 150, 250, 10_000)]
    [100, 34, 20, 20]
    """
    steps = len(batch_bounds(images, config.train.batch_size))
    epochs = max(config.train.epochs, -(-config.train.min_steps // steps))
    augment = config.augment_grey if grey and config.augment_grey is not None else config.augment
    train = config.train.model_copy(update={"epochs": epochs, "min_steps": 0})
    return config.model_copy(update={"train": train, "augment": augment, "augment_grey": None})


def describe_adapted(config: RunConfig, adapted: RunConfig) -> list[str]:
    """What was changed, in sentences; none for large data in colour."""
    told = []
    if adapted.train.epochs != config.train.epochs:
        told.append(
            f"Few images: {adapted.train.epochs:,} epochs instead of {config.train.epochs:,}, for at least "
            f"{config.train.min_steps:,} steps (train.min_steps)."
        )
    if adapted.augment != config.augment:
        told.append("Images in shades of grey: changed at random as augment_grey says, not augment.")
    return told


def are_grey(images: NDArray[np.uint8], *, content: Content | None = None) -> bool:
    """Whether images are in shades of grey: as their content says, else as the pixels of most of them do.

    Args:
        images: (N, H, W, C) uint8, at least one; some spread over all are looked at.
        content: what they show, where it is known. A mark in colour burned into an ultrasound image changes nothing.

    >>> are_grey(np.full((2, 8, 8, 3), 90, np.uint8)), are_grey(np.full((2, 8, 8, 3), (200, 120, 170), np.uint8))
    (True, False)
    """
    if content is not None:
        return content != "histology"
    rows = np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(np.intp))
    seen = images[rows].astype(np.int16)
    colour = (seen.max(axis=3) - seen.min(axis=3)).mean(axis=(1, 2))
    return bool(np.median(colour) < _GREYEST_COLOUR)
