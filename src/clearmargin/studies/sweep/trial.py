"""One fold of one trial, as a function of (store, split, settings, fold): all that an engine has to call.

It sees the images of train and validation alone: what it is given cannot give it an image of test.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from clearmargin.data.store import Store
from clearmargin.errors import DataError
from clearmargin.evaluation.metrics import auroc
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier, normalise, scale_pixels
from clearmargin.settings import RunConfig
from clearmargin.studies.sweep.records import FoldResult
from clearmargin.training.adapt import adapt_to_images
from clearmargin.training.batches import TrainingImages, batch_bounds, gather
from clearmargin.training.transfer import begin, fit
from clearmargin.types import Listener

HELD_OUT = "held out"
Labels = NDArray[np.int8]


class Part:
    """Some images of a store, (n, H, W, C) uint8, read when they are asked for; the others cannot be had from it.

    Args:
        images: (N, H, W, C), of the store.
        rows: (n,) which of them; image i of the part is that of row i.
    """

    def __init__(self, images: NDArray[np.uint8], rows: NDArray[np.intp]) -> None:
        self._images, self._rows = images, rows
        self.shape = (len(rows), *images.shape[1:])
        self.nbytes = math.prod(self.shape) * images.dtype.itemsize

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> NDArray[np.uint8]:
        part: NDArray[np.uint8] = self._images[self._rows[rows]]
        return part


@dataclass(frozen=True, slots=True)
class Packed:
    """The images of a sweep under the preprocessing of one recipe, and whether they are in shades of grey."""

    store: Store
    preprocessing: Preprocessing
    grey: bool


@dataclass(frozen=True, slots=True)
class Folds:
    """Who is trained on: `labels` (n,) of the images of train and validation, and in each fold what each is (n,).

    That is `train`, `validation` (which epoch is kept, when to stop), or `held out`, by which the fold is judged.
    """

    labels: Labels
    roles: tuple[NDArray[np.str_], ...]

    def rows(self, fold: int, role: str) -> NDArray[np.intp]:
        """The images that have this role in the fold, ascending."""
        return np.flatnonzero(self.roles[fold] == role)


@dataclass(frozen=True, slots=True)
class Material:
    """All that trials are given: the packed images of each recipe, and who is trained on."""

    packed: Mapping[str, Packed]
    folds: Folds


def part_of(store: Store, rows: NDArray[np.intp]) -> Store:
    """The store as if it held these rows alone."""
    # It answers to an array's indexing, which is all that training asks of it.
    images = cast("NDArray[np.uint8]", Part(store.images, rows))
    name = hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()[:16]
    return Store(images, store.path.with_name(f"{store.path.name}-{name}"), 0)


def judge_fold(
    packed: Packed, folds: Folds, config: RunConfig, fold: int, *, scratch: Path, listener: Listener = Listener()
) -> tuple[FoldResult, NDArray[np.float32]]:
    """What these settings are worth in this fold, and the logits (held out,) of the images that it holds out.

    Args:
        packed: images of train and validation, in the order of `folds`.
        folds: who is trained on, and who is held out.
        config: the settings.
        fold: from 0.
        scratch: a folder for the state of the training, gone on with where one is there, and removed at the end.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: it cannot be trained, or was interrupted.
    """
    started = time.monotonic()
    one = config.train.model_copy(update={"crossfit": 0, "seeds": 1})
    train, validation, held_out = (folds.rows(fold, role) for role in ("train", "validation", HELD_OUT))
    config = config.model_copy(update={"train": one})
    adapted = adapt_to_images(config, images=len(train), grey=packed.grey)
    data = TrainingImages(packed.store.images, folds.labels, train, validation)
    scratch.mkdir(parents=True, exist_ok=True)
    rows = np.concatenate([train, validation, held_out])
    fingerprint = hashlib.sha256(f"{config.model_dump_json()}{rows.tobytes().hex()}".encode()).hexdigest()
    model = begin(adapted, packed.preprocessing.shape)
    fitted = fit(
        model,
        data,
        adapted,
        packed.preprocessing,
        store=packed.store,
        run=scratch,
        fingerprint=fingerprint,
        listener=listener,
    )
    logits = compute_logits(fitted.model, data, packed.preprocessing, held_out, batch=2 * config.train.batch_size)
    if not np.isfinite(logits).all():
        raise DataError(f"the network of fold {fold + 1} gives logits that are no numbers; lower train.learning_rate.")
    value = float(auroc(folds.labels[held_out], logits))
    shutil.rmtree(scratch, ignore_errors=True)
    return FoldResult(value, len(fitted.history), round(time.monotonic() - started, 3)), logits


def compute_logits(
    model: Classifier, data: TrainingImages, preprocessing: Preprocessing, rows: NDArray[np.intp], *, batch: int
) -> NDArray[np.float32]:
    """(len(rows),) logits of the images in these rows, by torch: an export would take longer than a small fold."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    found = []
    with torch.inference_mode():
        for start, end in batch_bounds(len(rows), batch):
            x = scale_pixels(gather(data.images, rows[start:end]).to(device))
            found.append(model(normalise(x, preprocessing.mean, preprocessing.std)).float().cpu())
    model.to("cpu")
    logits: NDArray[np.float32] = torch.cat(found).numpy()
    return logits
