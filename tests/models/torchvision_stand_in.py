"""timm imported where torchvision is not installed: a stand-in is in its place for the moment of the import.

Nothing of torchvision is used by what is tested; timm merely imports it. Afterwards the stand-in is gone, since torch's
exporter asks for the place of every module that it finds.
"""

from __future__ import annotations

import enum
import sys
from types import ModuleType

import torch

_MODULES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class _StandIn(ModuleType):
    """Any name that is imported from it is a class that does nothing."""

    __path__ = ()

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (torch.nn.Module,), {})


class _InterpolationMode(enum.Enum):
    NEAREST, BILINEAR, BICUBIC, BOX, HAMMING, LANCZOS = "nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"


def import_timm() -> ModuleType:
    """timm, whether or not torchvision is installed."""
    if "timm" in sys.modules:
        return sys.modules["timm"]
    parts = {name: _StandIn(name) for name in _MODULES}
    for name, part in parts.items():
        owner, _, leaf = name.rpartition(".")
        if owner:
            setattr(parts[owner], leaf, part)
    parts["torchvision.transforms.functional"].__dict__["InterpolationMode"] = _InterpolationMode
    sys.modules.update(parts)
    try:
        import timm
    finally:
        for name in parts:
            del sys.modules[name]
    return timm
