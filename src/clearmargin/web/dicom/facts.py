"""Which model answered and how well it does, as far as an object in an archive must say it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from clearmargin.bundle.read import Bundle
from clearmargin.types import OperatingPoint


@dataclass(frozen=True, slots=True)
class Figure:
    """A value from 0 to 1 with its 95 % interval, where there is one."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model besides what it says of an image."""

    name: str
    """Under which it is served."""
    architecture: str
    bundle_sha256: str
    point: OperatingPoint
    """That decides an image by itself."""
    sensitivity: Figure | None
    specificity: Figure | None
    measured_on: str
    """On what these two were measured, in words."""
    stamp: str | None = None
    """Says so where the figures are optimistic."""

    @property
    def device_uid(self) -> str:
        """The same for the same bundle, wherever it is served (PS3.5, B.2: a UUID below 2.25)."""
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, self.bundle_sha256).int}"


def facts_of(bundle: Bundle, name: str) -> ModelFacts:
    """The facts of a bundle that is served under this name."""
    model = bundle.model
    point, metrics = model.decision_point, model.lineage.metrics
    if metrics is not None and model.lineage.recalibrated is None:
        among = ", in the context of their slides" if model.context is not None else ""
        figures = {key: _figure(metrics[key]) for key in ("sensitivity", "specificity")}
        measured_on = f"images of patients of the test part{among}"
        if model.lineage.stamp:
            measured_on = f"images of the test part{among}"
    else:  # what was measured before the threshold was chosen anew is of another threshold
        achieved = point.achieved
        figures = {key: Figure(achieved[key]) for key in ("sensitivity", "specificity") if key in achieved}
        measured_on = f"images of {point.chosen_on}, where the threshold was chosen"
    return ModelFacts(
        name=name,
        architecture=model.architecture.name,
        bundle_sha256=bundle.sha256,
        point=point,
        sensitivity=figures.get("sensitivity"),
        specificity=figures.get("specificity"),
        measured_on=measured_on,
        stamp=model.lineage.stamp,
    )


def _figure(said: dict[str, object]) -> Figure | None:
    value, interval = said.get("value"), said.get("ci")
    if not isinstance(value, int | float):
        return None
    if isinstance(interval, list | tuple) and len(interval) == 2:
        return Figure(float(value), (float(interval[0]), float(interval[1])))
    return Figure(float(value))
