"""An audit at a glance: what a Python prompt and a notebook show of it, never pages of paths."""

from __future__ import annotations

import html
from collections import Counter
from typing import TYPE_CHECKING

from clearmargin.errors import counted, one_line
from clearmargin.types import LABEL_NAMES

if TYPE_CHECKING:
    from clearmargin.data.audit import Audit

_MOST_FINDINGS = 20
_LONGEST = 120


def describe_audit(audit: Audit) -> str:
    """A line with what can be used, and one for each finding."""
    lines = [f"Audit of {_short(str(audit.manifest.root))}: {_usable(audit)}; {_counts(audit)}"]
    for finding in audit.findings[:_MOST_FINDINGS]:
        start = f"  {finding.severity:<8}  {_short(finding.kind)}: "
        lines.append(start + _short(finding.message, max(40, _LONGEST - len(start))))
    return "\n".join([*lines, *_rest(audit, "  ")])


def tabulate_audit(audit: Audit) -> str:
    """The same as a table in HTML; whatever comes from data is escaped."""
    rows = [
        "<tr>"
        + "".join(
            f'<td style="text-align:left">{html.escape(_short(text, 300))}</td>'
            for text in (finding.severity, finding.kind.replace("_", " "), finding.certainty, finding.message)
        )
        + "</tr>"
        for finding in audit.findings[:_MOST_FINDINGS]
    ]
    names = "".join(
        f'<th style="text-align:left">{name}</th>' for name in ("severity", "finding", "certainty", "message")
    )
    table = f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""
    about = f"<p><b>Audit of {html.escape(_short(str(audit.manifest.root)))}</b><br>{_usable(audit)}; {_counts(audit)}"
    return f"<div>{about}</p>{table}{''.join(f'<p>{line}</p>' for line in _rest(audit, ''))}</div>"


def _usable(audit: Audit) -> str:
    manifest = audit.manifest
    labels = manifest.labels()
    classes = ", ".join(f"{int((labels == label).sum()):,} {name}" for label, name in enumerate(LABEL_NAMES))
    patients = counted(int(manifest.frame["patient_id"].nunique()), "patient", "patients")
    whose = patients if manifest.knows_patients else "unknown patients"
    return f"{counted(len(manifest), 'image', 'images')} ({classes}) of {whose}"


def _counts(audit: Audit) -> str:
    number = Counter(finding.severity for finding in audit.findings)
    blocking = number["blocking"]
    words = [
        counted(blocking, "finding blocks", "findings block") if blocking else "nothing blocks",
        *([counted(number["warning"], "warning", "warnings")] if number["warning"] else []),
        *([counted(number["note"], "note", "notes")] if number["note"] else []),
    ]
    return ", ".join(words)


def _rest(audit: Audit, indent: str) -> list[str]:
    more = len(audit.findings) - _MOST_FINDINGS
    return [f"{indent}… and {more:,} more in .findings"] if more > 0 else []


def _short(text: str, most: int = _LONGEST) -> str:
    text = one_line(text[: 2 * most])
    return text if len(text) <= most else f"{text[: most - 1]}…"
