"""From packed images to networks that can be carried away, and what they say of images that they have not seen.

One network sees a patch. Where the places of patches on their slides are known, a second one may see the field around
each. Either is trained once on train, or cross-fitted: several times, each time without another part of the patients
of train and validation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clearmargin import __version__
from clearmargin.bundle.export import export_onnx
from clearmargin.bundle.schema import SaliencyScale
from clearmargin.bundle.write import Network
from clearmargin.config import dump_config
from clearmargin.context import find_step, lay_out, neighbours
from clearmargin.data.audit import Audit
from clearmargin.data.manifest import Manifest
from clearmargin.data.split import Assignment, crossfit_folds
from clearmargin.data.store import Store
from clearmargin.evaluation.choices import NO_CONTEXT, known_ids
from clearmargin.evaluation.context import Surroundings, slide_places, why_too_few
from clearmargin.explanation.scale import measure_scales, spread_rows
from clearmargin.images.fields import Fields, make_thumbnails
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier
from clearmargin.predict.session import Session
from clearmargin.settings import RunConfig
from clearmargin.training.adapt import adapt_to_images, are_grey, describe_adapted
from clearmargin.training.batches import TrainingImages
from clearmargin.training.loop import Fitted, choose_precision
from clearmargin.training.networks import Trained, fewest_trained_on, train_networks
from clearmargin.training.run_folder import FIELD
from clearmargin.training.transfer import begin, fit, hash_weights
from clearmargin.types import Listener

_PARITY_IMAGES = 32


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a job: audited, and once it is known that they can be split, packed."""

    audit: Audit
    preprocessing: Preprocessing
    store: Store
    data_sha256: str

    @property
    def manifest(self) -> Manifest:
        return self.audit.manifest

    @property
    def grey(self) -> bool:
        """They are in shades of grey."""
        return are_grey(self.store.images, content=self.manifest.content)


@dataclass(frozen=True, slots=True)
class Learned:
    """Trained networks, and what they say of every image (N,); of images of train, only if cross-fitted unseen."""

    trained: Trained
    network: Network
    logits: NDArray[np.float64]
    surroundings: Surroundings | str
    """What a context can be made of, or why there is none."""
    weights_sha256: str | None = None
    """Of the file that a pretrained network came from."""
    field: Network | None = None
    field_logits: NDArray[np.float64] | None = None

    @property
    def crossfit(self) -> int:
        """How many networks were cross-fitted; 0 for one that was trained on train."""
        return 0 if self.trained.parts is None else len(self.trained.networks)

    def chosen_on(self, assignment: Assignment) -> NDArray[np.intp]:
        """Rows of the images that decisions are chosen on: held out, and not of test."""
        return np.flatnonzero(assignment.splits != "test") if self.crossfit else assignment.rows("validation")


def learn(config: RunConfig, assignment: Assignment, images: Images, *, out: Path, listener: Listener) -> Learned:
    """Trains the networks of a run, exports them, and computes the logits of every image with what was exported.

    Args:
        config: the settings.
        assignment: who is trained on.
        images: packed.
        out: the run folder.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: of the kind that fits.
    """
    parts = _find_parts(config, assignment, listener)
    weights = hash_weights(config.model, listener=listener)
    identity = f"{__version__}{dump_config(config)}{images.data_sha256}{assignment.sha256}{weights or ''}"
    labels = assignment.manifest.labels()
    data = TrainingImages(images.store.images, labels, assignment.rows("train"), assignment.rows("validation"))
    adapted = adapt_to_images(config, images=fewest_trained_on(data, parts), grey=images.grey)
    for remark in describe_adapted(config, adapted):
        listener.note(remark)
    trained, network, logits = _train(
        adapted,
        data,
        images.preprocessing,
        store=images.store,
        parts=parts,
        identity=identity,
        run=out,
        listener=listener,
    )
    learned = Learned(trained, network, logits, "", weights_sha256=weights)
    surroundings = find_surroundings(config, images.manifest, learned.chosen_on(assignment))
    if isinstance(surroundings, str) or surroundings.field is None:
        return replace(learned, surroundings=surroundings)
    fields, spec = make_fields(images, surroundings)
    listener.note(
        f"A second network sees the field of {surroundings.field} × {surroundings.field} patches around each."
    )
    (out / FIELD).mkdir(exist_ok=True)
    _, second, field_logits = _train(
        adapted,
        replace(data, images=fields),
        spec,
        store=images.store,
        parts=parts,
        identity=f"{identity}{FIELD}",
        run=out / FIELD,
        listener=listener,
    )
    return replace(learned, surroundings=surroundings, field=second, field_logits=field_logits)


def find_surroundings(config: RunConfig, manifest: Manifest, chosen_on: NDArray[np.intp]) -> Surroundings | str:
    """What a context can be made of, or why neighbours cannot count.

    Args:
        config: the settings.
        manifest: of the images.
        chosen_on: rows of the images that the context would be weighed on.
    """
    if config.evaluate.context == "none":
        return "evaluate.context is none"
    places = slide_places(manifest.frame)
    patients = known_ids(manifest.frame, "patient_id")
    if places is None or patients is None:
        return NO_CONTEXT
    if config.split.by == "image":
        return "a split by image takes slides apart"
    step = find_step(*places)
    if step is None:
        return "the patches of its slides lie on no common lattice"
    too_few = why_too_few(len(set(patients[chosen_on])))
    if too_few and config.split.fold is None:  # folds are weighed together
        return too_few
    field = config.model.field or None
    return Surroundings(step, field, config.model.thumbnail if field else None)


def make_fields(images: Images, surroundings: Surroundings) -> tuple[Fields, Preprocessing]:
    """The field around each image, and the spec that says their size; the surroundings must have a field."""
    places = slide_places(images.manifest.frame)
    field, thumbnail = surroundings.field, surroundings.thumbnail
    assert places is not None and field is not None and thumbnail is not None
    cells = lay_out(*places, surroundings.step)
    fields = Fields(make_thumbnails(images.store.images, thumbnail), neighbours(cells, field))
    size = field * thumbnail
    return fields, images.preprocessing.model_copy(update={"width": size, "height": size})


def export(
    model: Classifier, images: NDArray[np.uint8] | Fields, preprocessing: Preprocessing, listener: Listener
) -> bytes:
    """The network as ONNX, checked against torch on some of the images."""
    listener.stage("export")
    rows = np.unique(np.linspace(0, len(images) - 1, _PARITY_IMAGES).astype(np.intp))
    return export_onnx(model, preprocessing, images[rows])


def measure_saliency(model: Classifier, images: Images, rows: NDArray[np.intp], *, of: str) -> dict[str, SaliencyScale]:
    """The colour scale of each method of explanation that is not too costly, from some of the images in these rows.

    Args:
        model: that sees one image, on the CPU, in evaluation mode.
        images: packed.
        rows: of images that it was not trained on.
        of: what they are, for the record.
    """
    some = spread_rows(images.manifest.labels(), rows)
    pixels = np.stack([images.store.images[row] for row in some])
    return measure_scales(model, images.preprocessing, pixels, of=of, leave_costly=True)


def _find_parts(config: RunConfig, assignment: Assignment, listener: Listener) -> NDArray[np.intp] | None:
    wanted = config.train.crossfit
    if wanted == 0:
        return None
    by = config.split.by if assignment.manifest.knows_patients else "image"
    parts = crossfit_folds(assignment, wanted, by=by, seed=config.seed)
    if parts is None:
        listener.note(
            f"Too few {by}s have either class to cross-fit the model; one network is trained on train, and what "
            "decides is chosen on validation."
        )
    return parts


def _train(
    config: RunConfig,
    data: TrainingImages,
    spec: Preprocessing,
    *,
    store: Store,
    parts: NDArray[np.intp] | None,
    identity: str,
    run: Path,
    listener: Listener,
) -> tuple[Trained, Network, NDArray[np.float64]]:
    # What `auto` stands for may differ on the machine where a run is resumed.
    fingerprint = hashlib.sha256(f"{choose_precision(config.train)}{identity}".encode()).hexdigest()

    def train_one(data: TrainingImages, config: RunConfig, run: Path, fingerprint: str) -> Fitted:
        listener.network(run)
        start = begin(config, spec.shape)
        return fit(start, data, config, spec, store=store, run=run, fingerprint=fingerprint, listener=listener)

    trained = train_networks(train_one, data, config, parts=parts, run=run, fingerprint=fingerprint, listener=listener)
    whole = trained.model
    onnx = export(whole, data.images, spec, listener)

    def logits_of(number: int | None, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        content = onnx if number is None else export(trained.networks[number].model, data.images, spec, listener)
        session = Session(content)  # its logits are those that `predict` will give
        batches = np.split(rows, range(session.batch, len(rows), session.batch))  # a memory map stays on the disk
        return np.concatenate([session.logits(data.images[batch]) for batch in batches])

    return trained, Network(whole.state_dict(), onnx), trained.logits(logits_of, len(data.images))
