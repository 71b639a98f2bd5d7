"""The headline figures as a table of LaTeX that needs no package, ready for a paper."""

from __future__ import annotations

from pathlib import Path

from clearmargin.files import write_text
from clearmargin.report import results
from clearmargin.report.document import plain, text_of
from clearmargin.report.run_files import RunFiles

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "≥": r"$\geq$",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "\N{NO-BREAK SPACE}": "~",
}


def write_latex(run: RunFiles) -> Path:
    """Write `table.tex` into the run folder and return its path."""
    target = run.folder / "table.tex"
    write_text(target, render_latex(run))
    return target


def render_latex(run: RunFiles) -> str:
    """A `tabular` of the headline figures with their intervals, and before it, as comments, what they are of.

    In the context of slides, two more columns have the figures of each patch by itself.
    """
    table = results.headline_table(run)
    rows = [table.columns, *((row.label, *row.cells) for row in table.rows)]
    if run.in_context:
        alone = results.figure_table(run.block["image_alone"], place=f"{run.headline}.image_alone")
        added = [("By itself", alone.columns[-1]), *(row.cells for row in alone.rows)]
        rows = [(*row, *more) for row, more in zip(rows, added, strict=True)]
    printed = [" & ".join(escape(text_of(cell)) for cell in row) + r" \\" for row in rows]
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}", r"\hline", printed[0], r"\hline", *printed[1:]]
    lines += [r"\hline", r"\end{tabular}"]
    comments = [plain(results.answer(run)), *(f"{label}: {reason}" for label, reason in table.reasons)]
    return "\n".join([*(f"% {escape(comment)}" for comment in comments), *lines]) + "\n"


def escape(text: str) -> str:
    r"""The text with nothing in it that LaTeX would take for a command; letters beyond ASCII need UTF-8 input.

    >>> print(escape("a_b & 95 % {x}"))
    a\_b \& 95 \% \{x\}
    """
    printed = [letter for letter in text if letter.isprintable() or letter in _ESCAPES]
    return "".join(_ESCAPES.get(letter, letter) for letter in printed)
