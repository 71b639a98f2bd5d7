"""What the real Keras makes of a file, in a child process; and that process itself, run as a module.

Keras is only ever shown a file that was accepted here: no code, no class of others, no array that its description does
not name. It may take two minutes and then is stopped.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TIMEOUT_S = 120
_PACKAGES = str(Path(__file__).parents[3])


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs (N, K) of the real Keras, or why there are none; `installed` is False where there is no Keras."""

    outputs: NDArray[np.float32] | None
    reason: str = ""
    installed: bool = True


def ask_keras(path: Path, pixels: NDArray[np.float32], *, timeout_s: float = _TIMEOUT_S) -> Answer:
    """What the real Keras gives for these inputs.

    Args:
        path: of a file that `open_keras` has accepted.
        pixels: (N, H, W, C), or (N, C, H, W) for a network whose channels come first; scaled as the network wants them.
        timeout_s: after which Keras is stopped.
    """
    if importlib.util.find_spec("keras") is None:
        return Answer(None, "Keras is not installed", installed=False)
    environment = os.environ | {
        "KERAS_BACKEND": os.environ.get("KERAS_BACKEND") or "torch",
        "PYTHONPATH": os.pathsep.join(filter(None, [_PACKAGES, os.environ.get("PYTHONPATH", "")])),
    }
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "pixels.npy", Path(folder) / "outputs.npy"
        np.save(given, pixels, allow_pickle=False)
        arguments = [str(path.absolute()), str(given), str(made)]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-W", "ignore", "-m", "clearmargin.bundle.keras.real", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(None, f"Keras took longer than {timeout_s:g} s")
        if done.returncode != 0 or not made.is_file():
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            return Answer(None, f"Keras cannot open it ({lines[-1][:150] if lines else 'it gave no reason'})")
        return Answer(np.load(made, allow_pickle=False).astype(np.float32))


def _main(path: str, given: str, made: str) -> None:
    import keras  # noqa: PLC0415  (not a library of ours)

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    outputs = model.predict(np.load(given, allow_pickle=False), batch_size=8, verbose=0)
    np.save(made, np.asarray(outputs, dtype=np.float32), allow_pickle=False)


if __name__ == "__main__":
    _main(*sys.argv[1:])
