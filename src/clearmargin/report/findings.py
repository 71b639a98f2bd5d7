"""An audit in words, the same on the page and in the terminal: verdict, findings, how sure each is, how many.

Texts come from data and may hold anything: what is returned here has no line break or control character
and is bounded in length, but it is not escaped for HTML, which is the template's part.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clearmargin.errors import counted, one_line
from clearmargin.report.words import count, plural, sentence
from clearmargin.types import LABEL_NAMES

Values = Mapping[str, Any]

PAGE_MARK = '<meta name="generator" content="clearmargin audit">'
"""Near the beginning of every page of an audit, which a newer one may replace."""
SEVERITIES = ("blocking", "warning", "note")
CERTAINTIES = {"certain": "a fact", "likely": "likely", "possible": "possible"}
LONGEST_NAME = 200
LONGEST_WORD = 120
LONGEST_MESSAGE = 800

_MEANINGS = {
    "certain": "A fact, read from the files.",
    "likely": "Likely: an estimate, not a fact. Check a few before you act.",
    "possible": "Possible: a hint, not a fact. Look before you act.",
}
_SHORTCUTS = ("confounded_by_", "split_differs_by_")


def shorten(text: str, most: int) -> str:
    """The text with its middle left out where it is longer than `most` characters.

    >>> shorten("short.png", 20), shorten("abcdefghijklmnop.png", 9)
    ('short.png', 'abcd….png')
    """
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def clean(text: object, most: int = LONGEST_MESSAGE) -> str:
    r"""One line of printable text, at most `most` characters long.

    >>> print(clean("a\nb"))
    a\nb
    """
    # What is far too long is cut first: spelling out a name of megabytes would cost as much again.
    return shorten(one_line(shorten(str(text), 10 * most)), most)


def short_path(path: str, root: str, most: int = LONGEST_NAME) -> str:
    """The path as seen from the root of the data, on one line; one that lies elsewhere stays absolute.

    >>> short_path("/data/idc/8863/0/a.png", "/data/idc")
    '8863/0/a.png'
    """
    prefix = _prefix(root)
    return clean(path[len(prefix) :] if prefix and path.startswith(prefix) else path, most)


def message(finding: Values, root: str) -> str:
    """What was found, as a sentence; paths that it quotes are seen from the root of the data.

    >>> message({"message": "the first is '/data/a.png'"}, "/data")
    "The first is 'a.png'."
    """
    text, prefix = shorten(str(finding["message"]), 10 * LONGEST_MESSAGE), _prefix(root)
    text = text.replace(f"'{prefix}", "'") if prefix else text
    return sentence(clean(" ".join(shorten(word, LONGEST_WORD) for word in text.split(" "))))


def _prefix(root: str) -> str:
    stem = root.rstrip(os.sep)
    return stem and stem + os.sep  # of the root of the disk nothing is left, and nothing is taken away


def sort_findings(findings: Iterable[Values]) -> list[Values]:
    """The findings by severity, the gravest first, otherwise in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding["severity"]))


def title(finding: Values) -> str:
    """The kind in words.

    >>> title({"kind": "duplicate_across_labels"})
    'Duplicate across labels'
    """
    words = clean(finding["kind"], 60).replace("_", " ")
    return words[:1].upper() + words[1:]


def certainty(finding: Values) -> str:
    """How sure it is, in a word or two; an audit that does not say knew only facts."""
    return CERTAINTIES[finding.get("certainty") or "certain"]


def certainty_meaning(finding: Values) -> str:
    """How sure it is, and what follows, in a sentence."""
    return _MEANINGS[finding.get("certainty") or "certain"]


def groups_of(finding: Values) -> list[Sequence[str]]:
    """The paths that belong together; empty where the finding is not about copies."""
    return [group for group in finding.get("groups") or () if group]


def paths_of(finding: Values) -> Sequence[str]:
    """Every path concerned."""
    return finding.get("paths") or [path for group in groups_of(finding) for path in group]


def gather_paths(finding: Values) -> list[Sequence[str]]:
    """Every path concerned, those that belong together in one sequence, the others each alone.

    >>> gather_paths({"paths": ["a", "b", "c"], "groups": [["b", "c"]]})
    [['b', 'c'], ['a']]
    """
    groups = groups_of(finding)
    together = {path for group in groups for path in group}
    return [*groups, *([path] for path in paths_of(finding) if path not in together)]


def extent(finding: Values) -> str:
    """How many files, and in how many groups; empty where the finding is not about files.

    >>> extent({"paths": ["a", "b", "c", "d"], "groups": [["a", "b"], ["c", "d"]]}), extent({"count": 16})
    ('4 files in 2 groups', '')
    """
    paths, groups = paths_of(finding), groups_of(finding)
    if not paths:
        return ""
    return plural(len(paths), "file") + (f" in {plural(len(groups), 'group')}" if groups else "")


def is_about_guessing(finding: Values) -> bool:
    """It tells what can be scored without looking at the tissue."""
    kind = str(finding["kind"])
    return kind == "class_balance" or kind.startswith(_SHORTCUTS)


def verdict(audit: Values) -> tuple[str, str]:
    """Whether training may go on, and what to do now.

    >>> verdict({"findings": []})
    ('Nothing blocks: training may go on.', 'Nothing was found.')
    """
    severities = [finding["severity"] for finding in audit["findings"]]
    blocking = severities.count("blocking")
    if blocking:
        them = "it" if blocking == 1 else "them"
        return f"{counted(blocking, 'finding blocks', 'findings block')} training.", f"Mend {them} first."
    counts = [(severities.count("warning"), "warning"), (severities.count("note"), "note")]
    rest = " and ".join(plural(number, name) for number, name in counts if number)
    return "Nothing blocks: training may go on.", f"{rest} to read first." if rest else "Nothing was found."


def usable_line(audit: Values) -> str:
    """What is left to train on.

    >>> usable_line({"counts": {"images": 40, "patients": None, "benign": 22, "malignant": 18}})
    '40 images of unknown patients can be used, 22 benign and 18 malignant.'
    """
    counts = audit["counts"]
    if not counts["images"]:
        return "No image can be used."
    known = counts.get("patients")
    patients = "of unknown patients" if known is None else f"of {plural(known, 'patient')}"
    classes = " and ".join(f"{count(counts[name])} {name}" for name in LABEL_NAMES)
    return f"{plural(counts['images'], 'image')} {patients} can be used, {classes}."
