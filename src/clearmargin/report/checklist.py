"""Reporting checklists, filled in as far as the run knows, with clearly marked blanks for its authors.

The items are in `checklists/`, in our own short words; what each guideline asks in full is in its own text,
which is cited. What the run knows is gathered in `facts.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clearmargin.config import read_toml
from clearmargin.files import make_folder, write_text
from clearmargin.report.facts import gather_facts
from clearmargin.report.markdown import escape
from clearmargin.report.run_files import RunFiles

_FOLDER = Path(__file__).parent / "checklists"
NAMES = ("CLAIM-2024", "TRIPOD-AI", "STARD-AI")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a guideline asks: where it is answered, by which facts, and what only an author can add."""

    number: str
    section: str
    ask: str
    where: str
    facts: tuple[str, ...] = ()
    author: str = ""


@dataclass(frozen=True, slots=True)
class Checklist:
    file_name: str
    name: str
    title: str
    source: str
    items: tuple[Item, ...]


def read_checklists() -> list[Checklist]:
    """The checklists that come with the package."""
    found = []
    for name in NAMES:
        values = read_toml(_FOLDER / f"{name}.toml")
        items = tuple(Item(**{**item, "facts": tuple(item.get("facts", ()))}) for item in values["item"])
        found.append(Checklist(f"{name}.md", values["name"], values["title"], values["source"], items))
    return found


def write_checklists(run: RunFiles) -> list[Path]:
    """Write `checklists/CLAIM-2024.md`, `TRIPOD-AI.md` and `STARD-AI.md` into the run folder; gives their paths."""
    folder = run.folder / "checklists"
    make_folder(folder)
    known = gather_facts(run)
    written = []
    for checklist in read_checklists():
        written.append(folder / checklist.file_name)
        write_text(written[-1], render_checklist(checklist, known, name=run.name))
    return written


def render_checklist(checklist: Checklist, known: dict[str, str], *, name: str) -> str:
    """The checklist as Markdown.

    Args:
        checklist: one of `read_checklists`.
        known: as `gather_facts` gives them; an item whose facts are all missing is a blank.
        name: of the run.
    """
    lines = [
        f"# {checklist.name}: {escape(name)}",
        "",
        f"{checklist.title}. Source: {checklist.source}.",
        "",
        "Items are in short words of our own; read the guideline for what each asks in full. What the run knows is "
        "filled in; what only its authors know is marked `[author: …]`.",
        "",
        "| Item | Section | What is asked | Where | Answer |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {item.number} | {item.section} | {item.ask} | {item.where} | {_answer(item, known)} |"
        for item in checklist.items
    ]
    return "\n".join(lines) + "\n"


def _answer(item: Item, known: dict[str, str]) -> str:
    answers = [escape(known[fact]) for fact in item.facts if known.get(fact)]
    if item.author:
        answers.append(f"**[author: {escape(item.author)}]**")
    elif not answers:
        answers.append("**[author: not recorded in this run]**")
    return " ".join(answers)
