"""How much a random split flatters: the same recipe cross-validated on folds of images and on folds of patients.

Under the first, other images of a tested patient were trained on; under the second, none. Both predict every image,
so that the same patients are drawn for both. Training and dealing out the folds is elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.errors import DataError, counted
from clearmargin.evaluation.bootstrap import draw_units
from clearmargin.evaluation.figures import as_figure
from clearmargin.evaluation.intervals import difference_interval, figure_interval, p_value
from clearmargin.evaluation.metrics import FIGURES, Floats, Labels
from clearmargin.evaluation.units import degrees_of_freedom, units_behind
from clearmargin.evaluation.verdict import SIGNIFICANCE
from clearmargin.evaluation.weighted import weighted_figures
from clearmargin.types import LABEL_NAMES, MALIGNANT

Integers = NDArray[np.int64]
Values = dict[str, Any]

COLUMNS = ("path", "patient_id", "label", "probability", "decision", "repeat", "fold")
PROTOCOLS = ("random", "patient")
HEADLINE = "auroc"

_ONE_REPEAT = "one repeat: the luck of dealing out folds and of training is not in the intervals"
_NOTHING_CALLED = 2.0  # above every probability
_DRAWN_ELEMENTS = 2**22
_REPEATS_STREAM = 1  # patients are drawn from stream 0


def optimism(random: pd.DataFrame, patient: pd.DataFrame, *, resamples: int, seed: int) -> Values:
    """The figures under both protocols, each gap random - patient with its interval and p, and a sentence.

    A figure is computed within each fold, since models of different folds have scales of their own, and averaged over
    folds by their images, then over repeats. Intervals are over patients: each is drawn, or left out, under both
    protocols and in all folds at once; with several repeats these are drawn too. A fold where a figure is undefined
    is left out of its average. The gap is that of these patients and these folds.

    Keys: `n_images`, `n_patients`, `folds`, `repeats`; `random`, `patient` and `gap`, each a figure by its name, with
    `p` in the gaps; `note`; `text`.

    Args:
        random: out-of-fold predictions under folds of images, one row an image and repeat, with COLUMNS.
        patient: the same under folds of patients.
        resamples: bootstrap resamples, 1 or more.
        seed: 0 or more.

    Raises:
        DataError: a column or a patient is missing; the two do not hold the same images; an image is twice in a
            repeat; a patient is in two folds of a repeat of `patient`; the decisions of a fold follow no threshold.
    """
    tables = {"random": _checked(random, "random"), "patient": _checked(patient, "patient")}
    _check_same_images(tables["random"], tables["patient"])
    _check_patients_whole(tables["patient"])
    base = tables["patient"].drop_duplicates("path").sort_values("path", ignore_index=True)
    units, names = pd.factorize(base["patient_id"], sort=True)
    labels = base["label"].to_numpy(dtype=np.int64)
    protocols = {name: _folds(table, names) for name, table in tables.items()}
    counts, repeats = _draw(len(names), protocols, resamples=resamples, seed=seed)
    ones = np.ones((1, len(names)), dtype=np.int64)
    values = {name: _averages(folds, ones, None) for name, folds in protocols.items()}
    drawn = {name: _averages(folds, counts, repeats[name]) for name, folds in protocols.items()}
    called = tables["patient"]["decision"].to_numpy() == LABEL_NAMES[MALIGNANT]
    result: Values = {
        "n_images": len(base),
        "n_patients": len(names),
        "folds": {name: int(table.groupby("repeat")["fold"].nunique().max()) for name, table in tables.items()},
        "repeats": {name: int(table["repeat"].nunique()) for name, table in tables.items()},
        "random": {},
        "patient": {},
        "gap": {},
    }
    for figure in FIGURES:
        if figure in ("ppv", "npv"):
            ids = pd.factorize(tables["patient"]["patient_id"], sort=True)[0].astype(np.int64)
            behind = _behind(figure, tables["patient"]["label"].to_numpy(), ids, called=called)
        else:
            behind = _behind(figure, labels, units.astype(np.int64), called=None)
        for name in PROTOCOLS:
            result[name][figure] = _figure(float(values[name][figure][0]), drawn[name][figure], behind)
        result["gap"][figure] = _gap(
            float(values["random"][figure][0] - values["patient"][figure][0]),
            drawn["random"][figure] - drawn["patient"][figure],
            behind,
        )
    once = min(result["repeats"].values()) == 1
    return result | {"note": _ONE_REPEAT if once else None, "text": _text(result)}


@dataclass(frozen=True, slots=True)
class _Behind:
    """What `units.py` counts behind a figure."""

    n_units: int
    degrees: float


@dataclass(frozen=True, slots=True)
class _Fold:
    """One fold of one repeat: its images, and the patients of all that it has, in order."""

    repeat: int
    labels: Integers
    probabilities: Floats
    units: Integers
    threshold: float


def _checked(table: pd.DataFrame, protocol: str) -> pd.DataFrame:
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise DataError(
            f"the predictions of the {protocol} folds lack {', '.join(missing)}: give {', '.join(COLUMNS)}."
        )
    if len(table) == 0:
        raise DataError(f"the predictions of the {protocol} folds have no row: predict every image out of fold.")
    unknown = table["patient_id"].isna() | (table["patient_id"] == "")
    if unknown.any():
        raise DataError(
            f"{int(unknown.sum()):,} of {len(table):,} predictions have no patient_id, the first is "
            f"'{table['path'][unknown].iloc[0]}': optimism is about patients, and each image needs its own."
        )
    again = table.duplicated(["repeat", "path"])
    if again.any():
        raise DataError(
            f"'{table['path'][again].iloc[0]}' is predicted twice in a repeat of the {protocol} folds: keep the "
            "prediction of the fold that left it out."
        )
    return table


def _check_same_images(random: pd.DataFrame, patient: pd.DataFrame) -> None:
    facts = ["path", "patient_id", "label"]
    for table, name in ((random, "random"), (patient, "patient")):
        per_path = table.groupby("path")["repeat"].nunique()
        if not (per_path == table["repeat"].nunique()).all():
            path = per_path.index[per_path < table["repeat"].nunique()][0]
            raise DataError(f"'{path}' is missing in a repeat of the {name} folds: predict every image in each.")
    both = [table[facts].drop_duplicates() for table in (random, patient)]
    whole = both[0].merge(both[1], on=facts, how="outer", indicator=True)
    odd = whole[(whole["_merge"] != "both") | whole["path"].duplicated(keep=False)]
    if len(odd):
        raise DataError(
            f"the two protocols do not hold the same images, patients and labels, the first that differs is "
            f"'{odd['path'].iloc[0]}': cross-validate both on one manifest."
        )


def _check_patients_whole(table: pd.DataFrame) -> None:
    folds = table.groupby(["repeat", "patient_id"])["fold"].nunique()
    if (folds > 1).any():
        repeat, patient = folds.index[folds > 1][0]
        raise DataError(
            f"patient '{patient}' is in {folds[folds > 1].iloc[0]} folds of repeat {repeat} of the patient folds: deal "
            "out whole patients."
        )


def _folds(table: pd.DataFrame, names: pd.Index) -> list[_Fold]:
    """The folds of all repeats, which are numbered from 0."""
    ordered = table.sort_values("path", ignore_index=True)
    ordered = ordered.assign(repeat=pd.factorize(ordered["repeat"], sort=True)[0])
    folds = []
    for _, rows in ordered.groupby(["repeat", "fold"], sort=True):
        fold = rows["fold"].iloc[0]
        probabilities = rows["probability"].to_numpy(dtype=np.float64)
        malignant = rows["decision"].to_numpy() == LABEL_NAMES[MALIGNANT]
        if not rows["decision"].isin(LABEL_NAMES).all():
            raise DataError(f"fold {fold} has a decision other than benign and malignant: decide without abstaining.")
        threshold = float(probabilities[malignant].min()) if malignant.any() else _NOTHING_CALLED
        if (probabilities[~malignant] >= threshold).any():
            raise DataError(
                f"the decisions of fold {fold} follow no threshold: a benign one has a higher probability than a "
                "malignant one. Decide each fold by one operating point."
            )
        folds.append(
            _Fold(
                repeat=int(rows["repeat"].iloc[0]),
                labels=rows["label"].to_numpy(dtype=np.int64),
                probabilities=probabilities,
                units=names.get_indexer(pd.Index(rows["patient_id"])).astype(np.int64),
                threshold=threshold,
            )
        )
    return folds


def _draw(
    n_units: int, protocols: Mapping[str, list[_Fold]], *, resamples: int, seed: int
) -> tuple[Integers, dict[str, Integers]]:
    """How often each patient was drawn (resamples, n_units), and each repeat of each protocol (resamples, repeats)."""

    def draw(n: int, stream: int) -> Integers:
        return np.stack(
            [
                np.bincount(draw_units(n, resample=number, seed=seed, stream=stream), minlength=n)
                for number in range(resamples)
            ]
        )

    repeats = {
        name: draw(1 + max(fold.repeat for fold in folds), _REPEATS_STREAM + place)
        for place, (name, folds) in enumerate(protocols.items())
    }
    return draw(n_units, 0), repeats


def _averages(folds: list[_Fold], counts: Integers, repeats: Integers | None) -> dict[str, Floats]:
    """Each figure's mean over folds by images, then over repeats as often as drawn, (rows,)."""
    n_repeats = 1 + max(fold.repeat for fold in folds)
    sums = {figure: np.zeros((n_repeats, len(counts))) for figure in FIGURES}
    weights = {figure: np.zeros((n_repeats, len(counts))) for figure in FIGURES}
    for fold in folds:
        inside, images_each = np.unique(fold.units, return_counts=True)
        of_fold = counts[:, inside]
        figures = weighted_figures(
            fold.labels, fold.probabilities, fold.units, of_fold, threshold=fold.threshold, figures=FIGURES
        )
        n_images = of_fold @ images_each
        for figure, values in figures.items():
            defined = np.isfinite(values)
            sums[figure][fold.repeat] += np.where(defined, values * n_images, 0)
            weights[figure][fold.repeat] += np.where(defined, n_images, 0)
    often = np.ones((len(counts), n_repeats)) if repeats is None else repeats
    result = {}
    for figure in FIGURES:
        defined = weights[figure] > 0
        means = np.divide(sums[figure], weights[figure], out=np.zeros_like(sums[figure]), where=defined)
        whole = (often.T * defined).sum(axis=0)
        result[figure] = np.divide(
            (often.T * means).sum(axis=0), whole, out=np.full(len(counts), np.nan), where=whole > 0
        )
    return result


def _behind(figure: str, labels: Labels, units: Integers, *, called: NDArray[np.bool_] | None) -> _Behind:
    return _Behind(
        units_behind(figure, labels, units, called=called), degrees_of_freedom(figure, labels, units, called=called)
    )


def _figure(value: float, drawn: Floats, behind: _Behind) -> Values:
    if math.isnan(value):
        return {"value": None, "ci": None, "reason": "undefined in every fold"}
    return as_figure(value, figure_interval(value, drawn, n_units=behind.n_units, degrees=behind.degrees))


def _gap(value: float, drawn: Floats, behind: _Behind) -> Values:
    if math.isnan(value):
        return {"value": None, "ci": None, "reason": "undefined in every fold", "p": None}
    p = p_value(value, drawn, n_units=behind.n_units, degrees=behind.degrees)
    figure = as_figure(value, difference_interval(value, drawn, n_units=behind.n_units, degrees=behind.degrees))
    return figure | {"p": p if math.isfinite(p) else None}


def _text(result: Values) -> str:
    random, patient, gap = (result[name][HEADLINE] for name in (*PROTOCOLS, "gap"))
    if gap["value"] is None:
        return "The AUROC is undefined in every fold: each needs both classes."
    told = f"a random split would have told you AUROC {_shown(random)}; new patients get {_shown(patient)}"
    of = counted(result["n_patients"], "patient", "patients")
    if gap["ci"] is None:
        sentence = f"{told}. Whether that is chance cannot be said: {gap['reason']}."
    elif gap["p"] is not None and gap["p"] < SIGNIFICANCE and gap["value"] > 0:
        sentence = f"{told}: {gap['value']:.2f} too much ({gap['ci'][0]:.2f} to {gap['ci'][1]:.2f})."
    elif gap["p"] is not None and gap["p"] < SIGNIFICANCE:
        sentence = f"{told}: {-gap['value']:.2f} too little ({-gap['ci'][1]:.2f} to {-gap['ci'][0]:.2f})."
    else:
        low, high = gap["ci"]
        sentence = (
            f"no evidence of a gap in AUROC on {of}: {told}; the difference of {gap['value']:+.2f} may be "
            f"anything from {low:+.2f} to {high:+.2f}."
        )
    return sentence[0].upper() + sentence[1:]


def _shown(figure: Values) -> str:
    if figure["ci"] is None:
        return f"{figure['value']:.2f}"
    return f"{figure['value']:.2f} ({figure['ci'][0]:.2f} to {figure['ci'][1]:.2f})"
