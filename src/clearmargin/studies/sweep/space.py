"""The space of a sweep: a TOML file that names settings and the values to try, held against the settings themselves.

Everything that can be known to be wrong is an error before an image is read. What would change who is in test, or what
a trial does not do, cannot be swept, and the error says why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from clearmargin.config import full_key, load_recipe, read_toml, setting_names
from clearmargin.errors import ClearmarginError, ConfigError, closest
from clearmargin.settings import RunConfig, Section

Value = bool | int | float | str | list[Any]
"""Of a setting, as TOML has it."""

_WHO = "it changes who is in test, which must be the same for every trial"
_DECIDES = "a trial is judged by its AUROC, which it does not change"
_SPEED = "it is about speed; set it with --set"
_ONE_NETWORK = "a trial trains one network in each fold; set it with --set for the winner"
_FIXED: dict[str, str] = {
    "seed": "all trials share it, so that they differ in their settings alone",
    "split.": _WHO,
    "data.": "it changes which images there are",
    "images.": "images are packed once for all trials; a recipe brings its own, so sweep recipe instead",
    "evaluate.": _DECIDES,
    "cases.": _DECIDES,
    "description": _DECIDES,
    "deterministic": "it is for a whole run; set it with --set",
    "train.crossfit": _ONE_NETWORK,
    "train.seeds": _ONE_NETWORK,
    "model.field": "trials train no second network; set it with --set for the winner",
    "model.thumbnail": "trials train no second network; set it with --set for the winner",
    "model.weights": "a file belongs to one model; sweep once for each file, or model.name with --weights hub set",
    "train.checkpoint_minutes": _DECIDES,
    "train.images_on": _SPEED,
    "train.compile": _SPEED,
}
"""What cannot be swept, a key or the beginning of keys, and why."""
_RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True, slots=True)
class Choices:
    """A setting that is one of some values."""

    key: str
    values: tuple[Value, ...]

    def holds(self, value: object) -> bool:
        """The value is one of them."""
        return value in self.values


@dataclass(frozen=True, slots=True)
class Range:
    """A setting between two numbers, both of which it can be; `step` from `low` on, or drawn on a log scale."""

    key: str
    kind: Literal["int", "float"]
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def holds(self, value: object) -> bool:
        """The value is a number that can be drawn."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or abs((value - self.low) / self.step - round((value - self.low) / self.step)) < 1e-9

    @property
    def ends(self) -> tuple[float, float]:
        return (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Space:
    """Every setting that is swept, by their names, so that the order in the file does not matter."""

    parameters: tuple[Choices | Range, ...]

    @property
    def keys(self) -> list[str]:
        return [parameter.key for parameter in self.parameters]

    @property
    def recipes(self) -> tuple[str, ...]:
        """The recipes to choose from; none where the recipe is not swept."""
        found = [each for each in self.parameters if isinstance(each, Choices) and each.key == "recipe"]
        return tuple(str(name) for each in found for name in each.values)

    def table(self) -> dict[str, Any]:
        """The space as TOML has it, every key in full."""
        result: dict[str, Any] = {}
        for each in self.parameters:
            if isinstance(each, Choices):
                result[each.key] = list(each.values)
            else:
                entry: dict[str, Any] = {"low": each.low, "high": each.high}
                result[each.key] = entry | ({"log": True} if each.log else {}) | _given(step=each.step)
        return result


def read_space(path: Path) -> Space:
    """The space in the file, its keys and shape checked; `check_space` holds its values against a recipe.

    Raises:
        ConfigError: one line with the file, the key, what is wrong, and the closest that there is.
    """
    found: dict[str, Choices | Range] = {}
    for written, content in _entries(read_toml(path)):
        key = _sweepable(path, written)
        if key in found:
            raise ConfigError(f"{path}: '{key}' is there twice; keep one.")
        found[key] = _read_choices(path, key, content) if isinstance(content, list) else _read_range(path, key, content)
    if not found:
        raise ConfigError(
            f'{path}: the space is empty. Name a setting of docs/settings.md, as "train.batch_size" = [32, 64, 128].'
        )
    return Space(tuple(found[key] for key in sorted(found)))


def check_space(path: Path, space: Space, recipe: str, changes: Mapping[str, Any]) -> list[RunConfig]:
    """The settings with each end and each choice put in by itself, all of which are valid.

    Args:
        path: of the file, for the message.
        space: what is in it.
        recipe: that the sweep begins with.
        changes: of the user, besides.

    Raises:
        ConfigError: names the file, the key and the value that the settings do not allow.
    """
    checked = []
    for recipe_name in dict.fromkeys((recipe, *space.recipes)):
        for parameter in space.parameters:
            for value in parameter.values if isinstance(parameter, Choices) else parameter.ends:
                named = str(value) if parameter.key == "recipe" else recipe_name
                own = {} if parameter.key == "recipe" else {parameter.key: value}
                try:
                    checked.append(load_recipe(named, {**changes, **own}))
                except ClearmarginError as error:
                    raise ConfigError(f"{path}: {error}") from None
    return checked


def encode(value: object) -> bool | int | float | str:
    """The value as tables and the storage of trials take it: a list as text.

    >>> encode([1, 2]), encode(0.5)
    ('[1, 2]', 0.5)
    """
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _entries(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    # A key without quotes is a table below a table to TOML.
    sections = {name.partition(".")[0] for name in setting_names() if "." in name}
    for name, content in table.items():
        key = f"{prefix}{name}"
        if isinstance(content, dict) and key in sections:
            yield from _entries(content, f"{key}.")
        else:
            yield key, content


def _sweepable(path: Path, written: str) -> str:
    try:
        key = full_key(written)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    reason = next(
        (why for name, why in _FIXED.items() if key == name or (name[-1] == "." and key.startswith(name))), ""
    )
    if reason:
        raise ConfigError(f"{path}: '{key}' cannot be swept: {reason}.")
    return key


def _read_choices(path: Path, key: str, values: Sequence[Any]) -> Choices:
    if len(values) < 2:
        raise ConfigError(f"{path}: '{key}' has {len(values)} value to choose from; give two or more, or use --set.")
    encoded = [(type(value), encode(value)) for value in values if not isinstance(value, dict)]
    if len(encoded) < len(values) or not all(isinstance(value, bool | int | float | str | list) for value in values):
        raise ConfigError(f"{path}: '{key}' must be a list of numbers, texts, or true and false.")
    if len(set(encoded)) < len(values):
        raise ConfigError(f"{path}: '{key}' has a value twice; keep one.")
    return Choices(key, tuple(values))


def _read_range(path: Path, key: str, content: object) -> Range:
    where = f"{path}: '{key}'"
    example = "as [1, 2, 4], or { low = 1, high = 4 }"
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is one value, {content!r}; give a list of choices or a range, {example}.")
    for name in content:
        if name not in _RANGE:
            near = closest(name, _RANGE)
            hint = f"; did you mean '{near}'?" if near else "."
            raise ConfigError(f"{where} has an unknown part '{name}'{hint} A range has {', '.join(_RANGE)}.")
    if missing := [name for name in ("low", "high") if name not in content]:
        raise ConfigError(f"{where} has no {' and no '.join(missing)}; give a range, {example}.")
    kind = _number_kind(key)
    if kind is None:
        raise ConfigError(f"{where} is no number, and has no range; give a list of choices.")
    log = content.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{where} has log = {log!r}; write true or false.")
    numbers = {name: _read_number(where, name, content[name], kind) for name in _RANGE if name in {*content} - {"log"}}
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    if problem := _why_no_range(low, high, step, log=log):
        raise ConfigError(f"{where} has {problem}.")
    if step is not None:  # the last value that can be drawn, so that both ends are values
        high = low + int((high - low) / step + 1e-9) * step
    return Range(key, kind, low, high, log, step)


def _read_number(where: str, name: str, value: object, kind: Literal["int", "float"]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where} has {name} = {value!r}; write a number.")
    if kind == "int" and not isinstance(value, int):
        raise ConfigError(f"{where} has {name} = {value!r}; this setting is a whole number.")
    return value if kind == "int" else float(value)


def _why_no_range(low: float, high: float, step: float | None, *, log: bool) -> str:
    """What is wrong with these numbers; empty where nothing is."""
    if not low < high:  # NaN too
        return f"low = {low!r} and high = {high!r}; low must be below high"
    if log and low <= 0:
        return f"log = true and low = {low!r}; on a log scale low must be above 0"
    if log and step is not None:
        return "log = true and a step; keep one of them"
    if step is not None and not 0 < step <= high - low:
        return f"step = {step!r}; it must be above 0 and not above high - low"
    return ""


def _number_kind(key: str) -> Literal["int", "float"] | None:
    """What kind of number a setting is; None where it is none, or true and false."""
    section, _, leaf = key.rpartition(".")
    field = RunConfig.model_fields[section or leaf]
    if section:
        kinds = (field.annotation, *get_args(field.annotation))
        owner = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section))
        field = owner.model_fields[leaf]
    if get_origin(field.annotation) is tuple:
        return None
    leaves = set(_leaves(field.annotation))
    return "float" if float in leaves else "int" if int in leaves else None


def _leaves(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _leaves(get_args(annotation)[0])
    elif get_origin(annotation) is Literal:
        return
    elif get_args(annotation):
        for part in get_args(annotation):
            yield from _leaves(part)
    else:
        yield annotation


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
