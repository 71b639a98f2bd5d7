"""What both objects share: whose they are, in which study, of which image, and what made them.

Each object starts a series of its own in the study of its source. Texts are in UTF-8, whatever the source's are.
"""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from clearmargin import __version__
from clearmargin.types import Prediction
from clearmargin.web.answers import Figure, ModelAnswer
from clearmargin.web.dicom.source import PATIENT_AND_STUDY, Source

MANUFACTURER = "Clearmargin"
RESEARCH_ONLY = "For research only, not for diagnosis."
CHARACTER_SET = "ISO_IR 192"
_LONGEST_LO = 64
_UNKNOWN_METHOD = "not stated in the source image"


def new_identity(*, series_number: int, description: str, model: ModelAnswer) -> dict[str, Any]:
    """The arguments of every object of highdicom: new UIDs (UUIDs below 2.25), a series, and who made it."""
    return {
        "series_instance_uid": generate_uid(prefix=None),
        "series_number": series_number,
        "sop_instance_uid": generate_uid(prefix=None),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": shortened(model.name),
        "software_versions": __version__,
        "device_serial_number": model.lineage.sha256,
        "series_description": description,
        "content_qualification": "RESEARCH",
        "specific_character_set": CHARACTER_SET,
    }


def file_beside(dataset: Dataset, source: Source) -> None:
    """Gives the object patient and study of its source, and nothing else of them.

    Not through arguments of highdicom, which writes names that it doubts to the log.
    """
    for keyword in PATIENT_AND_STUDY:
        value = source.patient_and_study.get(keyword)
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.StudyInstanceUID = source.study_uid
    if source.is_identity_removed is not None:
        dataset.PatientIdentityRemoved = "YES" if source.is_identity_removed else "NO"
    if source.is_identity_removed:
        dataset.DeidentificationMethod = list(source.deidentification) or [_UNKNOWN_METHOD]


def shortened(text: str, longest: int = _LONGEST_LO) -> str:
    r"""The text as one value of DICOM: without backslashes, which part values, and no longer than that.

    >>> shortened("a\\b"), shortened("abcdef", 4)
    ('a/b', 'abc…')
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text).replace("\\", "/").strip()
    return text if len(text) <= longest else text[: longest - 1] + "…"


def say_prediction(prediction: Prediction, model: ModelAnswer) -> str:
    """The decision in one line."""
    if prediction.probability is None:
        return f"Refused: {prediction.reason}"
    word = {"abstain": "Cannot tell"}.get(prediction.decision, prediction.decision.capitalize())
    why = f" ({prediction.reason})" if prediction.reason else ""
    chance, threshold = f"{prediction.probability:.3f}", f"{model.operating_point.threshold:.3f}"
    return f"{word}{why}: probability of malignant {chance}, malignant from {threshold}."


def say_model(model: ModelAnswer) -> str:
    """Which model it was in one line."""
    made = f"model {model.name} ({model.architecture}), bundle {model.lineage.sha256[:12]}."
    return f"Clearmargin {__version__}, {made}{f' {model.stamp}.' if model.stamp else ''}"


def say_figures(model: ModelAnswer) -> str:
    """How well it does at this threshold, in one line."""
    point = model.operating_point
    named = (("sensitivity", point.sensitivity), ("specificity", point.specificity))
    parts = [f"{name} {said}" for name, figure in named if (said := say_figure(figure))]
    if not parts:
        return f"Operating point {point.name}: how well it does is not known."
    return f"Operating point {point.name}: {', '.join(parts)}, measured on {say_measured_on(model)}."


def say_measured_on(model: ModelAnswer) -> str:
    """On what images sensitivity and specificity are known."""
    point = model.operating_point
    # The figures of test are those in context where there is one; an image alone has others.
    among = ", in the context of their slides" if model.context.active and point.achieved_on == "test" else ""
    return f"images of {point.achieved_on}{among}"


def say_figure(figure: Figure) -> str:
    """The value with its interval, or nothing where it is not known.

    >>> say_figure(Figure(value=0.9, ci=(0.8, 0.95))), say_figure(Figure(value=0.9, ci=None))
    ('0.900 (95 % interval 0.800 to 0.950)', '0.900 (without an interval)')
    """
    if figure.value is None:
        return ""
    if figure.ci is None:
        return f"{figure.value:.3f} (without an interval)"
    return f"{figure.value:.3f} (95 % interval {figure.ci[0]:.3f} to {figure.ci[1]:.3f})"
