"""What is wrong with images that can all be read: rows, labels, copies, sizes, classes, patients.

A check is a function from the manifest of the usable images, its sha256 and sizes known, to findings; a new
one is a function and a line in CHECKS. What the scan alone knows, unusable files and false names, is in
`__init__.py`.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from clearmargin.data.audit.balance import find_small_classes
from clearmargin.data.audit.copies import find_duplicates
from clearmargin.data.manifest import Manifest
from clearmargin.data.walk import label_of_folders, lies_below
from clearmargin.errors import counted
from clearmargin.images.file_names import name_on_disk
from clearmargin.images.names import label_of_name, parse_idc_name
from clearmargin.images.place import file_of
from clearmargin.types import LABEL_NAMES, Finding

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
        said, folder = label_of_name(name.rpartition("/")[2]), _class_folder(name)
        if said is not None and folder is not None and said != folder:
            conflicts.append((name, path, LABEL_NAMES[folder], LABEL_NAMES[said]))
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


def _class_folder(name: str) -> int | None:
    """The label of the folders; a folder 0 or 1 is a class where IDC patches lie, and a fold or a patient elsewhere."""
    folders, _, last = name.lower().rpartition("/")
    if parse_idc_name(last) is None and not {"benign", "malignant"} & set(folders.split("/")):
        return None
    return label_of_folders(name)


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


def _find_links_outside(manifest: Manifest) -> list[Finding]:
    """Images that are symbolic links, or lie below one, out of the root; what a pseudonym stands for is not told."""
    if manifest.originals or not os.path.isdir(manifest.root):
        return []
    prefix, real_root = manifest.prefix, os.path.realpath(manifest.root)
    stays: dict[str, bool] = {}
    leading_out = []
    for path in manifest.frame["path"]:
        if not path.startswith(prefix):  # a row of a table may name any file
            continue
        file, is_link = _file_of_row(path)
        folder = file.rpartition(os.sep)[0]
        if folder not in stays:
            stays[folder] = lies_below(folder, real_root)
        if not stays[folder] or (is_link and not lies_below(file, real_root)):
            leading_out.append(path)
    if not leading_out:
        return []
    return [
        Finding(
            "link_outside",
            "note",
            f"{counted(len(leading_out), 'image is', 'images are')} reached through a symbolic link that leads out of "
            f"the folder, the first is '{leading_out[0]}'.",
            "Nothing to do where the images are kept in a central place; they must stay there while they are used.",
            tuple(leading_out),
            len(leading_out),
        )
    ]


def _file_of_row(path: str) -> tuple[str, bool]:
    """The file that the path names, and whether it is a symbolic link; a member of an archive is none."""
    for name in (path, name_on_disk(file_of(path))):
        with suppress(OSError, ValueError):
            return name, stat.S_ISLNK(os.lstat(name).st_mode)
    return path, False


CHECKS: tuple[Check, ...] = (
    _find_repeated_rows,
    _find_label_conflicts,
    find_duplicates,
    _find_size_outliers,
    find_small_classes,
    _find_patients_in_two_splits,
    _find_patient_problems,
    _find_links_outside,
)
