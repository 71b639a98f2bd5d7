"""`clearmargin compare`: whether two or more models differ on the images that all of a pair were tested on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearmargin.cli.options import AsJson

if TYPE_CHECKING:
    import pandas as pd


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more run folders, or CSV or Parquet files of any software with path, label and probability."
        ),
    ],
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="For files without decisions: one for all, or given again for each in their order."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=40, help="Bootstrap resamples of patients.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare models on the same test images: differences with intervals over patients, and what they show."""
    import json

    from clearmargin import api
    from clearmargin.cli.progress import build_listener
    from clearmargin.cli.show import terminal_width

    table = api.compare(
        runs, resamples=resamples, seed=seed, thresholds=tuple(threshold or ()), listener=build_listener()
    )
    if as_json:
        print(json.dumps(comparison_values(table), allow_nan=False))
    else:
        print(comparison_summary(table, width=terminal_width()))


def comparison_values(table: pd.DataFrame) -> dict[str, Any]:
    """The comparison as clean JSON: the table's `attrs`, and under each of `pairs` its `figures` by name."""
    values: dict[str, Any] = {str(name): value for name, value in table.attrs.items()}
    values["pairs"] = []
    for pair in table.attrs["pairs"]:
        rows = _rows_of(table, pair).drop(columns=["a", "b"])
        clean = rows.astype(object).where(rows.notna(), None)
        figures = {row.pop("figure"): row for row in clean.to_dict("records")}
        values["pairs"].append({**pair, "figures": figures})
    return values


def comparison_summary(table: pd.DataFrame, *, width: int = 80) -> str:
    """What was compared, a table of figures for each pair, and the verdict below it.

    Args:
        table: as `api.compare` gives it.
        width: columns that no sentence goes beyond.
    """
    import textwrap

    from clearmargin.report.findings import clean

    letters = {model["name"]: model["letter"] for model in table.attrs["models"]}
    lines = [""]
    for model in table.attrs["models"]:
        point = "no threshold" if model["threshold"] is None else f"malignant at or above {model['threshold']:.3f}"
        lines.append(f"{model['letter']}  {clean(model['name'])} ({point})")
    for pair in table.attrs["pairs"]:
        a, b = letters[pair["a"]], letters[pair["b"]]
        rows = _rows_of(table, pair)
        lines += ["", *_compared(pair, a, b), "", *_figures(rows, a, b), ""]
        for text in [pair["verdict"], *_mcnemar(rows), *(f"Note: {note}." for note in [*pair["notes"], *_notes(rows)])]:
            lines += textwrap.wrap(clean(text), width, break_on_hyphens=False)
    lines += ["", "p is corrected for all pairs and figures that have one (Holm); intervals are not."]
    return "\n".join([*lines, *(f"Note: {note}" for note in table.attrs["notes"])])


def _rows_of(table: pd.DataFrame, pair: Mapping[str, Any]) -> pd.DataFrame:
    rows: pd.DataFrame = table.loc[(table["a"] == pair["a"]) & (table["b"] == pair["b"])]
    return rows


def _compared(pair: Mapping[str, Any], a: str, b: str) -> list[str]:
    """How many images are compared, and how many were left out, for which reason."""
    images = pair["images"]
    patients = "patients unknown" if pair["n_patients"] is None else f"{pair['n_patients']:,} patients"
    why = {
        f"only in {a}": images["unmatched_a"],
        f"only in {b}": images["unmatched_b"],
        "in the train or validation part of the other": images["trained_images"],
        "of a patient who is in such a part": images["trained_patients"],
    }
    left_out = [f"{number:,} {reason}" for reason, number in why.items() if number]
    return [
        f"{a} and {b}: {pair['n_images']:,} test images, {patients}, matched by {pair['matched_by']}",
        *([f"left out: {', '.join(left_out)}"] if left_out else []),
    ]


def _figures(rows: pd.DataFrame, a: str, b: str) -> list[str]:
    from clearmargin.evaluation.verdict import spell_figure

    header = f"{'':<18} {a:>6} {b:>6} {f'{a} - {b}':>8}   {'95 % interval':<18} {'p':>7}  test"
    return [header, *(_figure(spell_figure(row["figure"]), row) for _, row in rows.iterrows())]


def _mcnemar(rows: pd.DataFrame) -> list[str]:
    from clearmargin.evaluation.verdict import spell_figure

    tested = rows[rows["p_mcnemar"].notna()]
    if tested.empty:
        return []
    kind = "exact" if (tested["test"] == "exact McNemar").any() else "for clusters"
    values = [f"{spell_figure(name)} {_p(p)}" for name, p in zip(tested["figure"], tested["p_mcnemar"], strict=True)]
    return [f"McNemar's test ({kind}), p not corrected: {', '.join(values)}."]


def _notes(rows: pd.DataFrame) -> list[str]:
    """What must be said beside single figures, those with the same note together."""
    from clearmargin.evaluation.verdict import spell_figure

    noted = rows[rows["note"].notna() & rows["difference"].notna()]
    return [f"{', '.join(map(spell_figure, of_note['figure']))}: {note}" for note, of_note in noted.groupby("note")]


def _figure(name: str, row: pd.Series) -> str:
    import pandas as pd

    if pd.isna(row["difference"]):
        return f"{name:<18} {row['note']}"
    interval = "-" if pd.isna(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}"
    p = "" if pd.isna(row["p_corrected"]) else _p(row["p_corrected"])
    test = row["test"] if p else ""
    values = f"{row['value_a']:>6.3f} {row['value_b']:>6.3f} {row['difference']:>+8.3f}"
    return f"{name:<18} {values}   {interval:<18} {p:>7}  {test}".rstrip()


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
