"""The pooled features of a frozen network: computed once for each image and view, kept in the cache folder.

They lie beside the store of the images, named by the hash of images, preprocessing, network and views, so that every
fold, seed and head finds them. A killed run goes on where it stopped. Bounded by the matrix rate of the processor.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from clearmargin.data.chunks import Map, checksum, hold, open_array, open_partial
from clearmargin.data.store import Store
from clearmargin.errors import DataError
from clearmargin.models.backbones import Backbone
from clearmargin.models.contract import scale_pixels
from clearmargin.models.weights import tensors_sha256
from clearmargin.types import Listener

_LAYOUT = 1
_CHUNK = 32
"""Images that go through the network together. Always the same ones, so that features do not depend on stops."""


@dataclass(frozen=True, slots=True)
class TrainingFeatures:
    """Pooled features in the place of images: `features` is (N, views, width) float16, the rest as `TrainingImages`.

    View 0 is the image as it is.
    """

    features: NDArray[np.float16]
    labels: NDArray[np.int8]
    train: NDArray[np.intp]
    validation: NDArray[np.intp]

    def gather(self, rows: NDArray[np.intp], generator: torch.Generator | None) -> Tensor:
        """(B, width, 1, 1) float32 of one view each: drawn by the generator, or view 0 without one."""
        views = np.zeros(len(rows), dtype=np.intp)
        if generator is not None and self.features.shape[1] > 1:
            drawn = torch.randint(self.features.shape[1], (len(rows),), generator=generator, device=generator.device)
            views = drawn.cpu().numpy()
        return torch.from_numpy(self.features[rows, views].astype(np.float32))[:, :, None, None]

    def spread(self) -> tuple[Tensor, Tensor]:
        """(width,) mean and standard deviation of each feature over the views of the training images."""
        width, n = self.features.shape[2], len(self.train) * self.features.shape[1]
        total, square = np.zeros(width), np.zeros(width)
        blocks = np.array_split(np.sort(self.train), max(1, len(self.train) // 1024))
        for rows in blocks:
            total += self.features[rows].sum(axis=(0, 1), dtype=np.float64)
        mean = total / n
        for rows in blocks:
            square += ((self.features[rows].astype(np.float64) - mean) ** 2).sum(axis=(0, 1))
        return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(square / n)).float()


def load_features(
    backbone: Backbone, store: Store, *, name: str, views: int, listener: Listener = Listener()
) -> NDArray[np.float16]:
    """(N, views, width) features of the stored images, computed now or found in the cache folder.

    Args:
        backbone: on the CPU; its head is not used.
        store: the images; features are kept beside it.
        name: of the backbone.
        views: 1, or 8 for all flips and turns.
        listener: hears the progress.

    Raises:
        DataError: the disk is full or not writable, or a feature is too large for 16 bits.
    """
    listener.stage("features")
    final = store.path.with_name(f"{store.path.name}-{_features_key(backbone, name, views)}")
    shape = (len(store), views, backbone.trunk.width)
    try:
        with hold(final, listener, "Another run is computing the same features; waiting for it."):
            found = open_array(final / "features.npy", "r", shape) if (final / "index.json").is_file() else None
            if found is None:
                _compute(backbone, store.images, final, shape, listener)
                found = np.load(final / "features.npy", mmap_mode="r")
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else f"cannot be written ({error.strerror or error})"
        raise DataError(
            f"{final.parent}: {what}; the features need {math.ceil(2 * math.prod(shape) / 2**20):,} MB. "
            "Free some space, or set CLEARMARGIN_CACHE to a folder on another disk."
        ) from None
    return found


def turn(x: Tensor, view: int) -> Tensor:
    """One of the eight flips and turns of images (B, C, H, W); view 0 is the image itself."""
    flipped = [dimension for dimension, bit in ((3, 1), (2, 2)) if view & bit]
    x = x.transpose(2, 3) if view & 4 else x
    return x.flip(flipped) if flipped else x


def _features_key(backbone: Backbone, name: str, views: int) -> str:
    # Of the weights themselves: the same file under another name gives the same features.
    built = {
        "layout": _LAYOUT,
        "name": name,
        "input_px": backbone.input_px,
        "views": views,
        "arguments": dict(backbone.options.arguments),
    }
    weights = tensors_sha256(
        {name: tensor for name, tensor in backbone.state_dict().items() if not name.startswith("head.")}
    )
    return hashlib.sha256(f"{json.dumps(built, sort_keys=True)}{weights}".encode()).hexdigest()[:32]


def _compute(
    backbone: Backbone, images: NDArray[np.uint8], final: Path, shape: tuple[int, int, int], listener: Listener
) -> None:
    starts = range(0, shape[0], _CHUNK)
    partial = final.with_name(f"{final.name}.partial")
    features, marks = open_partial(partial, "features", shape, np.float16, len(starts))
    fabric = Fabric(devices=1, precision="32-true")
    network = backbone.to(fabric.device).eval()
    for number, start in enumerate(starts):
        rows = slice(start, min(start + _CHUNK, shape[0]))
        if marks[number] == 0 or checksum(features[rows]) != marks[number]:
            features[rows] = _of_chunk(network, fabric.to_device(torch.from_numpy(np.array(images[rows]))), shape[1])
            marks[number] = checksum(features[rows])
        listener.advance(rows.stop, shape[0])
    backbone.to("cpu")
    _finish(features, marks, partial, final)


def _of_chunk(network: Backbone, images: Tensor, views: int) -> NDArray[np.float16]:
    x = scale_pixels(images)
    with torch.inference_mode():
        pooled = [
            network.pool(network.forward_features(turn(x, view).contiguous(memory_format=torch.channels_last)))
            for view in range(views)
        ]
    block = torch.stack(pooled, dim=1).half()
    if not bool(block.isfinite().all()):
        raise DataError(
            "a feature of the network is too large for 16 bits, or no number; "
            "take other weights, or train on with --set transfer.mode=finetune."
        )
    values: NDArray[np.float16] = block.cpu().numpy()
    return values


def _finish(features: Map, marks: Map, partial: Path, final: Path) -> None:
    features.flush()
    marks.flush()
    index: dict[str, Any] = {"layout": _LAYOUT, "shape": features.shape}
    (partial / "index.json").write_text(json.dumps(index), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
