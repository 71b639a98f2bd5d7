"""The real Keras, for oracles: imported on request only, under the torch backend."""

from __future__ import annotations

import os
import warnings
from typing import Any


def import_keras() -> Any:
    """The module; its own warnings at import are not ours."""
    os.environ["KERAS_BACKEND"] = "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

    return keras
