import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearmargin.report.words import DASH, Figure, decimal, percent, plural, read_figure, span


@given(st.floats(0, 1), st.integers(1, 4))
def test_rounding_never_makes_a_figure_perfect_or_null(value: float, digits: int) -> None:
    for text, one, zero in (
        (decimal(value, digits), f"{1:.{digits}f}", f"{0:.{digits}f}"),
        (percent(value, digits), f"{100:.{digits}f}\xa0%", f"{0:.{digits}f}\xa0%"),
    ):
        assert (text == one) <= (value == 1)
        assert (text == zero) <= (value == 0)


@given(st.floats(0.001, 0.999), st.integers(1, 4))
def test_a_written_figure_is_within_half_a_digit_of_the_true_one(value: float, digits: int) -> None:
    text = decimal(value, digits)
    if text[0] in "<>":
        bound = float(text[1:])
        assert value < bound if text[0] == "<" else value > bound
    else:
        assert math.isclose(float(text), value, abs_tol=0.5 * 10**-digits + 1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"auroc": {"value": 0.9, "ci": [0.8, 0.95]}}, Figure(0.9, 0.8, 0.95)),
        ({"auroc": {"value": 0.9, "ci": None, "reason": "one patient"}}, Figure(0.9, reason="one patient")),
        ({"auroc": {"value": None, "reason": "one class"}}, Figure(None, reason="one class")),
        ({"auroc": 0.9}, Figure(0.9)),
        ({}, Figure(None, reason="not recorded in this run")),
        (None, Figure(None, reason="not recorded in this run")),
    ],
)
def test_every_form_of_a_figure_is_read_and_none_is_made_up(values: dict[str, object], expected: Figure) -> None:
    found = read_figure(values, "auroc", place="test.image")
    assert replace(found, place="") == expected
    assert found.place == "test.image.auroc"


def test_what_is_not_there_is_a_dash() -> None:
    assert (decimal(None), percent(None), span(None)) == (DASH, DASH, DASH)


def test_one_is_singular() -> None:
    assert (plural(0, "image"), plural(1, "image"), plural(2, "image")) == ("0 images", "1 image", "2 images")
