"""Audits as `Audit.to_dict` gives them, made by hand, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = "/data/set"
HOSTILE = (
    "<script>alert(1)</script>.png",
    "a\"b'c&d.png",
    "two\nlines\x1b[31m.png",
    "\u202egnp.exe",
    "lost\udce4.png",
    "乳房超音波.png",
    "x" * 100_000 + ".png",
    "'" * 5000,
)


def finding(
    kind: str,
    severity: str = "warning",
    *,
    message: str = "something is odd.",
    fix: str = "Mend it.",
    paths: Sequence[str] = (),
    count: int | None = None,
    certainty: str = "certain",
    groups: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """One finding; names are below ROOT."""
    below = [f"{ROOT}/{name}" for name in paths]
    return {
        "kind": kind,
        "severity": severity,
        "message": message,
        "fix": fix,
        "paths": below,
        "count": len(below) if count is None else count,
        "certainty": certainty,
        "groups": [[f"{ROOT}/{name}" for name in group] for group in groups],
    }


def audit(
    findings: Sequence[dict[str, Any]] = (),
    *,
    quarantine: Sequence[tuple[str, str, str]] = (),
    benign: int = 30,
    malignant: int = 10,
    patients: int | None = 12,
) -> dict[str, Any]:
    """An audit of `benign + malignant` usable images; `quarantine` is (name below ROOT, kind, reason)."""
    used = benign + malignant
    return {
        "schema": 1,
        "data": {"root": ROOT, "source": "folder"},
        "flow": [
            {"step": "files found", "count": used + len(quarantine) + 5},
            {"step": "labelled images", "count": used + len(quarantine)},
            {"step": "images used, not in quarantine", "count": used},
        ],
        "counts": {"images": used, "patients": patients, "slides": None, "benign": benign, "malignant": malignant},
        "findings": list(findings),
        "quarantine": [{"path": f"{ROOT}/{name}", "kind": kind, "reason": reason} for name, kind, reason in quarantine],
        "blocked": any(each["severity"] == "blocking" for each in findings),
    }


def hostile_audit() -> dict[str, Any]:
    """An audit in which every text that comes from data is out to do harm."""
    evil = "<img src=x onerror=alert(1)>\n\x1b[2J"
    values = audit(
        [
            finding(evil + "k" * 5000, "blocking", message=f"{evil} '{'z' * 100_000}'", fix=evil * 300, paths=HOSTILE),
            finding("copies", message="'" * 100_000, paths=HOSTILE, groups=[HOSTILE[:4], HOSTILE[4:]]),
            finding("confounded_by_x", message=evil),
        ],
        quarantine=[(f"q{name}", evil, evil + "r" * 100_000) for name in HOSTILE],
    )
    values["data"] = {"root": f"{ROOT}/{evil}", "source": evil}
    return values


def worst_audit() -> dict[str, Any]:
    """50 findings with 2,000 paths each of the characters that take most room when escaped."""
    longest = "'" * 250
    found = [
        finding(
            f"kind_{number}",
            message="' " * 5000,
            fix=longest * 20,
            paths=[f"{number}/{index}{longest}" for index in range(2000)],
            groups=[[f"{number}/{group}/{index}{longest}" for index in range(4)] for group in range(300)]
            if number % 2
            else (),
        )
        for number in range(50)
    ]
    return audit(found, quarantine=[(f"{index}{longest}", longest, longest * 3) for index in range(3000)])


def noise(path: str) -> NDArray[np.uint8]:
    """What compresses worst."""
    seed = int.from_bytes(path.encode("utf-8", "replace")[-8:], "little")
    return np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8)


def patch(path: str) -> NDArray[np.uint8]:
    """A small smooth picture."""
    return np.add.outer(np.arange(50), np.arange(40)).astype(np.uint8)[:, :, np.newaxis]
