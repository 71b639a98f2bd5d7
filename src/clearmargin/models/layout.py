"""Where the boxes of a picture go, and how the lines between them run: by Graphviz where it is there, else by us.

Ours puts each box below all that it takes, the longest way through the network in the first column, other branches in
columns beside it, and a line that jumps over boxes around them on the left. Graphviz' `dot` gets numbers only, on its
standard input, and gives numbers back.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

DOT_TIMEOUT_S = 20
GAP = 30
"""Pixels between a box and what is below or beside it."""
_ARC = 18
_POINTS_PER_INCH = 72

Point = tuple[float, float]
Edge = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """The middle of each box, and for each edge the points of a path: one to begin at, then three a Bézier curve.

    x runs to the right, y downwards, from (0, 0) to (width, height). `note` says why dot is not behind it though it is
    installed.
    """

    centers: tuple[Point, ...]
    paths: tuple[tuple[Point, ...], ...]
    width: float
    height: float
    note: str = ""


def arrange(sizes: Sequence[Point], edges: Sequence[Edge], groups: Mapping[str, Sequence[int]]) -> Layout:
    """A place for each box.

    Args:
        sizes: (width, height) of the boxes; each comes after those that it takes something from.
        edges: (from, to).
        groups: boxes that stand together, by name.
    """
    dot = shutil.which("dot")
    if dot is None:
        return arrange_by_hand(sizes, edges)
    try:
        return arrange_by_dot(dot, sizes, edges, list(groups.values()))
    except subprocess.TimeoutExpired:
        reason = f"took more than {DOT_TIMEOUT_S} s"
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"ended with {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else str(error)
    except (ValueError, IndexError, KeyError):
        reason = "gave no layout that can be read"
    own = arrange_by_hand(sizes, edges)
    note = f"Graphviz is not used: {dot} {reason}."
    return Layout(own.centers, own.paths, own.width, own.height, note)


def arrange_by_dot(dot: str, sizes: Sequence[Point], edges: Sequence[Edge], groups: Sequence[Sequence[int]]) -> Layout:
    """The layout of Graphviz.

    Raises:
        OSError, subprocess.SubprocessError: it does not run, or fails.
        ValueError, IndexError, KeyError: its answer is none.
    """
    lines = [
        f"digraph {{ graph [nodesep={GAP / _POINTS_PER_INCH:.3f}, ranksep={GAP / _POINTS_PER_INCH:.3f}];",
        'node [shape=box, fixedsize=true, label=""]; edge [arrowhead=none];',
    ]
    for number, (width, height) in enumerate(sizes):
        lines.append(f"{number} [width={width / _POINTS_PER_INCH:.4f}, height={height / _POINTS_PER_INCH:.4f}];")
    for number, group in enumerate(groups):
        lines.append(f"subgraph cluster_{number} {{ {'; '.join(map(str, group))} }}")
    levels = _levels(len(sizes), edges)
    for source, target in edges:  # those that jump over nothing make the straight lines
        lines.append(f"{source} -> {target} [weight={9 if levels[target] == levels[source] + 1 else 1}];")
    answer = subprocess.run(
        [dot, "-Tplain"],
        input="\n".join([*lines, "}"]),
        capture_output=True,
        text=True,
        timeout=DOT_TIMEOUT_S,
        check=True,
    ).stdout
    return _parse_plain(answer, len(sizes), edges)


def _parse_plain(answer: str, boxes: int, edges: Sequence[Edge]) -> Layout:
    rows = [line.split() for line in answer.splitlines()]
    size = next(row for row in rows if row[:1] == ["graph"]) if rows and rows[0][:1] == ["graph"] else []
    scale, width, height = float(size[1]) * _POINTS_PER_INCH, float(size[2]), float(size[3])

    def point(x: str, y: str) -> Point:
        place = float(x) * scale, (height - float(y)) * scale
        if not all(map(isfinite, place)):
            raise ValueError("a place is a number")
        return place

    centers = {int(row[1]): point(row[2], row[3]) for row in rows if row[:1] == ["node"]}
    paths: dict[Edge, tuple[Point, ...]] = {}
    for row in rows:
        if row[:1] == ["edge"]:
            count = int(row[3])
            points = tuple(point(row[4 + 2 * n], row[5 + 2 * n]) for n in range(count))
            if count < 4 or count % 3 != 1:
                raise ValueError("a spline has 4, 7, 10 … points")
            paths[int(row[1]), int(row[2])] = points
    return Layout(
        tuple(centers[number] for number in range(boxes)),
        tuple(paths[edge] for edge in edges),
        width * scale,
        height * scale,
    )


def arrange_by_hand(sizes: Sequence[Point], edges: Sequence[Edge]) -> Layout:
    """Our own layout; it needs nothing that is not installed."""
    levels = _levels(len(sizes), edges)
    columns = _columns(len(sizes), edges, levels)
    tops, heights = _rows(sizes, levels)
    arcs = _arcs(edges, levels, columns)
    left = _ARC * (max(arcs.values(), default=-1) + 1) + (GAP / 2 if arcs else 0)
    widths = [max(sizes[box][0] for box in range(len(sizes)) if columns[box] == n) for n in range(max(columns) + 1)]
    middles = [left + sum(widths[:n]) + GAP * n + widths[n] / 2 for n in range(len(widths))]
    centers = [(middles[columns[box]], tops[levels[box]] + heights[levels[box]] / 2) for box in range(len(sizes))]
    paths = []
    for edge in edges:
        source, target = edge
        (x0, y0), (x1, y1) = centers[source], centers[target]
        if edge in arcs:
            lane = middles[columns[source]] - widths[columns[source]] / 2 - GAP / 2 - _ARC * arcs[edge]
            paths.append(_around((x0 - sizes[source][0] / 2, y0), (x1 - sizes[target][0] / 2, y1), lane))
            continue
        bottom, top = y0 + sizes[source][1] / 2, y1 - sizes[target][1] / 2
        bend = max(bottom, tops[levels[target]] - GAP)  # down in its own column until the row above
        paths.append(((x0, bottom), (x0, bottom), (x0, bend), (x0, bend), (x0, bend + GAP), (x1, top - GAP), (x1, top)))
    return Layout(tuple(centers), tuple(paths), left + sum(widths) + GAP * (len(widths) - 1), tops[-1] + heights[-1])


def _levels(boxes: int, edges: Sequence[Edge]) -> list[int]:
    """The row of each box: the longest way to it."""
    levels = [0] * boxes
    for source, target in sorted(edges):
        levels[target] = max(levels[target], levels[source] + 1)
    return levels


def _columns(boxes: int, edges: Sequence[Edge], levels: Sequence[int]) -> list[int]:
    """The column of each box: 0 on the longest way through, others where no other branch is beside."""
    following: list[list[int]] = [[] for _ in range(boxes)]
    for source, target in edges:
        following[source].append(target)
    rest = [0] * boxes
    for box in reversed(range(boxes)):
        rest[box] = max((rest[after] + 1 for after in following[box]), default=0)
    heir = {box: max(after, key=lambda each: (rest[each], -each)) for box, after in enumerate(following) if after}
    chains: list[list[int]] = []
    chain_of: dict[int, int] = {}
    for box in range(boxes):
        before = [each for each, after in heir.items() if after == box]
        parent = max(before, key=lambda each: (levels[each], -each), default=None)
        if parent is None:
            chain_of[box] = len(chains)
            chains.append([])
        else:
            chain_of[box] = chain_of[parent]
        chains[chain_of[box]].append(box)
    columns = [0] * boxes
    taken: list[list[tuple[int, int]]] = []
    for number in sorted(range(len(chains)), key=lambda each: (-len(chains[each]), levels[chains[each][0]])):
        chain = chains[number]
        first = levels[chain[0]]
        last = max((levels[after] - 1 for after in following[chain[-1]]), default=levels[chain[-1]])
        free = (n for n, used in enumerate(taken) if all(last < begin or end < first for begin, end in used))
        column = next(free, len(taken))
        if column == len(taken):
            taken.append([])
        taken[column].append((first, max(first, last)))
        for box in chain:
            columns[box] = column
    return columns


def _rows(sizes: Sequence[Point], levels: Sequence[int]) -> tuple[list[float], list[float]]:
    """Upper edge and height of each row."""
    heights = [max(sizes[box][1] for box in range(len(sizes)) if levels[box] == row) for row in range(max(levels) + 1)]
    return [sum(heights[:row]) + GAP * row for row in range(len(heights))], heights


def _arcs(edges: Sequence[Edge], levels: Sequence[int], columns: Sequence[int]) -> dict[Edge, int]:
    """The edges that have a box in their way, each with how far out it runs; two that overlap run apart."""
    filled = set(zip(columns, levels, strict=True))
    blocked = [
        edge
        for edge in edges
        if any((columns[edge[0]], row) in filled for row in range(levels[edge[0]] + 1, levels[edge[1]]))
    ]
    arcs: dict[Edge, int] = {}
    for edge in sorted(blocked, key=lambda each: levels[each[1]] - levels[each[0]]):
        beside = {
            out
            for other, out in arcs.items()
            if levels[other[0]] < levels[edge[1]] and levels[edge[0]] < levels[other[1]]
        }
        arcs[edge] = next(out for out in range(len(edges)) if out not in beside)
    return arcs


def _around(start: Point, end: Point, x: float) -> tuple[Point, ...]:
    """Out to x, down, and in again, with round corners."""
    (_, y0), (x1, y1) = start, end
    turn = min(12.0, abs(y1 - y0) / 2)
    return (
        start, start, (x + turn, y0), (x + turn, y0),
        (x, y0), (x, y0), (x, y0 + turn),
        (x, y0 + turn), (x, y1 - turn), (x, y1 - turn),
        (x, y1), (x, y1), (x + turn, y1),
        (x + turn, y1), (x1, y1), end,
    )  # fmt: skip
