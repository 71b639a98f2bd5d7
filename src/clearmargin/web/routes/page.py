"""The page, its parts, and the page that documents the API; all of them files of the package.

The address of a part holds a hash of all parts, so that a browser may keep it for ever and modules that import each
other by relative paths always are of one version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

from clearmargin.web.errors import ApiError

router = APIRouter()

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_PLACE = b"{static}"
"""In a page, where the address of its parts goes."""
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Page:
    """The files of the page by name, and the hash that their address holds."""

    parts: dict[str, bytes]
    version: str

    def html(self, name: str) -> bytes:
        """A page, which names its parts under their address."""
        return self.parts[name].replace(_PLACE, f"/static/{self.version}".encode())


@cache
def read_page() -> Page:
    """The page as the package has it."""
    folder = files("clearmargin.web") / "page"
    parts = {
        each.name: each.read_bytes()
        for each in sorted(folder.iterdir(), key=lambda each: each.name)
        if each.name.rpartition(".")[2] in _KINDS
    }
    digest = hashlib.sha256()
    for name, content in parts.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return Page(parts, digest.hexdigest()[:16])


@router.get("/")
def index(request: Request) -> Response:
    """The page."""
    return _html(request, "index.html")


@router.get("/docs")
def docs(request: Request) -> Response:
    """What the API offers, read from its schema in the browser."""
    return _html(request, "docs.html")


@router.get("/favicon.ico")
def icon() -> Response:
    """For browsers that ask without having been told."""
    return Response(read_page().parts["mark.svg"], media_type=_KINDS["svg"])


@router.get("/static/{version}/{name}")
def part(version: str, name: str) -> Response:
    """A part of the page.

    Raises:
        ApiError: there is none, or the address is that of another version.
    """
    page = read_page()
    content = page.parts.get(name)
    if content is None or version != page.version:
        raise ApiError("not_found", "the page has no such part; load it anew.")
    return Response(content, media_type=_KINDS[name.rpartition(".")[2]], headers={"Cache-Control": _FOR_EVER})


def _html(request: Request, name: str) -> Response:
    tag = f'"{read_page().version}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(read_page().html(name), media_type=_KINDS["html"], headers=headers)
