"""What the shell offers: through the scripts of shells, by the protocol that they speak, without anybody's home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clearmargin.bundle.targets import TARGETS
from clearmargin.cli import COMMANDS, main
from clearmargin.cli.completion import VARIABLE, join_words
from clearmargin.config import load_recipe, parse_settings, recipe_names, setting_names
from clearmargin.data.download.catalogue import DOWNLOADS
from clearmargin.data.sources import SOURCES
from clearmargin.explanation.methods import METHODS
from clearmargin.models import MODELS
from clearmargin.tracking import TRACKERS

Complete = Callable[..., list[str]]
TIMM = ["timm:resnet50", "timm:vgg16", "timm:convnext_tiny"]


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """`complete("train", "DATA", "--by", "")` gives what bash is offered for the last word, in this process."""

    def ask(*words: str) -> list[str]:
        monkeypatch.setenv(VARIABLE, "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["clearmargin", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code == 0
        return capsys.readouterr().out.split()

    return ask


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ([""], list(COMMANDS)),
        (["train", "D", "--recipe", ""], recipe_names()),
        (["optimism", "D", "--recipe", ""], recipe_names()),
        (["import-keras", "F", "--recipe", ""], recipe_names()),
        (["train", "D", "--model", ""], [*MODELS, *TIMM]),
        (["model", ""], list(dict.fromkeys([*MODELS, *TIMM, *recipe_names()]))),
        (["audit", "D", "--source", ""], list(SOURCES)),
        (["evaluate", "B", "D", "--source", ""], list(SOURCES)),
        (["explain", "B", "I", "--method", ""], [*METHODS, "all"]),
        (["export", "B", "--to", ""], list(TARGETS)),
        (["download", ""], list(DOWNLOADS)),
        (["train", "D", "--track", ""], list(TRACKERS)),
        (["train", "D", "--set", ""], [f"{name}=" for name in setting_names()]),
        (["train", "D", "--by", ""], ["patient", "image"]),
        (["train", "D", "--set", "evaluate.op"], [
            f"evaluate.operating_point={name}"
            for name in ("balanced", "sensitivity", "specificity", "cost", "net_benefit")]),
        (["predict", "B", ""], []),  # files, which the shell knows itself
        (["train", "D", "--recipe", "zz"], []),
    ],
)  # fmt: skip
def test_what_is_offered_is_what_there_is(complete: Complete, words: list[str], offered: list[str]) -> None:
    assert complete(*words) == offered


@pytest.mark.parametrize("name", setting_names())
def test_what_is_offered_for_a_setting_is_a_value_that_it_can_have(complete: Complete, name: str) -> None:
    offered = complete("train", "D", "--set", f"{name}=")
    assert all(pair.startswith(f"{name}=") for pair in offered)
    for pair in offered:
        ((key, value),) = parse_settings([pair]).items()
        if value == "" or name.startswith("augment_grey."):
            continue
        with_pretrained = {"model.name": "squeezenet"} if name.startswith("transfer.") else {}
        try:
            load_recipe("cnn_50", {**with_pretrained, key: value})
        except Exception as error:  # the value is right by itself, and does not go with others
            assert "cannot be" not in str(error), error


def test_parts_that_bash_takes_a_word_into_are_one_word_again(complete: Complete) -> None:
    assert complete("train", "D", "--set", "train.precision", "=", "b") == ["bf16-mixed"]
    assert complete("train", "D", "--set", "train.precision", "=") == ["auto", "32-true", "bf16-mixed"]
    assert complete("train", "D", "--model", "timm", ":", "vg") == ["vgg16"]
    assert complete("train", "D", "--set", "train.epochs", "=", "3", "--by", "p") == ["patient"]


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        (["c", "--set", "a", "=", "--by", "p"], 5, (["c", "--set", "a=", "--by", "p"], 4, "")),
        (["c", "--set", "a", "=", "1", "x"], 2, (["c", "--set", "a=1", "x"], 2, "")),
        (["c", "x"], 2, (["c", "x"], 2, "")),
        (["c", ""], 1, (["c", ""], 1, "")),
    ],
)
def test_words_are_joined_only_around_what_bash_breaks_at(
    words: list[str], at: int, expected: tuple[list[str], int, str]
) -> None:
    assert join_words(words, at) == expected


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a home of its own, where `clearmargin` is a command."""
    root = tmp_path_factory.mktemp("shell")
    (root / "bin").mkdir()
    program = root / "bin" / "clearmargin"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m clearmargin "$@"\n')
    program.chmod(0o755)
    source = str(Path(__file__).parents[2] / "src")
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    return kept | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "HOME": str(root), "PYTHONPATH": source}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_through_its_script(command: dict[str, str]) -> None:
    script = """
source <(_CLEARMARGIN_COMPLETE=source_bash clearmargin)
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _clearmargin_completion clearmargin; echo "${COMPREPLY[*]}"; }
ask clearmargin explain RUN 'my\\ image.png' --method grad
ask clearmargin train DATA --set images.fit =
complete -p clearmargin
"""
    shown = subprocess.run(
        ["bash", "--norc", "-c", script], env=command, capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.splitlines() == [
        "grad_cam grad_cam_pp", "pad stretch", "complete -o default -F _clearmargin_completion clearmargin",
    ]  # fmt: skip
    assert shown.stderr == ""


@pytest.mark.parametrize(
    ("shell", "asked", "offered"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "clearmargin train D --recipe canc"}, "_arguments '*: :((\"cancernet\"))'"),
        ("fish", {"_TYPER_COMPLETE_ARGS": "clearmargin train D --set train.epochs=",
                  "_TYPER_COMPLETE_FISH_ACTION": "get-args"}, "train.epochs=10"),
        ("powershell", {"_TYPER_COMPLETE_ARGS": "clearmargin export B --to k",
                        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "k"}, "keras::: "),
    ],
)  # fmt: skip
def test_other_shells_are_answered_in_their_way(
    shell: str, asked: dict[str, str], offered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (asked | {VARIABLE: f"complete_{shell}"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.rstrip("\n") == offered


def test_the_script_is_installed_where_the_shell_looks_for_it(command: dict[str, str]) -> None:
    environment = command | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    for option in ("--show-completion", "--install-completion"):
        shown = subprocess.run(
            ["clearmargin", option, "bash"], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
    home = Path(command["HOME"])
    assert (
        "complete -o default -F _clearmargin_completion clearmargin"
        in (home / ".bash_completions" / "clearmargin.sh").read_text()
    )
    assert str(home / ".bash_completions") in (home / ".bashrc").read_text()
    assert "bash completion installed" in shown.stdout


_ALL = """
import json, os, sys
from clearmargin.cli import main
for words in json.loads(sys.argv[1]):
    os.environ |= {"COMP_WORDS": "\\n".join(["clearmargin", *words]), "COMP_CWORD": str(len(words))}
    try:
        main([])
    except SystemExit:
        pass
heavy = {"torch", "numpy", "pandas", "rich", "PIL", "httpx"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""


def test_a_completion_imports_nothing_heavy(command: dict[str, str]) -> None:
    asked = [
        ["train", "D", "--model", ""], ["audit", "D", "--source", ""], ["explain", "B", "I", "--method", ""],
        ["download", ""], ["export", "B", "--to", ""], ["train", "D", "--track", ""], ["train", "D", "--set", "train."],
        ["model", ""],
    ]  # fmt: skip
    shown = subprocess.run(
        [sys.executable, "-c", _ALL, json.dumps(asked)],
        env=command | {VARIABLE: "complete_bash"}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert {"timm:vgg16", "breakhis", "grad_cam", "onnx", "mlflow", "train.epochs="} <= set(shown.stdout.split())
