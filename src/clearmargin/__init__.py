"""Train, check and run classifiers of breast images whose numbers hold on the next patient.

The public names below are resolved when they are first used, so that importing the package is cheap.
For research and education; not a medical device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearmargin.api import (
        audit,
        calibrate,
        compare,
        evaluate,
        explain,
        export,
        import_keras,
        load_explainer,
        optimism,
        show_augmentations,
        split,
        sweep,
        train,
    )
    from clearmargin.data.phantom import PhantomSettings, write_phantom
    from clearmargin.data.sources import SOURCES
    from clearmargin.display.live import LiveCurves
    from clearmargin.errors import ClearmarginError
    from clearmargin.explanation.explainer import Explainer
    from clearmargin.models import MODELS
    from clearmargin.predict.predictor import Predictor, load_bundle
    from clearmargin.types import Listener
    from clearmargin.web.client import Client
    from clearmargin.workflow import Run

__version__ = "0.1.0"

_HOME = {
    "train": "clearmargin.api",
    "audit": "clearmargin.api",
    "split": "clearmargin.api",
    "evaluate": "clearmargin.api",
    "calibrate": "clearmargin.api",
    "import_keras": "clearmargin.api",
    "optimism": "clearmargin.api",
    "sweep": "clearmargin.api",
    "compare": "clearmargin.api",
    "export": "clearmargin.api",
    "show_augmentations": "clearmargin.api",
    "explain": "clearmargin.api",
    "load_explainer": "clearmargin.api",
    "Explainer": "clearmargin.explanation.explainer",
    "load_bundle": "clearmargin.predict.predictor",
    "Predictor": "clearmargin.predict.predictor",
    "Run": "clearmargin.workflow",
    "MODELS": "clearmargin.models",
    "SOURCES": "clearmargin.data.sources",
    "PhantomSettings": "clearmargin.data.phantom",
    "write_phantom": "clearmargin.data.phantom",
    "ClearmarginError": "clearmargin.errors",
    "Listener": "clearmargin.types",
    "Client": "clearmargin.web.client",
    "LiveCurves": "clearmargin.display.live",
}

__all__ = [
    "MODELS",
    "SOURCES",
    "ClearmarginError",
    "Client",
    "Explainer",
    "Listener",
    "LiveCurves",
    "PhantomSettings",
    "Predictor",
    "Run",
    "audit",
    "calibrate",
    "compare",
    "evaluate",
    "explain",
    "export",
    "import_keras",
    "load_bundle",
    "load_explainer",
    "optimism",
    "show_augmentations",
    "split",
    "sweep",
    "train",
    "write_phantom",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'clearmargin' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
