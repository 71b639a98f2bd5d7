"""The report as Markdown: the answer, the tables and the methods as text, for a manuscript or a code review.

Every number is written as in `report.html`, since both are made of the same sections.
"""

from __future__ import annotations

import re
from pathlib import Path

from clearmargin.files import write_text
from clearmargin.report import provenance, reproduction, results
from clearmargin.report.content import evidence
from clearmargin.report.document import Part, Plot, Table, plain, text_of
from clearmargin.report.run_files import RunFiles
from clearmargin.types import INTENDED_USE, OPTIMISTIC_STAMP


def write_markdown(run: RunFiles) -> Path:
    """Write `report.md` into the run folder and return its path; its pictures are those in `figures/`."""
    target = run.folder / "report.md"
    write_text(target, render_markdown(run))
    return target


def render_markdown(run: RunFiles) -> str:
    """The report as text."""
    blocks = [f"# {escape(run.name)}"]
    if banner := results.banner(run, stamp=OPTIMISTIC_STAMP):
        blocks.append(f"> **{escape(banner.title)}**: {escape(plain(banner.text))}")
    blocks += [escape(plain(results.answer(run))), *_table(results.headline_table(run))]
    for section in evidence(run):
        blocks.append(f"## {section.title}")
        for part in section.parts:
            blocks += _part(part)
    blocks.append("## Data")
    blocks += _split(run)
    blocks.append("## Methods")
    blocks.append("\n".join(f"- {term}: {escape(text)}" for term, text in provenance.methods(run)))
    if report := provenance.classification_report(run):
        blocks.append(f"```text\n{report.rstrip()}\n```")
    blocks.append("## How to reproduce it")
    if command := run.environment.get("command"):
        blocks.append(f"```sh\n{str(command).replace('`', '')}\n```")
    blocks.append("\n".join(f"- {term}: {escape(text)}" for term, text in reproduction.machine(run)))
    blocks += ["## Intended use", INTENDED_USE]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(text: str) -> str:
    r"""The text on one line, with nothing that Markdown would take for markup.

    >>> escape("a|b *c* <i>")
    'a\\|b \\*c\\* \\<i>'
    """
    return re.sub(r"([\\`*_|<\[\]#])", r"\\\1", " ".join(text.split()))


def table_lines(columns: list[str], rows: list[list[str]]) -> str:
    """A table; every cell is escaped."""
    lines = ["| " + " | ".join(map(escape, columns)) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    return "\n".join(lines)


def _part(part: Part) -> list[str]:
    blocks = [f"### {escape(part.title)}"] if part.title else []
    blocks += [escape(plain(line)) for line in part.lines]
    if part.command:
        blocks.append(f"```sh\n{part.command.replace('`', '')}\n```")
    for table in part.tables:
        blocks += _table(table)
    blocks += [_plot(plot) for plot in part.plots]
    return blocks


def _table(table: Table) -> list[str]:
    title = table.title or table.folded
    blocks = [f"**{escape(title)}**"] if title else []
    if table.note:
        blocks.append(escape(table.note))
    rows = [[text_of(row.label), *map(text_of, row.cells)] for row in table.rows]
    blocks.append(table_lines([text_of(column) for column in table.columns], rows))
    blocks += [escape(f"{label}: — {reason}") for label, reason in table.reasons]
    return blocks


def _plot(plot: Plot) -> str:
    caption = escape(plain(plot.caption))
    if plot.picture is None:
        return f"**{plot.title}**: {caption}"
    return f"![{plot.title}](figures/{plot.name}.svg)\n\n**{plot.title}**: {caption}"


def _split(run: RunFiles) -> list[str]:
    facts = provenance.counts_line(run.audit) if run.audit else ""
    table = provenance.split_table(run)
    return [escape(f"{facts}.") if facts else "", *(_table(table) if table else [])]
