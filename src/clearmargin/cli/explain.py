"""`clearmargin explain`: pictures of which places of an image moved the network."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clearmargin.cli.options import BundlePath, Frame, Gated
from clearmargin.cli.predict import CROPS_ONLY, gate_note, refused_words
from clearmargin.errors import counted, one_line

if TYPE_CHECKING:
    from clearmargin.bundle.schema import ModelFile

_ALONE = (
    "explained is what the network says of each patch by itself; the neighbours in its slide, which 'predict' counts "
    "where places are known, are left out."
)


def explain(
    bundle: BundlePath,
    paths: Annotated[
        list[str], typer.Argument(metavar="IMAGE…", help="Images, folders, zips, globs or manifests (CSV).")
    ],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="How to explain, can be given several times; 'all' for all. See docs/explain.md."
        ),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(min=0.05, max=1.0, help="How much of the image full colour hides.")
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Write a PNG of each.")] = True,
    maps: Annotated[bool, typer.Option("--maps/--no-maps", help="Write the raw map of each as .npy.")] = True,
    legend: Annotated[
        bool, typer.Option("--legend/--no-legend", help="The image beside its map, and a legend; else the map alone.")
    ] = True,
    frame: Frame = None,
    gate: Gated = True,
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="json is one object a line.")] = "table",
) -> None:
    """Show which places of images moved the network: evidence for it, not for disease."""
    from clearmargin import api
    from clearmargin.cli.inputs import Inputs
    from clearmargin.errors import AllRefused
    from clearmargin.explanation.draw import ALPHA
    from clearmargin.explanation.methods import DEFAULT_METHOD, METHODS, find_method
    from clearmargin.explanation.write import INDEX, check_folder, write_explanations

    names = list(METHODS) if method == ["all"] else list(dict.fromkeys(method or [DEFAULT_METHOD]))
    for name in names:
        find_method(name)
    records = Inputs(paths, frame=frame)
    explainer = api.load_explainer(bundle, gate=gate)
    check_folder(out)
    model = explainer.predictor.bundle.model
    for said in _notes(model, gate=gate, drawn=[name for name in names if not explainer.has_scale(name)]):
        print(f"Note: {said}", file=sys.stderr)
    if output == "table":
        print(f"{'decision':<10} {'probability':>11}  {'method':<20} path")
    rows = write_explanations(
        explainer.explain_records(records, methods=names),
        out,
        alpha=ALPHA if alpha is None else alpha,
        pictures=pictures,
        maps=maps,
        legend=legend,
        note="What is explained is the patch by itself, without its neighbours." if model.context is not None else "",
    )
    refused = empty = 0
    for row in rows:
        refused += row["method"] is None
        empty += row.get("largest") == 0 == row.get("smallest")
        if output == "json":
            sys.stdout.write(json.dumps(row) + "\n")
        else:
            print(_line(row))
    if refused:
        print(refused_words(refused, len(records)), file=sys.stderr)
    if empty:
        maps_are = counted(empty, "map is", "maps are")
        print(f"Note: {maps_are} zero everywhere: by that method no place moved the network.", file=sys.stderr)
    if output == "table":
        print(f"\nwritten to {out}, listed in {out / INDEX}", file=sys.stderr)
    if refused == len(records):
        raise AllRefused(f"every input was refused ({len(records):,} in all); see the reasons above.")


def _notes(model: ModelFile, *, gate: bool, drawn: list[str]) -> Iterator[str]:
    """What to know of all explanations; `drawn` are the methods whose colour scale the bundle does not have."""
    from clearmargin.data.phantom import DRAWN

    if not gate and (said := gate_note(model, gate=gate)):
        yield said
    if model.content == "lesion":
        yield CROPS_ONLY
    if model.context is not None:
        yield _ALONE
    if drawn:
        yield (
            f"the bundle has no colour scale for {', '.join(drawn)}; it is found on {DRAWN}, which differ "
            "from yours. 'calibrate' makes one from your own."
        )


def _line(row: dict[str, object]) -> str:
    chance = "-" if row["probability"] is None else f"{row['probability']:.4f}"
    reason = f"  ({row['reason']})" if row["reason"] else ""
    method = row["method"] or "-"
    return f"{row['decision']!s:<10} {chance:>11}  {method!s:<20} {one_line(str(row['path']))}{one_line(reason)}"
