"""What a picture says of its explanation in words."""

from __future__ import annotations

from clearmargin.explanation.explainer import Explanation
from clearmargin.explanation.methods import find_method
from clearmargin.types import NOT_GATED

DISCLAIMER = "Evidence for this network, not for disease."


def say_decision(explanation: Explanation) -> str:
    """What was decided, and by which number."""
    decision = {"abstain": "cannot tell"}.get(explanation.decision, explanation.decision)
    return (
        f"{decision.capitalize()}: probability of malignant {explanation.probability:.3f}, malignant from "
        f"{explanation.threshold:.3f}."
    )


def say_remarks(explanation: Explanation) -> list[str]:
    """What a reader would miss of the map: a sentence each."""
    if not explanation.map.any():
        moved = "No place moved it" if find_method(explanation.method).signed else "No place spoke for malignant"
        return [f"{moved}: the map is zero everywhere."]
    return []


def say_reasons(explanation: Explanation) -> list[str]:
    """Why a decision was withheld, and that it was made without the gate: a sentence each."""
    reasons = explanation.reason.split("; ") if explanation.reason else []
    return [_REASONS.get(reason, f"{reason[:1].upper()}{reason[1:]}.") for reason in reasons]


_REASONS = {NOT_GATED: "Not gated: it was not checked whether this image is like those of training."}
