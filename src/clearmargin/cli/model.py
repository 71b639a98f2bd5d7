"""`clearmargin model`: what a model is made of, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from clearmargin.models.contract import Classifier
    from clearmargin.models.describe import Description, Layer
    from clearmargin.settings import RunConfig

_SIDES = (8, 2048)
_USUAL = (50, 50)
_COLUMNS = 100
_MARKS = {"add": "+ ", "concatenate": "∥ ", "multiply": "× ", "subtract": "− "}


def model(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A model, timm:NAME, a recipe, a bundle or run folder, or a .clearmargin file; "
            "without it the models are listed."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="W,H", help="Width and height of the images in pixels; the recipe's if not given, else 50,50."
        ),
    ] = None,
    channels: Annotated[
        Literal["1", "3"] | None, typer.Option(help="Channels of the images: 1 is grey, 3 is RGB.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw a picture into this file, ending in .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Show the layers of a model, with shapes, parameters and multiply-adds."""
    from clearmargin.errors import UsageError, one_line
    from clearmargin.files import check_can_hold_file, disk_errors, make_folder, write_text

    given = _parse_size(size)
    if name is None:
        if svg is not None or size is not None or channels is not None:
            raise UsageError("name the model, as in: clearmargin model residual. Without a name the models are listed.")
        print(_list_json() if as_json else _list_text())
        return
    if svg is not None:
        check_can_hold_file(svg, "--svg", example="model.svg")
        if svg.suffix.lower() != ".svg":
            raise UsageError(f"{svg}: the picture is an SVG; give a name that ends so, as --svg {svg.name}.svg.")
    subjects = _find(name, given, int(channels) if channels else None)
    if as_json:
        print(json.dumps(_to_json(name, subjects), indent=1))
    else:
        print("\n\n".join(_table(subject) for subject in subjects))
    if svg is None:
        return
    from clearmargin.models.picture import draw_model

    drawing = draw_model(subjects[0].description, name=subjects[0].title)
    if drawing.note:
        print(f"Note: {drawing.note}", file=sys.stderr)
    if len(subjects) > 1:
        print("Note: the picture shows the networks that see an image, not those that see its field.", file=sys.stderr)
    with disk_errors(svg):
        make_folder(svg.absolute().parent)
        write_text(svg, drawing.svg)
    print(f"picture  {one_line(str(svg))}", file=sys.stderr if as_json else sys.stdout)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A model that was looked at: what it is called, which one it is, and what it sees."""

    title: str
    model: str
    sees: str
    description: Description


def _find(name: str, size: tuple[int, int] | None, channels: int | None) -> list[_Subject]:
    """The model that is meant; of a bundle with a context also the networks that see the field.

    Raises:
        UsageError: there is no such model, or it does not take images of this size.
        BundleError: the folder holds no bundle.
    """
    from clearmargin.config import check_config, load_recipe, recipe_names
    from clearmargin.errors import UnknownName
    from clearmargin.models import MODELS
    from clearmargin.models.timm_trunk import PREFIX

    if name in MODELS or name in recipe_names() or name.startswith(PREFIX) or name.endswith(".toml"):
        images: dict[str, Any] = {"size": list(size)} if size else {}
        images |= {"channels": channels} if channels else {}
        if name in recipe_names() or name.endswith(".toml"):
            settings = load_recipe(name, {f"images.{key}": value for key, value in images.items()})
        else:
            settings = check_config({"model": {"name": name}, "images": images})
        width, height = _USUAL if settings.images.size == "auto" else settings.images.size
        built = _build(settings, (height, width, settings.images.channels))
        return [_subject(name, settings.model.name, "image", built, (height, width, settings.images.channels))]
    if os.path.lexists(name) or "/" in name or os.sep in name or name.endswith(".clearmargin"):
        return _find_bundle(name, given=bool(size or channels))
    raise UnknownName("model", name, dict.fromkeys([*MODELS, *recipe_names(), "timm:NAME"]))


def _build(settings: RunConfig, shape: tuple[int, int, int]) -> Classifier:
    from clearmargin.errors import MissingExtra, UnknownName, UsageError
    from clearmargin.models import build_model
    from clearmargin.models.backbones import BackboneOptions
    from clearmargin.models.timm_trunk import parse_arguments

    chosen = settings.model
    input_px = None if chosen.input_px == "auto" else chosen.input_px
    options = BackboneOptions(chosen.head, input_px, parse_arguments(chosen.arguments))
    try:
        return build_model(chosen.name, shape, options=options)
    except (MissingExtra, UnknownName):
        raise
    except UsageError as error:
        if "pixels are" not in str(error):
            raise
        raise UsageError(f"{str(error).partition(';')[0]}; give another --size.") from None


def _find_bundle(path: str, *, given: bool) -> list[_Subject]:
    from clearmargin.bundle.read import read_bundle
    from clearmargin.bundle.torch_model import load_torch_model
    from clearmargin.errors import UsageError

    bundle = read_bundle(path)
    if given:
        raise UsageError(f"{path}: a bundle has a size of its own; leave --size and --channels out.")
    architecture, shape = bundle.model.architecture, bundle.model.preprocessing.shape
    subjects = [_subject(path, architecture.name, "image", load_torch_model(bundle), shape)]
    if architecture.field is not None and architecture.thumbnail is not None:
        side = architecture.field * architecture.thumbnail
        field = load_torch_model(bundle, field=True)
        subjects.append(_subject(path, architecture.name, "field", field, (side, side, shape[2])))
    return subjects


def _subject(title: str, name: str, sees: str, built: Classifier, shape: tuple[int, int, int]) -> _Subject:
    from clearmargin.models.describe import describe_model

    return _Subject(title, name, sees, describe_model(built, shape))


def _parse_size(text: str | None) -> tuple[int, int] | None:
    from clearmargin.errors import UsageError

    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d{1,9})\s*[,x×]\s*(\d{1,9})\s*", text, flags=re.ASCII)
    if found is None or not all(_SIDES[0] <= int(side) <= _SIDES[1] for side in found.groups()):
        raise UsageError(
            f"--size {text}: write it as width,height, from {_SIDES[0]} to {_SIDES[1]:,} pixels each, as --size 64,64."
        )
    return int(found[1]), int(found[2])


def _table(subject: _Subject) -> str:
    """The layers as lines of at most 100 columns, the totals below."""
    from clearmargin.errors import one_line

    description = subject.description
    rows = [_row(layer) for layer in description.layers]
    heads = ("", "name", "layer", "output", "parameters", "multiply-adds")
    marks = _gutter(description.layers)
    widths = [max(len(row[n]) for row in [heads[1:], *rows]) for n in range(5)]
    room = _COLUMNS - 2 - 2 * 4 - sum(widths[2:])
    if widths[0] + widths[1] > room:  # names are cut in front, where they are alike
        widths[0] = max(min(widths[0], room - widths[1]), min(widths[0], room // 2))
        widths[1] = room - widths[0]

    def line(mark: str, row: tuple[str, ...]) -> str:
        first, second = _cut(row[0], widths[0], front=True), _cut(row[1], widths[1])
        cells = [first.ljust(widths[0]), second.ljust(widths[1]), *(row[n].rjust(widths[n]) for n in (2, 3, 4))]
        return f"{mark} {'  '.join(cells)}".rstrip()

    width, height = description.layers[0].shape[2], description.layers[0].shape[1]
    seen = f"{subject.sees} {width}×{height}×{description.layers[0].shape[0]}"
    same = "" if subject.title == subject.model else f" ({subject.model})"
    title = _cut(f"{one_line(subject.title)}{same}, {seen}", _COLUMNS, front=True)
    lines = [title, "", line(" ", heads[1:])]
    lines += [line(mark, row) for mark, row in zip(marks, rows, strict=True)]
    return "\n".join([*lines, "", *_totals(description)])


def _row(layer: Layer) -> tuple[str, ...]:
    from clearmargin.errors import one_line

    mark = _MARKS.get(layer.kind, "") if " and " in layer.detail else ""
    what = f"{mark}{layer.kind} {layer.detail}".strip()
    shape = "" if layer.kind == "unused" else "×".join(map(str, layer.shape)) or "1"
    numbers = [f"{number:,}" if number else "" for number in (layer.parameters, layer.multiply_adds)]
    return one_line(layer.name), one_line(what), shape, *numbers


def _gutter(layers: tuple[Layer, ...]) -> list[str]:
    """A bracket beside each block in which branches meet."""
    marks = []
    for number, layer in enumerate(layers):
        before = number > 0 and layers[number - 1].block == layer.block
        after = number + 1 < len(layers) and layers[number + 1].block == layer.block
        marks.append(" " if not layer.block else {(0, 1): "┌", (1, 1): "│", (1, 0): "└", (0, 0): " "}[before, after])
    return marks


def _totals(description: Description) -> list[str]:
    from clearmargin.models.picture import short_number, size_words

    others = description.values - description.parameters
    trainable = "all" if description.trainable == description.parameters else f"{description.trainable:,}"
    each = f" in {description.networks} networks of these layers" if description.networks > 1 else ""
    return [
        f"parameters     {description.parameters:,}{each}, {trainable} trainable",
        *([f"besides        {others:,} values that are measured, such as the means of batch norms"] if others else []),
        f"weights        {size_words(description.weight_bytes)}",
        f"multiply-adds  {description.multiply_adds:,} ({short_number(description.multiply_adds)}) for one image: "
        "convolutions and matrix products",
    ]


def _cut(text: str, width: int, *, front: bool = False) -> str:
    if len(text) <= width:
        return text
    return f"…{text[len(text) - width + 1 :]}" if front else f"{text[: width - 1]}…"


def _to_json(name: str, subjects: list[_Subject]) -> dict[str, Any]:
    """What the table says, for programs; shapes are (channels, height, width)."""
    image, *fields = [{"model": each.model, **asdict(each.description)} for each in subjects]
    return {"name": name, **image, "field": fields[0] if fields else None}


def _list_json() -> str:
    from clearmargin.config import load_recipe, recipe_names
    from clearmargin.models import summaries

    recipes = {name: load_recipe(name).description for name in recipe_names()}
    return json.dumps({"models": summaries(), "recipes": recipes}, indent=1)


def _list_text() -> str:
    from clearmargin.config import load_recipe, recipe_names
    from clearmargin.models import summaries

    models = {**summaries(), "timm:NAME": "any network of timm, pretrained or not (needs the extra 'backbones')"}
    recipes = {name: load_recipe(name) for name in recipe_names() if name not in models}
    lines = [f"{name:<14} {what}" for name, what in models.items()]
    lines += ["", *(f"{name:<14} the recipe: {each.model.name}" for name, each in recipes.items())]
    return "\n".join(
        [
            *lines,
            "",
            "Next: clearmargin model NAME [--svg FILE]; a bundle, a run folder or a .clearmargin file is a NAME too.",
        ]
    )
