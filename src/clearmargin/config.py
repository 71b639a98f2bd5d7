"""From recipes and options to the settings of a run (`settings.py`), and to the config.toml that is saved with it.

A recipe is a TOML file in `recipes/` that fills some of them; `--set section.key=value` and the named
options of the command line change them afterwards. A key that does not exist is refused with the
nearest one that does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from clearmargin.errors import ConfigError, UnknownName, closest
from clearmargin.settings import RunConfig, Section

RECIPES_FOLDER = Path(__file__).parent / "recipes"
_GREY = "augment_grey"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, `default` first."""
    names = sorted(file.stem for file in RECIPES_FOLDER.glob("*.toml"))
    return sorted(names, key=lambda name: name != "default")


def load_recipe(name: str, changes: Mapping[str, Any] | None = None, *, base: RunConfig | None = None) -> RunConfig:
    """The settings of a recipe, with changes.

    Args:
        name: a key of `recipes/`, or the path of a TOML file of your own.
        changes: dotted key (`train.epochs`, or `epochs` where it is unambiguous) to value.
        base: settings to change instead of the recipe's.

    Raises:
        UnknownName: no such recipe.
        ConfigError: an unknown key, or a value that does not fit.
    """
    values: dict[str, Any]
    if base is not None:
        values = base.model_dump(mode="json", exclude_none=True)
    elif name.endswith(".toml"):
        values = read_toml(Path(name))
        values.setdefault("recipe", Path(name).stem)
    else:
        if name not in recipe_names():
            raise UnknownName("recipe", name, recipe_names())
        values = read_toml(RECIPES_FOLDER / f"{name}.toml") | {"recipe": name}
    for key, value in (changes or {}).items():
        section, _, leaf = full_key(key).rpartition(".")
        place = values.setdefault(section, {}) if section else values
        if not isinstance(place, dict):
            raise ConfigError(_section_needed(section, place))
        place[leaf] = value
    _hold_by_hand(values, changes or {})
    return check_config(values)


def check_config(values: Mapping[str, Any]) -> RunConfig:
    """A RunConfig of plain values, as read from TOML.

    Raises:
        ConfigError: one line that names the key and, for a misspelt one, the nearest.
    """
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def read_config(path: Path) -> RunConfig:
    """The settings saved in a run's config.toml."""
    return check_config(read_toml(path))


def dump_config(config: RunConfig) -> str:
    """The settings as TOML, every key written out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a TOML file with settings.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a TOML file with settings.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error}).") from None


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """The `--set key=value` options as a mapping; values are read as TOML, otherwise as text.

    >>> parse_settings(["train.epochs=3", "images.fit=stretch", "split.fractions=[0.6, 0.2, 0.2]"])
    {'train.epochs': 3, 'images.fit': 'stretch', 'split.fractions': [0.6, 0.2, 0.2]}
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {pair}: write it as key=value, for example --set train.epochs=5.")
        try:
            value = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        # No setting is a date or a table: what looks like one is text, as in description=2024-01-01.
        settings[key.strip()] = value if isinstance(value, (bool, int, float, str, list)) else text.strip()
    return settings


def setting_names() -> list[str]:
    """Every key that `--set` takes, dotted, in the order of the classes above."""
    names: list[str] = []
    for name, entry in RunConfig.model_fields.items():
        kinds = [kind for kind in (entry.annotation, *get_args(entry.annotation)) if isinstance(kind, type)]
        section = next((kind for kind in kinds if issubclass(kind, Section)), None)
        names += [name] if section is None else [f"{name}.{leaf}" for leaf in section.model_fields]
    return names


def _hold_by_hand(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """What a user set is not adapted to the images: epochs have no floor then, and a change holds for grey ones too."""
    given = {full_key(key): value for key, value in changes.items()}
    if "train.epochs" in given and "train.min_steps" not in given:
        values["train"]["min_steps"] = 0
    grey = values.get(_GREY)
    if isinstance(grey, dict):
        changed = {key.removeprefix("augment."): value for key, value in given.items() if key.startswith("augment.")}
        grey |= {leaf: value for leaf, value in changed.items() if f"{_GREY}.{leaf}" not in given}


def full_key(key: str) -> str:
    """The dotted key that is meant, which may be given by its last part where only one section has it.

    Raises:
        ConfigError: there is none, or there are several.

    >>> full_key("epochs")
    'train.epochs'
    """
    names = setting_names()
    if key in names:
        return key
    # What is set for `augment` holds for grey images too.
    matches = [name for name in names if name.rpartition(".")[2] == key and not name.startswith(f"{_GREY}.")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(f"the setting '{key}' is ambiguous: write one of {', '.join(matches)}.")
    raise ConfigError(_unknown_key(key))


def _unknown_key(key: str) -> str:
    names = setting_names()
    sections = list(dict.fromkeys(name.partition(".")[0] for name in names if "." in name))
    if key in sections:
        return f"'{key}' is a section, not a setting: write {key}.NAME=VALUE. docs/settings.md lists its settings."
    leaf = key.rpartition(".")[2]
    near = closest(key, [*names, *sections]) or closest(leaf, [name.rpartition(".")[2] for name in names])
    hint = f"; did you mean '{near}'?" if near else "."
    return f"there is no setting '{key}'{hint} docs/settings.md lists them all."


def _section_needed(section: str, value: object) -> str:
    return f"the setting '{section}' cannot be {value!r}: it is a section; write its settings below [{section}]."


def _explain(error: ValidationError) -> str:
    errors = error.errors()
    first = errors[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return _unknown_key(".".join(path))
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ") + "."
    if first["type"] == "model_type":
        return _section_needed(".".join(path), first["input"])
    # The place goes on below the setting with the branch of a union and the item of a tuple.
    depth = 2 if ".".join(path[:2]) in setting_names() else 1
    same = [detail for detail in errors if detail["loc"][:depth] == first["loc"][:depth]]
    value = min(same, key=lambda detail: len(detail["loc"]))["input"]
    reasons = dict.fromkeys(_reason(detail) for detail in same)
    return f"the setting '{'.'.join(path[:depth])}' cannot be {value!r}: it should be {' or '.join(reasons)}."


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] in ("missing", "too_long", "tuple_type"):
        return "a list of the right length"
    return str(detail["msg"]).removeprefix("Input should be ")
