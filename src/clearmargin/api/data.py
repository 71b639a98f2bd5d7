"""What is wrong with images, and who is trained, validated and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Unpack

from clearmargin.api.options import ImageOptions, Pathlike, checks_image_options, data_changes, data_settings
from clearmargin.config import check_config
from clearmargin.types import Listener

if TYPE_CHECKING:
    import pandas as pd

    from clearmargin.data.audit import Audit


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

    config = check_config({"split": {"by": by or "patient", "fractions": list(fractions)}, "seed": seed})
    where = data_settings(data_changes(data, **images))
    fresh = folds is not None or (by is not None and not official)
    audited = audit_images(where, ignore_official=fresh, listener=listener)
    audited.check()
    manifest, unit = audited.manifest, config.split.by
    if folds is not None:
        fold = fold_manifest(manifest, folds, by=unit, seed=seed)
        return manifest.frame[["path", "patient_id", "label"]].assign(fold=fold)
    make = official_split if official or manifest.has_official_split else split_manifest
    return make(manifest, by=unit, fractions=config.split.fractions, seed=seed).table()
