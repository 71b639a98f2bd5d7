"""From files to results: decisions, maps, the table, files to keep, two languages, and the keyboard alone."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import expect
from tests.web.page.conftest import Tab
from tests.web.page.drawn_model import Drawn

WORDS = {"benign": "Benign", "malignant": "Malignant", "abstain": "Cannot tell", "refused": "Refused"}


def ask(api: httpx.Client, *paths: Path, model: str = "first") -> list[dict[str, Any]]:
    """What the API itself says."""
    files = [("files", (path.name, path.read_bytes())) for path in paths]
    answer = api.post("/predict", files=files, params={"model": model, "similar": 4})
    rows: list[dict[str, Any]] = answer.json()["predictions"]
    return rows


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return path


@pytest.fixture
def mixed(drawn: Drawn, broken: Path) -> list[Path]:
    return [*drawn.benign[:3], *drawn.malignant[:2], *drawn.abstain[:2], broken]


@pytest.mark.parametrize("decision", ["benign", "malignant", "abstain"])
def test_one_image_is_told_as_the_api_decides_it(
    decision: str, drawn: Drawn, api: httpx.Client, open_tab: Callable[..., Tab]
) -> None:
    path = getattr(drawn, decision)[0]
    (row,) = ask(api, path)
    assert row["decision"] == decision
    tab = open_tab()
    tab.upload(path)
    assert tab.page.inner_text("h2.verdict") == WORDS[decision]
    assert tab.page.locator(f"h2.verdict svg.{decision}").count() == 1
    assert tab.page.inner_text(".probability .big") == f"{row['probability']:.1%}"
    assert "malignant from" in str(tab.page.get_attribute(".scale svg", "aria-label"))
    assert "Of 100 tissue images with this probability" in tab.page.inner_text(".meaning")
    assert tab.page.inner_text(".point .value >> nth=0") == "51%"
    assert "1,234 images of 17 patients" in tab.page.inner_text(".point")
    assert tab.page.locator(".cases img[src]").count() == 4
    assert ("The decision is withheld" in tab.page.inner_text(".chance")) == (decision == "abstain")


def test_what_cannot_be_read_is_refused_with_the_reason_and_no_probability(
    broken: Path, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab()
    tab.upload(broken)
    assert tab.page.inner_text("h2.verdict") == "Refused"
    assert "ends" in tab.page.inner_text(".chance") or "damaged" in tab.page.inner_text(".chance")
    assert tab.page.locator(".probability .big").count() == 0
    assert tab.page.is_hidden(".meaning")


def test_the_share_of_malignant_moves_what_a_probability_means(
    drawn: Drawn, api: httpx.Client, open_tab: Callable[..., Tab]
) -> None:
    path = drawn.malignant[0]
    files = [("files", (path.name, path.read_bytes()))]
    moved = api.post("/predict", files=files, params={"prevalence": 0.01}).json()["predictions"][0]["at_prevalence"]
    tab = open_tab("/#/?prevalence=0.01")
    tab.upload(path)
    assert tab.page.inner_text(".prevalence output") == "1%"
    n, of = (round(moved * 100), "100") if moved >= 0.005 else (round(moved * 1000), "1,000")
    assert f"Of {of} tissue images" in tab.page.inner_text(".natural")
    assert f"about {n} " in tab.page.inner_text(".natural")
    tab.page.focus("#prevalence")
    tab.page.keyboard.press("End")
    assert tab.page.inner_text(".prevalence output") == "90%"
    assert "prevalence=0.9" in tab.page.url


def test_a_model_that_does_not_know_its_share_says_so(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab("/docs", ready="")

    def without(route: Any) -> None:
        answer = route.fetch()
        models = answer.json()
        models["models"][0]["prevalence"] = None
        route.fulfill(response=answer, json=models)

    tab.page.route("**/api/v1/models", without)
    tab.page.goto(tab.url)
    tab.upload(drawn.malignant[0])
    assert "does not say how many" in tab.page.inner_text(".meaning")
    assert "called malignant" in tab.page.inner_text(".natural")


def test_the_map_lies_over_the_image_and_follows_its_switch_strength_and_method(
    drawn: Drawn, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab()
    tab.upload(drawn.malignant[0])
    layer = tab.page.locator(".viewer .layer[src^='data:image/png']")
    layer.wait_for()
    box, below = layer.bounding_box(), tab.page.locator(".viewer .base").bounding_box()
    assert box == below
    assert "same colour is the same value" in tab.page.inner_text(".legend")
    before = layer.get_attribute("src")
    tab.page.focus("#map-opacity")
    tab.page.keyboard.press("Home")
    assert layer.evaluate("each => getComputedStyle(each).opacity") == "0"
    tab.page.keyboard.press("m")
    assert layer.evaluate("each => getComputedStyle(each).visibility") == "visible"  # a slider has its own keys
    tab.page.focus("h2.verdict")
    tab.page.keyboard.press("m")
    assert not tab.page.is_checked("#map-on")
    assert layer.evaluate("each => getComputedStyle(each).visibility") == "hidden"
    tab.page.keyboard.press("m")
    tab.page.select_option("#map-method", "occlusion")
    tab.page.wait_for_selector(".viewer .layer[alt*='cclusion']")
    assert layer.get_attribute("src") != before
    assert "blue for benign" in tab.page.inner_text(".legend")


def test_a_map_can_be_kept_as_a_picture(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.upload(drawn.malignant[0])
    tab.page.wait_for_selector(".legend button:not([disabled])")
    with tab.page.expect_download() as download:
        tab.page.click("text=Save picture")
    assert download.value.suggested_filename == f"{drawn.malignant[0].stem}_grad_cam.png"
    with Image.open(download.value.path()) as picture:
        assert picture.width > 400


def test_the_table_sorts_filters_and_finds(mixed: list[Path], api: httpx.Client, open_tab: Callable[..., Tab]) -> None:
    rows = ask(api, *mixed)
    tab = open_tab()
    tab.upload(*mixed)
    assert [row["name"] for row in tab.rows()] == [row["path"] for row in rows]
    assert [row["decision"] for row in tab.rows()] == [row["decision"] for row in rows]
    tab.page.click("th.probability button")
    assert tab.page.get_attribute("thead th.probability", "aria-sort") == "descending"
    known = sorted((row for row in rows if row["probability"] is not None), key=lambda row: -row["probability"])
    assert [row["name"] for row in tab.rows()][: len(known)] == [row["path"] for row in known]
    assert tab.rows()[-1]["decision"] == "refused"
    tab.page.click("th.probability button")
    assert [row["name"] for row in tab.rows()][: len(known)] == [row["path"] for row in reversed(known)]
    assert tab.rows()[-1]["decision"] == "refused"
    tab.page.click(".chip[data-decision=benign]")
    assert {row["decision"] for row in tab.rows()} == {"benign"}
    assert "decision=benign" in tab.page.url
    tab.page.click(".chip[data-decision=all]")
    tab.page.fill("#find", "BROKEN")
    assert [row["name"] for row in tab.rows()] == ["broken.png"]
    tab.page.fill("#find", "no such name")
    assert tab.page.is_visible("text=No image is like this.")
    tab.page.click("text=Show all")
    assert len(tab.rows()) == len(rows)


def test_files_to_keep_are_what_the_api_says_whatever_the_language(
    mixed: list[Path], api: httpx.Client, open_tab: Callable[..., Tab]
) -> None:
    rows = ask(api, *mixed)
    tab = open_tab(locale="de-DE")
    tab.upload(*mixed)
    shown = tab.rows()[0]["number"]
    assert shown == f"{rows[0]['probability'] * 100:.1f}\u00a0%".replace(".", ",")
    with tab.page.expect_download() as download:
        tab.page.click("text=CSV")
    assert download.value.suggested_filename == "clearmargin-first.csv"
    kept = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [each["path"] for each in kept] == [row["path"] for row in rows]
    assert [each["decision"] for each in kept] == [row["decision"] for row in rows]
    assert [float(each["probability"]) if each["probability"] else None for each in kept] == [
        row["probability"] for row in rows
    ]
    assert [each["reason"] or None for each in kept] == [row["reason"] for row in rows]
    with tab.page.expect_download() as download:
        tab.page.click("text=JSON")
    document = json.loads(download.value.path().read_text())
    assert document["predictions"] == rows
    assert (
        document["operating_point"]["threshold"]
        == api.get("/models").json()["models"][0]["operating_point"]["threshold"]
    )


def test_images_of_a_zip_and_kinds_that_browsers_cannot_show_have_pictures(
    drawn: Drawn, tmp_path: Path, open_tab: Callable[..., Tab]
) -> None:
    archive, scan = tmp_path / "case.zip", tmp_path / "scan.tif"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in drawn.benign[:2]:
            file.write(path, f"slide/{path.name}")
    with Image.open(drawn.malignant[0]) as picture:
        picture.save(scan)
    tab = open_tab()
    tab.upload(archive, scan)
    assert [row["name"] for row in tab.rows()] == [*(f"case.zip/slide/{p.name}" for p in drawn.benign[:2]), "scan.tif"]
    tab.page.wait_for_selector("tr:nth-child(1) .thumb img[src^='blob:']")
    tab.page.wait_for_selector("tr:nth-child(3) .thumb img[src^='data:']")  # the server's
    tab.page.click("tr:nth-child(2) a")
    tab.page.wait_for_selector(".viewer .layer[src^='data:']")


def test_a_drawn_example_is_one_click(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.page.click(".example >> nth=1")
    tab.settle()
    assert len(tab.rows()) == 1
    assert tab.page.inner_text("h2.verdict") in WORDS.values()


def test_names_are_text_and_never_html(drawn: Drawn, tmp_path: Path, open_tab: Callable[..., Tab]) -> None:
    name = '<img src=x onerror="document.title=1">&amp;.png'
    path = tmp_path / name
    path.write_bytes(drawn.benign[0].read_bytes())
    tab = open_tab()
    tab.upload(path)
    assert tab.rows()[0]["name"] == name
    assert tab.page.inner_text(".file") == name
    assert tab.page.locator("img[onerror]").count() == 0
    tab.page.wait_for_selector(".viewer .layer[src^='data:']")  # the file was found again under its name


def test_dropped_and_pasted_files_are_taken(drawn: Drawn, open_tab: Callable[..., Tab]) -> None:
    send = """([kind, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], kind + '.png', {type: 'image/png'}));
      const how = {bubbles: true, cancelable: true};
      const event = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, ...how})
        : new DragEvent('drop', {dataTransfer: data, ...how});
      document.body.dispatchEvent(event);
    }"""
    tab = open_tab()
    for kind in ("drop", "paste"):
        tab.page.evaluate(send, [kind, list(drawn.benign[0].read_bytes())])
        tab.page.wait_for_selector(f"tr a[title='{kind}.png']", state="attached")
    tab.settle()
    assert [row["name"] for row in tab.rows()] == ["drop.png", "paste.png"]


def test_the_keyboard_alone_leads_from_start_to_result_and_back(
    mixed: list[Path], open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab()
    page = tab.page
    focused = "document.activeElement.{}"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate(focused.format("textContent")) == "Choose images":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([str(path) for path in mixed])
    tab.settle()
    title = focused.format("getAttribute('title')")
    page.focus(".results tbody tr:nth-child(1) a")
    for key, row in (("j", 1), ("ArrowDown", 2), ("k", 1), ("ArrowUp", 0), ("End", len(mixed) - 1), ("Home", 0)):
        page.keyboard.press(key)
        page.wait_for_selector(f".results tr:nth-child({row + 1}).current a:focus")
        assert page.evaluate(title) == mixed[row].name
    page.keyboard.press("Enter")
    page.wait_for_selector("h2.verdict:focus")
    page.keyboard.press("Escape")
    page.wait_for_selector(".results tr:nth-child(1) a:focus")
    page.keyboard.press("/")
    page.wait_for_selector("#find:focus")
    page.keyboard.type("j?")  # letters are letters where one writes
    assert page.input_value("#find") == "j?"
    page.keyboard.press("Escape")
    page.wait_for_selector(".listing a:focus, .none:visible")
    page.fill("#find", "")
    page.focus(".results tbody tr:nth-child(1) a")
    page.keyboard.press("?")
    page.wait_for_selector("dialog.over[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.over", state="hidden")
    expect(page).to_have_url(re.compile("#/image/"))


def test_single_letters_can_be_switched_off(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab("/#/help")
    tab.page.uncheck("#single-keys")
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("?")
    assert tab.page.is_hidden("dialog.over")


def test_results_are_announced_in_words(mixed: list[Path], open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.upload(*mixed)
    assert tab.page.inner_text("#live") == "8 images: 2 malignant, 3 benign, 2 cannot tell, 1 refused."


def test_more_rows_than_a_page_are_turned_with_buttons_and_keys(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    rows = [{"path": f"p{n}.png", "probability": n / 1000, "decision": "benign", "reason": None} for n in range(450)]
    answer = {"model": "first", "operating_point": {}, "predictions": rows}
    tab.page.route("**/api/v1/predict*", lambda route: route.fulfill(json=answer))
    tab.page.set_input_files("#files", {"name": "all.zip", "mimeType": "application/zip", "buffer": b"PK"})
    tab.settle()
    assert len(tab.rows()) == 200
    assert "1 to 200 of 450" in tab.page.inner_text(".pager")
    tab.page.click("text=Later")
    assert tab.rows()[0]["name"] == "p200.png"
    tab.page.focus(".results tbody tr:nth-child(1) a")
    tab.page.keyboard.press("End")
    tab.page.wait_for_selector("a[title='p449.png']:focus")
