"""Dealing whole groups of images to the parts of a split, so that classes and numbers come near to the fractions.

Knows groups and labels only: who belongs together is decided in `split.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearmargin.errors import SplitError
from clearmargin.types import SPLITS

By = Literal["patient", "image"]

_TRIALS = 1_000
_MAX_DRAWS = 4_000_000


def deal_groups(
    groups: NDArray[np.intp],
    labels: NDArray[np.int8],
    fractions: NDArray[np.float64],
    *,
    minimum: tuple[int, ...],
    seed: int,
    by: By,
) -> NDArray[np.intp]:
    """(G,) the part of each group, 0 to one less than the fractions: the best of many random deals.

    Args:
        groups: (N,) the group of each image, 0 to G - 1.
        labels: (N,) 0 or 1.
        fractions: the share of each part, summing to 1.
        minimum: how many groups each part has at least.
        seed: of the random deals.
        by: what a group is called in a message.

    Raises:
        SplitError: there are too few groups, or no deal puts both classes in each part.
    """
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
