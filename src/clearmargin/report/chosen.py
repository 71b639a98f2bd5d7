"""On which images a run's decisions were chosen, and who had seen them: worded once, for every section.

A network that was trained on an image knows it; what such a network says of it must decide nothing. So decisions are
chosen on validation, or out of fold: on what cross-fitted networks say of those that each has not seen.
"""

from __future__ import annotations

from clearmargin.evaluation.choices import VALIDATION
from clearmargin.report.document import Line, many
from clearmargin.report.run_files import RunFiles, Values


def chosen_on(run: RunFiles) -> str:
    """The images that decisions were chosen on, as the end of `chosen on`."""
    if run.decides_by_fold:
        return "the other folds"
    name = str(run.metrics["operating_point"].get("chosen_on") or VALIDATION)
    return "validation data" if name == VALIDATION else name


def by_whom(run: RunFiles) -> str:
    """Who judged the images that a cross-fitted run's decisions were chosen on."""
    known = run.block["image"].get("n_patients") and (run.config is None or run.config.split.by == "patient")
    return f"by networks that had not seen the {'patient' if known else 'image'}"


def units(run: RunFiles, stored: Values, place: str) -> Line:
    """How many patients, or images, an abstention rests on, and which they are.

    Args:
        run: the run.
        stored: an `abstention` that promises something.
        place: where it stands in metrics.json.
    """
    on, unit, key = chosen_on(run), str(stored["unit"]), f"{place}.n_units"
    if on == "validation data":
        return many(stored["n_units"], f"validation {unit}", key)
    if run.decides_by_fold:  # what is stored was chosen on all folds
        return (*many(stored["n_units"], unit, key), ", out of fold,")
    whom = f", {by_whom(run)}," if run.crossfit else "," if "," in on else ""
    return (*many(stored["n_units"], unit, key), f" of {on}{whom}")
