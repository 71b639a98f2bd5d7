"""The network under ONNX Runtime: packed images in, logits out."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from clearmargin.errors import BundleError

BATCH = 256


class Session:
    """Runs the ONNX file of a bundle on the CPU. Bounded by the matrix rate of the processor."""

    def __init__(self, content: bytes, *, name: str = "model.onnx") -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common root below Exception
            text = " ".join(str(error).split())[:200]
            raise BundleError(f"{name}: ONNX Runtime cannot load it ({text}).") from None
        self._input = self._session.get_inputs()[0].name

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N,) logits of malignant.

        Args:
            images: (N, H, W, C), packed by the bundle's preprocessing; a memory map is read batch by batch.
        """
        batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        if not batches:
            return np.empty(0, dtype=np.float32)
        outputs = [self._session.run(None, {self._input: np.ascontiguousarray(batch)})[0] for batch in batches]
        return np.concatenate(outputs)
