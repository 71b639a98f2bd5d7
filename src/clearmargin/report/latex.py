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
    """A `tabular` of the headline figures with their intervals, and before it, as comments, what they are of."""
    table = results.headline_table(run)
    lines = [r"\begin{tabular}{lrr}", r"\hline", " & ".join(escape(text_of(each)) for each in table.columns) + r" \\"]
    lines.append(r"\hline")
    lines += [" & ".join(escape(text_of(cell)) for cell in (row.label, *row.cells)) + r" \\" for row in table.rows]
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
