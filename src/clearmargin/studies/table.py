"""`evaluate PREDICTIONS`: the figures and the report of predictions that any software made.

Nothing is known of the model but its answers: probabilities are taken as they are, and the threshold is the one that
the table's decisions follow, the caller's, or one chosen on the table's validation rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from clearmargin.decision import UNCALIBRATED, logit
from clearmargin.errors import UsageError
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.choices import Choices, known_ids, point_arguments
from clearmargin.evaluation.foreign import Predictions, read_models
from clearmargin.evaluation.operating_point import choose_operating_point
from clearmargin.evaluation.predictions import write_predictions
from clearmargin.files import write_json, write_whole
from clearmargin.images.preprocess import Preprocessing
from clearmargin.settings import RunConfig
from clearmargin.training.log import RunLog
from clearmargin.training.run_folder import describe_environment, finish_run, open_run
from clearmargin.types import LABEL_NAMES, Listener, OperatingPoint
from clearmargin.workflow import Run, build_report

PATIENTS_ON_BOTH_SIDES = "patients on both sides of the split: optimistic"
_NO_ABSTENTION = "the predictions come from other software, of whose abstention nothing is known"


def evaluate_table(
    table: Path,
    config: RunConfig,
    out: Path,
    *,
    threshold: float | None = None,
    command: str = "",
    listener: Listener = Listener(),
) -> Run:
    """metrics.json, report and their companions for a CSV or Parquet file with path, label and probability.

    Args:
        table: patient_id, split and decision are used where they are there.
        config: the section `evaluate`; its operating point is chosen on rows of the split `validation`.
        out: the folder, new.
        threshold: at or above it an image is called malignant; None where the table tells.
        command: what the user typed, for the report.
        listener: hears how it goes on.

    Raises:
        DataError: the table cannot be read, or a value in it is refused.
        UsageError: nothing tells a threshold.
    """
    (model,) = read_models([table], thresholds=() if threshold is None else [threshold])
    frame = model.table.assign(slide_id=None, x=None, y=None, logit=logit(model.table["probability"].to_numpy()))
    point = _find_point(model, frame, config)
    called = frame["probability"] >= point.threshold
    frame["decision"] = called.map(dict(enumerate(LABEL_NAMES)).__getitem__)
    with open_run(out, config, resume=None):
        log = RunLog(out / "log.jsonl", listener)
        environment = describe_environment(command)
        write_predictions(frame, out / "predictions.csv")
        split = frame[["path", "patient_id", "label", "split"]]
        write_whole(out / "split.csv", lambda path: split.to_csv(path, index=False))
        metrics = evaluate_predictions(
            frame,
            Choices(UNCALIBRATED, point, _NO_ABSTENTION),
            protocol=_describe_protocol(table, frame, config),
            settings=config.evaluate,
            seed=config.seed,
            listener=log,
        )
        write_json(out / "metrics.json", metrics)
        log.close_stage()
        write_json(out / "environment.json", environment | {"seconds": dict(log.seconds)})
        log.stage("report")
        build_report(out, Preprocessing.for_display())
        facts = {"protocol": metrics["protocol"], "stamp": metrics["protocol"].get("stamp")}
        finish_run(out, facts, hashed=("config.toml", "split.csv", "predictions.csv", "metrics.json"))
    return Run(out)


def _find_point(model: Predictions, frame: pd.DataFrame, config: RunConfig) -> OperatingPoint:
    if model.threshold is not None:
        return OperatingPoint("given", "as given with the predictions", model.threshold, chosen_on="unknown data")
    rows = frame[frame["split"] == "validation"]
    if len(rows) == 0:
        raise UsageError(
            f"{model.name}: nothing tells the threshold; give --threshold, a column 'decision', or rows of the split "
            "'validation' to choose it on."
        )
    labels, probabilities = rows["label"].to_numpy(), rows["probability"].to_numpy()
    return choose_operating_point(labels, probabilities, **point_arguments(config.evaluate))


def _describe_protocol(table: Path, frame: pd.DataFrame, config: RunConfig) -> dict[str, Any]:
    patients = known_ids(frame, "patient_id")
    present = frame["split"].unique().tolist()
    sides: dict[str, set[object]] = {}
    if patients is not None:
        sides = {name: set(patients[(frame["split"] == name).to_numpy()]) for name in present}
    # The threshold may be chosen on validation, so its patients are not to be tested on either.
    shared = len((sides.get("train", set()) | sides.get("validation", set())) & sides.get("test", set()))
    stamp = {"stamp": PATIENTS_ON_BOTH_SIDES, "shared_patients": shared} if shared else {}
    return {
        "split": "external",
        "data": table.name,
        "seed": config.seed,
        "patients": {name: len(sides[name]) if sides else None for name in present},
        "images": {name: int((frame["split"] == name).sum()) for name in present},
        **stamp,
    }
