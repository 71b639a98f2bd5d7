"""How images look: each measure against a reference, each problem planted and found, and nothing else told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from clearmargin.data.audit.measure import MEASURES, build_measures, measure_image
from clearmargin.data.audit.quality import find_quality_problems
from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.data.phantom import draw_patch
from clearmargin.images.read import read_image
from clearmargin.types import Finding

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 3]))
BYTES = arrays.arrays(np.uint8, SHAPES)


def measured(pixels: np.ndarray) -> dict[str, float]:
    return dict(zip(MEASURES, measure_image(pixels).tolist(), strict=True))


def manifest_of(images: Sequence[np.ndarray]) -> Manifest:
    columns = {
        "path": [f"/data/{number}.png" for number in range(len(images))],
        "label": [0] * len(images),
        "width": [image.shape[1] for image in images],
        "height": [image.shape[0] for image in images],
    }
    return build_manifest(columns, root=Path("/data"), source="folder")


def problems(images: Sequence[np.ndarray]) -> list[Finding]:
    return find_quality_problems(manifest_of(images), build_measures(map(measure_image, images)))


def told(images: Sequence[np.ndarray]) -> list[tuple[str, str, str, list[int]]]:
    """Kind, severity, certainty and the numbers of the images, of each finding."""
    return [
        (found.kind, found.severity, found.certainty, [int(Path(path).stem) for path in found.paths])
        for found in problems(images)
    ]


def tissue(count: int, px: int = 50) -> list[np.ndarray]:
    return [draw_patch(1 if seed % 2 else 0, seed=seed, patch_px=px) for seed in range(count)]


def mammogram(seed: int, height: int = 160, width: int = 128) -> np.ndarray:
    """uint8 (H, W, 1): a breast from the left edge, and air round it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    depth = 1 - np.hypot((y - height / 2) / (height * 0.4), x / (width * rng.uniform(0.5, 0.7)))
    glands = sum(ndimage.gaussian_filter(rng.standard_normal((height, width)), size) * size for size in (2, 8))
    image = np.clip(4 * depth, 0, 1) * (0.45 + 0.1 * glands + 0.2 * np.clip(depth, 0, 1))
    return np.clip(255 * image + rng.normal(0, 1, image.shape), 0, 255).astype(np.uint8)[..., np.newaxis]


def ultrasound(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """uint8 (H, W, 1): bright at the skin, speckled, dark at depth, a dark lesion; no background."""
    rng = np.random.default_rng(seed)
    waves = [ndimage.gaussian_filter(rng.standard_normal((height, width)), (1.5, 3)) for _ in range(2)]
    speckle = np.sqrt(np.hypot(*waves))
    y, x = np.mgrid[:height, :width]
    lesion = np.hypot((y - height * 0.5) / (height * 0.15), (x - width * rng.uniform(0.3, 0.7)) / (width * 0.15)) < 1
    image = np.where(lesion, 8, 110) * np.exp(-2.5 * y / height) * speckle / speckle.mean()
    return np.clip(image, 0, 255).astype(np.uint8)[..., np.newaxis]


def written(pixels: np.ndarray, text: str) -> np.ndarray:
    canvas = Image.new("L", (pixels.shape[1], pixels.shape[0]))
    ImageDraw.Draw(canvas).text((pixels.shape[1] // 2, 8), text, 240, font=ImageFont.load_default(12))
    return np.maximum(pixels, np.asarray(canvas)[..., np.newaxis])


def wide(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 257


class TestMeasures:
    @given(BYTES)
    def test_every_image_has_finite_measures(self, pixels: np.ndarray) -> None:
        row = measure_image(pixels)
        assert row.shape == (len(MEASURES),)
        assert np.isfinite(row).all()

    @given(arrays.arrays(np.uint16, SHAPES))
    def test_every_image_of_16_bits_has_finite_measures(self, pixels: np.ndarray) -> None:
        assert np.isfinite(measure_image(pixels)).all()

    @given(BYTES)
    def test_16_bits_of_the_same_image_have_the_same_measures(self, pixels: np.ndarray) -> None:
        np.testing.assert_allclose(measure_image(wide(pixels)), measure_image(pixels), rtol=1e-3, atol=1e-4)

    @given(BYTES)
    def test_means_and_shares_agree_with_their_definition(self, pixels: np.ndarray) -> None:
        found = measured(pixels)
        red, green, blue = (pixels[..., 0 if pixels.shape[2] == 1 else channel] / 255 for channel in range(3))
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        chroma = np.ptp(pixels.astype(int), axis=2)
        expected = {
            "red": red.mean(),
            "green": green.mean(),
            "blue": blue.mean(),
            "peak": grey.max(),
            "dark": (grey <= 1.5 / 255).mean(),
            "coloured": (chroma > 12).mean(),
            "clipped": ((chroma > 12) & (pixels.max(axis=2) >= 254)).mean(),
        }
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=2e-6)
        assert found["spread"] == pytest.approx(grey.std(), abs=2e-5)

    def test_spread_is_zero_for_a_constant_image_only(self) -> None:
        flat = np.full((40, 40, 3), (200, 150, 190), np.uint8)
        assert measured(flat)["spread"] == 0
        large = np.full((1000, 1000, 1), 700, np.uint16)
        assert measured(large)["spread"] == 0
        large[500, 999] = 701
        assert measured(large)["spread"] > 0

    def test_a_sample_of_a_large_image_is_enough(self) -> None:
        large = mammogram(0, 1280, 1024)  # 1.3 million pixels, of which a fifth is looked at
        found, grey = measured(large), large[..., 0] / 255
        sharp = ndimage.laplace(grey)[1:-1, 1:-1]
        slope = np.stack(np.gradient(grey))[:, 1:-1, 1:-1]
        rounding = 1 / (12 * 255**2)
        blur = np.sqrt(2 * (np.mean((slope**2).sum(axis=0)) - rounding) / (np.mean(sharp**2) - 20 * rounding))
        assert found["red"] == pytest.approx(grey.mean(), rel=0.02)
        assert found["spread"] == pytest.approx(grey.std(), rel=0.02)
        assert found["blur_px"] == pytest.approx(blur, rel=0.02)

    def test_a_table_has_a_row_for_each_image(self) -> None:
        table = build_measures([measure_image(patch) for patch in tissue(3)])
        assert (list(table), len(table)) == (list(MEASURES), 3)
        assert len(build_measures([])) == 0

    def test_a_row_is_small(self) -> None:
        row = measure_image(tissue(1)[0])
        assert 277_524 * (row.nbytes + 112 + 8) < 60 * 2**20  # with its header, and a list's pointer to it


class TestBlurWidth:
    @pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0, 3.0])
    def test_it_is_the_sigma_of_blurred_noise(self, sigma: float) -> None:
        noise = np.random.default_rng(0).standard_normal((400, 400))
        soft = ndimage.gaussian_filter(noise, sigma, mode="wrap")
        pixels = (32768 + 10000 * soft / soft.std()).clip(0, 65535).astype(np.uint16)[..., np.newaxis]
        # Differences between neighbours see a little less than derivatives.
        assert measured(pixels)["blur_px"] == pytest.approx(sigma, rel=0.15 / sigma + 0.03)

    def test_noise_has_the_least(self) -> None:
        noise = np.random.default_rng(0).integers(0, 65536, (300, 300, 1)).astype(np.uint16)
        assert measured(noise)["blur_px"] == pytest.approx(np.sqrt(0.1), rel=0.02)

    def test_contrast_and_brightness_do_not_matter(self) -> None:
        soft = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((200, 200)), 1.5)
        dim, strong = (
            (level + contrast * soft / soft.std()).astype(np.uint16)[..., np.newaxis]
            for level, contrast in ((15_000, 3_000), (40_000, 6_000))
        )
        assert measured(strong)["blur_px"] == pytest.approx(measured(dim)["blur_px"], rel=0.02)


class TestNothingWrong:
    def test_stained_tissue(self) -> None:
        assert problems(tissue(60)) == []

    def test_tissue_beside_glass(self) -> None:
        patches = tissue(40)
        for number, patch in enumerate(patches):
            patch[: number + 5] = 243
        assert problems(patches) == []

    def test_mammograms(self) -> None:
        assert problems([mammogram(seed) for seed in range(40)]) == []

    def test_ultrasound(self) -> None:
        assert problems([ultrasound(seed) for seed in range(40)]) == []

    def test_one_image_and_none(self) -> None:
        assert problems([mammogram(0)]) == []
        empty = manifest_of([mammogram(0)]).keep(np.array([False]))
        assert find_quality_problems(empty, build_measures([])) == []

    def test_rows_without_measures_are_passed_over(self) -> None:
        images = [mammogram(seed) for seed in range(40)]
        table = build_measures(map(measure_image, images))
        table.iloc[[0, 3]] = np.nan
        assert find_quality_problems(manifest_of(images), table) == []

    def test_sizes_may_be_unknown(self) -> None:
        manifest = manifest_of(tissue(40))
        frame = manifest.frame.assign(width=pd.array([None] * 40, dtype="Int64"))
        table = build_measures(map(measure_image, tissue(40)))
        assert find_quality_problems(Manifest(frame, manifest.root, "folder"), table) == []


class TestBlank:
    @pytest.mark.parametrize("value", [0, 128, 255])
    def test_one_value_is_certain(self, value: int) -> None:
        images = [*tissue(3), np.full((50, 50, 3), value, np.uint8)]
        assert told(images) == [("blank", "warning", "certain", [3])]

    def test_noise_on_glass_is_likely(self) -> None:
        rng = np.random.default_rng(0)
        glass = (243 + rng.normal(0, 1.5, (50, 50, 3))).astype(np.uint8)
        images = [*tissue(3), glass, np.full((50, 50, 3), 7, np.uint8)]
        assert told(images) == [("blank", "warning", "certain", [4]), ("blank", "warning", "likely", [3])]

    def test_pale_tissue_is_not_blank(self) -> None:
        pale = [(225 + (patch.astype(float) - patch.mean()) * 0.3).astype(np.uint8) for patch in tissue(40)]
        assert [found for found in told(pale) if found[0] == "blank"] == []

    def test_the_finding_says_how_many_which_and_what_to_do(self) -> None:
        found = problems([np.zeros((20, 20, 1), np.uint8)] * 2)[0]
        assert found.message == (
            "2 images have one value in every pixel, the first is '/data/0.png': there is nothing in it."
        )
        assert (found.count, found.paths) == (2, ("/data/0.png", "/data/1.png"))
        assert "--exclude FILE" in found.fix


class TestFaint:
    @pytest.mark.parametrize("bits", [10, 11, 12])
    def test_few_bits_stored_in_16_are_faint_not_blank(self, bits: int) -> None:
        stored = mammogram(0).astype(np.uint16) << (bits - 8)
        assert told([stored, wide(mammogram(1))]) == [("faint", "warning", "likely", [0])]

    def test_black_with_noise_is_blank_not_faint(self) -> None:
        noise = np.random.default_rng(0).integers(0, 900, (100, 100, 1)).astype(np.uint16)
        assert told([noise]) == [("blank", "warning", "likely", [0])]


class TestSaturated:
    def test_a_mask_among_images_is_only_black_and_white(self) -> None:
        mask = np.zeros((96, 128, 1), np.uint8)
        mask[30:60, 40:80] = 255
        found = problems([*(ultrasound(seed) for seed in range(5)), mask])
        assert [(entry.kind, entry.certainty, entry.paths) for entry in found] == [
            ("saturated", "likely", ("/data/5.png",))
        ]
        assert "mask" in found[0].message

    def test_too_much_contrast_is_found_in_grey(self) -> None:
        burnt = np.clip(mammogram(5).astype(int) * 2, 0, 255).astype(np.uint8)
        assert told([*(mammogram(seed) for seed in range(5)), burnt]) == [("saturated", "warning", "likely", [5])]

    def test_a_black_background_does_not_count(self) -> None:
        dark = mammogram(0)
        dark[:, 60:] = 0
        assert told([dark]) == []

    def test_white_glass_does_not_count(self) -> None:
        patches = tissue(5)
        patches[0][:45] = 255
        assert told(patches) == []

    def test_black_in_a_coloured_image_counts(self) -> None:
        patches = tissue(5)
        patches[2][:, :20] = 0
        assert told(patches) == [("saturated", "warning", "likely", [2])]

    @pytest.mark.parametrize(("rows", "severity", "certainty"), [(18, "note", "possible"), (30, "warning", "likely")])
    def test_a_colour_channel_at_its_end_counts(self, rows: int, severity: str, certainty: str) -> None:
        patches = tissue(5)
        patches[4][:rows] = (255, 150, 200)
        patches[4][:rows, ::2] = (255, 120, 170)
        assert told(patches) == [("saturated", severity, certainty, [4])]


class TestBlurred:
    def blur(self, patch: np.ndarray, sigma: float) -> np.ndarray:
        return ndimage.gaussian_filter(patch, (sigma, sigma, 0))

    @pytest.mark.parametrize("sigma", [2.5, 4.0])
    def test_a_soft_patch_among_sharp_ones_is_found(self, sigma: float) -> None:
        patches = tissue(60)
        patches[7] = self.blur(patches[7], sigma)
        assert [(kind, where) for kind, _, _, where in told(patches)] == [("blurred", [7])]

    @pytest.mark.parametrize("sigma", [4.0, 5.0, 6.0])
    def test_the_softer_it_is_the_surer_although_rounding_is_all_that_is_sharp(self, sigma: float) -> None:
        patches = tissue(60)
        for number in (7, 8, 9):
            patches[number] = self.blur(patches[number], sigma)
        assert [where for kind, _, _, where in told(patches) if kind == "blurred"] == [[7, 8, 9]]

    def test_few_images_are_not_compared(self) -> None:
        patches = tissue(20)
        patches[7] = self.blur(patches[7], 4.0)
        assert told(patches) == []

    def test_each_size_is_compared_with_its_own(self) -> None:
        large = [np.repeat(np.repeat(patch, 4, axis=0), 4, axis=1) for patch in tissue(40)]
        assert told([*tissue(40), *(self.blur(patch, 3.0) for patch in large)]) == []

    def test_a_data_set_that_is_soft_throughout_has_no_outlier(self) -> None:
        assert told([self.blur(patch, 3.0) for patch in tissue(40)]) == []


class TestInverted:
    def test_one_negative_among_mammograms_is_found(self) -> None:
        images = [mammogram(seed) for seed in range(12)]
        images[4] = 255 - images[4]
        assert told(images) == [("inverted", "warning", "likely", [4])]

    def test_a_whole_set_of_negatives_is_found(self) -> None:
        assert told([255 - mammogram(seed) for seed in range(12)]) == [("inverted", "warning", "likely", [*range(12)])]

    def test_the_right_ones_among_many_negatives_are_not_told(self) -> None:
        images = [mammogram(seed) if seed < 5 else 255 - mammogram(seed) for seed in range(40)]
        assert told(images) == [("inverted", "warning", "likely", [*range(5, 40)])]

    def test_16_bits_and_grey_stored_as_rgb_are_found_too(self) -> None:
        images = [65535 - wide(mammogram(0)), np.repeat(255 - mammogram(1), 3, axis=2), mammogram(2), mammogram(3)]
        assert told(images) == [("inverted", "warning", "likely", [0, 1])]

    def test_12_bits_inverted_within_their_range_are_found(self) -> None:
        stored = (4095 - 16 * mammogram(0).astype(np.uint16)) * 8  # brighter than what is told as faint
        assert told([stored]) == [("inverted", "warning", "likely", [0])]

    def test_a_negative_without_background_is_possible(self) -> None:
        images = [ultrasound(seed) for seed in range(40)]
        images[9] = 255 - images[9]
        assert told(images) == [("inverted", "note", "possible", [9])]

    def test_stained_tissue_on_glass_is_never_inverted(self) -> None:
        slides = [np.full((90, 90, 3), 243, np.uint8) for _ in range(40)]
        for slide, patch in zip(slides, tissue(40), strict=True):
            slide[20:70, 20:70] = patch
        assert told(slides) == []

    def test_dust_on_glass_among_coloured_patches_is_not_inverted(self) -> None:
        dust = np.full((50, 50, 3), 243.0)
        dust[20:40, 10:30] = 60
        patches = [*tissue(20), ndimage.gaussian_filter(dust, (3, 3, 0)).astype(np.uint8)]
        assert [found for found in told(patches) if found[0] == "inverted"] == []


class TestBurnedIn:
    def test_a_side_marker_is_likely_and_the_fix_speaks_of_names(self) -> None:
        images = [mammogram(seed) for seed in range(4)]
        images[1] = written(images[1], "L CC")
        (found,) = problems(images)
        assert (found.kind, found.severity, found.certainty) == ("burned_in_text", "warning", "likely")
        assert found.paths == ("/data/1.png",)
        assert "writing in 1" in found.message
        assert "name" in found.fix
        assert "mask" in found.fix

    def test_two_letters_are_possible(self) -> None:
        images = [mammogram(seed) for seed in range(4)]
        images[2] = written(images[2], "R  T")
        assert told(images) == [("burned_in_text", "note", "possible", [2])]

    def test_callipers_and_colour_are_told_apart(self) -> None:
        crossed, tinted = ultrasound(0, 192, 256), np.repeat(ultrasound(1, 192, 256), 3, axis=2)
        for y, x in ((90, 60), (95, 180)):
            crossed[y - 6 : y + 8, x : x + 2] = crossed[y : y + 2, x - 6 : x + 8] = 235
        tinted[20:60, 30:32] = (250, 240, 20)
        (found,) = problems([crossed, tinted, ultrasound(2, 192, 256)])
        assert found.count == 2
        assert "calliper crosses in 1, colour over grey in 1" in found.message


def test_an_empty_image_is_told_as_that_alone() -> None:
    blank = np.full((96, 128, 1), 255, np.uint8)
    assert told([*(ultrasound(seed) for seed in range(40)), blank]) == [("blank", "warning", "certain", [40])]


def test_nothing_blocks() -> None:
    images = [np.zeros((96, 128, 1), np.uint8), 255 - mammogram(0), written(mammogram(1), "NAME"), *tissue(2)]
    assert {found.severity for found in problems(images)} <= {"warning", "note"}


@pytest.mark.real
class TestRealImages:
    def kinds(self, files: Sequence[Path]) -> dict[str, set[str]]:
        """Of each kind and certainty, the names."""
        images = [read_image(file) for file in files]
        found: dict[str, set[str]] = {}
        for entry in problems(images):
            names = {files[int(Path(path).stem)].stem for path in entry.paths}
            found[f"{entry.kind} {entry.certainty}"] = names
        return found

    def test_of_stained_patches_only_dust_out_of_focus_is_told(self, real_data: Path) -> None:
        files = sorted((real_data / "idc" / "10253").rglob("*.png"))
        assert self.kinds(files) == {"blurred likely": {"10253_idx5_x1651_y301_class0"}}

    def test_large_stained_images_are_neither_inverted_nor_written_on(self, real_data: Path) -> None:
        found = self.kinds(sorted((real_data / "breakhis").glob("*.png")))
        assert found == {"saturated possible": {"SOB_M_MC-14-18842D-200-016"}}

    def test_films_are_right_side_up_and_found_when_turned(self, real_data: Path) -> None:
        files = sorted((real_data / "mias").glob("*.pgm"))
        assert set(self.kinds(files)) == {"burned_in_text likely"}
        turned = [255 - read_image(file) for file in files]
        assert ("inverted", "warning", "likely", [*range(len(files))]) in told(turned)

    def test_masks_are_told_from_ultrasound(self, real_data: Path) -> None:
        files = sorted((real_data / "busi").rglob("*.png"))
        found = self.kinds(files)
        masks = {file.stem for file in files if "_mask" in file.stem}
        assert found["blank certain"] | found["saturated likely"] == masks
        assert set(found) == {"blank certain", "saturated likely", "burned_in_text likely", "burned_in_text possible"}
