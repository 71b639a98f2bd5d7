"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`message` is what was seen, one line; `fix` how to mend it, empty where nothing needs to be."""

    status: Status
    message: str
    fix: str = ""


def ok(message: str) -> Outcome:
    return Outcome("ok", message)


def warning(message: str, fix: str) -> Outcome:
    return Outcome("warning", message, fix)


def failed(message: str, fix: str) -> Outcome:
    return Outcome("failed", message, fix)
