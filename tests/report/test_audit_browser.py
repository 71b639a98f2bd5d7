"""The page of an audit in a real browser: nothing overflows, nothing is asked for, nothing complains or runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from tests.report.small_audit import HOSTILE, ROOT, audit, finding, hostile_audit, patch, worst_audit

from clearmargin.errors import ImageError
from clearmargin.report.audit_page import write_audit_page


def _ordinary() -> dict[str, Any]:
    paths = [f"P{index}/1/P{index}_idx5_x51_y101_class1.png" for index in range(40)]
    found = [
        finding("label_conflict", "blocking", paths=paths[:2]),
        finding("near_duplicate", paths=paths[:6], groups=[paths[:4], paths[4:6]], certainty="likely"),
        finding("size_outlier", "note", paths=paths),
        finding("confounded_by_width", certainty="possible"),
    ]
    return audit(found, quarantine=[("bad.png", "truncated", "ends before its last row")])


PAGES: dict[str, Callable[[], dict[str, Any]]] = {
    "empty": audit,
    "ordinary": _ordinary,
    "hostile": hostile_audit,
    "worst": worst_audit,
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    labels = {f"{ROOT}/{name}": "malignant, patient " + "P-1" * 40 for name in HOSTILE}

    def load(path: str) -> Any:
        if path.endswith(("x.png", "P3_idx5_x51_y101_class1.png")):
            raise ImageError("missing", path, "no such <b>file</b> " + "y" * 500)
        return patch(path)

    return {
        name: write_audit_page(build(), folder / f"{name}.html", load_image=load, labels=labels)
        for name, build in PAGES.items()
    }


@pytest.mark.parametrize("which", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (768, "dark"), (1280, "light")])
def test_the_page_fits_asks_for_nothing_and_does_not_complain(
    which: str, width: int, scheme: Any, browser: Browser, pages: dict[str, Path]
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda each: requests.append(each.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(dialog.message))
    tab.goto(pages[which].as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    overflow = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    pictures = tab.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
    largest = tab.evaluate("Math.max(0, ...[...document.images].map(each => each.naturalWidth))")
    # A caption may not run into the next picture; placeholders hide what is too long.
    outside = tab.evaluate(
        "[...document.querySelectorAll('.tile')].filter(each => each.scrollWidth > each.clientWidth).length"
    )
    context.close()
    assert overflow == 0
    assert pictures
    assert largest <= 96
    assert outside == 0
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [pages[which].as_uri()]
