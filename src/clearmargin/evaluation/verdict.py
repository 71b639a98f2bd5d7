"""A comparison in sentences: what it shows, how sure that is, and what must be said beside it. Never "equal"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clearmargin.errors import counted
from clearmargin.evaluation.intervals import FEW_UNITS
from clearmargin.evaluation.pairing import Pairing

HEADLINE = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "brier")
"""The figures that a claim is made of; the others are shown without."""
SIGNIFICANCE = 0.05

_LOWER_IS_BETTER = ("brier", "ece")
_SPELT = {"auroc": "AUROC", "auprc": "AUPRC", "ppv": "PPV", "npv": "NPV", "f1": "F1"}
_SPELT |= {"brier": "Brier score", "ece": "ECE"}

Row = dict[str, Any]


def spell_figure(figure: str) -> str:
    """The figure's name as it is written in a sentence.

    >>> spell_figure("auroc"), spell_figure("balanced_accuracy")
    ('AUROC', 'balanced accuracy')
    """
    return _SPELT.get(figure, figure.replace("_", " "))


def sum_up(pairing: Pairing, rows: Sequence[Row], *, letters: tuple[str, str]) -> dict[str, Any]:
    """What was compared, what must be said beside it, and the verdict; each headline row gets its own sentence."""
    unit = (pairing.unit, f"{pairing.unit}s")
    claims = [row for row in rows if row["figure"] in HEADLINE]
    for row in claims:
        row["verdict"] = _sentence(row, letters, n_units=pairing.n_units, units=counted(pairing.n_units, *unit))
    return {
        "a": pairing.a.name,
        "b": pairing.b.name,
        "n_images": len(pairing.labels),
        "n_patients": None if pairing.patients is None else pairing.n_units,
        "matched_by": pairing.matched_by,
        "images": pairing.counts,
        "notes": _notes(pairing),
        "verdict": " ".join(f"{text[0].upper()}{text[1:]}." for text in [claims[0]["verdict"], *_others(claims[1:])]),
    }


def _sentence(row: Mapping[str, Any], letters: tuple[str, str], *, n_units: int, units: str) -> str:
    name = spell_figure(row["figure"])
    if math.isnan(row["difference"]):
        return f"{name} cannot be compared: {row['note']}"
    facts = f"{letters[0]} - {letters[1]} = {row['difference']:+.3f}, "
    if row["low"] is None:
        facts += f"no interval: {row['note']}"
    else:
        facts += f"95 % interval {row['low']:+.3f} to {row['high']:+.3f}"
    if _is_evidence(row):
        p = "< 0.001" if row["p_corrected"] < 0.001 else f"= {row['p_corrected']:.3f}"
        return f"evidence of a difference in {name}: {_better(row)} is better ({facts}, corrected p {p}; {units})"
    if row["low"] is not None and (row["low"] > 0 or row["high"] < 0):  # by itself it would be; not among so many
        facts += f", p {row['p_corrected']:.3f} once corrected for all that is compared"
    sentence = f"no evidence of a difference in {name} ({facts}; {units})"
    if n_units < FEW_UNITS and row["low"] is not None:
        missed = max(abs(row["low"]), abs(row["high"]))
        sentence += f"; with so few, a difference of up to {missed:.3f} could have been missed"
    return sentence


def _others(claims: Sequence[Row]) -> list[str]:
    """In which of these figures each model is better, and in which there is no evidence, one sentence each."""
    found: dict[str, list[str]] = {}
    for row in claims:
        found.setdefault(_better(row) if _is_evidence(row) else "", []).append(spell_figure(row["figure"]))
    silent = found.pop("", [])
    sentences = [
        f"evidence of a difference in {', '.join(names)}: {better} is better" for better, names in found.items()
    ]
    return sentences + ([f"no evidence of a difference in {', '.join(silent)}"] if silent else [])


def _better(row: Mapping[str, Any]) -> str:
    return str(row["a"] if (row["difference"] > 0) != (row["figure"] in _LOWER_IS_BETTER) else row["b"])


def _is_evidence(row: Mapping[str, Any]) -> bool:
    return bool(row["p_corrected"] < SIGNIFICANCE)


def _notes(pairing: Pairing) -> list[str]:
    notes = []
    if pairing.patients is None:
        notes.append(
            "patients are unknown, so each image was taken for a patient of its own: intervals are too narrow and "
            "p-values too small where a patient has several; McNemar's test and DeLong's were not used"
        )
    elif not pairing.one_image_each:
        notes.append(
            "patients have several images, so whole patients are what varies; McNemar's exact test and DeLong's do not "
            "hold here, and McNemar's p is that of the version for clusters"
        )
    if pairing.n_units < FEW_UNITS:
        notes.append(f"only {counted(pairing.n_units, pairing.unit, f'{pairing.unit}s')}: intervals are rough")
    undecided = [model.name for model in (pairing.a, pairing.b) if model.threshold is None]
    if undecided:
        notes.append(
            f"{' and '.join(undecided)}: no decisions that one threshold gives, so figures at the threshold are left "
            "out; give the threshold"
        )
    crossed = [model.name for model in (pairing.a, pairing.b) if model.cross_validated]
    if crossed:
        notes.append(
            f"{' and '.join(crossed)}: cross-validated; the figures at the threshold are those at the bundle's, which "
            "was chosen on these very images and so flatters; the run itself decided each fold by the others"
        )
    silent = [
        model.name
        for model in (pairing.a, pairing.b)
        if (model.table["split"] == "test").all() and not model.cross_validated
    ]
    if silent:
        does = "do" if len(silent) > 1 else "does"
        who = " and ".join(silent)
        notes.append(f"{who} {does} not say which images were trained on: make sure that none is of a patient here")
    if np.array_equal(pairing.probabilities[0], pairing.probabilities[1]):
        notes.append("both have the same probability for every image")
    return notes
