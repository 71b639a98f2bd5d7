"""`clearmargin audit`: what is wrong with the images, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearmargin.cli.options import AsJson, Data, with_image_options

if TYPE_CHECKING:
    from clearmargin.data.audit import Audit


@with_image_options
def audit(
    data: Data,
    as_json: AsJson = False,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures of what was found.")
    ] = None,
    fix_list: Annotated[Path | None, typer.Option(help="Write the paths to leave out, for --exclude.")] = None,
    *,
    images: dict[str, Any],
) -> None:
    """List everything that is wrong with the images; exit code 3 when something blocks."""
    import json
    import sys

    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.cli.show import audit_summary, terminal_width
    from clearmargin.errors import counted
    from clearmargin.files import disk_errors, write_text

    if page is not None:
        _check_free(page)
    if fix_list is not None:
        _check_listing(fix_list)
    listener = build_listener()
    result = api.audit(
        data,
        listener=listener,
        **images,
    )
    values = result.to_dict()
    if fix_list is not None:
        left_out = result.fix_list()
        with disk_errors(fix_list):
            write_text(fix_list, "".join(f"{path}\n" for path in left_out))
        listener.note(f"{counted(len(left_out), 'file', 'files')} to leave out, listed in {fix_list}.")
    print(json.dumps(values) if as_json else audit_summary(values, width=terminal_width()))
    if page is not None:
        listener.note("Drawing the page …")
        _write_page(result, values, page)
        print(f"\npage     {page}", file=sys.stderr if as_json else sys.stdout)
    if result.blocking:
        raise typer.Exit(3)


def _check_free(page: Path) -> None:
    """Passes when nothing but an older page would be replaced, before minutes are spent on the audit.

    Raises:
        UsageError: a folder is there, or somebody else's file, or nothing can be there.
    """
    from clearmargin.errors import UsageError
    from clearmargin.files import check_can_hold_file, disk_errors
    from clearmargin.report.findings import PAGE_MARK

    with disk_errors(page):
        check_can_hold_file(page, "--html", example="audit.html")
        if not page.exists():
            return
        with page.open("rb") as file:
            start = file.read(2000)
    if start and PAGE_MARK.encode() not in start:  # an empty file is nobody's
        raise UsageError(f"{page}: is there already, and is not a page of an audit; give another file with --html.")


def _check_listing(fix_list: Path) -> None:
    """Passes when the list can be written, before minutes are spent on the audit.

    Raises:
        UsageError: a folder, a pipe or a device is there, or the folder for it is not.
    """
    from clearmargin.errors import UsageError
    from clearmargin.files import check_can_hold_file, disk_errors

    with disk_errors(fix_list):
        check_can_hold_file(fix_list, "--fix-list", example="fix_list.txt")
        if not fix_list.absolute().parent.is_dir():
            raise UsageError(f"{fix_list.parent}: no such folder. Make it, or give another file with --fix-list.")


def _write_page(result: Audit, values: Mapping[str, Any], page: Path) -> None:
    from clearmargin.files import disk_errors, make_folder
    from clearmargin.images.read import read_image
    from clearmargin.report.audit_page import write_audit_page

    with disk_errors(page):
        make_folder(page.parent)
        write_audit_page(
            values,
            page,
            load_image=lambda path: read_image(result.manifest.locate(path)),
            labels=image_labels(result),
        )


def image_labels(result: Audit) -> dict[str, str]:
    """What is known of each image that a finding names: class, patient, part of the official split."""
    from clearmargin.types import LABEL_NAMES

    frame = result.manifest.frame
    named = {path for finding in result.findings for path in chain(finding.paths, *finding.groups)}
    rows = frame.loc[frame["path"].isin(named), ["path", "label", "patient_id", "official_split"]]
    labels: dict[str, str] = {}
    for path, label, patient, part in rows.itertuples(index=False, name=None):
        known = [LABEL_NAMES[label]]
        known += [f"patient {patient}"] if isinstance(patient, str) else []
        known += [part] if isinstance(part, str) else []
        text = ", ".join(known)
        earlier = labels.get(path, text)  # of a row that stands twice
        labels[path] = text if text == earlier else f"{earlier}; {text}"
    return labels
