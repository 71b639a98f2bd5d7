"""What a prompt and a notebook show of an audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from clearmargin.api import audit
from clearmargin.types import Finding


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def findings(count: int, text: str = "something is odd.") -> tuple[Finding, ...]:
    paths = tuple(f"/data/{index}.png" for index in range(5000))
    return tuple(Finding(f"kind_{index}", "warning", text, "Mend it.", paths, 5000) for index in range(count))


def test_an_audit_at_a_prompt_is_a_few_lines_without_a_table(make_folder: Callable[..., Path]) -> None:
    result = replace(audit(make_folder(patients=4, per_class=2)), findings=findings(2))
    first, *rest = repr(result).splitlines()
    assert first.endswith("16 images (8 benign, 8 malignant) of 4 patients; nothing blocks, 2 warnings")
    assert [line.split(":")[0].split()[1] for line in rest] == ["kind_0", "kind_1"]


def test_many_findings_of_many_files_stay_a_few_lines(make_folder: Callable[..., Path]) -> None:
    result = replace(audit(make_folder(patients=4, per_class=2)), findings=findings(500, "long " * 10_000))
    lines = repr(result).splitlines()
    assert len(lines) == 22
    assert max(map(len, lines[1:])) <= 120
    assert lines[-1] == "  … and 480 more in .findings"
    assert len(result._repr_html_()) < 20_000


def test_a_notebook_shows_a_table_in_which_data_are_text(make_folder: Callable[..., Path]) -> None:
    result = audit(make_folder(patients=4, per_class=2))
    evil = Finding("<b>kind", "blocking", "<script>alert(1)</script>\n\x1b[2J", "Mend it.")
    shown = replace(result, findings=(evil, *result.findings))._repr_html_()
    assert set(Tags(shown).seen) == {"div", "p", "b", "br", "table", "thead", "tbody", "tr", "th", "td"}
    assert "&lt;script&gt;" in shown
    assert "\x1b" not in shown
    assert "1 finding blocks" in shown
    assert shown.count("<tr>") == 2 + len(result.findings)


def test_without_findings_there_is_no_table(make_folder: Callable[..., Path]) -> None:
    clean = replace(audit(make_folder(patients=4, per_class=2)), findings=())
    assert "table" not in Tags(clean._repr_html_()).seen
    assert len(repr(clean).splitlines()) == 1
