"""A finished model carried elsewhere, brought in from elsewhere, and explained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clearmargin.api.options import Pathlike
from clearmargin.errors import UsageError
from clearmargin.types import Listener

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from clearmargin.bundle.keras.importing import ImportedModel
    from clearmargin.bundle.targets import Exported
    from clearmargin.explanation.explainer import Explainer
    from clearmargin.images.preprocess import Preprocessing

_MAX_EXAMPLES = 256
_DRAWN_PX = (32, 50, 75, 128)


def export(
    bundle: Pathlike,
    out: Pathlike,
    *,
    to: str,
    images: Sequence[Pathlike] = (),
    without_cases: bool = False,
    force: bool = False,
) -> Exported:
    """Writes a bundle for others: its network as an ONNX or a Keras file, or all of it as one `.clearmargin` file.

    Args:
        bundle: a bundle folder, a run folder or a `.clearmargin` file.
        out: the file to write.
        to: `onnx`, `keras` or `clearmargin`.
        images: to compare the network with torch on, at their own sizes; when empty, drawn patches of several sizes.
        without_cases: leaves out the pictures of training images that the bundle carries, and whose they are.
        force: replaces a file that is there already.

    Raises:
        ClearmarginError: one line with what, where and the fix; nothing is left that differs from the bundle.
    """
    from clearmargin.bundle.read import read_bundle
    from clearmargin.bundle.targets import check_target, write_target

    check_target(Path(out), to, force=force)
    if to == "clearmargin" and images:
        raise UsageError("--images: with --to clearmargin no network is written anew, so nothing is compared. Omit it.")
    if to != "clearmargin" and without_cases:
        raise UsageError(f"--without-cases: a file for --to {to} holds no training images anyway. Omit it.")
    verified = read_bundle(Path(bundle))
    examples = _pack_examples(verified.model.preprocessing, images)
    return write_target(verified, Path(out), to, examples, cases=not without_cases)


def _pack_examples(spec: Preprocessing, images: Sequence[Pathlike]) -> NDArray[np.uint8]:
    """Packed images (N, H, W, C): those that are given, at most `_MAX_EXAMPLES` evenly taken, or drawn ones."""
    import numpy as np

    if images:
        chosen = [images[index * len(images) // _MAX_EXAMPLES] for index in range(_MAX_EXAMPLES)]
        return np.stack([spec.read(os.fspath(path)) for path in (chosen if len(images) > _MAX_EXAMPLES else images)])
    from clearmargin.data.phantom import draw_packed

    return draw_packed(spec, _DRAWN_PX)


def import_keras(
    file: Pathlike,
    out: Pathlike,
    *,
    malignant_index: Literal[0, 1] = 1,
    scale: str | float | None = None,
    offset: str | float = 0,
    channels: Literal["rgb", "bgr"] = "rgb",
    size: tuple[int, int] | None = None,
    fit: Literal["pad", "stretch"] = "stretch",
    recipe: str | None = None,
    listener: Listener = Listener(),
) -> ImportedModel:
    """A bundle with the network of a Keras file (.h5, .hdf5, .keras; Keras 1, 2 or 3). Nothing in the file is run.

    Args:
        file: of Keras; or of weights alone, and then `recipe` says whose.
        out: the bundle folder to make.
        malignant_index: of two outputs, the one that is malignant; of one output, 1 if it is of malignant, 0 if of
            benign.
        scale: pixels from 0 to 255 are multiplied by it, a number or a fraction such as "1/255"; 1/255 when None, or 1
            where the network begins with a rescaling that takes them from 0 to 255.
        offset: and this is added.
        channels: their order as the network was trained.
        size: (width, height), for a network that takes images of any size.
        fit: how images of another size become that size; most Keras pipelines stretch.
        recipe: whose network the weights belong to.
        listener: hears how the job goes on.

    Raises:
        ClearmarginError: one line with what, where and the fix; a layer that is not known is named.
    """
    from clearmargin.bundle.keras.importing import import_keras as run
    from clearmargin.bundle.keras.network import ImportOptions

    options = ImportOptions(
        malignant_index=malignant_index,
        scale=None if scale is None else _fraction(scale, "scale"),
        offset=_fraction(offset, "offset"),
        channels=channels,
        size=size,
        fit=fit,
        recipe=recipe,
    )
    return run(Path(file), Path(out), options, listener=listener)


def _fraction(value: str | float, name: str) -> Fraction:
    """A number, or a fraction such as 1/255 or 1/127.5, exactly.

    Raises:
        UsageError: neither.
    """
    above, slash, below = str(value).partition("/")
    try:
        number = Fraction(above.strip()) / (Fraction(below.strip()) if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--{name} {value}: give a number or a fraction, as 1/255.") from None
    if abs(number) > 10**6 or (number != 0 and abs(number) < Fraction(1, 10**9)):
        raise UsageError(f"--{name} {value}: beyond what pixels are multiplied by; give a number such as 1/255.")
    return number


def load_explainer(bundle: Pathlike, *, gate: bool = True) -> Explainer:
    """What explains images with a bundle; one without colour scales finds them on drawn images.

    Args:
        bundle: a bundle folder, a run folder or a `.clearmargin` file.
        gate: images unlike those of training are refused.

    Raises:
        BundleError: not a bundle, changed, or incompatible.
    """
    from clearmargin.data.phantom import DRAWN, draw_for_scale
    from clearmargin.explanation.explainer import Explainer
    from clearmargin.predict.predictor import load_bundle

    return Explainer(load_bundle(Path(bundle), gate=gate), scale_images=draw_for_scale, scale_of=DRAWN)


def explain(
    bundle: Pathlike,
    images: Pathlike | Sequence[Pathlike],
    out: Pathlike,
    *,
    methods: str | Sequence[str] = (),
    alpha: float | None = None,
    pictures: bool = True,
    maps: bool = True,
    legend: bool = True,
    gate: bool = True,
) -> pd.DataFrame:
    """Pictures of which places of each image moved the network, written to `out`: one row an explanation.

    Args:
        bundle: a bundle folder or a run folder.
        images: paths of single images.
        out: the folder to make.
        methods: one or several of `clearmargin.explanation.methods.METHODS`, or `all`; the default one when empty.
        alpha: how much of the image full colour hides, from 0.05 to 1; 0.6 when None.
        pictures: write a PNG of each.
        maps: write a .npy of each: float32, in the network's input.
        legend: pictures have the image beside the map and a legend below.
        gate: images unlike those of training are refused.

    Raises:
        ClearmarginError: one line with what, where and the fix. An image that cannot be read is a row with its reason.
    """
    import pandas as pd

    from clearmargin.explanation.draw import ALPHA, check_alpha
    from clearmargin.explanation.methods import find_methods
    from clearmargin.explanation.write import check_folder, write_explanations
    from clearmargin.predict.records import records_of_paths
    from clearmargin.tables import ExplanationTable

    opacity = ALPHA if alpha is None else alpha
    check_alpha(opacity)
    names, records = find_methods(methods), records_of_paths(images)
    explainer = load_explainer(bundle, gate=gate)
    check_folder(Path(out))
    explained = explainer.explain_records(records, methods=names)
    rows = write_explanations(explained, Path(out), alpha=opacity, pictures=pictures, maps=maps, legend=legend)
    return ExplanationTable(pd.DataFrame(list(rows)), about={"folder": Path(out)})
