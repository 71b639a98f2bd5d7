"""The modules that only compute, run in the browser they are for and checked against Python."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.web.page.conftest import Tab

from clearmargin.evaluation.prevalence import ppv_npv_at, shift_prior
from clearmargin.web.routes.page import read_page

Run = Callable[..., Any]


@pytest.fixture
def tab(open_tab: Callable[..., Tab]) -> Tab:
    return open_tab("/docs", ready="details")


@pytest.fixture
def run(tab: Tab) -> Run:
    """`run("chance.js", "m => m.f(1)", argument)` in the page."""
    page = tab.page

    def call(module: str, body: str, argument: Any = None) -> Any:
        address = f"/static/{read_page().version}/{module}"
        return page.evaluate(f"async argument => ({body})(await import('{address}'), argument)", argument)

    return call


def test_probabilities_move_to_another_share_as_those_of_the_package(run: Run) -> None:
    cases = [(0.0, 0.5, 0.01), (0.3, 0.27, 0.005), (0.97, 0.6, 0.9), (1.0, 0.5, 0.1)]
    mine = run("chance.js", "(m, all) => all.map(each => m.shiftPrior(...each))", cases)
    theirs = [float(shift_prior(np.array(p), before, after)) for p, before, after in cases]
    assert mine == pytest.approx(theirs, abs=1e-15)


def test_the_share_among_decisions_is_that_of_bayes(run: Run) -> None:
    ppv, npv = ppv_npv_at(0.8, 0.7, 0.05)
    mine = run("chance.js", "m => ['malignant', 'benign'].map(each => m.shareAmong(each, .8, .7, .05))")
    assert mine == pytest.approx([float(ppv), 1 - float(npv)])
    assert run("chance.js", "m => m.shareAmong('malignant', 0, 1, .5)") is None


def test_natural_frequencies_add_up(run: Run) -> None:
    for sensitivity, specificity, prevalence in [(0.8, 0.7, 0.05), (1, 0, 0.001), (0.333, 0.999, 0.9)]:
        n = run("chance.js", "(m, all) => m.naturalFrequencies(...all)", [sensitivity, specificity, prevalence])
        assert n["found"] + n["missed"] == n["malignant"]
        assert n["spared"] + n["alarms"] == n["benign"]
        assert n["malignant"] + n["benign"] == n["of"] == 1000


@pytest.mark.parametrize(
    ("share", "told"),
    [(0.63, (63, 100)), (0.004, (4, 1000)), (0.0002, (2, 10000)), (0.0, (1, 10000)), (0.9999999, (9999, 10000))],
)
def test_a_share_is_told_in_the_smallest_round_number_that_shows_it(
    share: float, told: tuple[int, int], run: Run
) -> None:
    answer = run("chance.js", "(m, share) => m.inWhole(share)", share)
    assert (answer["n"], answer["of"]) == told


def test_numbers_are_written_as_the_language_does_and_never_as_certain(run: Run) -> None:
    body = """(m, locale) => {
      const f = m.makeFormat([locale]);
      return [.834, 0, 1].map(f.probability).concat(f.count(1234));
    }"""
    assert run("format.js", body, "en-US") == ["83.4%", "< 0.1%", "> 99.9%", "1,234"]
    assert run("format.js", body, "de-DE") == ["83,4\u00a0%", "< 0,1\u00a0%", "> 99,9\u00a0%", "1.234"]


@pytest.mark.parametrize(
    "hash_",
    [
        "#/",
        "#/image/12",
        "#/compare/3?model=a+b",
        "#/card",
        "#/?decision=benign&name=%26%23&sort=name&order=descending",
    ],
)
def test_an_address_is_read_back_as_it_was_written(hash_: str, run: Run) -> None:
    assert run("route.js", "(m, hash) => m.formatRoute(m.parseRoute(hash))", hash_) == hash_


@pytest.mark.parametrize(
    "hash_", ["#/image", "#/image/x", "#/nothing/1", "#/?decision=maybe&sort=size&prevalence=7", ""]
)
def test_an_address_without_sense_is_home(hash_: str, run: Run) -> None:
    assert run("route.js", "(m, hash) => m.formatRoute(m.parseRoute(hash))", hash_) == "#/"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_are_the_same_however_they_are_cut(size: int, run: Run) -> None:
    text = ': hello\n\nid: 1\nevent: progress\ndata: {"done": 1}\n\n'
    text += "id: 2\r\nevent: end\r\ndata: a\r\ndata: b\r\n\r\ndata: torn"
    body = "(m, parts) => { const parse = m.makeParser(); return parts.flatMap(part => parse(part)) }"
    events = run("sse.js", body, [text[at : at + size] for at in range(0, len(text), size)])
    assert events == [
        {"event": "progress", "data": '{"done": 1}', "id": "1"},
        {"event": "end", "data": "a\nb", "id": "2"},
    ]


def test_rows_find_their_files_also_where_names_repeat_and_in_zips(run: Run) -> None:
    body = """(m, [rows, names]) => {
      const files = names.map((name, at) => Object.assign(new File(['x'], name), {at}));
      return m.matchRows(rows, files).map(each => each && [each.file.at, each.member]);
    }"""
    rows = ["a.png", "b.zip/in/c.png", "a.png", "d.dcm#2", "nobody.png"]
    found = run("match.js", body, [rows, ["a.png", "b.zip", "a.png", "d.dcm"]])
    assert found == [[0, None], [1, "in/c.png"], [2, None], [3, None], None]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_of_a_zip_are_read_byte_for_byte(method: int, run: Run) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("ä/one.png", b"abc" * 1000)
        archive.comment = b"a comment"
    body = """async (m, bytes) => {
      const file = new File([new Uint8Array(bytes)], 'a.zip');
      const found = await m.readMember(file, 'ä/one.png');
      return [found && await found.text(), await m.readMember(file, 'other')];
    }"""
    assert run("zip.js", body, list(stream.getvalue())) == ["abc" * 1000, None]


def test_a_file_that_is_no_zip_has_no_members(run: Run) -> None:
    assert run("zip.js", "m => m.readMember(new File(['PK nonsense'], 'a.zip'), 'b')") is None


def test_html_of_the_server_loses_all_that_could_do_something(run: Run, tab: Tab) -> None:
    html = (
        '<h1 onclick="x()">T</h1><script>alert(1)</script><img src=x onerror=x()><a href="javascript:x()">j</a>'
        '<p style="color:red">p<b>b</b></p><table><tr><th scope="col">h</th></tr></table><iframe src="/"></iframe>'
    )
    body = "(m, html) => { const d = document.createElement('div'); d.append(m.safeHtml(html)); return d.innerHTML }"
    safe = run("safe.js", body, html)
    assert safe.startswith("<h2>T</h2><a>j</a><p>p<b>b</b></p>")
    assert '<th scope="col">h</th>' in safe
    assert not any(word in safe for word in ("script", "onerror", "img", "style", "iframe"))
    assert all("Content Security Policy" in each for each in tab.complaints)  # of the parsed text, which is never shown
    tab.complaints.clear()


def test_a_table_for_machines_quotes_what_it_must(run: Run) -> None:
    row = {"path": 'a,"b\n.png', "probability": 0.5, "decision": "benign", "reason": None, "x": 3}
    text = run("files.js", "(m, rows) => m.toCsv(rows)", [row])
    assert text == 'path,patient_id,slide_id,x,y,probability,decision,reason\n"a,""b\n.png",,,3,,0.5,benign,\n'
    assert json.loads(run("files.js", "(m, rows) => m.toJson('m', {}, rows)", [row]))["predictions"] == [row]
