"""Where the packed images live while a network trains: in the memory of the device if they fit, else where they are.

A GPU takes a batch out of its own memory without waiting for the bus; 277,524 patches of 50 × 50 are 2.1 GB there.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearmargin.errors import ConfigError
from clearmargin.images.fields import Fields

_SHARE = 0.5
"""Of the free memory of a device; the rest is for the network, its gradients and a batch's features."""
_CHUNK_BYTES = 64 * 2**20


def place_images(
    images: NDArray[np.uint8] | Fields, device: torch.device, where: Literal["auto", "device", "host"]
) -> Tensor | None:
    """(N, H, W, C) uint8, all of the images in the memory of the device; None where they stay and batches are sent.

    Args:
        images: the packed images; fields of view are cut from them batch by batch, and stay.
        device: that trains.
        where: `auto` places them on a GPU with room for them.

    Raises:
        ConfigError: `device` was asked for, and they are fields, or too large for what is free there.
    """
    if where == "host" or (where == "auto" and device.type == "cpu"):
        return None
    if isinstance(images, Fields):
        if where == "device":
            raise ConfigError("fields of view are cut batch by batch; set train.images_on to auto or host.")
        return None
    free = _free_bytes(device)
    if free is not None and images.nbytes > _SHARE * free:
        if where == "device":
            raise ConfigError(
                f"the packed images take {images.nbytes / 1e9:.1f} GB and {device} has {free / 1e9:.1f} GB free; "
                "set train.images_on to auto or host."
            )
        return None
    placed = torch.empty(images.shape, dtype=torch.uint8, device=device)
    step = max(1, _CHUNK_BYTES // max(1, images[:1].nbytes))
    for start in range(0, len(images), step):
        # A copy: torch does not take a map that cannot be written to.
        placed[start : start + step] = torch.from_numpy(np.array(images[start : start + step]))
    return placed


def _free_bytes(device: torch.device) -> int | None:
    """What is free on a GPU; None elsewhere, where it is not known."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
