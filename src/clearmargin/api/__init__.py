"""The Python door: the commands as functions, for notebooks and scripts. Tables in and out are pandas.

Each does what the command of the same name does; the command line calls these very functions. What is heavy is
imported when it is needed.
"""

from clearmargin.api.bundles import explain, export, import_keras, load_explainer
from clearmargin.api.data import audit, show_augmentations, split
from clearmargin.api.models import calibrate, compare, evaluate, optimism, train
from clearmargin.api.options import ImageOptions
from clearmargin.api.searches import sweep

__all__ = [
    "ImageOptions",
    "audit",
    "calibrate",
    "compare",
    "evaluate",
    "explain",
    "export",
    "import_keras",
    "load_explainer",
    "optimism",
    "show_augmentations",
    "split",
    "sweep",
    "train",
]
