"""Every answer of the API as a pydantic model, for the schema; rows are made elsewhere and sent as they are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


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
    decision: Literal["benign", "malignant", "abstain", "refused"]
    reason: str | None
    at_prevalence: float | None
    similar: list[SimilarRow] | None = None


class PredictAnswer(_Answer):
    model: str
    operating_point: dict[str, Any]
    predictions: list[PredictionRow]


class HealthAnswer(_Answer):
    status: Literal["ok"]


class ReadyAnswer(_Answer):
    status: Literal["ready"]


class VersionAnswer(_Answer):
    clearmargin: str
    api: Literal["v1"]
    intended_use: str
