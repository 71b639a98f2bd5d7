import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.report.small_audit import ROOT, finding, noise, patch

from clearmargin.report.thumbnails import LONGEST_PX, build_galleries, data_uri, to_bytes


def pixels(uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_sixteen_bits_become_eight_by_the_container_whatever_the_image_holds() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    expected = (every.astype(np.float64) / 257).astype(np.uint8)
    assert np.array_equal(to_bytes(every), expected)
    dark = (every[:16] % 4096).astype(np.uint16)
    assert to_bytes(dark).max() == 4095 // 257


def test_two_images_of_which_one_is_twice_as_bright_are_shown_so() -> None:
    dim, bright = (np.full((40, 40, 1), value, dtype=np.uint16) for value in (10_000, 20_000))
    shown = [int(pixels(data_uri(image)[0])[0, 0]) for image in (dim, bright)]
    assert shown == [10_000 // 257, 20_000 // 257]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("height", "width"), [(50, 50), (96, 96), (1, 1)])
def test_a_small_image_keeps_its_size(
    height: int, width: int, dtype: type[np.uint8 | np.uint16], channels: int
) -> None:
    image = np.full((height, width, channels), np.iinfo(dtype).max, dtype=dtype)
    uri, shown_width, shown_height = data_uri(image)
    assert (shown_width, shown_height) == (width, height)
    assert pixels(uri).shape[:2] == (height, width)
    assert pixels(uri).min() >= 254


@pytest.mark.parametrize(("height", "width"), [(1500, 3000), (3000, 1500), (97, 2), (20_000, 1)])
def test_a_large_image_is_reduced_in_its_own_proportions(height: int, width: int) -> None:
    _, shown_width, shown_height = data_uri(np.zeros((height, width, 1), dtype=np.uint16))
    assert max(shown_width, shown_height) == LONGEST_PX
    scale = LONGEST_PX / max(height, width)
    assert shown_width == pytest.approx(max(1, width * scale), abs=1)
    assert shown_height == pytest.approx(max(1, height * scale), abs=1)


def test_an_image_that_two_findings_name_is_loaded_once() -> None:
    loaded: list[str] = []

    def load(path: str) -> NDArray[np.uint8]:
        loaded.append(path)
        return patch(path)

    found = [finding("a", paths=["x.png", "y.png"]), finding("b", paths=["y.png"])]
    build_galleries(found, load, root=ROOT, labels={}, unusable=(), allowance=10**6)
    assert loaded == [f"{ROOT}/x.png", f"{ROOT}/y.png"]


@pytest.mark.parametrize("allowance", [0, 5_000, 100_000, 2_000_000])
def test_all_thumbnails_together_keep_within_the_allowance(allowance: int) -> None:
    found = [finding(f"f{number}", paths=[f"{number}/{index}.png" for index in range(40)]) for number in range(20)]
    galleries = build_galleries(found, noise, root=ROOT, labels={}, unusable=(), allowance=allowance)
    used = sum(len(each.source or "") for gallery in galleries for group in gallery.groups for each in group)
    assert used <= allowance


def test_what_a_finding_leaves_of_its_share_the_next_ones_have() -> None:
    found = [finding("a"), finding("b"), finding("c", paths=[f"{index}.png" for index in range(12)])]
    one = build_galleries(found[2:], noise, root=ROOT, labels={}, unusable=(), allowance=60_000)[0].n_shown
    galleries = build_galleries(found, noise, root=ROOT, labels={}, unusable=(), allowance=60_000)
    assert [gallery.n_shown for gallery in galleries] == [0, 0, one]
    assert one >= 3
