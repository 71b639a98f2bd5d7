"""Results as text for a terminal. Functions return the text; the commands print it."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearmargin.report.findings import (
    CERTAINTIES,
    LONGEST_WORD,
    certainty,
    clean,
    extent,
    gather_paths,
    message,
    short_path,
    sort_findings,
    usable_line,
    verdict,
)
from clearmargin.report.words import value_word
from clearmargin.types import SPLITS

if TYPE_CHECKING:
    import pandas as pd

_FIGURES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "ECE",
}
_SHOWN_PATHS = 3


def run_summary(folder: Path, metrics: Mapping[str, Any]) -> str:
    """The figures of the test part and where everything is."""
    headline = next(split for split in reversed(SPLITS) if split in metrics)
    image, protocol = metrics[headline]["image"], metrics["protocol"]
    patients = "patients unknown" if image["n_patients"] is None else f"{image['n_patients']:,} patients"
    lines = [""]
    if protocol.get("stamp"):
        lines += [f"*** {protocol['stamp']} ***", ""]
    lines += [
        f"{headline.capitalize()}: {image['n_images']:,} images, {patients}, {_how_tested(protocol)}",
        "",
        f"{'':<20} {'value':>7}   95 % interval",
    ]
    lines += [f"{name:<20} {_figure(image[key])}" for key, name in _FIGURES.items()]
    if "across_folds" in metrics:
        mean, n = metrics["across_folds"]["auroc"], len(metrics["folds"])
        lines += ["", f"AUROC over {n} folds: {_figure({**mean, 'value': mean['mean']}).strip()} (Nadeau-Bengio)"]
    if "seeds" in metrics:
        found, n = metrics["seeds"]["figures"]["auroc"], len(metrics["seeds"]["seeds"])
        lines += [
            "",
            f"AUROC of {n} seeds: {found['min']:.3f} to {found['max']:.3f}, beside the interval over patients",
        ]
    point = metrics["operating_point"]
    lines += ["", f"Malignant at or above {point['threshold']:.3f} ({point['name']}, chosen on {point['chosen_on']})."]
    lines += [_withheld(metrics[headline])]
    lines += [f"\n{metrics[name]['text']}" for name in ("drift", "recalibration") if name in metrics]
    lines += ["", f"report   {folder / 'report.html'}"]
    if (folder / "bundle").is_dir():  # predictions of other software come without one
        lines.append(f"bundle   {folder / 'bundle'}")
        lines.append(f"next     clearmargin predict {shlex.quote(str(folder))} IMAGES")
    return "\n".join(lines)


def sweep_summary(folder: Path, summary: Mapping[str, Any]) -> str:
    """Who won, what it was chosen by and what it has on test, and where everything is."""
    winner, baseline, corrected = summary["winner"], summary["baseline"], summary["corrected"]["value"]
    lines = [""]
    if summary["protocol"].get("stamp"):
        lines += [f"*** {summary['protocol']['stamp']} ***", ""]
    if winner["baseline"]:
        lines.append("No trial was better than the recipe's own settings.")
    else:
        lines.append(f"Trial {winner['number']} won:")
        lines += [f"  {key} = {value_word(value)}" for key, value in winner["settings"].items()]
    lines += ["", f"{'AUROC':<34} {'value':>7}", f"{'cross-validated, chosen by it':<34} {winner['value']:>7.3f}"]
    if baseline is not None and not winner["baseline"]:
        lines.append(f"{'  of the recipe as it is':<34} {baseline['value']:>7.3f}")
    if corrected is not None:
        lines.append(f"{'corrected for the choice':<34} {corrected:>7.3f}")
    lines.append(f"{'on test, looked at once':<34} {_figure(summary['test']['image']['auroc'])}")
    if summary["test"]["note"]:
        lines.append(f"  {summary['test']['note']}")
    lines += ["", f"page     {folder / 'sweep.html'}", f"run      {folder / 'run'}", f"recipe   {folder / 'best.toml'}"]
    return "\n".join(lines)


def _how_tested(protocol: Mapping[str, Any]) -> str:
    if protocol["split"] == "external":
        return "by a finished model"
    folds = f", each in one of {protocol['folds']} folds" if protocol.get("folds") else ""
    return f"split by {protocol['split']}{folds}"


def _withheld(metrics_of_split: Mapping[str, Any]) -> str:
    block = metrics_of_split.get("abstention", {})
    if "deferred" not in block:
        return f"No abstention: {block.get('not_applicable', 'none was fitted')}."
    covered, deferred, wrong = (block[name]["value"] for name in ("covered", "deferred", "error_decided"))
    error = "none is decided" if wrong is None else f"of the others {wrong:.1%} are wrong"
    return (
        f"It cannot tell of {deferred:.1%} of the images; {error}. Covered {covered:.1%}, "
        f"promised {100 * block['coverage']:g}%."
    )


def terminal_width() -> int:
    """Columns to write for: those of the terminal, from 40 to 120; 80 where standard output is none."""
    if not sys.stdout.isatty():
        return 80
    return min(max(shutil.get_terminal_size().columns, 40), 120)


def audit_summary(audit: Mapping[str, Any], *, width: int = 80) -> str:
    """What can be used, each finding with its extent, first places and fix, and the verdict last.

    Args:
        audit: as `Audit.to_dict` gives it.
        width: columns that no line goes beyond.
    """
    data, root = audit["data"], str(audit["data"]["root"])
    indent = " " * (10 if width >= 60 else 2)
    flow = " → ".join(f"{step['count']:,} {step['step']}" for step in audit["flow"])
    lines = [
        *_wrap(f"{clean(root)} (source: {clean(data['source'])})", width),
        *_wrap(usable_line(audit), width),
        *_wrap(flow, width),
        "",
    ]
    for finding in sort_findings(audit["findings"]):
        kind, severity = clean(finding["kind"], LONGEST_WORD), finding["severity"].upper()
        facts = ", ".join(fact for fact in (extent(finding), certainty(finding)) if fact)
        lines += _wrap(f"{severity:<9} {kind} ({facts})", width, after=indent)
        lines += _wrap(message(finding, root), width, indent, after=indent)
        lines += _first_paths(finding, root, width, indent + "  ")
        lines += _wrap(f"Fix: {clean(finding['fix'])}", width, indent, after=indent + "     ")
        lines.append("")
    return "\n".join([*lines, *_wrap(" ".join(verdict(audit)), width)])


def _first_paths(finding: Mapping[str, Any], root: str, width: int, indent: str) -> list[str]:
    """The first files, copies under what they are like, and how many more there are."""
    sign = "= " if certainty(finding) == CERTAINTIES["certain"] else "≈ "
    groups, lines, shown = gather_paths(finding), [], 0
    for group in groups[:_SHOWN_PATHS]:
        for number, path in enumerate(group[:_SHOWN_PATHS]):
            mark = sign if number else ""
            lines += _wrap(short_path(path, root), width, indent + mark, after=indent + "  ")
            shown += 1
    more = sum(map(len, groups)) - shown
    return lines + ([f"{indent}… and {more:,} more"] if more else [])


def _wrap(text: str, width: int, indent: str = "", *, after: str = "") -> list[str]:
    """Lines of at most `width` cells, the first begun with `indent`, the others with `after`; long words are cut."""
    from rich.cells import cell_len, chop_cells

    lines, line, empty = [], indent, True
    for word in text.split(" "):
        if not empty and cell_len(line) + 1 + cell_len(word) <= width:
            line += f" {word}"
            continue
        if not empty:
            lines.append(line)
            line = after
        rest = word
        while cell_len(rest) > width - cell_len(line):
            piece = chop_cells(rest, width - cell_len(line))[0]
            lines.append(line + piece)
            line, rest = after, rest[len(piece) :]
        line, empty = line + rest, False
    return [each.rstrip() for each in [*lines, line]]


def split_summary(table: pd.DataFrame, out: Path) -> str:
    """Patients, images and share of malignant images in each part."""
    column = "fold" if "fold" in table else "split"
    lines = [f"{column:<12} {'patients':>9} {'images':>9} {'malignant':>10}"]
    names = sorted(set(table[column]), key=lambda name: SPLITS.index(name) if name in SPLITS else name)
    for name in names:
        rows = table[table[column] == name]
        known = rows["patient_id"].notna().all()
        patients = f"{rows['patient_id'].nunique():,}" if known else "unknown"
        lines.append(f"{name!s:<12} {patients:>9} {len(rows):>9,} {rows['label'].mean():>10.1%}")
    return "\n".join([*lines, "", f"written to {out}"])


def _figure(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return f"{'-':>7}   {figure['reason']}"
    interval = f"{figure['ci'][0]:.3f} to {figure['ci'][1]:.3f}" if figure["ci"] else f"none: {figure['reason']}"
    return f"{figure['value']:>7.3f}   {interval}"
