"""ONNX Runtime with an end: a network is checked before it is loaded, and may ask for half of the machine's memory.

All sessions of the process share one arena, which refuses what is more. No constant is computed ahead when a network is
loaded, since that would happen outside of the arena.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import numpy as np
from numpy.typing import NDArray

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when it is imported: from 1.29 on it reports models to its makers
import onnxruntime

from clearmargin.bundle.onnx_check import INPUT, CheckedNetwork
from clearmargin.errors import BundleError

onnxruntime.disable_telemetry_events()  # where somebody imported it before
_SHARE_OF_MEMORY = 0.5
_UNKNOWN_MEMORY_BYTES = 8 * 2**30


def open_network(network: CheckedNetwork, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session for the network, on the CPU.

    Args:
        network: what `check_onnx` has passed.
        threads: of one run; as many as there are cores when 0.

    Raises:
        BundleError: it cannot be loaded.
    """
    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised as well
    options.add_session_config_entry("session.use_env_allocators", "1")
    # A thread that waits in a loop takes the core from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            network.content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
    except Exception as error:  # ONNX Runtime's errors have no common root below Exception
        text = " ".join(str(error).split())[:200]
        raise BundleError(f"{network.name}: ONNX Runtime cannot load it ({text}).") from None


def run_network(
    session: onnxruntime.InferenceSession, batch: NDArray[np.uint8], name: str, *, outputs: Sequence[str] | None = None
) -> list[NDArray[np.float32]]:
    """The outputs for a batch, all when None; by halves where it does not fit into memory as a whole.

    Raises:
        BundleError: the network fails, or one image needs more memory than it may have.
    """
    try:
        computed: list[NDArray[np.float32]] = session.run(outputs, {INPUT: batch})
    except Exception as error:  # as above
        text = " ".join(str(error).split())
        if "memory" in text and len(batch) > 1:
            halves = [run_network(session, half, name, outputs=outputs) for half in np.array_split(batch, 2)]
            return [np.concatenate(parts) for parts in zip(*halves, strict=True)]
        what = "needs more memory than it may have" if "memory" in text else "fails"
        raise BundleError(f"{name}: the network {what} ({text[-200:]}). Make the bundle anew.") from None
    return computed


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
