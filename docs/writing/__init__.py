"""What `make docs` writes: the pages that are made from the code, and the navigation of the site.

PAGES is the list of them; a test holds each file to what its function gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.writing.cli import cli_page
from docs.writing.navigation import site_settings
from docs.writing.python import python_page
from docs.writing.settings import settings_page

ROOT = Path(__file__).resolve().parents[2]
PAGES: dict[str, Callable[[], str]] = {
    "docs/settings.md": settings_page,
    "docs/reference/cli.md": cli_page,
    "docs/reference/python.md": python_page,
    "zensical.toml": site_settings,
}
"""Files as seen from the root, and what makes their text."""


def write_pages() -> None:
    """Writes every file of PAGES."""
    for name, text in PAGES.items():
        file = ROOT / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text(), encoding="utf-8")
