"""Writing and marks: drawn on phantom scans they are found, and what a scan shows of itself is not taken for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from clearmargin.data.audit.overlay import MIN_SIDE_PX, Overlay, find_overlay
from clearmargin.data.phantom import draw_patch
from clearmargin.images.read import read_image

NOTHING = Overlay()


def ultrasound(seed: int, height: int = 360, width: int = 480) -> NDArray[np.uint8]:
    """(H, W, 1): speckle over layers, a dark lesion with a sharp wall, fading with depth."""
    rng = np.random.default_rng(seed)
    waves = [ndimage.gaussian_filter(rng.standard_normal((height, width)), (1.5, 3.0)) for _ in range(2)]
    speckle = np.sqrt(np.hypot(*waves))  # a display compresses echoes
    layers = np.abs(ndimage.gaussian_filter(rng.standard_normal((height, width)), (4, 25)))
    y, x = np.mgrid[:height, :width]
    lesion = ((y - height * 0.45) / (height * 0.12)) ** 2 + ((x - width * 0.5) / (width * 0.14)) ** 2 < 1
    tissue = np.where(lesion, 6.0, 60.0 + 40.0 * layers / layers.mean()) * np.exp(-1.1 * y / height)
    image = ndimage.gaussian_filter(tissue, 1.0) * speckle / speckle.mean()
    return np.clip(image, 0, 255).astype(np.uint8)[..., np.newaxis]


def mammogram(seed: int, height: int = 512, width: int = 400) -> NDArray[np.uint16]:
    """(H, W, 1): a breast from the left edge, its glands, and air round it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    depth = 1 - np.hypot((y - height / 2) / (height * 0.4), x / (width * 0.6 + rng.uniform(-30, 30)))
    glands = sum(ndimage.gaussian_filter(rng.standard_normal((height, width)), size) * size for size in (1, 3, 8, 20))
    image = np.clip(4 * depth, 0, 1) * (0.4 + 0.12 * glands + 0.2 * np.clip(depth, 0, 1))
    image += 0.001 * rng.random((height, width))
    return (np.clip(image, 0, 1) * 65535).astype(np.uint16)[..., np.newaxis]


def write(pixels: np.ndarray, text: str, place: tuple[int, int], *, size: int, white: bool = True) -> np.ndarray:
    """The image with the text in Pillow's own font, its edges smoothed."""
    canvas = Image.new("L", (pixels.shape[1], pixels.shape[0]))
    ImageDraw.Draw(canvas).text(place, text, 255, font=ImageFont.load_default(size))
    cover = np.asarray(canvas)[..., np.newaxis] / 255
    ink = np.iinfo(pixels.dtype).max * (0.95 if white else 0.05)
    return (pixels * (1 - cover) + cover * ink).astype(pixels.dtype)


def mark(pixels: np.ndarray, *centres: tuple[int, int], arm: int = 6, thick: int = 2) -> np.ndarray:
    """The image with a calliper cross at each (x, y)."""
    marked, ink = pixels.copy(), round(np.iinfo(pixels.dtype).max * 0.9)
    for x, y in centres:
        marked[y - arm : y + arm + thick, x : x + thick] = ink
        marked[y : y + thick, x - arm : x + arm + thick] = ink
    return marked


class TestNothingDrawn:
    @pytest.mark.parametrize("seed", range(8))
    def test_speckle_and_a_sharp_lesion_are_no_writing(self, seed: int) -> None:
        found = find_overlay(ultrasound(seed))
        assert (found.characters < 2, found.crosses, found.tinted) == (True, 0, 0.0)

    @pytest.mark.parametrize("seed", range(8))
    def test_glands_and_the_edge_of_the_breast_are_no_writing(self, seed: int) -> None:
        assert find_overlay(mammogram(seed)) == NOTHING

    def test_the_edge_of_a_scanned_film_is_no_writing(self) -> None:
        film = mammogram(0)
        film[:, 300:] = 60_000  # one-sided jumps, however long
        film[:20] = 60_000
        assert find_overlay(film) == NOTHING

    @pytest.mark.parametrize("value", [0, 7, 255])
    def test_a_constant_image_has_none(self, value: int) -> None:
        assert find_overlay(np.full((80, 90, 3), value, np.uint8)) == NOTHING

    def test_noise_has_none(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 1), dtype=np.uint8)
        assert find_overlay(noise) == NOTHING

    def test_an_image_too_small_for_a_word_is_not_searched(self) -> None:
        page = write(np.zeros((200, 200, 1), np.uint8), "L CC", (4, 4), size=14)
        assert find_overlay(page).characters == 3
        assert find_overlay(page[: MIN_SIDE_PX - 1]) == NOTHING
        assert find_overlay(np.zeros((MIN_SIDE_PX, 40_000, 1), np.uint8)) == NOTHING


class TestWriting:
    @pytest.mark.parametrize("size", [10, 12, 14, 20, 30])
    def test_a_side_marker_is_a_row_of_three(self, size: int) -> None:
        assert find_overlay(write(mammogram(1), "L CC", (260, 40), size=size)).characters == 3

    @pytest.mark.parametrize("size", [10, 14, 20])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_word_over_speckle_is_found(self, seed: int, size: int) -> None:
        assert find_overlay(write(ultrasound(seed), "LEFT BREAST", (120, 280), size=size)).characters >= 3

    def test_a_name_in_a_large_mammogram_is_found(self) -> None:
        large = np.repeat(np.repeat(mammogram(2), 5, axis=0), 5, axis=1)
        assert find_overlay(write(large, "DOE, JANE", (1300, 200), size=60)).characters >= 5

    def test_writing_up_the_side_is_found(self) -> None:
        turned = np.ascontiguousarray(np.rot90(mammogram(3)))
        assert find_overlay(np.rot90(write(turned, "MED-LAT", (180, 40), size=14), -1)).characters >= 4

    def test_black_letters_on_a_white_label_are_found(self) -> None:
        film = mammogram(4)
        film[30:90, 280:380] = 62_000
        assert find_overlay(write(film, "R ML", (290, 40), size=30, white=False)).characters >= 3

    def test_faint_writing_in_dark_air_is_found(self) -> None:
        film = mammogram(5).astype(np.float64)
        ink = write(np.zeros(film.shape, np.uint16), "CRAN", (260, 40), size=20)
        assert find_overlay((film + 0.2 * ink).clip(0, 65535).astype(np.uint16)).characters >= 3

    @pytest.mark.parametrize("other", [255, 60])
    def test_letters_must_be_of_one_brightness(self, other: int) -> None:
        page = np.zeros((100, 200, 1), np.uint8)
        for number, ink in enumerate((255, other, 255)):
            page[40:60, 40 + 20 * number : 44 + 20 * number] = ink
        assert find_overlay(page).characters == (3 if other == 255 else 2)

    def test_letters_far_apart_are_no_row(self) -> None:
        page = np.zeros((100, 400, 1), np.uint8)
        for x in (40, 160, 280):
            page[40:50, x : x + 3] = 255
        assert find_overlay(page).characters == 1


class TestCallipers:
    @pytest.mark.parametrize(("arm", "thick"), [(5, 1), (6, 2), (9, 3)])
    def test_each_cross_counts_once(self, arm: int, thick: int) -> None:
        scan = mark(ultrasound(0), (160, 160), (310, 165), (240, 110), (240, 215), arm=arm, thick=thick)
        assert find_overlay(scan).crosses == 4

    def test_a_dotted_line_between_them_changes_nothing(self) -> None:
        scan = mark(ultrasound(1), (160, 160), (310, 160))
        scan[160, 170:304:4] = 230
        assert find_overlay(scan).crosses == 2

    @pytest.mark.parametrize("letters", ["LLL", "TTT", "HHH", "EEE"])
    def test_letters_are_no_crosses(self, letters: str) -> None:
        found = find_overlay(write(mammogram(0), letters, (260, 40), size=20))
        assert (found.characters, found.crosses) == (3, 0)


class TestTint:
    def scan(self) -> NDArray[np.uint8]:
        return np.repeat(ultrasound(0), 3, axis=2)

    def test_grey_stored_as_rgb_has_no_tint(self) -> None:
        assert find_overlay(self.scan()).tinted == 0.0

    def test_the_share_of_yellow_pixels_is_told(self) -> None:
        scan = self.scan()
        scan[100:110, 100:120] = (250, 240, 0)
        assert find_overlay(scan).tinted == pytest.approx(200 / (360 * 480))

    def test_tissue_beside_glass_is_no_tint(self) -> None:
        slide = np.full((200, 200, 3), 243, np.uint8)
        slide[:50, :50] = draw_patch(1, seed=3)
        assert find_overlay(slide).tinted == 0.0


class TestInvariants:
    def images(self) -> list[np.ndarray]:
        return [mark(write(ultrasound(seed), "RT AXILLA", (60, 300), size=16), (90, 90), (300, 200)) for seed in (0, 1)]

    def test_16_bits_of_the_same_image_give_the_same(self) -> None:
        for image in self.images():
            assert find_overlay(image.astype(np.uint16) * 257) == find_overlay(image)

    def test_turning_the_image_gives_the_same(self) -> None:
        for image in self.images():
            turned = find_overlay(np.ascontiguousarray(image.transpose(1, 0, 2)))
            assert turned == find_overlay(image)

    @settings(max_examples=40)
    @given(
        st.integers(MIN_SIDE_PX, 90),
        st.integers(MIN_SIDE_PX, 90),
        st.sampled_from([(1, np.uint8), (1, np.uint16), (3, np.uint8), (3, np.uint16)]),
        st.sampled_from([0.001, 0.02, 0.3, 1.0]),
    )
    def test_any_image_gives_an_answer(self, height: int, width: int, kind: tuple[int, type], dense: float) -> None:
        channels, dtype = kind
        rng = np.random.default_rng(height * width)
        shape = (height, width, channels)
        pixels = np.where(rng.random(shape) < dense, rng.integers(0, np.iinfo(dtype).max + 1, shape), 0).astype(dtype)
        found = find_overlay(pixels)
        assert found.characters >= 0
        assert found.crosses >= 0
        assert 0 <= found.tinted <= 1


@pytest.mark.real
class TestRealScans:
    """What a person saw in them."""

    WRITTEN = (
        "benign (1),benign (2),benign (3),benign (4),benign (19),malignant (10),malignant (12),malignant (13),"
        "malignant (15),malignant (2)"
    )
    MEASURED = (
        "benign (5),benign (6),benign (9),benign (11),benign (14),malignant (10),malignant (12),malignant (14),"
        "malignant (15),malignant (2)"
    )
    CLEAN = "benign (12),benign (15),malignant (18),normal (4)"
    LABELLED_FILMS = "mdb002,mdb005,mdb006,mdb009,mdb023,mdb024,mdb028,mdb091"
    FILMS_WITHOUT = "mdb001,mdb010,mdb089,mdb090,mdb092"

    def look(self, real_data: Path, names: str) -> dict[str, Overlay]:
        found = {}
        for name in names.split(","):
            folder, ending = ("mias", "pgm") if name.startswith("mdb") else (f"busi/{name.split()[0]}", "png")
            found[name] = find_overlay(read_image(real_data / folder / f"{name}.{ending}"))
        return found

    def test_words_are_found(self, real_data: Path) -> None:
        assert {name for name, seen in self.look(real_data, self.WRITTEN).items() if seen.characters < 3} == set()

    def test_callipers_are_found(self, real_data: Path) -> None:
        assert {name for name, seen in self.look(real_data, self.MEASURED).items() if seen.crosses < 2} == set()

    def test_labels_on_film_are_found(self, real_data: Path) -> None:
        seen = self.look(real_data, self.LABELLED_FILMS)
        assert {name for name, found in seen.items() if found.characters < 3} == set()

    def test_scans_without_writing_have_none(self, real_data: Path) -> None:
        seen = self.look(real_data, f"{self.CLEAN},{self.FILMS_WITHOUT}")
        assert {name for name, found in seen.items() if found.characters > 1 or found.crosses} == set()

    def test_the_marker_of_a_16_bit_mammogram_is_found(self, real_data: Path) -> None:
        assert find_overlay(read_image(real_data / "mammo16" / "1_L_CC.png")).characters == 3

    def test_stained_tissue_has_none_even_in_grey(self, real_data: Path) -> None:
        for file in sorted((real_data / "breakhis").glob("*.png")):
            grey = np.asarray(Image.open(file).convert("L"))[..., np.newaxis]
            assert find_overlay(grey).characters < 2, file.name
