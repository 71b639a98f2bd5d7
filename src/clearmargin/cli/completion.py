"""What the shell offers when a value is completed: COMPLETERS, by the parameter that takes it.

A completion must be there before the finger leaves the key, so nothing heavy is imported for one: names of registries
are read from the source of the dict literals that they are, and the settings from their classes.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import typer

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

VARIABLE = "_CLEARMARGIN_COMPLETE"
"""Set by the shell's script where it asks for completions."""
Offer = str | tuple[str, str]
"""A value, or a value and what it is."""
_PACKAGE = Path(__file__).parents[1]
_OF_TIMM = ("resnet50", "vgg16", "convnext_tiny")
_BREAKS = "=:"
"""At which bash takes a word apart."""


def names_in(file: str, registry: str) -> list[str]:
    """The keys of a dict literal in a file of this package, without importing it.

    >>> names_in("tracking/__init__.py", "TRACKERS")
    ['tensorboard', 'mlflow']
    """
    for node in ast.parse((_PACKAGE / file).read_text(encoding="utf-8")).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict(keys=keys)) if name == registry:
                return [str(key.value) for key in keys if isinstance(key, ast.Constant)]
    raise LookupError(f"{file} has no dict literal {registry}")


def recipes() -> Iterable[Offer]:
    """Of recipes; any other word is a file of the user's own."""
    from clearmargin.config import recipe_names

    return recipe_names()


def models() -> Iterable[Offer]:
    """Of models; a few of timm's stand for all of them, which are not known without timm."""
    return [*names_in("models/__init__.py", "MODELS"), *(f"timm:{name}" for name in _OF_TIMM)]


def models_and_recipes() -> Iterable[Offer]:
    """What `model` shows."""
    return dict.fromkeys([*models(), *recipes()])


def sources() -> Iterable[Offer]:
    """Of layouts of data."""
    return names_in("data/sources/__init__.py", "SOURCES")


def methods() -> Iterable[Offer]:
    """Of explanation."""
    return [*names_in("explanation/methods.py", "METHODS"), "all"]


def targets() -> Iterable[Offer]:
    """Of `export`."""
    return names_in("bundle/targets.py", "TARGETS")


def downloads() -> Iterable[Offer]:
    """Data sets of `download`."""
    return names_in("data/download/catalogue.py", "DOWNLOADS")


def trackers() -> Iterable[Offer]:
    """Of `--track`."""
    return names_in("tracking/__init__.py", "TRACKERS")


def settings(incomplete: str = "") -> Iterable[Offer]:
    """`key=` of every setting; of the only one that is meant, its values, or its default where they are not few."""
    from clearmargin.config import setting_names

    meant = [name for name in setting_names() if f"{name}=".startswith(incomplete) or incomplete.startswith(f"{name}=")]
    if len(meant) == 1:
        field = _field(meant[0])
        values = [f"{meant[0]}={value}" for value in _values(meant[0], field)]
        return [(value, _sentence(field)) for value in values or [f"{meant[0]}="]]
    return [(f"{name}=", _sentence(_field(name))) for name in meant]


COMPLETERS: dict[str, Callable[..., Iterable[Offer]]] = {
    "recipe": recipes,
    "source": sources,
    "settings": settings,
    "track": trackers,
    "train model": models,
    "model name": models_and_recipes,
    "explain method": methods,
    "export to": targets,
    "download name": downloads,
}
"""Parameter, or command and parameter, to what is offered. What has few values by its type needs nothing here."""


def with_completers(name: str, command: Callable[..., Any]) -> Callable[..., Any]:
    """The command of this name, whose parameters offer what COMPLETERS say."""
    signature = inspect.signature(command, eval_str=True)
    for parameter in signature.parameters.values():
        completer = COMPLETERS.get(f"{name} {parameter.name}") or COMPLETERS.get(parameter.name)
        for described in getattr(parameter.annotation, "__metadata__", ()):
            if completer is not None and hasattr(described, "autocompletion"):
                described.autocompletion = _as_typer_asks(completer)
    command.__signature__ = signature  # type: ignore[attr-defined]  # else the annotations are evaluated anew
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    return command


def _as_typer_asks(completer: Callable[..., Iterable[Offer]]) -> Callable[[str], list[Offer]]:
    def complete(incomplete: str) -> list[Offer]:
        return list(completer(incomplete) if completer is settings else completer())

    return complete


@contextmanager
def whole_words() -> Iterator[None]:
    """In bash, words that it took apart at = and : are one while completions are made, and are given back in its parts.

    Only what follows the last part is replaced by bash, so what stands before it is cut from each answer.
    """
    if os.environ.get(VARIABLE) != "complete_bash":
        yield
        return
    words = os.environ.get("COMP_WORDS", "").split("\n")
    at = min(int(os.environ.get("COMP_CWORD", "0")), len(words))
    joined, place, before = join_words(words, at)
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(joined), str(place)
    answers = io.StringIO()
    try:
        with redirect_stdout(answers):
            yield
    finally:
        typer.echo("\n".join(line.removeprefix(before) for line in answers.getvalue().splitlines()))


def join_words(words: list[str], at: int) -> tuple[list[str], int, str]:
    """The words as they were typed, which of them is meant, and the part of it that stands before what bash replaces.

    >>> join_words(["clearmargin", "train", "--set", "train.epochs", "=", "1"], 5)
    (['clearmargin', 'train', '--set', 'train.epochs=1'], 3, 'train.epochs=')
    >>> join_words(["clearmargin", "train", "--track", "mlflow", ":"], 4)
    (['clearmargin', 'train', '--track', 'mlflow:'], 3, 'mlflow:')
    """
    joined: list[str] = []
    place, before, glue = len(words), "", False
    for number, word in enumerate(words):
        is_break = bool(word) and not word.strip(_BREAKS)
        if joined and (is_break or (glue and not word.startswith("-"))):
            start = joined.pop()
            joined.append(start + word)
        else:
            start = ""
            joined.append(word)
        if number == at:
            place, before = len(joined) - 1, start + (word if is_break else "")
        glue = is_break and number != at
    return joined, min(place, len(joined)), before


def _field(name: str) -> FieldInfo:
    from clearmargin.settings import RunConfig, Section

    section, _, leaf = name.rpartition(".")
    if not section:
        return RunConfig.model_fields[leaf]
    annotation = RunConfig.model_fields[section].annotation
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next(kind for kind in kinds if issubclass(kind, Section)).model_fields[leaf]


def _values(name: str, field: FieldInfo) -> list[str]:
    named = {"model.name": models, "data.source": sources, "recipe": recipes}.get(name)
    if named is not None:
        return [str(offer) for offer in named()]
    if field.annotation is bool:
        return ["true", "false"]
    few = list(dict.fromkeys(str(value) for value in _choices(field.annotation)))
    if few:
        return few
    default = field.default
    if default in (None, "", ()):
        return []
    return [json.dumps(default, separators=(",", ":")) if isinstance(default, tuple) else str(default)]


def _choices(annotation: object) -> Iterator[object]:
    """The values of every Literal in a type."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def _sentence(field: FieldInfo) -> str:
    return (field.description or "").split(". ")[0].replace("\n", " ").rstrip(".")
