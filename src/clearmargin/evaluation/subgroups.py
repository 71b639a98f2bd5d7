"""Figures of the groups of images that a column of the manifest makes: sites, views, magnifications, sizes.

Groups stand in the order of their names, never ranked: the lowest of many small groups is low by chance. That a
figure differs between groups is said only where a test over patients, corrected for all comparisons, shows it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.errors import DataError, UnknownName
from clearmargin.evaluation.bootstrap import MOST_JACKKNIFED, draw_units, jackknife_figures
from clearmargin.evaluation.figures import Cases, Resampling, Values, describe_figures
from clearmargin.evaluation.intervals import p_value
from clearmargin.evaluation.metrics import THRESHOLD_FIGURES, Floats
from clearmargin.evaluation.significance import holm
from clearmargin.evaluation.verdict import SIGNIFICANCE, spell_figure
from clearmargin.evaluation.weighted import number_units, weighted_figures
from clearmargin.types import MALIGNANT

RANKING, AT_THRESHOLD = ("auroc",), ("sensitivity", "specificity")
FIGURES = (*RANKING, *AT_THRESHOLD)
AUTO_COLUMNS = ("site", "source", "magnification", "view", "side", "size")
"""Looked at unless the user names others; `size` is not a column of the manifest, but made of width and height."""
MOST_GROUPS = 20
"""With more groups than this, a column is not looked at unasked, and its groups are not compared in pairs."""
UNKNOWN = "unknown"

_DRAWN_ELEMENTS = 2**22


def subgroup_figures(
    frame: pd.DataFrame,
    manifest: pd.DataFrame,
    *,
    threshold: float | pd.Series,
    columns: Literal["auto"] | Sequence[str] = "auto",
    resamples: int,
    seed: int,
) -> Values:
    """The value of `subgroups` in metrics.json: by column, the `groups` with their figures, and each `difference`.

    `auto` takes the columns of AUTO_COLUMNS with 2 to MOST_GROUPS values, two of which at least have both classes. A
    missing value is the group `unknown`. `difference` has for each figure the smallest p over all pairs of groups,
    corrected by Holm over all pairs and figures of the column, and a sentence. Patients with images in several groups
    count in each, and the tests know that: each patient is left out, or drawn, in all groups at once.

    Args:
        frame: the predictions of one split.
        manifest: the manifest's columns, one row an image, joined by `path`.
        threshold: at or above it an image is called malignant; or one for each row of the predictions.
        columns: `auto`, or names of columns of the manifest, or `size`: the side of a square of the image's area,
            in classes that double.
        resamples: bootstrap resamples, 1 or more.
        seed: 0 or more.

    Raises:
        DataError: an image of the predictions is not in the manifest, or twice.
        UnknownName: a column that is not there.

    Source: Holm, Scand. J. Stat. 6:65 (1979).
    """
    rows = frame.assign(called=frame["probability"] >= threshold).sort_values("path", ignore_index=True)
    described = _joined(rows, manifest)
    patients = rows["patient_id"]
    known = bool((patients.notna() & (patients != "")).all())
    units, n_units = number_units(patients.to_numpy(dtype=object) if known else None, len(rows))
    split = _Split(
        labels=rows["label"].to_numpy(dtype=np.int64),
        probabilities=rows["probability"].to_numpy(dtype=np.float64),
        units=units,
        n_units=n_units,
        unit="patient" if known else "image",
        called=rows["called"].to_numpy(dtype=bool),
        resampling=Resampling(resamples, seed),
    )
    if columns == "auto":
        chosen = {name: values for name in AUTO_COLUMNS if _is_worth(values := _values(described, name), split.labels)}
    else:
        chosen = {name: _values(described, name) for name in columns}
    return {name: _describe_column(name, values, split) for name, values in chosen.items()}


@dataclass(frozen=True, slots=True)
class _Split:
    labels: NDArray[np.int64]
    probabilities: Floats
    called: NDArray[np.bool_]
    units: NDArray[np.int64]
    n_units: int
    unit: str
    resampling: Resampling

    def cases(self, rows: NDArray[np.intp]) -> Cases:
        units, n_units = number_units(self.units[rows], len(rows))
        labels, probabilities, called = self.labels[rows], self.probabilities[rows], self.called[rows]
        return Cases("image", self.unit, labels, probabilities, called, units, n_units)

    def scores(self, figure: str) -> Floats:
        """What the figure is computed of, at one half: the calls, whatever made each; or the probabilities."""
        return self.called.astype(np.float64) if figure in THRESHOLD_FIGURES else self.probabilities


@dataclass(frozen=True, slots=True)
class _Comparison:
    figure: str
    groups: tuple[int, int]
    difference: float
    p: float


def _joined(rows: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """The manifest's row of each image, in the order of the rows."""
    table = manifest[manifest["path"].isin(rows["path"])]
    again = table["path"].duplicated()
    if again.any():
        raise DataError(f"'{table['path'][again].iloc[0]}' is twice in the manifest: keep one row an image.")
    missing = ~rows["path"].isin(table["path"])
    if missing.any():
        raise DataError(
            f"{int(missing.sum()):,} of {len(rows):,} images of the predictions are not in the manifest, the first is "
            f"'{rows['path'][missing].iloc[0]}': give the manifest of the same images, with the same paths."
        )
    return table.set_index("path").loc[rows["path"]].reset_index()


def _values(described: pd.DataFrame, column: str) -> NDArray[np.object_]:
    """The group of each image, as text."""
    if column == "size" and "size" not in described:
        sides = np.sqrt((described["width"].astype("Float64") * described["height"].astype("Float64")).to_numpy(float))
        return np.array([_size_class(side) for side in sides.tolist()], dtype=object)
    if column not in described:
        raise UnknownName("column of the manifest", column, [*described.columns, "size"])
    values = described[column]
    texts = values.astype("str").where(values.notna(), UNKNOWN).to_numpy(dtype=object)
    return np.where(texts == "", UNKNOWN, texts)


def _size_class(side: float) -> str:
    if math.isnan(side):
        return UNKNOWN
    low = 2 ** math.floor(math.log2(max(side, 1.0)))
    return f"{low} to {2 * low - 1} px"


def _is_worth(values: NDArray[np.object_], labels: NDArray[np.int64]) -> bool:
    by_value = pd.Series(labels).groupby(values)
    return 2 <= by_value.ngroups <= MOST_GROUPS and int((by_value.nunique() == 2).sum()) >= 2


def _describe_column(column: str, values: NDArray[np.object_], split: _Split) -> Values:
    names = sorted(pd.unique(values).tolist(), key=lambda name: (name == UNKNOWN, _natural(name)))
    places = [np.flatnonzero(values == name) for name in names]
    groups = []
    for name, rows in zip(names, places, strict=True):
        cases = split.cases(rows)
        figures = describe_figures(cases, split.resampling, names=FIGURES)
        group = {
            "value": name,
            "n_images": len(rows),
            "n_patients": cases.n_units if split.unit == "patient" else None,
            "n_malignant": int((cases.labels == MALIGNANT).sum()),
        }
        groups.append(group | {figure: figures[figure] for figure in FIGURES})
    comparisons = _compare(groups, places, split) if len(groups) <= MOST_GROUPS else []
    return {
        "groups": groups,
        "difference": {figure: _difference(figure, column, groups, comparisons) for figure in FIGURES},
        "note": _note(column, places, split, n_comparisons=len(comparisons)),
    }


def _natural(name: str) -> list[str | int]:
    """So that 100 comes after 40."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _compare(groups: Sequence[Values], places: Sequence[NDArray[np.intp]], split: _Split) -> list[_Comparison]:
    """Every pair of groups in every figure that can be tested, p corrected for their number."""
    drawn = _draw(places, split)
    left_out = [_leave_out(rows, split) if split.n_units <= MOST_JACKKNIFED else None for rows in places]
    cases = [split.cases(rows) for rows in places]
    tested = []
    for figure, (a, b) in itertools.product(FIGURES, itertools.combinations(range(len(groups)), 2)):
        values = groups[a][figure]["value"], groups[b][figure]["value"]
        if None in values:
            continue
        behind = cases[a].units_behind(figure), cases[b].units_behind(figure)
        without = left_out[a], left_out[b]
        p = p_value(
            values[0] - values[1],
            drawn[a][figure] - drawn[b][figure],
            n_units=min(behind),
            degrees=min(cases[a].degrees_of_freedom(figure), cases[b].degrees_of_freedom(figure)),
            jackknife=None if without[0] is None or without[1] is None else without[0][figure] - without[1][figure],
        )
        if math.isfinite(p):
            # A group of one mind shows no spread: how likely that is, were the other's figure its own, bounds p.
            agreed = max(_agreement_p(values[0], values[1], behind[0]), _agreement_p(values[1], values[0], behind[1]))
            tested.append(_Comparison(figure, (a, b), values[0] - values[1], max(p, agreed)))
    corrected = holm(np.array([entry.p for entry in tested]))
    return [
        _Comparison(entry.figure, entry.groups, entry.difference, float(p))
        for entry, p in zip(tested, corrected, strict=True)
    ]


def _agreement_p(value: float, other: float, n_units: int) -> float:
    if value not in (0.0, 1.0):
        return 0.0
    return float(min(1.0, 2 * (other if value == 1.0 else 1 - other) ** n_units))


def _draw(places: Sequence[NDArray[np.intp]], split: _Split) -> list[dict[str, Floats]]:
    """Each group's figures in each resample of all patients, the same draw for every group."""
    resamples, seed = split.resampling.resamples, split.resampling.seed
    step = max(1, _DRAWN_ELEMENTS // split.n_units)
    chunks: list[list[dict[str, Floats]]] = []
    for start in range(0, resamples, step):
        counts = np.stack(
            [
                np.bincount(draw_units(split.n_units, resample=number, seed=seed), minlength=split.n_units)
                for number in range(start, min(start + step, resamples))
            ]
        )
        chunks.append([_weighted(rows, counts, split) for rows in places])
    return [
        {figure: np.concatenate([chunk[group][figure] for chunk in chunks]) for figure in FIGURES}
        for group in range(len(places))
    ]


def _weighted(rows: NDArray[np.intp], counts: NDArray[np.int64], split: _Split) -> dict[str, Floats]:
    units, own = split.units[rows], counts[:, np.unique(split.units[rows])]
    found: dict[str, Floats] = {}
    for figures in (RANKING, AT_THRESHOLD):
        scores = split.scores(figures[0])[rows]
        found |= weighted_figures(split.labels[rows], scores, units, own, threshold=0.5, figures=figures)
    return found


def _leave_out(rows: NDArray[np.intp], split: _Split) -> dict[str, Floats]:
    """The group's figures without each patient of the split in turn; without one of another group they stay."""
    units = np.unique(split.units[rows])
    inside: dict[str, Floats] = {}
    for of_kind in (RANKING, AT_THRESHOLD):
        scores = split.scores(of_kind[0])[rows]
        inside |= jackknife_figures(split.labels[rows], scores, split.units[rows], threshold=0.5, figures=of_kind)
    whole = _weighted(rows, np.ones((1, split.n_units), dtype=np.int64), split)
    figures = {}
    for figure in FIGURES:
        figures[figure] = np.full(split.n_units, whole[figure][0])
        figures[figure][units] = inside[figure]
    return figures


def _difference(figure: str, column: str, groups: Sequence[Values], comparisons: Sequence[_Comparison]) -> Values:
    spelt = spell_figure(figure)
    own = [entry for entry in comparisons if entry.figure == figure]
    if len(groups) > MOST_GROUPS:
        return {"p": None, "text": f"{len(groups):,} groups are too many to compare the {spelt} in pairs."}
    if not own:
        return {
            "p": None,
            "text": f"The {spelt} cannot be compared between groups of {column}: no two have patients enough.",
        }
    smallest = min(entry.p for entry in own)
    sure = [entry for entry in own if entry.p < SIGNIFICANCE]
    if not sure:
        text = f"No evidence that the {spelt} differs between groups of {column} (smallest corrected p {smallest:.2f})."
        return {"p": smallest, "text": text}
    widest = max(sure, key=lambda entry: abs(entry.difference))
    first, second = (f"'{groups[g]['value']}' ({groups[g][figure]['value']:.2f})" for g in widest.groups)
    others = f", the largest of {len(sure)} differences of which that is so" if len(sure) > 1 else ""
    shown = "p < 0.001" if widest.p < 0.001 else f"p = {widest.p:.3f}"
    return {
        "p": smallest,
        "text": f"The {spelt} differs between {first} and {second} of {column} (corrected {shown}){others}.",
    }


def _note(column: str, places: Sequence[NDArray[np.intp]], split: _Split, *, n_comparisons: int) -> str:
    parts = []
    if n_comparisons:
        parts.append(f"differences are tested over {split.unit}s and corrected (Holm) for {n_comparisons} comparisons")
    if split.unit == "image":
        parts.append("patients are unknown, so each image counted as a patient: differences are claimed too easily")
    groups_of = np.bincount(np.concatenate([np.unique(split.units[rows]) for rows in places]), minlength=split.n_units)
    if several := int((groups_of > 1).sum()):
        parts.append(f"{several:,} of {split.n_units:,} patients have images in several groups")
    if column == "size":
        parts.append("size is the side of a square of the image's area")
    return "; ".join(parts)
