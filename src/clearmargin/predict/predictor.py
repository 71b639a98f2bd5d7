"""The predictor: records in, predictions out, in order, one by one as they are ready.

Calibration, threshold, abstention, pooling, context and preprocessing come from the bundle, never from the caller. An
image that cannot be read is refused with the reason while the others go on. Memory is bounded by two batches; in
context, a thumbnail is kept of each patch until the last of its slide has been read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearmargin.bundle.read import Bundle, read_bundle
from clearmargin.bundle.schema import Context, Decisions
from clearmargin.context import Cells
from clearmargin.decision import probability
from clearmargin.errors import BundleError, DataError, ImageError
from clearmargin.images.fields import make_thumbnails
from clearmargin.images.limits import Pixels
from clearmargin.images.read import read_encoded
from clearmargin.predict.context import cells_of, field_logits, find_slides
from clearmargin.predict.gate import InputGate
from clearmargin.predict.pooled import pool_predictions
from clearmargin.predict.records import record_of_path, records_of_rows
from clearmargin.predict.session import Session
from clearmargin.types import NOT_GATED, Decision, LevelName, PooledPrediction, Prediction, Record

if TYPE_CHECKING:
    import pandas as pd

_Read = NDArray[np.uint8] | ImageError


class Predictor:
    """Decides on images with a bundle, and refuses those that are unlike what its model was shown.

    Safe to share between threads.

    Args:
        bundle: of the model.
        gate: False decides on any image that can be read, whatever it shows, and says so in each `reason`.
    """

    def __init__(self, bundle: Bundle, *, gate: bool = True) -> None:
        self.bundle = bundle
        model = bundle.model
        self._gate = InputGate(model.input_gate) if gate and model.input_gate is not None else None
        self._stamp = None if gate or model.input_gate is None else NOT_GATED
        self._session = self._open("model.onnx", bundle.model.preprocessing.shape)
        self._context = bundle.model.context

    @cached_property
    def _field_session(self) -> Session:
        """The network that sees fields, loaded when first needed."""
        field, thumbnail = self._field
        return self._open("context.onnx", (field * thumbnail, field * thumbnail, self._session.image_shape[2]))

    @property
    def _field(self) -> tuple[int, int]:
        architecture = self.bundle.model.architecture
        if architecture.field is None or architecture.thumbnail is None:
            raise BundleError(f"{self.bundle.folder}: this model has no network that sees the field around a patch.")
        return architecture.field, architecture.thumbnail

    def _open(self, name: str, shape: tuple[int, int, int]) -> Session:
        session = Session(self.bundle.read(name), name=str(self.bundle.folder / name))
        if session.image_shape != shape:
            raise BundleError(
                f"{self.bundle.folder}: {name} takes images of (H, W, C) = {session.image_shape}, "
                f"model.json says {shape}. Make the bundle anew."
            )
        return session

    def predict(self, images: Sequence[str | Path] | pd.DataFrame, *, context: bool = True) -> pd.DataFrame:
        """One row an image: path, patient_id, slide_id, x, y, probability, decision, reason.

        Args:
            images: paths, whose names may say where they lie, or a table with the column `path` and, where known,
                patient_id, slide_id, x, y.
            context: where the bundle can and places are known, the neighbours of a patch count too.

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
            records = [record_of_path(str(path)) for path in ([images] if isinstance(images, str | Path) else images)]
        answers = [prediction_row(prediction) for prediction in self.predict_records(records, context=context)]
        return pd.DataFrame(answers, columns=list(PREDICTION_KEYS))

    def predict_records(self, records: Iterable[Record], *, context: bool = True) -> Iterator[Prediction]:
        """Predictions in the order of the records, each batch, or in context each slide, as soon as it is done.

        Args:
            records: the images.
            context: where the bundle can and places are known, the neighbours of a patch count too.
        """
        if context and self._context is not None:
            records = list(records)
            slides = find_slides(records, self._context.grid.step)
            if (slides >= 0).any():
                yield from self._predict_slides(records, slides, self._context)
                return
        for chunk, images in self._batches(records):
            yield from self._decide(chunk, images)

    def _predict_slides(
        self, records: Sequence[Record], slides: NDArray[np.int64], context: Context
    ) -> Iterator[Prediction]:
        missing = np.bincount(slides[slides >= 0])
        waiting: dict[int, list[int]] = {}
        alone: dict[int, Prediction] = {}
        thumbnails: dict[int, NDArray[np.uint8]] = {}
        ready: dict[int, Prediction] = {}
        row, following = 0, 0
        for chunk, images in self._batches(records):
            for prediction, image in zip(self._decide(chunk, images), images, strict=True):
                slide = int(slides[row])
                if slide < 0:
                    ready[row] = prediction
                else:
                    alone[row] = prediction
                    if context.grid.networks > 1 and not isinstance(image, ImageError):
                        thumbnails[row] = make_thumbnails(image[None], self._field[1])[0]
                    waiting.setdefault(slide, []).append(row)
                    missing[slide] -= 1
                    if missing[slide] == 0:
                        members = waiting.pop(slide)
                        ready |= self._decide_slide({row: alone.pop(row) for row in members}, thumbnails, context)
                        for member in members:
                            thumbnails.pop(member, None)
                row += 1
            while following in ready:
                yield ready.pop(following)
                following += 1

    def _decide_slide(
        self, alone: dict[int, Prediction], thumbnails: Mapping[int, NDArray[np.uint8]], context: Context
    ) -> dict[int, Prediction]:
        """The predictions of one slide's patches, by row, in context; those that were refused stay so."""
        rows = [row for row, prediction in alone.items() if prediction.logit is not None]
        if len(rows) < 2:  # the others cannot be read, and one patch is no context
            return alone
        cells = cells_of([alone[row].record for row in rows], context.grid.step)
        logits = [np.array([alone[row].logit for row in rows], dtype=np.float64)]
        if context.grid.networks > 1:
            pictures = np.stack([thumbnails[row] for row in rows])
            logits.append(field_logits(self._field_session, pictures, cells, self._field[0]))
        inside = _decisions(
            [alone[row].record for row in rows], context.grid.apply(logits, cells), context, stamp=self._stamp
        )
        return alone | {row: replace(each, in_context=True) for row, each in zip(rows, inside, strict=True)}

    def _batches(self, records: Iterable[Record]) -> Iterator[tuple[list[Record], list[_Read]]]:
        """The records batch by batch with their images, the next batch being read meanwhile."""
        source, batch = iter(records), self._session.batch
        chunk = list(islice(source, max(2, batch)))
        if len(chunk) < 2:  # one image needs no threads
            yield chunk, [self._read(record) for record in chunk]
            return
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            pending = [pool.submit(self._read, record) for record in chunk]
            while chunk:
                following = list(islice(source, batch))
                ahead: list[Future[_Read]] = [pool.submit(self._read, record) for record in following]
                yield chunk, [future.result() for future in pending]
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
        inside = self._context.levels.get(level) if self._context else None
        return pool_predictions(predictions, level, rule=model.levels[level], rule_in_context=inside)

    def predict_pixels(self, pixels: Pixels) -> Prediction:
        """The prediction for one decoded image.

        Args:
            pixels: uint8 or uint16, (H, W, C), C = 1 or 3.
        """
        return self._decide([Record("")], [self._fit("", pixels)])[0]

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N,) logits of malignant, before any calibration.

        Args:
            images: (N, H, W, C), packed by the bundle's preprocessing.
        """
        return self._session.logits(images)

    def field_logits(self, images: NDArray[np.uint8], cells: Cells) -> NDArray[np.float64]:
        """(N,) logits of the network that sees the field around each patch; the bundle must have one.

        Args:
            images: (N, H, W, C), packed by the bundle's preprocessing.
            cells: where they lie.
        """
        field, thumbnail = self._field
        return field_logits(self._field_session, make_thumbnails(images, thumbnail), cells, field)

    def _read(self, record: Record) -> _Read:
        try:
            image = read_encoded(record.path).decode(window=self.bundle.model.preprocessing.dicom_window)
            return self._fit(record.path, image.pixels)
        except ImageError as error:
            return error

    def _fit(self, path: str, pixels: Pixels) -> _Read:
        """The image as the network takes it, or why its size is refused."""
        unlike = self._gate.size_refusal(pixels.shape[1], pixels.shape[0]) if self._gate else None
        return self.bundle.model.preprocessing.apply(pixels) if unlike is None else ImageError("unlike", path, unlike)

    def _judge(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[str | None]]:
        """(N,) logits of fitted images, and why the gate refuses each, None where it does not."""
        if self._gate is None:
            return self._session.logits(images), [None] * len(images)
        if not self._gate.needs_features:
            return self._session.logits(images), self._gate.refusals(images, None)
        logits, features = self._session.describe(images)
        return logits, self._gate.refusals(images, features)

    def _decide(self, records: Sequence[Record], images: Sequence[_Read]) -> list[Prediction]:
        refused = {row: image.reason for row, image in enumerate(images) if isinstance(image, ImageError)}
        rows = [row for row in range(len(images)) if row not in refused]
        logits = np.empty(0, np.float32)
        if rows:
            logits, unlike = self._judge(np.stack([image for image in images if not isinstance(image, ImageError)]))
            refused |= {row: reason for row, reason in zip(rows, unlike, strict=True) if reason is not None}
        there = [records[row] for row in rows]
        decided = dict(zip(rows, _decisions(there, logits, self.bundle.model, stamp=self._stamp), strict=True))
        return [
            Prediction(record, None, None, "refused", refused[row]) if row in refused else decided[row]
            for row, record in enumerate(records)
        ]


def _decisions(
    records: Sequence[Record], logits: NDArray[np.floating], rule: Decisions, *, stamp: str | None
) -> list[Prediction]:
    probabilities = probability(logits, rule.calibrated_by)
    promise = rule.conformal
    withheld = f"too uncertain for the promised coverage of {promise.coverage:g}" if promise else None
    predictions = []
    for record, value, chance, decision in zip(records, logits, probabilities, rule.decide(probabilities), strict=True):
        word: Decision = decision.item()
        reason = "; ".join(filter(None, (withheld if word == "abstain" else None, stamp))) or None
        predictions.append(Prediction(record, float(value), float(chance), word, reason))
    return predictions


PREDICTION_KEYS = ("path", "patient_id", "slide_id", "x", "y", "probability", "decision", "reason")


def load_bundle(path: Path | str, *, gate: bool = True) -> Predictor:
    """A predictor ready to decide, from a bundle folder or a run folder.

    Args:
        path: of the folder.
        gate: False decides on any image that can be read, whatever it shows, and says so in each `reason`.

    Raises:
        BundleError: not a bundle, changed, or incompatible.
    """
    return Predictor(read_bundle(path), gate=gate)


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
