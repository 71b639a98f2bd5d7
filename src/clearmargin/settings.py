"""What can be set: every setting of a run, defined, documented and bounded.

`config.py` fills these from recipes and options. A key that is not here does not exist.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

Share = Annotated[float, Field(ge=0.0, le=1.0)]


def is_backbone(name: str) -> bool:
    """The model of this name is a pretrained network with a new head."""
    return name == "squeezenet" or name.startswith("timm:")


class Section(BaseModel):
    """A group of settings: frozen, and nothing else than what it names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: object) -> object:
        # A path that is not could be neither saved in config.toml nor written into a table.
        if isinstance(value, str) and not _is_encodable(value):
            raise PydanticCustomError("not_unicode", "Input should be Unicode text; rename the file or folder")
        return value


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class DataSettings(Section):
    """Which images the run is about."""

    root: str = ""
    """The folder or manifest, absolute."""
    source: str | None = None
    """A name of SOURCES; recognised when missing."""
    patient_regex: str | None = None
    """Takes the patient from each path."""
    split_file: str | None = None
    """A CSV with the columns path (or patient_id) and split."""
    exclude_file: str | None = None
    """A text file with one path a line to leave out."""
    view: Literal["full", "crop"] = "full"
    """Of mammograms and ultrasound: the full image, or a crop around each lesion."""
    normal: Literal["exclude", "benign"] = "exclude"
    """What becomes of images without any lesion."""
    magnification: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Of BreaKHis: the magnifications to take; all when empty."""
    labels_file: str | None = None
    """Of DICOM folders: a CSV with the labels by StudyInstanceUID, SOPInstanceUID or path."""
    frame: Annotated[int, Field(ge=1)] | None = None
    """Of DICOM files with several frames: the one to take, counted from 1."""
    pseudonymise: bool = False
    """Patient ids, slide ids and paths leave as keyed hashes."""
    tolerance: Share = 0.01
    """Share of unusable files up to which a run goes on without them."""


class ImageSettings(Section):
    """How an image becomes the array that the model sees; written into the bundle."""

    size: Literal["auto"] | tuple[Annotated[int, Field(ge=8, le=2048)], Annotated[int, Field(ge=8, le=2048)]] = "auto"
    """(width, height) in pixels; `auto` takes the data's most common size, at most `largest_px` on its longer side."""
    largest_px: Annotated[int, Field(ge=8, le=2048)] = 128
    """Bound of `auto`."""
    channels: Literal[1, 3] = 3
    """1 is grey, 3 is RGB."""
    fit: Literal["pad", "stretch"] = "pad"
    """`pad` keeps the aspect ratio, never enlarges, and fills the rest; `stretch` resizes to the size exactly."""
    padding: Literal["auto", "mirror", "black", "white"] = "auto"
    """What fills the rest, below and to the right; `auto` is black for mammograms, else mirror."""
    region: Literal["auto", "whole", "breast"] = "auto"
    """The part of the image that is meant; `auto` is the box of the breast for whole mammograms, else the whole."""
    orientation: Literal["as_is", "left"] = "as_is"
    """`left` mirrors mammograms whose breast comes in from the right edge."""
    dicom_window: Literal["stored", "full"] = "stored"
    """Values of DICOM files: through the file's VOI LUT or window, or over their full range."""
    interpolation: Literal["nearest", "bilinear", "area"] = "area"
    """How sizes change; `area` averages when it shrinks."""
    mean: Share = 0.0
    """Subtracted after division by 255."""
    std: Annotated[float, Field(gt=0.0)] = 1.0
    """Divided by after that."""


class SplitSettings(Section):
    by: Literal["patient", "image"] = "patient"
    """What a fresh split keeps together; `image` is optimistic and stamped so."""
    fractions: tuple[Share, Share, Share] = (0.8, 0.1, 0.1)
    """Train, validation, test."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Of the split; the run's seed when missing."""
    folds: Annotated[int, Field(ge=0)] = 0
    """Cross-validate with so many folds; 0 is one split."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """How often the cross-validation is repeated, each time with other folds."""
    fold: Annotated[int, Field(ge=0)] | None = None
    """Train and test this fold of the cross-validation only, counted from 0."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSettings:
        if abs(sum(self.fractions) - 1.0) > 1e-6 or min(self.fractions) <= 0:
            raise ValueError(
                "split.fractions must be three numbers above 0 that sum to 1 (train, validation, test), "
                f"got {', '.join(f'{share:g}' for share in self.fractions)}"
            )
        return self

    @model_validator(mode="after")
    def _folds_fit(self) -> SplitSettings:
        if self.folds == 1:
            raise ValueError("split.folds must be 2 or more, or 0 for one split")
        if self.folds == 0 and (self.repeats > 1 or self.fold is not None):
            raise ValueError("split.repeats and split.fold belong to a cross-validation; set split.folds too")
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"split.fold must be below split.folds, {self.folds}")
        return self


class ModelSettings(Section):
    name: str = "residual"
    """A name of MODELS, or `timm:NAME` for any network of timm."""
    weights: str = ""
    """Of squeezenet and timm: a file of pretrained weights (.safetensors), or `hub` to fetch timm's own."""
    head: Literal["linear", "mlp"] = "linear"
    """Of squeezenet and timm: one layer on the pooled features, or a hidden layer of 128 between."""
    input_px: Literal["auto"] | Annotated[int, Field(ge=16, le=1024)] = "auto"
    """Of squeezenet and timm: longer side to which the network enlarges images; `auto` is 100, or what it must be."""
    arguments: tuple[str, ...] = ()
    """Of timm: what its constructor takes besides, each as key=value, such as init_values=1e-5."""
    field: Literal[0, 3, 5, 7, 9] = 0
    """Patches a side of the field that a second network of this name sees, where the places of patches on their slides
    are known; 0 is no second network."""
    thumbnail: Annotated[int, Field(ge=4, le=64)] = 10
    """Pixels a side to which each patch of a field is reduced."""


class TransferSettings(Section):
    """How a pretrained network is taken over: frozen features with a new head, or trained further."""

    mode: Literal["none", "features", "finetune"] = "none"
    """`features` computes them once and trains the head; `finetune` trains on; `none` trains everything at once."""
    views: Literal[1, 8] = 1
    """Of `features`: of each image as it is, or also of its seven flips and turns."""
    frozen_epochs: Annotated[int, Field(ge=0)] = 1
    """Of `finetune`: the head alone is trained for so many epochs."""
    unfreeze_every: Annotated[int, Field(ge=0)] = 0
    """Of `finetune`: after those a further stage joins every so many epochs, from the top; 0 is all at once."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of `finetune`: the learning rate of a stage is that of the one above it times this."""


class AugmentSettings(Section):
    """Random changes to training images, one draw per image; 0 switches one off."""

    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    quarter_turns: bool = False
    """Rotation by 0, 90, 180 or 270 degrees: exact, no interpolation."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of width and height."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Scale drawn from [1 - zoom, 1 + zoom]."""
    shear_degrees: Annotated[float, Field(ge=0, le=60)] = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness: Share = 0.0
    """Added value drawn from [-brightness, brightness], on a scale of 0 to 1."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Factor about the image's mean, drawn from [1 - contrast, 1 + contrast]."""
    stain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Factor on each channel's optical density drawn from [1 - stain, 1 + stain], and an offset of a tenth of it."""


class TrainSettings(Section):
    epochs: Annotated[int, Field(ge=1)] = 10
    min_steps: Annotated[int, Field(ge=0)] = 0
    """Few images are trained on for more epochs, until so many batches were seen; setting `epochs` alone makes it 0."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["adam", "adamw", "adagrad"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rate_decay: Annotated[float, Field(ge=0)] = 0.0
    """At step t the rate is divided by 1 + learning_rate_decay * t, as in Keras."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Of the optimizer; Keras uses 1e-7."""
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """The learning rate rises linearly over so many epochs, under either schedule."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """`weights` weighs the loss by the inverse class frequency; `sampler` draws both classes equally often."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Exponential moving average of the weights, which then are the ones validated and kept; 0 is off."""
    monitor: Literal["validation_loss", "validation_accuracy", "validation_auroc", "train_loss"] = "validation_loss"
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better `monitor` before training stops; 0 never stops early."""
    restore_best: bool = True
    """Keep the weights of the epoch with the best `monitor` instead of the last."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """Train so many networks on the same split, with the run's seed and those after it, to see their spread."""
    crossfit: Annotated[int, Field(ge=0, le=20)] = 0
    """Train so many networks, each without another part of the patients of train and validation, and average them; what
    decides is then chosen on what each says of those that it has not seen. 0 trains one network on train."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """`auto` is bf16-mixed where the processor has native bf16 arithmetic, otherwise 32-true."""
    images_on: Literal["auto", "device", "host"] = "auto"
    """Where the packed images lie: `auto` has all of them in the memory of a GPU that has room for them."""
    compile: bool = False
    """Compile the network (torch.compile; on a GPU with CUDA graphs), at the cost of a minute or two at the start. It
    needs a C++ compiler, on a GPU Triton, and rounds otherwise than the network as it is. On a CPU it was no faster."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    """A checkpoint is written at each epoch's end and after so many minutes inside a long one."""

    @field_validator("crossfit")
    @classmethod
    def _is_several(cls, value: int) -> int:
        if value == 1:
            raise PydanticCustomError("one_part", "Input should be 2 or more, or 0 for one network")
        return value


class EvaluateSettings(Section):
    operating_point: Literal["balanced", "sensitivity", "specificity", "cost", "net_benefit"] = "balanced"
    """How the threshold is chosen on validation; `balanced` has the highest balanced accuracy (Youden's index)."""
    target_sensitivity: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Used by the operating point `sensitivity`."""
    target_specificity: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Used by the operating point `specificity`."""
    cost_ratio: Annotated[float, Field(gt=0)] = 10.0
    """Used by the operating point `cost`: a missed malignant image costs as much as so many false alarms."""
    threshold_probability: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Used by the operating point `net_benefit`: the probability from which on one would act."""
    calibration: Literal["auto", "temperature", "platt", "beta", "isotonic"] = "auto"
    """How logits become probabilities; `auto` is chosen on validation, cross-validated by patient."""
    pooling: Literal["auto", "mean", "noisy_or", "top_k", "learned"] = "auto"
    """How the images of a slide or patient become one probability; `auto` is chosen on validation."""
    context: Literal["auto", "none"] = "auto"
    """`auto`: the neighbours of a patch in its slide count too, where their places are known and validation gains."""
    coverage: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of images of a new patient that are answered rightly, *cannot tell* counted as right; 0 always decides."""
    prevalence: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of malignant images for which PPV and NPV are also given."""
    subgroups: tuple[str, ...] = ("auto",)
    """Columns of the manifest whose groups get figures of their own; `auto` takes those with a few values."""
    resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples of patients behind each interval."""


class CaseSettings(Section):
    """Training images that the bundle carries, so that `predict --similar` can show those most like a new one."""

    keep: Literal["auto", "on", "off"] = "auto"
    """Whether small pictures of training images and the ids of their patients go into the bundle; `auto` only where the
    ids are pseudonyms (`--pseudonymise`)."""
    most: Annotated[int, Field(ge=2, le=10_000)] = 2000
    """So many at most: as many of either class, and in a class as evenly as can be over its patients."""


class RunConfig(Section):
    """Everything that decides a run's result besides the data and the version of the software."""

    recipe: str = "default"
    """The recipe that the settings came from."""
    description: str = ""
    """One line for people."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the split, the first weights and everything random in training."""
    deterministic: bool = False
    """Refuse operations that could differ from run to run; the same machine then gives the same weights."""
    data: DataSettings = DataSettings()
    images: ImageSettings = ImageSettings()
    split: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    transfer: TransferSettings = TransferSettings()
    augment: AugmentSettings = AugmentSettings()
    augment_grey: AugmentSettings | None = None
    """Takes the place of `augment` for images in shades of grey; what is set for `augment` by hand holds here too."""
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    cases: CaseSettings = CaseSettings()

    @model_validator(mode="after")
    def _one_study(self) -> RunConfig:
        if self.train.seeds > 1 and self.split.folds > 0:
            raise ValueError(
                "train.seeds and split.folds exclude each other; a cross-validation changes seeds by split.repeats"
            )
        if self.data.split_file is not None and self.split.folds > 0:
            raise ValueError("a split file and split.folds exclude each other; a cross-validation makes its own folds")
        return self

    @model_validator(mode="after")
    def _transfer_fits(self) -> RunConfig:
        name, mode = self.model.name, self.transfer.mode
        if not is_backbone(name):
            if mode != "none" or self.model.weights:
                raise ValueError(
                    f"the model '{name}' is not pretrained; transfer.mode and model.weights are not for it"
                )
            return self
        if self.model.field:
            raise ValueError(
                f"the model '{name}' sees whole images, not the fields of thumbnails of a second network; "
                "set model.field=0"
            )
        if (self.images.mean, self.images.std) != (0.0, 1.0):
            raise ValueError(f"the model '{name}' normalises images itself; set images.mean=0 and images.std=1")
        none = AugmentSettings()
        if mode == "features" and (self.augment, self.augment_grey or none) != (none, none):
            raise ValueError(
                "features are computed once and cannot be augmented; leave the settings of augment out, "
                "use transfer.views=8 or transfer.mode=finetune"
            )
        return self
