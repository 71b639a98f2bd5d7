"""MLflow: a run in the store of a URI, by default SQLite beside the run folder; folds and seeds are its children.

The epochs of several networks are metrics of their run, under the name of the network. MLflow reports how it is used
to its makers unless it is told not to before it is imported; here it is told.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clearmargin.errors import UsageError
from clearmargin.tracking.facts import Result, Settings, begin_tags, read_settings
from clearmargin.tracking.kept import Kept
from clearmargin.tracking.places import Place
from clearmargin.tracking.tracker import LAST_WRITTEN, Status, Tracker, epoch_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

SILENCE = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""What must be in the environment before MLflow is imported, so that it reports nothing to its makers."""
_DEFAULTS = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # A server that is gone would hold the training up for many minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_EXPERIMENT = "clearmargin"
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_AT_ONCE = 100
"""Parameters in one request; MLflow takes no more."""
_LONGEST_VALUE = 6000
_SQLITE = "sqlite:///"


class MlflowStore(Tracker):
    name = "mlflow"
    libraries = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self, where: str, out: Path) -> None:
        self.out = out.absolute()
        self.uri = where or os.environ.get("MLFLOW_TRACKING_URI", "") or f"{_SQLITE}{self.out.parent / 'mlflow.db'}"
        if self.uri.startswith(_SQLITE):  # a run is resumed from other working folders, too
            self.uri = f"{_SQLITE}{Path(self.uri.removeprefix(_SQLITE)).absolute()}"
        self.kept = Kept(None if urlsplit(self.uri).password else self.uri)
        self._client: MlflowClient | None = None
        self._experiment = ""

    def check(self, *, goes_on: bool, before: Kept | None) -> None:
        if not urlsplit(self.uri).scheme or self.uri.startswith("file:"):
            raise UsageError(
                f"--track mlflow:{self.uri}: MLflow no longer writes into folders; give a database, as in "
                "mlflow:sqlite:///mlflow.db, or the address of a server."
            )
        folder = self._database.parent if self._database else None
        if folder is not None and not folder.is_dir() and folder != self.out.parent:
            raise UsageError(f"--track mlflow:{self.uri}: there is no folder {folder}; make it first.")

    def begin(self, settings: Settings, known: Kept | None) -> None:
        self._experiment = self._find_experiment()
        if known is not None and "" in known.runs and self._is_there(known.runs[""]):
            self.kept = known
            self._connected.update_run(known.runs[""], status="RUNNING")
        else:
            self._make_run("", settings)

    def last_epoch(self, place: Place) -> int:
        if place.run not in self.kept.runs:
            return 0
        metrics = self._connected.get_metric_history(self.kept.runs[place.run], _named(place, LAST_WRITTEN))
        return max((metric.step for metric in metrics), default=0)

    def write_epochs(self, place: Place, rows: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        run = self._run(place.run)
        for row in rows:
            values = epoch_metrics(row).items()
            metrics = [Metric(_named(place, name), value, now, int(row["epoch"])) for name, value in values]
            self._connected.log_batch(run, metrics=metrics)

    def write_result(self, run: str, result: Result) -> None:
        from mlflow.entities import Metric, RunTag

        now, identity = int(time.time() * 1000), self._run(run)
        metrics = [Metric(name, value, now, 0) for name, value in result.figures.items()]
        self._connected.log_batch(
            identity, metrics=metrics, tags=[RunTag(name, value) for name, value in result.tags.items()]
        )
        for file in result.files:
            self._connected.log_artifact(identity, str(file))
        if run:
            self._connected.set_terminated(identity, "FINISHED")

    def end(self, status: Status) -> None:
        if status != "finished":
            for run, identity in self.kept.runs.items():
                if run and run not in self.kept.ended:
                    self._connected.set_terminated(identity, _STATUS[status])
        if "" in self.kept.runs:
            self._connected.set_terminated(self.kept.runs[""], _STATUS[status])

    @property
    def _database(self) -> Path | None:
        return Path(self.uri.removeprefix(_SQLITE)) if self.uri.startswith(_SQLITE) else None

    @property
    def _connected(self) -> MlflowClient:
        if self._client is None:
            self._client = connect(self.uri)
        return self._client

    def _find_experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = self._connected.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # Where nothing is said, MLflow puts artefacts into the working directory.
        place = (self._database.absolute().parent / "mlartifacts").as_uri() if self._database else None
        return str(self._connected.create_experiment(name, artifact_location=place))

    def _is_there(self, identity: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._connected.get_run(identity).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _run(self, run: str) -> str:
        if run not in self.kept.runs:
            self._make_run(run, read_settings(self.out / run))
        return self.kept.runs[run]

    def _make_run(self, run: str, settings: Settings) -> None:
        from mlflow.entities import Param

        tags = begin_tags(settings)
        if run:
            tags["mlflow.parentRunId"] = self.kept.runs[""]
        name = f"{self.out.name}/{run}" if run else self.out.name
        identity = self._connected.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        self.kept = self.kept.with_run(run, identity)
        parameters = [Param(key, _text(value)) for key, value in settings.values.items()]
        for start in range(0, len(parameters), _AT_ONCE):
            self._connected.log_batch(identity, params=parameters[start : start + _AT_ONCE])


def connect(uri: str) -> MlflowClient:
    """A client of the store, a file that is made where it is not there yet; reports nothing to anybody else."""
    os.environ.update(SILENCE)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    with _quiet():
        from mlflow import MlflowClient

        return MlflowClient(uri, registry_uri=uri)


@contextmanager
def _quiet() -> Iterator[None]:
    """What MLflow and its libraries say to each other of their versions, and of making tables, is not for our users."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _named(place: Place, name: str) -> str:
    return f"{place.network}/{name}" if place.network else name


def _text(value: Any) -> str:
    return str(value)[:_LONGEST_VALUE]
