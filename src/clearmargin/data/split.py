"""Who is trained on, who is validated on, who is tested on; patients never on two sides.

The unit that is dealt out is a *group*: a patient, together with any patient who has an identical image
(by patient), or an image together with its identical copies (by image). So neither a person nor a
picture can cross. Every split checks itself and carries a hash of its content.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.data.manifest import Manifest
from clearmargin.data.sources.csv import read_table
from clearmargin.data.walk import SPLIT_FOLDERS
from clearmargin.errors import DataError, SplitError, UsageError
from clearmargin.types import LABEL_NAMES, SPLITS, Protocol

By = Literal["patient", "image"]
SPLIT_COLUMNS = ("path", "patient_id", "label", "split")
_TRIALS = 1_000
_MAX_DRAWS = 4_000_000


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
    dealt = _deal(groups, manifest.labels(), np.asarray(fractions), minimum=(1, 1, 2), seed=seed, by=by)
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
            raise SplitError(
                f"{manifest.root}: the official split has no {needed} part (found {', '.join(sorted(present))}). "
                'Make your own with "clearmargin split DATA --by patient --out split.csv", and use --split split.csv.'
            )
    splits = official.to_numpy(dtype=str).copy()
    if "validation" not in present:
        inside = np.flatnonzero(splits == "train")
        pool = manifest.keep(splits == "train")
        shares = np.asarray(fractions[:2]) / sum(fractions[:2])
        groups = _groups(pool, by)
        dealt = _deal(groups, pool.labels(), shares, minimum=(1, 1), seed=seed, by=by)
        splits = splits.astype(f"<U{len('validation')}")
        splits[inside] = np.asarray(SPLITS[:2])[dealt][groups]
    assignment = Assignment(manifest, splits, "official")
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
    relative = manifest.relative_paths() if key == "path" else names
    splits = [places.get(str(name)) or places.get(str(short)) for name, short in zip(names, relative, strict=True)]
    unplaced = [name for name, split in zip(names, splits, strict=True) if split is None]
    if unplaced:
        raise SplitError(
            f"{path}: {len(unplaced):,} of {len(names):,} images have no row, the first has the {key} '{unplaced[0]}'. "
            'Make the file anew with "clearmargin split DATA --out CSV", or leave images out with --exclude FILE.'
        )
    assignment = Assignment(manifest, np.asarray(splits, dtype=str), by)
    check_split(assignment)
    return assignment


def check_split(assignment: Assignment) -> None:
    """Passes when each part has both classes and, unless the split is by image, no patient is in two parts.

    Raises:
        SplitError: names the patient or the part.
    """
    frame = assignment.manifest.frame
    if assignment.protocol != "image":
        placed = frame.assign(split=assignment.splits).loc[frame["patient_id"].notna()]
        parts = placed.groupby("patient_id")["split"].nunique()
        for patient in parts.index[parts > 1][:1]:
            mine = placed.loc[placed["patient_id"] == patient, "split"]
            where = " and ".join(f"'{name}'" for name in sorted(mine.unique()))
            raise SplitError(
                f"patient '{patient}' is in both {where} ({len(mine):,} images). "
                'Run "clearmargin split DATA --by patient --out CSV" to rebuild the split.'
            )
    for name in SPLITS:
        labels = frame["label"].to_numpy()[assignment.rows(name)]
        for label, word in enumerate(LABEL_NAMES):
            if not (labels == label).any():
                raise SplitError(
                    f"the {name} part has no {word} image ({len(labels):,} images in all). "
                    "Add patients, change --fractions, or try another --seed."
                )


def _groups(manifest: Manifest, by: By) -> NDArray[np.intp]:
    """(N,) group numbers, in order of each group's first name, so that they do not depend on the row order."""
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    if by == "patient" and not manifest.knows_patients:
        raise SplitError(_no_patients(manifest))
    names = manifest.frame["patient_id"].to_numpy() if by == "patient" else np.asarray(manifest.relative_paths())
    distinct, units = np.unique(names.astype(str), return_inverse=True)
    contents = pd.factorize(manifest.frame["sha256"])[0]
    known = contents >= 0
    size = len(distinct) + int(contents.max()) + 1
    pairs = (units[known], contents[known] + len(distinct))
    links = coo_array((np.ones(int(known.sum()), dtype=np.int8), pairs), shape=(size, size))
    component = connected_components(links, directed=False)[1][: len(distinct)]
    renumbered = pd.factorize(component)[0]  # in order of the sorted names
    return np.asarray(renumbered[units], dtype=np.intp)


def _deal(
    groups: NDArray[np.intp],
    labels: NDArray[np.int8],
    fractions: NDArray[np.float64],
    *,
    minimum: tuple[int, ...],
    seed: int,
    by: By,
) -> NDArray[np.intp]:
    """(G,) the part of each group: the best of many random deals."""
    n_groups = int(groups.max()) + 1
    benign = np.bincount(groups[labels == 0], minlength=n_groups)
    malignant = np.bincount(groups[labels == 1], minlength=n_groups)
    sizes = _part_sizes(n_groups, fractions, minimum, by=by, n_mixed=int(((benign > 0) & (malignant > 0)).sum()))
    generator = np.random.default_rng(seed)
    orders = (generator.permutation(n_groups) for _ in range(int(np.clip(_MAX_DRAWS // n_groups, 20, _TRIALS))))
    best = _best_order(orders, benign, malignant, sizes=sizes, fractions=fractions)
    if best is None:  # one class is so rare that chance does not put it everywhere
        spread = (_spread_classes(benign, malignant, sizes, generator) for _ in range(20))
        orders = (order for order in spread if order is not None)
        best = _best_order(orders, benign, malignant, sizes=sizes, fractions=fractions)
    if best is None:
        with_benign, with_malignant = int((benign > 0).sum()), int((malignant > 0).sum())
        raise SplitError(
            f"no split of {n_groups} {by}s into {len(sizes)} parts has both classes in each part "
            f"({with_benign} have benign, {with_malignant} have malignant images). Add {by}s of the rarer class."
        )
    parts: NDArray[np.intp] = np.empty(n_groups, dtype=np.intp)
    parts[best] = np.repeat(np.arange(len(sizes)), sizes)
    return parts


def _best_order(
    orders: Iterable[NDArray[np.intp]],
    benign: NDArray[np.intp],
    malignant: NDArray[np.intp],
    *,
    sizes: NDArray[np.intp],
    fractions: NDArray[np.float64],
) -> NDArray[np.intp] | None:
    """The order of the groups whose parts come nearest to the fractions; None when none has both classes in each."""
    traits = np.stack([benign, malignant, malignant == 0, benign == 0, (benign > 0) & (malignant > 0)], axis=1)
    traits = traits[:, traits.sum(axis=0) > 0].astype(np.float64)
    shares = traits / traits.sum(axis=0)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    best, best_cost = None, np.inf
    for order in orders:
        got = np.stack([shares[order[start:end]].sum(axis=0) for start, end in itertools.pairwise(bounds)])
        if (got[:, :2] <= 0).any():
            continue
        cost = float((((got - fractions[:, None]) / fractions[:, None]) ** 2).sum())
        if cost < best_cost:
            best, best_cost = order, cost
    return best


def _spread_classes(
    benign: NDArray[np.intp], malignant: NDArray[np.intp], sizes: NDArray[np.intp], generator: np.random.Generator
) -> NDArray[np.intp] | None:
    """A random order of the groups with both classes in each part, by construction; None when there is none."""
    shuffled = generator.permutation(len(benign))
    is_mixed = (benign > 0) & (malignant > 0)
    mixed = shuffled[is_mixed[shuffled]].tolist()
    pure = [shuffled[~is_mixed[shuffled] & (counts[shuffled] > 0)].tolist() for counts in (benign, malignant)]
    first: dict[int, list[int]] = {}
    for part in np.argsort(sizes).tolist():  # a part of one group can only have a mixed one
        if mixed:
            first[part] = [mixed.pop()]
        elif sizes[part] > 1 and all(pure):
            first[part] = [groups.pop() for groups in pure]
        else:
            return None
    rest = iter(generator.permutation([*mixed, *pure[0], *pure[1]]).tolist())
    filled = [[*first[part], *itertools.islice(rest, int(size) - len(first[part]))] for part, size in enumerate(sizes)]
    return np.asarray(list(itertools.chain.from_iterable(filled)), dtype=np.intp)


def _part_sizes(
    n_groups: int, fractions: NDArray[np.float64], minimum: tuple[int, ...], *, by: By, n_mixed: int
) -> NDArray[np.intp]:
    if n_groups < sum(minimum):
        needed = ", ".join(f"{count} in {name}" for name, count in zip(SPLITS, minimum, strict=False))
        there = f"there is only one {by}" if n_groups == 1 else f"there are only {n_groups} {by}s"
        raise SplitError(
            f"{there}; a split by {by} needs at least {sum(minimum)} ({needed}), "
            f"or the figures could have no interval. Add {by}s"
            + (", or go on with --by image (optimistic, and stamped so)." if by == "patient" else ".")
        )
    floor = np.asarray(minimum)
    too_few_mixed = n_mixed < (floor == 1).sum()  # a part of one group has both classes only if the group has
    if n_groups >= (2 if too_few_mixed else 3) * len(floor):
        floor = np.maximum(floor, 2)  # a threshold from one patient is no threshold
    sizes = np.maximum(np.floor(fractions * n_groups + 0.5).astype(np.intp), floor)
    while sizes.sum() != n_groups:
        step = 1 if sizes.sum() < n_groups else -1
        distance = (sizes + step) / n_groups - fractions
        allowed = sizes + step >= floor
        sizes[np.flatnonzero(allowed)[np.argmin(step * distance[allowed])]] += step
    result: NDArray[np.intp] = sizes
    return result


def _no_patients(manifest: Manifest) -> str:
    unknown = int(manifest.frame["patient_id"].isna().sum())
    return (
        f"{unknown:,} of {len(manifest):,} images have no patient, so a split by patient is not possible. Choose: "
        "--patient-regex RE takes the patient from the path; a CSV with the columns path,label,patient_id says it; "
        f'--by image goes on without (optimistic, and stamped so). For example: "clearmargin train {manifest.root} '
        '--out RUN --by image".'
    )
