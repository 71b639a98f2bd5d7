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
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token that requests must bring; or CLEARMARGIN_TOKEN.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="The folder for jobs; one in your home by default.")] = None,
    keep_hours: Annotated[
        float, typer.Option(min=0, help="Hours that the answers of a job are kept after its end.")
    ] = 24.0,
    gate: Gated = True,
    batching: Annotated[
        bool,
        typer.Option("--batching/--no-batching", help="Let requests that come together share a run of the network."),
    ] = True,
    grace: Annotated[
        float, typer.Option(min=1, help="Seconds that requests under way are given when the server ends.")
    ] = 30.0,
    seconds: Annotated[float, typer.Option(min=1, help="Most seconds of work on one request.")] = 60.0,
    body_seconds: Annotated[
        float, typer.Option(min=1, help="Most seconds until the body of a request has come.")
    ] = 60.0,
    concurrency: Annotated[int, typer.Option(min=1, max=512, help="Most requests with images under way at once.")] = 64,
    max_files: Annotated[int, typer.Option(min=1, help="Most files of a request, members of zips counted.")] = 2_000,
    max_file_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of one file.")] = 64 << 20,
    max_request_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of a request, unpacked.")] = 512 << 20,
    max_pixels: Annotated[int, typer.Option(min=1, help="Most pixels of one image.")] = 40_000_000,
    max_jobs: Annotated[int, typer.Option(min=1, help="Most jobs that are not done.")] = 100,
) -> None:
    """Answer over HTTP with trained bundles: a page for people, an API for programs. Ends with Ctrl-C."""
    from clearmargin.web.app import make_app
    from clearmargin.web.jobs.running import open_jobs
    from clearmargin.web.jobs.store import state_folder
    from clearmargin.web.limits import ServeLimits
    from clearmargin.web.run import address_of, find_token, is_loopback, open_socket, private_folder, run
    from clearmargin.web.served import load_served
    from clearmargin.web.serving import LOOPBACK_HOSTS, ServeSettings

    token = find_token(host, token_file)
    limits = ServeLimits(
        max_file_bytes=max_file_bytes,
        max_request_bytes=max_request_bytes,
        max_files=max_files,
        max_pixels=max_pixels,
        seconds=seconds,
        body_seconds=body_seconds,
        concurrency=concurrency,
        max_jobs=max_jobs,
    )
    served = load_served(bundles, limits, gate=gate, batching=batching)
    with private_folder() as private, open_socket(host, port) as opened:
        settings = ServeSettings(
            private_folder=private,
            state_folder=state or state_folder(),
            limits=limits,
            token=token,
            hosts=LOOPBACK_HOSTS | {host.lower()} if is_loopback(host) else None,
            keep_hours=keep_hours,
        )
        address, names = address_of(opened), ", ".join(served)

        def ready() -> None:
            print(f"Serving {names} on {address}", file=sys.stderr, flush=True)

        app = make_app(served, settings)
        open_jobs(app.state.serving)
        run(app, opened, grace=grace, ready=ready)
