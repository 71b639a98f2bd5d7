"""What is wrong with images, and who is trained, validated and tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from clearmargin.api.options import ImageOptions, Pathlike, checks_image_options, data_changes, data_settings, given
from clearmargin.config import check_config, load_recipe
from clearmargin.errors import DataError, ImageError, UsageError
from clearmargin.types import LABEL_NAMES, Listener

if TYPE_CHECKING:
    import pandas as pd

    from clearmargin.data.audit import Audit
    from clearmargin.training.augmented import AugmentedImages


@checks_image_options
def audit(
    data: Pathlike,
    *,
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> Audit:
    """Everything that is wrong with the images, found at once; originals are not touched.

    Raises:
        DataError: nothing there, or not one labelled image. A blocking finding does not raise.
    """
    from clearmargin.data.audit import audit_images

    where = data_settings(data_changes(data, **images))
    return audit_images(where, listener=listener)


@checks_image_options
def split(
    data: Pathlike,
    *,
    by: Literal["patient", "image"] | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    folds: int | None = None,
    official: bool = False,
    seed: int = 0,
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> pd.DataFrame:
    """The split as a table: path, patient_id, label and split (or fold, 0 to folds - 1).

    Without `by` the official split is kept where the data have one; `by` alone makes a fresh one.

    Raises:
        SplitError: no honest split is possible; says what to do.
        AuditBlocked: the audit found what must be mended first.
    """
    from clearmargin.data.audit import audit_images
    from clearmargin.data.split import fold_manifest, official_split, split_manifest
    from clearmargin.tables import SplitTable

    config = check_config({"split": {"by": by or "patient", "fractions": list(fractions)}, "seed": seed})
    where = data_settings(data_changes(data, **images))
    fresh = folds is not None or (by is not None and not official)
    audited = audit_images(where, ignore_official=fresh, listener=listener)
    audited.check()
    manifest, unit = audited.manifest, config.split.by
    if folds is not None:
        fold = fold_manifest(manifest, folds, by=unit, seed=seed)
        return SplitTable(manifest.frame[["path", "patient_id", "label"]].assign(fold=fold))
    make = official_split if official or manifest.has_official_split else split_manifest
    return SplitTable(make(manifest, by=unit, fractions=config.split.fractions, seed=seed).table())


@checks_image_options
def show_augmentations(
    data: Pathlike,
    *,
    recipe: str = "default",
    n: int = 4,
    times: int = 5,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    **images: Unpack[ImageOptions],
) -> AugmentedImages:
    """What training makes of a few images, by the code that trains: shown in a notebook, arrays elsewhere.

    Size and greyness are judged by these few images, by all of them in `train`.

    Args:
        data: a folder of images, or a CSV or Parquet file with path,label.
        recipe: a recipe's name or a TOML file.
        n: how many images, half of each class.
        times: how often each is changed.
        seed: of the changes.
        settings: any other setting by its dotted key, as `augment.zoom`.
        images: which images of `data` are meant, see `ImageOptions`.

    Raises:
        DataError: nothing there, not one labelled image, or none of those taken can be read.
        UsageError: `n` or `times` is out of range.
    """
    import numpy as np

    from clearmargin.data.audit import read_images
    from clearmargin.images.preprocess import choose_preprocessing
    from clearmargin.images.read import read_image
    from clearmargin.training.adapt import adapt_to_images, are_grey
    from clearmargin.training.augmented import augment_images

    if not (1 <= n <= 64 and 0 <= times <= 64):
        raise UsageError(f"{n} images, {times} times: give 1 to 64 images, each to be changed 0 to 64 times.")
    config = load_recipe(recipe, {**(settings or {}), **given(data_changes(data, **images))})
    manifest = read_images(config.data)
    found, labels, reason = [], [], ""
    for label in range(len(LABEL_NAMES)):
        rows = np.flatnonzero(manifest.labels() == label)
        most = n // 2 + (n % 2 if label else 0)
        for row in rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]:
            path = manifest.frame["path"].iloc[row]
            try:
                found.append(read_image(manifest.locate(path), window=config.images.dicom_window))
            except ImageError as error:
                reason = f"{path}: {error.reason}"
                continue
            labels.append(label)
    if not found:
        raise DataError(f"{manifest.root}: none of the images taken can be read, the last is {reason}.")
    sizes = np.array([(image.shape[1], image.shape[0]) for image in found])
    spec = choose_preprocessing(config.images, sizes, content=manifest.content)
    packed = np.stack([spec.apply(image) for image in found])
    adapted = adapt_to_images(config, images=len(packed), grey=are_grey(packed, content=manifest.content))
    return augment_images(
        packed, np.array(labels, np.int8), adapted.augment, times=times, seed=seed, recipe=config.recipe
    )
