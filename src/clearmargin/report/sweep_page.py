"""The page of a sweep: one HTML file that needs nothing else, neither script nor font nor network.

It says first what the winner has on test, then why the figure that it was chosen by is higher, then what was tried.
What is computed is elsewhere; this words it. The same sweep gives the same bytes.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from clearmargin.files import write_text
from clearmargin.report import sweep_plots
from clearmargin.report.environment import build_environment
from clearmargin.report.html import as_html
from clearmargin.report.svg import Picture
from clearmargin.report.words import (
    DASH,
    count,
    decimal,
    duration,
    moment,
    percent,
    plural,
    read_figure,
    signed,
    span,
    value_word,
)
from clearmargin.types import INTENDED_USE

MOST_ROWS = 500
"""Trials listed on the page; trials.csv has them all."""
_MOST_PARALLEL = 7
_STATES = {
    "complete": "complete",
    "pruned": "given up",
    "failed": "failed",
    "stopped": "stopped, done again",
    "running": "running",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure of the winner: what it is called, its value, its interval, and what it means."""

    name: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Row:
    """One trial as the page shows it."""

    number: int
    state: str
    marks: str
    settings: tuple[str, ...]
    folds: str
    value: str
    epochs: str
    time: str
    reason: str


def write_sweep_page(path: Path, summary: Mapping[str, Any], table: pd.DataFrame) -> Path:
    """Writes the page and returns its path.

    Args:
        path: the file to write; one that is there is replaced.
        summary: as sweep.json has it.
        table: trials.csv.
    """
    write_text(path, render_sweep_page(summary, table))
    return path


def render_sweep_page(summary: Mapping[str, Any], table: pd.DataFrame) -> str:
    """The page as text; see `write_sweep_page`."""
    here, keys = Path(__file__).parent, list(summary["space"])
    styles = [(here / name).read_text(encoding="utf-8") for name in ("style.css", "sweep.css")]
    winner = summary["winner"]["number"]
    return (
        _environment()
        .get_template("sweep.html.jinja")
        .render(
            style=Markup("\n".join(styles)),
            summary=summary,
            answer=answer(summary),
            estimates=estimates(summary),
            curse=winners_curse(summary),
            chosen=chosen(summary),
            protocol=protocol(summary),
            overview=_overview(summary, table),
            pictures=[
                (key, sweep_plots.parameter(table, key, spec, name=f"parameter-{number}", winner=winner))
                for number, (key, spec) in enumerate(summary["space"].items())
                if _was_tried(table, key)
            ],
            keys=keys,
            rows=[_row(row, keys, winner) for _, row in table.head(MOST_ROWS).iterrows()],
            n_rows=len(table),
            stamp=summary["protocol"].get("stamp"),
            command=summary["environment"].get("command", ""),
            again=f"clearmargin train DATA --recipe {shlex.quote('best.toml')} --out RUN",
            intended_use=INTENDED_USE,
        )
    )


def answer(summary: Mapping[str, Any]) -> tuple[str, str]:
    """The sentence in bold, and what follows it."""
    winner, baseline = summary["winner"], summary["baseline"]
    test = _test_figure(summary)
    interval = f" ({span(test.interval, 2)})" if test.interval else ""
    patients = summary["test"]["n_patients"]
    on = "images without known patients" if patients is None else plural(patients, "patient")
    told = (
        f"On test, {on} whom no trial has met, the winner has an AUROC of {decimal(test.value)}{interval}. "
        f"It was chosen for the {decimal(winner['value'])} that it had in cross-validation."
    )
    if winner["baseline"]:
        return f"No trial was better than the recipe's own settings ({summary['recipe']}).", told
    if baseline is None:
        return f"Trial {winner['number']} won; the recipe's own settings could not be trained.", told
    gain = winner["value"] - baseline["value"]
    against = f"Trial {winner['number']} won, {signed(gain)} above the recipe's own settings in cross-validation."
    return against, told


def estimates(summary: Mapping[str, Any]) -> list[Estimate]:
    """The figures of the winner side by side, from the most flattered to the honest one."""
    winner, corrected, test = summary["winner"], summary["corrected"], _test_figure(summary)
    folds = ", ".join(decimal(value) for value in winner["folds"])
    found = [
        Estimate(
            "cross-validated",
            decimal(winner["value"]),
            f"folds {folds}",
            "What it was chosen by: on average too high, because it was chosen for being high.",
        )
    ]
    if corrected["value"] is not None:
        found.append(
            Estimate(
                "corrected for the choice",
                decimal(corrected["value"]),
                DASH,
                f"Of {corrected['resamples']:,} resamples of patients, winners on the patients who were not drawn.",
            )
        )
    of = "Looked at once, after the choice. This is the figure to report."
    if summary["test"]["note"]:
        of += f" But {summary['test']['note']}."
    found.append(Estimate("on test", decimal(test.value), span(test.interval), of))
    if "image_alone" in summary["test"]:
        alone = read_figure(summary["test"]["image_alone"], "auroc")
        told = "Each patch by itself, as trials are judged; above, its neighbours count."
        found.append(Estimate("on test, alone", decimal(alone.value), span(alone.interval), told))
    return found


def winners_curse(summary: Mapping[str, Any]) -> str:
    """Why the cross-validated figure is too high, and how sure the choice is."""
    winner, n = summary["winner"], summary["trials"]["complete"]
    told = (
        f"The best of {plural(n, 'trial')} looks better than it is: some of its lead is luck with these patients "
        "(the winner's curse), and more trials make more of it."
    )
    wins = winner["wins"]
    if wins is not None and n > 1:
        told += (
            " Had other patients of the same kind been there, as resampling them suggests, the same trial would have "
            f"won in {percent(wins)} of the cases"
        )
        baseline = summary["baseline"]
        if baseline is not None and not winner["baseline"] and baseline["wins"] is not None:
            told += f", and the recipe's own settings in {percent(baseline['wins'])}"
        told += "."
    return told


def chosen(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each setting of the space with the recipe's own value and the winner's."""
    winner, baseline = summary["winner"]["settings"], summary["baseline_settings"]
    return [(key, shown(baseline.get(key)), shown(winner.get(key))) for key in summary["space"]]


def protocol(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was looked at when, as terms and their explanation."""
    made, plan, counts = summary["protocol"], summary["plan"], summary["trials"]
    split = {"patient": "by patient", "official": "the one that comes with the data", "image": "by image"}[
        made["split"]
    ]
    patients = made["patients"]

    def amount(name: str) -> str:
        images = plural(made["images"][name], "image")
        return images if patients[name] is None else f"{plural(patients[name], 'patient')}, {images}"

    pruned = (
        "A trial that is below the median of the others after a fold is given up (Optuna's MedianPruner, once five "
        "trials are complete)."
        if plan["pruner"] == "median"
        else "No trial is given up."
    )
    networks = summary["test"]["networks"]
    of = f" It is the mean of {networks} networks, cross-fitted, where a trial trains one." if networks > 1 else ""
    return [
        (
            "First the split",
            f"{split}: train {amount('train')}; validation {amount('validation')}; test {amount('test')}.",
        ),
        (
            "Trials",
            f"{plural(counts['complete'], 'trial')} complete, {counts['pruned']} given up, {counts['failed']} failed. "
            f"Each is judged on {plan['folds']} folds of {made['trials']['by']}s, over train and validation alone "
            f"({plural(made['trials']['images'], 'image')}): in each fold one network is trained, and judged by the "
            f"AUROC of images that it has not met. {pruned}",
        ),
        ("The winner", f"trained once more, on train, by the main job.{of}"),
        (
            "Not looked at",
            "No image of test was given to a trial, and no figure of test had a part in the choice. Thresholds, "
            "calibration and abstention were not searched: the main job chooses them on validation.",
        ),
    ]


def shown(value: object) -> str:
    """A value of a setting as the page writes it."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return DASH
    return value_word(value)


def _test_figure(summary: Mapping[str, Any]) -> Any:
    return read_figure(summary["test"]["image"], "auroc", place="test.image")


def _was_tried(table: pd.DataFrame, key: str) -> bool:
    return bool((table[key].notna() & table["state"].isin(("complete", "pruned"))).any())


def _overview(summary: Mapping[str, Any], table: pd.DataFrame) -> list[tuple[str, Picture]]:
    winner = summary["winner"]["number"]
    found = [("Best so far", sweep_plots.progress(table, winner=winner))]
    if 2 <= len(summary["space"]) <= _MOST_PARALLEL and (table["state"] == "complete").sum() >= 2:
        found.append(("All settings at once", sweep_plots.parallel(table, summary["space"], winner=winner)))
    return found


def _row(row: Any, keys: list[str], winner: int) -> Row:
    folds = [row[name] for name in row.index if name.startswith("fold_") and pd.notna(row[name])]
    marks = ("winner" if row["number"] == winner else "") or ("recipe's own" if row["baseline"] else "")
    return Row(
        int(row["number"]),
        _STATES.get(row["state"], str(row["state"])),
        marks,
        tuple(shown(row[key]) for key in keys),
        ", ".join(decimal(value) for value in folds) or DASH,
        decimal(row["value"]) if pd.notna(row["value"]) else DASH,
        count(row["epochs"]),
        duration(row["seconds"]),
        "" if pd.isna(row["reason"]) else str(row["reason"]),
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = build_environment()
    environment.filters |= {"count": count, "decimal": decimal, "moment": moment, "inline": as_html}
    return environment
