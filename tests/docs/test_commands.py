"""Every command line that a document shows can be run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.conftest import make_light
from tests.docs.shown import DOCUMENTS, Command, find_commands, inline_commands, read_words
from tests.docs.shown_commands import (
    EXITS,
    PARSED,
    arguments,
    commands,
    names_are_known,
    parse,
    plan,
    put_what_is_read,
    reason_not_run,
    split_alone,
)
from tests.docs.stage import Stage

from clearmargin.cli import COMMANDS, main

SHOWN = find_commands()
PLAN = plan([command for command in SHOWN if reason_not_run(command) is None])
RUN = [command for command, how in PLAN.items() if how != "parsed"]


@pytest.mark.parametrize("command", RUN, ids=lambda command: command.line)
def test_a_command_of_the_documents_runs(
    command: Command,
    quick: Stage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("clearmargin.web.run.run", lambda *_, **__: None)  # serve would wait for Ctrl-C
    put_what_is_read(command, quick, tmp_path)
    if command.words[0] in ("train", "optimism", "sweep", "evaluate", "calibrate"):
        make_light(monkeypatch)
    monkeypatch.chdir(tmp_path)
    code = main(arguments(command) if PLAN[command] == "whole" else split_alone(command))
    assert code == EXITS.get(command.line, 0), f"{command.place}: {command.line}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("command", [each for each in SHOWN if each not in RUN], ids=lambda command: command.line)
def test_a_command_that_is_not_run_is_one_that_would_be_taken(command: Command) -> None:
    parse(command)
    if command in PLAN:
        names_are_known(command)


def test_no_reason_for_not_running_is_left_over() -> None:
    for piece in PARSED:
        assert any(re.search(piece, command.line) for command in SHOWN), piece
    for line in EXITS:
        assert any(line == command.line for command in SHOWN), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_within_the_prose_have_options_that_exist(document: Path) -> None:
    for line in inline_commands(document):
        name, *rest = read_words(line)
        if name == "COMMAND":
            continue
        assert name in COMMANDS, line
        known = {option for each in commands()[name].params for option in (*each.opts, *each.secondary_opts)}
        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known | {"--help"}, line
