"""A real run, tracked, stopped and resumed: everything is there once, and nothing that should not leave."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from tests.tracking.conftest import TrackedRun, read_events, scalars

from clearmargin import __version__
from clearmargin.config import read_config
from clearmargin.tracking.kept import read_kept
from clearmargin.tracking.tracker import EPOCH_NAMES
from clearmargin.training.run_folder import flat

NETWORKS = {
    "network_0": "checkpoint/0", "network_1": "checkpoint/1",
    "field_network_0": "field/checkpoint/0", "field_network_1": "field/checkpoint/1", "field": "field", "": ".",
}  # fmt: skip


@cache
def client(out: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{out.parent / 'mlflow.db'}")


def mlflow_run(run: TrackedRun) -> Any:
    return client(run.out).get_run(read_kept(run.out)["mlflow"].runs[""])


@pytest.mark.parametrize("network", NETWORKS)
def test_every_epoch_of_every_network_is_there_once(tracked_run: TrackedRun, network: str) -> None:
    history = pd.read_csv(tracked_run.out / NETWORKS[network] / "history.csv")
    shown = scalars(tracked_run.out / "tensorboard" / network)
    identity = mlflow_run(tracked_run).info.run_id
    for column, name in EPOCH_NAMES.items():
        expected = list(zip(history["epoch"], history[column], strict=True))
        assert [(step, pytest.approx(value, rel=1e-5)) for step, value in expected] == shown[name], name
        stored = client(tracked_run.out).get_metric_history(identity, f"{network}/{name}".lstrip("/"))
        assert sorted((metric.step, metric.value) for metric in stored) == expected


def test_a_resumed_run_is_the_same_tracked_run(tracked_run: TrackedRun) -> None:
    run = mlflow_run(tracked_run)
    assert run.info.run_id == tracked_run.kept["mlflow"].runs[""]
    assert (tracked_run.status, run.info.status) == ("KILLED", "FINISHED")
    assert len(client(tracked_run.out).search_runs([run.info.experiment_id])) == 1
    assert tracked_run.kept["tensorboard"].ended == ()
    assert read_kept(tracked_run.out)["tensorboard"].ended == ("",)


def test_figures_and_the_ends_of_their_intervals_are_those_of_the_run(tracked_run: TrackedRun) -> None:
    metrics = json.loads((tracked_run.out / "metrics.json").read_text())
    shown, stored = scalars(tracked_run.out / "tensorboard"), mlflow_run(tracked_run).data.metrics
    for split in ("train", "validation", "test"):
        for name in ("auroc", "sensitivity", "brier"):
            figure = metrics[split]["image"][name]
            for end, value in {"": figure["value"], "_low": figure["ci"][0], "_high": figure["ci"][1]}.items():
                key = f"{split}/image/{name}{end}"
                assert stored[key] == value
                assert shown[key] == [(0, pytest.approx(value, abs=1e-6))]
    assert stored["operating_point/threshold"] == metrics["operating_point"]["threshold"]
    assert stored["test/image_alone/auroc"] == metrics["test"]["image_alone"]["auroc"]["value"]


def test_parameters_are_all_settings_and_tags_say_how_the_figures_came_about(tracked_run: TrackedRun) -> None:
    run = mlflow_run(tracked_run)
    settings = flat(read_config(tracked_run.out / "config.toml").model_dump(mode="json", exclude_none=True))
    assert run.data.params == {key: str(value) for key, value in settings.items()}
    protocol = json.loads((tracked_run.out / "metrics.json").read_text())["protocol"]
    lineage = json.loads((tracked_run.out / "bundle" / "model.json").read_text())["lineage"]
    expected = {
        "recipe": "default", "split": "patient", "split_sha256": protocol["split_sha256"], "crossfit": "2",
        "data_sha256": lineage["data_sha256"], "clearmargin": __version__, "model": "shade",
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    assert "stamp" not in run.data.tags


def test_artefacts_are_the_files_of_the_run(tracked_run: TrackedRun) -> None:
    run = mlflow_run(tracked_run)
    assert run.info.artifact_uri.startswith((tracked_run.out.parent / "mlartifacts").as_uri())
    place = tracked_run.out.parent / "mlartifacts" / run.info.run_id / "artifacts"
    for name in ("report.html", "metrics.json", "bundle/model.json"):
        assert (place / Path(name).name).read_bytes() == (tracked_run.out / name).read_bytes()


def test_event_files_have_pictures_settings_and_hyperparameters(tracked_run: TrackedRun) -> None:
    events = {tag: value for _, tag, value in read_events(tracked_run.out / "tensorboard")}
    for name in ("confusion", "roc", "reliability"):
        picture = events[f"test/{name}"].image
        with Image.open(io.BytesIO(picture.encoded_image_string)) as image:
            assert image.size == (picture.width, picture.height)
            assert len(set(image.convert("L").tobytes())) > 20  # something is drawn
    (text,) = events["settings/text_summary"].tensor.string_val
    assert 'name = "shade"' in text.decode()
    plugins = [events[f"_hparams_/{part}"].metadata.plugin_data for part in ("experiment", "session_start_info")]
    assert all(plugin.plugin_name == "hparams" for plugin in plugins)
    assert b"train.learning_rate" in plugins[1].content


def test_nothing_that_a_pseudonymised_run_hides_leaves_through_a_tracker(tracked_run: TrackedRun) -> None:
    written = [tracked_run.out.parent / "mlflow.db", tracked_run.out / "tracking.json"]
    for folder in (tracked_run.out.parent / "mlartifacts", tracked_run.out / "tensorboard"):
        written += [file for file in folder.rglob("*") if file.is_file()]
    assert len(written) > 2 + 3 + len(NETWORKS)  # and a second file where the run was resumed
    for file in written:
        content = file.read_bytes()
        assert b"hospital" not in content, file
        assert not any(f"S0{patient:02}".encode() in content for patient in range(12)), file
