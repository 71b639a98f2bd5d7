"""The preprocessing spec: one shape and dtype for any image, and what becomes of its pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydantic import ValidationError

from clearmargin.images.preprocess import Preprocessing, choose_preprocessing
from clearmargin.settings import ImageSettings

GENERATOR = np.random.default_rng(3)


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    return GENERATOR.integers(0, 256, (height, width, channels)).astype(np.uint8)


def mean_pool(pixels: NDArray[np.generic], factor: int) -> NDArray[np.float64]:
    """The oracle of area interpolation for whole factors: the mean of each factor × factor block."""
    height, width, channels = pixels.shape
    blocks = pixels.astype(np.float64).reshape(height // factor, factor, width // factor, factor, channels)
    return blocks.mean(axis=(1, 3))


def mirrored(length: int, size: int) -> list[int]:
    """The source row of each output row: 0 1 2 | 2 1 0 | 0 1 2 …, worked out one by one."""
    rows, place, step = [], 0, 1
    for _ in range(size):
        rows.append(place)
        if 0 <= place + step < length:
            place += step
        else:
            step = -step  # the edge itself stands twice
    return rows


specs = st.builds(
    Preprocessing,
    width=st.integers(4, 40),
    height=st.integers(4, 40),
    channels=st.sampled_from([1, 3]),
    fit=st.sampled_from(["pad", "stretch"]),
    padding=st.sampled_from(["mirror", "black", "white"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "area"]),
)
images = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda dtype: arrays.arrays(
        dtype, st.tuples(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3])), fill=st.just(dtype(7))
    )
)


class TestEveryImage:
    @settings(max_examples=250, deadline=None)
    @given(spec=specs, pixels=images)
    def test_gets_the_shape_and_dtype_of_the_spec(self, spec: Preprocessing, pixels: NDArray[np.generic]) -> None:
        before = pixels.copy()
        result = spec.apply(pixels)
        assert result.shape == spec.shape == (spec.height, spec.width, spec.channels)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(pixels, before)

    @settings(max_examples=100, deadline=None)
    @given(spec=specs, value=st.integers(0, 255), size=st.tuples(st.integers(1, 90), st.integers(1, 90)))
    def test_a_uniform_image_stays_uniform_under_mirror_padding(
        self, spec: Preprocessing, value: int, size: tuple[int, int]
    ) -> None:
        mirror = spec.model_copy(update={"padding": "mirror"})
        assert (mirror.apply(np.full((*size, 3), value, np.uint8)) == value).all()
        assert (mirror.apply(np.full((*size, 1), value * 257, np.uint16)) == value).all()

    @settings(max_examples=100, deadline=None)
    @given(spec=specs, pixels=images)
    def test_is_unchanged_when_it_is_put_through_twice(self, spec: Preprocessing, pixels: NDArray[np.generic]) -> None:
        once = spec.apply(pixels)
        np.testing.assert_array_equal(spec.apply(once), once)

    @pytest.mark.parametrize("padding", ["mirror", "black", "white"])
    def test_of_the_right_size_is_itself(self, padding: str) -> None:
        pixels = noise(20, 30)
        np.testing.assert_array_equal(Preprocessing(width=30, height=20, padding=padding).apply(pixels), pixels)


class TestPad:
    @settings(max_examples=200, deadline=None)
    @given(
        width=st.integers(4, 60), height=st.integers(4, 60), image=st.tuples(st.integers(1, 200), st.integers(1, 200))
    )
    def test_keeps_the_aspect_ratio_never_enlarges_and_fills_one_side(
        self, width: int, height: int, image: tuple[int, int]
    ) -> None:
        spec = Preprocessing(width=width, height=height, channels=1, padding="white")
        result = spec.apply(np.zeros((image[1], image[0], 1), np.uint8))[:, :, 0]
        content = np.argwhere(result == 0)
        down, right = content.max(axis=0) + 1
        assert (result[:down, :right] == 0).all()  # from the top left corner
        assert (result == 0).sum() == down * right
        assert right <= min(width, image[0])
        assert down <= min(height, image[1])
        if image[0] <= width and image[1] <= height:
            assert (right, down) == image
        else:
            assert right == width or down == height
            scale = min(width / image[0], height / image[1])
            assert abs(right - image[0] * scale) <= 1
            assert abs(down - image[1] * scale) <= 1

    @pytest.mark.parametrize(("height", "width"), [(50, 8), (22, 50), (50, 49), (1, 50), (3, 2), (50, 50)])
    def test_mirrors_the_edge_patches_of_a_slide(self, height: int, width: int) -> None:
        pixels = noise(height, width)
        result = Preprocessing(width=50, height=50).apply(pixels)
        np.testing.assert_array_equal(result[:height, :width], pixels)
        np.testing.assert_array_equal(result, pixels[mirrored(height, 50)][:, mirrored(width, 50)])

    @pytest.mark.parametrize(("padding", "value"), [("black", 0), ("white", 255)])
    def test_fills_with_one_value(self, padding: str, value: int) -> None:
        result = Preprocessing(width=50, height=50, padding=padding).apply(noise(22, 8))
        assert (result[22:] == value).all()
        assert (result[:, 8:] == value).all()

    def test_mirror_follows_the_resized_image(self) -> None:
        result = Preprocessing(width=10, height=10).apply(noise(20, 60))
        np.testing.assert_array_equal(result, result[mirrored(3, 10)])  # 20 × 10 / 60, rounded


class TestResize:
    @pytest.mark.parametrize("factor", [2, 3, 5])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_area_is_the_mean_of_each_block(self, factor: int, channels: int) -> None:
        pixels = noise(12 * factor, 16 * factor, channels)
        result = Preprocessing(width=16, height=12, channels=channels).apply(pixels)
        assert np.abs(result - mean_pool(pixels, factor)).max() <= 1.0  # rows and columns are rounded in turn

    @pytest.mark.parametrize("factor", [2, 4])
    def test_area_of_16_bit_is_the_mean_before_it_becomes_8_bit(self, factor: int) -> None:
        pixels = GENERATOR.integers(0, 65536, (12 * factor, 16 * factor, 1)).astype(np.uint16)
        result = Preprocessing(width=16, height=12, channels=1).apply(pixels)
        assert np.abs(result - mean_pool(pixels, factor) / 257).max() <= 0.51

    @pytest.mark.parametrize("factor", [2, 3])
    def test_nearest_makes_no_new_value(self, factor: int) -> None:
        pixels = noise(12 * factor, 16 * factor, 1)
        result = Preprocessing(width=16, height=12, channels=1, interpolation="nearest").apply(pixels)
        centre = factor // 2
        np.testing.assert_array_equal(result, pixels[centre::factor, centre::factor])

    def test_stretch_fills_the_size_exactly_and_enlarges(self) -> None:
        halves = np.concatenate([np.full((10, 5, 3), 10, np.uint8), np.full((10, 5, 3), 200, np.uint8)], axis=1)
        result = Preprocessing(width=40, height=8, fit="stretch", interpolation="nearest").apply(halves)
        assert (result[:, :20] == 10).all()
        assert (result[:, 20:] == 200).all()

    @pytest.mark.parametrize("interpolation", ["bilinear", "area"])
    def test_enlarging_is_smooth(self, interpolation: str) -> None:
        ramp = np.repeat((np.arange(5) * 50).astype(np.uint8)[None, :, None], 5, axis=0)
        spec = Preprocessing(width=40, height=40, channels=1, fit="stretch", interpolation=interpolation)
        steps = np.diff(spec.apply(ramp)[0, :, 0].astype(int))
        assert steps.min() >= 0
        assert steps.max() <= 50 / 8 + 1


class TestValues:
    def test_16_bit_is_divided_by_257_exactly(self) -> None:
        values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
        result = Preprocessing(width=256, height=256, channels=1).apply(values)
        exact = [(2 * int(value) + 257) // 514 for value in values.ravel()]  # rounded in whole numbers
        assert result.ravel().tolist() == exact
        assert result.ravel()[[0, 65535]].tolist() == [0, 255]

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_the_range_is_that_of_the_container_and_not_of_the_image(self, dtype: type[np.unsignedinteger]) -> None:
        dark = np.full((8, 8, 1), np.iinfo(dtype).max // 10, dtype)
        assert (Preprocessing(width=8, height=8, channels=1).apply(dark) == 25).all()

    def test_grey_to_rgb_repeats_it(self) -> None:
        grey = noise(10, 10, 1)
        np.testing.assert_array_equal(Preprocessing(width=10, height=10).apply(grey), np.repeat(grey, 3, axis=2))

    def test_rgb_to_grey_is_its_luma(self) -> None:
        pixels = noise(10, 10)
        luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
        result = Preprocessing(width=10, height=10, channels=1).apply(pixels)
        assert np.abs(result[:, :, 0] - luma).max() <= 0.51

    def test_grey_survives_the_way_to_rgb_and_back(self) -> None:
        grey = noise(10, 10, 1)
        rgb = Preprocessing(width=10, height=10).apply(grey)
        np.testing.assert_array_equal(Preprocessing(width=10, height=10, channels=1).apply(rgb), grey)


class TestSpec:
    @given(spec=specs)
    def test_survives_json(self, spec: Preprocessing) -> None:
        assert Preprocessing.model_validate_json(spec.model_dump_json()) == spec

    def test_refuses_what_it_does_not_know(self) -> None:
        with pytest.raises(ValidationError, match="crop"):
            Preprocessing.model_validate({"width": 50, "height": 50, "crop": 40})
        with pytest.raises(ValidationError, match="bit_depth"):
            Preprocessing.model_validate({"width": 50, "height": 50, "bit_depth": "min_max"})

    def test_auto_takes_the_most_common_size(self) -> None:
        sizes = np.array([[50, 50]] * 5 + [[8, 50]] * 4 + [[50, 22]] * 3)
        assert choose_preprocessing(ImageSettings(), sizes).shape == (50, 50, 3)

    def test_auto_does_not_depend_on_the_order_of_the_images(self) -> None:
        sizes = np.array([[60, 40], [40, 60], [30, 30]])
        chosen = {choose_preprocessing(ImageSettings(), sizes[list(order)]).shape for order in ([0, 1, 2], [2, 1, 0])}
        assert len(chosen) == 1

    @pytest.mark.parametrize(
        ("size", "largest", "expected"),
        [
            ((700, 460), 128, (84, 128, 3)),
            ((460, 700), 128, (128, 84, 3)),
            ((128, 128), 128, (128, 128, 3)),
            ((129, 129), 128, (128, 128, 3)),
            ((3000, 20), 128, (8, 128, 3)),  # never thinner than 8
            ((5, 5), 128, (8, 8, 3)),
        ],
    )
    def test_auto_is_bounded(self, size: tuple[int, int], largest: int, expected: tuple[int, int, int]) -> None:
        assert choose_preprocessing(ImageSettings(largest_px=largest), np.array([size])).shape == expected

    def test_every_setting_reaches_the_spec(self) -> None:
        given_settings = ImageSettings(
            size=(48, 32), channels=1, fit="stretch", padding="white", interpolation="nearest", mean=0.5, std=0.25
        )
        spec = choose_preprocessing(given_settings, np.array([[50, 50]]))
        assert spec == Preprocessing(
            width=48,
            height=32,
            channels=1,
            fit="stretch",
            padding="white",
            interpolation="nearest",
            mean=0.5,
            std=0.25,
        )
