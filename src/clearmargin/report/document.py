"""What a report says, before it is a page: sections of prose, tables and pictures.

A number that stands in metrics.json or follows from predictions.csv is `Shown` with the key it stands under, so
that HTML, Markdown and LaTeX show the same text and a reader (or a test) can find where it comes from.
What is said is elsewhere (`results.py`, `certainty.py`, `deciding.py`, `groups.py`), and so is how it is
written (`html.py`, `markdown.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clearmargin.report.svg import Picture
from clearmargin.report.words import DASH, Figure, count, decimal, percent, sentence, signed, span


@dataclass(frozen=True, slots=True)
class Shown:
    """A text made of a value of the run; `key` is its place, as `test.image.auroc.value`."""

    text: str
    key: str
    reason: str | None = None
    """Why there is only a dash."""
    stress: bool = False


Line = tuple["str | Shown", ...]
"""Prose: words, and what is shown between them."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table; `cells` are parallel to the table's columns after the first."""

    label: str | Shown
    cells: tuple[str | Shown, ...]
    meaning: str = ""
    band: Mapping[str, str] | None = None
    """Where value and interval lie on a scale from 0 to 1, in percent of its width."""
    size: bool = False
    """Whether the row counts cases, under the figures."""


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[str | Shown, ...]
    rows: tuple[Row, ...]
    title: str = ""
    note: str = ""
    reasons: tuple[tuple[str, str], ...] = ()
    """(names of figures, why they are not there)."""
    stress: int | None = None
    """The column that matters, counted after the first."""
    scale: bool = False
    """Whether rows show their band."""
    wide: bool = False
    folded: str = ""
    """What the table is folded under; empty shows it."""
    unfolded: bool = False
    """Whether it is open at first all the same."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure of the page; `picture` is None where it is undefined, and the caption then says why."""

    name: str
    title: str
    caption: Line
    picture: Picture | None


@dataclass(frozen=True, slots=True)
class Part:
    """Some prose, then tables, then plots, under a heading of its own or none."""

    title: str = ""
    lines: tuple[Line, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    anchor: str
    title: str
    parts: tuple[Part, ...] = field(default=())


def value_of(figure: Figure, *, style: str = "decimal", stress: bool = False) -> Shown:
    """The value of a figure, or a dash with its reason.

    Args:
        figure: with its place.
        style: `decimal` (three digits), `short` (two), `percent`, `signed` for what is not between 0 and 1.
        stress: whether prose stresses it.
    """
    writers: dict[str, Callable[[float | None], str]] = {
        "decimal": decimal,
        "short": lambda value: decimal(value, 2),
        "percent": percent,
        "signed": signed,
    }
    reason = figure.reason if figure.value is None else None
    return Shown(writers[style](figure.value), f"{figure.place}.value", reason, stress)


def interval_of(figure: Figure, *, digits: int = 3) -> Shown:
    """The interval of a figure, or a dash with its reason."""
    return Shown(span(figure.interval, digits), f"{figure.place}.ci", None if figure.interval else figure.reason)


def counted(number: int | float | None, key: str) -> Shown:
    """A count, or a dash."""
    return Shown(count(number), key)


def many(number: int, noun: str, key: str) -> tuple[Shown, str]:
    """A count and its noun, for prose."""
    return Shown(f"{number:,}", key), f" {noun}" + ("" if number == 1 else "s")


def quoted(text: object, key: str) -> Shown:
    """A sentence that the run itself recorded."""
    return Shown(sentence(str(text)), key)


def clause(text: object, key: str) -> Shown:
    """The end of a sentence that the run itself recorded."""
    recorded = str(text)
    return Shown(recorded if recorded.endswith(".") else f"{recorded}.", key)


def missing_reasons(named: Iterable[tuple[str, Sequence[Figure]]]) -> tuple[tuple[str, str], ...]:
    """(names of figures, reason) for every undefined figure or interval; figures with one reason stand together."""
    names: dict[str, dict[str, None]] = {}
    for label, figures in named:
        for figure in figures:
            if figure.reason and (figure.value is None or figure.interval is None):
                names.setdefault(figure.reason, {})[label] = None
    return tuple((", ".join(labels), reason) for reason, labels in names.items())


def band(figure: Figure) -> dict[str, str] | None:
    """Where the interval and the value lie on a scale from 0 to 1, in percent of its width."""
    if figure.value is None or not 0 <= figure.value <= 1:
        return None
    low, high = (min(max(end, 0.0), 1.0) for end in figure.interval or (figure.value, figure.value))
    return {"left": f"{low * 100:.2f}", "width": f"{(high - low) * 100:.2f}", "dot": f"{figure.value * 100:.2f}"}


def plain(line: Line) -> str:
    """The prose as text alone."""
    return "".join(piece if isinstance(piece, str) else piece.text for piece in line)


def text_of(cell: str | Shown) -> str:
    """A cell as text alone."""
    return cell if isinstance(cell, str) else cell.text or DASH
