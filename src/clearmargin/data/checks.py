"""What is wrong with images that can all be read: rows, labels, copies, sizes, classes, patients.

A check is a function from the manifest of the usable images, its sha256 and sizes known, to findings; a new
one is a function and a line in CHECKS. What the scan alone knows, unusable files and false names, is in
`audit.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pandas as pd

from clearmargin.data.manifest import Manifest
from clearmargin.data.names import parse_idc_name
from clearmargin.data.walk import label_of_folders
from clearmargin.errors import counted
from clearmargin.types import LABEL_NAMES, Finding, Severity

_TINY_CLASS = 20
_FEW_PATIENTS = 20

Check = Callable[[Manifest], list[Finding]]


def _find_repeated_rows(manifest: Manifest) -> list[Finding]:
    paths = manifest.frame["path"]
    repeated = paths[paths.duplicated()]
    if repeated.empty:
        return []
    return [
        Finding(
            "repeated_row",
            "blocking",
            f"{counted(len(repeated), 'row names', 'rows name')} a file that an earlier row has, "
            f"the first is '{repeated.iloc[0]}'.",
            "Keep one row for each file.",
            tuple(repeated),
            len(repeated),
        )
    ]


def _find_label_conflicts(manifest: Manifest) -> list[Finding]:
    if manifest.source == "csv":  # the label was written by hand, not taken from a name
        return []
    conflicts = []
    for name, path in zip(manifest.relative_paths(), manifest.frame["path"], strict=True):
        facts, folder = parse_idc_name(name.rpartition("/")[2]), label_of_folders(name)
        if facts is not None and folder is not None and facts[3] != folder:
            conflicts.append((name, path, LABEL_NAMES[folder], LABEL_NAMES[facts[3]]))
    if not conflicts:
        return []
    name, _, below, named = conflicts[0]
    return [
        Finding(
            "label_conflict",
            "blocking",
            f"{counted(len(conflicts), 'file says', 'files say')} one class in the name and the other in the folder: "
            f"'{name}' lies under {below} and is named {named}.",
            "Move or rename them, or leave them out with 'clearmargin audit DATA --fix-list FILE' and --exclude FILE.",
            tuple(path for _, path, *_ in conflicts),
            len(conflicts),
        )
    ]


def _find_duplicates(manifest: Manifest) -> list[Finding]:
    frame = manifest.frame.drop_duplicates(["path", "label"])  # rows that stand twice are told above
    copies = frame.loc[frame.duplicated("sha256", keep=False)]
    if copies.empty:
        return []
    groups = copies.groupby("sha256", sort=False)
    labels = groups["label"].transform("nunique")
    splits = groups["official_split"].transform("nunique")
    patients = groups["patient_id"].transform("nunique")
    across_labels, across_splits = copies.loc[labels > 1], copies.loc[(splits > 1) & (labels == 1)]
    across_patients = copies.loc[(patients > 1) & (labels == 1) & (splits <= 1)]
    same = copies.loc[(labels == 1) & (splits <= 1) & (patients <= 1)]
    wanted: list[tuple[pd.DataFrame, str, Severity, str, str]] = [
        (
            across_labels,
            "duplicate_across_labels",
            "blocking",
            "{n:,} files are identical to one of the other class",
            "Only one label can be right: leave them out, with 'clearmargin audit DATA --fix-list FILE' and "
            "--exclude FILE.",
        ),
        (
            across_splits,
            "duplicate_across_splits",
            "blocking",
            "{n:,} files lie, identical, in two parts of the official split",
            "Leave the copies out with 'clearmargin audit DATA --fix-list FILE' and --exclude FILE.",
        ),
        (
            across_patients,
            "duplicate_across_patients",
            "warning",
            "{n:,} files are identical to one of another patient; a split keeps those patients together",
            "Check the patient ids, or leave the copies out with --fix-list FILE and --exclude FILE.",
        ),
        (
            same,
            "duplicate",
            "warning",
            "{n:,} files are identical to another of the same class",
            "Leave the copies out with 'clearmargin audit DATA --fix-list FILE' and --exclude FILE.",
        ),
    ]
    return [
        Finding(kind, severity, f"{text.format(n=len(rows))}: {_example(rows)}.", fix, tuple(rows["path"]), len(rows))
        for rows, kind, severity, text, fix in wanted
        if not rows.empty
    ]


def _example(rows: pd.DataFrame) -> str:
    first = rows["path"][rows["sha256"] == rows["sha256"].iloc[0]].tolist()
    return " = ".join(f"'{path}'" for path in first[:2])


def _find_size_outliers(manifest: Manifest) -> list[Finding]:
    frame = manifest.frame
    if frame.empty:
        return []
    sizes = Counter(zip(frame["width"], frame["height"], strict=True))
    (width, height), most = sizes.most_common(1)[0]
    if most == len(frame):
        return []
    others = frame.loc[(frame["width"] != width) | (frame["height"] != height)]
    if most * 2 < len(frame):
        text = (
            f"images have {len(sizes):,} sizes, from {min(frame['width'])}×{min(frame['height'])} "
            f"to {max(frame['width'])}×{max(frame['height'])} pixels."
        )
        return [
            Finding(
                "mixed_sizes", "note", text, "Nothing to do: each is fitted by the preprocessing spec.", (), len(sizes)
            )
        ]
    odd_width, odd_height = others["width"].iloc[0], others["height"].iloc[0]
    return [
        Finding(
            "size_outlier",
            "warning",
            f"{counted(len(others), 'image is', 'images are')} not {width}×{height} like the others: "
            f"'{others['path'].iloc[0]}' is {odd_width}×{odd_height}. "
            "All are kept, and fitted by the preprocessing spec.",
            "Leave them out with --exclude FILE if they do not belong here.",
            tuple(others["path"]),
            len(others),
        )
    ]


def _find_class_imbalance(manifest: Manifest) -> list[Finding]:
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


def _find_patients_in_two_splits(manifest: Manifest) -> list[Finding]:
    frame = manifest.frame
    placed = frame.loc[frame["patient_id"].notna() & frame["official_split"].notna()]
    splits = placed.groupby("patient_id")["official_split"].nunique()
    crossing = splits.index[splits > 1]
    if crossing.empty:
        return []
    rows = placed.loc[placed["patient_id"].isin(crossing)]
    first = rows.loc[rows["patient_id"] == crossing[0]]
    names = " and ".join(f"'{name}'" for name in sorted(first["official_split"].unique()))
    return [
        Finding(
            "patient_in_two_splits",
            "blocking",
            f"{counted(len(crossing), 'patient is', 'patients are')} in two parts of the official split: "
            f"patient '{crossing[0]}' is in {names} ({len(first):,} images).",
            'Run "clearmargin split DATA --by patient --out split.csv" and train with --split split.csv.',
            tuple(rows["path"]),
            len(crossing),
        )
    ]


def _find_patient_problems(manifest: Manifest) -> list[Finding]:
    frame = manifest.frame
    if frame.empty:
        return []
    unknown = int(frame["patient_id"].isna().sum())
    if unknown:
        text = f"{unknown:,} of {len(frame):,} images have no patient, so nobody can check who is on which side."
        fix = (
            "Give the patient with --patient-regex, or a CSV with the column patient_id; "
            "or split by image, which is optimistic and stamped so."
        )
        return [Finding("unknown_patients", "warning", text, fix, (), unknown)]
    patients = int(frame["patient_id"].nunique())
    if patients >= _FEW_PATIENTS:
        return []
    there = counted(patients, "patient", "patients")
    text = f"the images are of {there}; intervals over so few are not to be trusted."
    return [Finding("few_patients", "warning", text, "Add patients: they count for more than images.", (), patients)]


CHECKS: tuple[Check, ...] = (
    _find_repeated_rows,
    _find_label_conflicts,
    _find_duplicates,
    _find_size_outliers,
    _find_class_imbalance,
    _find_patients_in_two_splits,
    _find_patient_problems,
)
