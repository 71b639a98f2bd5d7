"""The training images most like a new one: found as scikit-learn finds them, and honest about whose they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from tests.bundle.small_bundle import carry, drawn_cases
from tests.predict.conftest import SPEC
from tests.slides import PATCHES, Placed

from clearmargin.bundle.cases import Case, Cases, project
from clearmargin.bundle.read import read_bundle
from clearmargin.errors import BundleError, UsageError
from clearmargin.images.read import read_image
from clearmargin.predict.predictor import PREDICTION_KEYS, Predictor, load_bundle
from clearmargin.predict.session import Session
from clearmargin.predict.similar import SimilarCases
from clearmargin.settings import CaseSettings
from clearmargin.training.cases import fit_projection, keep_cases, make_pictures
from clearmargin.types import LABEL_NAMES, Listener, Record

KEPT = 24
"""Of the 40 images, so many are cases."""


def cases_of(bundle: Path, files: list[Path]) -> Cases:
    """The files as the cases of this bundle; patients P0 to P3, of either class in turn."""
    images = np.stack([SPEC.apply(read_image(file)) for file in files])
    features = Session(read_bundle(bundle).read("model.onnx")).describe(images)[1]
    mean, projection = fit_projection(features)
    rows = tuple(
        Case(patient_id=f"P{n % 4}", slide_id="S", path=file.name, label=LABEL_NAMES[n % 2])
        for n, file in enumerate(files)
    )
    return Cases(rows, project(features, mean, projection), make_pictures(images), mean, projection)


@pytest.fixture(scope="module")
def carrying(bundle: Path, image_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return carry(bundle, tmp_path_factory.mktemp("carrying") / "bundle", cases_of(bundle, image_files[:KEPT]))


@pytest.fixture
def predictor(carrying: Path) -> Predictor:
    return load_bundle(carrying)


def records(files: list[Path], patient: str | None = None) -> list[Record]:
    return [Record(str(file), patient_id=patient) for file in files]


def test_the_nearest_are_those_of_scikit_learn() -> None:
    cases = drawn_cases(300, features=20)
    features = np.random.default_rng(1).normal(size=(50, 20)).astype(np.float32)
    found = SimilarCases(cases, pseudonymous=False).find(features, [None] * 50, 7)
    oracle = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(cases.features.astype(np.float64))
    distances, numbers = oracle.kneighbors(cases.project(features).astype(np.float64))
    np.testing.assert_array_equal([[case.case for case in row] for row in found], numbers)
    np.testing.assert_allclose([[case.distance for case in row] for row in found], distances, atol=1e-12)
    assert all(LABEL_NAMES[case.label] == cases.rows[case.case].label for row in found for case in row)


def test_of_equally_near_cases_the_first_come_first_and_all_are_given_where_there_are_fewer() -> None:
    cases = drawn_cases(6)
    same = replace(cases, features=np.repeat(cases.features[:1], 6, axis=0))
    features = np.ones((1, 5), np.float32)
    search = SimilarCases(same, pseudonymous=False)
    assert [case.case for case in search.find(features, [None], 3)[0]] == [0, 1, 2]
    assert [case.case for case in search.find(features, [None], 50)[0]] == list(range(6))


def test_an_image_that_is_exactly_the_mean_is_like_none() -> None:
    cases = drawn_cases(6)
    assert (SimilarCases(cases, pseudonymous=False).distances(cases.mean[None]) == 1).all()


def test_a_training_image_finds_itself(predictor: Predictor, image_files: list[Path]) -> None:
    for number, each in enumerate(predictor.predict_records(records(image_files[:KEPT]), similar=3)):
        assert each.similar is not None
        nearest = each.similar[0]
        assert (nearest.case, nearest.path) == (number, image_files[number].name)
        assert nearest.distance < 1e-4
        assert [case.distance for case in each.similar] == sorted(case.distance for case in each.similar)
        np.testing.assert_array_equal(
            predictor.similar_cases.cases.thumbnails[nearest.case], SPEC.apply(read_image(image_files[number]))
        )


@pytest.mark.parametrize("size", [1, 7, 256])
def test_order_and_batches_do_not_matter_and_decisions_stay(
    predictor: Predictor, image_files: list[Path], size: int
) -> None:
    plain = list(predictor.predict_records(records(image_files)))
    expected = list(predictor.predict_records(records(image_files), similar=5))
    predictor._session.batch = size
    shuffled = [image_files[row] for row in np.random.default_rng(1).permutation(40)]
    again = {each.record.path: each for each in predictor.predict_records(records(shuffled), similar=5)}
    assert list(again) == [str(file) for file in shuffled]
    for before, each in zip(plain, expected, strict=True):
        assert before.similar is None
        assert replace(each, similar=None) == before
        other = again[each.record.path].similar
        assert each.similar is not None
        assert other is not None
        assert [case.distance for case in other] == pytest.approx([case.distance for case in each.similar], abs=2e-3)


def test_every_door_says_the_same(predictor: Predictor, image_files: list[Path]) -> None:
    expected = [each.similar for each in predictor.predict_records(records(image_files[:30]), similar=4)]
    images = np.stack([SPEC.apply(read_image(file)) for file in image_files[:30]])
    for row, similar in enumerate(predictor.similar(images, 4)):
        assert [case.case for case in similar] == [case.case for case in expected[row] or ()]
    assert predictor.similar(images[:0], 4) == []
    one = predictor.predict_pixels(read_image(image_files[3]), similar=4)
    assert [case.case for case in one.similar or ()] == [case.case for case in expected[3] or ()]
    table = predictor.predict(image_files[:30], similar=4)
    assert list(table) == [*PREDICTION_KEYS, "similar"]
    assert [case["path"] for case in table["similar"][3]] == [case.path for case in expected[3] or ()]
    assert set(table["similar"][3][0]) == {"patient_id", "slide_id", "path", "label", "distance", "same_patient"}
    assert list(predictor.predict(image_files[:3])) == list(PREDICTION_KEYS)


def test_refused_images_have_none(predictor: Predictor, image_files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    answers = list(predictor.predict_records(records([tmp_path / "broken.png", image_files[0]]), similar=2))
    assert [len(each.similar or ()) for each in answers] == [0, 2]
    assert answers[0].similar == ()
    [refused] = predictor.predict_records(records([tmp_path / "broken.png"]), similar=2)
    assert (refused.decision, refused.similar) == ("refused", ())


def test_a_case_of_the_same_patient_is_told(
    predictor: Predictor, image_files: list[Path], carrying: Path, tmp_path: Path
) -> None:
    def same(predictor: Predictor, patient: str | None) -> set[tuple[str | None, bool | None]]:
        [answer] = predictor.predict_records(records(image_files[30:31], patient), similar=KEPT)
        return {(case.patient_id, case.same_patient) for case in answer.similar or ()}

    assert same(predictor, "P2") == {("P0", False), ("P1", False), ("P2", True), ("P3", False)}
    assert same(predictor, None) == {("P0", None), ("P1", None), ("P2", None), ("P3", None)}
    cases = predictor.similar_cases.cases
    unnamed = replace(cases, rows=tuple(row.model_copy(update={"path": None}) for row in cases.rows))
    hidden = load_bundle(carry(carrying, tmp_path / "hidden", unnamed, pseudonymous=True))
    assert same(hidden, "P2") == {("P0", None), ("P1", None), ("P2", True), ("P3", None)}
    nameless = replace(cases, rows=tuple(row.model_copy(update={"patient_id": None}) for row in cases.rows))
    assert same(load_bundle(carry(carrying, tmp_path / "nameless", nameless)), "P2") == {(None, None)}


@pytest.mark.parametrize("k", [-1, 51])
def test_other_numbers_are_refused(predictor: Predictor, image_files: list[Path], k: int) -> None:
    with pytest.raises(UsageError, match=r"ask for 1 to 50"):
        list(predictor.predict_records(records(image_files[:1]), similar=k))


def test_a_bundle_without_cases_says_how_to_get_them(bundle: Path, image_files: list[Path]) -> None:
    with pytest.raises(BundleError, match=r"--set cases\.keep=on"):
        load_bundle(bundle).predict(image_files[:1], similar=3)


def test_cases_of_another_network_are_refused(bundle: Path, image_files: list[Path], tmp_path: Path) -> None:
    other = load_bundle(carry(bundle, tmp_path / "other", drawn_cases(features=7)))
    with pytest.raises(BundleError, match="for 7 features and the network gives"):
        other.predict(image_files[:1], similar=3)


def test_in_context_each_patch_has_its_own(placed: Placed, tmp_path: Path) -> None:
    images, config = placed.images, placed.config.model_copy(update={"cases": CaseSettings(keep="on", most=100)})
    plain = load_bundle(placed.run)
    rows, onnx = np.arange(PATCHES * 8), plain.bundle.read("model.onnx")
    cases = keep_cases(config, images.manifest, rows, images=images.store.images, onnx=onnx, listener=Listener())
    assert cases is not None
    predictor = load_bundle(carry(placed.run, tmp_path / "bundle", cases))
    frame = images.manifest.frame.tail(PATCHES + 3)
    columns = frame[["path", "patient_id", "slide_id", "x", "y"]].astype(object)
    asked = [Record(*row) for row in columns.itertuples(index=False)]
    answers = list(predictor.predict_records(asked, similar=5))
    assert [each.record for each in answers] == asked
    assert [replace(each, similar=None) for each in answers] == list(plain.predict_records(asked))
    assert any(each.in_context for each in answers)
    alone = list(predictor.predict_records(asked, context=False, similar=5))
    assert [each.similar for each in answers] == [each.similar for each in alone]
