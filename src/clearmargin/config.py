"""The settings of a run: defined, documented and checked here; saved with every run as config.toml.

A recipe is a TOML file in `recipes/` that fills some of them; `--set section.key=value` and the named
options of the command line change them afterwards. A key that does not exist is refused with the
nearest one that does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from clearmargin.errors import ConfigError, UnknownName, closest

RECIPES_FOLDER = Path(__file__).parent / "recipes"

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: object) -> object:
        # A path that is not could be neither saved in config.toml nor written into a table.
        if isinstance(value, str) and not _is_encodable(value):
            raise PydanticCustomError("not_unicode", "Input should be Unicode text; rename the file or folder")
        return value


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class DataSettings(_Section):
    """Which images the run is about."""

    root: str = ""
    """The folder or manifest, absolute."""
    source: str | None = None
    """A name of SOURCES; recognised when missing."""
    patient_regex: str | None = None
    """Takes the patient from each path."""
    split_file: str | None = None
    """A CSV with the columns path (or patient_id) and split."""
    exclude_file: str | None = None
    """A text file with one path a line to leave out."""
    tolerance: Share = 0.01
    """Share of unusable files up to which a run goes on without them."""


class ImageSettings(_Section):
    """How an image becomes the array that the model sees; written into the bundle."""

    size: Literal["auto"] | tuple[Annotated[int, Field(ge=8, le=2048)], Annotated[int, Field(ge=8, le=2048)]] = "auto"
    """(width, height) in pixels; `auto` takes the data's most common size, at most `largest_px` on its longer side."""
    largest_px: Annotated[int, Field(ge=8, le=2048)] = 128
    """Bound of `auto`."""
    channels: Literal[1, 3] = 3
    """1 is grey, 3 is RGB."""
    fit: Literal["pad", "stretch"] = "pad"
    """`pad` keeps the aspect ratio, never enlarges, and fills the rest; `stretch` resizes to the size exactly."""
    padding: Literal["mirror", "black", "white"] = "mirror"
    """What fills the rest, below and to the right."""
    interpolation: Literal["nearest", "bilinear", "area"] = "area"
    """How sizes change; `area` averages when it shrinks."""
    mean: Share = 0.0
    """Subtracted after division by 255."""
    std: Annotated[float, Field(gt=0.0)] = 1.0
    """Divided by after that."""


class SplitSettings(_Section):
    by: Literal["patient", "image"] = "patient"
    """What a fresh split keeps together; `image` is optimistic and stamped so."""
    fractions: tuple[Share, Share, Share] = (0.8, 0.1, 0.1)
    """Train, validation, test."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSettings:
        if abs(sum(self.fractions) - 1.0) > 1e-6 or min(self.fractions) <= 0:
            raise ValueError(
                "split.fractions must be three numbers above 0 that sum to 1 (train, validation, test), "
                f"got {', '.join(f'{share:g}' for share in self.fractions)}"
            )
        return self


class ModelSettings(_Section):
    name: str = "residual"
    """A name of MODELS."""


class AugmentSettings(_Section):
    """Random changes to training images, one draw per image; 0 switches one off."""

    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    quarter_turns: bool = False
    """Rotation by 0, 90, 180 or 270 degrees: exact, no interpolation."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of width and height."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Scale drawn from [1 - zoom, 1 + zoom]."""
    shear_degrees: Annotated[float, Field(ge=0, le=60)] = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness: Share = 0.0
    """Added value drawn from [-brightness, brightness], on a scale of 0 to 1."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Factor about the image's mean, drawn from [1 - contrast, 1 + contrast]."""
    stain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Factor on each channel's optical density drawn from [1 - stain, 1 + stain], and an offset of a tenth of it."""


class TrainSettings(_Section):
    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["adam", "adamw", "adagrad"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rate_decay: Annotated[float, Field(ge=0)] = 0.0
    """At step t the rate is divided by 1 + learning_rate_decay * t, as in Keras."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Of the optimizer; Keras uses 1e-7."""
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """The learning rate rises linearly over so many epochs, under either schedule."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """`weights` weighs the loss by the inverse class frequency; `sampler` draws both classes equally often."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Exponential moving average of the weights, which then are the ones validated and kept; 0 is off."""
    monitor: Literal["validation_loss", "validation_accuracy", "validation_auroc", "train_loss"] = "validation_loss"
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better `monitor` before training stops; 0 never stops early."""
    restore_best: bool = True
    """Keep the weights of the epoch with the best `monitor` instead of the last."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """`auto` is bf16-mixed where the processor has native bf16 arithmetic, otherwise 32-true."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    """A checkpoint is written at each epoch's end and after so many minutes inside a long one."""


class EvaluateSettings(_Section):
    operating_point: Literal["balanced", "sensitivity"] = "balanced"
    target_sensitivity: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Used by the operating point `sensitivity`."""
    resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples of patients behind each interval."""


class RunConfig(_Section):
    """Everything that decides a run's result besides the data and the version of the software."""

    recipe: str = "default"
    """The recipe that the settings came from."""
    description: str = ""
    """One line for people."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the split, the first weights and everything random in training."""
    deterministic: bool = False
    """Refuse operations that could differ from run to run; the same machine then gives the same weights."""
    data: DataSettings = DataSettings()
    images: ImageSettings = ImageSettings()
    split: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    augment: AugmentSettings = AugmentSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()


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
        section, _, leaf = _full_key(key).rpartition(".")
        place = values.setdefault(section, {}) if section else values
        if not isinstance(place, dict):
            raise ConfigError(_section_needed(section, place))
        place[leaf] = value
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
        section = entry.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            names += [f"{name}.{leaf}" for leaf in section.model_fields]
        else:
            names.append(name)
    return names


def _full_key(key: str) -> str:
    names = setting_names()
    if key in names:
        return key
    matches = [name for name in names if name.rpartition(".")[2] == key]
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
