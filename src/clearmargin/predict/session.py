"""The network under ONNX Runtime: packed images in, logits and features out. Memory is bounded by one batch.

A network is checked before ONNX Runtime sees it (`bundle/onnx_check.py`). What it then asks for while it runs is
bounded too: all sessions of the process share one arena, which refuses what is more than half of this machine's memory,
and no constant is computed ahead, outside of that arena.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from functools import cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from clearmargin.bundle.onnx_check import check_onnx
from clearmargin.errors import BundleError
from clearmargin.images.fields import Fields

MAX_BATCH = 256
_MAX_BATCH_BYTES = 2**24
_SHARE_OF_MEMORY = 0.5
_UNKNOWN_MEMORY_BYTES = 8 * 2**30


class Session:
    """Runs the ONNX file of a bundle on the CPU. Bounded by the matrix rate of the processor.

    `image_shape` is (H, W, C) of the images that it takes, `batch` how many it takes at a time: fewer of
    large ones. `has_features` is False for the files of early versions, which give logits only.
    """

    def __init__(self, content: bytes, *, name: str = "model.onnx") -> None:
        check_onnx(content, name)
        _bound_memory()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised as well
        options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
            )
        except Exception as error:  # ONNX Runtime's errors have no common root below Exception
            text = " ".join(str(error).split())[:200]
            raise BundleError(f"{name}: ONNX Runtime cannot load it ({text}).") from None
        self._name = name
        self._input, self._outputs, self.image_shape = _check_signature(self._session, name)
        self.has_features = len(self._outputs) == 2
        self.batch = max(1, min(MAX_BATCH, _MAX_BATCH_BYTES // math.prod(self.image_shape)))

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

    def _run(self, images: NDArray[np.uint8] | Fields, names: list[str]) -> list[NDArray[np.float32]]:
        starts = range(0, len(images), self.batch)
        batches = (np.ascontiguousarray(images[start : start + self.batch]) for start in starts)
        outputs = [self._run_batch(batch, names) for batch in batches]
        joined = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        for values in joined:
            if not np.isfinite(values).all():
                raise BundleError(
                    f"{self._name}: the network gives {values[~np.isfinite(values)][0]} for an image. Retrain it."
                )
        return joined

    def _run_batch(self, batch: NDArray[np.uint8], names: list[str]) -> list[NDArray[np.float32]]:
        """The outputs for a batch, by halves where it does not fit into memory as a whole."""
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(names, {self._input: batch})
        except Exception as error:  # as above
            text = " ".join(str(error).split())
            if "memory" in text and len(batch) > 1:
                halves = [self._run_batch(half, names) for half in np.array_split(batch, 2)]
                return [np.concatenate(parts) for parts in zip(*halves, strict=True)]
            what = "needs more memory than it may have" if "memory" in text else "fails"
            raise BundleError(f"{self._name}: the network {what} ({text[-200:]}). Make the bundle anew.") from None
        return outputs


@cache
def _bound_memory() -> None:
    """Lets every session from now on take its memory from one arena that has an end; once in a process."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # as on Windows
        physical = _UNKNOWN_MEMORY_BYTES
    limits = onnxruntime.OrtArenaCfg({"max_mem": int(_SHARE_OF_MEMORY * physical), "arena_extend_strategy": -1})
    kind = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    with suppress(Exception):  # another part of the process has set one up, which is then shared
        onnxruntime.create_and_register_allocator(kind, limits)


def _check_signature(session: onnxruntime.InferenceSession, name: str) -> tuple[str, list[str], tuple[int, int, int]]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    given = [(output.type, len(output.shape)) for output in outputs]
    wanted = [("tensor(float)", 1), ("tensor(float)", 2)]
    if [each.type for each in inputs] == ["tensor(uint8)"] and given in (wanted[:1], wanted):
        match inputs[0].shape:
            case [_, int(height), int(width), int(channels)]:
                return inputs[0].name, [output.name for output in outputs], (height, width, channels)
    raise BundleError(
        f"{name}: is not a network from uint8 images (B, H, W, C) to logits (B,) and features (B, D). "
        "Make the bundle anew."
    )
