"""Who is trained on, who is validated on, who is tested on; patients never on two sides.

The unit that is dealt out (in `deal.py`) is a *group*: a patient, together with any patient who has an identical or
nearly identical image (by patient), or an image together with its copies (by image). So neither a person nor a
picture can cross. Every split checks itself and carries a hash of its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.data.deal import By, deal_groups
from clearmargin.data.manifest import Manifest
from clearmargin.data.sources.csv import read_table
from clearmargin.data.walk import SPLIT_FOLDERS
from clearmargin.errors import DataError, SplitError, UsageError
from clearmargin.types import LABEL_NAMES, SPLITS, Protocol

SPLIT_COLUMNS = ("path", "patient_id", "label", "split")
_FEWEST_PARTS = 3
_WIDEST = f"<U{max(map(len, SPLITS))}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The split of a manifest: `splits` is (N,) with the values of `types.SPLITS`, in the manifest's order."""

    manifest: Manifest
    splits: NDArray[np.str_]
    protocol: Protocol

    @property
    def sha256(self) -> str:
        """Hash of every path (as seen from the root) with its split, in order of path."""
        digest = hashlib.sha256()
        for path, split in sorted(zip(self.manifest.relative_paths(), self.splits, strict=True)):
            digest.update(f"{path}\t{split}\n".encode())
        return digest.hexdigest()

    def rows(self, split: str) -> NDArray[np.intp]:
        """Row numbers of one split, ascending."""
        return np.flatnonzero(self.splits == split)

    def counts(self) -> dict[str, dict[str, int | None]]:
        """Patients and images of each split; patients are None where they are not known."""
        patients = self.manifest.frame["patient_id"]
        known = self.manifest.knows_patients
        return {
            "patients": {name: int(patients[self.rows(name)].nunique()) if known else None for name in SPLITS},
            "images": {name: len(self.rows(name)) for name in SPLITS},
        }

    def table(self) -> pd.DataFrame:
        """The columns of SPLIT_COLUMNS, one row an image."""
        return self.manifest.frame[["path", "patient_id", "label"]].assign(split=self.splits)


def split_manifest(
    manifest: Manifest, *, by: By = "patient", fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> Assignment:
    """A fresh stratified split.

    Of many random deals of the groups, the one is kept whose shares of images of either class, and of
    groups with either or both classes, come nearest to the fractions.

    Args:
        manifest: audited, so that sha256 is known.
        by: `patient` needs a patient_id in every row.
        fractions: train, validation and test, summing to 1.
        seed: the same seed and data give the same split, whatever the order of the rows.

    Raises:
        SplitError: patients are not known, too few, or no deal puts both classes in each part.
    """
    groups = _groups(manifest, by)
    dealt = deal_groups(groups, manifest.labels(), np.asarray(fractions), minimum=(1, 1, 2), seed=seed, by=by)
    assignment = Assignment(manifest, np.asarray(SPLITS)[dealt][groups], by)
    check_split(assignment)
    return assignment


def official_split(
    manifest: Manifest, *, by: By = "patient", fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> Assignment:
    """The split that comes with the data; where it has no validation part, one is taken from train.

    The test part always stays as it is. `by`, `fractions` and `seed` say how validation is taken.

    Raises:
        SplitError: a part is missing that cannot be made up for, or some images have no part.
    """
    official = manifest.frame["official_split"]
    if official.isna().all():
        raise SplitError(
            f"{manifest.root}: the data come with no official split. Split by patient or by image instead."
        )
    if official.isna().any():
        first = manifest.frame["path"][official.isna()].iloc[0]
        raise SplitError(
            f"{int(official.isna().sum()):,} images have no place in the official split, the first is '{first}'. "
            'Leave them out with --exclude FILE, or make your own with "clearmargin split DATA --by patient".'
        )
    present = set(official)
    for needed in ("train", "test"):
        if needed not in present:
            unit = "patient" if manifest.knows_patients else "image"
            raise SplitError(
                f"{manifest.root}: the official split has no {needed} part (found {', '.join(sorted(present))}). "
                f'Make your own with "clearmargin split DATA --by {unit} --out split.csv", and use --split split.csv'
                f"{'' if manifest.knows_patients else ' --by image, because no patient is known'}."
            )
    splits = official.to_numpy(dtype=str).astype(_WIDEST)
    if "validation" not in present:
        splits = _take_validation(manifest, splits, by=by, fractions=fractions, seed=seed)
    assignment = Assignment(manifest, splits, "official")
    check_split(assignment)
    return assignment


def _take_validation(
    manifest: Manifest, splits: NDArray[np.str_], *, by: By, fractions: Sequence[float], seed: int
) -> NDArray[np.str_]:
    """`splits` (N,) with the validation part's share of train dealt to it, groups whole."""
    inside = np.flatnonzero(splits == "train")
    pool = manifest.keep(splits == "train")
    shares = np.asarray(fractions[:2]) / sum(fractions[:2])
    groups = _groups(pool, by)
    dealt = deal_groups(groups, pool.labels(), shares, minimum=(1, 1), seed=seed, by=by)
    result = splits.copy()
    result[inside] = np.asarray(SPLITS[:2])[dealt][groups]
    return result


def fold_split(
    manifest: Manifest,
    folds: int,
    fold: int,
    *,
    by: By = "patient",
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Assignment:
    """The split of a cross-validation that tests the fold `fold` (0 to folds - 1) and validates on some of the rest.

    Args:
        manifest: audited, so that sha256 is known.
        folds: how many; each image is tested in one of them.
        fold: the one that is tested.
        by: what stays together.
        fractions: train, validation and test; the first two say how much of the rest validates.
        seed: the same seed gives folds that fit together.

    Raises:
        UsageError, SplitError: as `fold_manifest`, or no deal puts both classes in the validation part.
    """
    tested = fold_manifest(manifest, folds, by=by, seed=seed) == fold
    splits = np.where(tested, "test", "train").astype(_WIDEST)
    splits = _take_validation(manifest, splits, by=by, fractions=fractions, seed=seed)
    assignment = Assignment(manifest, splits, by)
    check_split(assignment)
    return assignment


def fold_manifest(manifest: Manifest, folds: int, *, by: By = "patient", seed: int = 0) -> NDArray[np.intp]:
    """(N,) the fold, 0 to folds - 1, in which each image is tested; groups stay whole, classes are stratified.

    Raises:
        UsageError: fewer than two folds.
        SplitError: a fold would be without a class, or patients are not known.
    """
    if folds < 2:
        raise UsageError(f"--folds {folds}: give 2 or more.")
    groups = _groups(manifest, by)
    for label, name in enumerate(LABEL_NAMES):
        having = len(np.unique(groups[manifest.labels() == label]))
        if having < folds:
            raise SplitError(
                f"only {having} {by}s have {name} images, which cannot make {folds} folds with both classes in each; "
                f"give --folds {max(2, having)} or fewer, or add {by}s."
            )
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415  (a second to import)

    # Sorted by group, the result does not depend on the order of the rows.
    order = np.argsort(groups, kind="stable")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    result = np.empty(len(manifest), dtype=np.intp)
    labels = manifest.labels()[order]
    for fold, (_, tested) in enumerate(splitter.split(np.zeros(len(order)), labels, groups[order])):
        result[order[tested]] = fold
        if len(set(labels[tested])) < len(LABEL_NAMES):
            raise SplitError(f"fold {fold} of {folds} has one class only. Give fewer --folds, or try another --seed.")
    return result


def crossfit_folds(assignment: Assignment, folds: int, *, by: By, seed: int) -> NDArray[np.intp] | None:
    """(N,) the part, from 0, of each image of train and validation that one of `folds` networks does not see; test: -1.

    Where there are too few patients for so many parts with both classes in each, there are fewer; None where not even
    three can be made, or as many as are wanted: each network would see too little.

    Args:
        assignment: of the whole manifest.
        folds: how many parts are wanted.
        by: what stays together.
        seed: the same seed gives the same parts.
    """
    inside = assignment.splits != "test"
    known = assignment.manifest.keep(inside)
    for fewer in range(folds, min(folds, _FEWEST_PARTS) - 1, -1):
        try:
            parts = fold_manifest(known, fewer, by=by, seed=seed)
        except SplitError:
            continue
        result = np.full(len(inside), -1, dtype=np.intp)
        result[inside] = parts
        return result
    return None


def read_split(path: Path, manifest: Manifest, *, by: By = "patient") -> Assignment:
    """The split written in a CSV with the columns `path` (or `patient_id`) and `split`.

    Rows for files that the manifest does not have are passed over; the manifest's own must all be placed.

    Raises:
        DataError: not readable, columns missing, a value that is no split.
        SplitError: an image without a place, or a patient on two sides.
    """
    table = read_table(path)
    key = next((name for name in ("path", "patient_id") if name in table), None)
    if key is None or "split" not in table:
        found = ", ".join(table.columns)
        raise DataError(f"{path}: needs the columns path (or patient_id) and split; found {found}.")
    if (by == "patient" or key == "patient_id") and not manifest.knows_patients:
        raise SplitError(_no_patients(manifest))
    places: dict[str, str] = {}
    for line, name, split in zip(table.index, table[key], table["split"], strict=True):
        if split.lower() not in SPLIT_FOLDERS:
            raise DataError(f"{path}: line {line} has the split '{split}'; write train, validation or test.")
        if places.setdefault(name, SPLIT_FOLDERS[split.lower()]) != SPLIT_FOLDERS[split.lower()]:
            raise SplitError(f"{path}: line {line} puts {key} '{name}' in a second part; keep one.")
    names = manifest.frame[key].tolist()
    others = _other_names(manifest) if key == "path" else [()] * len(names)
    splits = [
        next((places[name] for name in (str(first), *more) if name in places), None)
        for first, more in zip(names, others, strict=True)
    ]
    unplaced = [name for name, split in zip(names, splits, strict=True) if split is None]
    if unplaced:
        raise SplitError(
            f"{path}: {len(unplaced):,} of {len(names):,} images have no row, the first has the {key} '{unplaced[0]}'. "
            'Make the file anew with "clearmargin split DATA --out CSV", or leave images out with --exclude FILE.'
        )
    assignment = Assignment(manifest, np.asarray(splits, dtype=str), by)
    check_split(assignment)
    return assignment


def _other_names(manifest: Manifest) -> list[tuple[str, ...]]:
    """What else each image may be called in a split: as seen from the root and, behind a pseudonym, its real path."""
    paths = manifest.frame["path"]
    return [
        (relative, manifest.originals[path]) if path in manifest.originals else (relative,)
        for path, relative in zip(paths, manifest.relative_paths(), strict=True)
    ]


def check_split(assignment: Assignment) -> None:
    """Passes when each part has both classes, no image is in two and, unless the split is by image, no patient is.

    Raises:
        SplitError: names the patient, the image or the part.
    """
    frame = assignment.manifest.frame.assign(split=assignment.splits)
    if assignment.protocol != "image":
        mine, where = _first_crossing(frame, "patient_id")
        if len(mine):
            raise SplitError(
                f"patient '{mine['patient_id'].iloc[0]}' is in both {where} ({len(mine):,} images). "
                'Run "clearmargin split DATA --by patient --out CSV" to rebuild the split.'
            )
    copies, where = _first_crossing(frame, "sha256")
    if len(copies):
        raise SplitError(
            f"'{copies['path'].iloc[0]}' and its identical copies are in both {where} ({len(copies):,} images). "
            "Leave copies out with 'clearmargin audit DATA --fix-list FILE' and --exclude FILE, or rebuild the split."
        )
    for name in SPLITS:
        labels = frame["label"].to_numpy()[assignment.rows(name)]
        for label, word in enumerate(LABEL_NAMES):
            if not (labels == label).any():
                raise SplitError(
                    f"the {name} part has no {word} image ({len(labels):,} images in all). "
                    "Add patients, change --fractions, or try another --seed."
                )


def _first_crossing(frame: pd.DataFrame, column: str) -> tuple[pd.DataFrame, str]:
    """The rows of the first value of the column that is in more than one split, and these splits in words."""
    parts = frame.groupby(column)["split"].nunique()
    rows = frame.loc[frame[column].isin(parts.index[parts > 1][:1])]
    return rows, " and ".join(f"'{name}'" for name in sorted(rows["split"].unique()))


def _groups(manifest: Manifest, by: By) -> NDArray[np.intp]:
    """(N,) group numbers, in order of each group's first name, so that they do not depend on the row order."""
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    if by == "patient" and not manifest.knows_patients:
        raise SplitError(_no_patients(manifest))
    names = manifest.frame["patient_id"].to_numpy() if by == "patient" else np.asarray(manifest.relative_paths())
    distinct, units = np.unique(names.astype(str), return_inverse=True)
    contents = pd.factorize(manifest.frame["sha256"])[0]
    known = np.flatnonzero(contents >= 0)
    row_of = {path: row for row, path in enumerate(manifest.frame["path"])} if manifest.alike else {}
    alike = [(row_of[path], number) for number, group in enumerate(manifest.alike) for path in group if path in row_of]
    rows = np.concatenate([known, np.array([row for row, _ in alike], dtype=np.intp)])
    pictures = np.concatenate([contents[known], contents.max(initial=-1) + 1 + np.array([n for _, n in alike], int)])
    size = len(distinct) + int(pictures.max(initial=-1)) + 1
    pairs = (units[rows], pictures + len(distinct))
    links = coo_array((np.ones(len(rows), dtype=np.int8), pairs), shape=(size, size))
    component = connected_components(links, directed=False)[1][: len(distinct)]
    renumbered = pd.factorize(component)[0]  # in order of the sorted names
    return np.asarray(renumbered[units], dtype=np.intp)


def _no_patients(manifest: Manifest) -> str:
    unknown = int(manifest.frame["patient_id"].isna().sum())
    return (
        f"{unknown:,} of {len(manifest):,} images have no patient, so a split by patient is not possible. Choose: "
        "--patient-regex RE takes the patient from the path; a CSV with the columns path,label,patient_id says it; "
        "--by image goes on without (optimistic, and stamped so). For example, the same command with --by image."
    )
