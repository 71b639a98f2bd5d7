"""How numbers and counts are written: one place, so that the sentence, the tables and the figures agree.

Rounding never turns a figure that is not perfect into a perfect one: 0.9996 is `>0.999`, not `1.000`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, SupportsFloat

DASH = "—"
NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of metrics.json; `value` is None where it is undefined, and `reason` then says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    method: str | None = None
    """How its interval was made."""
    place: str = ""
    """Where it stands in metrics.json, as `test.image.auroc`."""

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)


def read_figure(values: Mapping[str, Any] | None, name: str, *, place: str = "") -> Figure:
    """A figure of METRICS: `{"value", "ci"}`, a bare number (loss), or null with a reason; `place` is where it stands.

    >>> read_figure({"auroc": {"value": 0.9, "ci": [0.8, 0.95]}}, "auroc").interval
    (0.8, 0.95)
    >>> read_figure({"auroc": {"value": None, "reason": "one class only"}}, "auroc").reason
    'one class only'
    """
    entry = (values or {}).get(name)
    place = f"{place}.{name}" if place else name
    if entry is None:
        return Figure(None, reason=(values or {}).get("reason") or "not recorded in this run", place=place)
    if not isinstance(entry, Mapping):
        return Figure(float(entry), place=place)
    if entry.get("value") is None:
        return Figure(None, reason=entry.get("reason") or "undefined", place=place)
    low, high = entry.get("ci") or (None, None)
    return Figure(float(entry["value"]), low, high, entry.get("reason"), entry.get("method"), place)


def decimal(value: float | None, digits: int = 3) -> str:
    """A figure between 0 and 1 (or a loss) with so many decimals.

    >>> decimal(0.91249), decimal(0.9996), decimal(1.0), decimal(0.0004, 2), decimal(None)
    ('0.912', '>0.999', '1.000', '<0.01', '—')
    """
    if value is None:
        return DASH
    text, step = f"{value:.{digits}f}", 10**-digits
    if value < 1 and float(text) == 1:
        return f">{1 - step:.{digits}f}"
    if value > 0 and float(text) == 0:
        return f"<{step:.{digits}f}"
    return signed(value, digits) if value < 0 else text


def signed(value: float | None, digits: int = 3) -> str:
    """A figure that may lie anywhere, as a slope or an intercept, with so many decimals.

    >>> signed(-0.4567), signed(1.0), signed(-0.00001), signed(None)
    ('−0.457', '1.000', '0.000', '—')
    """
    if value is None:
        return DASH
    text = f"{abs(value):.{digits}f}"
    return f"\N{MINUS SIGN}{text}" if value < 0 and float(text) else text


def percent(value: float | None, digits: int = 0) -> str:
    r"""A share as a percentage, with a space that does not break.

    >>> percent(0.8412), percent(0.9996), percent(0.003), percent(1.0), percent(0.2844, 1)
    ('84\xa0%', '>99\xa0%', '<1\xa0%', '100\xa0%', '28.4\xa0%')
    """
    if value is None:
        return DASH
    text, step = f"{value * 100:.{digits}f}", 10**-digits
    if value < 1 and float(text) == 100:
        text = f">{100 - step:.{digits}f}"
    elif value > 0 and float(text) == 0:
        text = f"<{step:.{digits}f}"
    return f"{text}{NBSP}%"


def span(interval: tuple[float, float] | None, digits: int = 3) -> str:
    """An interval.

    >>> span((0.871, 0.9404), 2), span((-0.1, 0.3), 1), span(None)
    ('0.87–0.94', '−0.1 to 0.3', '—')
    """
    if interval is None:
        return DASH
    low, high = (decimal(end, digits) for end in interval)
    return f"{low}–{high}" if low[0].isdigit() and high[0].isdigit() else f"{low} to {high}"


def count(value: int | float | None) -> str:
    """A whole number with commas.

    >>> count(277524), count(None)
    ('277,524', '—')
    """
    return DASH if value is None else f"{value:,.0f}"


def plural(value: int, noun: str) -> str:
    """A count and its noun.

    >>> plural(1, "patient"), plural(1200, "image")
    ('1 patient', '1,200 images')
    """
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def value_word(value: object) -> str:
    """A value of a setting, as settings and tables have it.

    >>> value_word(True), value_word("True"), value_word(32.0), value_word(0.000908546), value_word("adam")
    ('true', 'true', '32', '0.0009085', 'adam')
    """
    if isinstance(value, str):
        return value.lower() if value in ("True", "False") else value  # as pandas writes them among texts
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(value_word, value)) or DASH
    if isinstance(value, SupportsFloat):  # those of NumPy too, among whose truths is no bool
        number = float(value)
        return f"{number:.0f}" if number.is_integer() and abs(number) < 1e9 else f"{number:.4g}"
    return str(value)


def sentence(text: str) -> str:
    """The text with a capital at its beginning and a full stop at its end.

    >>> sentence("one class only"), sentence("One class only.")
    ('One class only.', 'One class only.')
    """
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def moment(text: str) -> str:
    """An ISO time to the minute; any other text as it is.

    >>> moment("2025-11-20T09:14:03+00:00"), moment("last week")
    ('2025-11-20 09:14 UTC', 'last week')
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return time.strftime("%Y-%m-%d %H:%M ") + (time.tzname() or "")


def duration(seconds: float | None) -> str:
    """A time that a person reads at a glance.

    >>> duration(0.42), duration(75.2), duration(7325), duration(None)
    ('0.4 s', '1 min 15 s', '2 h 2 min', '—')
    """
    if seconds is None:
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
