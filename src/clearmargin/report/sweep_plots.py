"""The figures of a sweep: how far it got, each setting against what it gave, and all settings of a trial at once.

The winner is drawn in the accent colour, the recipe's own settings as a dashed line or a hollow dot, trials that were
given up as small marks. The canvas is elsewhere (`svg.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from clearmargin.report.svg import ACCENT, GRID, INK, MUTED, NEUTRAL, Picture, drawing, legend_above, render
from clearmargin.report.words import value_word

_DASHED = (0, (3, 3))
_MOST_LABEL = 18


def progress(table: pd.DataFrame, *, winner: int) -> Picture:
    """The value of each trial in the order in which they were tried, and the best so far.

    Args:
        table: trials.csv.
        winner: the number of the trial that won.
    """
    complete, pruned = _of_state(table, "complete"), _of_state(table, "pruned")
    with drawing() as figure:
        axes = figure.add_subplot()
        if len(complete):
            axes.step(complete["number"], complete["value"].cummax(), where="post", color=MUTED, label="best so far")
            axes.plot(complete["number"], complete["value"], "o", color=NEUTRAL, markersize=5, label="trial")
        if len(pruned):
            axes.plot(pruned["number"], pruned["value"], "x", color=NEUTRAL, markersize=5, label="given up")
        _baseline_line(axes, table)
        won = complete[complete["number"] == winner]
        axes.plot(won["number"], won["value"], "o", color=ACCENT, markersize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel("trial")
        axes.margins(x=0.05, y=0.12)
        legend_above(axes)
        return render(figure, "progress", title="AUROC of each trial in the order of trials, and the best so far")


def parameter(table: pd.DataFrame, key: str, spec: Any, *, name: str, winner: int) -> Picture:
    """A setting against the AUROC of the trials that had it.

    Args:
        table: trials.csv.
        key: the setting, a column.
        spec: of the space: a list of choices, or a range.
        name: prefix of ids.
        winner: the number of the trial that won.
    """
    shown = table[table["state"].isin(("complete", "pruned")) & table[key].notna()]
    places, ticks, texts = _places(shown[key], spec)
    with drawing(height=230) as figure:
        axes = figure.add_subplot()
        for state, style in (("pruned", "x"), ("complete", "o")):
            rows = (shown["state"] == state).to_numpy()
            axes.plot(places[rows], shown["value"].to_numpy()[rows], style, color=NEUTRAL, markersize=5)
        _baseline_line(axes, table)
        won = (shown["number"] == winner).to_numpy()
        axes.plot(places[won], shown["value"].to_numpy()[won], "o", color=ACCENT, markersize=8)
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlim(-0.5, len(ticks) - 0.5)
        elif spec.get("log"):
            axes.set_xscale("log")
            _label_decades(axes, spec["low"], spec["high"])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_title("AUROC over folds")
        axes.margins(y=0.12)
        return render(figure, name, title=f"{key} against AUROC over folds, a dot for each trial", texts=texts)


def parallel(table: pd.DataFrame, space: Mapping[str, Any], *, winner: int) -> Picture:
    """Every setting of every complete trial as a line over upright axes, the last of which is the AUROC.

    Args:
        table: trials.csv.
        space: key to a list of choices, or a range.
        winner: the number of the trial that won.
    """
    complete = _of_state(table, "complete")
    columns, ends = [], []
    for key, spec in space.items():
        share, low, high = _shares(complete[key], spec)
        columns.append(share)
        ends.append((low, high))
    value = complete["value"].to_numpy(dtype=np.float64)
    spread = float(np.ptp(value)) or 1.0
    columns.append((value - value.min()) / spread)
    ends.append((f"{value.min():.3f}", f"{value.max():.3f}"))
    lines = np.stack(columns, axis=1)
    texts = {f"low{number}x": low for number, (low, _) in enumerate(ends)}
    texts |= {f"high{number}x": high for number, (_, high) in enumerate(ends)}
    names = [key.rpartition(".")[2] for key in space] + ["AUROC"]
    with drawing(height=300) as figure:
        axes = figure.add_subplot()
        for place in range(len(names)):
            axes.axvline(place, color=GRID, linewidth=1)
            axes.text(place, -0.06, f"low{place}x", ha="center", va="top", color=MUTED, fontsize=8)
            axes.text(place, 1.04, f"high{place}x", ha="center", va="bottom", color=MUTED, fontsize=8)
            axes.text(
                place, 1.14 + 0.08 * (place % 2), f"name{place}x", ha="center", va="bottom", color=INK, fontsize=9
            )
        texts |= {f"name{number}x": _short(text) for number, text in enumerate(names)}
        for number, baseline, line in zip(complete["number"], complete["baseline"], lines, strict=True):
            if number != winner:
                style = _DASHED if baseline else "-"
                axes.plot(line, color=INK if baseline else NEUTRAL, linewidth=1.25, alpha=0.6, linestyle=style)
        axes.plot(lines[(complete["number"] == winner).to_numpy()][0], color=ACCENT, linewidth=2.5)
        axes.set_ylim(-0.16, 1.34)
        axes.set_xlim(-0.35, len(names) - 0.65)
        axes.set_axis_off()
        return render(figure, "parallel", title="All settings of each trial, the winner in colour", texts=texts)


def _of_state(table: pd.DataFrame, state: str) -> pd.DataFrame:
    return table[table["state"] == state].sort_values("number")


def _baseline_line(axes: Axes, table: pd.DataFrame) -> None:
    own = table[table["baseline"].astype(bool) & (table["state"] == "complete")]
    for value in own["value"].tail(1):
        axes.axhline(value, color=INK, linewidth=1, linestyle=_DASHED, label="recipe")


def _places(values: pd.Series[Any], spec: Any) -> tuple[NDArray[np.float64], list[str], dict[str, str]]:
    """Where values lie on the axis; for choices the stand-ins of its ticks, and the texts that they stand for."""
    if isinstance(spec, Mapping):
        return pd.to_numeric(values).to_numpy(dtype=np.float64), [], {}
    known = [value_word(choice) for choice in spec]
    words = [value_word(value) for value in values]
    known += sorted(set(words) - set(known))  # the recipe's own, outside the space
    texts = {f"choice{number}x": _short(word) for number, word in enumerate(known)}
    return np.array([known.index(word) for word in words], dtype=np.float64), list(texts), texts


def _shares(values: pd.Series[Any], spec: Any) -> tuple[NDArray[np.float64], str, str]:
    """(n,) in [0, 1] where each value lies on its own axis, the middle for none, and what the ends are called."""
    if not isinstance(spec, Mapping):
        known = [value_word(choice) for choice in spec]
        known += sorted({value_word(value) for value in values if pd.notna(value)} - set(known))
        share = [known.index(value_word(value)) / (len(known) - 1) if pd.notna(value) else 0.5 for value in values]
        return np.array(share), _short(known[0]), _short(known[-1])
    numbers = pd.to_numeric(values).to_numpy(dtype=np.float64)
    low, high = min(spec["low"], np.nanmin(numbers)), max(spec["high"], np.nanmax(numbers))
    if spec.get("log") and low > 0:
        share = (np.log(numbers) - math.log(low)) / (math.log(high) - math.log(low))
    else:
        share = (numbers - low) / (high - low)
    return np.where(np.isfinite(share), share, 0.5), f"{low:.3g}", f"{high:.3g}"


def _label_decades(axes: Axes, low: float, high: float) -> None:
    """Ticks at powers of ten, or where the range has fewer than two of them at its ends."""
    powers = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    ticks: Sequence[float] = powers if len(powers) >= 2 else (low, math.sqrt(low * high), high)
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(word: str) -> str:
    return word if len(word) <= _MOST_LABEL else f"{word[: _MOST_LABEL - 1]}…"
