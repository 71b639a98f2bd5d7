"""`clearmargin download`: a public data set, fetched because the user asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def download(
    name: Annotated[str | None, typer.Argument(help="The data set; --list shows which there are.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to put it in.")] = Path("data"),
    list_only: Annotated[bool, typer.Option("--list", help="Say what there is and fetch nothing.")] = False,
) -> None:
    """Fetch a public data set: resumed, verified, with its licence shown. No other command downloads anything."""
    from clearmargin.cli.progress import build_listener
    from clearmargin.data.download import DOWNLOADS, describe
    from clearmargin.data.download import download as fetch
    from clearmargin.errors import UnknownName, one_line

    if name is not None and name not in DOWNLOADS:
        raise UnknownName("data set", name, DOWNLOADS)
    if name is None or list_only:
        print("\n\n".join(describe(each, DOWNLOADS[each]) for each in ([name] if name else DOWNLOADS)))
        return
    print(describe(name, DOWNLOADS[name]), flush=True)
    result = fetch(name, out, listener=build_listener())
    place = one_line(str(result.path))
    print(
        f"\n{place} is ready ({result.check})." if result.fetched else f"\n{place} is there already ({result.check})."
    )
    print(f"Next: {one_line(result.next_command)}")
