"""The network under ONNX Runtime: packed images in, logits out. Memory is bounded by the batches under way."""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from clearmargin.errors import BundleError
from clearmargin.images.fields import Fields

MAX_BATCH = 32
"""More are slower on the cores that were measured, because what the layers hand on no longer stays in the cache."""
_MAX_BATCH_BYTES = 2**21
_MAX_BYTES, _MAX_RUNS = 2**24, 8
"""Of the batches that run side by side: what the layers hold of them bounds the memory."""


class Session:
    """Runs the ONNX file of a bundle on the CPU, from several threads at once. Bounded by its matrix rate.

    `image_shape` is (H, W, C) of the images that it takes, `batch` how many it takes at a time: fewer of
    large ones.
    """

    def __init__(self, content: bytes, *, name: str = "model.onnx") -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # A thread that waits in a loop takes the core from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common root below Exception
            text = " ".join(str(error).split())[:200]
            raise BundleError(f"{name}: ONNX Runtime cannot load it ({text}).") from None
        self._name = name
        self._input, self.image_shape = _check_signature(self._session, name)
        size = math.prod(self.image_shape)
        self.batch = max(1, min(MAX_BATCH, _MAX_BATCH_BYTES // size))
        self._at_once = max(1, min(_MAX_RUNS, os.cpu_count() or 1, _MAX_BYTES // (self.batch * size)))
        self._runs = threading.BoundedSemaphore(self._at_once)

    def logits(self, images: NDArray[np.uint8] | Fields) -> NDArray[np.float32]:
        """(N,) logits of malignant.

        Args:
            images: (N, H, W, C), packed by the bundle's preprocessing; a memory map is read batch by batch.

        Raises:
            BundleError: a logit is no finite number, on which nothing can be decided.
        """
        starts = range(0, len(images), self.batch)
        if not starts:
            return np.empty(0, dtype=np.float32)

        def run(start: int) -> NDArray[np.float32]:
            batch = np.ascontiguousarray(images[start : start + self.batch])
            with self._runs:
                outputs: list[NDArray[np.float32]] = self._session.run(None, {self._input: batch})
            return outputs[0]

        if len(starts) == 1 or self._at_once == 1:
            logits: NDArray[np.float32] = np.concatenate([run(start) for start in starts])
        else:
            with ThreadPoolExecutor(self._at_once) as pool:
                logits = np.concatenate(list(pool.map(run, starts)))
        if not np.isfinite(logits).all():
            raise BundleError(
                f"{self._name}: the network gives {logits[~np.isfinite(logits)][0]} for an image. Retrain it."
            )
        return logits


def _check_signature(session: onnxruntime.InferenceSession, name: str) -> tuple[str, tuple[int, int, int]]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) == len(outputs) == 1 and inputs[0].type == "tensor(uint8)" and len(outputs[0].shape) == 1:
        match inputs[0].shape:
            case [_, int(height), int(width), int(channels)]:
                return inputs[0].name, (height, width, channels)
    raise BundleError(f"{name}: is not a network from uint8 images (B, H, W, C) to logits (B,). Make the bundle anew.")
