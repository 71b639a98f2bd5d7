"""Which images make up an epoch: permutations, balance, and seeds that stay what they are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearmargin.training.batches import batch_bounds, derive_seed, epoch_order, gather

ROWS = np.arange(10, 110)
LABELS = np.zeros(200, dtype=np.int8)
LABELS[10:25] = 1  # 15 malignant among the 100 rows


def order(balance: str = "none", *, seed: int = 0, epoch: int = 0) -> NDArray[np.intp]:
    return epoch_order(ROWS, LABELS, balance=balance, seed=seed, epoch=epoch)  # type: ignore[arg-type]


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_an_epoch_is_a_permutation_of_the_rows(balance: str) -> None:
    assert sorted(order(balance)) == ROWS.tolist()
    assert order(balance).tolist() != ROWS.tolist()


@pytest.mark.parametrize("balance", ["none", "sampler"])
def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else(balance: str) -> None:
    first = order(balance, seed=1, epoch=2)
    np.random.default_rng(5).random(3)
    np.testing.assert_array_equal(order(balance, seed=1, epoch=2), first)
    assert not np.array_equal(order(balance, seed=1, epoch=3), first)
    assert not np.array_equal(order(balance, seed=2, epoch=2), first)


def test_epoch_and_seed_are_not_interchangeable() -> None:
    assert not np.array_equal(order(seed=1, epoch=2), order(seed=2, epoch=1))


@pytest.mark.parametrize("n", [99, 100])
def test_the_sampler_draws_both_classes_equally_often(n: int) -> None:
    drawn = LABELS[epoch_order(ROWS[:n], LABELS, balance="sampler", seed=0, epoch=0)]
    assert len(drawn) == n
    assert int(drawn.sum()) == n // 2


def test_the_sampler_repeats_an_image_only_when_all_of_its_class_were_drawn() -> None:
    rows, times = np.unique(order("sampler"), return_counts=True)
    malignant = times[LABELS[rows] == 1]
    benign = times[LABELS[rows] == 0]
    assert len(malignant) == 15
    assert set(malignant) == {3, 4}  # 50 draws of 15 images
    assert set(benign) == {1}
    assert len(benign) == 50


def test_the_sampler_shows_every_benign_image_within_a_few_epochs() -> None:
    seen = set(np.concatenate([order("sampler", epoch=epoch) for epoch in range(12)]).tolist())
    assert seen == set(ROWS.tolist())


def test_the_sampler_mixes_the_classes() -> None:
    drawn = LABELS[order("sampler")]
    assert 10 < drawn[:50].sum() < 40


@given(n=st.integers(1, 300), size=st.integers(1, 70))
def test_batches_cover_an_epoch_once_and_are_full_but_for_the_last(n: int, size: int) -> None:
    bounds = batch_bounds(n, size)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == n
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    assert all(stop - start == size for start, stop in bounds[:-1])


@given(n=st.integers(2, 300), size=st.integers(2, 70))
def test_no_image_is_left_alone_in_the_last_batch(n: int, size: int) -> None:
    assert min(stop - start for start, stop in batch_bounds(n, size)) >= 2


def test_batches_by_hand() -> None:
    assert batch_bounds(8, 4) == [(0, 4), (4, 8)]
    assert batch_bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert batch_bounds(9, 4) == [(0, 4), (4, 9)]
    assert batch_bounds(3, 1) == [(0, 1), (1, 2), (2, 3)]
    assert batch_bounds(1, 4) == [(0, 1)]


def test_derived_seeds_stay_what_they_are() -> None:
    assert derive_seed(0) == 7896617691693857887
    assert derive_seed(7, 3, 12) == 3461307021533076983


def test_derived_seeds_differ_and_fit_torch() -> None:
    seeds = {derive_seed(seed, epoch, batch) for seed in range(10) for epoch in range(10) for batch in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
    torch.manual_seed(max(seeds))


def test_gathered_images_are_copies_in_the_order_of_the_rows() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    images.flags.writeable = False
    batch = gather(images, np.array([4, 0, 4]))
    np.testing.assert_array_equal(batch.numpy(), images[[4, 0, 4]])
    batch.zero_()
    assert images[4].any()
