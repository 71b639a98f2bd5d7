"""What copies mean: the same picture under two labels, in two parts of a split, or of two patients.

Identical files are told by their hash, and are certain; near duplicates come as groups from `similar.py`, and are
likely or possible. A group goes to the first kind that applies, worst first. A pair of identical files is the matter
of `find_duplicates` alone: `find_near_duplicates` names one file of each content, and a second one only where it has
another label, split or patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from clearmargin.data.audit.similar import LIKELY, POSSIBLE, SimilarGroup
from clearmargin.data.manifest import Manifest
from clearmargin.errors import counted
from clearmargin.types import Certainty, Finding, Severity

_COMMON = 0.25
_LEAVE_OUT = "'clearmargin audit DATA --fix-list FILE' and --exclude FILE"


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of near duplicates: those whose values in `column` differ; None takes the rest."""

    name: str
    column: str | None
    severity: Severity
    of_what: str
    consequence: str
    fix: str


_NEAR_KINDS = (
    _Kind(
        "near_duplicate_across_labels",
        "label",
        "warning",
        "of one of the other class",
        "",
        f"Look at them: of the same picture only one label can be right. Leave them out with {_LEAVE_OUT}.",
    ),
    _Kind(
        "near_duplicate_across_splits",
        "official_split",
        "warning",
        "of one in another part of the official split",
        "",
        f"Look at them, and leave those of one part out with {_LEAVE_OUT}, or make a split of your own.",
    ),
    _Kind(
        "near_duplicate_across_patients",
        "patient_id",
        "warning",
        "of one of another patient, who may be the same person",
        "; a split keeps those patients together",
        "Look at them, and check the patient ids.",
    ),
    _Kind(
        "near_duplicate",
        None,
        "note",
        "of another of the same class",
        "; a split keeps them together",
        "Nothing to do, but they say less than as many different images.",
    ),
)
_ONLY_POSSIBLE = "Look at them first: a split does not keep together what is only possible."


def find_duplicates(manifest: Manifest) -> list[Finding]:
    """Files with the same bytes, by where they lie; each group of them once."""
    frame = manifest.frame.drop_duplicates(["path", "label"])  # rows that stand twice are told elsewhere
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
            f"Only one label can be right: leave them out, with {_LEAVE_OUT}.",
        ),
        (
            across_splits,
            "duplicate_across_splits",
            "blocking",
            "{n:,} files lie, identical, in two parts of the official split",
            f"Leave the copies out with {_LEAVE_OUT}.",
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
            f"Leave the copies out with {_LEAVE_OUT}.",
        ),
    ]
    return [
        Finding(
            kind,
            severity,
            f"{text.format(n=len(rows))}: {_example(rows)}.",
            fix,
            tuple(rows["path"]),
            len(rows),
            groups=tuple(tuple(group) for _, group in rows.groupby("sha256", sort=False)["path"]),
        )
        for rows, kind, severity, text, fix in wanted
        if not rows.empty
    ]


def doubt_common(manifest: Manifest, groups: Sequence[SimilarGroup]) -> list[SimilarGroup]:
    """The groups, those called only possible whose likeness is common in these data: it is no sign of a copy then.

    So it is where one group holds more than a quarter of all images, and where groups join more than a quarter of
    the patients (and more than two): films in one standard view, or drawn images. A split that kept all these
    together would leave nothing to split.
    """
    patients = manifest.frame["patient_id"].to_numpy()
    joined: set[str] = set()
    crossing: set[SimilarGroup] = set()
    for group in groups:
        mine = {patients[row] for row in group.rows if not pd.isna(patients[row])}
        if group.certainty == "likely" and len(mine) > 1:
            joined |= mine
            crossing.add(group)
    is_common = len(joined) > max(2, _COMMON * manifest.frame["patient_id"].nunique())
    doubted = {group for group in groups if len(group.rows) > _COMMON * len(manifest)} | (
        crossing if is_common else set()
    )
    return [replace(group, certainty="possible") if group in doubted else group for group in groups]


def _example(rows: pd.DataFrame) -> str:
    first = rows["path"][rows["sha256"] == rows["sha256"].iloc[0]].tolist()
    return " = ".join(f"'{path}'" for path in first[:2])


def find_near_duplicates(manifest: Manifest, groups: Sequence[SimilarGroup]) -> list[Finding]:
    """Images that show the same picture without being the same file; one finding for each kind and certainty.

    Args:
        manifest: with sha256, in the order of the thumbnails.
        groups: as `similar.find_similar` gives them; rows of `manifest.frame`.
    """
    found: dict[tuple[int, Certainty], list[tuple[pd.DataFrame, float]]] = {}
    columns = manifest.frame[["path", "sha256", "label", "official_split", "patient_id"]]
    for group in groups:
        rows = columns.iloc[list(group.rows)].drop_duplicates(["path", "label"])
        if rows["sha256"].nunique() < 2:
            continue
        number = next(
            place for place, kind in enumerate(_NEAR_KINDS) if kind.column is None or rows[kind.column].nunique() > 1
        )
        column = _NEAR_KINDS[number].column
        rows = rows.drop_duplicates("sha256" if column is None else ["sha256", column])
        found.setdefault((number, group.certainty), []).append((rows, group.similarity))
    return [
        _near_finding(_NEAR_KINDS[number], found[number, certainty], certainty)
        for number, certainty in sorted(found)  # "likely" comes before "possible"
    ]


def _near_finding(kind: _Kind, groups: list[tuple[pd.DataFrame, float]], certainty: Certainty) -> Finding:
    paths = tuple(tuple(rows["path"]) for rows, _ in groups)
    images = sum(len(group) for group in paths)
    clearest, highest = max(groups, key=lambda group: group[1])
    lowest = min(similarity for _, similarity in groups)
    likely = certainty == "likely"
    what = f"{images:,} images {'are likely' if likely else 'may be'}"
    consequence = kind.consequence if likely else ""
    level = (
        f"unrelated images hardly ever reach {LIKELY:.2f}" if likely else f"some unrelated ones reach {POSSIBLE:.2f}"
    )
    return Finding(
        kind.name,
        kind.severity,
        f"{what} near duplicates {kind.of_what}, in {counted(len(paths), 'group', 'groups')}{consequence}: "
        f"{_pair(clearest, kind.column)} (similarity {highest:.2f}, and {lowest:.2f} or more in all; {level}).",
        kind.fix if likely else _ONLY_POSSIBLE,
        tuple(path for group in paths for path in group),
        images,
        certainty,
        paths,
    )


def _pair(rows: pd.DataFrame, column: str | None) -> str:
    """Two files of different content that show what the finding is about, if there are two such."""
    first = rows.iloc[0]
    others = rows.loc[rows["sha256"] != first["sha256"]]
    if column is not None and (others[column] != first[column]).any():
        others = others.loc[others[column] != first[column]]
    return f"'{first['path']}' ≈ '{others['path'].iloc[0]}'"
