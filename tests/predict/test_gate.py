"""The gate at work: what it refuses and in which words, and that nothing else about a prediction depends on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tests.bundle.small_bundle import every_choice, write_working

from clearmargin.bundle.schema import Context, Decisions
from clearmargin.context import Grid
from clearmargin.data.phantom import PhantomSettings, write_phantom
from clearmargin.evaluation.gate import fit_gate
from clearmargin.gate import FALSE_REFUSALS, Evidence, Gate, Look, Matrix, Sizes, Tail
from clearmargin.images.look import LOOK, VISIBLE, measure_look
from clearmargin.images.preprocess import Preprocessing
from clearmargin.images.read import read_image
from clearmargin.predict.gate import InputGate, judge
from clearmargin.predict.pooled import pool_predictions
from clearmargin.predict.predictor import Predictor, load_bundle
from clearmargin.types import NOT_GATED, Prediction, Record

PX, SHOWN = 24, 20
"""Pixels a side, and patients that the model was shown, of 30."""
SPEC = Preprocessing(width=PX, height=PX)
Images = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Tissue:
    """Drawn patches, their files and their patients: of some that the model was shown and of others."""

    files: list[Path]
    images: Images
    patients: NDArray[np.str_]

    @property
    def shown(self) -> NDArray[np.bool_]:
        return self.patients < np.unique(self.patients)[SHOWN]


@pytest.fixture(scope="session")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Tissue:
    root = tmp_path_factory.mktemp("tissue")
    write_phantom(root, PhantomSettings(patients=30, patches_per_patient=24, patch_px=PX))
    files = sorted(root.rglob("*.png"))
    return Tissue(files, np.stack([SPEC.read(file) for file in files]), np.array([file.parts[-3] for file in files]))


@pytest.fixture(scope="session")
def gated(tissue: Tissue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose network has learned nothing, with a gate that knows the tissue."""
    folder = tmp_path_factory.mktemp("gated") / "bundle"
    write_working(folder, name="cbis_ddsm", spec=SPEC)
    predictor = load_bundle(folder)
    shown = tissue.images[tissue.shown]
    gate = fit(shown, tissue.patients[tissue.shown], features=predictor._session.describe(shown)[1])
    write_working(folder, name="cbis_ddsm", spec=SPEC, input_gate=gate)
    return folder


def fit(images: Images, patients: NDArray[np.str_] | None, *, features: NDArray[np.float32] | None = None) -> Gate:
    return fit_gate(
        measure_look(images),
        names=LOOK,
        visible=VISIBLE,
        sizes=np.array([[images.shape[2], images.shape[1]]] * len(images)),
        grey=False,
        blank=False,
        fixed_scale=True,
        patients=patients,
        features=features,
        members=1,
        chosen_on="train and validation",
    )


@pytest.fixture
def predictor(gated: Path) -> Predictor:
    return load_bundle(gated)


def blurred(image: Images) -> Images:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(4)))


def one_refusal(predictor: Predictor, pixels: Images) -> str:
    prediction = predictor.predict_pixels(pixels)
    assert prediction.decision == "refused", prediction
    assert prediction.probability is prediction.logit is None
    assert prediction.reason is not None
    return prediction.reason


def test_new_patients_are_hardly_ever_refused(predictor: Predictor, tissue: Tissue) -> None:
    new = [file for file, shown in zip(tissue.files, tissue.shown, strict=True) if not shown]
    answers = list(predictor.predict_records(Record(str(file)) for file in new))
    refused = sum(answer.decision == "refused" for answer in answers)
    assert len(answers) == 240
    assert refused / len(answers) <= FALSE_REFUSALS + 3 * np.sqrt(FALSE_REFUSALS / len(answers))


def test_noise_is_refused(predictor: Predictor) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (PX, PX, 3), dtype=np.uint8)
    assert "noise" in one_refusal(predictor, noise)


@pytest.mark.parametrize("shade", [0, 120, 255])
def test_a_blank_image_is_refused(predictor: Predictor, shade: int) -> None:
    assert one_refusal(predictor, np.full((PX, PX, 3), shade, np.uint8)) == "blank: it is all of one shade"


def test_an_image_without_colour_is_refused(predictor: Predictor, tissue: Tissue) -> None:
    grey = np.asarray(Image.fromarray(tissue.images[0]).convert("L"))[:, :, np.newaxis]
    assert one_refusal(predictor, grey) == "no colour: the training images are in colour"


def test_a_negative_is_refused_as_one(predictor: Predictor, tissue: Tissue) -> None:
    reason = one_refusal(predictor, 255 - tissue.images[0])
    assert reason.startswith("perhaps inverted: its negative is not unlike the training images, and as it is: ")
    assert ", accepted " in reason


@pytest.mark.parametrize(("low", "word"), [(0.2, "unlike the training images: "), (-3.4, "perhaps inverted: ")])
def test_an_image_is_perhaps_inverted_only_where_its_negative_is_much_more_typical(low: float, word: str) -> None:
    evidence = Evidence(chosen_on="x", unit="image", n_units=9, n_images=9, share=0.0)
    tail = Tail(low=low, middle=0.6, high=0.65)
    look = Look(
        statistics={"brightness": tail}, joint=Matrix.of([[0.0]]), joint_edge=1.0, threshold=1.0, evidence=evidence
    )
    sizes = Sizes(smallest=(8, 8), largest=(8, 8), factor=2)
    gate = InputGate(Gate(sizes=sizes, grey=None, blank=True, look=look, chosen_on="x"))
    # Brightness 0.655 is 1.1 above the middle; that of its negative, 0.345, is 0.64 or 0.06 below.
    (reason,) = gate.refusals(np.full((1, 8, 8, 3), 167, np.uint8), None)
    assert reason is not None
    assert reason.startswith(word)


def test_a_blurred_image_is_refused_as_such(predictor: Predictor, tissue: Tissue) -> None:
    answers = [predictor.predict_pixels(blurred(image)).reason or "" for image in tissue.images[:40]]
    words = "unlike the training images: blurred (sharpness "
    assert sum(reason.startswith(words) and ", accepted " in reason for reason in answers) > 10


def test_a_dark_image_is_refused_with_its_values(predictor: Predictor, tissue: Tissue) -> None:
    dark = (tissue.images[0] // 8).astype(np.uint16) * 257  # twelve bits in a container of sixteen look like this
    assert "unlike the training images: far " in one_refusal(predictor, dark.astype(np.uint16))


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (PX * 3, PX, f"size: {PX * 3}×{PX} pixels, 3 times the largest training image ({PX}×{PX})"),
        (5, 8, f"size: 5×8 pixels, 3 times smaller than the smallest training image ({PX}×{PX})"),
    ],
)
def test_another_scale_is_refused(predictor: Predictor, width: int, height: int, words: str) -> None:
    assert one_refusal(predictor, np.full((height, width, 3), 99, np.uint8)) == words


def test_a_patch_at_the_edge_of_the_slide_is_not_refused(predictor: Predictor, tissue: Tissue) -> None:
    decided = [predictor.predict_pixels(image[: PX // 2]).decision != "refused" for image in tissue.images[:20]]
    assert np.mean(decided) > 0.8


def test_what_only_the_network_finds_strange_is_refused_as_that(tissue: Tissue) -> None:
    shown = tissue.images[tissue.shown]
    features = np.random.default_rng(0).normal(size=(len(shown), 8)).astype(np.float32)
    gate = InputGate(fit(shown, tissue.patients[tissue.shown], features=features))
    assert gate.needs_features
    near, far = np.zeros((1, 8), np.float32), np.full((1, 8), 99, np.float32)
    assert gate.refusals(shown[:1], near) == [None]
    (reason,) = gate.refusals(shown[:1], far)
    assert reason is not None
    assert reason.startswith("unlike the training images to the network: ")
    assert reason.endswith(" times as far from the training images as it may be")


def test_images_are_refused_alike_alone_in_a_batch_and_in_any_order(predictor: Predictor, tissue: Tissue) -> None:
    rng = np.random.default_rng(1)
    strange = [255 - tissue.images[3], blurred(tissue.images[4]), np.zeros((PX, PX, 3), np.uint8)]
    images = np.stack([*tissue.images[:30], *strange, rng.integers(0, 256, (PX, PX, 3), dtype=np.uint8)])
    assert predictor._gate is not None
    features = predictor._session.describe(images)[1]
    together = predictor._gate.refusals(images, features)
    assert sum(reason is not None for reason in together) >= 4
    order = rng.permutation(len(images))
    assert predictor._gate.refusals(images[order], features[order]) == [together[place] for place in order]
    alone = [predictor.predict_pixels(image) for image in images]
    assert [answer.reason if answer.decision == "refused" else None for answer in alone] == together
    sizes = [(PX, PX)] * len(images)
    assert judge(predictor.bundle.model.input_gate, images, sizes, features) == together  # type: ignore[arg-type]


@pytest.fixture
def mixed(tissue: Tissue, tmp_path: Path) -> list[Path]:
    """Patches, and among them one that is blank, one too large, and one that is no image."""
    Image.new("RGB", (PX, PX), (5, 5, 5)).save(tmp_path / "blank.png")
    Image.new("RGB", (PX * 9, PX * 9), (5, 5, 5)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("no image")
    names = ("blank.png", "large.png", "text.png")
    return [tissue.files[0], tmp_path / names[0], tmp_path / names[1], tissue.files[1], tmp_path / names[2]]


def predictions(predictor: Predictor, files: list[Path]) -> list[Prediction]:
    return list(predictor.predict_records(Record(str(file)) for file in files))


def test_strange_files_are_refused_while_the_others_go_on(predictor: Predictor, mixed: list[Path]) -> None:
    answers = predictions(predictor, mixed)
    assert [answer.decision == "refused" for answer in answers] == [False, True, True, False, True]
    assert [str(answer.reason).split(":")[0] for answer in answers if answer.decision == "refused"] == [
        "blank", "size", "the content is not a PNG, JPEG, BMP, PGM, TIFF or DICOM image",
    ]  # fmt: skip
    table = predictor.predict([str(file) for file in mixed])
    assert table["reason"].fillna("").tolist() == [answer.reason or "" for answer in answers]


def test_without_the_gate_all_is_decided_and_says_so(gated: Path, mixed: list[Path]) -> None:
    ungated, usual = load_bundle(gated, gate=False), load_bundle(gated)
    answers = predictions(ungated, mixed)
    assert [answer.decision == "refused" for answer in answers] == [False, False, False, False, True]
    assert all(answer.reason == NOT_GATED for answer in answers[:4])
    for number in (0, 3):  # and nothing else changes
        assert answers[number].probability == predictions(usual, mixed)[number].probability
    assert ungated.predict_pixels(read_image(mixed[1])).reason == NOT_GATED


def test_the_stamp_reaches_what_is_pooled(gated: Path, mixed: list[Path]) -> None:
    rule = every_choice()["levels"]["patient"]
    for gate, reason in ((True, None), (False, NOT_GATED)):
        answers = predictions(load_bundle(gated, gate=gate), mixed[:1])
        assert pool_predictions(answers, "patient", rule=rule)[0].reason == reason


def test_a_bundle_without_a_gate_refuses_nothing_for_its_look(tmp_path: Path, mixed: list[Path]) -> None:
    write_working(tmp_path / "old", name="cbis_ddsm", spec=SPEC)
    for gate in (True, False):
        answers = predictions(load_bundle(tmp_path / "old", gate=gate), mixed)
        assert [answer.decision == "refused" for answer in answers] == [False] * 4 + [True]
        assert all(answer.reason is None for answer in answers[:4])


def test_a_gate_that_knows_little_refuses_only_what_is_plain(tissue: Tissue) -> None:
    few = fit(tissue.images[:6], tissue.patients[:6])
    assert few.look is None
    assert few.no_look is not None
    assert few.no_features is not None
    gate = InputGate(few)
    assert not gate.needs_features
    noise = np.random.default_rng(0).integers(0, 256, (1, PX, PX, 3), dtype=np.uint8)
    assert gate.refusals(noise, None) == [None]
    assert gate.refusals(np.zeros_like(noise), None) == ["blank: it is all of one shade"]
    assert gate.refusals(np.full_like(noise, 9) * np.arange(PX, dtype=np.uint8)[:, None], None)[0] == (
        "no colour: the training images are in colour"
    )


def test_blank_images_pass_where_training_had_some(tissue: Tissue) -> None:
    gate = fit(tissue.images[tissue.shown], tissue.patients[tissue.shown])
    lenient = gate.model_copy(update={"blank": True, "grey": None, "look": None})
    assert InputGate(lenient).refusals(np.zeros((1, PX, PX, 3), np.uint8), None) == [None]


def test_colour_is_refused_by_a_model_of_grey_images(tissue: Tissue) -> None:
    grey = np.repeat(tissue.images[tissue.shown][:, :, :, :1], 3, axis=3)
    gate = InputGate(fit(grey, tissue.patients[tissue.shown]).model_copy(update={"grey": True}))
    assert gate.refusals(tissue.images[:1], None) == ["in colour: the training images are in shades of grey"]
    assert gate.refusals(grey[:1], None) == [None]


def test_a_refused_patch_is_left_out_of_the_context(gated: Path, mixed: list[Path]) -> None:
    predictor = load_bundle(gated)
    decisions = {name: getattr(predictor.bundle.model, name) for name in Decisions.model_fields}
    context = Context(grid=Grid(step=PX, scale=1.0, networks=1), **decisions)
    model = predictor.bundle.model.model_copy(update={"context": context})
    predictor = Predictor(dataclasses.replace(predictor.bundle, model=model))
    places = [Record(str(file), "P", "S", PX * number, 0) for number, file in enumerate(mixed)]
    answers = list(predictor.predict_records(places))
    assert [answer.in_context for answer in answers] == [True, False, False, True, False]
    assert [answer.decision == "refused" for answer in answers] == [False, True, True, False, True]
    without = [place for place in places if place.path not in (str(mixed[1]), str(mixed[2]))]
    again: Iterator[Prediction] = predictor.predict_records(without)
    assert [answer.probability for answer in again] == [answers[row].probability for row in (0, 3, 4)]
