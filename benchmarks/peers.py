"""Programs side by side: each asked for its figures in a process of its own, told in one table with their ratios."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

Figures = Mapping[str, float]
"""What a program says of itself, by name."""


def ask(python: str, code: str, *arguments: object) -> dict[str, float]:
    """What a program says of itself in its last line."""
    command = [python, "-c", code, *map(str, arguments)]
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH" or python == sys.executable
    }
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def print_table(
    told: Mapping[str, Sequence[Figures]],
    columns: Mapping[str, tuple[str, int]],
    pairs: Iterable[tuple[str, str, str]],
) -> None:
    """The medians over the rounds of each program, then the medians of the ratios within a round.

    Args:
        told: the figures of each program, one entry a round.
        columns: heading and decimals of each figure.
        pairs: what a ratio is called, and the two programs.
    """
    pairs = list(pairs)
    first = max(map(len, [*told, *(name for name, *_ in pairs)])) + 2
    widths = {key: max(11, len(heading) + 2) for key, (heading, _) in columns.items()}
    print(f"{'':<{first}}" + "".join(f"{heading:>{widths[key]}}" for key, (heading, _) in columns.items()))
    for program, rounds in told.items():
        row = [
            f"{statistics.median(each[key] for each in rounds):>{widths[key]},.{digits}f}"
            for key, (_, digits) in columns.items()
        ]
        print(f"{program:<{first}}" + "".join(row))
    for name, ours, theirs in pairs:
        both = list(zip(told[ours], told[theirs], strict=True))
        ratios = {key: statistics.median(mine[key] / other[key] for mine, other in both) for key in columns}
        print(f"{name:<{first}}" + "".join(f"{ratio:>{widths[key]}.2f}" for key, ratio in ratios.items()))
