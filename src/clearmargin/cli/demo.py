"""`clearmargin demo`: the main job on phantom data, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_EPOCHS = 4


def demo(out: Annotated[Path, typer.Option(help="The folder to make.")] = Path("demo")) -> None:
    """Draw phantom patients, then audit, split, train, evaluate and report."""
    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.cli.show import run_summary
    from clearmargin.data.phantom import write_phantom
    from clearmargin.errors import UsageError

    listener = build_listener()
    data = out / "data"
    if out.is_dir() and any(out.iterdir()) and not data.is_dir():
        raise UsageError(f"{out}: the folder is not empty; give another with --out.")
    if not data.exists():
        write_phantom(data, listener=listener)
    run = api.train(
        data,
        out / "run",
        epochs=_EPOCHS,
        resume=True,
        command=f"clearmargin demo --out {out}",
        listener=listener,
    )
    print(run_summary(run.folder, run.metrics))
    print("\nThe images are drawn, not real: these figures say nothing about tissue.")
