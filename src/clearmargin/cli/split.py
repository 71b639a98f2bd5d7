"""`clearmargin split`: who is trained, validated and tested on, as a CSV."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from clearmargin.cli.options import Data, with_image_options

_HEADERS = ("path,patient_id,label,split", "path,patient_id,label,fold")


@with_image_options
def split(
    data: Data,
    out: Annotated[Path, typer.Option(help="The CSV to write.")],
    by: Annotated[
        Literal["patient", "image"] | None,
        typer.Option(help="What a fresh split keeps on one side: all images of a patient, or each image."),
    ] = None,
    fractions: Annotated[str, typer.Option(help="Shares of train, validation and test.")] = "0.8,0.1,0.1",
    folds: Annotated[
        int | None, typer.Option(help="Write so many folds for cross-validation, instead of three parts.")
    ] = None,
    official: Annotated[bool, typer.Option("--official", help="Write the split that comes with the data.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed and data give the same split.")] = 0,
    *,
    images: dict[str, Any],
) -> None:
    """Write a stratified split by patient, the official one, or folds."""
    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.cli.show import split_summary
    from clearmargin.errors import UsageError
    from clearmargin.files import disk_errors, make_folder, write_whole

    try:
        shares = [float(share) for share in fractions.split(",")]
    except ValueError:
        raise UsageError(f"--fractions {fractions}: write three numbers, for example 0.8,0.1,0.1.") from None
    _check_free(data, out)
    table = api.split(
        data,
        by=by,
        fractions=shares,
        folds=folds,
        official=official,
        seed=seed,
        listener=build_listener(),
        **images,
    )
    with disk_errors(out):
        make_folder(out.parent)
        write_whole(out, lambda partial: table.to_csv(partial, index=False))
    print(split_summary(table, out))


def _check_free(data: Path, out: Path) -> None:
    """Passes when nothing but an older split would be replaced.

    Raises:
        UsageError: the file is the data themselves or somebody else's, or no file can be there.
    """
    from clearmargin.errors import UsageError
    from clearmargin.files import check_can_hold_file, disk_errors

    with disk_errors(out):
        check_can_hold_file(out, "--out", example="split.csv")
        if not out.exists():
            return
        with out.open("rb") as file:
            header = file.readline(200).decode("utf-8", "replace").strip()
    if header not in _HEADERS or os.path.abspath(out) == os.path.abspath(data):
        raise UsageError(f"{out}: is there already, and is not a split; give another file with --out.")
