"""How the two classes are spread over images, patients, sites and the parts of the official split.

`find_small_classes` is what stops a run; `find_imbalance` is what a reader should know before believing an
accuracy. Chance is judged over patients, since images of one patient come together.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearmargin.data.manifest import Manifest
from clearmargin.errors import counted
from clearmargin.types import BENIGN, LABEL_NAMES, MALIGNANT, SPLITS, Certainty, Finding, Severity

_TINY_CLASS = 20
_LEAST_PATIENTS = 5
_FEW_MIXED = 0.1
_CHANCE = 0.01
_NOTED_GAP, _WARNED_GAP = 0.1, 0.25
_TRUSTED_PATIENTS = 20
_NAMED = 3


def find_small_classes(manifest: Manifest) -> list[Finding]:
    """`missing_class`, which blocks, and `tiny_class`, below 20 images, which warns."""
    labels = manifest.labels()
    findings = []
    for label, name in enumerate(LABEL_NAMES):
        count = int((labels == label).sum())
        if count == 0:
            text = f"there is no usable {name} image among {len(labels):,} images."
            findings.append(Finding("missing_class", "blocking", text, f"Add images of the class {name}.", (), 0))
        elif count < _TINY_CLASS:
            these = counted(count, "image is", "images are")
            text = f"only {these} {name}, of {len(labels):,}; figures will be very uncertain."
            findings.append(Finding("tiny_class", "warning", text, f"Add images of the class {name}.", (), count))
    return findings


def find_imbalance(manifest: Manifest) -> list[Finding]:
    """`class_balance`, always, and what is odd: sites, parts of the official split or patients unlike the others.

    The others are `site_without_class`, `split_without_class`, `split_class_shares` and `patient_in_two_classes`.
    """
    if len(manifest) == 0:
        return []
    return [
        _describe_balance(manifest),
        *_find_sites_without_class(manifest),
        *_find_uneven_splits(manifest),
        *_find_patients_in_two_classes(manifest),
    ]


def _describe_balance(manifest: Manifest) -> Finding:
    labels = manifest.labels()
    counts = [int((labels == label).sum()) for label in (BENIGN, MALIGNANT)]
    larger = int(np.argmax(counts))
    shares = [_percent(count, len(labels)) for count in counts]
    text = f"{counts[0]:,} images are benign ({shares[0]}) and {counts[1]:,} malignant ({shares[1]})."
    if manifest.knows_patients:
        classes = manifest.frame.groupby("patient_id")["label"].agg(["min", "max"])
        pure = [int(((classes["min"] == label) & (classes["max"] == label)).sum()) for label in (BENIGN, MALIGNANT)]
        mixed = len(classes) - sum(pure)
        text += (
            f" Of {counted(len(classes), 'patient', 'patients')}, {pure[0]:,} have benign images only, "
            f"{pure[1]:,} malignant only and {mixed:,} both."
        )
    if min(counts):
        text += (
            f" Always saying {LABEL_NAMES[larger]} has an accuracy of {counts[larger] / len(labels):.2f} "
            "and a balanced accuracy of 0.50."
        )
    fix = "Judge a model by balanced accuracy and AUROC; compare its accuracy with this one."
    return Finding("class_balance", "note", text, fix, (), len(labels))


def _find_sites_without_class(manifest: Manifest) -> list[Finding]:
    """Sites with one class, where that is more than the chance of few patients."""
    frame = manifest.frame
    classes = frame.groupby(_units(frame))["label"].agg(["min", "max"])
    findings = []
    for site, rows in frame.groupby("site"):
        labels, n_units = rows["label"].unique(), len(np.unique(_units(rows)))
        if len(labels) == len(LABEL_NAMES) or n_units < _LEAST_PATIENTS:
            continue
        share = float(((classes["min"] == labels[0]) & (classes["max"] == labels[0])).mean())
        if share**n_units >= _CHANCE:  # as many patients drawn from all would often be of this class, too
            continue
        absent = LABEL_NAMES[1 - int(labels[0])]
        text = (
            f"site '{site!s}' has no {absent} image among {len(rows):,} ({_count_units(rows)}); "
            "a model that recognises the site knows the class."
        )
        fix = f"Add {absent} images of this site or leave it out, and test on a site that has both classes."
        paths = tuple(rows["path"])
        findings.append(Finding("site_without_class", "warning", text, fix, paths, len(rows), certainty="likely"))
    return findings


def _find_uneven_splits(manifest: Manifest) -> list[Finding]:
    placed = manifest.frame.loc[manifest.frame["official_split"].notna()]
    present: list[str] = [name for name in SPLITS if (placed["official_split"] == name).any()]
    if len(present) < 2 or placed["label"].nunique() < 2:
        return []
    findings: list[Finding] = []
    widest = (0.0, "")
    for name in present:
        inside = (placed["official_split"] == name).to_numpy()
        labels = placed["label"].to_numpy()[inside]
        if len(np.unique(labels)) == 2:
            gap = _gap_beyond_chance(placed, inside)
            widest = max(widest, (gap, name))
            continue
        absent = LABEL_NAMES[1 - int(labels[0])]
        text = f"the {name} part of the official split has no {absent} image among {len(labels):,}."
        fix = 'Make your own split with "clearmargin split DATA --by patient --out split.csv".'
        paths = tuple(placed["path"].to_numpy()[inside])
        findings.append(Finding("split_without_class", "warning", text, fix, paths, len(labels)))
    gap, name = widest
    if gap > _NOTED_GAP:
        findings.append(_describe_shares(placed, present, gap, name))
    return findings


def _describe_shares(placed: pd.DataFrame, present: list[str], gap: float, name: str) -> Finding:
    severity: Severity = "warning" if gap > _WARNED_GAP else "note"
    parts = placed.groupby("official_split")["label"]
    shares = ", ".join(f"{part!s} {_percent(int(rows.sum()), len(rows))}" for part, rows in parts if part in present)
    n_units = [len(np.unique(_units(rows))) for _, rows in placed.groupby(placed["official_split"] == name)]
    certainty: Certainty = "likely" if min(n_units) >= _TRUSTED_PATIENTS else "possible"
    text = (
        f"the parts of the official split have different shares of malignant images ({shares}); "
        f"the {name} part differs from the rest by more than chance over {_count_units(placed)}."
    )
    fix = (
        "Compare parts by AUROC and balanced accuracy, which do not depend on the share; "
        "accuracy, PPV and NPV of one part do not hold for another."
    )
    return Finding("split_class_shares", severity, text, fix, (), len(placed), certainty=certainty)


def _gap_beyond_chance(placed: pd.DataFrame, inside: NDArray[np.bool_]) -> float:
    """How far the malignant share inside is from that outside, in [0, 1]; 0 where patients alone can explain it."""
    from scipy import stats  # noqa: PLC0415  (a second to import)

    shares, variances, least = [], [], len(placed)
    for rows in (placed.loc[inside], placed.loc[~inside]):
        labels = rows["label"].to_numpy(dtype=np.float64)
        share = float(labels.mean())
        units = np.unique(_units(rows), return_inverse=True)[1]
        n_units = int(units.max()) + 1
        if n_units < 2:
            return 0.0
        # A ratio of sums over patients, linearised: Cochran, Sampling Techniques (1977), section 6.3.
        residuals = np.bincount(units, weights=labels - share)
        shares.append(share)
        variances.append(float((residuals**2).sum()) / len(rows) ** 2 * n_units / (n_units - 1))
        least = min(least, n_units)
    gap = abs(shares[0] - shares[1])
    reach = float(stats.t.ppf(1 - _CHANCE / 2, least - 1)) * float(np.sqrt(sum(variances)))
    return gap if gap > reach else 0.0


def _find_patients_in_two_classes(manifest: Manifest) -> list[Finding]:
    """Where nearly every patient has one class, the few who have both may be mistakes; two breasts may differ."""
    frame = manifest.frame.loc[manifest.frame["patient_id"].notna()]
    patients = frame.groupby("patient_id")["label"].agg(["size", "nunique"])
    told = patients.loc[patients["size"] > 1, "nunique"]  # one image cannot contradict itself
    both = told.index[told > 1]
    if len(told) < _LEAST_PATIENTS or len(both) >= _FEW_MIXED * len(told):
        return []
    breasts = frame.groupby(["patient_id", "side"], dropna=False)["label"].nunique()
    mixed = both.intersection(breasts.index[breasts > 1].get_level_values("patient_id")).sort_values()
    if mixed.empty:
        return []
    rows = frame.loc[frame["patient_id"].isin(mixed)]
    names = ", ".join(f"'{name}'" for name in mixed[:_NAMED])
    names += f" and {len(mixed) - _NAMED:,} more" if len(mixed) > _NAMED else ""
    first = rows.loc[rows["patient_id"] == mixed[0], "label"]
    text = (
        f"{counted(len(mixed), 'patient has', 'patients have')} benign and malignant images, where "
        f"{len(told) - len(both):,} of {len(told):,} have one class: {names}. "
        f"Patient '{mixed[0]}' has {int((first == BENIGN).sum()):,} benign and {int((first == MALIGNANT).sum()):,} "
        "malignant. Either is possible: two lesions, or a wrong label or patient."
    )
    fix = "Check their labels and patient ids; leave them out with --exclude FILE if in doubt."
    return [
        Finding("patient_in_two_classes", "warning", text, fix, tuple(rows["path"]), len(mixed), certainty="possible")
    ]


def _units(frame: pd.DataFrame) -> NDArray[np.intp]:
    """(N,) the number of each image's patient; an image without one has a number of its own."""
    units = pd.factorize(frame["patient_id"])[0].astype(np.intp)
    unknown = units < 0
    units[unknown] = len(units) + np.arange(int(unknown.sum()))
    return units


def _count_units(frame: pd.DataFrame) -> str:
    if frame["patient_id"].notna().all():
        return counted(int(frame["patient_id"].nunique()), "patient", "patients")
    return f"{counted(len(frame), 'image', 'images')}, patients not known"


def _percent(part: int, whole: int) -> str:
    """The share in per cent, 0 and 100 only where that is exact.

    >>> _percent(0, 3), _percent(1, 3), _percent(1, 3000), _percent(2999, 3000)
    ('0 %', '33 %', '0.03 %', '99.97 %')
    """
    for digits in range(6):
        text = f"{100 * part / whole:.{digits}f} %"
        if part in (0, whole) or float(text[:-2]) not in (0.0, 100.0):
            return text
    return text
