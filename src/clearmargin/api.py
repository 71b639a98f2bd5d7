"""The Python door: the commands as functions, for notebooks and scripts. Tables in and out are pandas.

Each does what the command of the same name does; the command line calls these very functions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from clearmargin.config import check_config, load_recipe, read_config
from clearmargin.errors import DataError, UsageError
from clearmargin.images.file_names import written_name
from clearmargin.settings import DataSettings, is_backbone
from clearmargin.types import Listener

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from clearmargin.bundle.keras.importing import ImportedModel
    from clearmargin.bundle.targets import Exported
    from clearmargin.data.audit import Audit
    from clearmargin.explanation.explainer import Explainer
    from clearmargin.images.preprocess import Preprocessing
    from clearmargin.studies.recalibration import Recalibrated
    from clearmargin.workflow import Run

Pathlike = str | os.PathLike[str]
_MAX_EXAMPLES = 256
_DRAWN_PX = (32, 50, 75, 128)


class ImageOptions(TypedDict, total=False):
    """Which images are meant: the options of every command that reads a folder of them."""

    source: str | None
    """The layout of the folder, recognised when None."""
    patient_regex: str | None
    """Takes the patient from each path."""
    exclude: Pathlike | None
    """A text file with one path a line to leave out."""
    tolerance: float | None
    """Share of unusable files up to which the job goes on."""
    labels: Pathlike | None
    """A CSV with the labels, for DICOM folders."""
    view: Literal["full", "crop"] | None
    """Full images, or a crop around each lesion; `full` when None."""
    normal: Literal["exclude", "benign"] | None
    """What becomes of images without any lesion; `exclude` when None."""
    magnification: int | Sequence[int]
    """Of BreaKHis, the magnifications to take; all when empty."""
    frame: int | None
    """Of images with several, the frame to take, counted from 1."""
    pseudonymise: bool
    """Patient ids, slide ids and paths leave as keyed hashes."""


def train(
    data: Pathlike,
    out: Pathlike,
    *,
    recipe: str | None = None,
    model: str | None = None,
    weights: Pathlike | None = None,
    by: Literal["patient", "image"] | None = None,
    split: Pathlike | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    folds: int | None = None,
    repeats: int | None = None,
    seeds: int | None = None,
    coverage: float | None = None,
    prevalence: float | None = None,
    settings: Mapping[str, Any] | None = None,
    deterministic: bool | None = None,
    resume: bool = False,
    command: str = "",
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> Run:
    """The main job: audit, split, pack, train, evaluate, export, report.

    Args:
        data: a folder of images, or a CSV or Parquet file with path,label.
        out: the run folder to make, or to go on with when `resume`.
        recipe: a recipe's name or a TOML file; when None `default`, for a pretrained model `transfer`.
        model: another architecture than the recipe's; also `squeezenet` or `timm:NAME`.
        weights: of those two: a file of pretrained weights, or `hub` to fetch timm's own.
        by: what a fresh split keeps together; `patient` when None.
        split: a CSV with path (or patient_id) and split, used instead of a fresh split.
        epochs: instead of the recipe's.
        seed: of split, weights and batches.
        folds: cross-validate with so many; each image is then tested once.
        repeats: how often the cross-validation is done, each time with other folds.
        seeds: train so many networks on the same split, to see their spread.
        coverage: share of a new patient's images to be answered rightly, *cannot tell* counted as right; 0 decides all.
        prevalence: share of malignant images for which PPV and NPV are also given.
        settings: any other setting by its dotted key, as after `--set`.
        deterministic: bit for bit the same result each time.
        resume: go on with a stopped run; settings not given are those of the run.
        command: what the user typed, for the report.
        listener: hears how the job goes on.
        images: which images of `data` are meant, see `ImageOptions`.

    Raises:
        ClearmarginError: one line with what, where and the fix; nothing that looks complete is left.
    """
    from clearmargin.studies.cross_validation import cross_validate  # noqa: PLC0415  (torch takes seconds to import)
    from clearmargin.workflow import run_training  # noqa: PLC0415

    given: dict[str, Any] = {
        "model.name": model,
        "model.weights": weights if weights in (None, "hub") else _absolute(weights),
        "split.by": by,
        "train.epochs": epochs,
        "seed": seed,
        "split.folds": folds,
        "split.repeats": repeats,
        "train.seeds": seeds,
        "evaluate.coverage": coverage,
        "evaluate.prevalence": prevalence,
        "deterministic": deterministic,
        "data.split_file": _absolute(split) if split is not None else None,
        **_data_changes(data, **images),
    }
    changes = {**(settings or {}), **_given(given)}
    saved = Path(out) / "config.toml"
    base = read_config(saved) if resume and recipe is None and saved.is_file() else None
    named = str(changes.get("model.name") or changes.get("name") or "")
    config = load_recipe(recipe or ("transfer" if is_backbone(named) else "default"), changes, base=base)
    run = cross_validate if config.split.folds and config.split.fold is None else run_training
    return run(config, Path(out), resume=resume, command=command, listener=listener)


def evaluate(
    model: Pathlike,
    data: Pathlike | None,
    out: Pathlike,
    *,
    threshold: float | None = None,
    prevalence: float | None = None,
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> Run:
    """External validation: a finished model on other images, decided by its bundle alone; or a table of predictions.

    Args:
        model: a bundle folder, a run folder or a `.clearmargin` file; or a CSV or Parquet file of any software with
            path, label and probability, and then `data` is None.
        data: a folder of images, or a CSV or Parquet file with path,label.
        out: the folder to make, with the files of a run.
        threshold: of a table whose decisions do not tell it.
        prevalence: share of malignant images for which PPV and NPV are also given.
        settings: of the section `evaluate`, by dotted key; what the bundle decides is not among them.
        command: what the user typed, for the report.
        listener: hears how the job goes on.
        images: which images of `data` are meant, see `ImageOptions`.

    Raises:
        ClearmarginError: one line with what, where and the fix.
    """
    from clearmargin.predict.predictor import load_bundle  # noqa: PLC0415
    from clearmargin.studies.external import evaluate_bundle  # noqa: PLC0415
    from clearmargin.studies.table import evaluate_table  # noqa: PLC0415

    changes = {**(settings or {}), **_given({"evaluate.prevalence": prevalence})}
    if data is None:
        if not Path(model).is_file() or Path(model).suffix.lower() == ".clearmargin":
            raise UsageError(f"{model}: is no table of predictions; give the images to evaluate it on as DATA.")
        config = load_recipe("default", changes)
        return evaluate_table(Path(model), config, Path(out), threshold=threshold, command=command, listener=listener)
    if threshold is not None:
        raise UsageError("a threshold is for tables of predictions; a bundle brings its own.")
    predictor = load_bundle(Path(model))
    config = load_recipe("default", {**changes, **_given(_data_changes(data, **images))})
    return evaluate_bundle(predictor, config, Path(out), command=command, listener=listener)


def calibrate(
    bundle: Pathlike,
    data: Pathlike,
    out: Pathlike,
    *,
    coverage: float | None = None,
    settings: Mapping[str, Any] | None = None,
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> Recalibrated:
    """A new bundle with the same network, whose probabilities, threshold and abstention are chosen on these images.

    Args:
        bundle: a bundle folder, a run folder or a `.clearmargin` file.
        data: labelled images that the model was not trained on; afterwards they are no test of it either.
        out: the bundle folder to make.
        coverage: as in `train`.
        settings: of the section `evaluate`, by dotted key.
        listener: hears how the job goes on.
        images: which images of `data` are meant, see `ImageOptions`.

    Raises:
        ClearmarginError: one line with what, where and the fix.
    """
    from clearmargin.predict.predictor import load_bundle  # noqa: PLC0415
    from clearmargin.studies.recalibration import recalibrate  # noqa: PLC0415

    predictor = load_bundle(Path(bundle))
    changes = {**(settings or {}), **_given({"evaluate.coverage": coverage, **_data_changes(data, **images)})}
    return recalibrate(predictor, load_recipe("default", changes), Path(out), listener=listener)


def export(
    bundle: Pathlike,
    out: Pathlike,
    *,
    to: str,
    images: Sequence[Pathlike] = (),
    force: bool = False,
) -> Exported:
    """Writes a bundle for others: its network as an ONNX or a Keras file, or all of it as one `.clearmargin` file.

    Args:
        bundle: a bundle folder, a run folder or a `.clearmargin` file.
        out: the file to write.
        to: `onnx`, `keras` or `clearmargin`.
        images: to compare the network with torch on, at their own sizes; when empty, drawn patches of several sizes.
        force: replaces a file that is there already.

    Raises:
        ClearmarginError: one line with what, where and the fix; nothing is left that differs from the bundle.
    """
    from clearmargin.bundle.read import read_bundle  # noqa: PLC0415
    from clearmargin.bundle.targets import check_target, write_target  # noqa: PLC0415

    check_target(Path(out), to, force=force)
    verified = read_bundle(Path(bundle))
    return write_target(verified, Path(out), to, _examples(verified.model.preprocessing, images))


def _examples(spec: Preprocessing, images: Sequence[Pathlike]) -> NDArray[np.uint8]:
    """Packed images (N, H, W, C): those that are given, at most `_MAX_EXAMPLES` evenly taken, or drawn ones."""
    import numpy as np  # noqa: PLC0415

    if images:
        chosen = [images[index * len(images) // _MAX_EXAMPLES] for index in range(_MAX_EXAMPLES)]
        return np.stack([spec.read(os.fspath(path)) for path in (chosen if len(images) > _MAX_EXAMPLES else images)])
    from clearmargin.data.phantom import draw_patch  # noqa: PLC0415

    drawn = [draw_patch(label, seed, px) for seed, px in enumerate(_DRAWN_PX) for label in (0, 1)]
    return np.stack([spec.apply(patch) for patch in drawn])


def optimism(
    data: Pathlike,
    out: Pathlike,
    *,
    recipe: str = "default",
    folds: int = 5,
    repeats: int = 1,
    epochs: int | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    command: str = "",
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> dict[str, Any]:
    """What a random split of images would have promised, and what new patients get: the contents of optimism.json.

    Args:
        data: a folder of images, or a CSV or Parquet file with path,label; every image needs a patient.
        out: the folder to make, or to go on with when `resume`.
        recipe: a recipe's name or a TOML file.
        folds: of each cross-validation; the recipe is trained twice as often.
        repeats: how often both are done, each time with other folds.
        epochs: instead of the recipe's.
        seed: of folds, weights and batches.
        settings: any other setting by its dotted key.
        resume: go on with one that was stopped.
        command: what the user typed.
        listener: hears how the job goes on.
        images: which images of `data` are meant, see `ImageOptions`.

    Raises:
        ClearmarginError: one line with what, where and the fix.
    """
    from clearmargin.studies.optimism import measure_optimism  # noqa: PLC0415

    given = {
        "split.folds": folds,
        "split.repeats": repeats,
        "train.epochs": epochs,
        "seed": seed,
        **_data_changes(data, **images),
    }
    config = load_recipe(recipe, {**(settings or {}), **_given(given)})
    return measure_optimism(config, Path(out), resume=resume, command=command, listener=listener)


def audit(
    data: Pathlike,
    *,
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> Audit:
    """Everything that is wrong with the images, found at once; originals are not touched.

    Raises:
        DataError: nothing there, or not one labelled image. A blocking finding does not raise.
    """
    from clearmargin.data.audit import audit_images  # noqa: PLC0415

    where = _data_settings(_data_changes(data, **images))
    return audit_images(where, listener=listener)


def split(
    data: Pathlike,
    *,
    by: Literal["patient", "image"] | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    folds: int | None = None,
    official: bool = False,
    seed: int = 0,
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> pd.DataFrame:
    """The split as a table: path, patient_id, label and split (or fold, 0 to folds - 1).

    Without `by` the official split is kept where the data have one; `by` alone makes a fresh one.

    Raises:
        SplitError: no honest split is possible; says what to do.
        AuditBlocked: the audit found what must be mended first.
    """
    from clearmargin.data.audit import audit_images  # noqa: PLC0415
    from clearmargin.data.split import fold_manifest, official_split, split_manifest  # noqa: PLC0415

    config = check_config({"split": {"by": by or "patient", "fractions": list(fractions)}, "seed": seed})
    where = _data_settings(_data_changes(data, **images))
    fresh = folds is not None or (by is not None and not official)
    audited = audit_images(where, ignore_official=fresh, listener=listener)
    audited.check()
    manifest, unit = audited.manifest, config.split.by
    if folds is not None:
        fold = fold_manifest(manifest, folds, by=unit, seed=seed)
        return manifest.frame[["path", "patient_id", "label"]].assign(fold=fold)
    make = official_split if official or manifest.has_official_split else split_manifest
    return make(manifest, by=unit, fractions=config.split.fractions, seed=seed).table()


def compare(
    runs: Sequence[Pathlike],
    *,
    resamples: int = 2000,
    seed: int = 0,
    thresholds: Sequence[float] = (),
    listener: Listener = Listener(),
) -> pd.DataFrame:
    """How the models of two or more runs differ on the same test images: one row a pair and figure.

    The columns and `attrs` are those of `evaluation.comparison.compare_models`. Images that either model, or a
    patient of whom either, has met in training are left out and counted.

    Args:
        runs: run folders, or CSV or Parquet files of any software with path, label and probability.
        resamples: bootstrap resamples of patients, 40 or more.
        seed: of the bootstrap.
        thresholds: for files without decisions: one for all of them, or one each, in their order.
        listener: hears how the job goes on.

    Raises:
        DataError: a file cannot be read, or two models cannot be compared.
        UsageError: fewer than two runs, or thresholds that do not fit.
    """
    from clearmargin.evaluation.comparison import compare_models  # noqa: PLC0415
    from clearmargin.evaluation.foreign import read_models  # noqa: PLC0415

    models = read_models([Path(run) for run in runs], thresholds=thresholds)
    return compare_models(models, resamples=resamples, seed=seed, listener=listener)


def import_keras(
    file: Pathlike,
    out: Pathlike,
    *,
    malignant_index: Literal[0, 1] = 1,
    scale: str | float | None = None,
    offset: str | float = 0,
    channels: Literal["rgb", "bgr"] = "rgb",
    size: tuple[int, int] | None = None,
    fit: Literal["pad", "stretch"] = "stretch",
    recipe: str | None = None,
    listener: Listener = Listener(),
) -> ImportedModel:
    """A bundle with the network of a Keras file (.h5, .hdf5, .keras; Keras 1, 2 or 3). Nothing in the file is run.

    Args:
        file: of Keras; or of weights alone, and then `recipe` says whose.
        out: the bundle folder to make.
        malignant_index: of two outputs, the one that is malignant; of one output, 1 if it is of malignant, 0 if of
            benign.
        scale: pixels from 0 to 255 are multiplied by it, a number or a fraction such as "1/255"; 1/255 when None, or 1
            where the network rescales its pixels itself.
        offset: and this is added.
        channels: their order as the network was trained.
        size: (width, height), for a network that takes images of any size.
        fit: how images of another size become that size; most Keras pipelines stretch.
        recipe: whose network the weights belong to.
        listener: hears how the job goes on.

    Raises:
        ClearmarginError: one line with what, where and the fix; a layer that is not known is named.
    """
    from clearmargin.bundle.keras.importing import import_keras as run  # noqa: PLC0415
    from clearmargin.bundle.keras.network import ImportOptions  # noqa: PLC0415

    options = ImportOptions(
        malignant_index=malignant_index,
        scale=None if scale is None else _fraction(scale, "scale"),
        offset=_fraction(offset, "offset"),
        channels=channels,
        size=size,
        fit=fit,
        recipe=recipe,
    )
    return run(Path(file), Path(out), options, listener=listener)


def _fraction(value: str | float, name: str) -> Fraction:
    """A number, or a fraction such as 1/255, exactly.

    Raises:
        UsageError: neither.
    """
    try:
        number = Fraction(str(value).strip())
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--{name} {value}: give a number or a fraction, as 1/255.") from None
    if abs(number) > 10**6 or (number != 0 and abs(number) < Fraction(1, 10**9)):
        raise UsageError(f"--{name} {value}: beyond what pixels are multiplied by; give a number such as 1/255.")
    return number


def load_explainer(bundle: Pathlike, *, gate: bool = True) -> Explainer:
    """What explains images with a bundle; one without colour scales finds them on drawn images.

    Args:
        bundle: a bundle folder, a run folder or a `.clearmargin` file.
        gate: images unlike those of training are refused.

    Raises:
        BundleError: not a bundle, changed, or incompatible.
    """
    from clearmargin.explanation.explainer import Explainer  # noqa: PLC0415  (torch)
    from clearmargin.predict.predictor import load_bundle  # noqa: PLC0415

    return Explainer(load_bundle(Path(bundle), gate=gate), scale_images=_draw_images, scale_of=DRAWN)


def explain(
    bundle: Pathlike,
    images: Sequence[Pathlike],
    out: Pathlike,
    *,
    methods: Sequence[str] = (),
    alpha: float | None = None,
    pictures: bool = True,
    maps: bool = True,
    legend: bool = True,
    gate: bool = True,
) -> pd.DataFrame:
    """Pictures of which places of each image moved the network, written to `out`: one row an explanation.

    Args:
        bundle: a bundle folder or a run folder.
        images: paths of single images.
        out: the folder to make.
        methods: of `clearmargin.explanation.methods.METHODS`; the default one when empty.
        alpha: how much of the image full colour hides, from 0 to 1.
        pictures: write a PNG of each.
        maps: write a .npy of each: float32, in the network's input.
        legend: pictures have the image beside the map and a legend below.
        gate: images unlike those of training are refused.

    Raises:
        ClearmarginError: one line with what, where and the fix. An image that cannot be read is a row with its reason.
    """
    import pandas as pd  # noqa: PLC0415

    from clearmargin.explanation.draw import ALPHA  # noqa: PLC0415
    from clearmargin.explanation.methods import DEFAULT_METHOD  # noqa: PLC0415
    from clearmargin.explanation.write import check_folder, write_explanations  # noqa: PLC0415
    from clearmargin.predict.records import record_of_path  # noqa: PLC0415

    explainer = load_explainer(bundle, gate=gate)
    check_folder(Path(out))
    records = [record_of_path(str(path)) for path in ([images] if isinstance(images, str | os.PathLike) else images)]
    explained = explainer.explain_records(records, methods=list(methods) or [DEFAULT_METHOD])
    opacity = ALPHA if alpha is None else alpha
    rows = write_explanations(explained, Path(out), alpha=opacity, pictures=pictures, maps=maps, legend=legend)
    return pd.DataFrame(list(rows))


DRAWN = "drawn phantom images"
"""On what a colour scale is found where the bundle has none."""
_DRAWN_IMAGES = 16


def _draw_images(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    import numpy as np  # noqa: PLC0415

    from clearmargin.data.phantom import draw_patch  # noqa: PLC0415

    px = min(max(16, preprocessing.width, preprocessing.height), 256)
    patches = [draw_patch(1 if seed % 2 == 0 else 0, seed=seed // 2, patch_px=px) for seed in range(_DRAWN_IMAGES)]
    return np.stack([preprocessing.apply(patch) for patch in patches])


def _absolute(path: Pathlike) -> str:
    """The absolute path as text that settings and tables can hold.

    Raises:
        DataError: the name is not Unicode.
    """
    full = os.path.abspath(path)
    if full == written_name(full):
        return full
    there = os.path.lexists(full)
    what = "the name is not Unicode and cannot be written down; rename it" if there else "no such file or folder"
    raise DataError(f"{written_name(os.fspath(path))}: {what}.")


def _data_settings(changes: Mapping[str, Any]) -> DataSettings:
    return load_recipe("default", _given(changes)).data


def _given(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes that are not None."""
    return {key: value for key, value in changes.items() if value is not None}


def _data_changes(
    data: Pathlike,
    *,
    source: str | None = None,
    patient_regex: str | None = None,
    exclude: Pathlike | None = None,
    tolerance: float | None = None,
    labels: Pathlike | None = None,
    view: str | None = None,
    normal: str | None = None,
    magnification: int | Sequence[int] = (),
    frame: int | None = None,
    pseudonymise: bool = False,
) -> dict[str, Any]:
    """The settings of the section `data` by their dotted keys; what was not given is None."""
    return {
        "data.root": _absolute(data),
        "data.source": source,
        "data.patient_regex": patient_regex,
        "data.exclude_file": _absolute(exclude) if exclude is not None else None,
        "data.tolerance": tolerance,
        "data.labels_file": _absolute(labels) if labels is not None else None,
        "data.view": view,
        "data.normal": normal,
        "data.magnification": [magnification] if isinstance(magnification, int) else list(magnification) or None,
        "data.frame": frame,
        "data.pseudonymise": pseudonymise or None,
    }
