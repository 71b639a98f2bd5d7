"""What a picture says of its explanation in words."""

from __future__ import annotations

from clearmargin.explanation.explainer import Explanation
from clearmargin.types import NOT_GATED

EMPTY_MAP = "The map is zero everywhere: by this method no place moved the network."
DISCLAIMER = "Evidence for this network, not for disease."


def say_decision(explanation: Explanation) -> str:
    """What was decided, and by which numbers."""
    decision = {"abstain": "cannot tell"}.get(explanation.decision, explanation.decision)
    said = f"{decision.capitalize()}: probability of malignant {explanation.probability:.3f}"
    if explanation.decision == "abstain" and explanation.between is not None:
        low, high = explanation.between
        return f"{said}, undecided from {low:.3f} to {high:.3f}."
    return f"{said}, malignant from {explanation.threshold:.3f}."


def say_reasons(explanation: Explanation) -> list[str]:
    """Why a decision was withheld, that it was made without the gate, that a map is empty: a sentence each."""
    reasons = explanation.reason.split("; ") if explanation.reason else []
    sentences = [_REASONS.get(reason, f"{reason[:1].upper()}{reason[1:]}.") for reason in reasons]
    return [*sentences, *([EMPTY_MAP] if not explanation.map.any() else [])]


def say_end(value: float) -> str:
    """What a colour stands for: beyond its ends a scale goes no further.

    >>> say_end(0.0966), say_end(0.0), say_end(-2.0)
    ('0.0966 or more', '0', '-2 or less')
    """
    return f"{value:.3g}{' or more' if value > 0 else ' or less' if value < 0 else ''}"


_REASONS = {NOT_GATED: "Not gated: it was not checked whether this image is like those of training."}
