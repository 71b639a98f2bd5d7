"""The site is built from the documents, and asks nothing of any other place."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.docs.shown import DOCS, ROOT

_ELSEWHERE = re.compile(
    r"<(?:script|link|img|iframe|source|video|audio|object)\b[^>]*?(?:src|href|data)=\"?(?:https?:)?//[^>]*>"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in a copy, strictly: a link or an anchor that is missing ends it."""
    pytest.importorskip("zensical")
    root = tmp_path_factory.mktemp("project")
    shutil.copyfile(ROOT / "zensical.toml", root / "zensical.toml")
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return root / "site"


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    front = (site / "index.html").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix(".html").as_posix()
        assert (site / name).is_file(), name
        assert f'href="./{name}"' in front or name == "index.html", name
    assert not list(site.rglob("*.py"))


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert _ELSEWHERE.findall(page.read_text(encoding="utf-8")) == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet.name


def test_fonts_are_those_of_the_reader() -> None:
    theme = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["theme"]
    assert theme["font"] is False
