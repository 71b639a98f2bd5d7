"""How a command line of a document is run: what it reads is put there, what it writes is not."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.docs.shown import Command
from tests.docs.stage import LAYOUT_THINGS, QUICK, THINGS, WORDS, Stage, find_thing
from typer.main import get_command

from clearmargin.cli import COMMANDS, build_app
from clearmargin.cli.options import IMAGE_OPTIONS
from clearmargin.config import recipe_names
from clearmargin.models import MODELS

_WRITTEN = {"out", "page", "fix_list", "svg", "figures", "state"}
"""Parameters that name what a command writes."""
_READ_TEXTS = {"paths", "images", "weights", "recipe", "name"}
"""Parameters that are text, and name files all the same, where they are no names."""
_EXTRA: Mapping[str, list[str]] = {
    "train": QUICK,
    "optimism": [*QUICK, "--folds", "2"],
    "sweep": [*QUICK, "--trials", "2", "--folds", "2", "--jobs", "1"],
    "evaluate": ["--set", "evaluate.resamples=100"],
    "calibrate": ["--set", "evaluate.resamples=100"],
    "compare": ["--resamples", "40"],
    "serve": ["--port", "0"],
}
"""What is appended to keep it small."""
EXITS: Mapping[str, int] = {}
"""Exit codes other than 0, by command line, which the document must say."""
PARSED: Mapping[str, str] = {
    "clearmargin demo": "runs what train runs, on 3,600 patches; make demo is what CI tries",
    "clearmargin download breastmnist": "fetches from the network",
    "--weights hub": "fetches from the network",
    "--model timm:": "weights of others, which are not at hand; tests/models/test_backbones.py builds such networks",
    "--set model.head=linear": "the line before it with the other head, which tests/training/test_transfer.py trains",
    "clearmargin model timm:": "needs the extra [backbones]; tests/models/test_describe.py looks at such networks",
}
"""Command lines that are held to the command tree and not run: a piece of each, and why."""


@cache
def commands() -> Mapping[str, Any]:
    """The command tree, by name."""
    tree: Mapping[str, Any] = get_command(build_app()).commands  # type: ignore[attr-defined]
    return tree


def reason_not_run(command: Command) -> str | None:
    """Why the line is parsed only; None where it is run."""
    return next((why for piece, why in PARSED.items() if piece in command.line), None)


def parse(command: Command) -> dict[str, Any]:
    """The values of its parameters.

    Raises:
        Failed: the line is none that clearmargin would take.
    """
    name, *rest = substituted(command)
    if name == "--version":
        return {}
    if name not in COMMANDS:
        pytest.fail(f"{command.place}: there is no command '{name}'.")
    try:
        values: dict[str, Any] = commands()[name].make_context(name, list(rest)).params
    except Exception as error:
        pytest.fail(f"{command.place}: {command.line}: {error}")
    return values


def substituted(command: Command) -> list[str]:
    """The words, with what stands for a name replaced."""
    return [WORDS.get(word, word) for word in command.words]


def put_what_is_read(command: Command, stage: Stage, folder: Path) -> None:
    """Puts everything that the line reads into the folder, under the names that the line has for it."""
    for place in names_are_known(command):
        stage.put(place, folder)


def names_are_known(command: Command) -> list[str]:
    """The files that the line reads.

    Raises:
        Failed: a name that nobody has said anything of.
    """
    places = [name.partition("#")[0] for name in _names_read(parse(command))]
    for place in places:
        if find_thing(place) is None:
            pytest.fail(
                f"{command.place}: what is '{place}' in '{command.line}'? Add it to THINGS in tests/docs/stage.py."
            )
    return places


def _names_read(values: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    for parameter, value in values.items():
        each = value if isinstance(value, list | tuple) else [value]
        paths = [
            item for item in each if isinstance(item, Path) or (isinstance(item, str) and parameter in _READ_TEXTS)
        ]
        if parameter not in _WRITTEN:
            names += [str(path) for path in paths if not _is_name(str(path))]
    return names


def _is_name(word: str) -> bool:
    """A model or a recipe rather than a file."""
    return word in MODELS or word in recipe_names() or word == "hub" or word.startswith("timm:")


def is_of_a_layout(command: Command) -> bool:
    """It reads images in the layout of a published set, of which there are too few to train on."""
    return any((key := find_thing(place)) in LAYOUT_THINGS and key for place in names_are_known(command))


def split_alone(command: Command) -> list[str]:
    """The line as far as the split: `split` with its DATA and the options that say which images are meant."""
    values = parse(command)
    words = ["split", str(values["data"]), "--out", "parts.csv"]
    for parameter in [*IMAGE_OPTIONS, "by"]:
        value, option = values.get(parameter), f"--{parameter.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value:
            words += [option, str(value)]
    return words + (["--folds", "2"] if values.get("folds") else [])


def likeness(command: Command) -> str:
    """The same for two lines that do the same here: names of one thing, numbers that are made small anyway."""
    try:
        values = parse(command)
    except pytest.fail.Exception:  # which the test of this very line then shows
        return command.line
    read = set(_names_read(values))
    shown: dict[str, Any] = {}
    for parameter, value in values.items():
        if parameter in ("epochs", "seed"):
            continue
        if parameter in _WRITTEN:
            shown[parameter] = value is not None and Path(str(value)).suffix
        elif parameter in ("folds", "seeds", "trials", "jobs"):
            shown[parameter] = value is not None
        elif isinstance(value, list | tuple):
            shown[parameter] = [_thing(item) if str(item) in read else item for item in value]
        else:
            shown[parameter] = _thing(value) if str(value) in read else value
    return f"{command.words[0]} {shown}"


def _thing(name: object) -> str:
    place = str(name).partition("#")[0]
    key = find_thing(place)
    return place if key is None else f"thing {id(THINGS[key])}{place.removeprefix(key).rstrip('/')}"


def arguments(command: Command) -> list[str]:
    """What `main` is given: the line, and what keeps it small."""
    words = substituted(command)
    if words[0] in ("train", "optimism") and is_of_a_layout(command):
        return split_alone(command)
    extra = list(_EXTRA.get(words[0], []))
    if words[0] == "train" and "--folds" in words:
        extra += ["--folds", "2"]
    if words[0] == "train" and "--seeds" in words:
        extra += ["--seeds", "2"]
    if "squeezenet" in words:
        extra += ["--set", "model.input_px=32"]
    if words[0] == "evaluate" and parse(command).get("data") is None:
        extra = ["--set", "evaluate.resamples=100"]
    return words + extra
