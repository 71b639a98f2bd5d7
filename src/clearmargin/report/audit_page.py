"""The audit as one HTML file that needs nothing else, neither script nor font nor network.

Everything that comes from data is made short, printable and is escaped by the template, and the page's own policy
forbids scripts and requests. The same audit gives the same bytes; with 50 findings they are under 3 MB,
whatever the files are called and show.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from clearmargin.files import write_text
from clearmargin.report import findings as words_of
from clearmargin.report.environment import build_environment
from clearmargin.report.findings import Values, clean, short_path
from clearmargin.report.provenance import flow_steps
from clearmargin.report.thumbnails import Gallery, LoadImage, build_galleries, size_on_page
from clearmargin.report.words import count, percent, plural
from clearmargin.types import INTENDED_USE, LABEL_NAMES

MOST_PATHS = 1000
"""Listed of one finding; `--json` has them all."""
MOST_QUARANTINED = 200
_PICTURE_BYTES, _PATH_BYTES, _QUARANTINE_BYTES = 1_600_000, 600_000, 200_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One finding as the page shows it; `listed` are its paths, those that belong together in one tuple."""

    anchor: str
    is_guess: bool
    severity: str
    title: str
    certainty: str
    meaning: str
    extent: str
    number: int
    message: str
    fix: str
    gallery: Gallery
    listed: tuple[tuple[str, ...], ...]
    n_paths: int

    @property
    def n_unlisted(self) -> int:
        return self.n_paths - sum(map(len, self.listed))


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file left out, as the page shows it."""

    path: str
    kind: str
    reason: str


def write_audit_page(
    audit: Mapping[str, Any],
    path: Path,
    *,
    load_image: LoadImage,
    labels: Mapping[str, str] | None = None,
) -> Path:
    """Write the page and return its path.

    Args:
        audit: as `Audit.to_dict` gives it, or audit.json holds it.
        path: the file to write; one that is there is replaced.
        load_image: path as in the audit to (H, W, 1) grey or (H, W, 3) RGB, uint8 or uint16; called at most 12 times
            for each finding, never for a file in quarantine. An `ImageError` becomes a placeholder with its reason.
        labels: path to what is known of an image, as `malignant, patient P-1`; shown under its thumbnail.
    """
    write_text(path, render_audit_page(audit, load_image=load_image, labels=labels))
    return path


def render_audit_page(audit: Values, *, load_image: LoadImage, labels: Mapping[str, str] | None = None) -> str:
    """The page as text; see `write_audit_page`."""
    root, here = str(audit["data"]["root"]), Path(__file__).parent
    entries = _entries(audit, load_image, labels or {})
    styles = [(here / name).read_text(encoding="utf-8") for name in ("style.css", "audit.css")]
    return (
        _environment()
        .get_template("audit.html.jinja")
        .render(
            mark=Markup(words_of.PAGE_MARK),
            style=Markup("\n".join(styles)),
            name=clean(root.replace("\\", "/").rstrip("/").rpartition("/")[2] or root, 80),
            root=clean(root, words_of.LONGEST_NAME),
            data_source=clean(audit["data"].get("source") or "", 40),
            verdict=words_of.verdict(audit),
            blocked=any(finding["severity"] == "blocking" for finding in audit["findings"]),
            usable=words_of.usable_line(audit),
            balance=balance(audit),
            flow=flow_steps(audit),
            entries=entries,
            found=[entry for entry in entries if not entry.is_guess],
            guesses=[entry for entry in entries if entry.is_guess],
            majority=majority_line(audit),
            quarantine=_quarantine(audit),
            n_quarantined=len(audit["quarantine"]),
            command=f"clearmargin audit {shlex.quote(clean(root, words_of.LONGEST_NAME))} --json",
            intended_use=INTENDED_USE,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = build_environment()
    environment.filters |= {"count": count, "percent": percent, "plural": plural}
    return environment


def balance(audit: Values) -> list[tuple[str, int, float]]:
    """Each class with its images and its share, in [0, 1]; empty where no image can be used."""
    counts = audit["counts"]
    total = counts["images"]
    return [(name, counts[name], counts[name] / total) for name in LABEL_NAMES] if total else []


def majority_line(audit: Values) -> str | None:
    r"""What the same answer for every image would score; None where the audit has a finding that says so.

    >>> majority_line({"findings": [], "counts": {"images": 4, "benign": 3, "malignant": 1}})
    'Calling every image benign is right for 75\xa0% of them; its AUROC is 0.5.'
    """
    shares = {name: share for name, _, share in balance(audit)}
    if not shares or any(finding["kind"] == "class_balance" for finding in audit["findings"]):
        return None
    name = max(shares, key=lambda each: shares[each])
    return f"Calling every image {name} is right for {percent(shares[name])} of them; its AUROC is 0.5."


def _entries(audit: Values, load_image: LoadImage, labels: Mapping[str, str]) -> list[Entry]:
    """The findings, the gravest first, with their thumbnails and paths within the page's budget."""
    root, found = str(audit["data"]["root"]), words_of.sort_findings(audit["findings"])
    galleries = build_galleries(
        found,
        load_image,
        root=root,
        labels=labels,
        unusable={file["path"] for file in audit["quarantine"]},
        allowance=_PICTURE_BYTES,
    )
    entries, left = [], _PATH_BYTES
    for number, (finding, gallery) in enumerate(zip(found, galleries, strict=True)):
        listed, used = _list_paths(finding, root, left // (len(found) - number))
        left -= used
        entries.append(
            Entry(
                anchor=f"finding-{number + 1}",
                is_guess=words_of.is_about_guessing(finding),
                severity=finding["severity"],
                title=words_of.title(finding),
                certainty=words_of.certainty(finding),
                meaning=words_of.certainty_meaning(finding),
                extent=words_of.extent(finding),
                number=int(finding.get("count") or 0),
                message=words_of.message(finding, root),
                fix=clean(finding.get("fix") or ""),
                gallery=gallery,
                listed=listed,
                n_paths=sum(map(len, words_of.gather_paths(finding))),
            )
        )
    return entries


def _list_paths(finding: Values, root: str, allowance: int) -> tuple[tuple[tuple[str, ...], ...], int]:
    """The first paths of a finding, those that belong together in one tuple, and what they take of the page."""
    listed: list[tuple[str, ...]] = []
    used = n_paths = 0
    for group in words_of.gather_paths(finding):
        names = []
        for path in group[: MOST_PATHS - n_paths]:
            name = short_path(path, root)
            used += size_on_page(name)
            if used > allowance:
                break
            names.append(name)
        if names:
            listed.append(tuple(names))
            n_paths += len(names)
        if len(names) < len(group):
            break
    return tuple(listed), used


def _quarantine(audit: Values) -> list[Quarantined]:
    """The first files in quarantine."""
    root, shown, left = str(audit["data"]["root"]), [], _QUARANTINE_BYTES
    for file in audit["quarantine"][:MOST_QUARANTINED]:
        kind = clean(file["kind"], 40).replace("_", " ")
        row = Quarantined(short_path(file["path"], root), kind, clean(file["reason"], 300))
        left -= size_on_page(row.path) + size_on_page(row.kind) + size_on_page(row.reason)
        if left < 0:
            break
        shown.append(row)
    return shown
