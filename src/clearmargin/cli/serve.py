"""`clearmargin serve`: the page and the API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from clearmargin.cli.options import Gated


def serve(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE…", help="Bundle folders, run folders or .clearmargin files.")
    ],
    host: Annotated[str, typer.Option(help="The address; one that others can reach needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token that requests must bring; or CLEARMARGIN_TOKEN.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="The folder for jobs; in your home by default.")] = None,
    gate: Gated = True,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that requests under way have at the end.")] = 30.0,
    batching: Annotated[
        bool, typer.Option("--batching/--no-batching", help="Requests that come together share a run of the network.")
    ] = True,
) -> None:
    """Answer over HTTP with trained bundles: a page for people, an API for programs."""
    import tempfile

    from platformdirs import user_state_path

    from clearmargin.files import make_folder
    from clearmargin.web.app import make_app
    from clearmargin.web.limits import ServeLimits
    from clearmargin.web.run import address_of, find_token, is_loopback, open_socket, run
    from clearmargin.web.served import load_served
    from clearmargin.web.serving import ServeSettings

    token = find_token(host, token_file)
    limits = ServeLimits()
    served = load_served(bundles, limits, gate=gate)
    state_folder = state or user_state_path("clearmargin") / "serve"
    make_folder(state_folder)
    with tempfile.TemporaryDirectory(prefix="clearmargin-") as private, open_socket(host, port) as opened:
        settings = ServeSettings(Path(private), state_folder, limits, token, batching=batching)
        if not is_loopback(host):
            settings = ServeSettings(Path(private), state_folder, limits, token, None, batching)
        address, names = address_of(opened), ", ".join(served)

        def ready() -> None:
            print(f"Serving {names} on {address}", file=sys.stderr, flush=True)

        run(make_app(served, settings), opened, grace=grace, ready=ready)
