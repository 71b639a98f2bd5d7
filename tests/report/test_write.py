"""The files that a report leaves behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearmargin.report.latex import escape
from clearmargin.report.markdown import write_markdown
from clearmargin.report.run_files import read_run
from clearmargin.report.write import write_artefacts, write_forms

FIGURES = {
    "confusion",
    "decision_curve",
    "histogram",
    "patient_shares",
    "patients",
    "precision_recall",
    "reliability",
    "risk_coverage",
    "roc",
    "training",
}


def test_the_page_has_its_companions(run: Path) -> None:
    assert {path.stem for path in (run / "figures").iterdir()} == FIGURES
    assert {path.suffix for path in (run / "figures").iterdir()} == {".svg", ".pdf"}
    page = (run / "report.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="(checklists/[^"]+)"', page))
    assert linked == {"checklists/CLAIM-2024.md", "checklists/TRIPOD-AI.md", "checklists/STARD-AI.md"}
    assert all((run / path).is_file() for path in linked)


def test_the_same_run_gives_the_same_bytes_in_every_file(run: Path, load_image: Any, tmp_path: Path) -> None:
    write_markdown(read_run(run))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    write_artefacts(run, load_image=load_image, figures=run / "figures")
    write_markdown(read_run(run))
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} == set()


def test_figures_go_where_they_are_wanted(build_run: Callable[..., Any], tmp_path: Path) -> None:
    folder = build_run().write()
    written = write_forms(folder, "latex-table", figures=tmp_path / "paper" / "figures")
    assert (tmp_path / "paper" / "figures" / "roc.pdf") in written
    assert not (folder / "figures").exists()


def test_markdown_has_tables_of_one_width_and_pictures_that_are_there(run: Path) -> None:
    write_markdown(read_run(run))
    text = (run / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(pictures) == len(FIGURES)
    assert all((run / path).is_file() for path in pictures)
    widths: list[set[int]] = [set()]
    for line in text.splitlines():
        if line.startswith("|"):
            widths[-1].add(len(re.split(r"(?<!\\)\|", line)))
        elif widths[-1]:
            widths.append(set())
    assert all(len(each) == 1 for each in widths if each)


def test_hostile_names_are_text_in_markdown(build_run: Callable[..., Any]) -> None:
    build = build_run("a|b <script>")
    build.table["patient_id"] = build.table["patient_id"].replace({"TE-00": "x|y `z` <img>"})
    build.environment["command"] = "train\n```\n# gone"
    write_markdown(read_run(build.write()))
    text = (build.folder / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# a\\|b \\<script>")
    assert "| x\\|y \\`z\\` \\<img> |" in text
    assert text.count("```") % 2 == 0


def test_the_table_is_plain_latex(run: Path) -> None:
    [path] = write_forms(run, "latex-table")
    text = path.read_text(encoding="utf-8")
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0] == r"\begin{tabular}{lrr}"
    assert body[-1] == r"\end{tabular}"
    commands = set(re.findall(r"\\([a-zA-Z]+)", "\n".join(body)))
    assert commands <= {"begin", "end", "hline", "textgreater", "textless"}
    assert all(line.count(" & ") == 2 for line in body if line.endswith(r"\\"))
    assert text.isascii()


def test_everything_that_latex_would_read_is_escaped() -> None:
    assert escape("50 % of a_b & {c} $d$ #e") == r"50 \% of a\_b \& \{c\} \$d\$ \#e"
    assert escape(r"~^\<>") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}"
