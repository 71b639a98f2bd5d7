"""The predictor: records in, predictions out, in order, one by one as they are ready.

Calibration, threshold, abstention, pooling and preprocessing come from the bundle, never from the caller. An image that
cannot be read is refused with the reason while the others go on. Memory is bounded by two batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearmargin.bundle.read import Bundle, read_bundle
from clearmargin.decision import probability
from clearmargin.errors import BundleError, DataError, ImageError
from clearmargin.images.limits import Pixels
from clearmargin.predict.pooled import pool_predictions
from clearmargin.predict.records import records_of_rows
from clearmargin.predict.session import Session
from clearmargin.types import Decision, LevelName, PooledPrediction, Prediction, Record

if TYPE_CHECKING:
    import pandas as pd

_Read = NDArray[np.uint8] | ImageError


class Predictor:
    """Decides on images with a bundle. Safe to share between threads."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        promise = bundle.model.conformal
        self._why_withheld = f"too uncertain for the promised coverage of {promise.coverage:g}" if promise else None
        self._session = Session(bundle.read("model.onnx"), name=str(bundle.folder / "model.onnx"))
        if self._session.image_shape != bundle.model.preprocessing.shape:
            raise BundleError(
                f"{bundle.folder}: model.onnx takes images of (H, W, C) = {self._session.image_shape}, "
                f"model.json says {bundle.model.preprocessing.shape}. Make the bundle anew."
            )

    def predict(self, images: Sequence[str | Path] | pd.DataFrame) -> pd.DataFrame:
        """One row an image: path, patient_id, slide_id, x, y, probability, decision, reason.

        Args:
            images: paths, or a table with the column `path` and, where known, patient_id, slide_id, x, y.

        Raises:
            DataError: the table has no column `path`.
        """
        import pandas as pd  # noqa: PLC0415  (a third of a second that one image should not pay)

        if isinstance(images, pd.DataFrame):
            if "path" not in images:
                raise DataError(f"the table has no column 'path'; found {', '.join(map(str, images.columns))}.")
            names = [str(name) for name in images.columns]
            rows = (dict(zip(names, row, strict=True)) for row in images.itertuples(index=False, name=None))
            records = list(records_of_rows(rows, where="the table"))
        else:
            records = [Record(str(path)) for path in ([images] if isinstance(images, str | Path) else images)]
        answers = [prediction_row(prediction) for prediction in self.predict_records(records)]
        return pd.DataFrame(answers, columns=list(PREDICTION_KEYS))

    def predict_records(self, records: Iterable[Record]) -> Iterator[Prediction]:
        """Predictions in the order of the records, each batch as soon as it is done."""
        source, batch = iter(records), self._session.batch
        chunk = list(islice(source, max(2, batch)))
        if len(chunk) < 2:  # one image needs no threads
            yield from self._decide(chunk, [self._read(record) for record in chunk])
            return
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            pending = [pool.submit(self._read, record) for record in chunk]
            while chunk:
                following = list(islice(source, batch))
                ahead: list[Future[_Read]] = [pool.submit(self._read, record) for record in following]
                yield from self._decide(chunk, [future.result() for future in pending])
                chunk, pending = following, ahead
        finally:
            pool.shutdown(cancel_futures=True)  # who stops listening waits for no more than the reads under way

    def pool(self, predictions: Iterable[Prediction], level: LevelName) -> list[PooledPrediction]:
        """One prediction for each slide or patient, in the order in which they first appear.

        The rule and the threshold are the bundle's own for this level. Refused images are left out and counted; an
        image that says nothing of its slide or patient is a thing of its own.

        Args:
            predictions: of the images.
            level: `slide` or `patient`.

        Raises:
            BundleError: the model has no such level; says why.
        """
        model = self.bundle.model
        if level not in model.levels:
            reason = model.no_levels.get(level, "the bundle holds no rule for it")
            raise BundleError(f"{self.bundle.folder}: this model does not decide by {level}: {reason}.")
        return pool_predictions(predictions, level, rule=model.levels[level])

    def predict_pixels(self, pixels: Pixels) -> Prediction:
        """The prediction for one decoded image.

        Args:
            pixels: uint8 or uint16, (H, W, C), C = 1 or 3.
        """
        return self._decide([Record("")], [self.bundle.model.preprocessing.apply(pixels)])[0]

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N,) logits of malignant, before any calibration.

        Args:
            images: (N, H, W, C), packed by the bundle's preprocessing.
        """
        return self._session.logits(images)

    def _read(self, record: Record) -> _Read:
        try:
            return self.bundle.model.preprocessing.read(record.path)
        except ImageError as error:
            return error

    def _decide(self, records: Sequence[Record], images: Sequence[_Read]) -> list[Prediction]:
        readable = [image for image in images if not isinstance(image, ImageError)]
        model = self.bundle.model
        logits = self._session.logits(np.stack(readable)) if readable else np.empty(0, np.float32)
        probabilities = probability(logits, model.calibrated_by)
        decisions = model.decide(probabilities)
        answers = iter(zip(logits, probabilities, decisions, strict=True))
        predictions = []
        for record, image in zip(records, images, strict=True):
            if isinstance(image, ImageError):
                predictions.append(Prediction(record, None, None, "refused", image.reason))
            else:
                logit, chance, decision = next(answers)
                word: Decision = decision.item()
                reason = self._why_withheld if word == "abstain" else None
                predictions.append(Prediction(record, float(logit), float(chance), word, reason))
        return predictions


PREDICTION_KEYS = ("path", "patient_id", "slide_id", "x", "y", "probability", "decision", "reason")


def load_bundle(path: Path | str) -> Predictor:
    """A predictor ready to decide, from a bundle folder or a run folder.

    Raises:
        BundleError: not a bundle, changed, or incompatible.
    """
    return Predictor(read_bundle(path))


def prediction_row(prediction: Prediction) -> dict[str, str | int | float | None]:
    """The prediction as the flat row that every output format has, keys as PREDICTION_KEYS."""
    record = prediction.record
    return {
        "path": record.path,
        "patient_id": record.patient_id,
        "slide_id": record.slide_id,
        "x": record.x,
        "y": record.y,
        "probability": prediction.probability,
        "decision": prediction.decision,
        "reason": prediction.reason,
    }
