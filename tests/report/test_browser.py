"""The page in a real browser: nothing overflows, nothing is asked for, nothing complains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser

from clearmargin.report.write import write_report


@pytest.fixture(scope="module")
def worst(build_run: Callable[..., Any], load_image: Callable[[str], NDArray[np.uint8]]) -> Path:
    """An image-level run with names as long as they come."""
    build = build_run("a-name-that-is-longer-than-any-phone-is-wide-" * 4, protocol="image")
    build.table["patient_id"] = "TCGA-" + build.table["patient_id"] + "-" + "0123456789" * 8
    build.table["path"] = build.table["path"].str.replace(".png", "_" + "verylongname" * 9 + ".png", regex=False)
    build.environment["command"] = "clearmargin train " + "/very/long/folder" * 20
    build.audit["findings"][0]["paths"] = ["folder/" * 30 + "x.png"]
    folder: Path = build.write()
    write_report(folder, load_image=load_image)
    return folder


@pytest.mark.parametrize("which", ["run", "context_run", "worst"])
@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (320, "dark"), (768, "light"), (1280, "dark")])
def test_the_page_fits_asks_for_nothing_and_does_not_complain(
    which: str, width: int, scheme: str, browser: Browser, request: pytest.FixtureRequest
) -> None:
    report = request.getfixturevalue(which) / "report.html"
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda each: requests.append(each.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(dialog.message))
    tab.goto(report.as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    overflow = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    pictures = tab.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
    context.close()
    assert overflow == 0
    assert pictures
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
