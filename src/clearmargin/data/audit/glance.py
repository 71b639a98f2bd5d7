"""An audit at a glance: what a Python prompt shows of it, never pages of paths. Notebooks: `display/`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from clearmargin.errors import counted, one_line
from clearmargin.files import seen_from_here

if TYPE_CHECKING:
    from clearmargin.data.audit import Audit

_MOST_FINDINGS = 20
_LONGEST = 120


def describe_audit(audit: Audit) -> str:
    """A line with what can be used, and one for each finding."""
    root, usable = _short(seen_from_here(audit.manifest.root)), audit.manifest.describe()
    lines = [f"Audit of {root}: {usable}; {_counts(audit)}"]
    for finding in audit.findings[:_MOST_FINDINGS]:
        start = f"  {finding.severity:<8}  {_short(finding.kind)}: "
        message = finding.message.replace(f"'{audit.manifest.prefix}", "'")
        lines.append(start + _short(message, max(40, _LONGEST - len(start))))
    return "\n".join([*lines, *_rest(audit)])


def _counts(audit: Audit) -> str:
    number = Counter(finding.severity for finding in audit.findings)
    blocking = number["blocking"]
    words = [
        counted(blocking, "finding blocks", "findings block") if blocking else "nothing blocks",
        *([counted(number["warning"], "warning", "warnings")] if number["warning"] else []),
        *([counted(number["note"], "note", "notes")] if number["note"] else []),
    ]
    return ", ".join(words)


def _rest(audit: Audit) -> list[str]:
    more = len(audit.findings) - _MOST_FINDINGS
    return [f"  … and {more:,} more in .findings"] if more > 0 else []


def _short(text: str, most: int = _LONGEST) -> str:
    text = one_line(text[: 2 * most])
    return text if len(text) <= most else f"{text[: most - 1]}…"
