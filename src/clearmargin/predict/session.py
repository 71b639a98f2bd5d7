"""The network under ONNX Runtime: packed images in, logits and features out, with memory for a few batches.

A network is checked before it is loaded, and may ask for half of the machine's memory (`bundle/runtime.py`).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clearmargin.bundle.onnx_check import check_onnx
from clearmargin.bundle.runtime import open_network, run_network
from clearmargin.errors import BundleError
from clearmargin.images.fields import Fields

MAX_BATCH = 32
"""More are slower on the cores that were measured, because what the layers hand on no longer stays in the cache."""
_MAX_BATCH_BYTES = 2**21
_MAX_BYTES, _MAX_RUNS = 2**24, 8
"""Of the batches that run side by side: what the layers hold of them bounds the memory."""


class Runs(Protocol):
    """What a predictor asks for: a session, or what stands before one, as where several callers share its runs."""

    image_shape: tuple[int, int, int]
    batch: int
    has_features: bool

    def logits(self, images: NDArray[np.uint8] | Fields) -> NDArray[np.float32]:
        """As `Session.logits`."""
        ...

    def describe(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `Session.describe`."""
        ...


class Session:
    """Runs the ONNX file of a bundle on the CPU, from several threads at once. Bounded by its matrix rate.

    `image_shape` is (H, W, C) of the images that it takes, `batch` how many it takes at a time: fewer of
    large ones. `has_features` is False for the files of early versions, which give logits only.
    """

    def __init__(self, content: bytes, *, name: str = "model.onnx") -> None:
        network = check_onnx(content, name)
        self._name, self._outputs, self.image_shape = name, network.outputs, network.image_shape
        self.has_features = len(network.outputs) == 2
        size, cores = math.prod(self.image_shape), os.cpu_count() or 1
        self.batch = max(1, min(MAX_BATCH, _MAX_BATCH_BYTES // size))
        self._at_once = max(1, min(_MAX_RUNS, cores, _MAX_BYTES // (self.batch * size)))
        # Threads that share one run wait for each other at every layer.
        self._session = open_network(network, threads=max(1, cores // self._at_once))
        self._runs = threading.BoundedSemaphore(self._at_once)

    def logits(self, images: NDArray[np.uint8] | Fields) -> NDArray[np.float32]:
        """(N,) logits of malignant.

        Args:
            images: (N, H, W, C), packed by the bundle's preprocessing; a memory map is read batch by batch.

        Raises:
            BundleError: a logit is no finite number, on which nothing can be decided.
        """
        return self._run(images, self._outputs[:1])[0] if len(images) else np.empty(0, dtype=np.float32)

    def describe(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(N,) logits of malignant and (N, D) features: the means over places of the last feature map.

        Args:
            images: (N, H, W, C), N at least 1, packed by the bundle's preprocessing; a memory map is read by batches.

        Raises:
            BundleError: the file gives no features, or a value is no finite number.
        """
        if not self.has_features:
            raise BundleError(f"{self._name}: gives no features, as files of early versions do. Train the model anew.")
        logits, features = self._run(images, self._outputs)
        return logits, features

    def _run(self, images: NDArray[np.uint8] | Fields, names: Sequence[str]) -> list[NDArray[np.float32]]:
        starts = range(0, len(images), self.batch)

        def run(start: int) -> list[NDArray[np.float32]]:
            batch = np.ascontiguousarray(images[start : start + self.batch])
            with self._runs:
                return run_network(self._session, batch, self._name, outputs=names)

        if len(starts) == 1 or self._at_once == 1:
            outputs = [run(start) for start in starts]
        else:
            with ThreadPoolExecutor(self._at_once) as pool:
                outputs = list(pool.map(run, starts))
        joined = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        for values in joined:
            if not np.isfinite(values).all():
                raise BundleError(
                    f"{self._name}: the network gives {values[~np.isfinite(values)][0]} for an image. Retrain it."
                )
        return joined
