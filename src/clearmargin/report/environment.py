"""How templates of pages are read: everything is escaped, and a name that is not given is an error."""

from __future__ import annotations

from pathlib import Path

import jinja2


def build_environment() -> jinja2.Environment:
    """An environment for the templates beside this module; each page adds its filters."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
