"""No link in a document is dead, on a forge or on the site."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from tests.docs.shown import DOCS, DOCUMENTS, ROOT

PAGES = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
_CODE = re.compile(r"^( *)```.*?^\1```[ ]*$|(`+)(?!`).*?\2", re.MULTILINE | re.DOTALL)
_LINK = re.compile(
    r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]: (\S+)|<(?:img|a)\s[^>]*(?:src|href)=\"([^\"]+)\"",
    re.MULTILINE,
)


def links(document: Path) -> list[str]:
    """Where the links and pictures of a document lead, those to other places of the network left out."""
    prose = _CODE.sub("", document.read_text(encoding="utf-8"))
    found = ["".join(groups) for groups in _LINK.findall(prose)]
    return [target for target in found if not re.match(r"https?:|mailto:", target)]


def anchor(heading: str) -> str:
    """What a forge makes of a heading.

    >>> anchor("What `default` makes of few images, or [grey](data.md) ones")
    'what-default-makes-of-few-images-or-grey-ones'
    """
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(document: Path) -> frozenset[str]:
    """Every anchor of a document; a heading that stands twice is numbered from the second on."""
    text = re.sub(r"^( *)```.*?^\1```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    found = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE):
        name = anchor(heading)
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return frozenset(found)


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_what_is_there(document: Path) -> None:
    for target in links(document):
        path, _, fragment = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{target}: no such file"
        assert not fragment or fragment in anchors(file), (
            f"{target}: no such heading; there are {sorted(anchors(file))}"
        )


@pytest.mark.parametrize("document", [page for page in PAGES if DOCS in page.parents], ids=lambda path: path.name)
def test_a_page_of_the_site_links_to_the_site(document: Path) -> None:
    for target in links(document):
        file = (document.parent / target.partition("#")[0]).resolve()
        assert file == document.parent or DOCS in file.parents, (
            f"{target} is not part of the site; write its name as code"
        )
