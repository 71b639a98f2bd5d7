"""How a command line of a document is run: what it reads is put there, what it writes is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.docs.shown import Command
from tests.docs.stage import LAYOUT_THINGS, QUICK, THINGS, WORDS, Stage, find_thing
from typer.main import get_command

from clearmargin.cli import COMMANDS, build_app
from clearmargin.cli.options import IMAGE_OPTIONS
from clearmargin.config import recipe_names
from clearmargin.data.download import DOWNLOADS
from clearmargin.models import MODELS

_WRITTEN = {"out", "page", "fix_list", "svg", "figures", "state"}
"""Parameters that name what a command writes."""
_READ_TEXTS = {"paths", "images", "weights", "recipe", "name"}
"""Parameters that are text, and name files all the same, where they are no names."""
_ANY_RECIPE = {("recipe", "optimism"), ("recipe", "sweep")}
"""Where a recipe is one of several trainings; `train` runs each."""
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
SPLITTING = ("train", "optimism")
"""Commands that train on a split of their images."""
EXITS: Mapping[str, int] = {}
"""Exit codes other than 0, by command line, which the document must say."""
PARSED: Mapping[str, str] = {
    "clearmargin demo": "runs what train runs, on 3,600 patches; make demo is what CI tries",
    r"clearmargin download (?!--list)": "fetches from the network",
    r"clearmargin optimism .* --track": "follows many runs as train --track follows one; tests/tracking looks at them",
    "--weights hub": "fetches from the network",
    "--model timm:": "weights of others, which are not at hand; tests/models/test_backbones.py builds such networks",
    "clearmargin doctor --json": "the line before it for programs, which tests/doctor reads",
    "--set model.head=linear": "the line before it with the other head, which tests/training/test_transfer.py trains",
    "clearmargin model timm:": "needs the extra [backbones]; tests/models/test_describe.py looks at such networks",
}
"""Command lines that are held to the command tree and not run: a pattern of each, and why."""


@cache
def commands() -> Mapping[str, Any]:
    """The command tree, by name."""
    tree: Mapping[str, Any] = get_command(build_app()).commands  # type: ignore[attr-defined]
    return tree


def reason_not_run(command: Command) -> str | None:
    """Why the line is parsed only; None where it is run."""
    return next((why for piece, why in PARSED.items() if re.search(piece, command.line)), None)


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
        if find_thing(place) is None and not (command.words[0] == "download" and place in DOWNLOADS):
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


def plan(commands_shown: list[Command]) -> dict[Command, Literal["whole", "images", "parsed"]]:
    """How far each line is run, so that nothing is done twice.

    A training is run as a whole where none before it had the same options, and else only as far as its images: who they
    are and how they are split, unless those were had before, too. Published sets are too small to train on.
    """
    done: set[str] = set()
    planned: dict[Command, Literal["whole", "images", "parsed"]] = {}
    for command in commands_shown:
        of_images, rest = likeness(command)
        small = any(find_thing(place) in LAYOUT_THINGS for place in _names_read(_values(command)))
        splits = command.words[0] in SPLITTING
        if (rest in done if splits else rest + of_images in done) or (small and splits):
            planned[command] = "images" if splits and of_images not in done else "parsed"
        else:
            planned[command] = "whole"
            done |= {rest, rest + of_images}
        done |= {of_images} if splits else set()
    return planned


def split_alone(command: Command) -> list[str]:
    """The line as far as its images: `split` with its DATA and the options that say which images are meant."""
    values = parse(command)
    words = ["split", str(values["data"]), "--out", "parts.csv"]
    for parameter in [*IMAGE_OPTIONS, "by"]:
        value, option = values.get(parameter), f"--{parameter.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value:
            words += [option, str(value)]
    return words + (["--folds", "2"] if values.get("folds") else [])


def likeness(command: Command) -> tuple[str, str]:
    """Two texts, the same for two lines that do the same here: what they say of images, and the rest."""
    values = _values(command)
    read = set(_names_read(values))
    of_images: dict[str, Any] = {}
    rest: dict[str, Any] = {"command": command.words[0] if values else command.line}
    for parameter, value in values.items():
        known = value
        if isinstance(value, list | tuple):
            known = [_thing(item) if str(item) in read else item for item in value]
        elif str(value) in read:
            known = _thing(value)
        if parameter in IMAGE_OPTIONS or parameter in ("data", "by"):
            of_images[parameter] = known
        elif parameter in _WRITTEN:
            rest[parameter] = value is not None and Path(str(value)).suffix
        elif parameter in ("folds", "seeds", "trials", "jobs"):
            rest[parameter] = value is not None
        elif parameter not in ("epochs", "seed") and (parameter, command.words[0]) not in _ANY_RECIPE:
            rest[parameter] = known
    return f"images {of_images}", f"rest {rest}"


def _values(command: Command) -> dict[str, Any]:
    """The parameters; none of a line that is wrong, which the test of this very line then shows."""
    try:
        return parse(command)
    except pytest.fail.Exception:
        return {}


def _thing(name: object) -> str:
    place = str(name).partition("#")[0]
    key = find_thing(place)
    return place if key is None else f"thing {id(THINGS[key])}{place.removeprefix(key).rstrip('/')}"


def arguments(command: Command) -> list[str]:
    """What `main` is given: the line, and what keeps it small."""
    words = substituted(command)
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
