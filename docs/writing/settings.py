"""The text of docs/settings.md, from the settings classes, so that it cannot differ from them."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel

from clearmargin.settings import RunConfig

_HEAD = """# Settings

Every setting of a run, as it stands in a recipe or in the `config.toml` of a run. Change one with
`--set section.key=value` (or `--set key=value` where only one section has the key). The default here is that of the
setting; every recipe, the one named `default` too, sets some of them otherwise: see `src/clearmargin/recipes/`.
Written by `make docs` from `src/clearmargin/settings.py`.
"""


def settings_page() -> str:
    """The text of docs/settings.md."""
    top = [(name, field) for name, field in RunConfig.model_fields.items() if not _is_section(field.annotation)]
    parts = [_HEAD, "## Of the run\n", _table(dict(top), RunConfig())]
    for name, field in RunConfig.model_fields.items():
        if _is_section(field.annotation):
            section = getattr(RunConfig(), name)
            text = " ".join((type(section).__doc__ or "").split())
            parts += [f"\n## `{name}`\n", *([f"{text}\n"] if text else []), _table(type(section).model_fields, section)]
    return "\n".join(parts).replace("\n\n\n", "\n\n")


def _table(fields: dict[str, Any], section: BaseModel) -> str:
    rows = ["| key | default | values | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        default = getattr(section, name)
        values = _values(field.annotation, field.metadata)
        rows.append(f"| `{name}` | {_shown(default)} | {values} | {' '.join((field.description or '').split())} |")
    return "\n".join(rows) + "\n"


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _shown(default: Any) -> str:
    if default is None or default == "":
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{list(default)}`" if isinstance(default, tuple) else f"`{default}`"


def _values(annotation: Any, metadata: list[Any]) -> str:
    if get_origin(annotation) is not None and all(isinstance(value, str | int) for value in get_args(annotation)):
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    bounds = [
        f"{sign} {_number(getattr(bound, key))}"
        for bound in metadata
        for key, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(bound, key)
    ]
    return ", ".join(bounds)


def _number(bound: float) -> str:
    return f"{int(bound):,}" if float(bound).is_integer() else f"{bound:g}"
