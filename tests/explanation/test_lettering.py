"""Names of any letters can be read in a picture."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from clearmargin.explanation import lettering
from clearmargin.explanation.lettering import fit, load_font, spell, wrap


def test_letters_of_european_names_are_drawn_as_they_are() -> None:
    name = "Größe – Übung åøñçğł Ж Ω.png"
    assert spell(name) == name
    font = load_font(16)
    missing = bytes(font.getmask("\U0010ffff"))
    assert all(bytes(font.getmask(letter)) != missing for letter in name)


def test_a_letter_and_its_accent_are_drawn_as_one() -> None:
    assert spell(unicodedata.normalize("NFD", "Brüste")) == "Brüste"


def test_what_the_font_lacks_is_its_code() -> None:
    assert spell("日\U0001f642\n") == r"\u65e5\U0001f642\n"


def test_without_the_font_its_letters_are_codes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cached in (lettering.load_font, lettering._is_there):
        cached.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(lettering, "_font_folder", lambda: tmp_path)
            assert spell("ä.png") == r"\xe4.png"
    finally:
        for cached in (lettering.load_font, lettering._is_there):
            cached.cache_clear()


def test_lines_are_no_wider_than_they_may_be() -> None:
    font = load_font(14)
    lines = wrap("some words and " + "one" * 60, 120, font)
    assert max(font.getlength(line) for line in lines) <= 120
    assert "".join(lines).replace(" ", "") == "somewordsand" + "one" * 60
    assert fit("short", 120, font) == "short"
    assert fit("a" * 100 + "end.png", 120, font).endswith("end.png")
    assert font.getlength(fit("a" * 100 + "end.png", 120, font)) <= 120
