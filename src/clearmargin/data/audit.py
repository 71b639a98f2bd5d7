"""The audit: everything that is wrong with the data, found before anything is trained on them.

`audit_manifest` scans every file, puts the unusable ones in quarantine and runs each of CHECKS. A check
is a function from the audited images to findings; a new one is a function and a line in CHECKS.
Originals are never changed. What happens to a finding is decided by the caller: a blocking one stops.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clearmargin.config import DataSettings
from clearmargin.data.manifest import Manifest, exclude_paths
from clearmargin.data.scan import Scan, scan_images
from clearmargin.data.sources import read_source
from clearmargin.errors import AuditBlocked
from clearmargin.images.read import FORMAT_OF_EXTENSION
from clearmargin.types import LABEL_NAMES, Finding, Listener, Severity

DEFAULT_TOLERANCE = 0.01
_TINY_CLASS = 20
_FEW_PATIENTS = 20
_SEVERITIES: tuple[Severity, ...] = ("blocking", "warning", "note")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file that is left out, and why."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Audit:
    """The result: the images that can be used, what was found, and the files left out.

    `manifest` has width, height and sha256 filled in and holds usable images only; `formats` is the true
    format of each, (N,). `flow` counts images from the files found to the images used.
    """

    manifest: Manifest
    formats: tuple[str, ...]
    findings: tuple[Finding, ...]
    quarantine: tuple[Quarantined, ...]
    flow: tuple[tuple[str, int], ...]

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings that must be mended first."""
        return tuple(finding for finding in self.findings if finding.severity == "blocking")

    def check(self) -> None:
        """Passes when nothing blocks.

        Raises:
            AuditBlocked: one line with every blocking finding and the fix of the first.
        """
        blocking = self.blocking
        if not blocking:
            return
        rest = f" And {len(blocking) - 1} more: {', '.join(f.kind for f in blocking[1:])}." if blocking[1:] else ""
        raise AuditBlocked(f"{blocking[0].kind}: {blocking[0].message} {blocking[0].fix}{rest}")

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain values, as audit.json holds it."""
        frame = self.manifest.frame
        known = self.manifest.knows_patients
        return {
            "schema": 1,
            "data": {"root": str(self.manifest.root), "source": self.manifest.source},
            "flow": [{"step": step, "count": count} for step, count in self.flow],
            "counts": {
                "images": len(frame),
                "patients": int(frame["patient_id"].nunique()) if known else None,
                "slides": int(frame["slide_id"].nunique()) if frame["slide_id"].notna().all() and known else None,
                **{name: int((frame["label"] == label).sum()) for label, name in enumerate(LABEL_NAMES)},
            },
            "findings": [asdict(finding) | {"paths": list(finding.paths)} for finding in self.findings],
            "quarantine": [asdict(file) for file in self.quarantine],
            "blocked": bool(self.blocking),
        }

    def write(self, path: Path) -> None:
        """Writes `to_dict` as JSON."""
        path.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    def fix_list(self) -> list[str]:
        """The files to leave out so that files in quarantine, copies and contradictory copies are gone."""
        left_out = {file.path for file in self.quarantine}
        for finding in self.findings:
            if finding.kind in ("duplicate_across_labels", "label_conflict"):
                left_out |= set(finding.paths)
        copies = self.manifest.frame.loc[~self.manifest.frame["path"].isin(left_out)]
        left_out |= set(copies.loc[copies.duplicated("sha256"), "path"])
        return sorted(left_out)


def audit_images(data: DataSettings, *, ignore_official: bool = False, listener: Listener = Listener()) -> Audit:
    """The audit of the images that the settings name; see `audit_manifest`."""
    manifest = read_source(data.root, source=data.source, patient_regex=data.patient_regex)
    if data.exclude_file is not None:
        manifest = exclude_paths(manifest, Path(data.exclude_file))
    return audit_manifest(manifest, tolerance=data.tolerance, ignore_official=ignore_official, listener=listener)


def audit_manifest(
    manifest: Manifest,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    ignore_official: bool = False,
    listener: Listener = Listener(),
) -> Audit:
    """Scans every file and finds all that is wrong, at once.

    Args:
        manifest: as read by a source.
        tolerance: share of files in quarantine above which the audit blocks, in [0, 1].
        ignore_official: the official split will not be used, so that nothing is checked across it.
        listener: hears the progress of the scan.
    """
    listener.stage("audit")
    scan = scan_images(manifest.frame["path"].tolist(), listener=listener)
    quarantine = tuple(
        Quarantined(path, file.kind, file.reason)
        for path, file in zip(manifest.frame["path"], scan.files, strict=True)
        if file.kind
    )
    good = _with_scan(manifest, scan)
    if ignore_official:
        good = replace(good, frame=good.frame.assign(official_split=pd.Series([None] * len(good), dtype="str")))
    formats = tuple(file.format for file in scan.files if not file.kind)
    audit = Audit(good, formats, (), quarantine, _flow(manifest, quarantine))
    findings = list(manifest.findings) + _quarantine_findings(quarantine, len(manifest), tolerance)
    for check in CHECKS:
        findings += check(audit)
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return replace(audit, findings=tuple(findings))


def _with_scan(manifest: Manifest, scan: Scan) -> Manifest:
    frame = manifest.frame.assign(
        width=pd.array([file.width for file in scan.files], dtype="Int64"),
        height=pd.array([file.height for file in scan.files], dtype="Int64"),
        sha256=pd.Series([file.sha256 for file in scan.files], dtype="str"),
    )
    return replace(manifest, frame=frame).keep(scan.usable)


def _flow(manifest: Manifest, quarantine: Sequence[Quarantined]) -> tuple[tuple[str, int], ...]:
    return (
        ("files found", manifest.files_found),
        ("labelled images", len(manifest) + manifest.excluded),
        *((("left out by --exclude", manifest.excluded),) if manifest.excluded else ()),
        ("in quarantine", len(quarantine)),
        ("images used", len(manifest) - len(quarantine)),
    )


def _quarantine_findings(quarantine: Sequence[Quarantined], n_files: int, tolerance: float) -> list[Finding]:
    findings = []
    missing = [file for file in quarantine if file.kind == "missing"]
    if missing:
        findings.append(
            Finding(
                "missing",
                "blocking",
                f"{len(missing):,} files of the manifest do not exist, the first is '{missing[0].path}'.",
                "Correct the column 'path' (it is seen from the folder of the CSV), or remove the rows.",
                tuple(file.path for file in missing),
                len(missing),
            )
        )
    present = [file for file in quarantine if file.kind != "missing"]
    blocks = len(present) > tolerance * n_files
    for kind, count in Counter(file.kind for file in present).items():
        paths = tuple(file.path for file in present if file.kind == kind)
        first = next(file for file in present if file.kind == kind)
        share = f"{len(present):,} of {n_files:,} files ({len(present) / n_files:.1%}) cannot be used"
        findings.append(
            Finding(
                kind,
                "blocking" if blocks else "warning",
                f"{count:,} files are {_WORDS.get(kind, kind)}, the first is '{first.path}': {first.reason}."
                + (f" In all {share}, more than the tolerance of {tolerance:.1%}." if blocks else ""),
                "Restore or remove them; or accept the loss with --tolerance F."
                if blocks
                else "Restore or remove them.",
                paths,
                count,
            )
        )
    return findings


_WORDS = {"not_an_image": "not images", "too_large": "too large", "unsupported": "of an unsupported kind"}


def _find_wrong_extensions(audit: Audit) -> list[Finding]:
    paths = audit.manifest.frame["path"]
    wrong = [
        (path, true)
        for path, true in zip(paths, audit.formats, strict=True)
        if FORMAT_OF_EXTENSION.get(os.path.splitext(path)[1].lower(), true) != true
    ]
    if not wrong:
        return []
    return [
        Finding(
            "wrong_extension",
            "warning",
            f"{len(wrong):,} files are not of the format that their name says: '{wrong[0][0]}' is {wrong[0][1]}. "
            "They are read by their content.",
            "Rename them, and ask how they came about: a lossy copy under a lossless name is a common trap.",
            tuple(path for path, _ in wrong),
            len(wrong),
        )
    ]


def _find_duplicates(audit: Audit) -> list[Finding]:
    frame = audit.manifest.frame
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


def _find_size_outliers(audit: Audit) -> list[Finding]:
    frame = audit.manifest.frame
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
            f"{len(others):,} images are not {width}×{height} like the others: '{others['path'].iloc[0]}' is "
            f"{odd_width}×{odd_height}. They are kept, and fitted by the preprocessing spec.",
            "Leave them out with --exclude FILE if they do not belong here.",
            tuple(others["path"]),
            len(others),
        )
    ]


def _find_class_imbalance(audit: Audit) -> list[Finding]:
    labels = audit.manifest.labels()
    findings = []
    for label, name in enumerate(LABEL_NAMES):
        count = int((labels == label).sum())
        if count == 0:
            text = f"there is no usable {name} image among {len(labels):,} images."
            findings.append(Finding("missing_class", "blocking", text, f"Add images of the class {name}.", (), 0))
        elif count < _TINY_CLASS:
            text = f"there are only {count} {name} images among {len(labels):,}; figures will be very uncertain."
            findings.append(Finding("tiny_class", "warning", text, f"Add images of the class {name}.", (), count))
    return findings


def _find_patients_in_two_splits(audit: Audit) -> list[Finding]:
    frame = audit.manifest.frame
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
            f"{len(crossing):,} patients are in two parts of the official split: patient '{crossing[0]}' is in {names} "
            f"({len(first):,} images).",
            'Run "clearmargin split DATA --by patient --out split.csv" and train with --split split.csv.',
            tuple(rows["path"]),
            len(crossing),
        )
    ]


def _find_patient_problems(audit: Audit) -> list[Finding]:
    frame = audit.manifest.frame
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
    text = f"there are {patients} patients; intervals over so few patients are not to be trusted."
    return [Finding("few_patients", "warning", text, "Add patients: they count for more than images.", (), patients)]


CHECKS: tuple[Callable[[Audit], list[Finding]], ...] = (
    _find_wrong_extensions,
    _find_duplicates,
    _find_size_outliers,
    _find_class_imbalance,
    _find_patients_in_two_splits,
    _find_patient_problems,
)
