"""The files of the page: served once for ever, from this host only, small, and never as HTML from text."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from tests.web.conftest import MakeClient

from clearmargin.web.routes.page import read_page

PARTS = read_page().parts
SCRIPTS = sorted(name for name in PARTS if name.endswith(".js"))


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_every_part_that_a_page_names_is_served_for_ever(path: str, make_client: MakeClient) -> None:
    client = make_client()
    page = client.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert len(named) > 5
    for part in named:
        answer = client.get(part)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.content == PARTS[part.rsplit("/", 1)[1]]
    assert "{static}" not in page.text


def test_a_page_that_has_not_changed_is_not_sent_again(make_client: MakeClient) -> None:
    client = make_client()
    tag = client.get("/").headers["etag"]
    assert client.get("/", headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/", headers={"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize("name", ["{version}/nothing.js", "{version}/..%2Fpage.py", "0123456789abcdef/main.js"])
def test_what_is_no_part_of_this_version_is_not_found(name: str, make_client: MakeClient) -> None:
    answer = make_client().get("/static/" + name.format(version=read_page().version))
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_page_needs_no_token_and_the_api_does(make_client: MakeClient) -> None:
    client = make_client(token="a-token-of-more-than-sixteen")
    assert client.get("/").status_code == 200
    assert client.get("/api/v1/models").status_code == 401


def test_every_file_of_the_folder_is_a_part() -> None:
    assert {each.name for each in (files("clearmargin.web") / "page").iterdir()} == set(PARTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports_only_parts_and_is_short(name: str) -> None:
    text = PARTS[name].decode()
    imported = re.findall(r'^import [^;]*?from "([^"]+)"', text, re.MULTILINE)
    assert all(each.startswith("./") and each[2:] in PARTS for each in imported)
    assert text.count("\n") <= 300


@pytest.mark.parametrize("name", sorted(PARTS))
def test_a_part_names_no_other_host_and_makes_no_html_of_text(name: str) -> None:
    text = PARTS[name].decode()
    assert set(re.findall(r"https?://[a-z0-9][\w.-]*", text)) <= {"http://www.w3.org"}
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", " style="):
        assert way not in text
    assert "@import" not in text
