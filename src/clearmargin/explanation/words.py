"""What a picture says of its explanation in words."""

from __future__ import annotations

from clearmargin.explanation.explainer import Explanation
from clearmargin.explanation.methods import find_method
from clearmargin.types import NOT_GATED

_HARDLY = 0.25
"""Logits; from even odds, they take a probability from 0.50 to 0.56."""
_ALONE = "This is about the patch by itself, without its neighbours in the slide."
DISCLAIMER = "Evidence for this network, not for disease."


def say_decision(explanation: Explanation) -> str:
    """What was decided, and by which number."""
    said = f"probability of malignant {explanation.probability:.3f}"
    withheld = explanation.between
    unsure = f"undecided from {withheld[0]:.3f} to {withheld[1]:.3f}" if withheld is not None else ""
    if explanation.decision == "abstain":
        return f"Cannot tell: {said}, {unsure}."
    line = f"{explanation.decision.capitalize()}: {said}, malignant from {explanation.threshold:.3f}"
    return f"{line} ({unsure})." if unsure else f"{line}."


def say_remarks(explanation: Explanation) -> list[str]:
    """What a reader would miss of the map: a sentence each."""
    remarks = [say_faint(explanation.scale.saturation, explanation.full_reach)]
    if not explanation.map.any():
        moved = "No place moved it" if find_method(explanation.method).signed else "No place spoke for malignant"
        remarks.insert(0, f"{moved}: the map is zero everywhere.")
    return [remark for remark in remarks if remark is not None]


def say_faint(saturation: float, full_reach: float) -> str | None:
    """That full colour means next to nothing, where the network hardly moves.

    >>> say_faint(0.1, 4.9), say_faint(0.002, 0.098)
    (None, 'Full colour is 0.002 logits, and all over the image 0.098: this network hardly moves.')
    """
    if full_reach >= _HARDLY:
        return None
    return (
        f"Full colour is {saturation:.3g} logits, and all over the image {full_reach:.2g}: this network hardly moves."
    )


def say_end(value: float) -> str:
    """What a colour stands for: beyond its ends a scale goes no further.

    >>> say_end(0.0966), say_end(0.0), say_end(-2.0)
    ('0.0966 or more', '0', '-2 or less')
    """
    return f"{value:.3g}{' or more' if value > 0 else ' or less' if value < 0 else ''}"


def say_reasons(explanation: Explanation) -> list[str]:
    """Why a decision was withheld, and what it was made without, gate or neighbours: a sentence each."""
    reasons = explanation.reason.split("; ") if explanation.reason else []
    said = [_REASONS.get(reason, f"{reason[:1].upper()}{reason[1:]}.") for reason in reasons]
    return [*said, _ALONE] if explanation.alone else said


_REASONS = {NOT_GATED: "Not gated: it was not checked whether this image is like those of training."}
