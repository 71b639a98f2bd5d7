"""The explainer: images in, explanations out, in order, one by one as they are ready.

What is decided comes through the one door for predictions; what is explained is the logit of the same network, whose
torch weights must give what the exported network gave. Memory is bounded by one batch of images.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from clearmargin.bundle.schema import SaliencyScale
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.errors import BundleError, ImageError
from clearmargin.explanation.methods import DEFAULT_METHOD, find_method, find_methods, without_anything
from clearmargin.explanation.scale import batch_size, explain_packed, measure_scales, to_input
from clearmargin.images.limits import Pixels
from clearmargin.images.preprocess import Placement, Preprocessing
from clearmargin.images.read import read_image
from clearmargin.predict.predictor import Predictor
from clearmargin.types import Decision, Prediction, Record

_MOST_BYTES = 2**27
"""Of decoded images that wait to be explained together."""
_TOLERANCE = 1e-3
ScaleImages = Callable[[Preprocessing], NDArray[np.uint8]]
"""Packed images (N, H, W, C) to find a colour scale on."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Which places of one image moved the logit of the network that sees it by itself."""

    record: Record
    method: str
    """Of METHODS."""
    map: NDArray[np.float32]
    """(H, W) in the network's input, in the method's unit; above zero it speaks for malignant. Never rescaled."""
    placement: Placement
    """Where the input lies in the image; `place.lay_over` puts the map there."""
    logit: float
    probability: float
    """Of the image by itself, without its neighbours in a slide."""
    decision: Decision
    threshold: float
    scale: SaliencyScale
    """The value at which the colour is full, the same for every image of the bundle."""
    plain_logit: float | None = None
    """Of integrated gradients: the logit of the image's mean colour alone; the map sums to logit - this."""
    reason: str | None = None
    """Of the prediction: why it was withheld, and whether the gate was switched off."""
    between: tuple[float, float] | None = None
    """Probabilities for which the decision is withheld, both included; None where none is."""
    full_reach: float = math.inf
    """Logits that full colour all over the image would be, about; little where the network hardly moves."""
    alone: bool = False
    """Neighbours in the slide, which count in this bundle where places are known, are left out."""

    @property
    def strength(self) -> NDArray[np.float32]:
        """(H, W) the map in units of the scale, cut off at -1 and 1."""
        result: NDArray[np.float32] = np.clip(self.map / np.float32(self.scale.saturation), -1, 1)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """One image: what was decided, its pixels, an explanation by each method; only the first where it was refused."""

    prediction: Prediction
    pixels: Pixels | None = None
    explanations: tuple[Explanation, ...] = ()

    def _repr_png_(self) -> bytes | None:
        """The picture that `explain` writes, for notebooks; None of an image that was refused."""
        if self.pixels is None or not self.explanations:
            return None
        from clearmargin.explanation.picture import draw_picture  # noqa: PLC0415  (it imports this module)

        stream = io.BytesIO()
        draw_picture(self.pixels, self.explanations).save(stream, "PNG")
        return stream.getvalue()


class Explainer:
    """Explains what a bundle says of images.

    Args:
        predictor: of the bundle.
        scale_images: where the bundle has no colour scale for a method, it is found on these; None refuses then.
        scale_of: what they are, for the record.
    """

    def __init__(
        self, predictor: Predictor, *, scale_images: ScaleImages | None = None, scale_of: str = "other images"
    ) -> None:
        self.predictor = predictor
        self.model = load_torch_model(predictor.bundle).requires_grad_(False)
        self._spec = predictor.bundle.model.preprocessing
        self._scales = dict(predictor.bundle.model.saliency or {})
        self._reach: dict[str, float] = {}
        self._scale_images, self._scale_of = scale_images, scale_of

    def scale(self, method: str) -> SaliencyScale:
        """The colour scale of the method: the bundle's, or one that is found now and kept.

        Raises:
            UnknownName: no such method.
            BundleError: the bundle has none, and there are no images to find one on.
        """
        find_method(method)
        if method not in self._scales:
            if self._scale_images is None:
                raise BundleError(
                    f"{self.predictor.bundle.folder}: has no colour scale for '{method}'. Make one with calibrate."
                )
            images = self._scale_images(self._spec)
            self._scales |= measure_scales(self.model, self._spec, images, of=self._scale_of, methods=[method])
        return self._scales[method]

    def full_reach(self, method: str) -> float:
        """Logits that full colour all over an image would be, about.

        Raises:
            UnknownName: no such method.
            BundleError: there is no colour scale.
        """
        if method not in self._reach:
            height, width, channels = self._spec.shape
            places = find_method(method).places(self.model, (channels, height, width))
            self._reach[method] = self.scale(method).saturation * places
        return self._reach[method]

    def has_scale(self, method: str) -> bool:
        """The bundle itself has a colour scale for the method."""
        return method in (self.predictor.bundle.model.saliency or {})

    def explain(self, pixels: Pixels, *, methods: str | Sequence[str] = DEFAULT_METHOD) -> Explained:
        """The explanations of one decoded image.

        Args:
            pixels: uint8 or uint16, (H, W, C), C = 1 or 3.
            methods: of METHODS, or `all`.

        Raises:
            UnknownName: no such method.
            UsageError: the pixels are no such array.
            BundleError: weights and exported network do not agree, or there is no colour scale.
        """
        return next(iter(self._explain([(Record(""), pixels)], find_methods(methods))))

    def explain_records(
        self, records: Iterable[Record], *, methods: str | Sequence[str] = DEFAULT_METHOD
    ) -> Iterator[Explained]:
        """The explanations of each image, in the order of the records; one that cannot be read is refused.

        Raises:
            UnknownName: no such method.
            BundleError: weights and exported network do not agree, or there is no colour scale.
        """
        names = find_methods(methods)
        for name in names:
            self.scale(name)
        waiting: list[tuple[Record, Pixels | ImageError]] = []
        size = batch_size(self._spec)
        for record in records:
            waiting.append((record, self._read(record)))
            held = sum(image.nbytes for _, image in waiting if not isinstance(image, ImageError))
            if len(waiting) >= size or held > _MOST_BYTES:
                yield from self._explain(waiting, names)
                waiting = []
        yield from self._explain(waiting, names)

    def _read(self, record: Record) -> Pixels | ImageError:
        try:
            return read_image(record.path, self.predictor.limits, window=self._spec.dicom_window)
        except ImageError as error:
            return error

    def _explain(
        self, images: Sequence[tuple[Record, Pixels | ImageError]], methods: Sequence[str]
    ) -> Iterator[Explained]:
        decided = [(*self._decide(record, image), image) for record, image in images]
        accepted = [packed for _, packed, _ in decided if packed is not None]
        if not accepted:
            yield from (Explained(prediction) for prediction, _, _ in decided)
            return
        batch = np.stack(accepted)
        self._check_parity(batch, [prediction for prediction, packed, _ in decided if packed is not None])
        maps = {method: explain_packed(self.model, self._spec, batch, method=method) for method in methods}
        plain = self._plain_logits(batch) if "integrated_gradients" in methods else None
        rows = iter(range(len(batch)))
        for prediction, packed, image in decided:
            if packed is None or isinstance(image, ImageError):
                yield Explained(prediction)
                continue
            place, row = self._spec.place(image), next(rows)
            made = tuple(
                self._explanation(
                    prediction,
                    method,
                    maps[method][row],
                    place,
                    float(plain[row]) if plain is not None and method == "integrated_gradients" else None,
                )
                for method in methods
            )
            yield Explained(prediction, image, made)

    def _decide(self, record: Record, image: Pixels | ImageError) -> tuple[Prediction, NDArray[np.uint8] | None]:
        if isinstance(image, ImageError):
            return Prediction(record, None, None, "refused", image.reason, unreadable=image.kind), None
        prediction = replace(self.predictor.predict_pixels(image), record=record)
        return prediction, None if prediction.logit is None else self._spec.apply(image)

    @torch.no_grad()
    def _check_parity(self, batch: NDArray[np.uint8], predictions: Sequence[Prediction]) -> None:
        logits: NDArray[np.float32] = self.model(to_input(batch, self._spec)).numpy()
        exported = np.array([prediction.logit for prediction in predictions])
        off = float((np.abs(logits - exported) / np.maximum(1, np.abs(exported))).max())
        if not off < _TOLERANCE:
            raise BundleError(
                f"{self.predictor.bundle.folder}: weights and exported network differ by {off:.2g} in a logit, so the "
                "one cannot explain what the other decides. Make the bundle anew."
            )

    def _explanation(
        self,
        prediction: Prediction,
        method: str,
        values: NDArray[np.float32],
        place: Placement,
        plain_logit: float | None,
    ) -> Explanation:
        assert prediction.logit is not None and prediction.probability is not None
        model = self.predictor.bundle.model
        return Explanation(
            prediction.record,
            method,
            values,
            place,
            prediction.logit,
            prediction.probability,
            prediction.decision,
            model.decision_point.threshold,
            self.scale(method),
            plain_logit,
            prediction.reason,
            model.conformal.between if model.conformal is not None else None,
            self.full_reach(method),
            model.context is not None,
        )

    @torch.no_grad()
    def _plain_logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = to_input(batch, self._spec)
        logits: NDArray[np.float32] = self.model(without_anything(x).expand_as(x)).numpy()
        return logits
