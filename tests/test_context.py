"""Where patches lie and what surrounds them: against SciPy, brute force, and what must not matter."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from clearmargin.context import Cells, Grid, find_step, lay_out, mean_logit, neighbours, on_lattice, smooth

Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

PLACES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=40, unique=True
)
"""Slide, row and column of patches, no two at one place."""


def cells_at(places: list[tuple[int, int, int]]) -> Cells:
    columns = np.array(places, dtype=np.int64).reshape(-1, 3)
    return Cells(columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy())


def brute_smooth(values: NDArray[np.float64], cells: Cells, scale: float) -> NDArray[np.float64]:
    """The definition, patch by patch."""
    result = []
    for slide, row, column in zip(cells.slides, cells.rows, cells.columns, strict=True):
        inside = cells.slides == slide
        apart = (cells.rows[inside] - row) ** 2 + (cells.columns[inside] - column) ** 2
        result.append(np.average(values[inside], weights=np.exp(-apart / (2 * scale**2))))
    return np.array(result)


def filled(shape: tuple[int, int], share: float, seed: int) -> tuple[NDArray[np.bool_], Cells]:
    """Random places on a lattice of this shape, the first row and column among them, and their cells."""
    mask = np.random.default_rng(seed).random(shape) < share
    mask[0, 0] = True
    rows, columns = np.nonzero(mask)
    return mask, Cells(np.zeros(len(rows), dtype=np.int64), rows, columns)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.5, 2.0, 3.0])
def test_the_average_is_scipys_gaussian_over_the_patches_that_are_there(scale: float) -> None:
    mask, cells = filled((17, 23), 0.6, seed=1)
    values = np.random.default_rng(2).normal(size=len(cells))
    image = np.zeros(mask.shape)
    image[mask] = values

    def blur(array: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(array, scale, mode="constant", truncate=50))

    expected = (blur(image) / blur(mask.astype(np.float64)))[mask]
    np.testing.assert_allclose(smooth(values, cells, scale), expected, rtol=1e-10, atol=1e-12)


@given(places=PLACES, scale=st.floats(0.05, 20), seed=st.integers(0, 100))
@settings(max_examples=40)
def test_the_average_is_its_definition_wherever_patches_lie(
    places: list[tuple[int, int, int]], scale: float, seed: int
) -> None:
    cells = cells_at(places)
    values = np.random.default_rng(seed).normal(scale=5, size=len(cells))
    np.testing.assert_allclose(smooth(values, cells, scale), brute_smooth(values, cells, scale), rtol=1e-9, atol=1e-9)


def test_patches_far_apart_keep_what_they_say() -> None:
    cells = cells_at([(0, 0, 0), (0, 4095, 4095), (0, 0, 4095), (1, 7, 7)])
    values = np.array([3.0, -2.0, 1e6, 0.25])
    np.testing.assert_array_equal(smooth(values, cells, 3.0), values)


@given(places=PLACES, value=st.floats(-1e3, 1e3), scale=st.floats(0.1, 10))
@settings(max_examples=25)
def test_what_all_say_stays_however_ragged_the_slide(
    places: list[tuple[int, int, int]], value: float, scale: float
) -> None:
    cells = cells_at(places)
    np.testing.assert_allclose(smooth(np.full(len(cells), value), cells, scale), value, rtol=1e-12)


@given(places=PLACES, seed=st.integers(0, 100))
@settings(max_examples=25)
def test_the_order_of_patches_and_the_names_and_places_of_slides_do_not_matter(
    places: list[tuple[int, int, int]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cells, values = cells_at(places), rng.normal(size=len(places))
    expected = smooth(values, cells, 1.0)
    order = rng.permutation(len(places))
    renamed = np.array([5, 9, 2])[cells.slides]
    moved = Cells(renamed[order], cells.rows[order] + 11, cells.columns[order] + 3)
    np.testing.assert_allclose(smooth(values[order], moved, 1.0), expected[order], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("turn", ["transpose", "upside down", "mirrored"])
def test_a_slide_turned_or_mirrored_has_the_same_averages(turn: str) -> None:
    _, cells = filled((9, 14), 0.5, seed=3)
    values = np.random.default_rng(4).normal(size=len(cells))
    rows, columns = cells.rows, cells.columns
    turned = {
        "transpose": Cells(cells.slides, columns, rows),
        "upside down": Cells(cells.slides, rows.max() - rows, columns),
        "mirrored": Cells(cells.slides, rows, columns.max() - columns),
    }[turn]
    np.testing.assert_allclose(smooth(values, turned, 1.5), smooth(values, cells, 1.5), rtol=1e-12, atol=1e-12)


def test_another_slide_counts_for_nothing() -> None:
    _, one = filled((6, 6), 0.7, seed=5)
    values = np.random.default_rng(6).normal(size=len(one))
    alone = smooth(values, one, 2.0)
    both = Cells(np.repeat([0, 1], len(one)), np.tile(one.rows, 2), np.tile(one.columns, 2))
    together = smooth(np.concatenate([values, np.full(len(one), 1e9)]), both, 2.0)
    np.testing.assert_array_equal(together[: len(one)], alone)


def test_a_grid_smooths_the_mean_of_the_networks() -> None:
    _, cells = filled((5, 7), 0.8, seed=7)
    one, other = np.random.default_rng(8).normal(size=(2, len(cells)))
    np.testing.assert_array_equal(mean_logit([one]), one)
    grid = Grid(step=50, scale=1.5, networks=2)
    expected = (smooth(one, cells, 1.5) + smooth(other, cells, 1.5)) / 2
    np.testing.assert_allclose(grid.apply([one, other], cells), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": 0}, {"step": -50}, {"step": 2**40}, {"step": 1.5}, {"scale": 0.0}, {"scale": -1.0},
        {"scale": float("nan")}, {"scale": float("inf")}, {"networks": 3}, {"networks": 0}, {"kind": "grid"},
    ],
    ids=str,
)  # fmt: skip
def test_a_grid_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"step": 50, "scale": 1.0}
    Grid.model_validate(good)
    with pytest.raises(ValidationError):
        Grid.model_validate(good | wrong)


@given(places=PLACES, field=st.sampled_from([3, 5, 15]))
@settings(max_examples=40)
def test_neighbours_are_those_of_a_search_of_all(places: list[tuple[int, int, int]], field: int) -> None:
    row_of = {place: row for row, place in enumerate(places)}
    around = range(-(field // 2), field // 2 + 1)
    expected = [
        [[row_of.get((slide, row + down, column + right), -1) for right in around] for down in around]
        for slide, row, column in places
    ]
    found = neighbours(cells_at(places), field)
    assert found.shape == (len(places), field, field)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[:, field // 2, field // 2], np.arange(len(places)))


def test_the_last_column_of_a_slide_does_not_border_on_the_first_nor_on_the_next_slide() -> None:
    edges = list(itertools.product((0, 1), (0, 1, 4094, 4095), (0, 1, 4094, 4095)))
    found = neighbours(cells_at(edges), 15)
    row_of = {place: row for row, place in enumerate(edges)}
    for row, (slide, down, right) in enumerate(edges):
        near = {
            other for (of, y, x), other in row_of.items() if of == slide and abs(y - down) <= 7 and abs(x - right) <= 7
        }
        assert set(found[row][found[row] >= 0].tolist()) == near


def lattice(step: int, *, slides: int = 3, side: int = 6, seed: int = 0, share: float = 0.8) -> Places:
    """Patches of several slides, each with a corner of its own."""
    rng = np.random.default_rng(seed)
    parts = []
    for slide in range(slides):
        rows, columns = np.nonzero(rng.random((side, side)) < share)
        corner = rng.integers(-1000, 1000, 2)
        parts.append((np.full(len(rows), slide), corner[0] + step * columns, corner[1] + step * rows))
    return tuple(np.concatenate(part).astype(np.int64) for part in zip(*parts, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("step", [1, 7, 50, 2**20])
def test_the_step_is_found_wherever_the_slides_begin(step: int) -> None:
    slides, x, y = lattice(step)
    assert find_step(slides, x, y) == step
    order = np.random.default_rng(1).permutation(len(slides))
    assert find_step(np.array([8, 0, 3])[slides][order], x[order] - 5000, y[order] + 10**9) == step
    assert find_step(slides, y, x) == step


CHANGES: dict[str, Callable[[Places], Places]] = {
    "one patch lies between": lambda p: (p[0], p[1] + (np.arange(len(p[1])) == 4), p[2]),
    "one patch is there twice": lambda p: tuple(np.append(values, values[3]) for values in p),  # type: ignore[return-value]
    "one slide has one patch": lambda p: (np.append(p[0], 9), np.append(p[1], 0), np.append(p[2], 0)),
    "nothing is beside anything": lambda p: (p[0], np.arange(len(p[0])) * 50, np.arange(len(p[0])) * 50),
    "one patch lies too far away": lambda p: (
        np.append(p[0], 0), np.append(p[1], p[1][0] + 50 * 5000), np.append(p[2], p[2][0])),
    "one patch lies at the end of the world": lambda p: (
        np.append(p[0], 0), np.append(p[1], np.iinfo(np.int64).max), np.append(p[2], p[2][0])),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_there_is_no_step_where(what: str) -> None:
    places = lattice(50)
    assert find_step(*places) == 50
    assert find_step(*CHANGES[what](places)) is None


def test_a_step_that_no_bundle_may_have_is_none() -> None:
    assert find_step(*lattice(2**20 + 1)) is None


def test_nothing_and_one_patch_have_no_step() -> None:
    for n in (0, 1):
        assert find_step(*np.zeros((3, n), dtype=np.int64)) is None


def test_a_slide_is_on_the_lattice_as_a_whole_or_not_at_all() -> None:
    slides = np.array([0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4])
    x = np.array([1, 101, 0, 50, 25, 7, 9, 9, 0, 50, 50])
    y = np.array([1, 51, 0, 0, 0, 7, 9, 59, 0, 0, 0])
    #      on it | between: none | one | on it | twice at one place: none
    expected = [True, True, False, False, False, False, True, True, False, False, False]
    assert on_lattice(slides, x, y, 50).tolist() == expected
    order = np.random.default_rng(0).permutation(len(slides))
    assert on_lattice(slides[order], x[order] - 10**6, y[order], 50).tolist() == np.array(expected)[order].tolist()


@pytest.mark.parametrize("ends", [(-(2**63), 2**63 - 2), (-(2**62), 2**62), (0, 2**63 - 1), (-(2**63), 0)])
def test_coordinates_whose_distance_no_64_bits_hold_are_off_every_lattice(ends: tuple[int, int]) -> None:
    x, zeros = np.array(ends), np.zeros(2, dtype=np.int64)
    for step in (1, 2, 50, 2**20):
        assert not on_lattice(zeros, x, zeros, step).any()
        assert not on_lattice(zeros, zeros, x, step).any()


def test_the_longest_slide_is_4096_steps() -> None:
    zeros = np.zeros(2, dtype=np.int64)
    assert on_lattice(zeros, np.array([0, 4095 * 50]), zeros, 50).all()
    assert not on_lattice(zeros, np.array([0, 4096 * 50]), zeros, 50).any()


def test_twenty_thousand_patches_on_a_diagonal_take_no_memory() -> None:
    diagonal = np.arange(20_000) * 50
    tracemalloc.start()
    try:
        assert not on_lattice(np.zeros(20_000, dtype=np.int64), diagonal, diagonal, 50).any()
        assert find_step(np.zeros(20_000, dtype=np.int64), diagonal, diagonal) is None
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_twenty_thousand_patches_of_a_slide_have_the_neighbours_that_they_have() -> None:
    rows, columns = np.divmod(np.arange(20_000), 200)
    cells = Cells(np.zeros(20_000, dtype=np.int64), rows, columns)
    found = neighbours(cells, 3)
    assert (found[(rows > 0) & (rows < 99) & (columns > 0) & (columns < 199)] >= 0).all()
    np.testing.assert_array_equal(found[201], [[0, 1, 2], [200, 201, 202], [400, 401, 402]])
    values = columns.astype(np.float64)
    middle = (columns > 50) & (columns < 150)
    np.testing.assert_allclose(smooth(values, cells, 3.0)[middle], values[middle], atol=1e-9)  # linear stays linear


@given(places=PLACES, step=st.integers(1, 300), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_cells_are_counted_from_the_upper_left_patch_of_each_slide(
    places: list[tuple[int, int, int]], step: int, seed: int
) -> None:
    known = cells_at(places)
    corners = np.random.default_rng(seed).integers(-(10**6), 10**6, (3, 2))
    x, y = (corners[known.slides, axis] + step * of for axis, of in ((0, known.columns), (1, known.rows)))
    cells = lay_out(known.slides + 4, x, y, step)
    assert len(cells) == len(places)
    for slide in np.unique(known.slides):
        here = known.slides == slide
        assert len(np.unique(cells.slides[here])) == 1
        np.testing.assert_array_equal(cells.rows[here], known.rows[here] - known.rows[here].min())
        np.testing.assert_array_equal(cells.columns[here], known.columns[here] - known.columns[here].min())
    assert len(np.unique(cells.slides)) == len(np.unique(known.slides))
