"""The predictor: records in, predictions out, in order, one by one as they are ready.

Calibration, threshold, abstention, pooling, context and preprocessing come from the bundle, never from the caller. An
image that cannot be read is refused with the reason while the others go on. Memory is bounded by a few batches; in
context, a thumbnail is kept of each patch until the last of its slide has been read, and eight bytes of every image.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearmargin.bundle.read import Bundle, read_bundle
from clearmargin.bundle.schema import Context, Decisions
from clearmargin.context import Cells
from clearmargin.decision import probability
from clearmargin.errors import BundleError, DataError, ImageError, UsageError, one_line
from clearmargin.files import seen_from_here
from clearmargin.images.fields import make_thumbnails
from clearmargin.images.limits import Limits, Pixels, check_pixels
from clearmargin.images.read import read_encoded
from clearmargin.predict.batches import decide_in_batches
from clearmargin.predict.context import cells_of, field_logits, find_slides
from clearmargin.predict.gate import InputGate
from clearmargin.predict.pooled import pool_predictions
from clearmargin.predict.records import records_of_paths, records_of_rows
from clearmargin.predict.session import Runs, Session
from clearmargin.predict.similar import SimilarCases, check_similar, similar_rows
from clearmargin.shown import Shown
from clearmargin.types import NOT_GATED, Decision, LevelName, PooledPrediction, Prediction, Record, SimilarCase

if TYPE_CHECKING:
    import pandas as pd

_Read = NDArray[np.uint8] | ImageError
_UNLIKE = "unlike"
"""Kind of the error for a size that the gate refuses: the image could be read."""


class Predictor(Shown):
    """Decides on images with a bundle, and refuses those that are unlike what its model was shown.

    Safe to share between threads.

    Args:
        bundle: of the model.
        gate: False decides on any image that can be read, whatever it shows, and says so in each `reason`.
        limits: what one image may cost.
        share: puts something before the session that decides images by themselves; the session alone when None.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        gate: bool = True,
        limits: Limits = Limits(),
        share: Callable[[Session], Runs] | None = None,
    ) -> None:
        self.bundle, self.limits = bundle, limits
        model = bundle.model
        self.gated = gate
        self._gate = InputGate(model.input_gate) if gate and model.input_gate is not None else None
        self._stamp = None if gate or model.input_gate is None else NOT_GATED
        session = self._open("model.onnx", bundle.model.preprocessing.shape)
        self._session: Runs = session if share is None else share(session)
        self._context = bundle.model.context

    def __repr__(self) -> str:
        return f"Predictor of {one_line(seen_from_here(self.bundle.folder))}"

    @property
    def is_gated(self) -> bool:
        """Images unlike those of training are refused: the bundle has a gate, and it is not switched off."""
        return self._gate is not None

    @property
    def batch(self) -> int:
        """How many images are decided together; the first of each batch stands at a multiple of it."""
        return self._session.batch

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

    @cached_property
    def similar_cases(self) -> SimilarCases:
        """The training images that the bundle carries, loaded when first needed.

        Raises:
            BundleError: it carries none, or they are damaged.
        """
        from clearmargin.bundle.cases import load_cases  # noqa: PLC0415  (few ask for them)

        kept = self.bundle.model.cases
        return SimilarCases(load_cases(self.bundle), pseudonymous=kept is not None and kept.pseudonymous)

    def _open(self, name: str, shape: tuple[int, int, int]) -> Session:
        session = Session(self.bundle.read(name), name=str(self.bundle.folder / name))
        if session.image_shape != shape:
            raise BundleError(
                f"{self.bundle.folder}: {name} takes images of (H, W, C) = {session.image_shape}, "
                f"model.json says {shape}. Make the bundle anew."
            )
        return session

    def predict(
        self, images: Sequence[str | Path] | pd.DataFrame, *, context: bool = True, similar: int = 0
    ) -> pd.DataFrame:
        """One row an image: path, patient_id, slide_id, x, y, probability, decision, reason; and similar, if asked for.

        Args:
            images: paths, whose names may say where they lie, or a table with the column `path` and, where known,
                patient_id, slide_id, x, y.
            context: where the bundle can and places are known, the neighbours of a patch count too.
            similar: so many training images that the network finds most like each, as a list of dicts.

        Raises:
            DataError: the table has no column `path`.
            BundleError: similar images are asked for, and the bundle carries none.
        """
        import pandas as pd  # noqa: PLC0415  (a third of a second that one image should not pay)

        from clearmargin.tables import PredictionTable  # noqa: PLC0415

        if isinstance(images, pd.DataFrame):
            if "path" not in images:
                raise DataError(f"the table has no column 'path'; found {', '.join(map(str, images.columns))}.")
            names = [str(name) for name in images.columns]
            rows = (dict(zip(names, row, strict=True)) for row in images.itertuples(index=False, name=None))
            records = list(records_of_rows(rows, where="the table"))
        else:
            records = records_of_paths(images)
        predictions = list(self.predict_records(records, context=context, similar=similar))
        keys = [*PREDICTION_KEYS, *([SIMILAR_KEY] if similar else [])]
        table = pd.DataFrame([prediction_row(prediction) for prediction in predictions], columns=keys)
        about = {
            "alone": self.bundle.model,
            "context": self._context,
            "in_context": [each.in_context for each in predictions],
        }
        return PredictionTable(table, about=about)

    def predict_records(
        self, records: Iterable[Record], *, context: bool = True, similar: int = 0
    ) -> Generator[Prediction]:
        """Predictions in the order of the records, each batch, or in context each slide, as soon as it is done.

        Args:
            records: the images; in context they are gone through twice, and kept where that cannot be.
            context: where the bundle can and places are known, the neighbours of a patch count too.
            similar: so many training images that the network finds most like each come along.

        Raises:
            BundleError: similar images are asked for, and the bundle carries none.
        """
        check_similar(similar)
        if context and self._context is not None:
            if isinstance(records, Iterator):  # what can be gone through twice need not be kept
                records = list(records)
            slides = find_slides(records, self._context.grid.step)
            if (slides >= 0).any():
                yield from self._predict_slides(records, slides, self._context, similar)
                return
        for _, predictions in self._answers(records, similar):
            yield from predictions

    def _predict_slides(
        self, records: Iterable[Record], slides: NDArray[np.int64], context: Context, similar: int
    ) -> Iterator[Prediction]:
        missing = np.bincount(slides[slides >= 0])
        waiting: dict[int, list[int]] = {}
        alone: dict[int, Prediction] = {}
        thumbnails: dict[int, NDArray[np.uint8]] = {}
        ready: dict[int, Prediction] = {}
        row, following = 0, 0
        for images, predictions in self._answers(records, similar):
            for prediction, image in zip(predictions, images, strict=True):
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
        return alone | {
            row: replace(each, in_context=True, similar=alone[row].similar)
            for row, each in zip(rows, inside, strict=True)
        }

    def _answers(self, records: Iterable[Record], similar: int) -> Iterator[tuple[list[_Read], list[Prediction]]]:
        """The images of the records batch by batch, and what is said of each by itself."""
        return decide_in_batches(records, self.batch, self._read, partial(self._decide, similar=similar))

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

    def predict_pixels(self, pixels: Pixels, *, similar: int = 0) -> Prediction:
        """The prediction for one decoded image.

        Args:
            pixels: uint8 or uint16, (H, W, C), C = 1 or 3.
            similar: so many training images that the network finds most like it come along; the picture of `case` is
                `similar_cases.cases.thumbnails[case.case]`.

        Raises:
            UsageError: the array is of another shape or type.
        """
        check_similar(similar)
        check_pixels(pixels)
        return self._decide([Record("")], [self._fit("", pixels)], similar)[0]

    def similar(self, images: NDArray[np.uint8], k: int) -> list[tuple[SimilarCase, ...]]:
        """For each image the `k` training images that the network finds most like it, nearest first.

        Args:
            images: (N, H, W, C), packed by the bundle's preprocessing.
            k: 1 to 50; all are given where the bundle carries fewer.

        Raises:
            UsageError: the array is of another shape or type.
            BundleError: the bundle carries none.
        """
        check_similar(k)
        shape = self._session.image_shape
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise UsageError(
                f"similar takes packed images, uint8 of shape (N, {', '.join(map(str, shape))}), not {images.dtype} of "
                f"shape {images.shape}; apply the bundle's preprocessing first."
            )
        if k == 0 or len(images) == 0:
            return [()] * len(images)
        return self.similar_cases.find(self._session.describe(images)[1], [None] * len(images), k)

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
            encoded = read_encoded(record.path, self.limits)
            image = encoded.decode(self.limits, window=self.bundle.model.preprocessing.dicom_window)
            return self._fit(record.path, image.pixels)
        except ImageError as error:
            return error

    def _fit(self, path: str, pixels: Pixels) -> _Read:
        """The image as the network takes it, or why its size is refused."""
        unlike = self._gate.size_refusal(pixels.shape[1], pixels.shape[0]) if self._gate else None
        return self.bundle.model.preprocessing.apply(pixels) if unlike is None else ImageError(_UNLIKE, path, unlike)

    def _judge(
        self, images: NDArray[np.uint8], *, similar: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, list[str | None]]:
        """(N,) logits of fitted images, (N, D) features where they are needed, and why the gate refuses each."""
        gate = self._gate
        if similar or (gate is not None and gate.needs_features):
            logits, features = self._session.describe(images)
        else:
            logits, features = self._session.logits(images), None
        return logits, features, [None] * len(images) if gate is None else gate.refusals(images, features)

    def _decide(self, records: Sequence[Record], images: Sequence[_Read], similar: int) -> list[Prediction]:
        cases = self.similar_cases if similar else None
        refused = {row: image.reason for row, image in enumerate(images) if isinstance(image, ImageError)}
        rows = [row for row in range(len(images)) if row not in refused]
        decided: dict[int, Prediction] = {}
        if rows:
            there = [records[row] for row in rows]
            readable = np.stack([image for image in images if not isinstance(image, ImageError)])
            logits, features, unlike = self._judge(readable, similar=cases is not None)
            refused |= {row: reason for row, reason in zip(rows, unlike, strict=True) if reason is not None}
            decisions = _decisions(there, logits, self.bundle.model, stamp=self._stamp)
            if cases is not None and features is not None:
                found = cases.find(features, [record.patient_id for record in there], similar)
                decisions = [replace(each, similar=near) for each, near in zip(decisions, found, strict=True)]
            decided = dict(zip(rows, decisions, strict=True))
        return [
            decided[row]
            if row not in refused
            else Prediction(
                record,
                None,
                None,
                "refused",
                refused[row],
                similar=None if cases is None else (),
                unreadable=_unreadable(images[row]),
            )
            for row, record in enumerate(records)
        ]


def _unreadable(image: _Read) -> str | None:
    return image.kind if isinstance(image, ImageError) and image.kind != _UNLIKE else None


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
SIMILAR_KEY = "similar"
"""A further key, where similar images were asked for."""


def load_bundle(path: Path | str, *, gate: bool = True) -> Predictor:
    """A predictor ready to decide, from a bundle folder or a run folder.

    Args:
        path: of the folder.
        gate: False decides on any image that can be read, whatever it shows, and says so in each `reason`.

    Raises:
        BundleError: not a bundle, changed, or incompatible.
    """
    return Predictor(read_bundle(path), gate=gate)


def prediction_row(prediction: Prediction) -> dict[str, object]:
    """The prediction as the row that every output format has, keys as PREDICTION_KEYS, and SIMILAR_KEY if asked for."""
    record = prediction.record
    similar = {} if prediction.similar is None else {SIMILAR_KEY: similar_rows(prediction.similar)}
    return {
        "path": record.path,
        "patient_id": record.patient_id,
        "slide_id": record.slide_id,
        "x": record.x,
        "y": record.y,
        "probability": prediction.probability,
        "decision": prediction.decision,
        "reason": prediction.reason,
        **similar,
    }
