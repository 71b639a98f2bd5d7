"""`clearmargin import-keras`: a bundle from a Keras file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from clearmargin.errors import UsageError


def import_keras(
    file: Annotated[Path, typer.Argument(help="A Keras 1, 2 or 3 model: .h5, .hdf5 or .keras.")],
    out: Annotated[Path, typer.Option(help="The bundle folder to make.")],
    malignant_index: Annotated[
        int, typer.Option(min=0, max=1, help="Of two outputs, the malignant one; of one, 0 if it is of benign.")
    ] = 1,
    scale: Annotated[
        str | None,
        typer.Option(
            help="Pixels 0 to 255 are multiplied by it [default: 1/255, or 1 if the network rescales from 0 to 255]."
        ),
    ] = None,
    offset: Annotated[str, typer.Option(help="Added to the pixels after --scale.")] = "0",
    channels: Annotated[
        Literal["rgb", "bgr"], typer.Option(help="The order of the channels as the network was trained.")
    ] = "rgb",
    size: Annotated[
        str | None,
        typer.Option(metavar="W,H", help="Width and height in pixels, for a network that takes images of any size."),
    ] = None,
    fit: Annotated[
        Literal["pad", "stretch"], typer.Option(help="How images of another size become that size.")
    ] = "stretch",
    recipe: Annotated[
        str | None, typer.Option(help="The recipe whose network it is, where the file holds weights alone.")
    ] = None,
) -> None:
    """Make a bundle from a Keras model; nothing in the file is run."""
    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.errors import counted

    made = api.import_keras(
        file,
        out,
        malignant_index=1 if malignant_index == 1 else 0,
        scale=scale,
        offset=offset,
        channels=channels,
        size=None if size is None else _parse_size(size),
        fit=fit,
        recipe=recipe,
        listener=build_listener(),
    )
    graph, spec = made.model.architecture.graph, made.model.preprocessing
    assert graph is not None
    heads = {"softmax": "a softmax", "sigmoid": "a sigmoid", "linear": "no activation: it is taken as a logit"}
    print(
        f"\nImported {counted(len(graph.nodes), 'layer', 'layers')} with {graph.parameters:,} parameters, for images of"
    )
    print(f"{spec.width}×{spec.height} pixels; the last layer has {heads[made.head]}.")
    print("The file holds no threshold: 0.5 is assumed until 'calibrate' chooses one.")
    print(f"\nbundle   {made.folder}")
    print(f"next     clearmargin evaluate {shlex.quote(str(made.folder))} IMAGES --out DIR")


def _parse_size(text: str) -> tuple[int, int]:
    width, separator, height = text.replace("x", ",").partition(",")
    if not (separator and width.strip().isdecimal() and height.strip().isdecimal()) or len(text) > 20:
        raise UsageError(f"--size {text}: give width and height, as 50,50.")
    return int(width), int(height)
