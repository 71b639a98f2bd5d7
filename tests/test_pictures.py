"""The pictures of the documents are those that their script draws, and their captions say its numbers."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = DOCS / "pictures"
CONCEPTS = [page for page in sorted((DOCS / "concepts").glob("*.md")) if page.stem != "index"]
PAGES = sorted(DOCS.rglob("*.md"))
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]*pictures/[^)]*)\)")
LARGEST_BYTES = 40_000
RENEW = "draw them anew: make docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return importlib.import_module("docs.drawing.draw")


def kept(name: str) -> dict[str, Any]:
    """One of the files of numbers."""
    content: dict[str, Any] = json.loads((PICTURES / f"{name}.json").read_text(encoding="utf-8"))
    return content


def flat(value: object, place: str = "") -> dict[str, object]:
    """Every number or word in it, by its place."""
    if isinstance(value, dict):
        return {key: each for name, inner in value.items() for key, each in flat(inner, f"{place}.{name}").items()}
    if isinstance(value, list):
        return {key: each for n, inner in enumerate(value) for key, each in flat(inner, f"{place}.{n}").items()}
    return {place: value}


def words_in(svg: Path) -> list[str]:
    """The words that the picture shows, in order."""
    return re.findall(r"<text[^>]*>([^<]*)<", svg.read_text(encoding="utf-8"))


def test_the_numbers_of_the_pictures_are_computed_anew_alike(script: ModuleType) -> None:
    computed, stored = flat(script.study(script.draw_slides())), flat(kept("numbers"))
    assert computed.keys() == stored.keys(), RENEW
    for place, value in stored.items():
        expected = pytest.approx(value, rel=0.02, abs=0.01) if isinstance(value, int | float) else value
        assert computed[place] == expected, f"{place}: {RENEW}"


def test_the_pictures_are_drawn_from_these_numbers(script: ModuleType, tmp_path: Path) -> None:
    script.draw(tmp_path, kept("numbers"), kept("demo_run"))
    drawn = {file.name: words_in(file) for file in tmp_path.iterdir()}
    assert drawn == {file.name: words_in(file) for file in PICTURES.glob("*.svg")}, RENEW


def test_pictures_are_small_and_of_this_project_alone() -> None:
    for file in PICTURES.glob("*.svg"):
        text = file.read_text(encoding="utf-8")
        assert len(text.encode()) < LARGEST_BYTES, file
        assert not re.search(r'(?:href|src)="(?!#|data:)|<script|@import', text), file


def test_every_picture_is_shown_with_words_for_who_cannot_see_it() -> None:
    shown = {}
    for page in PAGES:
        for words, target in _IMAGE.findall(page.read_text(encoding="utf-8")):
            place = (page.parent / target).resolve()
            assert place.is_file(), f"{page}: {target}"
            assert len(words) >= 40, f"{page}: {target}: say what it shows"
            shown[place.name] = words
    assert shown.keys() == {file.name for file in PICTURES.glob("*.svg")}


@pytest.mark.parametrize("page", CONCEPTS, ids=lambda page: page.stem)
def test_a_caption_says_the_numbers_of_its_picture(page: Path) -> None:
    numbers = [value for value in flat(kept("numbers")).values() if isinstance(value, float)]
    captions = re.findall(r"^\*(Picture: .*?)\*$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert captions, "a concept has a picture"
    for shown in re.findall(r"\d+\.\d+", " ".join(captions)):
        digits = len(shown.partition(".")[2])
        as_shown = {f"{value:.{digits}f}" for value in numbers} | {f"{100 * value:.{digits}f}" for value in numbers}
        assert shown in as_shown, shown
