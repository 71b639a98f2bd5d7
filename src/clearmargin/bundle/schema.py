"""The contents of model.json, checked on the way in and on the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from clearmargin.bundle.migrate import SCHEMA, STEPS, migrate
from clearmargin.context import Grid
from clearmargin.decision import Abstention, Beta, Calibration, Isotonic, Level, Platt, Temperature, decide
from clearmargin.errors import BundleError
from clearmargin.gate import Gate
from clearmargin.graph import Graph
from clearmargin.images.preprocess import Preprocessing
from clearmargin.reference import Reference
from clearmargin.types import INTENDED_USE, LABEL_NAMES, Content, LevelName, OperatingPoint

_MAX_BYTES = 2**26
IMPORTED = "keras"
"""Name of the architecture of a network that was read from a Keras file."""
_LONGEST = 200
"""Characters of a hostile file that a message repeats."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(_Part):
    name: Annotated[str, Field(max_length=200)]
    parameters: Annotated[int, Field(ge=0)]
    ensemble: Annotated[int, Field(ge=1, le=100)] = 1
    """How many networks of this name there are; the model's logit is the mean of theirs."""
    head: Literal["linear", "mlp"] = "linear"
    """Of squeezenet and timm."""
    input_px: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Of squeezenet and timm: the longer side to which the network enlarges images."""
    arguments: dict[str, bool | int | float | str] = {}
    """Of timm: what its constructor took besides."""
    field: Annotated[int, Field(ge=3, le=15)] | None = None
    """Patches a side of the field that further networks see, as many of the same name; None where there are none."""
    thumbnail: Annotated[int, Field(ge=4, le=64)] | None = None
    """Pixels a side to which each patch of a field is reduced."""
    graph: Graph | None = None
    """Of the name `keras`: the layers of a network that was made elsewhere."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.field is None) != (self.thumbnail is None):
            raise ValueError("architecture: field and thumbnail belong together")
        if self.field is not None and self.field % 2 == 0:
            raise ValueError("architecture: a field has an odd number of patches a side, with its own in the middle")
        if (self.name == IMPORTED) != (self.graph is not None):
            raise ValueError(f"architecture: a graph and the name {IMPORTED} belong together")
        if self.graph is not None and (self.ensemble > 1 or self.field is not None):
            raise ValueError("architecture: a network with a graph is one network, and has no field")
        return self


class Recalibration(_Part):
    """Other images than those of training, on which calibration, threshold, abstention and pooling were chosen."""

    created: str
    data_sha256: str
    images: Annotated[int, Field(ge=1)]
    patients: Annotated[int, Field(ge=1)] | None


class Imported(_Part):
    """The file that a model was imported from; nothing else is known of where it comes from."""

    file_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    format: Literal["h5", "keras"]
    keras_version: Annotated[str, Field(max_length=40)] | None = None
    """That wrote the file, where it says."""


class Lineage(_Part):
    """Where the model comes from: enough to tell two models apart and to find the run again.

    Of a model that was made elsewhere only `imported` is known; what is not known is None, or `unknown`.
    """

    clearmargin: str
    created: str
    recipe: str | None
    seed: int | None
    split: Literal["patient", "image", "official", "unknown"]
    folds: Annotated[int, Field(ge=0)] = 0
    """Of a cross-validation: the figures are those of its networks, each on the fold that it has not seen."""
    crossfit: Annotated[int, Field(ge=0)] = 0
    """Networks that were trained on different patients of train and validation; decisions are chosen out of fold."""
    stamp: str | None = None
    """Says so when the figures are optimistic."""
    data_sha256: str | None
    split_sha256: str | None
    precision: str | None
    weights_sha256: str | None = None
    """Of the file of pretrained weights that training began with."""
    metrics: dict[str, Any] | None
    """Figures of the test part as it is decided, in context where there is one: value and 95 % interval."""
    metrics_alone: dict[str, Any] | None = None
    """Of a model with a context: the figures of each test image by itself, where they are known."""
    libraries: dict[str, str]
    imported: Imported | None = None
    recalibrated: Recalibration | None = None
    """On what the decisions were chosen anew, if they were; `metrics` are then those from before."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        facts = (self.recipe, self.seed, self.data_sha256, self.split_sha256, self.precision, self.metrics)
        if self.imported is None and (self.split == "unknown" or any(fact is None for fact in facts)):
            raise ValueError(
                "lineage: only of an imported model may recipe, seed, split, hashes and metrics be unknown"
            )
        return self


class KeptCases(_Part):
    """Training images that the bundle carries to be shown beside new ones, in files of their own."""

    images: Annotated[int, Field(ge=2)]
    patients: Annotated[int, Field(ge=1)] | None
    """None where they are unknown."""
    pseudonymous: bool
    """Their ids are pseudonyms, and their files are not named."""


class Decisions(_Part):
    """From a logit to a decision. `operating_point` names the one of `operating_points` that decides."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """1 where another method calibrates."""
    calibration: Annotated[Platt | Beta | Isotonic, Field(discriminator="method")] | None = None
    """The method, where it is not the temperature."""
    operating_points: dict[str, OperatingPoint]
    operating_point: str
    conformal: Abstention | None = None
    """Where the decision is withheld; None where every decision is benign or malignant."""
    no_abstention: str | None = None
    """Why `conformal` is None."""
    levels: dict[LevelName, Level] = {}
    """How slides and patients are decided, where they have one label each."""
    no_levels: dict[LevelName, str] = {}
    """Why a level is not among them."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.operating_point not in self.operating_points:
            raise ValueError(f"operating_point '{self.operating_point}' is not one of operating_points")
        if self.calibration is not None and self.temperature != 1:
            raise ValueError("temperature must be 1 where another method calibrates")
        if not all(0 < point.threshold <= 1 for point in self.operating_points.values()):
            raise ValueError("a threshold is not in (0, 1]")
        return self

    @property
    def decision_point(self) -> OperatingPoint:
        """The operating point that decides."""
        return self.operating_points[self.operating_point]

    @property
    def calibrated_by(self) -> Calibration:
        """How a logit becomes a probability."""
        return self.calibration or Temperature(temperature=self.temperature)

    def decide(self, probabilities: NDArray[np.floating]) -> NDArray[np.str_]:
        """`benign`, `malignant` or `abstain` for each calibrated probability (N,), as this model decides."""
        between = self.conformal.between if self.conformal else None
        return decide(probabilities, self.decision_point.threshold, abstain_between=between)


class Context(Decisions):
    """How a patch is decided among its neighbours: the grid that weighs them, and the decisions on that logit."""

    kind: Literal["grid"] = "grid"
    grid: Grid


class SaliencyScale(_Part):
    """Where the colour of one method's maps is full, for every image alike."""

    saturation: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Absolute value of a map, in the method's unit."""
    rule: str
    """How it was found."""
    images: Annotated[int, Field(ge=1)]
    of: str
    """What these images are."""


class ModelFile(Decisions):
    """model.json: the network, how an image is decided by itself, and in `context` how among its neighbours."""

    schema_version: Annotated[Literal[2], Field(alias="schema")] = 2
    architecture: Architecture
    preprocessing: Preprocessing
    labels: tuple[str, str] = LABEL_NAMES
    content: Content | None = None
    """What the training images show; None where their source does not know."""
    context: Context | None = None
    """Decides wherever the places of a slide's patches are known; None where neighbours do not count."""
    no_context: str | None = None
    """Why `context` is None."""
    reference: Reference | None = None
    """What the training images look like, to tell when others do not."""
    cases: KeptCases | None = None
    """Training images to show beside new ones; None where the bundle carries none."""
    saliency: dict[str, SaliencyScale] | None = None
    """The colour scale of each method of explanation; None where drawn images must do."""
    input_gate: Gate | None = None
    """What the training images look like and what the network sees in them, to refuse others."""
    no_gate: str | None = None
    """Why `input_gate` is None, so that no image is refused for its look."""
    lineage: Lineage
    intended_use: str = INTENDED_USE

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _ours(self) -> Self:
        if self.labels != LABEL_NAMES:
            raise ValueError(f"labels must be {LABEL_NAMES}")
        if self.context is not None and self.context.grid.networks == 2 and self.architecture.field is None:
            raise ValueError("context weighs a network that the architecture does not have")
        graph = self.architecture.graph
        if graph is not None and graph.input != self.preprocessing.shape:
            raise ValueError(
                f"architecture: the graph takes {graph.input}, the preprocessing gives {self.preprocessing.shape}"
            )
        return self

    def to_json(self) -> str:
        """The text of model.json."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


def parse_model_file(text: bytes, name: str) -> ModelFile:
    """The contents of a model.json, of this version or an earlier one.

    Raises:
        BundleError: not JSON, a version that is not known, or a field that is missing, unknown or out of range.
    """
    if len(text) > _MAX_BYTES:
        raise BundleError(f"{name}: larger than the limit of {_MAX_BYTES:,} bytes. Make the bundle anew.")
    try:
        content = from_json(text)  # bounded in depth and in the length of a number
    except ValueError as error:
        raise BundleError(f"{name}: the file: {str(error)[:_LONGEST]}. The bundle is damaged; make it anew.") from None
    if not isinstance(content, dict):
        raise BundleError(f"{name}: the file: is no JSON object. The bundle is damaged; make it anew.")
    _check_version(content, name)
    try:
        return ModelFile.model_validate(migrate(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:_LONGEST] or "the file"
        raise BundleError(f"{name}: {where}: {first['msg'][:_LONGEST]}. The bundle is damaged; make it anew.") from None


def _check_version(content: Mapping[str, Any], name: str) -> None:
    if "schema" not in content:
        raise BundleError(f"{name}: schema: the version is missing. The bundle is damaged; make it anew.")
    version = content["schema"]
    known = f"(it reads {min(STEPS)} to {SCHEMA})"
    if type(version) is int and version > SCHEMA:
        raise BundleError(
            f"{name}: schema {version!r:.50} is newer than this version of clearmargin reads {known}. "
            "Use a newer clearmargin."
        )
    if type(version) is not int or version < min(STEPS):
        raise BundleError(
            f"{name}: schema {version!r:.50} is not one that this version reads {known}. "
            "The bundle is damaged; make it anew."
        )
