"""What a prompt shows of an audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clearmargin.api import audit
from clearmargin.types import Finding


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


def test_without_findings_there_is_one_line(make_folder: Callable[..., Path]) -> None:
    clean = replace(audit(make_folder(patients=4, per_class=2)), findings=())
    assert len(repr(clean).splitlines()) == 1
