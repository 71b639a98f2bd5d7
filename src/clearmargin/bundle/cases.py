"""The training images that a bundle may carry, so that `predict --similar` can show those most like a new one.

`cases.json` says whose they are, a row each; `cases.safetensors` holds their pictures, their features, and how a
network's features become those. Both are read when somebody asks for them, and may be hostile: sizes, shapes, types
and values are checked. Which images are kept is decided elsewhere (`training/cases.py`), and so is who is similar
(`predict/similar.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clearmargin.bundle.read import CASES, Bundle
from clearmargin.errors import BundleError, counted

MOST_CASES = 10_000
DIMENSIONS = 64
"""The most numbers that describe an image."""
THUMBNAIL_PX = 64
"""The longer side of a picture at most."""
_MAX_FEATURES = 2**20
_MAX_TEXT_BYTES = 2**26
_MAX_HEADER_BYTES = 2**12
_TENSORS = {"features": "float16", "thumbnails": "uint8", "mean": "float32", "projection": "float32"}


class Case(BaseModel):
    """Whose image it is, as the manifest of the run named them; `path` is None where the ids are pseudonyms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patient_id: str | None
    slide_id: str | None
    path: str | None
    label: Literal["benign", "malignant"]


class _Listing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    cases: Annotated[tuple[Case, ...], Field(min_length=2, max_length=MOST_CASES)]

    @model_validator(mode="after")
    def _versioned(self) -> Self:
        if "schema_version" not in self.model_fields_set:
            raise ValueError("the version of the schema is missing")
        return self


@dataclass(frozen=True, slots=True)
class Cases:
    """Training images: whose, their pictures, and where the network sees them.

    Attributes:
        rows: N cases.
        features: (N, K) float16, what `project` makes of the network's.
        thumbnails: (N, h, w, C) uint8, of the packed images.
        mean: (D,) float32, of the network's features.
        projection: (D, K) float32, from the network's features without their mean.
    """

    rows: tuple[Case, ...]
    features: NDArray[np.float16]
    thumbnails: NDArray[np.uint8]
    mean: NDArray[np.float32]
    projection: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_patients(self) -> int | None:
        """Of how many patients they are; None where some patient is unknown."""
        patients = {row.patient_id for row in self.rows}
        return None if None in patients else len(patients)

    def project(self, features: NDArray[np.float32]) -> NDArray[np.float16]:
        """(B, K) of the network's features (B, D), rounded as those of the cases are.

        Raises:
            BundleError: the network gives another number of features.
        """
        if features.shape[1] != len(self.mean):
            raise BundleError(
                f"{CASES[1]} is for {len(self.mean):,} features and the network gives {features.shape[1]:,}. "
                "Make the bundle anew."
            )
        return project(features, self.mean, self.projection)

    def files(self) -> dict[str, bytes]:
        """The contents of the files, by name."""
        from safetensors.numpy import save  # noqa: PLC0415  (only here and below)

        rows = ",\n".join(f"  {json.dumps(row.model_dump(), ensure_ascii=False)}" for row in self.rows)
        text = f'{{"schema": 1, "cases": [\n{rows}\n]}}\n'
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        return dict(zip(CASES, (text.encode(), save(tensors)), strict=True))


def project(
    features: NDArray[np.float32], mean: NDArray[np.float32], projection: NDArray[np.float32]
) -> NDArray[np.float16]:
    """(B, K) directions of length 1, or 0 for an image that is exactly the mean, of features (B, D).

    >>> project(np.array([[4, 5]], np.float32), np.array([1, 1], np.float32), np.eye(2, dtype=np.float32))
    array([[0.6, 0.8]], dtype=float16)
    """
    moved = (features.astype(np.float64) - mean) @ projection.astype(np.float64)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    directions: NDArray[np.float16] = (moved / np.where(lengths > 0, lengths, 1)).astype(np.float16)
    return directions


def load_cases(bundle: Bundle) -> Cases:
    """The cases of a bundle.

    Raises:
        BundleError: it carries none, or they are damaged; says how to get them.
    """
    kept = bundle.model.cases
    if kept is None:
        raise BundleError(
            f"{bundle.folder}: carries no training images to compare with. Train with --set cases.keep=on, which puts "
            "small pictures and ids of training images into the bundle."
        )
    listing, tensors = (str(bundle.folder / name) for name in CASES)
    rows = _read_rows(bundle.read(CASES[0]), listing)
    if len(rows) != kept.images:
        raise BundleError(f"{listing}: has {len(rows):,} cases and model.json says {kept.images:,}. {_ANEW}")
    cases = Cases(rows, **_read_tensors(bundle.read(CASES[1]), tensors, n=len(rows)))
    if cases.n_patients != kept.patients or (kept.pseudonymous and any(row.path is not None for row in rows)):
        raise BundleError(f"{listing}: names other patients or files than model.json says. {_ANEW}")
    return cases


_ANEW = "The bundle is damaged; make it anew."


def _read_rows(text: bytes, name: str) -> tuple[Case, ...]:
    if len(text) > _MAX_TEXT_BYTES:
        raise BundleError(f"{name}: larger than the limit of {_MAX_TEXT_BYTES:,} bytes. {_ANEW}")
    try:
        return _Listing.model_validate_json(text).cases
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100] or "the file"
        raise BundleError(f"{name}: {where}: {first['msg'][:200]}. {_ANEW}") from None


def _read_tensors(content: bytes, name: str, *, n: int) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load  # noqa: PLC0415

    if int.from_bytes(content[:8], "little") > _MAX_HEADER_BYTES:
        raise BundleError(f"{name}: its header is longer than {_MAX_HEADER_BYTES:,} bytes. {_ANEW}")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{name}: is no safetensors file ({str(error)[:100]}). {_ANEW}") from None
    if set(tensors) != set(_TENSORS):
        raise BundleError(f"{name}: holds not exactly {', '.join(_TENSORS)}. {_ANEW}")
    for key, kind in _TENSORS.items():
        if tensors[key].dtype != kind:
            raise BundleError(f"{name}: {key} is {tensors[key].dtype}, not {kind}. {_ANEW}")
    features, thumbnails, mean, projection = (tensors[key] for key in _TENSORS)
    dimensions, width = (projection.shape[1], projection.shape[0]) if projection.ndim == 2 else (0, 0)
    right = (
        features.shape == (n, dimensions)
        and mean.shape == (width,)
        and 1 <= dimensions <= DIMENSIONS
        and 1 <= width <= _MAX_FEATURES
        and thumbnails.ndim == 4
        and len(thumbnails) == n
        and all(1 <= side <= THUMBNAIL_PX for side in thumbnails.shape[1:3])
        and thumbnails.shape[3] in (1, 3)
    )
    if not right:
        shapes = ", ".join(f"{key} {tensors[key].shape}" for key in _TENSORS)
        raise BundleError(f"{name}: the shapes do not fit {counted(n, 'case', 'cases')} ({shapes[:300]}). {_ANEW}")
    for key in ("features", "mean", "projection"):
        if not np.isfinite(tensors[key]).all():
            raise BundleError(f"{name}: {key} holds what is no finite number. {_ANEW}")
    return tensors
