"""A model on data that it was not made for: whether the images look alike, and what recalibration would bring."""

from __future__ import annotations

from typing import Any

from clearmargin.report.deciding import refusals
from clearmargin.report.document import Line, Part, Row, Section, Shown, Table, quoted
from clearmargin.report.run_files import RunFiles, Values
from clearmargin.report.words import decimal, signed


def elsewhere(run: RunFiles) -> Section | None:
    """Drift and recalibration of an external evaluation; None for any other run."""
    parts = [
        part
        for part in (
            _drift(run.metrics.get("drift")),
            refusals(run) if run.metrics.get("drift") else None,
            _recalibration(run.metrics.get("recalibration")),
        )
        if part
    ]
    return Section("elsewhere", "On other data", tuple(parts)) if parts else None


def _drift(drift: Values | None) -> Part | None:
    if not drift:
        return None
    lines: tuple[Line, ...] = ((quoted(drift["text"], "drift.text"),),) if drift.get("text") else ()
    named = [("Probability", drift.get("score") or {}, "drift.score")]
    named += [
        (str(each["name"]), each, f"drift.inputs.{number}") for number, each in enumerate(drift.get("inputs") or [])
    ]
    rows = [
        Row(
            name.replace("_", " "),
            (
                *_quarters(entry.get("training") or {}, f"{place}.training"),
                *_quarters(entry.get("here") or {}, f"{place}.here"),
                Shown(decimal(entry.get("ks"), 2), f"{place}.ks"),
                Shown(signed(entry.get("shift"), 2), f"{place}.shift"),
                str(entry.get("verdict", "")),
            ),
        )
        for name, entry, place in named
        if entry.get("training")
    ]
    table = Table(
        columns=(
            "Statistic",
            "Training: median",
            "middle half",
            "Here: median",
            "middle half",
            "KS",
            "Shift",
            "Verdict",
        ),
        rows=tuple(rows),
        note="KS: the widest gap between the two distributions, from 0 to 1. Shift: how far the mean has "
        "moved, each patient counted once, in standard deviations of the training images.",
        wide=True,
    )
    return Part("Are the images alike?", lines, (table,) if rows else ())


def _quarters(entry: Values, place: str) -> tuple[Shown, Shown]:
    low, high = entry.get("q1"), entry.get("q3")
    between = "—" if low is None or high is None else f"{_short(low)} to {_short(high)}"
    return Shown(_short(entry.get("median")), f"{place}.median"), Shown(between, f"{place}.quarters")


def _short(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _recalibration(entry: Values | None) -> Part | None:
    if not entry:
        return None
    lines: tuple[Line, ...] = ((quoted(entry["text"], "recalibration.text"),),) if entry.get("text") else ()
    before, after = entry.get("before") or {}, entry.get("after_cv") or {}
    names = (("brier", "Brier score"), ("slope", "Calibration slope"), ("intercept", "Calibration intercept"))
    rows = [
        Row(label, (_cell(before, name, "before"), _cell(after, name, "after_cv")))
        for name, label in names
        if name in before
    ]
    note = "Recalibrated: each patient (image, where patients are unknown) by the others of these data."
    table = Table(("Figure", "As it is", "Recalibrated"), tuple(rows), note=note)
    return Part("Recalibration", lines, (table,) if rows else (), command=entry.get("command") or None)


def _cell(values: Values, name: str, when: str) -> Shown:
    value: Any = values.get(name)
    return Shown(signed(value), f"recalibration.{when}.{name}")
