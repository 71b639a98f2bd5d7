"""Curves while training goes on: in a notebook an output that changes, elsewhere lines of text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.display.test_display import Seen

from clearmargin.display import live
from clearmargin.display.live import LiveCurves
from clearmargin.training.log import HISTORY_COLUMNS


def row(epoch: int) -> dict[str, float]:
    return dict.fromkeys(HISTORY_COLUMNS, 0.5) | {"epoch": epoch, "validation_auroc": 0.8}


class Shell:
    """What a notebook's kernel has of IPython's shell."""

    kernel = object()

    def __init__(self) -> None:
        self.ears: list[Any] = []
        self.events = SimpleNamespace(
            register=lambda _, ear: self.ears.append(ear), unregister=lambda _, ear: self.ears.remove(ear)
        )


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> tuple[Shell, list[str]]:
    import IPython.display

    shell, shown = Shell(), []

    def display(html: Any, *, display_id: bool) -> Any:
        assert display_id
        return SimpleNamespace(update=lambda html: shown.append(html.data))

    monkeypatch.setattr(live, "_shell", lambda: shell)
    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(live, "_EVERY_S", 0.0)
    monkeypatch.setattr(live, "_RESTS", 0)
    return shell, shown


def test_without_a_notebook_it_writes_lines(capsys: pytest.CaptureFixture[str]) -> None:
    curves = LiveCurves()
    curves.stage("train")
    curves.advance(1, 2)
    curves.epoch(row(1))
    curves.note("a\nnote")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Training …"
    assert "epoch   1" in lines[1]
    assert lines[2] == r"a\nnote"


def test_each_epoch_is_drawn_and_the_end_of_the_cell_is_heard(notebook: tuple[Shell, list[str]]) -> None:
    shell, shown = notebook
    curves = LiveCurves()
    curves.stage("train")
    curves.advance(1, 4)
    assert "Training …" in Seen(shown[-1]).text
    assert "1 of 4" in Seen(shown[-1]).text
    curves.epoch(row(1))
    curves.epoch(row(2))
    seen = Seen(shown[-1]).check()
    assert len(seen.images()) == 1
    assert "epoch 2, validation: loss 0.500, accuracy 0.500, AUROC 0.800" in seen.text
    curves.note("<b>note")
    shell.ears[0](SimpleNamespace(success=True))
    assert shell.ears == []
    last = Seen(shown[-1])
    assert last.text.lstrip().split("Done after ")[1]
    assert "<b>note" in last.text
    assert "progress" not in {tag for tag, _ in last.tags}


def test_a_cell_that_fails_leaves_word(notebook: tuple[Shell, list[str]]) -> None:
    shell, shown = notebook
    LiveCurves().stage("audit")
    shell.ears[0](SimpleNamespace(success=False))
    assert "Stopped after" in shown[-1]


def test_several_networks_have_a_line_each_and_many_stay_bounded() -> None:
    curves = LiveCurves()
    for _ in range(40):
        curves.stage("train")
        curves.epoch(row(1))
    for number in range(100):
        curves.note(f"note {number} " + "long " * 1000)
    seen = Seen(curves.to_html()).check()
    assert seen.text.count("epoch 1, validation") == 12
    assert "… and 28 more networks." in seen.text
    assert "note 99" in seen.text
    assert "note 50" not in seen.text
