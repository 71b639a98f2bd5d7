"""A run that is tracked by both, stopped in its second network, and resumed; and run folders made by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.slides import StopInTraining, make_quick, slides_config, write_slides

from clearmargin.config import dump_config, load_recipe
from clearmargin.errors import Interrupted
from clearmargin.tracking import tracked
from clearmargin.tracking.kept import Kept, read_kept
from clearmargin.training.run_folder import is_begun
from clearmargin.types import Listener
from clearmargin.workflow import run_training

BOTH = ["tensorboard", "mlflow"]


@dataclass(frozen=True)
class TrackedRun:
    """Where it is, where its images are, what was kept of it when it was stopped, and its status in MLflow then."""

    out: Path
    data: Path
    kept: dict[str, Kept]
    status: str


@pytest.fixture(scope="session")
def tracked_run(tmp_path_factory: pytest.TempPathFactory) -> TrackedRun:
    """Two networks, each with one for the field; pseudonymised."""
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("tracked")
    data, out = write_slides(root / "hospital", patients=12), root / "runs" / "one"
    config = slides_config(data, data__pseudonymise=True, train__crossfit=2)
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, root / "cache")
        patch.setenv("CLEARMARGIN_KEY_FILE", str(root / "key"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        kept: dict[str, Kept] = {}
        status = ""
        for listener, track in ((StopInTraining(1, 10), BOTH), (Listener(), ())):
            begun = is_begun(out)
            with (
                suppress(Interrupted),
                tracked(track, out, listener=listener, begun=begun, resume=begun) as heard,
            ):
                run_training(config, out, resume=begun, listener=heard)
            if not begun:
                kept = read_kept(out)
                status = (
                    MlflowClient(f"sqlite:///{out.parent / 'mlflow.db'}").get_run(kept["mlflow"].runs[""]).info.status
                )
    return TrackedRun(out, data, kept, status)


@pytest.fixture(autouse=True)
def _no_store_of_the_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    yield


def write_run(folder: Path, *, epochs: int = 2, auroc: float = 0.9, begun: bool = True, **more: Any) -> Path:
    """A run folder by hand, as far as a tracker reads it without pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(dump_config(load_recipe("cnn_50")))
    write_history(folder, epochs)
    figure = {"value": auroc, "ci": [auroc - 0.1, auroc + 0.05], "method": "delong"}
    metrics = {
        "protocol": {"split": "patient", "split_sha256": "5" * 64, "seed": 0} | more,
        "operating_point": {"threshold": 0.4},
        "test": {"image": {"n_images": 10, "auroc": figure, "npv": {"value": None, "reason": "none"}},
                 "patient": {"not_applicable": "x"}},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if begun:
        (folder / "checkpoint").mkdir(exist_ok=True)
    return folder


def write_history(folder: Path, epochs: int) -> None:
    """history.csv with so many epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
                         "validation_auroc", "learning_rate", "seconds", "images_per_second"])  # fmt: skip
        writer.writerows(
            [epoch, 1 / epoch, 0.8, 1.1 / epoch, 0.7, "nan", 1e-3, 2.0, 50.0] for epoch in range(1, epochs + 1)
        )


def read_events(folder: Path) -> list[tuple[int, str, Any]]:
    """(step, tag, value) of everything in the event files of this folder, not below it, in the order of writing."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    files = sorted(folder.glob("events.out.tfevents.*"))
    events = [event for file in files for event in LegacyEventFileLoader(str(file)).Load()]
    return [(event.step, value.tag, value) for event in events for value in event.summary.value]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag to its steps and values."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, tag, value in read_events(folder):
        if value.HasField("simple_value"):
            found.setdefault(tag, []).append((step, value.simple_value))
    return found
