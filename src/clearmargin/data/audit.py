"""The audit: everything that is wrong with the data, found before anything is trained on them.

`audit_manifest` scans every file, puts the unusable ones in quarantine and runs each of `checks.CHECKS`.
Originals are never changed. What happens to a finding is decided by the caller: a blocking one stops.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clearmargin.config import DataSettings
from clearmargin.data.checks import CHECKS
from clearmargin.data.manifest import Manifest, exclude_paths
from clearmargin.data.scan import Scan, scan_images
from clearmargin.data.sources import read_source
from clearmargin.errors import AuditBlocked, counted, one_line
from clearmargin.images.read import FORMAT_OF_EXTENSION
from clearmargin.types import LABEL_NAMES, Finding, Listener, Severity

DEFAULT_TOLERANCE = 0.01
_ROUNDING = 1e-6  # 29 of 100 files are not above a tolerance of 0.29, whatever the product says
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
        """The files to leave out so that files in quarantine, copies and contradictory copies are gone.

        Each fits on a line, as `exclude_paths` reads it; only a file name with a line break looks otherwise there.
        """
        left_out = {file.path for file in self.quarantine}
        for finding in self.findings:
            if finding.kind in ("duplicate_across_labels", "label_conflict"):
                left_out |= set(finding.paths)
        files = self.manifest.frame.drop_duplicates("path")  # a row that stands twice is one file, and is kept
        copies = files.loc[~files["path"].isin(left_out)]
        left_out |= set(copies.loc[copies.duplicated("sha256"), "path"])
        return [one_line(path) for path in sorted(left_out)]


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
    findings = list(manifest.findings) + _quarantine_findings(
        quarantine, len(manifest), tolerance, from_table=manifest.source == "csv"
    )
    findings += _find_wrong_extensions(good, formats)
    for check in CHECKS:
        findings += check(good)
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
