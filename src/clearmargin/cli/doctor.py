"""`clearmargin doctor`: whether this installation can do its work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from clearmargin.cli.options import AsJson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clearmargin.doctor import Outcome


def doctor(as_json: AsJson = False) -> None:
    """Check the installation and the machine; exit code 1 when something does not work."""
    import json
    from dataclasses import asdict

    from clearmargin import __version__
    from clearmargin.doctor import run_checks

    started, found = time.monotonic(), []
    for name, outcome in run_checks():
        found.append((name, outcome))
        if not as_json:
            print(_lines(name, outcome), flush=True)
    seconds = time.monotonic() - started
    is_ok = all(outcome.status != "failed" for _, outcome in found)
    if as_json:
        checks = [{"name": name, **asdict(outcome)} for name, outcome in found]
        print(json.dumps({"clearmargin": __version__, "ok": is_ok, "seconds": round(seconds, 2), "checks": checks}))
    else:
        print(f"\n{_summary([outcome for _, outcome in found])} ({seconds:.1f} s)")
    if not is_ok:
        raise typer.Exit(1)


def _lines(name: str, outcome: Outcome) -> str:
    fix = f"\n{'':<23}fix: {outcome.fix}" if outcome.fix else ""
    return f"{outcome.status:<9} {name:<12} {outcome.message}{fix}"


def _summary(outcomes: Sequence[Outcome]) -> str:
    statuses = [outcome.status for outcome in outcomes]
    bad = [f"{statuses.count(status)} {word}" for status, word in (("failed", "failed"), ("warning", "with a drawback"))
           if status in statuses]  # fmt: skip
    return f"{len(statuses)} checks: {', '.join(bad) or 'all is well'}"
