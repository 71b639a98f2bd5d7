"""The text of docs/reference/python.md, from the signatures and docstrings of the public names."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from docs.writing.tables import table, words

import clearmargin
from clearmargin.api.options import ImageOptions
from clearmargin.bundle.keras.importing import ImportedModel
from clearmargin.bundle.targets import Exported
from clearmargin.data.audit import Audit
from clearmargin.explanation.explainer import Explained, Explanation
from clearmargin.studies.recalibration import Recalibrated
from clearmargin.web.client import Job

GROUPS: dict[str, list[str]] = {
    "The main job": ["train", "Run", "audit", "split"],
    "A finished model": ["load_bundle", "Predictor", "explain", "load_explainer", "Explainer"],
    "How good it is": ["evaluate", "calibrate", "compare", "optimism", "sweep"],
    "In and out": ["export", "import_keras"],
    "A server": ["Client"],
    "In notebooks": ["LiveCurves", "show_augmentations"],
    "Names and words": ["MODELS", "SOURCES", "Listener", "ClearmarginError"],
    "Phantom data": ["PhantomSettings", "write_phantom"],
}
"""Every public name, once."""
GIVEN: list[type] = [Audit, Explained, Explanation, Exported, ImportedModel, Job, Recalibrated]
"""What public functions give that has no public name."""
_REGISTRIES = {
    "MODELS": "The architectures by name, as `--model` takes them: `MODELS[name](shape)` builds one with random "
    "weights for images of the shape (height, width, channels). `timm:NAME` is not among them.",
    "SOURCES": "The layouts of images that are recognised, by name, as `--source` takes them.",
}

_IMAGES = """#### Which images are meant

Where a signature ends on `**images: ImageOptions`, these keywords are taken too:
"""
_HEAD = """# Python

Every public name at the top of the package, from its signature and docstring: written by `make docs`. Importing
`clearmargin` is cheap; what is heavy is imported when it is used.

```python
import clearmargin

run = clearmargin.train("DATA", "RUN", epochs=10)
print(run.metrics["test"]["image"]["auroc"])  # {'value': ..., 'ci': [low, high], ...}
predictor = clearmargin.load_bundle("RUN")
print(predictor.predict(["a.png", "b.dcm"]))  # a pandas table
```

Paths are text or `pathlib.Path`. Every error that is raised on purpose is a `ClearmarginError`; its text is one line.
"""


def python_page() -> str:
    """The text of docs/reference/python.md."""
    listed = [
        [heading, ", ".join(f"[`{name}`](#{_anchor(name)})" for name in names)] for heading, names in GROUPS.items()
    ]
    parts = [_HEAD, table(["", "names"], listed), ""]
    for heading, names in GROUPS.items():
        parts += [f"## {heading}", ""]
        for name in names:
            parts += [_entry(name, getattr(clearmargin, name)), ""]
            if name == "audit":
                parts += [_image_options(), ""]
    parts += ["## What is given", "", "Public functions give these; they have no name at the top of the package.", ""]
    parts += [f"{_class(each.__name__, each)}\n" for each in GIVEN]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _entry(name: str, value: object) -> str:
    if name in _REGISTRIES:
        assert isinstance(value, Mapping)
        return f"### {name}\n\n{_REGISTRIES[name]}\n\nNames: {', '.join(f'`{key}`' for key in value)}."
    if inspect.isclass(value):
        return _class(name, value)
    assert callable(value)
    return f"### {name}\n\n{_function(name, value)}"


def _function(name: str, function: Callable[..., Any], *, of_class: bool = False) -> str:
    """Signature, and the docstring as Markdown."""
    return f"```py\n{_signature(name, function, of_class=of_class)}\n```\n\n{_docstring(inspect.getdoc(function))}"


def _signature(name: str, function: Callable[..., Any], *, of_class: bool) -> str:
    """The signature in one line, or with a line for each parameter."""
    signature = inspect.signature(function)
    parameters = [each for key, each in signature.parameters.items() if not (of_class and key == "self")]
    shown, starred = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not starred:
            shown.append("*")
        starred = starred or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        shown.append(_parameter(each))
    given = signature.return_annotation
    arrow = "" if given in (signature.empty, None, "None") or inspect.isclass(function) else f" -> {_type(given)}"
    line = f"{name}({', '.join(shown)}){arrow}"
    if len(line) <= 88:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in shown), f"){arrow}"])


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_type(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = parameter.default
        plain = isinstance(default, str | int | float | tuple | type(None))
        text += f" = {default!r}" if plain else f" = {type(default).__name__}()"
    return text


def _type(annotation: object) -> str:
    """The annotation as it is written, without the modules of names."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"Unpack\[(.*)\]$", r"\1", re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", text))
    return text.replace("Pathlike", "str | Path")


def _class(name: str, kind: type) -> str:
    parts = [f"### {name}", ""]
    if not issubclass(kind, Exception) and "__init__" in vars(kind) and kind not in GIVEN:
        parts += [f"```py\n{_signature(name, kind, of_class=True)}\n```", ""]
    parts += [_docstring(kind.__doc__), ""]
    if issubclass(kind, Exception):
        return "\n".join(parts)
    if facts := _facts(kind):
        parts += [table(["attribute", "type", "what"], facts), ""]
    for key, member in vars(kind).items():
        if not key.startswith("_") and inspect.isfunction(member):
            parts += [f"#### {name}.{key}", "", _function(key, member, of_class=True), ""]
    return "\n".join(parts)


def _facts(kind: type) -> list[list[str]]:
    """Fields and properties: name, type, what the class says of them."""
    said = _attribute_docstrings(kind)
    rows = []
    if dataclasses.is_dataclass(kind):
        shown = [each for each in dataclasses.fields(kind) if not each.name.startswith("_")]
        rows = [[f"`{each.name}`", f"`{_type(each.type)}`", words(said.get(each.name, ""))] for each in shown]
    for key, member in vars(kind).items():
        getter = member.fget if isinstance(member, property) else getattr(member, "func", None)
        if not key.startswith("_") and isinstance(member, property | cached_property) and getter is not None:
            given = inspect.signature(getter).return_annotation
            rows.append([f"`{key}`", f"`{_type(given)}`", words((inspect.getdoc(getter) or "").partition("\n\n")[0])])
    return rows


def _attribute_docstrings(kind: type) -> dict[str, str]:
    """The text that stands below each annotated name in the body of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    said = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            said[statement.target.id] = str(following.value.value)
    return said


def _image_options() -> str:
    said = _attribute_docstrings(ImageOptions)
    rows = [
        [f"`{name}`", f"`{_type(getattr(kind, '__forward_arg__', kind))}`", words(said[name])]
        for name, kind in ImageOptions.__annotations__.items()
    ]
    return f"{_IMAGES}\n{table(['keyword', 'type', 'what'], rows)}"


def _docstring(text: str | None) -> str:
    """A docstring in Google's style as Markdown: prose, a table of arguments, a table of errors."""
    prose, *sections = re.split(r"^(Args|Raises|Returns|Yields):\n", inspect.cleandoc(text or ""), flags=re.MULTILINE)
    parts = ["\n\n".join(words(paragraph) for paragraph in re.split(r"\n\s*\n", prose.strip()))]
    for name, body in zip(sections[::2], sections[1::2], strict=True):
        rows = [
            [f"`{key}`", words(what)] for key, what in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", body, re.MULTILINE)
        ]
        parts.append(table(["argument" if name == "Args" else "raises", "what"], rows))
    return "\n\n".join(parts)
