"""Images before any model: the manifest, the audit, the split, and what training makes of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from clearmargin.display.page import block, facts, figure, more, picture_of, table, tag, text_or_none, thumbnail
from clearmargin.files import seen_from_here
from clearmargin.images.read import read_image
from clearmargin.report.findings import (
    certainty,
    clean,
    extent,
    message,
    short_path,
    sort_findings,
    title,
    usable_line,
    verdict,
)
from clearmargin.report.words import DASH, count, percent
from clearmargin.types import LABEL_NAMES, MALIGNANT, SPLITS

if TYPE_CHECKING:
    import pandas as pd

    from clearmargin.data.audit import Audit
    from clearmargin.data.manifest import Manifest
    from clearmargin.tables import SplitTable
    from clearmargin.training.augmented import AugmentedImages

_MOST_FINDINGS = 20
_MOST_SITES = 8
_OF_EACH_CLASS = 4
_MOST_AUGMENTED = 6


def show_manifest(manifest: Manifest) -> str:
    """Counts by class, patient and site, and a few images of each class."""
    root = clean(seen_from_here(manifest.root), 200)
    return block(
        tag("p", f"Images of {root}", class_="title"),
        tag("p", manifest.describe(), f"; source: {clean(manifest.source, 40)}."),
        _counts(manifest),
        _examples(manifest),
    )


def show_audit(audit: Audit) -> str:
    """The verdict, the findings with what mends each, and a few of the images."""
    values = audit.to_dict()
    root = str(audit.manifest.root)
    ends, todo = verdict(values)
    found = sort_findings(values["findings"])
    rows = [
        (
            tag("span", each["severity"], class_=f"word {each['severity']}"),
            tag("span", tag("b", title(each)), tag("br"), tag("span", _how_sure(each), class_="muted")),
            tag("span", message(each, root), tag("br"), tag("span", f"Fix: {clean(each['fix'], 400)}", class_="muted")),
        )
        for each in found[:_MOST_FINDINGS]
    ]
    quarantined = [
        (short_path(file["path"], root, 80), clean(file["reason"], 160)) for file in values["quarantine"][:5]
    ]
    return block(
        tag("p", f"Audit of {clean(seen_from_here(root), 200)}", class_="title"),
        tag("p", tag("b", ends), f" {todo} {usable_line(values)}"),
        table(("severity", "finding", "what, and how to mend it"), rows) if rows else "",
        *more(len(found), len(rows), "findings in .findings"),
        *([tag("p", "In quarantine:"), facts(quarantined)] if quarantined else []),
        *more(len(values["quarantine"]), len(quarantined), "files in .quarantine"),
        _examples(audit.manifest),
    )


def _how_sure(finding: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (certainty(finding), extent(finding))))


def _counts(manifest: Manifest) -> Markup:
    frame = manifest.frame
    known = manifest.knows_patients
    groups = [(name, frame[frame["label"] == label]) for label, name in enumerate(LABEL_NAMES)]
    sites = frame["site"].dropna()
    if sites.nunique() > 1:
        names = sites.value_counts().index[:_MOST_SITES]
        groups += [(f"site {clean(name, 60)}", frame[frame["site"] == name]) for name in names]
    groups.append(("all", frame))
    rows = [
        (
            tag("span", name),
            count(len(part)),
            count(part["patient_id"].nunique()) if known else DASH,
            percent(float((part["label"] == MALIGNANT).mean())) if len(part) else DASH,
        )
        for name, part in groups
    ]
    return table(("", "images", "patients", "malignant"), rows, numbers=(1, 2, 3))


def _examples(manifest: Manifest) -> Markup:
    """A few images of each class, of as many patients as there are."""
    shown = []
    for label, name in enumerate(LABEL_NAMES):
        rows = manifest.frame[manifest.frame["label"] == label]
        for _, row in spread(rows, _OF_EACH_CLASS).iterrows():
            patient = text_or_none(row["patient_id"])
            caption = name if patient is None else f"{name}, {patient}"
            shown.append(figure(thumbnail(row["path"], lambda path: read_image(manifest.locate(path))), caption))
    return tag("div", *shown, class_="row")


def spread(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many rows, evenly spread, since neighbours are often of one patient."""
    step = max(len(rows), 1) / most
    return rows if len(rows) <= most else rows.iloc[[int((number + 0.5) * step) for number in range(most)]]


def show_split(split: SplitTable) -> str | None:
    """Patients, images and the share of malignant images in each part, and whether a patient is in two."""
    column = next((name for name in ("split", "fold") if name in split), None)
    if column is None or not {"path", "patient_id", "label"} <= set(split):
        return None
    frame = split.plain()
    known = bool(frame["patient_id"].notna().all())
    names = sorted(set(frame[column]), key=lambda name: SPLITS.index(name) if name in SPLITS else name)
    parts = [(str(name), frame[frame[column] == name]) for name in names]
    rows = [
        (
            clean(name, 40),
            count(part["patient_id"].nunique()) if known else DASH,
            count(len(part)),
            percent(float(part["label"].mean())),
        )
        for name, part in [*parts, ("all", frame)]
    ]
    crossing = int((frame.groupby("patient_id")[column].nunique() > 1).sum())
    both = "No patient is in two parts." if not crossing else f"{crossing:,} patients are in more than one part."
    columns = (column, "patients", "images", "malignant")
    return block(
        tag("p", "Split" if column == "split" else "Folds", class_="title"),
        table(columns, rows, numbers=(1, 2, 3)),
        tag("p", both if known else "The patients are not known.", class_="warn" if crossing or not known else None),
        tag("p", f"A table of {len(frame):,} rows: {', '.join(frame.columns)}.", class_="muted"),
    )


def show_augmented(images: AugmentedImages) -> str:
    """Each image as it is, and beside it as training sees it."""
    rows = []
    for number, original in enumerate(images.originals[:_MOST_AUGMENTED]):
        changed = images.changed[number] if images.changes else ()
        variants = [picture_of(each, alt="changed at random") for each in changed]
        label = LABEL_NAMES[images.labels[number]]
        rows.append((label, picture_of(original, alt=f"{label} image"), tag("span", *_spaced(variants))))
    return block(
        tag("p", f"What recipe {clean(images.recipe, 60)} makes of images", class_="title"),
        tag("p", images.describe()),
        table(("", "as it is", "as training sees it, each time otherwise" if images.changes else ""), rows),
        *more(len(images.originals), len(rows), "images in .originals"),
    )


def _spaced(parts: list[Markup]) -> list[Markup]:
    return [piece for part in parts for piece in (part, Markup(" "))]
