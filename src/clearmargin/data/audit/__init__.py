"""The audit: everything that is wrong with the data, found before anything is trained on them.

`audit_manifest` scans every file, puts the unusable ones in quarantine and runs the checks: those of rows
(`checks.py`), of copies, of how images look, of classes and of what a trivial classifier could tell.
Originals are never changed. What happens to a finding is decided by the caller: a blocking one stops.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clearmargin.data.audit.balance import find_imbalance
from clearmargin.data.audit.checks import CHECKS
from clearmargin.data.audit.confounding import find_confounding
from clearmargin.data.audit.copies import doubt_common, find_near_duplicates
from clearmargin.data.audit.glance import describe_audit
from clearmargin.data.audit.orientation import find_orientation
from clearmargin.data.audit.quality import find_quality_problems
from clearmargin.data.audit.scan import Scan, scan_images
from clearmargin.data.audit.similar import SimilarGroup, find_similar
from clearmargin.data.manifest import Manifest, exclude_paths
from clearmargin.data.pseudonyms import nameless_errors, pseudonymise, read_key
from clearmargin.data.sources import read_source
from clearmargin.data.sources.options import SourceOptions
from clearmargin.errors import AuditBlocked, counted, one_line
from clearmargin.images.read import FORMAT_OF_EXTENSION
from clearmargin.settings import DataSettings
from clearmargin.shown import Shown
from clearmargin.types import LABEL_NAMES, Finding, Listener, Severity

DEFAULT_TOLERANCE = 0.01
_CONTRADICTIONS = ("duplicate_across_labels", "label_conflict", "near_duplicate_across_labels")
_ROUNDING = 1e-6  # 29 of 100 files are not above a tolerance of 0.29, whatever the product says
_SEVERITIES: tuple[Severity, ...] = ("blocking", "warning", "note")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file that is left out, and why."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Audit(Shown):
    """The result: the images that can be used, what was found, and the files left out.

    `manifest` has width, height and sha256 filled in and holds usable images only; `facts` says of each how its
    file and its pixels look, see `scan.Scan.facts`. `flow` counts images from the files found to the images used.
    """

    manifest: Manifest
    facts: pd.DataFrame
    findings: tuple[Finding, ...]
    quarantine: tuple[Quarantined, ...]
    flow: tuple[tuple[str, int], ...]

    def __repr__(self) -> str:
        return describe_audit(self)

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
        """The files to leave out so that files in quarantine, copies and contradictory copies are gone.

        Of copies in several parts of an official split those of test stay, else those of validation. Near copies
        are listed where they are likely and lie across classes or across parts. Each path fits on a line, as
        `exclude_paths` reads it; only a file name with a line break looks otherwise there.
        """
        left_out = {file.path for file in self.quarantine}
        for finding in self.findings:
            if finding.kind in _CONTRADICTIONS and finding.certainty != "possible":
                left_out |= set(finding.paths)
        files = self.manifest.frame.drop_duplicates("path")  # a row that stands twice is one file, and is kept
        files = files.assign(rank=files["official_split"].map({"test": 0, "validation": 1}).fillna(2))
        copies = files.loc[~files["path"].isin(left_out)].sort_values("rank", kind="stable")
        left_out |= set(copies.loc[copies.duplicated("sha256"), "path"])
        rank_of = dict(zip(files["path"], files["rank"], strict=True))
        for finding in self.findings:
            if finding.kind == "near_duplicate_across_splits" and finding.certainty == "likely":
                for group in finding.groups:
                    first = min(rank_of[path] for path in group)
                    left_out |= {path for path in group if rank_of[path] > first}
        return [one_line(path) for path in sorted(left_out)]


def audit_images(data: DataSettings, *, ignore_official: bool = False, listener: Listener = Listener()) -> Audit:
    """The audit of the images that the settings name; see `audit_manifest`."""
    manifest = read_images(data)
    return audit_manifest(manifest, tolerance=data.tolerance, ignore_official=ignore_official, listener=listener)


def read_images(data: DataSettings) -> Manifest:
    """The manifest of the images that the settings name, as it is before any file is opened."""
    options = SourceOptions(
        view=data.view,
        normal=data.normal,
        magnification=data.magnification,
        labels=Path(data.labels_file) if data.labels_file is not None else None,
        frame=data.frame,
    )
    hides = nameless_errors(data.root, data.labels_file, data.exclude_file) if data.pseudonymise else nullcontext()
    with hides:
        manifest = read_source(data.root, source=data.source, patient_regex=data.patient_regex, options=options)
        if data.pseudonymise:
            manifest = pseudonymise(manifest, read_key())
        if data.exclude_file is not None:
            manifest = exclude_paths(manifest, Path(data.exclude_file))
    return manifest


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
    names = manifest.frame["path"].tolist()
    scan = scan_images(
        [manifest.locate(name) for name in names],
        names=names,
        mammograms=manifest.content == "mammogram",
        listener=listener,
    )
    quarantine = tuple(
        Quarantined(path, file.kind, file.reason)
        for path, file in zip(manifest.frame["path"], scan.files, strict=True)
        if file.kind
    )
    good = _with_scan(manifest, scan)
    if ignore_official:
        good = replace(good, frame=good.frame.assign(official_split=pd.Series([None] * len(good), dtype="str")))
    facts = scan.facts()
    usable = scan.usable
    listener.stage("compare")
    groups = find_similar(
        scan.thumbnails if usable.all() else scan.thumbnails[usable],  # they are many: no copy without need
        fine=list(itertools.compress(scan.fine, usable)),
        identical=pd.factorize(good.frame["sha256"])[0],
        listener=listener,
    )
    alike = doubt_common(good, groups)
    good = replace(good, alike=_paths_alike(good, alike))
    findings = list(manifest.findings) + _quarantine_findings(
        quarantine, len(manifest), tolerance, from_table=manifest.source == "csv"
    )
    findings += _find_wrong_extensions(good, facts["format"].tolist())
    for check in CHECKS:
        findings += check(good)
    findings += find_near_duplicates(good, alike)
    findings += find_quality_problems(good, facts)
    findings += find_orientation(good, facts)
    findings += find_imbalance(good)
    findings += find_confounding(good, facts, listener=listener)
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return Audit(good, facts, tuple(findings), quarantine, _flow(manifest, quarantine))


def _paths_alike(manifest: Manifest, groups: Sequence[SimilarGroup]) -> tuple[tuple[str, ...], ...]:
    """The groups that are more than possible, as paths."""
    paths = manifest.frame["path"].tolist()
    return tuple(tuple(paths[row] for row in group.rows) for group in groups if group.certainty != "possible")


def _with_scan(manifest: Manifest, scan: Scan) -> Manifest:
    frame = manifest.frame.assign(
        width=pd.array([file.width for file in scan.files], dtype="Int64"),
        height=pd.array([file.height for file in scan.files], dtype="Int64"),
        sha256=pd.Series([file.sha256 for file in scan.files], dtype="str"),
    )
    return replace(manifest, frame=frame).keep(scan.usable)


def _flow(manifest: Manifest, quarantine: Sequence[Quarantined]) -> tuple[tuple[str, int], ...]:
    """How many images are left after each step."""
    return (
        ("files found", manifest.files_found),
        ("labelled images", len(manifest) + manifest.excluded),
        *((("not excluded", len(manifest)),) if manifest.excluded else ()),
        ("images used, not in quarantine", len(manifest) - len(quarantine)),
    )


def _quarantine_findings(
    quarantine: Sequence[Quarantined], n_files: int, tolerance: float, *, from_table: bool
) -> list[Finding]:
    findings = []
    missing = [file for file in quarantine if file.kind == "missing"]
    if missing:
        findings.append(
            Finding(
                "missing",
                "blocking",
                f"files that do not exist: {len(missing):,} of {n_files:,}, the first is '{missing[0].path}'.",
                "Correct the column 'path' (it is seen from the folder of the CSV), or remove the rows."
                if from_table
                else "Run again if files were being moved; remove links that lead nowhere.",
                tuple(file.path for file in missing),
                len(missing),
            )
        )
    present = [file for file in quarantine if file.kind != "missing"]
    blocks = len(present) > tolerance * n_files + _ROUNDING
    for kind, count in Counter(file.kind for file in present).items():
        paths = tuple(file.path for file in present if file.kind == kind)
        first = next(file for file in present if file.kind == kind)
        share = f"{len(present):,} of {n_files:,} files ({len(present) / n_files:.1%}) cannot be used"
        findings.append(
            Finding(
                kind,
                "blocking" if blocks else "warning",
                f"{counted(count, 'file is', 'files are')} {_WORDS.get(kind, kind)}, "
                f"the first is '{first.path}': {first.reason}."
                + (f" In all {share}, more than the tolerance of {tolerance:.1%}." if blocks else ""),
                "Restore or remove them; or accept the loss with --tolerance F."
                if blocks
                else "Restore or remove them.",
                paths,
                count,
            )
        )
    return findings


_WORDS = {"not_an_image": "no image at all", "too_large": "too large", "unsupported": "of an unsupported kind"}


def _find_wrong_extensions(manifest: Manifest, formats: Sequence[str]) -> list[Finding]:
    paths = manifest.frame["path"]
    wrong = [
        (path, true)
        for path, true in zip(paths, formats, strict=True)
        if FORMAT_OF_EXTENSION.get(os.path.splitext(path)[1].lower(), true) != true
    ]
    if not wrong:
        return []
    return [
        Finding(
            "wrong_extension",
            "warning",
            f"{counted(len(wrong), 'file is', 'files are')} not of the format that the name says: "
            f"'{wrong[0][0]}' is {wrong[0][1]}. What counts is the content.",
            "Rename them, and ask how they came about: a lossy copy under a lossless name is a common trap.",
            tuple(path for path, _ in wrong),
            len(wrong),
        )
    ]
