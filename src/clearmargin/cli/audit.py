"""`clearmargin audit`: what is wrong with the images, before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clearmargin.cli.options import AsJson, Data, Exclude, PatientRegex, SourceName, Tolerance


def audit(
    data: Data,
    as_json: AsJson = False,
    fix_list: Annotated[Path | None, typer.Option(help="Write the paths to leave out, for --exclude.")] = None,
    patient_regex: PatientRegex = None,
    source: SourceName = None,
    exclude: Exclude = None,
    tolerance: Tolerance = None,
) -> None:
    """List everything that is wrong with the images; exit code 3 when something blocks."""
    import json

    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.cli.show import audit_summary
    from clearmargin.files import disk_errors, write_text

    result = api.audit(
        data,
        source=source,
        patient_regex=patient_regex,
        exclude=exclude,
        tolerance=tolerance,
        listener=build_listener(),
    )
    if fix_list is not None:
        with disk_errors(fix_list):
            write_text(fix_list, "".join(f"{path}\n" for path in result.fix_list()))
    print(json.dumps(result.to_dict()) if as_json else audit_summary(result.to_dict()))
    if result.blocking:
        raise typer.Exit(3)
