"""What is not a result: waiting, errors, the token, other views; and every state for every reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect
from tests.web.page.conftest import TOKEN, Tab, serve
from tests.web.page.drawn_model import Drawn

SHIFT = """
new PerformanceObserver(list => {
  window.shifts = (window.shifts ?? []).concat(list.getEntries().map(each => [each.value, ...each.sources.map(
    source => source.node && (source.node.className || source.node.nodeName))]));
}).observe({type: 'layout-shift', buffered: true});
"""
# matplotlib's, as the API gives it: with the page's variables.
FIGURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0h9" stroke="var(--plot-ink, #000)"/></svg>'
)


def error(status: int, code: str, message: str = "what, where, how to fix.", **headers: str) -> Callable[[Route], None]:
    """Answers a request with this error."""
    facts = {"status": status, "code": code, "message": message, "request_id": "0123abcd", "details": []}
    return lambda route: route.fulfill(status=status, json={"error": facts}, headers=headers)


def worst(page: Page) -> list[str]:
    """What axe finds serious or critical, and where."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:160]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def show_empty(tab: Tab, drawn: Drawn) -> None:
    tab.page.wait_for_selector(".facts .figure")


def show_many(tab: Tab, drawn: Drawn) -> None:
    tab.upload(*drawn.benign[:3], *drawn.malignant[:3], *drawn.abstain[:2], Path(__file__))
    tab.page.wait_for_selector(".layer[src^='data:'], .list-pane:visible")


def show_image(tab: Tab, drawn: Drawn) -> None:
    tab.upload(drawn.malignant[0])
    tab.page.wait_for_selector(".layer[src^='data:']")


def show_refused(tab: Tab, drawn: Drawn) -> None:
    tab.upload(Path(__file__))


def show_compare(tab: Tab, drawn: Drawn) -> None:
    show_image(tab, drawn)
    tab.page.keyboard.press("c")
    expect(tab.page.locator(".models .big")).to_have_count(2)


def show_card(tab: Tab, drawn: Drawn) -> None:
    tab.page.click("text=Model card >> nth=0")
    tab.page.wait_for_selector("dialog .prose li")


def show_figures(tab: Tab, drawn: Drawn) -> None:
    figure = {"name": "roc", "title": "ROC curve", "caption": "AUROC 0.9.", "svg": FIGURE}
    tab.page.route("**/api/v1/figures*", lambda route: route.fulfill(json={"model": "first", "figures": [figure]}))
    tab.page.click(".links >> text=Figures")
    tab.page.wait_for_selector("dialog .plots img")


def show_use(tab: Tab, drawn: Drawn) -> None:
    tab.page.click("text=Not a medical device.")
    tab.page.wait_for_selector("dialog .statement")


def show_help(tab: Tab, drawn: Drawn) -> None:
    tab.page.click(".links >> text=Help")
    tab.page.wait_for_selector("dialog kbd")


def show_error(tab: Tab, drawn: Drawn) -> None:
    tab.page.route("**/api/v1/predict*", error(413, "too_large"))
    tab.page.set_input_files("#files", [str(path) for path in drawn.benign[:2]])
    tab.page.wait_for_selector(".run.wrong")


def show_busy(tab: Tab, drawn: Drawn) -> None:
    tab.page.route("**/api/v1/predict*", error(429, "busy", **{"Retry-After": "50"}))
    tab.page.set_input_files("#files", str(drawn.benign[0]))
    tab.page.wait_for_selector("text=The server is busy.")


STATES = [
    show_empty, show_many, show_image, show_refused, show_compare, show_card, show_figures, show_use, show_help,
    show_error, show_busy,
]  # fmt: skip


@pytest.mark.parametrize("show", STATES, ids=lambda show: show.__name__)
def test_every_state_is_accessible_in_light_and_dark_and_nothing_jumps(
    show: Callable[..., None], drawn: Drawn, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab("/docs", ready="", color_scheme="light")
    tab.page.add_init_script(SHIFT)
    tab.page.goto(tab.url)
    tab.page.wait_for_selector(".example img")
    show(tab, drawn)
    assert tab.page.evaluate("window.shifts ?? []") == []
    assert worst(tab.page) == []
    tab.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert worst(tab.page) == []


@pytest.mark.parametrize("show", STATES, ids=lambda show: show.__name__)
def test_every_state_fits_phones_and_wide_screens(
    show: Callable[..., None], drawn: Drawn, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab(viewport={"width": 320, "height": 720})
    show(tab, drawn)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    inner = """[...document.querySelectorAll('.pane, dialog[open] .content')].filter(
      each => each.scrollWidth > each.clientWidth + 1).map(each => each.className)"""
    for width in (320, 768, 1100, 1600):
        tab.page.set_viewport_size({"width": width, "height": 720})
        assert tab.page.evaluate(overflow) == 0, width
        assert tab.page.evaluate(inner) == [], width
        assert tab.page.is_visible("text=For research and education. Not a medical device.")


def test_a_phone_shows_the_list_or_the_image(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(viewport={"width": 320, "height": 640})
    tab.upload(*drawn.benign[:2])
    assert tab.page.is_visible("table.results")
    assert tab.page.is_hidden(".detail")
    tab.page.click("tr:nth-child(2) a")
    assert tab.page.is_hidden("table.results")
    assert tab.page.inner_text(".file") == drawn.benign[1].name
    tab.page.go_back()
    assert tab.page.is_visible("table.results")


@pytest.mark.parametrize(
    ("status", "code", "title"),
    [
        (413, "too_large", "Too large."),
        (415, "unsupported", "Not an image that can be read."),
        (503, "timeout", "This took too long."),
        (500, "internal", "Something is wrong in the server."),
    ],
)
def test_an_error_says_what_and_what_to_do(
    status: int, code: str, title: str, drawn: Drawn, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab()
    tab.page.route("**/api/v1/predict*", error(status, code))
    tab.page.set_input_files("#files", str(drawn.benign[0]))
    assert tab.page.inner_text(".run.wrong .title") == title
    assert "What, where, how to fix." in tab.page.inner_text(".run.wrong")
    assert "0123abcd" in tab.page.inner_text(".run.wrong")
    assert title[:-1] in tab.page.inner_text("#live")
    assert tab.rows()[0]["decision"] == "failed"
    if status < 500:
        assert tab.page.locator(".run button:has-text('Try again')").count() == 0
        tab.page.click(".run button:has-text('Remove')")
        tab.page.wait_for_selector(".dropzone")
    else:
        tab.page.unroute("**/api/v1/predict*")
        tab.page.click(".run button:has-text('Try again')")
        tab.settle()
        assert tab.rows()[0]["decision"] == "benign"


def test_a_busy_server_is_asked_again_by_itself(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.page.route("**/api/v1/predict*", error(429, "busy", **{"Retry-After": "1"}), times=1)
    tab.page.set_input_files("#files", str(drawn.benign[0]))
    tab.page.wait_for_selector("text=The server is busy.")
    tab.settle()
    assert tab.rows()[0]["decision"] == "benign"


def test_what_is_under_way_can_be_cancelled_and_begun_again(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.page.route("**/api/v1/predict*", lambda route: None)
    tab.page.set_input_files("#files", str(drawn.benign[0]))
    tab.page.click(".run button:has-text('Cancel')")
    assert tab.page.inner_text(".run .title") == "Cancelled."
    tab.page.unroute("**/api/v1/predict*")
    tab.page.click(".run button:has-text('Try again')")
    tab.settle()
    assert tab.rows()[0]["decision"] == "benign"


def test_a_server_that_has_gone_is_told_and_results_stay(
    drawn: Drawn, tmp_path: Path, open_tab: Callable[..., Tab]
) -> None:
    with serve(tmp_path, drawn.bundle) as url:
        tab = open_tab(url=url)
        tab.upload(drawn.benign[0])
    tab.page.set_input_files("#files", str(drawn.malignant[0]))
    tab.page.wait_for_selector("text=Results that are here stay here. This line")
    assert tab.page.inner_text(".run.wrong .title") == "The server does not answer."
    assert [row["decision"] for row in tab.rows()] == ["benign", "failed"]


def test_a_page_whose_models_cannot_be_had_offers_to_try_again(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab("/docs", ready="")
    tab.page.route("**/api/v1/models", error(503, "stopping"), times=1)
    tab.page.goto(tab.url)
    assert tab.page.inner_text(".failure h1") == "The server is stopping"
    tab.page.click("text=Try again")
    tab.page.wait_for_selector(".dropzone")


def test_a_token_is_asked_for_and_kept_in_the_tab(drawn: Drawn, tmp_path: Path, open_tab: Callable[..., Tab]) -> None:
    with serve(tmp_path, drawn.bundle, token=TOKEN) as url:
        tab = open_tab(url=url, ready="dialog.token[open]")
        assert worst(tab.page) == []
        tab.page.fill("#token", "not-the-token-of-this")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("text=That token was not accepted.")
        tab.page.fill("#token", TOKEN)
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector(".example img")
        tab.upload(drawn.malignant[0])
        tab.page.wait_for_selector(".cases img[src^='blob:']")
        tab.page.reload()
        tab.page.wait_for_selector(".example img")  # without being asked again
        assert tab.page.evaluate("localStorage.length") == 0
        tab.page.evaluate("sessionStorage.clear()")
        tab.page.reload()
        tab.page.click("text=Not now")
        assert tab.page.inner_text(".failure h1") == "A token is needed"


def test_many_files_go_as_a_job_with_progress(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    files = [
        {"name": f"{number:02}.png", "mimeType": "image/png", "buffer": drawn.benign[number % 3].read_bytes()}
        for number in range(60)
    ]
    tab.page.set_input_files("#files", files)  # type: ignore[arg-type]
    tab.settle()
    assert len(tab.rows()) == 60
    assert {row["decision"] for row in tab.rows()} == {"benign"}
    asked = [url.split("/api/v1/")[1] for url in tab.requests if "/api/v1/jobs" in url]
    assert asked[0] == "jobs?model=first&similar=4"
    assert any(each.endswith("/events") for each in asked)
    assert not any("predict" in url for url in tab.requests)


def test_a_job_tells_how_far_it_is_and_is_cancelled_on_the_server(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    job = {"id": "j1", "state": "running", "done": 0, "total": 60, "links": {}}
    deleted: list[str] = []
    stream = "id: 1\nevent: progress\ndata: " + json.dumps({"done": 15, "total": 60, "state": "running"}) + "\n\n"

    def one(route: Route) -> None:
        deleted.append(route.request.method)
        route.fulfill(status=204)

    tab.page.route("**/api/v1/jobs?*", lambda route: route.fulfill(status=202, json=job))
    tab.page.route("**/api/v1/jobs/j1", one)
    tab.page.route(
        "**/api/v1/jobs/j1/events", lambda route: route.fulfill(body=stream, content_type="text/event-stream")
    )
    files: Any = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": b"x"} for n in range(60)]
    tab.page.set_input_files("#files", files)
    tab.page.wait_for_selector("text=15 of 60 images decided")
    assert "left" in tab.page.inner_text(".run")
    tab.page.click(".run button:has-text('Cancel')")
    tab.page.wait_for_selector("text=Cancelled.")
    assert deleted == ["DELETE"]


def test_another_model_decides_the_same_images_again(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.upload(drawn.benign[0], drawn.malignant[0])
    before = tab.rows()
    tab.page.select_option("#model", "second")
    tab.settle()
    assert [row["name"] for row in tab.rows()] == [row["name"] for row in before]
    assert [row["number"] for row in tab.rows()] != [row["number"] for row in before]
    assert "model=second" in tab.page.url
    tab.page.go_back()
    tab.settle()
    assert tab.rows() == before


def test_views_have_addresses_and_the_back_button_leaves_them(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab("/#/card")
    tab.page.wait_for_selector("dialog .prose")
    assert "Model card of first" in tab.page.inner_text("dialog header")
    tab.page.click("dialog .close")
    assert tab.page.is_hidden("dialog")
    tab.page.go_back()
    tab.page.wait_for_selector("dialog[open]")


def test_colours_can_be_chosen_and_are_kept(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.page.evaluate(paper)
    tab.page.select_option("#theme select", "dark")
    dark = tab.page.evaluate(paper)
    assert dark != light
    tab.page.reload()
    tab.page.wait_for_selector(".dropzone")
    assert tab.page.evaluate(paper) == dark
    tab.page.select_option("#theme select", "system")
    assert tab.page.evaluate(paper) == light


def test_the_print_has_the_result_and_no_controls(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.upload(drawn.malignant[0])
    tab.page.emulate_media(media="print")
    assert tab.page.is_visible("h2.verdict")
    assert tab.page.is_visible("text=Not a medical device.")
    assert tab.page.is_hidden(".toolbar button")
    assert tab.page.is_hidden(".controls")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_api_is_documented_from_its_own_schema(scheme: str, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab("/docs", ready="details", color_scheme=scheme)
    assert tab.page.locator("summary:has-text('/api/v1/predict')").count() == 1
    tab.page.click("summary:has-text('/api/v1/predict')")
    assert "-F files=@image.png" in tab.page.inner_text("details[open] pre")
    assert worst(tab.page) == []
