"""Results as text for a terminal. Functions return the text; the commands print it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearmargin.errors import one_line
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
    image, protocol = metrics["test"]["image"], metrics["protocol"]
    patients = "patients unknown" if image["n_patients"] is None else f"{image['n_patients']:,} patients"
    lines = [""]
    if protocol.get("stamp"):
        lines += [f"*** {protocol['stamp']} ***", ""]
    lines += [
        f"Test: {image['n_images']:,} images, {patients}, split by {protocol['split']}",
        "",
        f"{'':<20} {'value':>7}   95 % interval",
    ]
    lines += [f"{name:<20} {_figure(image[key])}" for key, name in _FIGURES.items()]
    point = metrics["operating_point"]
    lines += [
        "",
        f"Malignant at or above {point['threshold']:.3f} ({point['name']}, chosen on validation).",
        "",
        f"report   {folder / 'report.html'}",
        f"bundle   {folder / 'bundle'}",
        f"next     clearmargin predict {shlex.quote(str(folder))} IMAGES",
    ]
    return "\n".join(lines)


def audit_summary(audit: Mapping[str, Any]) -> str:
    """Counts, then each finding with its place and fix."""
    counts, data = audit["counts"], audit["data"]
    patients = "patients unknown" if counts["patients"] is None else f"{counts['patients']:,} patients"
    classes = f"{counts['benign']:,} benign, {counts['malignant']:,} malignant"
    lines = [
        f"{data['root']} (source: {data['source']})",
        f"{counts['images']:,} usable images: {classes}; {patients}",
        "",
    ]
    for finding in audit["findings"]:
        lines.append(f"{finding['severity'].upper():<9} {finding['kind']}")
        lines.append(f"          {one_line(finding['message'])}")
        lines += [f"            {one_line(path)}" for path in finding["paths"][:_SHOWN_PATHS]]
        if len(finding["paths"]) > _SHOWN_PATHS:
            lines.append(f"            … and {len(finding['paths']) - _SHOWN_PATHS:,} more")
        lines.append(f"          Fix: {finding['fix']}")
    if not audit["findings"]:
        lines.append("Nothing found.")
    blocking = sum(finding["severity"] == "blocking" for finding in audit["findings"])
    lines += ["", f"{blocking} blocking: mend them first." if blocking else "Nothing blocks."]
    return "\n".join(lines)


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
