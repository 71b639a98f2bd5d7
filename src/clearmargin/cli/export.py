"""`clearmargin export`: a bundle for others, as an ONNX or a Keras file, or as one file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clearmargin.cli.options import BundlePath


def export(
    bundle: BundlePath,
    to: Annotated[
        str, typer.Option(metavar="onnx|keras|clearmargin", help="The network for others, or all of the bundle.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Images to compare the network on, at their own sizes; may be repeated."),
    ] = None,
    without_cases: Annotated[
        bool, typer.Option("--without-cases", help="Leave out the training images that the bundle carries.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
) -> None:
    """Write a bundle as one file, or its network for ONNX or Keras, checked before it gets its name."""
    from clearmargin import api
    from clearmargin.cli.inputs import Inputs

    paths = [record.path for record in Inputs(images)] if images else []
    made = api.export(bundle, out, to=to, images=paths, without_cases=without_cases, force=force)
    print(f"{made.path}: {made.path.stat().st_size:,} bytes")
    for fact in made.facts:
        print(f"  {fact}")
