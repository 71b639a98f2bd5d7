"""Augmentation against NumPy, SciPy and Pillow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from clearmargin.settings import AugmentSettings
from clearmargin.training.augment import augment

EVERYTHING = AugmentSettings(
    rotate_degrees=30,
    quarter_turns=True,
    shift=0.2,
    zoom=0.3,
    shear_degrees=10,
    horizontal_flip=True,
    vertical_flip=True,
    brightness=0.3,
    contrast=0.5,
    stain=0.3,
)
EACH = {
    "rotate_degrees": 30.0,
    "quarter_turns": True,
    "shift": 0.2,
    "zoom": 0.3,
    "shear_degrees": 20.0,
    "horizontal_flip": True,
    "vertical_flip": True,
    "brightness": 0.3,
    "contrast": 0.5,
    "stain": 0.3,
}
every_change = pytest.mark.parametrize("change", EACH)


def change_of(name: str) -> AugmentSettings:
    values: dict[str, Any] = {name: EACH[name]}
    return AugmentSettings(**values)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(number: int, height: int, width: int, *, channels: int = 3, seed: int = 1) -> Tensor:
    return torch.rand(number, channels, height, width, generator=generator(seed))


def smooth_image(height: int, width: int) -> NDArray[np.float32]:
    """A picture without symmetry, smooth enough to be interpolated well."""
    y, x = np.mgrid[:height, :width]
    waves = 0.5 + 0.25 * np.sin(x / 5.0 + 0.3) + 0.2 * np.cos(y / 4.0 + x / 9.0)
    return waves.astype(np.float32)


@pytest.fixture
def at_full_amount(monkeypatch: pytest.MonkeyPatch) -> Callable[..., NDArray[np.float32]]:
    """Augments one grey image with every random amount at the upper end of its range."""

    def draw(x: Tensor, amount: float, _generator: torch.Generator, *, columns: int = 1) -> Tensor:
        return torch.full((len(x), columns), amount)

    monkeypatch.setattr("clearmargin.training.augment._draw", draw)

    def run(image: NDArray[np.float32], **changes: Any) -> NDArray[np.float32]:
        batch = torch.from_numpy(image)[None, None]
        return augment(batch, AugmentSettings(**changes), generator())[0, 0].numpy()

    return run


def warp(image: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """SciPy's warp: `matrix` maps (x, y) of the result to (x, y) of the image, both from its centre in pixels."""
    by_row = matrix[::-1, ::-1]  # SciPy counts (y, x)
    centre = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(
        image.astype(np.float64), by_row, offset=centre - by_row @ centre, order=1, mode="nearest"
    )


def rotation(degrees: float) -> NDArray[np.float64]:
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def symmetries(image: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """The eight images that turns and flips make of a (C, H, W) square, rotations first."""
    turned = [np.rot90(image, quarter, axes=(1, 2)) for quarter in range(4)]
    return turned + [np.flip(each, axis=2) for each in turned]


def test_nothing_changes_when_everything_is_off() -> None:
    x = random_images(4, 9, 12)
    state = generator()
    assert torch.equal(augment(x, AugmentSettings(), state), x)
    assert torch.equal(state.get_state(), generator().get_state())


@every_change
def test_each_change_changes_something_and_keeps_shape_and_range(change: str) -> None:
    x = random_images(16, 12, 12)
    before = x.clone()
    y = augment(x, change_of(change), generator())
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert y.min() >= 0
    assert y.max() <= 1
    assert not torch.equal(y, x)
    assert torch.equal(x, before), "the images handed over were changed in place"


@pytest.mark.parametrize("value", [0.0, 1 / 3, 0.9999999, 1.0])
def test_flat_images_stay_in_range_under_all_changes_together(value: float) -> None:
    y = augment(torch.full((64, 3, 17, 11), value), EVERYTHING, generator(2))
    assert torch.isfinite(y).all()
    assert y.min() >= 0
    assert y.max() <= 1


@pytest.mark.parametrize("value", [0.0, 1 / 3, 1.0])
@pytest.mark.parametrize("change", ["rotate_degrees", "shift", "zoom", "shear_degrees"])
def test_a_flat_image_is_the_same_after_a_geometric_change(change: str, value: float) -> None:
    y = augment(torch.full((16, 1, 15, 10), value), change_of(change), generator())
    assert y.max() <= 1
    torch.testing.assert_close(y, torch.full_like(y, value))


@settings(max_examples=25, deadline=None)
@given(
    rotate_degrees=st.floats(0, 180),
    shift=st.floats(0, 0.5),
    zoom=st.floats(0, 0.99),
    shear_degrees=st.floats(0, 60),
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 0.99),
    stain=st.floats(0, 0.99),
    seed=st.integers(0, 1000),
)
def test_values_stay_in_zero_to_one_whatever_the_settings(seed: int, **changes: float) -> None:
    y = augment(random_images(4, 8, 10, seed=seed).round(), AugmentSettings(**changes), generator(seed))
    assert torch.isfinite(y).all()
    assert y.min() >= 0
    assert y.max() <= 1


@pytest.mark.parametrize(
    "change", [name for name in EACH if name not in ("horizontal_flip", "vertical_flip", "quarter_turns")]
)
def test_every_image_of_a_batch_has_a_draw_of_its_own(change: str) -> None:
    batch = random_images(1, 16, 16).expand(8, -1, -1, -1)
    y = augment(batch, change_of(change), generator())
    assert len(torch.unique(y.flatten(1), dim=0)) == 8


@every_change
def test_the_draw_of_an_image_does_not_depend_on_what_the_others_show(change: str) -> None:
    first, second = random_images(6, 14, 14), random_images(6, 14, 14, seed=9)
    second[2] = first[2]
    one, other = (augment(x, change_of(change), generator(4)) for x in (first, second))
    assert torch.equal(one[2], other[2])


@every_change
def test_the_same_generator_gives_the_same_images(change: str) -> None:
    x = random_images(8, 14, 14)
    one, again, other = (augment(x, change_of(change), generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@every_change
def test_torchs_own_random_numbers_are_not_used(change: str) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    augment(random_images(4, 8, 8), change_of(change), generator())
    assert torch.equal(torch.rand(3), expected)


def test_quarter_turns_and_flips_give_each_of_the_eight_symmetries_equally_often() -> None:
    image = random_images(1, 6, 6)
    turns = AugmentSettings(quarter_turns=True, horizontal_flip=True, vertical_flip=True)
    y = augment(image.expand(4000, -1, -1, -1), turns, generator()).numpy()
    counts = [int((y == each).all(axis=(1, 2, 3)).sum()) for each in symmetries(image[0].numpy())]
    assert sum(counts) == 4000
    assert min(counts) > 400  # 500 expected, standard deviation 21
    assert max(counts) < 600


def test_quarter_turns_alone_never_mirror() -> None:
    image = random_images(1, 6, 6)
    y = augment(image.expand(2000, -1, -1, -1), AugmentSettings(quarter_turns=True), generator()).numpy()
    counts = [int((y == each).all(axis=(1, 2, 3)).sum()) for each in symmetries(image[0].numpy())]
    assert counts[4:] == [0, 0, 0, 0]
    assert min(counts[:4]) > 400
    assert sum(counts) == 2000


def test_an_oblong_image_is_turned_upside_down_but_never_onto_its_side() -> None:
    image = random_images(1, 4, 7)
    y = augment(image.expand(1000, -1, -1, -1), AugmentSettings(quarter_turns=True), generator())
    same = int((y == image).all(dim=(1, 2, 3)).sum())
    turned = int((y == image.flip((2, 3))).all(dim=(1, 2, 3)).sum())
    assert same + turned == 1000
    assert 400 < same < 600


@pytest.mark.parametrize(("setting", "axis"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_a_flip_mirrors_half_of_the_images_along_its_axis(setting: str, axis: int) -> None:
    image = random_images(1, 4, 7)
    y = augment(image.expand(1000, -1, -1, -1), change_of(setting), generator())
    same = int((y == image).all(dim=(1, 2, 3)).sum())
    mirrored = int((y == image.flip(axis)).all(dim=(1, 2, 3)).sum())
    assert same + mirrored == 1000
    assert 400 < same < 600


def test_a_flip_within_a_warp_is_the_warp_of_the_flipped_image() -> None:
    image = random_images(1, 9, 14)
    warp = AugmentSettings(shift=1e-7, horizontal_flip=True, vertical_flip=True)
    y = augment(image.expand(1000, -1, -1, -1), warp, generator())
    plain = augment(image.expand(1000, -1, -1, -1), warp.model_copy(update={"shift": 0.0}), generator())
    torch.testing.assert_close(y, plain, rtol=0, atol=1e-4)
    assert len(torch.unique(plain, dim=0)) == 4
    turned = AugmentSettings(rotate_degrees=30, shear_degrees=10, zoom=0.2, shift=0.1, horizontal_flip=True)
    flipped = augment(image.expand(1000, -1, -1, -1), turned, generator())
    same = torch.rand(1000, 1, 1, 1, generator=generator()) >= 0.5  # the first draw is the flip's
    mirrored = torch.where(same, image, image.flip(3))
    after = generator()
    torch.rand(1000, generator=after)
    torch.testing.assert_close(
        flipped, augment(mirrored, turned.model_copy(update={"horizontal_flip": False}), after), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(32, 32), (24, 40), (41, 23)])
@pytest.mark.parametrize("degrees", [10.0, 37.0, 90.0, 180.0])
def test_rotation_agrees_with_scipy_up_to_the_border(
    shape: tuple[int, int], degrees: float, at_full_amount: Callable[..., NDArray[np.float32]]
) -> None:
    image = smooth_image(*shape)
    np.testing.assert_allclose(at_full_amount(image, rotate_degrees=degrees), warp(image, rotation(degrees)), atol=2e-4)


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_rotation_turns_the_way_pillow_turns(
    shape: tuple[int, int], at_full_amount: Callable[..., NDArray[np.float32]]
) -> None:
    image = smooth_image(*shape)
    turned = at_full_amount(image, rotate_degrees=20.0)
    expected = np.asarray(Image.fromarray(image).rotate(20.0, resample=Image.Resampling.BILINEAR))
    inside = (slice(shape[0] // 2 - 7, shape[0] // 2 + 7), slice(shape[1] // 2 - 7, shape[1] // 2 + 7))
    np.testing.assert_allclose(turned[inside], expected[inside], atol=2e-3)
    assert np.abs(turned[inside] - image[inside]).max() > 0.05


def test_a_rotated_circle_in_an_oblong_image_stays_a_circle(
    at_full_amount: Callable[..., NDArray[np.float32]],
) -> None:
    y, x = np.mgrid[:30, :60]
    disc = (np.hypot(x - 29.5, y - 14.5) < 10).astype(np.float32)
    turned = at_full_amount(disc, rotate_degrees=45.0)
    assert abs(float(turned.sum() - disc.sum())) < 2
    assert ((turned > 0.5) != (disc > 0.5)).sum() <= 12  # of about 314 pixels


@pytest.mark.parametrize("shape", [(20, 20), (20, 40)])
def test_a_shift_by_whole_pixels_is_a_roll_away_from_the_border(
    shape: tuple[int, int], at_full_amount: Callable[..., NDArray[np.float32]]
) -> None:
    image = random_images(1, *shape, channels=1)[0, 0].numpy()
    down, right = shape[0] // 10, shape[1] // 10
    shifted = at_full_amount(image, shift=0.1)
    expected = np.roll(image, (-down, -right), axis=(0, 1))
    np.testing.assert_allclose(shifted[:-down, :-right], expected[:-down, :-right], atol=1e-5)


def test_shifts_go_both_ways_and_reach_the_share_of_each_side() -> None:
    height, width = 40, 80
    ramps = torch.stack([torch.arange(height)[:, None].expand(-1, width), torch.arange(width).expand(height, -1)]) / 100
    y = augment(ramps.float().expand(400, -1, -1, -1), AugmentSettings(shift=0.25), generator())
    moved = 100 * (y[:, :, height // 2, width // 2] - ramps[:, height // 2, width // 2])
    for side, (axis, limit) in {"down": (0, 10.0), "right": (1, 20.0)}.items():
        assert moved[:, axis].abs().max() <= limit + 1e-3, side
        assert moved[:, axis].max() > 0.95 * limit, side
        assert moved[:, axis].min() < -0.95 * limit, side


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_zoom_agrees_with_scipy(shape: tuple[int, int], at_full_amount: Callable[..., NDArray[np.float32]]) -> None:
    image = smooth_image(*shape)
    np.testing.assert_allclose(at_full_amount(image, zoom=0.25), warp(image, 1.25 * np.eye(2)), atol=2e-4)


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_rotation_shear_zoom_and_shift_together_are_keras_affine_transform(
    shape: tuple[int, int], at_full_amount: Callable[..., NDArray[np.float32]]
) -> None:
    image = smooth_image(*shape)
    shear = math.radians(8.0)
    matrix = 1.1 * rotation(20.0) @ np.array([[1, -math.sin(shear)], [0, math.cos(shear)]])
    by_row = matrix[::-1, ::-1]
    centre = (np.array(shape) - 1) / 2
    offset = centre - by_row @ centre + 0.05 * np.array(shape)
    expected = ndimage.affine_transform(image.astype(np.float64), by_row, offset=offset, order=1, mode="nearest")
    actual = at_full_amount(image, rotate_degrees=20.0, shear_degrees=8.0, zoom=0.1, shift=0.05)
    np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_what_moves_in_is_filled_with_the_nearest_pixel(at_full_amount: Callable[..., NDArray[np.float32]]) -> None:
    image = random_images(1, 10, 10, channels=1)[0, 0].numpy()
    shifted = at_full_amount(image, shift=0.3)
    for row in range(7, 10):
        np.testing.assert_allclose(shifted[row, :7], image[9, 3:], atol=1e-5)
    np.testing.assert_allclose(shifted[7:, 7:], np.full((3, 3), image[9, 9]), atol=1e-5)


def test_stain_scales_and_offsets_optical_density(at_full_amount: Callable[..., NDArray[np.float32]]) -> None:
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    density = -np.log(np.maximum(image, 1 / 255))
    expected = np.exp(-(1.2 * density + 0.02))
    np.testing.assert_allclose(at_full_amount(image, stain=0.2), expected, atol=1e-6)


def test_stain_draws_a_factor_and_an_offset_for_each_image_and_channel() -> None:
    x = random_images(300, 6, 6) * 0.6 + 0.2
    density = -x.log().flatten(2).double()
    y = -augment(x, AugmentSettings(stain=0.2), generator()).log().flatten(2).double()
    factor = (y[:, :, 0] - y[:, :, 1]) / (density[:, :, 0] - density[:, :, 1])
    offset = y[:, :, 0] - factor * density[:, :, 0]
    fitted = factor[:, :, None] * density + offset[:, :, None]
    well = (density[:, :, 0] - density[:, :, 1]).abs() > 0.05  # elsewhere the slope is all rounding
    torch.testing.assert_close(fitted[well], y[well], rtol=0, atol=1e-4)
    assert factor[well].min() >= 0.8 - 1e-4
    assert factor[well].max() <= 1.2 + 1e-4
    assert offset[well].abs().max() <= 0.02 + 1e-4
    assert factor[well].min() < 0.81
    assert factor[well].max() > 1.19
    assert abs(np.corrcoef(factor[:, 0].numpy(), factor[:, 1].numpy())[0, 1]) < 0.2


def test_brightness_adds_one_value_to_all_pixels_of_an_image() -> None:
    x = random_images(200, 5, 5) * 0.2 + 0.4
    added = (augment(x, AugmentSettings(brightness=0.3), generator()) - x).flatten(1)
    torch.testing.assert_close(added, added[:, :1].expand_as(added), rtol=0, atol=1e-6)
    assert -0.3 <= added.min() < -0.28
    assert 0.28 < added.max() <= 0.3 + 1e-6


def test_contrast_spreads_values_about_the_images_mean() -> None:
    x = random_images(200, 5, 5) * 0.2 + 0.4
    y = augment(x, AugmentSettings(contrast=0.5), generator())
    torch.testing.assert_close(y.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)), rtol=0, atol=1e-5)
    factor = y.std(dim=(1, 2, 3)) / x.std(dim=(1, 2, 3))
    assert 0.5 - 1e-4 <= factor.min() < 0.53
    assert 1.47 < factor.max() <= 1.5 + 1e-4
