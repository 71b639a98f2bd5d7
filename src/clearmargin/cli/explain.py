"""`clearmargin explain`: pictures of which places of an image moved the network."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clearmargin.cli.options import BundlePath, Frame, Gated
from clearmargin.cli.predict import CROPS_ONLY, gate_note, refused_words
from clearmargin.errors import one_line

if TYPE_CHECKING:
    from clearmargin.explanation.explainer import Explainer

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
        typer.Option(metavar="NAME", help="How to explain, see docs/explain.md; 'all' for all."),
    ] = None,
    alpha: Annotated[float, typer.Option(min=0.05, max=1.0, help="How much of the image full colour hides.")] = 0.6,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Write a PNG of each.")] = True,
    maps: Annotated[bool, typer.Option("--maps/--no-maps", help="Write the raw map of each as .npy.")] = True,
    legend: Annotated[
        bool, typer.Option("--legend/--no-legend", help="The image beside its map, and a legend; else the map alone.")
    ] = True,
    frame: Frame = None,
    gate: Gated = True,
    output: Annotated[
        Literal["table", "json"],
        typer.Option("--format", help="How to list what was written; json is one object a line."),
    ] = "table",
) -> None:
    """Show which places of images moved the network: evidence for it, not for disease."""
    from clearmargin import api
    from clearmargin.cli.inputs import Inputs
    from clearmargin.errors import AllRefused
    from clearmargin.explanation.methods import find_methods
    from clearmargin.explanation.write import INDEX, check_folder, write_explanations

    names = find_methods(method or ())
    records = Inputs(paths, frame=frame)
    explainer = api.load_explainer(bundle, gate=gate)
    check_folder(out)
    notes = list(_notes(explainer, names, gate=gate))
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    if output == "table":
        print(f"{'decision':<10} {'probability':>11}  {'method':<20} path")
    rows = write_explanations(
        explainer.explain_records(records, methods=names),
        out,
        alpha=alpha,
        pictures=pictures,
        maps=maps,
        legend=legend,
    )
    refused = 0
    for row in rows:
        refused += row["method"] is None
        if output == "json":
            sys.stdout.write(json.dumps(row) + "\n")
        else:
            print(_line(row, known=notes))
    if refused:
        print(refused_words(refused, len(records)), file=sys.stderr)
    if output == "table":
        print(f"\nwritten to {out}, listed in {out / INDEX}", file=sys.stderr)
    if refused == len(records):
        raise AllRefused(f"every input was refused ({len(records):,} in all); see the reasons above.")


def _notes(explainer: Explainer, names: Sequence[str], *, gate: bool) -> Iterator[str]:
    """What to know of all the explanations."""
    from clearmargin.data.phantom import DRAWN
    from clearmargin.explanation.words import say_faint

    model = explainer.predictor.bundle.model
    if not gate and (said := gate_note(model, gate=gate)):
        yield said
    if model.content == "lesion":
        yield CROPS_ONLY
    if model.context is not None:
        yield _ALONE
    if drawn := [name for name in names if not explainer.has_scale(name)]:
        yield (
            f"the bundle has no colour scale for {', '.join(drawn)}; it is found on {DRAWN}, which differ "
            "from yours. 'calibrate' makes one from your own."
        )
    yield from filter(None, (say_faint(explainer.scale(name).saturation, explainer.full_reach(name)) for name in names))


def _line(row: dict[str, Any], *, known: Container[str]) -> str:
    """The row of the table, without the remarks that are known already."""
    chance = "-" if row["probability"] is None else f"{row['probability']:.4f}"
    remarks = [remark.rstrip(".") for remark in row["remarks"] if remark not in known]
    said = "; ".join([*filter(None, [row["reason"]]), *remarks])
    line = f"{row['decision']!s:<10} {chance:>11}  {row['method'] or '-':<20} {one_line(row['path'])}"
    return f"{line}  ({one_line(said)})" if said else line
