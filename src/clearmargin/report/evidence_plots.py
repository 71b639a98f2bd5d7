"""The figures of calibration, abstention and usefulness; like `plots.py`, and drawn from metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from clearmargin.report.plots import TICK_TEXTS, TICKS, unit_square
from clearmargin.report.svg import ACCENT, INK, MUTED, NEUTRAL, Picture, drawing, legend_above, render

Values = Mapping[str, Any]
_DASHED = (0, (3, 3))


def reliability(bins: Sequence[Values]) -> Picture:
    """Observed share of malignant by predicted probability, its intervals as bars, over the bins' counts.

    Args:
        bins: of rising probability, each `lower`, `upper`, `n`, and, where n is not 0, `mean_probability`,
            `observed` and `ci` (or None for the last).
    """
    filled = [each for each in bins if each["n"]]
    centre = [each["mean_probability"] for each in filled]
    with drawing() as figure:
        upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        unit_square(upper)
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=_DASHED)
        for place, each in zip(centre, filled, strict=True):
            if each.get("ci"):
                upper.vlines(place, *each["ci"], color=ACCENT, linewidth=1.5, alpha=0.7)
        observed = [each["observed"] for each in filled]
        upper.plot(centre, observed, "o-", color=ACCENT, markersize=4.5, linewidth=1.25, clip_on=False)
        upper.set_title("observed share of malignant")
        upper.tick_params(labelbottom=False)
        left = np.array([each["lower"] for each in bins])
        width = np.array([each["upper"] for each in bins]) - left
        counts = [each["n"] for each in bins]
        lower.bar(left, counts, width=width * 0.9, align="edge", color=NEUTRAL, alpha=0.55)
        lower.grid(visible=False)
        lower.set_yticks([0, max([*counts, 1])])
        lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        lower.set_xlabel("predicted probability; below: images per bin")
        return render(figure, "reliability", title="Reliability: predicted probability against observed share")


def decision_curve(curve: Values, *, threshold: float) -> Picture:
    """Net benefit by threshold probability: the model with its interval, treating all, treating none.

    Args:
        curve: `threshold`, `model`, `ci` and `treat_all`, each one entry a threshold; entries may be None.
        threshold: of the operating point, marked.
    """
    places, model, treat_all = (_numbers(curve[name]) for name in ("threshold", "model", "treat_all"))
    low, high = _ends(curve.get("ci") or [None] * len(places))
    with drawing() as figure:
        axes = figure.add_subplot()
        axes.axhline(0, color=MUTED, linewidth=1, label="treat none")
        axes.plot(places, treat_all, color=NEUTRAL, linewidth=1.25, linestyle=_DASHED, label="treat all")
        axes.fill_between(places, low, high, color=ACCENT, alpha=0.18, linewidth=0)
        axes.plot(places, model, color=ACCENT, label="model")
        axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        # Treating all falls without end, and would flatten everything else.
        top = float(np.nanmax(np.concatenate([model, high, [0.05]])))
        axes.set_ylim(-0.25 * top, 1.1 * top)
        axes.set_xlim(0, 1)
        axes.set_xticks(TICKS, TICK_TEXTS)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel("threshold probability; dotted: the operating point")
        axes.set_ylabel("net benefit")
        legend_above(axes)
        return render(figure, "decision-curve", title="Decision curve: net benefit by threshold probability")


def risk_coverage(curve: Values, *, point: tuple[float, float] | None) -> Picture:
    """Share of decided images that are wrong, when only the surest are decided.

    Args:
        curve: `decided`, `error` and `ci`, each one entry a share; entries may be None.
        point: (share decided, share wrong among them) of the region of abstention in use, or None.
    """
    decided, error = _numbers(curve["decided"]), _numbers(curve["error"])
    low, high = _ends(curve.get("ci") or [None] * len(decided))
    with drawing() as figure:
        axes = figure.add_subplot()
        axes.fill_between(decided, low, high, color=ACCENT, alpha=0.18, linewidth=0)
        axes.plot(decided, error, color=ACCENT)
        if point is not None:
            axes.plot([point[0]], [point[1]], "o", color=INK, markersize=6, clip_on=False, label="as it decides")
            legend_above(axes)
        top = float(np.nanmax(np.concatenate([error, high, [0.02]])))
        axes.set_ylim(0, 1.1 * top)
        axes.set_xlim(0, 1)
        axes.set_xticks(TICKS, TICK_TEXTS)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.3g} %")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel("share of images decided, the surest first")
        axes.set_ylabel("wrong among the decided")
        return render(figure, "risk-coverage", title="Risk and coverage: error among the images that are decided")


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _ends(intervals: Sequence[Sequence[float] | None]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = np.array([each or (np.nan, np.nan) for each in intervals], dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
