"""The text of docs/reference/cli.md, from the command tree itself.

What the tree cannot say stands in NOTES: an example, which the tests run, where to read on, and the exit codes
besides those that every command has.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from docs.writing.tables import table, words
from typer.main import get_command

from clearmargin.cli import COMMANDS, build_app
from clearmargin.cli.options import IMAGE_OPTIONS

_DATA = {3: "the images are missing or broken, or a finding blocks"}
_BUNDLE = {4: "no bundle, or one that was changed"}


@dataclass(frozen=True)
class Note:
    """What the page says of a command besides its help."""

    example: str
    """One line, without `clearmargin`; the tests run it."""
    more: str
    """A page as seen from docs/reference, with the title to show."""
    exits: dict[int, str] = field(default_factory=dict)


NOTES: dict[str, Note] = {
    "demo": Note("demo --out demo", "[get started](../start.md)"),
    "audit": Note("audit DATA --html audit.html", "[what the audit finds](../audit.md)", _DATA),
    "split": Note("split DATA --out split.csv --folds 5", "[data](../data.md)", _DATA),
    "train": Note(
        "train DATA --out RUN --target-sensitivity 0.95",
        "[get started](../start.md), [recipes](../recipes.md), [settings](../settings.md)",
        _DATA | {130: "interrupted: the same line with `--resume` goes on"},
    ),
    "evaluate": Note(
        "evaluate RUN OTHER_DATA --out EXTERNAL --prevalence 0.01",
        "[evidence](../evidence.md)",
        _DATA | _BUNDLE,
    ),
    "predict": Note(
        "predict RUN NEW_IMAGES --out answers.csv",
        "[what a model refuses](../gate.md), [neighbours of a patch](../context.md), [similar images](../similar.md)",
        {3: "a path that is not there"} | _BUNDLE | {5: "every input was refused or unreadable"},
    ),
    "explain": Note(
        "explain RUN IMAGE --out SHOWN --method occlusion",
        "[explanations](../explain.md)",
        {3: "a path that is not there"} | _BUNDLE | {5: "every input was refused or unreadable"},
    ),
    "report": Note("report RUN --format latex-table", "[the report](../report.md)", {3: "not a finished run"}),
    "compare": Note(
        "compare RUN RUN2",
        "[comparing models](../evidence.md#comparing-models)",
        {3: "a table cannot be read, or there is nothing to compare"},
    ),
    "optimism": Note(
        "optimism DATA --recipe cancernet --out GAP",
        "[evidence](../evidence.md), [benchmarks](../benchmarks.md)",
        _DATA,
    ),
    "sweep": Note(
        "sweep DATA --out SWEEP --space space.toml --trials 20",
        "[searching for settings](../sweep.md)",
        _DATA | {130: "interrupted: the same line with `--resume` goes on"},
    ),
    "calibrate": Note("calibrate RUN OTHER_DATA --out NEW_BUNDLE", "[evidence](../evidence.md)", _DATA | _BUNDLE),
    "export": Note("export RUN --to onnx --out model.onnx", "[a bundle](../bundle.md), [Keras](../keras.md)", _BUNDLE),
    "import-keras": Note(
        "import-keras MODEL.h5 --out BUNDLE",
        "[Keras, both ways](../keras.md)",
        {3: "not a Keras file, or a layer that is not known"},
    ),
    "download": Note(
        "download --list",
        "[getting data](../data.md#getting-data)",
        {3: "the server cannot be reached, or sent other bytes"},
    ),
    "model": Note("model RUN --svg model.svg", "[recipes](../recipes.md#looking-at-a-model)", _BUNDLE),
    "doctor": Note("doctor", "[installing](../install.md)", {1: "something failed"}),
    "serve": Note("serve RUN --port 8000", "[the page and the API](../serve.md)", _BUNDLE),
}

_HEAD = """# Command line

Every command, from the program itself: written by `make docs`, so that it is what `clearmargin COMMAND --help` says.
In a checkout after `make setup` the command is `.venv/bin/clearmargin`; `python -m clearmargin` is the same.

Words in capitals are yours to fill in. `DATA` is a folder of images, a `.zip` of one, an `.npz`, or a table with the
columns `path,label` ([data](../data.md)); `BUNDLE` is a bundle folder, a run folder (its bundle is meant) or a
`.clearmargin` file ([bundle](../bundle.md)).

`--debug`, anywhere on the line, shows the traceback of an error; `--help` behind a command explains it;
`clearmargin --version` shows the version. Results go to standard output, progress and notes to standard error. Where
there is `--json` (or `--format json`), standard output is only JSON.

"""

_EXITS = """## Exit codes

An error is one line on standard error: what happened, where, how to fix it.

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug of ours; run again with `--debug` and report what it shows |
| 2 | usage: an unknown option, recipe, model or setting, or a file that is in the way |
| 3 | data: a path that is not there, unreadable images, a finding that blocks |
| 4 | bundle: not a bundle, changed, or incompatible |
| 5 | every input was refused or unreadable |
| 130 | interrupted |
"""

_SHARED = """## Which images are meant

Every command that reads a folder of labelled images takes these. An option that the layout of DATA does not know is an
error.
"""
_OPTION_HEADS = ("option", "value", "default", "meaning")


def cli_page() -> str:
    """The text of docs/reference/cli.md.

    Raises:
        ValueError: a command has no entry in NOTES.
    """
    commands = get_command(build_app()).commands  # type: ignore[attr-defined]
    if missing := [name for name in commands if name not in NOTES]:
        raise ValueError(f"add {', '.join(missing)} to NOTES in docs/writing/cli.py: an example, and where to read on.")
    listed = table(
        ["command", "does"], [[f"[`{name}`](#{name})", _first(command.help)] for name, command in commands.items()]
    )
    chapters = [_chapter(name, command, COMMANDS[name]) for name, command in commands.items()]
    return "\n".join([_HEAD + listed, "", _EXITS, *chapters, _image_options(commands["train"])]).rstrip() + "\n"


def _chapter(name: str, command: Any, function: Callable[..., Any]) -> str:
    note = NOTES[name]
    types_of = {key: each.annotation for key, each in inspect.signature(function, eval_str=True).parameters.items()}
    arguments = [each for each in command.params if not each.opts[0].startswith("-")]
    shared = IMAGE_OPTIONS if set(IMAGE_OPTIONS) <= set(types_of) else {}
    options = [each for each in command.params if each.opts[0].startswith("-") and each.name not in shared]
    parts = [f"## {name}", "", words(command.help), "", "```", f"clearmargin {note.example}", "```", ""]
    if arguments:
        rows = [[f"`{_argument(each)}`", words(each.help)] for each in arguments]
        parts += [table(["argument", "meaning"], rows), ""]
    if options:
        rows = [_option_row(each, types_of[each.name]) for each in options]
        parts += [table(_OPTION_HEADS, rows), ""]
    if shared:
        parts += ["Besides these, the options that say [which images are meant](#which-images-are-meant).", ""]
    always = [code for code in (0, 1, 2) if code not in note.exits]
    codes = "".join(f", {code} ({text})" for code, text in sorted(note.exits.items()))
    parts += [f"Exit codes: {', '.join(map(str, always))}{codes}. More: {note.more}.", ""]
    return "\n".join(parts)


def _image_options(command: Any) -> str:
    """The options that several commands share, once."""
    shared = [each for each in command.params if each.name in IMAGE_OPTIONS]
    rows = [_option_row(each, IMAGE_OPTIONS[each.name][0]) for each in shared]
    return "\n".join([_SHARED, table(_OPTION_HEADS, rows)])


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    if parameter.nargs != 1 and not name.endswith("…"):
        name += "…"
    return name if parameter.required else f"[{name}]"


def _option_row(option: Any, annotation: Any) -> list[str]:
    names = " ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    repeated = "; may be given several times" if option.multiple else ""
    return [names, _values(option, annotation) + repeated, _default(option), words(option.help)]


def _values(option: Any, annotation: Any) -> str:
    """What may follow the option."""
    if option.is_flag:
        return ""
    kind = _plain(annotation)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if option.metavar:
        return f"`{option.metavar}`"
    name = {Path: "path", int: "whole number", float: "number", str: "text"}[kind]
    if option.min is not None and option.max is not None:
        return f"{name}, {option.min:,} to {option.max:,}"
    if option.min is not None:
        return f"{name}, {option.min:,} or more"
    return name


def _plain(annotation: Any) -> Any:
    """The type without Annotated, None and list."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain(next(each for each in get_args(annotation) if each is not type(None)))
    return _plain(get_args(annotation)[0]) if get_origin(annotation) is list else annotation


def _default(option: Any) -> str:
    if option.required:
        return "**required**"
    if option.secondary_opts:
        return f"`{option.opts[0] if option.default else option.secondary_opts[0]}`"
    if option.default is None or option.is_flag:
        return ""
    return f"`{option.default}`"


def _first(text: str) -> str:
    """The help up to its first semicolon or full stop."""
    return words(text).split(";")[0].split(". ")[0].rstrip(".")
