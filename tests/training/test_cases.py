"""Which training images a bundle carries, and what they are compared by."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from tests.predict.test_session import mean_network, noise

from clearmargin.bundle.cases import Cases
from clearmargin.data.manifest import Manifest, build_manifest
from clearmargin.settings import CaseSettings, DataSettings, RunConfig
from clearmargin.training.cases import choose_cases, describe_cases, fit_projection, keep_cases, make_pictures
from clearmargin.types import Listener


class Heard(Listener):
    """Remembers the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def settings(*, keep: str = "on", pseudonymise: bool = False, most: int = 2000) -> RunConfig:
    cases = CaseSettings.model_validate({"keep": keep, "most": most})
    return RunConfig(data=DataSettings(pseudonymise=pseudonymise), cases=cases)


def manifest_of(n: int, *, patients: int | None = 4, root: Path = Path("/data")) -> Manifest:
    columns: dict[str, Any] = {
        "path": [f"/data/{row}.png" if row else "/elsewhere/JANE/0.png" for row in range(n)],
        "label": [row % 2 for row in range(n)],
    }
    if patients:
        columns |= {"patient_id": [f"P{row % patients}" for row in range(n)], "slide_id": [None, *["S"] * (n - 1)]}
    return build_manifest(columns, root=root, source="csv")


def keep(
    config: RunConfig, manifest: Manifest, rows: NDArray[np.intp], listener: Listener = Listener()
) -> Cases | None:
    images, onnx = noise(len(manifest)), mean_network(features=True)
    return keep_cases(config, manifest, rows, images=images, onnx=onnx, listener=listener)


@given(
    data=st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from([0, 1]), st.booleans()), min_size=1, max_size=60),
    most=st.integers(2, 40),
)
def test_classes_and_their_patients_have_the_same_share_and_patients_as_even_a_one_as_can_be(
    data: list[tuple[str, int, bool]], most: int
) -> None:
    patients, labels = np.array([row[0] for row in data]), np.array([row[1] for row in data], dtype=np.int8)
    rows = np.flatnonzero([row[2] for row in data])
    chosen = choose_cases(labels, patients, rows, most)
    there = Counter(labels[rows].tolist())
    each = min([most // max(1, len(there)), *there.values()])
    assert Counter(labels[chosen].tolist()) == dict.fromkeys(there, each)
    assert len(chosen) == len(set(chosen.tolist()))
    assert set(chosen.tolist()) <= set(rows.tolist())
    for label in (0, 1):
        has, gives = (Counter(patients[part[labels[part] == label]].tolist()) for part in (rows, chosen))
        for patient, size in has.items():  # who gives less than another, by more than one, has given all
            assert gives[patient] == size or gives[patient] >= max(gives.values()) - 1


def test_of_a_patient_the_images_are_spaced_evenly() -> None:
    chosen = choose_cases(np.zeros(100, np.int8), np.array(["A"] * 100), np.arange(100), 10)
    assert chosen.tolist() == list(range(0, 100, 10))


def test_without_known_patients_the_classes_are_balanced() -> None:
    labels = np.array([0] * 90 + [1] * 10, dtype=np.int8)
    assert Counter(labels[choose_cases(labels, None, np.arange(100), 20)].tolist()) == {0: 10, 1: 10}


@pytest.mark.parametrize("shape", [(300, 40), (30, 200)], ids=["tall", "wide"])
def test_the_projection_is_that_of_scikit_learn_with_half_the_whitening(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    features = (generator.normal(size=shape) * generator.uniform(0.1, 5, shape[1]) + 3).astype(np.float32)
    mean, projection = fit_projection(features)
    oracle = PCA(min(64, shape[1], shape[0] - 1), svd_solver="full").fit(features.astype(np.float64))
    spread = (oracle.singular_values_**2 / len(features)) ** 0.25
    expected = oracle.transform(features.astype(np.float64)) / spread
    actual = (features - mean) @ projection
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-3)


def test_directions_without_any_spread_are_left_out() -> None:
    line = np.linspace(0, 1, 20, dtype=np.float32)[:, None] * np.array([[1, 2, 0]], np.float32) + 7
    assert fit_projection(line)[1].shape == (3, 1)
    assert fit_projection(np.full((20, 3), 7, np.float32))[1].shape == (3, 0)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((50, 40, 3), (50, 40, 3)), ((64, 64, 1), (64, 64, 1)), ((128, 32, 3), (64, 16, 3)), ((90, 300, 1), (19, 64, 1))],
)
def test_pictures_are_small_and_keep_their_aspect(shape: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    images = np.full((2, *shape), 200, np.uint8)
    pictures = make_pictures(images)
    assert pictures.shape == (2, *expected)
    assert (pictures == 200).all()


def test_nothing_is_kept_unless_ids_are_pseudonyms_or_somebody_says_so() -> None:
    manifest, rows = manifest_of(10), np.arange(10)
    kept = {
        (word, hidden): keep(settings(keep=word, pseudonymise=hidden), manifest, rows) is not None
        for word in ("auto", "on", "off")
        for hidden in (False, True)
    }
    assert RunConfig().cases.keep == "auto"
    assert {key for key, value in kept.items() if value} == {("auto", True), ("on", False), ("on", True)}


def test_the_cases_are_those_of_the_rows_with_what_the_manifest_says_of_them() -> None:
    manifest, rows, heard = manifest_of(20), np.arange(0, 16), Heard()
    cases = keep(settings(most=8), manifest, rows, heard)
    assert cases is not None
    assert len(cases) == 8
    frame, images = manifest.frame, noise(20)
    for row, picture in zip(cases.rows, cases.thumbnails, strict=True):
        number = next(n for n in range(20) if np.array_equal(images[n], picture))
        assert number < 16
        assert row.label == ("malignant" if number % 2 else "benign")
        assert row.patient_id == frame["patient_id"][number]
        assert row.slide_id == ("S" if number else None)
        assert row.path == f"{number}.png"  # of a file elsewhere, its name only
    assert "small pictures and ids of 8 training images" in heard.notes[0]
    described = describe_cases(settings(), cases)
    assert described is not None
    assert (described.images, described.patients, described.pseudonymous) == (8, 4, False)


def test_the_same_images_give_the_same_bytes() -> None:
    one, other = (keep(settings(most=6), manifest_of(20), np.arange(20)) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.files() == other.files()


def test_pseudonymous_cases_name_no_file_and_unknown_patients_are_unknown() -> None:
    hidden = keep(settings(pseudonymise=True), manifest_of(10), np.arange(10))
    assert hidden is not None
    assert {row.path for row in hidden.rows} == {None}
    unknown = keep(settings(), manifest_of(10, patients=None), np.arange(10))
    described = describe_cases(settings(), unknown)
    assert described is not None
    assert described.patients is None
    assert describe_cases(settings(), None) is None


def test_where_the_network_sees_no_difference_nothing_is_kept() -> None:
    manifest, heard = manifest_of(10), Heard()
    images = np.full_like(noise(10), 9)
    onnx = mean_network(features=True)
    assert keep_cases(settings(), manifest, np.arange(10), images=images, onnx=onnx, listener=heard) is None
    assert "no difference" in heard.notes[0]
