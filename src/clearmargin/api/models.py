"""Training a model and finding out how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from clearmargin.api.options import ImageOptions, Pathlike, absolute, checks_image_options, data_changes, given
from clearmargin.config import load_recipe, read_config
from clearmargin.errors import UsageError
from clearmargin.settings import is_backbone
from clearmargin.types import Listener

if TYPE_CHECKING:
    import pandas as pd

    from clearmargin.studies.recalibration import Recalibrated
    from clearmargin.workflow import Run


@checks_image_options
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
    track: str | Sequence[str] = (),
    command: str = "",
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> Run:
    """The main job: audit, split, pack, train, evaluate, export, report.

    Args:
        data: a folder of images, a `.zip` of one, an `.npz`, or a CSV or Parquet file with path,label.
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
        track: follow the run elsewhere too: `tensorboard`, `tensorboard:DIR`, `mlflow` or `mlflow:URI`, one or both.
        command: what the user typed, for the report.
        listener: hears how the job goes on.
        images: which images of `data` are meant, as `ImageOptions` lists them.

    Raises:
        ClearmarginError: one line with what, where and the fix; nothing that looks complete is left.
    """
    from clearmargin.studies.cross_validation import cross_validate
    from clearmargin.tracking import tracked
    from clearmargin.training.run_folder import is_begun
    from clearmargin.workflow import run_training

    changed: dict[str, Any] = {
        "model.name": model,
        "model.weights": weights if weights in (None, "hub") else absolute(weights),
        "split.by": by,
        "train.epochs": epochs,
        "seed": seed,
        "split.folds": folds,
        "split.repeats": repeats,
        "train.seeds": seeds,
        "evaluate.coverage": coverage,
        "evaluate.prevalence": prevalence,
        "deterministic": deterministic,
        "data.split_file": absolute(split) if split is not None else None,
        **data_changes(data, **images),
    }
    changes = {**(settings or {}), **given(changed)}
    saved = Path(out) / "config.toml"
    base = read_config(saved) if resume and recipe is None and saved.is_file() else None
    named = str(changes.get("model.name") or changes.get("name") or "")
    config = load_recipe(recipe or ("transfer" if is_backbone(named) else "default"), changes, base=base)
    run = cross_validate if config.split.folds and config.split.fold is None else run_training
    begun = is_begun(Path(out))
    with tracked(track, Path(out), listener=listener, begun=begun, resume=resume) as heard:
        return run(config, Path(out), resume=resume, command=command, listener=heard)


@checks_image_options
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
        data: a folder of images, a `.zip` of one, an `.npz`, or a CSV or Parquet file with path,label.
        out: the folder to make, with the files of a run.
        threshold: of a table whose decisions do not tell it.
        prevalence: share of malignant images for which PPV and NPV are also given.
        settings: of the section `evaluate`, by dotted key; what the bundle decides is not among them.
        command: what the user typed, for the report.
        listener: hears how the job goes on.
        images: which images of `data` are meant, as `ImageOptions` lists them.

    Raises:
        ClearmarginError: one line with what, where and the fix.
    """
    from clearmargin.predict.predictor import load_bundle
    from clearmargin.studies.external import evaluate_bundle
    from clearmargin.studies.table import evaluate_table

    changes = {**(settings or {}), **given({"evaluate.prevalence": prevalence})}
    if data is None:
        if not Path(model).is_file() or Path(model).suffix.lower() == ".clearmargin":
            raise UsageError(f"{model}: is no table of predictions; give the images to evaluate it on as DATA.")
        config = load_recipe("default", changes)
        return evaluate_table(Path(model), config, Path(out), threshold=threshold, command=command, listener=listener)
    if threshold is not None:
        raise UsageError("a threshold is for tables of predictions; a bundle brings its own.")
    predictor = load_bundle(Path(model))
    config = load_recipe("default", {**changes, **given(data_changes(data, **images))})
    return evaluate_bundle(predictor, config, Path(out), command=command, listener=listener)


@checks_image_options
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
        images: which images of `data` are meant, as `ImageOptions` lists them.

    Raises:
        ClearmarginError: one line with what, where and the fix.
    """
    from clearmargin.predict.predictor import load_bundle
    from clearmargin.studies.recalibration import recalibrate

    predictor = load_bundle(Path(bundle))
    changes = {**(settings or {}), **given({"evaluate.coverage": coverage, **data_changes(data, **images)})}
    return recalibrate(predictor, load_recipe("default", changes), Path(out), listener=listener)


@checks_image_options
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
    track: str | Sequence[str] = (),
    command: str = "",
    listener: Listener = Listener(),
    **images: Unpack[ImageOptions],
) -> dict[str, Any]:
    """What a random split of images would have promised, and what new patients get: the contents of optimism.json.

    Args:
        data: a folder of images, a `.zip` of one, an `.npz`, or a CSV or Parquet file with path,label; every image
            needs a patient.
        out: the folder to make, or to go on with when `resume`.
        recipe: a recipe's name or a TOML file.
        folds: of each cross-validation; the recipe is trained twice as often.
        repeats: how often both are done, each time with other folds.
        epochs: instead of the recipe's.
        seed: of folds, weights and batches.
        settings: any other setting by its dotted key.
        resume: go on with one that was stopped.
        track: as in `train`.
        command: what the user typed.
        listener: hears how the job goes on.
        images: which images of `data` are meant, as `ImageOptions` lists them.

    Raises:
        ClearmarginError: one line with what, where and the fix.
    """
    from clearmargin.studies.optimism import PROTOCOLS, measure_optimism
    from clearmargin.tracking import tracked
    from clearmargin.training.run_folder import is_begun

    changed = {
        "split.folds": folds,
        "split.repeats": repeats,
        "train.epochs": epochs,
        "seed": seed,
        **data_changes(data, **images),
    }
    config = load_recipe(recipe, {**(settings or {}), **given(changed)})
    begun = any(is_begun(run) for by in PROTOCOLS for run in (Path(out) / by).glob("*"))
    with tracked(track, Path(out), listener=listener, begun=begun, resume=resume) as heard:
        return measure_optimism(config, Path(out), resume=resume, command=command, listener=heard)


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
    from clearmargin.evaluation.comparison import compare_models
    from clearmargin.evaluation.foreign import read_models
    from clearmargin.tables import ComparisonTable

    models = read_models([Path(run) for run in runs], thresholds=thresholds)
    return ComparisonTable(compare_models(models, resamples=resamples, seed=seed, listener=listener))
