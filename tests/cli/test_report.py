"""`clearmargin report`: the forms it writes, and that it writes them the same each time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Answer, SmallRun

Call = Callable[..., Answer]


def test_the_page_its_checklists_and_its_figures_are_named(call: Call, small_run: SmallRun) -> None:
    answer = call("report", small_run.folder)
    assert answer.code == 0
    named = [Path(line) for line in answer.out.split()]
    assert [path.relative_to(small_run.folder).as_posix() for path in named] == [
        "report.html",
        "checklists/CLAIM-2024.md",
        "checklists/TRIPOD-AI.md",
        "checklists/STARD-AI.md",
        "figures",
    ]
    assert all(path.exists() for path in named)


@pytest.mark.parametrize(("form", "name"), [("markdown", "report.md"), ("latex-table", "table.tex")])
def test_a_form_for_a_paper_is_written_beside_the_page(form: str, name: str, call: Call, small_run: SmallRun) -> None:
    answer = call("report", small_run.folder, "--format", form)
    assert answer.code == 0
    assert str(small_run.folder / name) in answer.out
    assert "AUROC" in (small_run.folder / name).read_text(encoding="utf-8")


def test_figures_go_to_another_folder(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    assert call("report", small_run.folder, "--format", "latex-table", "--figures", tmp_path / "paper").code == 0
    assert {"roc.svg", "roc.pdf", "reliability.pdf"} <= {path.name for path in (tmp_path / "paper").iterdir()}


def test_a_folder_that_is_no_run_is_one_clear_line(call: Call, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "model.clearmargin"):
        answer = call("report", place)
        assert answer.code == 3
        assert f"{place}: not a run folder; a bundle alone holds nothing to report. Give the folder" in answer.err
    (tmp_path / "config.toml").touch()
    assert "not a finished run (no run.json). Finish it" in call("report", tmp_path).err


def test_files_that_were_changed_since_are_named(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run.folder, run)
    text = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text(text.replace('"schema": 1', '"schema":  1', 1))
    answer = call("report", run)
    assert answer.code == 0
    assert "Note: metrics.json was changed since the run ended" in answer.err
    for content in ("{}", "[1]", '{"complete": false, "sha256": {}}', "no json"):
        (run / "run.json").write_text(content)
        assert call("report", run).code == 3
