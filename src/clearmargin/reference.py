"""What the training images and the scores of held-out images looked like, as a bundle keeps it.

Values only. They are computed, and compared with new data, elsewhere (`evaluation/drift.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

STEPS = 21
"""Quantiles 0, 0.05, ..., 1."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Spread = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Distribution(_Value):
    """How one statistic is distributed over images, and how much of that is between patients.

    `quantiles` are of the statistic itself. The rest is of the standardised statistic, which `evaluation/drift.py`
    defines: the mean over patients of their means, its standard error, and the standard deviations between patients
    and within them.
    """

    quantiles: Annotated[tuple[_Finite, ...], Field(min_length=STEPS, max_length=STEPS)]
    centre: _Finite
    error: _Spread
    between: _Spread
    within: _Spread
    n_images: Annotated[int, Field(ge=2)]
    n_units: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _rises(self) -> Distribution:
        if any(low > high for low, high in zip(self.quantiles, self.quantiles[1:], strict=False)):
            raise ValueError("reference: quantiles must not fall")
        return self


class Reference(_Value):
    """What new data are compared with; a distribution that two patients at least are needed for may be absent."""

    unit: Literal["patient", "image"]
    """What counts as independent: images, where the patients of training were unknown."""
    images: Mapping[str, Distribution]
    """Of the training images, by the name of the statistic."""
    score: Distribution | None
    """Of the calibrated probability of images that were held out of training."""
