"""What the API tells of a bundle: what it takes, how it decides, what it achieved and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearmargin.bundle.schema import Decisions
from clearmargin.web.answers import (
    AbstentionFacts,
    ContextFacts,
    Figure,
    GateFacts,
    InputFacts,
    LineageFacts,
    MethodFacts,
    ModelAnswer,
    PointFacts,
    SimilarFacts,
)
from clearmargin.web.served import Served

_NO_GATE = "this bundle has no input gate: no image is refused for its look"
_OFF = "switched off: images unlike those of training are decided too, which means nothing"


def model_facts(served: Served) -> ModelAnswer:
    """All of it; blocks while torch is imported, for the methods."""
    model, kept = served.model, served.model.cases
    spec, lineage, metrics = model.preprocessing, model.lineage, model.lineage.metrics
    return ModelAnswer(
        name=served.name,
        architecture=model.architecture.name,
        parameters=model.architecture.parameters,
        content=model.content,
        input=InputFacts(width=spec.width, height=spec.height, channels=spec.channels),
        operating_point=_point(model, None if model.context or model.lineage.recalibrated else metrics),
        calibration=model.calibrated_by.method,
        abstention=_abstention(model),
        gate=_gate(served),
        context=ContextFacts(
            active=model.context is not None,
            step=model.context.grid.step if model.context else None,
            operating_point=_point(model.context, None if lineage.recalibrated else metrics) if model.context else None,
            abstention=_abstention(model.context) if model.context else None,
            reason=None if model.context else model.no_context or "neighbours do not count",
        ),
        similar=SimilarFacts(
            available=kept is not None,
            images=kept.images if kept else 0,
            pseudonymous=kept is not None and kept.pseudonymous,
        ),
        methods=_methods(served),
        prevalence=served.prevalence,
        stamp=lineage.stamp,
        lineage=LineageFacts(
            recipe=lineage.recipe,
            split=lineage.split,
            patients=(metrics or {}).get("n_patients"),
            images=(metrics or {}).get("n_images"),
            created=lineage.created,
            clearmargin=lineage.clearmargin,
            sha256=served.predictor.bundle.sha256,
        ),
        test=None if metrics is None else _figures(metrics),
        intended_use=model.intended_use,
    )


def _point(decides: Decisions, metrics: Mapping[str, Any] | None) -> PointFacts:
    """What decides, and what it achieved in these figures of the test part, or without them where it was chosen."""
    point = decides.decision_point
    if metrics is None:
        found = {name: Figure(value=point.achieved.get(name), ci=None) for name in ("sensitivity", "specificity")}
    else:
        found = {name: _figure(metrics, name) for name in ("sensitivity", "specificity")}
    return PointFacts(
        name=point.name,
        rule=point.rule,
        threshold=point.threshold,
        chosen_on=point.chosen_on,
        achieved_on=point.chosen_on if metrics is None else "test",
        **found,
    )


def _abstention(decides: Decisions) -> AbstentionFacts:
    promise = decides.conformal
    return AbstentionFacts(
        active=promise is not None,
        coverage=promise.coverage if promise else None,
        between=promise.between if promise else None,
        reason=None if promise else decides.no_abstention or "every decision is benign or malignant",
    )


def _figures(metrics: Mapping[str, Any]) -> dict[str, Figure]:
    names = [name for name, entry in metrics.items() if isinstance(entry, Mapping) and "value" in entry]
    return {name: _figure(metrics, name) for name in names}


def _figure(metrics: Mapping[str, Any], name: str) -> Figure:
    entry = metrics.get(name) or {}
    return Figure(value=entry.get("value"), ci=entry.get("ci"))


def _gate(served: Served) -> GateFacts:
    fitted = served.model.input_gate
    if fitted is None:
        why = served.model.no_gate
        return GateFacts(active=False, reason=f"{_NO_GATE} ({why})" if why else _NO_GATE)
    if not served.predictor.is_gated:
        return GateFacts(active=False, reason=_OFF)
    partly = None if fitted.look is not None else f"checks only size, colour and blank images: {fitted.no_look}"
    return GateFacts(active=True, reason=partly)


def _methods(served: Served) -> list[MethodFacts]:
    from clearmargin.explanation.methods import METHODS  # noqa: PLC0415  (torch)

    scales = served.model.saliency or {}
    return [
        MethodFacts(name=name, title=each.title, unit=each.unit, signed=each.signed, has_scale=name in scales)
        for name, each in METHODS.items()
    ]
