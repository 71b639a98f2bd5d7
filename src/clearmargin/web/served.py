"""A bundle ready to answer: uploads in, rows out."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearmargin.bundle.read import Bundle, read_bundle
from clearmargin.bundle.schema import ModelFile
from clearmargin.evaluation.prevalence import shift_prior
from clearmargin.predict.predictor import Predictor, prediction_row
from clearmargin.predict.records import record_of_path
from clearmargin.predict.session import Session
from clearmargin.types import Prediction, Record
from clearmargin.web.batching import WAIT_S, SharedRuns
from clearmargin.web.limits import ServeLimits
from clearmargin.web.serving import API
from clearmargin.web.uploads import Upload
from clearmargin.web.work import check_cancelled

if TYPE_CHECKING:
    from clearmargin.explanation.explainer import Explainer

_LOOK_UP_S = 0.2
Row = dict[str, Any]
"""As a line of `predict --format json`, with `at_prevalence` and `in_context`; JSON can hold it."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A row, and the prediction that it tells."""

    row: Row
    prediction: Prediction


class Served:
    """One bundle under its name.

    Args:
        name: in the API.
        bundle: verified.
        limits: of the server.
        gate: refuse images unlike those of training.
        batching: requests that come together share a run of the network.
        run: the folder of the run that made it, where that is what was given.
    """

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        limits: ServeLimits,
        *,
        gate: bool = True,
        batching: bool = True,
        run: Path | None = None,
    ) -> None:
        self.name, self.run = name, run
        self._runs: SharedRuns

        def share(session: Session) -> SharedRuns:
            self._runs = SharedRuns(session, wait_s=WAIT_S if batching else 0)
            return self._runs

        self.predictor = Predictor(bundle, gate=gate, limits=limits.image, share=share)
        self._explains = threading.Lock()

    def listen(self, hear: Callable[[int], None]) -> None:
        """From now on `hear` is told how many images go through the network together, each time."""
        self._runs.hear = hear

    @property
    def model(self) -> ModelFile:
        """What the bundle says of itself."""
        return self.predictor.bundle.model

    @cached_property
    def prevalence(self) -> float | None:
        """The share of malignant images at which the probabilities are calibrated, None where it is not known."""
        lineage = self.model.lineage
        confusion = (lineage.metrics or {}).get("confusion")
        if lineage.recalibrated is not None or not confusion:
            return None
        (true_benign, false_alarms), (missed, found) = confusion
        share = (missed + found) / max(1, true_benign + false_alarms + missed + found)
        return share if 0 < share < 1 else None

    @contextmanager
    def explaining(self, cancelled: threading.Event) -> Iterator[Explainer]:
        """The explainer, made when first needed; one request at a time has it, for it takes every core.

        Raises:
            Interrupted: it was cancelled while it waited.
        """
        while not self._explains.acquire(timeout=_LOOK_UP_S):
            check_cancelled(cancelled)
        try:
            check_cancelled(cancelled)
            yield self._explainer
        finally:
            self._explains.release()

    @cached_property
    def _explainer(self) -> Explainer:
        from clearmargin.data.phantom import DRAWN, draw_for_scale  # noqa: PLC0415  (few ask)
        from clearmargin.explanation.explainer import Explainer  # noqa: PLC0415  (torch)

        return Explainer(self.predictor, scale_images=draw_for_scale, scale_of=DRAWN)

    def decide(
        self,
        uploads: Sequence[Upload],
        *,
        similar: int = 0,
        context: bool = True,
        prevalence: float | None = None,
        cancelled: threading.Event | None = None,
    ) -> Iterator[Decided]:
        """A row for each upload, in order, with its prediction; blocks.

        Args:
            uploads: whose files are there until the last row has come.
            similar: so many training images that are most like each come along.
            context: neighbours of a patch count where places are known.
            prevalence: to which `at_prevalence` is shifted.
            cancelled: when it is set, the rows end with an error.

        Raises:
            Interrupted: it was cancelled.
        """
        records = [record_of_upload(upload) for upload in uploads if upload.refusal is None]
        predictions = self.predictor.predict_records(records, context=context, similar=similar)
        few = len(records) < self.predictor.batch
        with closing(predictions), self._runs.at_work() if few else nullcontext():
            for upload in uploads:
                check_cancelled(cancelled)
                prediction = next(predictions) if upload.refusal is None else refused(upload, similar)
                yield Decided(self.row(upload, prediction, prevalence), prediction)

    def row(self, upload: Upload, prediction: Prediction, prevalence: float | None) -> Row:
        """What is told of one upload."""
        shifted, observed, probability = None, self.prevalence, prediction.probability
        if prevalence is not None and observed is not None and probability is not None:
            shifted = float(shift_prior(np.array(probability), observed, prevalence))
        row: Row = prediction_row(prediction) | {"path": upload.name, "at_prevalence": shifted}
        row["in_context"] = prediction.in_context
        for case, similar in zip(prediction.similar or (), row.get("similar", ()), strict=True):
            similar["thumbnail"] = f"{API}/models/{self.name}/similar/{case.case}"
        return row


def record_of_upload(upload: Upload) -> Record:
    """Where the file is, and what the name that the client gave says of its patient and place."""
    named = record_of_path(upload.name)
    return Record(str(upload.path), named.patient_id, named.slide_id, named.x, named.y)


def refused(upload: Upload, similar: int = 0) -> Prediction:
    """What is said of an upload that is known to be no image."""
    none = () if similar else None
    return Prediction(
        record_of_upload(upload), None, None, "refused", upload.refusal, similar=none, unreadable="unreadable"
    )


def load_served(
    paths: Iterable[Path], limits: ServeLimits, *, gate: bool = True, batching: bool = True
) -> dict[str, Served]:
    """The bundles by name, verified and loaded, in the order of the paths.

    Args:
        paths: bundle folders, run folders, `.clearmargin` files.
        limits: of the server.
        gate: refuse images unlike those of training.
        batching: requests that come together share a run of the network.

    Raises:
        BundleError: one is no bundle, damaged or incompatible.
    """
    found: dict[str, Served] = {}
    for path in paths:
        bundle = read_bundle(path)
        name = _free_name(_name_of(path), found)
        found[name] = Served(name, bundle, limits, gate=gate, batching=batching, run=_run_of(bundle.folder))
    return found


def _run_of(bundle: Path) -> Path | None:
    """The run folder that a bundle lies in."""
    run = bundle.resolve().parent
    return run if bundle.name == "bundle" and (run / "run.json").is_file() else None


def _name_of(path: Path) -> str:
    whole = path.resolve()
    stem = whole.parent.name if whole.name == "bundle" else whole.name.removesuffix(".clearmargin")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip(".-")[:80] or "model"


def _free_name(name: str, taken: Iterable[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
