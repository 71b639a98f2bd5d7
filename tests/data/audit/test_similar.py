"""Near duplicates: planted copies are found, what only resembles is not, and no data set makes the search blow up."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clearmargin.data.audit import neighbours
from clearmargin.data.audit.alignment import Pictures, similarities
from clearmargin.data.audit.neighbours import CROPPED, find_candidates, invariants, orientation_scores, spectra
from clearmargin.data.audit.similar import (
    FLAT,
    LIKELY,
    SimilarGroup,
    _Search,
    are_flat,
    find_similar,
    fine_thumbnail,
    thumbnail,
)
from clearmargin.data.phantom import PhantomSettings, draw_patch, draw_slide

Pixels = NDArray[np.uint8]
Change = Callable[[Pixels, np.random.Generator], Pixels]
COPIES = 200


def turned(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    way = int(rng.integers(1, 8))
    rotated = np.rot90(pixels, way % 4)
    return np.ascontiguousarray(rotated[:, ::-1] if way >= 4 else rotated)


def recompressed(pixels: Pixels, rng: np.random.Generator, quality: int = 50) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def brightened(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    gamma, contrast, brightness = rng.uniform(0.8, 1.2, 3)
    values = (pixels / 255.0) ** gamma
    values = ((values - values.mean()) * contrast + values.mean()) * brightness
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


def cropped(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Of each side up to 5 %, in whole pixels."""
    height, width = pixels.shape[:2]
    top, bottom = rng.integers(0, round(0.05 * height) + 1, 2)
    left, right = rng.integers(0, round(0.05 * width) + 1, 2)
    return np.ascontiguousarray(pixels[top : height - bottom, left : width - right])


def cropped_all_round(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    y, x = round(0.04 * height), round(0.04 * width)
    return np.ascontiguousarray(pixels[y : height - y, x : width - x])


def resized(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    factor = rng.uniform(0.7, 2)
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


CHANGES: dict[str, Change] = {
    "turned": turned,
    "quality 50": recompressed,
    "quality 40": lambda pixels, rng: recompressed(pixels, rng, 40),
    "brightened": brightened,
    "cropped": cropped,
    "cropped all round": cropped_all_round,
    "resized": resized,
    "turned, recompressed, brightened": lambda pixels, rng: brightened(recompressed(turned(pixels, rng), rng), rng),
    "all": lambda pixels, rng: brightened(recompressed(cropped(turned(pixels, rng), rng), rng), rng),
}
SINGLE = [name for name in CHANGES if name not in ("turned, recompressed, brightened", "all")]


class Planted:
    """Originals, with copies of some of them planted, and what is found."""

    def __init__(self, originals: Sequence[Pixels], *, copies: int = COPIES) -> None:
        rng = np.random.default_rng(0)
        thumbnails = [thumbnail(pixels) for pixels in originals]
        self.flat = int(are_flat(np.stack(thumbnails)).sum())
        vivid = np.flatnonzero(~are_flat(np.stack(thumbnails)))
        self.picture = list(range(len(originals)))
        self.rows: dict[str, list[tuple[int, int]]] = {}
        for name, change in CHANGES.items():
            self.rows[name] = []
            for original in rng.choice(vivid, copies, replace=False).tolist():
                self.rows[name].append((original, len(thumbnails)))
                self.picture.append(original)
                thumbnails.append(thumbnail(change(originals[original], rng)))
        self.groups = find_similar(np.stack(thumbnails))

    def recall(self, name: str) -> float:
        likely = {
            row: place for place, group in enumerate(self.groups) if group.certainty == "likely" for row in group.rows
        }
        found = [original in likely and likely[original] == likely.get(copy) for original, copy in self.rows[name]]
        return float(np.mean(found))

    def false(self) -> list[SimilarGroup]:
        return [group for group in self.groups if len({self.picture[row] for row in group.rows}) > 1]


def phantom_patches(slides: int) -> list[Pixels]:
    patches = []
    for index in range(slides):
        slide = draw_slide(index, PhantomSettings(patients=slides))
        for row, column in np.argwhere(slide.tissue):
            patches.append(slide.image[50 * row : 50 * row + 50, 50 * column : 50 * column + 50])
    return [patch for patch in patches if patch.shape == (50, 50, 3)]


def noisy(base: NDArray[np.uint8] | NDArray[np.float64], count: int, sigma: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).normal(0, sigma, (count, *base.shape))
    return np.clip(base + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def patches() -> list[Pixels]:
    return phantom_patches(26)


@pytest.fixture(scope="module")
def planted(patches: list[Pixels]) -> Planted:
    return Planted(patches)


@pytest.fixture(scope="module")
def real_planted() -> Planted:
    from tests.conftest import REAL_DATA

    files = sorted((REAL_DATA / "idc").glob("*/[01]/*.png"))[::2]
    if not files:
        pytest.skip("the real images are not beside this checkout")
    return Planted([np.asarray(Image.open(file).convert("RGB")) for file in files])


class TestPlantedCopies:
    def test_there_are_enough_others(self, patches: list[Pixels]) -> None:
        assert len(patches) >= 2_000

    @pytest.mark.parametrize("name", CHANGES)
    def test_phantom_copies_are_found(self, planted: Planted, name: str) -> None:
        assert planted.recall(name) >= (0.95 if name in SINGLE else 0.9)

    def test_phantom_patches_that_are_no_copies_are_left_alone(self, planted: Planted, patches: list[Pixels]) -> None:
        assert [group for group in planted.false() if group.certainty == "likely"] == []
        assert len(planted.false()) <= len(patches) / 1_000

    @pytest.mark.real
    @pytest.mark.parametrize("name", CHANGES)
    def test_real_copies_are_found(self, real_data: Path, real_planted: Planted, name: str) -> None:
        assert real_planted.recall(name) >= (0.97 if name in SINGLE else 0.95)

    @pytest.mark.real
    def test_real_patches_that_are_no_copies_are_left_alone(self, real_data: Path, real_planted: Planted) -> None:
        assert [group for group in real_planted.false() if group.certainty == "likely"] == []
        assert len(real_planted.false()) <= 1

    def test_the_eight_ways_to_lay_a_picture_are_one_group(self) -> None:
        patch = draw_patch(1, seed=3)
        ways = [np.rot90(side, quarter) for side in (patch, patch[:, ::-1]) for quarter in range(4)]
        others = [draw_patch(0, seed=seed) for seed in range(20)]
        groups = find_similar(np.stack([thumbnail(np.ascontiguousarray(image)) for image in [*ways, *others]]))
        assert [group.rows for group in groups] == [tuple(range(8))]
        assert groups[0].similarity > 0.98
        assert groups[0].certainty == "likely"


class TestOfGroups:
    def test_the_order_of_the_images_does_not_matter(self, patches: list[Pixels]) -> None:
        rng = np.random.default_rng(5)
        some = patches[:300]
        some += [CHANGES["all"](patch, rng) for patch in some[:80]] + [
            CHANGES["turned"](patch, rng) for patch in some[:40]
        ]
        thumbnails = np.stack([thumbnail(patch) for patch in some])
        order = rng.permutation(len(some))
        straight = {(group.rows, group.similarity) for group in find_similar(thumbnails)}
        shuffled = {
            (tuple(sorted(order[list(group.rows)].tolist())), group.similarity)
            for group in find_similar(thumbnails[order])
        }
        assert straight == shuffled
        assert len(straight) >= 70

    def test_copies_of_one_file_are_no_group_by_themselves_and_stand_in_the_group_of_a_near_copy(self) -> None:
        one, other = draw_patch(1, seed=1), draw_patch(0, seed=2)
        near = brightened(one, np.random.default_rng(0))
        thumbnails = np.stack([thumbnail(image) for image in (one, other, one, near, other)])
        groups = find_similar(thumbnails, identical=["a", "b", "a", "c", "b"])
        assert [group.rows for group in groups] == [(0, 2, 3)]

    def test_the_same_pixels_in_different_files_are_a_group_of_similarity_one(self) -> None:
        picture = thumbnail(draw_patch(1, seed=1))
        groups = find_similar(np.stack([picture, picture]), identical=["png", "bmp"])
        assert groups == [SimilarGroup((0, 1), 1.0, "likely")]

    def test_a_chain_of_overlapping_windows_is_not_one_group(self) -> None:
        slide = draw_slide(0, PhantomSettings(patients=1)).image
        strip = slide[slide.shape[0] // 2 :][:50]
        windows = [np.ascontiguousarray(strip[:, x : x + 50]) for x in range(strip.shape[1] - 50)]
        groups = find_similar(np.stack([thumbnail(window) for window in windows]))
        assert groups
        assert max(group.rows[-1] - group.rows[0] for group in groups) <= 16

    def test_a_group_tells_its_lowest_similarity(self) -> None:
        patch, rng = draw_patch(1, seed=4), np.random.default_rng(0)
        images = [patch, turned(patch, rng), recompressed(patch, rng, 25)]
        pictures = Pictures.of(np.stack([thumbnail(image) for image in images]))
        (group,) = find_similar(pictures.thumbnails)
        pairs = similarities(pictures, np.array([0, 0, 1]), np.array([1, 2, 2]))
        assert group.similarity == pytest.approx(np.sort(pairs)[:2].max(), abs=0.02)
        assert group.similarity < pairs[0] - 0.01

    def test_without_images_there_are_no_groups(self) -> None:
        assert find_similar(np.zeros((0, 32, 32), dtype=np.uint8)) == []
        assert find_similar(thumbnail(draw_patch(1, seed=1))[None]) == []


class TestInvariants:
    def test_flips_and_turns_leave_them_as_they_are(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
        ways = np.stack([np.rot90(side, quarter) for side in (image, image[:, ::-1]) for quarter in range(4)])
        np.testing.assert_allclose(invariants(spectra(ways)), invariants(spectra(ways[:1])).repeat(8, 0), atol=1e-5)

    def test_two_noises_differ(self) -> None:
        noise = invariants(spectra(np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8)))
        assert np.linalg.norm(noise[0] - noise[1]) > 0.3

    def test_the_spectrum_is_that_of_scipy_and_blind_to_linear_contrast(self) -> None:
        from scipy.fft import dctn

        image = np.random.default_rng(0).integers(50, 150, (1, 32, 32), dtype=np.uint8)
        expected = dctn(image[0].astype(float), norm="ortho")[:8, :8]
        expected[0, 0] = 0
        np.testing.assert_allclose(spectra(image)[0], expected / np.linalg.norm(expected), atol=1e-5)
        np.testing.assert_allclose(spectra(image)[0], spectra(image + 37)[0], atol=1e-5)

    def test_orientation_scores_are_correlations_of_the_turned_low_frequencies(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8)
        one, other = spectra(images[:1]), images[1]
        scores = orientation_scores(one, spectra(images[1:]))[0]
        for way in range(8):
            laid = other.T if way & 4 else other
            laid = laid[:: -1 if way & 2 else 1, :: -1 if way & 1 else 1]
            assert scores[way] == pytest.approx(float((one * spectra(laid[None])).sum()), abs=1e-5)


class TestBounds:
    """Work is counted, not timed: it may grow with the number of images only in proportion."""

    @pytest.fixture
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
        counts = {"laid": 0, "near": 0}
        compare, near = _Search._compare, neighbours._near

        def count_compare(self: _Search, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.floating]:
            counts["laid"] += len(first)
            return compare(self, first, second)

        def count_near(*arguments: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
            counts["near"] += len(arguments[2]) * len(arguments[3])
            return near(*arguments)

        monkeypatch.setattr(_Search, "_compare", count_compare)
        monkeypatch.setattr(neighbours, "_near", count_near)
        return counts

    def test_blank_images_are_not_compared(self, counted: dict[str, int]) -> None:
        blank = noisy(np.full((32, 32), 240.0), 20_000, 1.0)
        assert are_flat(blank).all()
        assert find_similar(blank) == []
        assert counted == {"laid": 0, "near": 0}

    def test_equal_thumbnails_are_compared_once(self, counted: dict[str, int]) -> None:
        picture = thumbnail(draw_patch(1, seed=1))
        (group,) = find_similar(np.broadcast_to(picture, (20_000, 32, 32)))
        assert len(group.rows) == 20_000
        assert counted["laid"] == 0

    def test_a_crowd_of_copies_is_one_group_for_a_few_comparisons_each(self, counted: dict[str, int]) -> None:
        crowd = noisy(thumbnail(draw_patch(1, seed=1)), 4_000, 2.0)
        (group,) = find_similar(crowd)
        assert len(group.rows) == 4_000
        assert counted["laid"] <= 4 * 4_000
        assert counted["near"] <= 4 * 256 * 4_000

    def test_images_that_differ_in_fine_detail_only_have_a_few_candidates_each(self, counted: dict[str, int]) -> None:
        y, x = np.mgrid[:32, :32] / 31
        lookalikes = noisy(120 + 80 * np.exp(-3 * ((x - 0.5) ** 2 + (y - 0.4) ** 2)), 3_000, 6.0)
        assert find_similar(lookalikes) == []
        assert counted["laid"] <= 8 * 3_000
        assert counted["near"] <= 2 * 25 * 256 * 3_000

    def test_candidates_are_bounded_and_each_pair_comes_once(self) -> None:
        crowd = noisy(thumbnail(draw_patch(1, seed=1)), 2_000, 2.0)
        first, second = find_candidates(spectra(crowd), spectra(crowd, cropped=CROPPED), nearest=3)
        assert len(first) <= 3 * 2_000
        assert (first < second).all()
        assert len(np.unique(first * 2_000 + second)) == len(first)


class TestThumbnails:
    def test_sixteen_bit_and_grey_images_look_like_their_eight_bit_colour_versions(self) -> None:
        grey = draw_patch(1, seed=1)[:, :, :1]
        expected = thumbnail(grey.repeat(3, axis=2))
        assert np.array_equal(thumbnail(grey), expected)
        assert np.array_equal(thumbnail(grey[:, :, 0]), expected)
        assert np.array_equal(thumbnail(grey.astype(np.uint16) * 257), expected)

    @pytest.mark.parametrize("shape", [(1, 1, 3), (50, 31, 3), (7, 2_000, 1), (4_000, 3_000, 3)])
    def test_any_size_is_squeezed_into_a_square(self, shape: tuple[int, int, int]) -> None:
        pixels = np.zeros(shape, dtype=np.uint8)
        assert thumbnail(pixels).shape == (32, 32)
        fine = fine_thumbnail(pixels)
        assert (fine is not None) == (min(shape[:2]) >= 128)
        assert fine is None or fine.shape == (64, 64)

    def test_flipping_an_image_flips_its_thumbnail(self) -> None:
        patch = draw_patch(1, seed=1)
        difference = thumbnail(np.ascontiguousarray(patch[:, ::-1])).astype(int) - thumbnail(patch)[:, ::-1]
        assert np.abs(difference).max() <= 1

    def test_flat_is_what_varies_less_than_the_limit(self) -> None:
        halves = np.zeros((2, 32, 32), dtype=np.uint8)
        halves[0, 16:], halves[1, 16:] = 2 * FLAT - 1, 2 * FLAT
        assert are_flat(halves).tolist() == [True, False]


@pytest.mark.real
class TestRealData:
    def test_no_two_mammograms_are_alike_and_each_is_like_its_copy(self, real_data: Path) -> None:
        images = [np.asarray(Image.open(file)) for file in sorted((real_data / "mias").glob("*.pgm"))]
        assert (
            find_similar(
                np.stack([thumbnail(image) for image in images]), fine=[fine_thumbnail(image) for image in images]
            )
            == []
        )
        rng = np.random.default_rng(0)
        both = images + [CHANGES["all"](np.stack([image] * 3, axis=2), rng) for image in images]
        groups = find_similar(
            np.stack([thumbnail(image) for image in both]), fine=[fine_thumbnail(image) for image in both]
        )
        assert [group.rows for group in groups] == [(row, row + len(images)) for row in range(len(images))]

    def test_breastmnist_has_its_copies_across_splits_and_labels(self, real_data: Path) -> None:
        table = np.load(real_data / "breastmnist" / "breastmnist_trainval.npz")
        images = np.concatenate([table["train_images"], table["val_images"]])
        labels = np.concatenate([table["train_labels"], table["val_labels"]]).ravel()
        groups = [
            group
            for group in find_similar(np.stack([thumbnail(image) for image in images]))
            if group.certainty == "likely"
        ]
        assert 95 <= len(groups) <= 115
        assert sum(group.rows[0] < 546 <= group.rows[-1] for group in groups) >= 28
        assert sum(len(set(labels[list(group.rows)])) > 1 for group in groups) >= 1

    def test_what_phash_calls_equal_is_found_where_the_detail_agrees(self, real_data: Path) -> None:
        import imagehash

        table = np.load(real_data / "breastmnist" / "breastmnist_trainval.npz")
        images = np.concatenate([table["train_images"], table["val_images"]])
        pictures = Pictures.of(np.stack([thumbnail(image) for image in images]))
        bits = np.stack([imagehash.phash(Image.fromarray(image)).hash.ravel() for image in images])
        distance = (bits[:, None] != bits[None]).sum(axis=2)
        first, second = np.nonzero(np.triu(distance == 0, k=1))
        assert len(first) >= 20
        alike = similarities(pictures, first, second) >= LIKELY
        assert alike.mean() > 0.9
        group_of = {row: place for place, group in enumerate(find_similar(pictures.thumbnails)) for row in group.rows}
        for one, other in zip(first[alike].tolist(), second[alike].tolist(), strict=True):
            assert group_of[one] == group_of[other]
        # And the other way round: what is found, phash sees as near too (unrelated hashes differ in 32 bits of 64).
        found = [distance[group.rows[0], row] for group in find_similar(pictures.thumbnails) for row in group.rows[1:]]
        assert np.median(found) <= 8
