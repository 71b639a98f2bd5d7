"""What a model says of images: decisions, and which places moved it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from clearmargin.display.models import say_rule
from clearmargin.display.page import DECISIONS, bar, block, figure, mark, more, table, tag, text_or_none, thumbnail
from clearmargin.images.read import read_image
from clearmargin.report.findings import clean
from clearmargin.report.words import DASH, decimal, plural
from clearmargin.types import INTENDED_USE

if TYPE_CHECKING:
    from clearmargin.tables import ExplanationTable, PredictionTable

_MOST_ROWS = 12
_MOST_PICTURES = 4
_PICTURE_PX = 640


def show_predictions(predictions: PredictionTable) -> str | None:
    """A row an image: what it looks like, the decision, and the probability beside the threshold."""
    about = predictions.about
    unknown = {"path", "probability", "decision", "reason"} - set(predictions)
    if unknown or not about or len(about["in_context"]) != len(predictions):
        return None
    rules = [_rule(about, inside) for inside in about["in_context"]]
    rows = []
    for row, rule in zip(predictions.head(_MOST_ROWS).to_dict("records"), rules, strict=False):
        path, value = str(row["path"]), _number(row["probability"])
        patient = text_or_none(row.get("patient_id"))
        name = clean(PurePath(path.replace("\\", "/")).name or path, 60)
        rows.append(
            (
                thumbnail(path, read_image, px=56),
                tag("span", name, *([tag("br"), tag("span", f"patient {patient}", class_="muted")] if patient else [])),
                mark(str(row["decision"])),
                decimal(value),
                DASH if value is None else bar(value, *rule),
                tag("span", text_or_none(row["reason"]) or "", class_="muted"),
            )
        )
    said = Counter(predictions["decision"].astype(str))
    counts = [f"{said[name]:,} {word.lower()}" for name, (_, word) in DECISIONS.items() if said[name]]
    told = dict.fromkeys(say_rule(*rule) for rule in rules)
    return block(
        tag("p", f"{plural(len(predictions), 'image')}: {', '.join(counts) or 'none'}", class_="title"),
        tag("p", "; or, where a patch has no neighbours, ".join(told), class_="muted"),
        table(("", "image", "decision", "probability", "of malignant", ""), rows, numbers=(3,)) if rows else "",
        *more(len(predictions), len(rows), "rows"),
        tag("p", INTENDED_USE, class_="muted"),
    )


def _rule(about: Mapping[str, Any], inside: bool) -> tuple[float, tuple[float, float] | None]:
    decisions = about["context"] if inside else about["alone"]
    return decisions.decision_point.threshold, decisions.conformal.between if decisions.conformal else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, float) and not np.isnan(value) else None


def show_explanations(explanations: ExplanationTable) -> str | None:
    """The first pictures that were written, and why images were refused."""
    folder = explanations.about.get("folder")
    if folder is None or not {"path", "decision", "reason", "picture"} <= set(explanations):
        return None
    parts: list[str] = []
    for row in explanations.head(_MOST_PICTURES).to_dict("records"):
        name = clean(PurePath(str(row["path"]).replace("\\", "/")).name, 60)
        if isinstance(row["picture"], str):
            caption = f"{name}: {clean(row.get('method') or '', 40).replace('_', ' ')}"
            shown = thumbnail(str(folder / PurePath(row["picture"]).name), read_image, px=_PICTURE_PX)
            parts.append(figure(shown, caption, wide=True))
        else:
            reason = text_or_none(row["reason"])
            parts.append(tag("p", mark(str(row["decision"])), f" {name}", f": {reason}" if reason else ""))
    return block(
        tag("div", *parts, class_="row"),
        *more(len(explanations), min(len(explanations), _MOST_PICTURES), "rows"),
    )
