"""The text of zensical.toml: the site, and in which order it shows the pages.

SECTIONS is the order. A page of a folder that is named there needs no line of its own: the folder's pages follow in the
order of their names, `index.md` first. Any other page needs a line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]

SECTIONS: dict[str, Sequence[str]] = {
    "Start": ["index.md", "start.md", "install.md", "notebooks.md"],
    "How-to": [
        "howto/index.md",
        "howto/my_own_folder.md",
        "howto/",
        "data.md",
        "small_data.md",
        "transfer.md",
        "sweep.md",
        "tracking.md",
        "serve.md",
    ],
    "Concepts": ["concepts/", "audit.md", "gate.md", "context.md", "explain.md", "similar.md", "pictures/"],
    "From another system": ["from/", "recipes.md", "keras.md"],
    "Reference": ["reference/cli.md", "reference/python.md", "settings.md", "bundle.md", "report.md"],
    "Evidence and benchmarks": ["evidence.md", "benchmarks.md"],
    "Design": ["design.md", "tree.md"],
}
"""Pages, or folders of pages, as seen from docs/. What is not written yet is left out."""

_HEAD = """# The site of the docs, built by `make site`; written by `make docs` from docs/writing/navigation.py.
# Nothing comes from elsewhere: no fonts, no scripts, no counters.

[project]
site_name = "Clearmargin"
site_description = "Classifiers of breast images whose numbers hold on the next patient."
docs_dir = "docs"
site_dir = "site"
use_directory_urls = false  # pages can be opened without a server, too
strict = true
extra_css = ["site.css"]
copyright = "For research and education. Not a medical device."
exclude_docs = \"\"\"
/writing/
/drawing/
*.py
*.json
\"\"\"
"""

_TAIL = """
[project.theme]
language = "en"
font = false
icon.logo = "lucide/scan-search"
features = [
  "content.code.copy",
  "navigation.footer",
  "navigation.sections",
  "navigation.top",
  "search.highlight",
  "toc.follow",
]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
primary = "white"
accent = "teal"
toggle.icon = "lucide/sun"
toggle.name = "Dark colours"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
primary = "black"
accent = "teal"
toggle.icon = "lucide/moon"
toggle.name = "Light colours"

[project.markdown_extensions]
attr_list = {}
md_in_html = {}
tables = {}
# A heading is anchored as a forge does it.
toc = { permalink = true, toc_depth = 3, slugify = { object = "pymdownx.slugs.slugify", kwds = { case = "lower" } } }
pymdownx.highlight = { pygments_lang_class = true, auto_title = false }
pymdownx.inlinehilite = {}
pymdownx.superfences = {}
pymdownx.tasklist = { custom_checkbox = true }
"""


def section_of(page: str) -> str | None:
    """The section that shows the page, given as seen from docs/; None where no line names it."""
    for section, entries in SECTIONS.items():
        if any(page == entry or (entry.endswith("/") and page.startswith(entry)) for entry in entries):
            return section
    return None


def site_settings() -> str:
    """The text of zensical.toml."""
    sections = []
    for name, entries in SECTIONS.items():
        pages = list(dict.fromkeys(page for entry in entries for page in _pages(entry)))
        if pages:
            listed = "".join(f"    {_line(page)},\n" for page in pages)
            sections.append(f"  {{ {json.dumps(name)} = [\n{listed}  ] }},\n")
    return f"{_HEAD}nav = [\n{''.join(sections)}]\n{_TAIL}"


def _pages(entry: str) -> list[str]:
    """The pages of an entry of SECTIONS that are there."""
    if not entry.endswith("/"):
        return [entry] if (DOCS / entry).is_file() else []
    found = sorted((DOCS / entry).rglob("*.md"), key=lambda file: (file.parent, file.name != "index.md", file.name))
    return [file.relative_to(DOCS).as_posix() for file in found]


def _line(page: str) -> str:
    """The page under the title that it gives itself; the first page of a folder is its overview."""
    title = (DOCS / page).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").replace("`", "")
    if page.endswith("/index.md"):
        title = "Overview"
    return f"{{ {json.dumps(title, ensure_ascii=False)} = {json.dumps(page)} }}"
