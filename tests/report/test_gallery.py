import base64
import io

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from clearmargin.errors import ImageError
from clearmargin.report.gallery import LONGEST_PX, build_cards, data_uri, find_mistakes


def table(rows: list[tuple[str, int, float, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["path", "label", "probability", "decision"])
    return frame.assign(patient_id="P-1")


def grey(path: str) -> NDArray[np.uint8]:
    return np.full((4, 4, 1), 7, dtype=np.uint8)


def pixels(uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_only_wrong_decisions_are_mistakes_and_the_surest_come_first() -> None:
    rows = table(
        [
            ("right.png", 1, 0.9, "malignant"),
            ("missed-a.png", 1, 0.20, "benign"),
            ("missed-b.png", 1, 0.05, "benign"),
            ("alarm-a.png", 0, 0.7, "malignant"),
            ("alarm-b.png", 0, 0.99, "malignant"),
            ("right-too.png", 0, 0.1, "benign"),
        ]
    )
    found = find_mistakes(rows)
    assert found["missed"]["path"].tolist() == ["missed-b.png", "missed-a.png"]
    assert found["false_alarms"]["path"].tolist() == ["alarm-b.png", "alarm-a.png"]


def test_the_stored_decision_counts_and_an_abstention_is_no_mistake() -> None:
    rows = table([("a.png", 1, 0.6, "benign"), ("b.png", 1, 0.1, "abstain"), ("c.png", 0, 0.9, "abstain")])
    found = find_mistakes(rows)
    assert found["missed"]["path"].tolist() == ["a.png"]
    assert found["false_alarms"].empty


def test_equal_probabilities_are_ordered_by_path() -> None:
    rows = table([(name, 0, 0.9, "malignant") for name in ("c.png", "a.png", "b.png")])
    assert find_mistakes(rows)["false_alarms"]["path"].tolist() == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    ("n_missed", "n_alarms", "shown"),
    [(9, 9, (6, 6)), (2, 20, (2, 10)), (20, 1, (11, 1)), (20, 0, (12, 0)), (0, 3, (0, 3)), (7, 6, (6, 6))],
)
def test_twelve_cards_at_most_and_one_kind_fills_what_the_other_leaves(
    n_missed: int, n_alarms: int, shown: tuple[int, int]
) -> None:
    rows = table(
        [(f"m{i}.png", 1, 0.1, "benign") for i in range(n_missed)]
        + [(f"f{i}.png", 0, 0.9, "malignant") for i in range(n_alarms)]
    )
    cards = build_cards(find_mistakes(rows), grey)
    assert (len(cards["missed"]), len(cards["false_alarms"])) == shown


def test_an_image_that_cannot_be_read_is_a_card_with_the_reason() -> None:
    def gone(path: str) -> NDArray[np.uint8]:
        raise ImageError("missing", path, "no such file")

    rows = table([("folder\\gone.png", 1, 0.1, "benign")])
    card = build_cards(find_mistakes(rows), gone)["missed"][0]
    assert (card.source, card.reason, card.file_name) == (None, "no such file", "gone.png")


def test_another_error_of_the_loader_is_not_swallowed() -> None:
    def broken(path: str) -> NDArray[np.uint8]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        build_cards(find_mistakes(table([("a.png", 1, 0.1, "benign")])), broken)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_patch_is_embedded_pixel_by_pixel(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 48, channels), dtype=np.uint8)
    assert np.array_equal(pixels(data_uri(image)).reshape(image.shape), image)


def test_a_large_image_is_reduced_in_its_own_proportions() -> None:
    image = np.zeros((1500, 3000, 3), dtype=np.uint8)
    assert pixels(data_uri(image)).shape == (LONGEST_PX // 2, LONGEST_PX, 3)
