"""Draws docs/pictures: `python -m docs.drawing`.

The numbers come from `study.py` and go to `pictures/numbers.json` too. The pictures of the report's page are
drawn by the report's own functions from `pictures/demo_run.json`, which `--run demo/run` takes from a finished demo.
The same numbers give the same bytes; a test computes them anew.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from docs.drawing.canvas import WIDE, as_data, bare, outline, percent, squares, wide, write
from docs.drawing.study import Numbers, draw_slides, study
from matplotlib.patches import PathPatch
from numpy.typing import NDArray
from PIL import Image

from clearmargin.data.phantom import draw_slide
from clearmargin.report.patients import patient_table
from clearmargin.report.pictures import general_plots, patient_plots
from clearmargin.report.run_files import RunFiles, read_run
from clearmargin.report.svg import ACCENT, INK, MUTED, NEUTRAL, Picture, legend_above, render

HERE = Path(__file__).resolve().parents[1] / "pictures"
_LARGER = 1.1
"""Figures of the report are shown so much larger than they are drawn."""
_RED, _GREY = (165, 25, 95), (111, 127, 143)
_DASHED = (0, (3, 3))
_NAMES = {"random": "random split", "patient": "split by patient"}


def leakage(numbers: Numbers) -> Picture:
    """Who is tested under either split, and the AUROC that two models get there."""
    with wide(320) as figure:
        grids, dots = figure.subfigures(1, 2, width_ratios=(1.15, 1))
        for axes, name in zip(grids.subplots(1, 2), _NAMES, strict=True):
            grid = np.array(numbers["grid"][name])
            width = len(numbers["grid"]["random"][0])
            grid = grid if grid.ndim == 2 else np.repeat(grid[:, None], width, axis=1)
            for value, colour in ((0, NEUTRAL), (1, ACCENT)):
                cells = [(column, row) for row, column in np.argwhere(grid == value).tolist()]
                squares(axes, cells, color=colour, alpha=0.35 + 0.65 * value)
            bare(axes, width, len(grid))
            axes.set_title(_NAMES[name], color=INK)
            axes.set_xlabel("patches of each patient")
            axes.set_ylabel("patients" if name == "random" else "")
        grids.suptitle("tested (red) and trained on (grey)", x=0.02, ha="left", fontsize=12, color=MUTED)
        axes = dots.subplots()
        for place, model in enumerate(("nearest neighbours", "logistic regression")):
            for shift, name, colour in ((-0.16, "random", NEUTRAL), (0.16, "patient", INK)):
                spread = numbers[model][name]
                axes.hlines(place + shift, *spread["ci"], color=colour, linewidth=5, alpha=0.35)
                label = _NAMES[name] if place == 0 else None
                axes.plot(spread["value"], place + shift, "o", color=colour, markersize=7, label=label)
                axes.text(spread["ci"][1] + 0.004, place + shift, f"{spread['value']:.3f}", va="center")
        axes.set_yticks([0, 1], ["nearest\nneighbours", "logistic\nregression"])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(1.6, -0.6)
        axes.set_xlim(0.8, 1)
        axes.set_xlabel("AUROC, with 95 % interval over patients")
        legend_above(axes, columns=2)
        title = "Two splits of the same patches, and the AUROC that two models get under each"
        return render(figure, "leakage", title=title)


def operating_point(numbers: Numbers) -> Picture:
    """Probabilities of both classes, and what is said of them."""
    low, high = numbers["cannot_tell"]
    threshold, edges = numbers["threshold"], np.array(numbers["edges"])
    with wide(320) as figure:
        axes = figure.subplots()
        top = 1.12 * max(map(max, numbers["shares"].values()))
        for name, colour, side in (("malignant", ACCENT, 1), ("benign", NEUTRAL, -1)):
            shares = side * np.array(numbers["shares"][name])
            axes.bar(edges[:-1], shares, width=np.diff(edges) * 0.9, align="edge", color=colour, alpha=0.85)
        axes.axvspan(low, high, color=INK, alpha=0.1, linewidth=0)
        axes.axhline(0, color=MUTED, linewidth=0.75)
        axes.axvline(threshold, color=INK, linewidth=1.5)
        axes.axvline(0.5, color=INK, linewidth=1, linestyle=_DASHED)
        axes.text(threshold - 0.008, 0.8 * top, f"threshold {threshold:.2f}", ha="right", va="top")
        axes.text(0.508, 0.8 * top, "0.5, chosen by nobody", ha="left", va="top")
        for place, words in ((low / 2, "called\nbenign"), ((low + high) / 2, "cannot tell")):
            axes.text(place, 1.04 * top, words, ha="center", va="bottom", color=INK)
        axes.text(1.0, 1.04 * top, "called\nmalignant", ha="right", va="bottom", color=INK)
        axes.text(0.7, -0.6 * top, "benign patches ↓", color=MUTED)
        axes.text(0.7, 0.5 * top, "malignant patches ↑", color=MUTED)
        axes.set_ylim(-top, top)
        axes.set_xlim(0, 1)
        percent(axes, absolute=True)
        axes.set_ylabel("share of each class")
        axes.set_xlabel("probability of malignant")
        title = "Probabilities of benign and malignant patches, the threshold, and the range that is not decided"
        return render(figure, "operating-point", title=title)


def prevalence(numbers: Numbers) -> Picture:
    """PPV and NPV of one operating point by the share of malignant images."""
    with wide(280) as figure:
        axes = figure.subplots()
        axes.plot(numbers["prevalences"], numbers["npv"], color=NEUTRAL, label="NPV: of those called benign, benign")
        ppv = "PPV: of those called malignant, malignant"
        axes.plot(numbers["prevalences"], numbers["ppv"], color=ACCENT, label=ppv)
        places = ((0.01, "where 1 % are malignant", -5), (numbers["prevalence"], "on these test patches", -24))
        for place, words, up in places:
            value = float(np.interp(place, numbers["prevalences"], numbers["ppv"]))
            axes.plot(place, value, "o", color=ACCENT, markersize=7, clip_on=False)
            axes.annotate(f"PPV {value:.2f} {words}", (place, value), textcoords="offset points", xytext=(12, up))
        axes.set_xlim(0, 0.5)
        axes.set_ylim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.set_xlabel("share of malignant images")
        legend_above(axes, columns=2)
        return render(figure, "prevalence", title="PPV and NPV of the same operating point by prevalence")


def calibration(numbers: Numbers) -> Picture:
    """Reliability before and after."""
    with wide(370) as figure:
        for axes, part in zip(figure.subplots(1, 2), ("before", "after"), strict=True):
            bins = [each for each in numbers[part]["bins"] if each["n"]]
            most = max(each["n"] for each in bins)
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=_DASHED)
            for each in bins:
                if each["ci"]:
                    axes.vlines(each["mean_probability"], *each["ci"], color=ACCENT, linewidth=1.5, alpha=0.6)
            places, seen = ([each[name] for each in bins] for name in ("mean_probability", "observed"))
            axes.scatter(places, seen, s=[12 + 150 * each["n"] / most for each in bins], color=ACCENT, clip_on=False)
            brier, error = numbers[part]["brier"], numbers[part]["ece"]
            axes.set_title(f"{part}: Brier {brier:.3f}, ECE {error:.3f}", color=INK)
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
            axes.set_box_aspect(1)
            axes.set_xlabel("probability of malignant that is said")
            axes.set_ylabel("share that is malignant" if part == "before" else "")
        return render(figure, "calibration", title="Reliability of naive Bayes before and after calibration")


def abstention(numbers: Numbers) -> Picture:
    """The error of the surest, and the share covered of each patient."""
    curve, figures = numbers["curve"], numbers["figures"]
    with wide(300) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
        low, high = np.array(curve["ci"]).T
        left.fill_between(curve["decided"], low, high, color=ACCENT, alpha=0.18, linewidth=0)
        left.plot(curve["decided"], curve["error"], color=ACCENT)
        decided, wrong = 1 - figures["deferred"]["value"], figures["error_decided"]["value"]
        for x, y, words, side in (
            (1, figures["error_all"]["value"], "all decided", -1),
            (decided, wrong, "as it decides", -1),
        ):
            left.plot(x, y, "o", color=INK, markersize=7, clip_on=False)
            left.annotate(
                f"{words}: {y:.1%} wrong".replace("%", " %"),
                (x, y),
                textcoords="offset points",
                xytext=(8 * side, 8),
                ha="right",
                va="bottom",
            )
        left.set_xlim(0, 1)
        left.set_ylim(0, 1.05 * float(high.max()))
        percent(left)
        left.set_xlabel("share of patches decided, the surest first")
        left.set_ylabel("wrong among the decided")
        shares = sorted(numbers["covered_by_patient"])
        right.plot(shares, range(len(shares)), "o", color=ACCENT, markersize=7, clip_on=False)
        right.axvline(numbers["promised"], color=INK, linewidth=1, linestyle=_DASHED)
        right.axvline(figures["covered"]["value"], color=ACCENT, linewidth=1.5)
        right.set_title("dashed: promised; line: mean of patients")
        right.set_xlim(0.7, 1)
        right.set_ylim(-0.5, len(shares) - 0.5)
        right.set_yticks([])
        right.set_ylabel("test patients")
        right.set_xlabel("right or withheld")
        right.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        title = "Error among the patches that are decided, and the share of each patient that is right or withheld"
        return render(figure, "abstention", title=title)


def context(numbers: Numbers) -> Picture:
    """A slide, the truth, and the probabilities of its patches by themselves and among their neighbours."""
    cells = list(zip(numbers["columns"], numbers["rows"], strict=True))
    truth = [cell for cell, label in zip(cells, numbers["labels"], strict=True) if label]
    wrong, height = numbers["wrong"], 205
    maps = {
        "truth": numbers["labels"],
        f"alone: {wrong['alone']} of {len(cells)} wrong": numbers["probability_alone"],
        f"in context: {wrong['context']} wrong": numbers["probability_context"],
    }
    photograph = draw_slide(int(numbers["slide"].removeprefix("P")) - 1).image
    images = [_jpeg(photograph), *(_map_png(numbers, values) for values in maps.values())]
    with wide(height) as figure:
        figure.set_layout_engine("none")  # so that it is known where the images belong
        every = [figure.add_axes((0.005 + 0.25 * place, 0.02, 0.24, 0.86)) for place in range(4)]
        for axes, title in zip(every, ("slide", *maps), strict=True):
            bare(axes, *numbers["size"])
            axes.set_aspect("equal")
            axes.set_title(title, color=INK)
            if title not in ("slide", "truth"):
                axes.add_patch(PathPatch(outline(truth), fill=False, color=INK, linewidth=1.5))
        figure.draw_without_rendering()
        boxes = [axes.get_position() for axes in every]
        picture = render(figure, "context", title="A drawn slide, its lesion, and probabilities alone and in context")
    below = "".join(
        f'<image x="{box.x0 * WIDE:.2f}" y="{(1 - box.y1) * height:.2f}" width="{box.width * WIDE:.2f}" '
        f'height="{box.height * height:.2f}" preserveAspectRatio="none" style="image-rendering: {how}" href="{data}"/>'
        for box, data, how in zip(boxes, images, ("auto", *["pixelated"] * 3), strict=True)
    )
    return Picture(picture.svg.replace("</title>", f"</title>{below}", 1), figure, "context", {})


def _jpeg(image: NDArray[np.uint8]) -> str:
    small = Image.fromarray(image)
    small.thumbnail((240, 240), Image.Resampling.LANCZOS)
    return as_data(small, "JPEG", quality=60)


def _map_png(numbers: Numbers, probabilities: Sequence[float]) -> str:
    """A pixel for each patch: the more malignant, the fuller the colour."""
    width, height = map(math.ceil, numbers["size"])
    pixels = np.zeros((height, width, 4), dtype=np.uint8)
    for column, row, value in zip(numbers["columns"], numbers["rows"], probabilities, strict=True):
        mixed = value * np.array(_RED) + (1 - value) * np.array(_GREY)
        pixels[row, column] = (*np.rint(mixed).astype(int), round(70 + 185 * value))
    return as_data(Image.fromarray(pixels), "PNG")


PICTURES: dict[str, tuple[str, Callable[[Numbers], Picture]]] = {
    "leakage": ("leakage", leakage),
    "operating_point": ("operating_point", operating_point),
    "prevalence": ("operating_point", prevalence),
    "calibration": ("calibration", calibration),
    "abstention": ("abstention", abstention),
    "slide_context": ("context", context),
}
"""By the name of the file: which numbers, and the function that draws them."""
REPORT = (
    "reliability",
    "confusion",
    "roc",
    "histogram",
    "risk_coverage",
    "decision_curve",
    "patients",
    "patient_shares",
)
"""Figures of the report that its page shows."""


def draw(folder: Path, numbers: Numbers, demo_run: Numbers) -> None:
    """Writes every picture into the folder."""
    for name, (part, function) in PICTURES.items():
        write(folder / f"{name}.svg", function(numbers[part]))
    run = as_run(demo_run)
    plots = [*general_plots(run), *patient_plots(run, patient_table(run.rows, run.thresholds))]
    for plot in plots:
        if plot is not None and plot.picture is not None and plot.name in REPORT:
            write(folder / f"report_{plot.name}.svg", plot.picture, larger=_LARGER)


def keep_run(run: RunFiles) -> Numbers:
    """What the report's figures need of a run, its test part alone."""
    block = run.block
    rows = run.rows
    keys = ("image", "image_at_0.5", "calibration", "abstention", "risk_coverage", "decision_curve", "within_patients")
    return {
        "metrics": {
            "protocol": {name: run.metrics["protocol"][name] for name in ("split", "seed", "patients", "images")},
            "operating_point": run.metrics["operating_point"],
            "test": {name: block[name] for name in keys if name in block},
        },
        "rows": {
            "patient_id": rows["patient_id"].tolist(),
            "label": rows["label"].tolist(),
            "probability": [round(value, 4) for value in rows["probability"]],
            "decision": rows["decision"].tolist(),
        },
    }


def as_run(kept: Numbers) -> RunFiles:
    """The run that `keep_run` kept."""
    rows = pd.DataFrame(kept["rows"])
    rows = rows.assign(path=rows.index.map("{}.png".format), split="test", slide_id=None, x=None, y=None)
    empty: dict[str, Any] = {}
    return RunFiles("demo", HERE, kept["metrics"], rows, None, empty, None, None, None)


def main() -> None:
    """Draws all; `--run RUN` takes the report's figures from that run."""
    if sys.argv[1:2] == ["--run"]:
        kept = keep_run(read_run(Path(sys.argv[2])))
        (HERE / "demo_run.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")
    numbers = study(draw_slides())
    (HERE / "numbers.json").write_text(json.dumps(numbers) + "\n", encoding="utf-8")
    draw(HERE, numbers, json.loads((HERE / "demo_run.json").read_text(encoding="utf-8")))
