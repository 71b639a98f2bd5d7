"""What training makes of images, to be looked at: the very random changes of the loop, without the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from clearmargin.models.contract import scale_pixels
from clearmargin.settings import AugmentSettings
from clearmargin.shown import Shown
from clearmargin.training.augment import augment
from clearmargin.training.batches import derive_seed


@dataclass(frozen=True, slots=True, eq=False)
class AugmentedImages(Shown):
    """Packed images, and each of them changed at random several times."""

    originals: NDArray[np.uint8]
    """(N, H, W, C), as the network takes them."""
    changed: NDArray[np.uint8]
    """(N, K, H, W, C)."""
    labels: NDArray[np.int8]
    """(N,)"""
    recipe: str
    settings: AugmentSettings

    def __repr__(self) -> str:
        n, times = self.changed.shape[:2]
        return f"{n} images, each changed {times} times, by recipe {self.recipe}. {self.describe()}"

    @property
    def changes(self) -> dict[str, float | bool]:
        """The changes that are on."""
        plain = AugmentSettings()
        return {name: value for name, value in self.settings if value != getattr(plain, name)}

    def describe(self) -> str:
        """Which changes are on, and how strong.

        >>> nothing = np.zeros((0, 0, 8, 8, 3), np.uint8)
        >>> AugmentedImages(nothing[:, 0:0].reshape(0, 8, 8, 3), nothing, np.zeros(0, np.int8), "x",
        ...     AugmentSettings(zoom=0.1, vertical_flip=True)).describe()
        'Changes: zoom 0.1, vertical flip.'
        """
        if not self.changes:
            return "This recipe changes nothing: training sees each image as it is."
        words = [name.replace("_", " ") + ("" if on is True else f" {on:g}") for name, on in self.changes.items()]
        return f"Changes: {', '.join(words)}."


def augment_images(
    images: NDArray[np.uint8],
    labels: NDArray[np.int8],
    settings: AugmentSettings,
    *,
    times: int,
    seed: int,
    recipe: str,
) -> AugmentedImages:
    """The images as training would see them in `times` epochs.

    Args:
        images: (N, H, W, C), packed.
        labels: (N,)
        settings: of the changes, adapted to the images.
        times: how often each is changed.
        seed: of the changes.
        recipe: whose settings they are, for the record.
    """
    x = scale_pixels(torch.from_numpy(images))
    rounds = []
    for number in range(times):
        changed = augment(x, settings, torch.Generator().manual_seed(derive_seed(seed, number)))
        rounds.append((changed * 255).round_().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    empty = np.zeros((len(images), 0, *images.shape[1:]), np.uint8)
    return AugmentedImages(images, np.stack(rounds, axis=1) if rounds else empty, labels, recipe, settings)
