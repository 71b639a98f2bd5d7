"""Every page is current, has its place, and reads alike on a forge and on the site."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs.writing import PAGES
from docs.writing.cli import NOTES
from docs.writing.navigation import section_of
from docs.writing.python import GROUPS
from tests.docs.shown import DOCS, DOCUMENTS, ROOT

import clearmargin
from clearmargin.cli import COMMANDS

_BULLET = re.compile(r"^( *)(?:[-*]|1\.) ")


@pytest.mark.parametrize("name", PAGES)
def test_pages_that_are_made_from_the_code_are_current(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES[name](), "run make docs"


def test_the_references_name_everything_that_is_public() -> None:
    named = sorted(name for names in GROUPS.values() for name in names)
    assert named == sorted(clearmargin.__all__), "give each public name a place in GROUPS of docs/writing/python.py"
    assert set(NOTES) == set(COMMANDS), "give each command an entry in NOTES of docs/writing/cli.py"


@pytest.mark.parametrize("document", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_every_page_has_a_title_and_a_place_on_the_site(document: Path) -> None:
    assert document.read_text(encoding="utf-8").startswith("# ")
    page = document.relative_to(DOCS).as_posix()
    assert section_of(page), f"add {page} to SECTIONS in docs/writing/navigation.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lists_and_tables_stand_apart_from_prose_as_the_site_needs_it(document: Path) -> None:
    text = re.sub(r"^( *)```.*?^\1```[ ]*$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    previous = ""
    for number, line in enumerate(text.splitlines(), 1):
        bullet = _BULLET.match(line)
        if bullet and previous.strip() and not _BULLET.match(previous) and not previous.startswith(" "):
            pytest.fail(f"an empty line is missing before the list at {line!r}")
        if bullet:
            assert len(bullet[1]) % 4 == 0, f"a list within a list is indented by four: {line!r}"
        if line.startswith("|") and previous.strip() and not previous.startswith("|"):
            pytest.fail(f"an empty line is missing before the table at line {number}: {line!r}")
        previous = line
