"""The checklists have every item of their guideline, once, and mark what only an author knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearmargin.report.checklist import read_checklists, write_checklists
from clearmargin.report.facts import gather_facts
from clearmargin.report.run_files import read_run

_TRIPOD = [
    "1",
    "2",
    "3a",
    "3b",
    "3c",
    "4",
    "5a",
    "5b",
    "6a",
    "6b",
    "6c",
    "7",
    "8a",
    "8b",
    "8c",
    "9a",
    "9b",
    "9c",
    "10",
    "11",
    "12a",
    "12b",
    "12c",
    "12d",
    "12e",
    "12f",
    "12g",
    "13",
    "14",
    "15",
    "16",
    "17",
    "18a",
    "18b",
    "18c",
    "18d",
    "18e",
    "18f",
    "19",
    "20a",
    "20b",
    "20c",
    "21",
    "22",
    "23a",
    "23b",
    "24",
    "25",
    "26",
    "27a",
    "27b",
    "27c",
]
_STARD = [
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "10",
    "11",
    "12",
    "13",
    "14",
    "15a",
    "15b",
    "15c",
    "15d",
    "16a",
    "16b",
    "16c",
    "17a",
    "17b",
    "18",
    "19",
    "20",
    "21",
    "22",
    "23",
    "24",
    "25",
    "26a",
    "26b",
    "27",
    "28",
    "29",
    "30",
    "31",
    "32",
    "33",
    "34",
    "35",
    "36",
    "37",
    "38",
    "39",
    "40a",
    "40b",
]
NUMBERS = {"CLAIM-2024.md": [str(number) for number in range(1, 45)], "TRIPOD-AI.md": _TRIPOD, "STARD-AI.md": _STARD}


def test_every_item_of_each_guideline_is_there_once_in_its_order() -> None:
    assert {each.file_name: [item.number for item in each.items] for each in read_checklists()} == NUMBERS


def test_every_item_asks_something_and_is_answered_by_facts_or_an_author(run: Path) -> None:
    known = gather_facts(read_run(run))
    for checklist in read_checklists():
        for item in checklist.items:
            assert item.ask
            assert item.where
            assert item.facts or item.author, item.number
            assert set(item.facts) <= set(known), item.number


def test_every_fact_is_asked_for(run: Path) -> None:
    asked = {fact for checklist in read_checklists() for item in checklist.items for fact in item.facts}
    assert asked == set(gather_facts(read_run(run)))


def rows_of(path: Path) -> dict[str, str]:
    """The answer of each item."""
    rows = [
        re.split(r"(?<!\\)\|", line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    assert {len(row) for row in rows} == {7}
    return {row[1].strip(): row[5].strip() for row in rows[1:]}


def test_what_the_run_knows_is_filled_in(run: Path, metrics: dict[str, Any]) -> None:
    claim = rows_of(run / "checklists" / "CLAIM-2024.md")
    assert list(claim) == NUMBERS["CLAIM-2024.md"]
    assert f"AUROC {metrics['test']['image']['auroc']['value']:.3f}" in claim["37"]
    assert "by patient: no patient is in two splits" in claim["20"]
    assert "1,570 files found; 1,563 images that open; 1,560 images used" in claim["8"]
    assert "1 file could not be used and was left out; nothing was imputed." in claim["12"]


def test_what_only_an_author_knows_is_a_marked_blank(run: Path) -> None:
    stard = rows_of(run / "checklists" / "STARD-AI.md")
    assert stard["38"] == "**[author: funding]**"
    assert all("[author:" in stard[number] for number in ("6", "12", "16a", "36"))


@pytest.mark.parametrize("without", ["config.toml", "environment.json", "audit.json", "split.csv"])
def test_a_missing_file_makes_blanks_and_no_error(without: str, build_run: Callable[..., Any]) -> None:
    folder = build_run(without=[without]).write()
    for path in write_checklists(read_run(folder)):
        assert all(rows_of(path).values())


def test_names_from_data_do_not_break_the_table(build_run: Callable[..., Any]) -> None:
    folder = build_run("a|b *c*", environment={"command": "clearmargin train a|b `c`\nd"}).write()
    for path in write_checklists(read_run(folder)):
        assert list(rows_of(path)) == NUMBERS[path.name]
