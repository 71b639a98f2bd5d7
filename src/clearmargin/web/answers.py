"""Every answer of the API as a pydantic model, for the schema; rows are made elsewhere and sent as they are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from clearmargin.types import Content, Decision


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorDetail(BaseModel):
    """More of an error: a field of the request, or a file by the name that the client gave it."""

    model_config = ConfigDict(extra="allow")

    reason: str


class ErrorFacts(_Answer):
    status: int
    code: str
    message: str
    request_id: str
    details: list[ErrorDetail]


class ErrorAnswer(_Answer):
    """What every error looks like."""

    error: ErrorFacts


class SimilarRow(_Answer):
    """A training image that the network finds like the new one."""

    patient_id: str | None
    slide_id: str | None
    path: str | None
    label: Literal["benign", "malignant"]
    distance: float
    same_patient: bool | None
    thumbnail: str
    """Where its picture is."""


class PredictionRow(_Answer):
    """What the model says of one image."""

    path: str
    patient_id: str | None
    slide_id: str | None
    x: int | None
    y: int | None
    probability: float | None
    decision: Decision
    reason: str | None
    at_prevalence: float | None
    in_context: bool
    """Its neighbours in the slide counted too, so that `context` of the model has what decided."""
    similar: list[SimilarRow] | None = None


class PredictAnswer(_Answer):
    model: str
    operating_point: dict[str, Any]
    predictions: list[PredictionRow]


class ScaleFacts(_Answer):
    saturation: float
    """Absolute value, in the method's unit, at which the colour is full."""
    rule: str
    images: int
    of: str


class MapAnswer(_Answer):
    """One explanation as pictures, PNGs as data URLs."""

    method: str
    title: str
    unit: str
    signed: bool
    """Whether it can speak against malignant."""
    scale: ScaleFacts
    logit: float
    layer: str
    """The map alone, RGBA, as large as `image`; opaque where its colour is full."""
    picture: str
    """Image and map side by side, with the legend."""


class ExplainedImage(_Answer):
    path: str
    decision: Decision
    probability: float | None
    reason: str | None
    width: int | None
    height: int | None
    image: str | None
    """The image in colour as it is shown: small ones enlarged, large ones reduced. Null where it was refused."""
    maps: list[MapAnswer]


class ExplainAnswer(_Answer):
    model: str
    explanations: list[ExplainedImage]


class Figure(_Answer):
    """A figure of the test part, or as named in `achieved_on`; the interval is of 95 %."""

    value: float | None
    ci: tuple[float, float] | None


class InputFacts(_Answer):
    width: int
    height: int
    channels: Literal[1, 3]


class PointFacts(_Answer):
    """What decides an image by itself, or in context, and what it achieved."""

    name: str
    rule: str
    threshold: float
    chosen_on: str
    sensitivity: Figure
    specificity: Figure
    achieved_on: str


class AbstentionFacts(_Answer):
    active: bool
    coverage: float | None
    between: tuple[float, float] | None
    """Probabilities from and to which the decision is withheld; null where it never is."""
    reason: str | None
    """Why it is not active."""


class GateFacts(_Answer):
    active: bool
    reason: str | None
    """Why it is not active, or checks less than it could."""


class ContextFacts(_Answer):
    active: bool
    step: int | None
    """Pixels from a patch to the next."""
    operating_point: PointFacts | None
    """What decides in context; null where it is not active, as the next."""
    abstention: AbstentionFacts | None
    reason: str | None


class SimilarFacts(_Answer):
    available: bool
    images: int
    pseudonymous: bool


class MethodFacts(_Answer):
    name: str
    title: str
    unit: str
    signed: bool
    has_scale: bool
    """The bundle has a colour scale; else drawn images give one."""


class LineageFacts(_Answer):
    recipe: str | None
    split: str
    patients: int | None
    """Of the test part."""
    images: int | None
    created: str
    clearmargin: str
    sha256: str
    """Of the bundle."""


class ModelAnswer(_Answer):
    name: str
    architecture: str
    parameters: int
    content: Content | None
    input: InputFacts
    operating_point: PointFacts
    calibration: str
    abstention: AbstentionFacts
    gate: GateFacts
    context: ContextFacts
    similar: SimilarFacts
    methods: list[MethodFacts]
    prevalence: float | None
    """The share of malignant images at which the probabilities hold."""
    stamp: str | None
    lineage: LineageFacts
    test: dict[str, Figure] | None
    intended_use: str


class ModelsAnswer(_Answer):
    models: list[ModelAnswer]


class CardAnswer(_Answer):
    model: str
    markdown: str
    html: str


class FigureAnswer(_Answer):
    name: str
    title: str
    caption: str
    svg: str
    """One <svg> element without styles of its own, so that it may stand in a page with a strict policy."""


class FiguresAnswer(_Answer):
    model: str
    figures: list[FigureAnswer]


class ExampleAnswer(_Answer):
    name: str
    label: Literal["benign", "malignant"]
    url: str


class ExamplesAnswer(_Answer):
    model: str
    examples: list[ExampleAnswer]


class JobLinks(_Answer):
    """Where more of a job is."""

    self: str
    events: str
    results: str


class JobAnswer(_Answer):
    """How a job stands; `error` says why it failed."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    done: int
    total: int
    error: str | None
    links: JobLinks


class HealthAnswer(_Answer):
    status: Literal["ok"]


class ReadyAnswer(_Answer):
    status: Literal["ready"]


class VersionAnswer(_Answer):
    clearmargin: str
    api: Literal["v1"]
    intended_use: str
