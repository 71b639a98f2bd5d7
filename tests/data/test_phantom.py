"""Phantom data: the layout, that nothing is random twice, and that they have the traps of real patches."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label as label_components
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clearmargin.data.phantom import PhantomSettings, PhantomSlide, draw_patch, draw_slide, write_phantom
from clearmargin.errors import UsageError
from clearmargin.types import Listener

FILE_NAME = re.compile(r"^(?P<patient>[^_]+)_idx5_x(?P<x>\d+)_y(?P<y>\d+)_class(?P<label>[01])\.png$")
SMALL = PhantomSettings(patients=4, patches_per_patient=12)


@pytest.fixture(scope="module")
def cohort() -> list[PhantomSlide]:
    return [draw_slide(index) for index in range(PhantomSettings().patients)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom") / "small", SMALL, threads=1)


def patches(slide: PhantomSlide, px: int = 50) -> Iterator[tuple[NDArray[np.uint8], int]]:
    for row, column in np.argwhere(slide.tissue).tolist():
        yield slide.image[row * px : (row + 1) * px, column * px : (column + 1) * px], int(slide.lesion[row, column])


def density(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    return -np.log((patch + 1.0) / 256.0)


def features(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Colour and texture: quantiles and spread of each channel, edges at four scales, dark area and its outline."""
    colour, grey = density(patch).reshape(-1, 3), density(patch).mean(axis=2)
    edges = [np.abs(step).mean() for k in (1, 2, 4, 7) for step in (grey[k:] - grey[:-k], grey[:, k:] - grey[:, :-k])]
    dark = density(patch)[..., 0] > 0.55
    quantiles = np.quantile(colour, (0.1, 0.3, 0.5, 0.7, 0.9, 0.97), axis=0).ravel()
    return np.concatenate(
        [colour.mean(0), colour.std(0), quantiles, edges, [dark.mean(), (dark[1:] ^ dark[:-1]).mean()]]
    )


def table(slides: list[PhantomSlide]) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    rows = [
        (features(patch), label, patient) for patient, slide in enumerate(slides) for patch, label in patches(slide)
    ]
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), np.array([row[2] for row in rows])


def auroc_across_folds(model: Any, data: tuple[NDArray[Any], ...], *, by_patient: bool) -> float:
    x, y, patients = data
    folds = (GroupKFold if by_patient else KFold)(4, shuffle=True, random_state=0)
    probability = np.empty(len(y))
    for train, test in folds.split(x, y, patients if by_patient else None):
        probability[test] = model.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
    return float(roc_auc_score(y, probability))


def digest(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


# The layout


def test_the_files_have_the_names_and_folders_of_the_idc_data(small: Path) -> None:
    files = [file.relative_to(small) for file in small.rglob("*") if file.is_file()]
    assert len(files) == SMALL.patients * SMALL.patches_per_patient
    for file in files:
        match = FILE_NAME.match(file.name)
        assert match, file
        assert file.parts[:2] == (match["patient"], match["label"])
        assert int(match["x"]) % SMALL.patch_px == 1
        assert int(match["y"]) % SMALL.patch_px == 1
    assert {file.parts[0] for file in files} == {"P001", "P002", "P003", "P004"}


def test_a_file_is_the_patch_of_the_slide_that_its_name_says(small: Path) -> None:
    for index in range(SMALL.patients):
        slide = draw_slide(index, SMALL)
        found = np.zeros_like(slide.tissue)
        for file in (small / slide.patient_id).rglob("*.png"):
            match = FILE_NAME.match(file.name)
            assert match
            x, y = int(match["x"]) - 1, int(match["y"]) - 1
            with Image.open(file) as image:
                assert image.mode == "RGB"
                np.testing.assert_array_equal(np.asarray(image), slide.image[y : y + 50, x : x + 50])
            assert bool(int(match["label"])) == slide.lesion[y // 50, x // 50]
            found[y // 50, x // 50] = True
        np.testing.assert_array_equal(found, slide.tissue)


def test_a_few_patches_in_a_thousand_are_cut_short_by_the_slides_edge(cohort: list[PhantomSlide]) -> None:
    shapes = [patch.shape for slide in cohort for patch, _ in patches(slide)]
    short = [shape for shape in shapes if shape != (50, 50, 3)]
    assert 1 <= len(short) <= 0.004 * len(shapes)
    assert all(shape[0] == 50 and 15 <= shape[1] < 50 for shape in short)


def test_a_small_cohort_has_a_short_patch_too(small: Path) -> None:
    sizes = set()
    for file in small.rglob("*.png"):
        with Image.open(file) as image:
            sizes.add(image.size)
    assert len(sizes) == 2
    assert max(sizes) == (50, 50)


# Determinism


def test_equal_settings_give_equal_bytes_whatever_the_number_of_threads(small: Path, tmp_path: Path) -> None:
    assert digest(write_phantom(tmp_path / "again", SMALL, threads=3)) == digest(small)


def test_another_seed_gives_other_images() -> None:
    first, second = (draw_slide(0, PhantomSettings(2, 12, seed=seed)) for seed in (0, 1))
    assert first.image.shape != second.image.shape or (first.image != second.image).any()


def test_a_patient_does_not_depend_on_how_many_there_are() -> None:
    few, many = (draw_slide(1, PhantomSettings(patients, 12)) for patients in (2, 30))
    np.testing.assert_array_equal(few.image, many.image)
    np.testing.assert_array_equal(few.lesion, many.lesion)


# Writing


class Stops(Listener):
    def __init__(self, folder: Path, error: BaseException) -> None:
        self.folder, self.error = folder, error

    def advance(self, done: int, total: int) -> None:
        assert not self.folder.exists(), "visible before it was complete"
        if done == 2:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the reason")])
def test_an_interrupted_write_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    folder = tmp_path / "phantom"
    with pytest.raises(type(error)):
        write_phantom(folder, SMALL, listener=Stops(folder, error))
    assert list(tmp_path.iterdir()) == []


def test_until_all_is_written_the_folder_is_not_there(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class Watches(Listener):
        def advance(self, done: int, total: int) -> None:
            seen.append((done, total))
            assert all(path.name.startswith(".") and path.name.endswith(".partial") for path in tmp_path.iterdir())

    assert write_phantom(tmp_path / "phantom", SMALL, listener=Watches()) == tmp_path / "phantom"
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [path.name for path in tmp_path.iterdir()] == ["phantom"]


def test_an_empty_folder_is_filled_and_parents_are_made(tmp_path: Path, small: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert digest(write_phantom(tmp_path / "empty", SMALL)) == digest(small)
    assert digest(write_phantom(tmp_path / "a" / "b", SMALL)) == digest(small)


def test_a_folder_that_holds_something_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UsageError, match=rf"{re.escape(str(taken))}: already there; give a new folder"):
            write_phantom(taken, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/phantom: the phantom data cannot be written .*; give a folder"):
        write_phantom(tmp_path / "file" / "phantom", SMALL)


# Settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patients", 0),
        ("patients", 2.5),
        ("patches_per_patient", 3),
        ("patches_per_patient", True),
        ("patch_px", 15),
        ("patch_px", "50"),
        ("seed", -1),
    ],
)
def test_a_bad_setting_is_named(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"'{field}' cannot be {value!r}: give a whole number from \d+ to \d+"):
        PhantomSettings(**{field: value})


def test_a_slide_too_large_for_memory_is_refused() -> None:
    with pytest.raises(UsageError, match="'patches_per_patient' and 'patch_px'"):
        PhantomSettings(patches_per_patient=2000, patch_px=256)


@pytest.mark.parametrize("index", [-1, 4])
def test_a_patient_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(UsageError, match="'patient_index' runs from 0 to 3"):
        draw_slide(index, SMALL)


# Tissue and lesion


@settings(max_examples=12, deadline=None)
@given(patient=st.integers(0, 7), count=st.integers(4, 40), px=st.sampled_from([16, 33, 64]), seed=st.integers(0, 999))
def test_every_patient_has_the_patches_asked_for_of_both_labels(patient: int, count: int, px: int, seed: int) -> None:
    slide = draw_slide(patient, PhantomSettings(8, count, px, seed))
    assert slide.tissue.sum() == count
    assert 1 <= slide.lesion.sum() < count
    assert not (slide.lesion & ~slide.tissue).any()
    assert slide.lesion_px.shape == slide.image.shape[:2]
    assert slide.tissue.shape == tuple(-(-side // px) for side in slide.image.shape[:2])


def test_a_label_is_the_majority_of_the_lesions_outline(cohort: list[PhantomSlide]) -> None:
    mixed = 0
    for slide in cohort:
        for row, column in np.argwhere(slide.tissue).tolist():
            share = slide.lesion_px[row * 50 : (row + 1) * 50, column * 50 : (column + 1) * 50].mean()
            assert (share > 0.5) == slide.lesion[row, column] or abs(share - 0.5) < 0.001
            mixed += 0.2 < share < 0.8
    assert mixed > 0.05 * 3600, "no patch at a border: labels would be free of noise"


def test_lesions_are_contiguous(cohort: list[PhantomSlide]) -> None:
    shares = []
    for slide in cohort:
        components, _ = label_components(slide.lesion, np.ones((3, 3)))
        shares.append(np.bincount(components[slide.lesion]).max() / slide.lesion.sum())
    assert min(shares) > 0.5
    assert np.mean(shares) > 0.9


def test_malignant_patches_are_28_percent_and_vary_by_patient(cohort: list[PhantomSlide]) -> None:
    shares = np.array([slide.lesion.sum() / slide.tissue.sum() for slide in cohort])
    assert 0.24 < shares.mean() < 0.32
    assert shares.min() < 0.12
    assert shares.max() > 0.48
    assert ((shares >= 0.05) & (shares <= 0.6)).all()


# Likeness


def test_tissue_is_pink_to_purple_and_glass_is_bright(cohort: list[PhantomSlide]) -> None:
    for slide in cohort:
        assert slide.image[:8, :8].min() > 190
        stained = np.concatenate([patch.reshape(-1, 3) for patch, _ in patches(slide)]).astype(float)
        stained = stained[stained.min(axis=1) < 180]
        red, green, blue = stained.mean(axis=0)
        assert green < min(red, blue) - 15


def test_malignant_nuclei_are_denser_and_larger_within_a_patient(cohort: list[PhantomSlide]) -> None:
    aurocs = []
    for slide in cohort:
        rows = [(np.quantile(density(patch)[..., 0], 0.9), label) for patch, label in patches(slide)]
        aurocs.append(roc_auc_score([label for _, label in rows], [dark for dark, _ in rows]))
    assert np.mean(aurocs) > 0.65
    assert np.mean(np.array(aurocs) > 0.5) > 0.8


def test_dark_benign_patches_of_one_patient_pass_for_malignant_ones_of_another(cohort: list[PhantomSlide]) -> None:
    def nuclei(slide: PhantomSlide, wanted: int, share: float) -> float:
        stain = [np.quantile(density(patch)[..., 0], 0.9) for patch, label in patches(slide) if label == wanted]
        return float(np.quantile(stain, share))

    benign = np.array([nuclei(slide, 0, 0.8) for slide in cohort])
    malignant = np.array([nuclei(slide, 1, 0.5) for slide in cohort])
    assert np.mean(benign[:, None] > malignant) > 0.2
    assert np.mean(benign > malignant) < 0.2, "within a patient it is easier"


def test_neighbouring_patches_look_more_alike_than_distant_ones_of_the_same_slide(cohort: list[PhantomSlide]) -> None:
    near, far = [], []
    rng = np.random.default_rng(0)
    for slide in cohort[:20]:
        benign = [(row, column) for row, column in np.argwhere(slide.tissue & ~slide.lesion).tolist()]
        tint = {(r, c): density(slide.image[r * 50 : r * 50 + 50, c * 50 : c * 50 + 50]).mean() for r, c in benign}
        near += [abs(tint[a] - tint[b]) for a, b in pairwise(benign) if a[0] == b[0] and b[1] == a[1] + 1]
        rng.shuffle(benign)
        far += [abs(tint[a] - tint[b]) for a, b in pairwise(map(tuple, benign))]
    assert np.mean(near) < 0.85 * np.mean(far)


def test_the_picture_goes_on_across_the_border_of_two_patches(cohort: list[PhantomSlide]) -> None:
    grey = cohort[0].image.mean(axis=2)
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    at_border = np.arange(steps.size) % 50 == 49
    assert steps[at_border].mean() == pytest.approx(steps[~at_border].mean(), rel=0.2)


def test_a_random_split_of_images_is_optimistic(cohort: list[PhantomSlide]) -> None:
    other = PhantomSettings(patches_per_patient=60, seed=1)
    data = [table(cohort), table([draw_slide(index, other) for index in range(other.patients)])]
    models = {
        "forest": RandomForestClassifier(50, max_samples=0.6, random_state=0),
        "neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(15)),
    }
    for name, model in models.items():
        by_image = np.array([auroc_across_folds(model, each, by_patient=False) for each in data])
        by_patient = np.array([auroc_across_folds(model, each, by_patient=True) for each in data])
        assert (by_image > by_patient).all(), name
        assert 0.025 < np.mean(by_image - by_patient) < 0.09, name
        assert 0.80 < by_patient.mean() < 0.92, name


# One patch, and speed


def test_a_patch_can_be_had_of_any_size_and_label() -> None:
    for label in (0, 1):
        patch = draw_patch(label, seed=3, patch_px=64)
        assert (patch.shape, patch.dtype) == ((64, 64, 3), np.uint8)
        np.testing.assert_array_equal(patch, draw_patch(label, seed=3, patch_px=64))
    assert (draw_patch(0, seed=3) != draw_patch(1, seed=3)).any()
    assert (draw_patch(0, seed=3) != draw_patch(0, seed=4)).any()


def test_single_patches_can_be_told_apart_better_than_by_chance() -> None:
    dark = [[np.quantile(density(draw_patch(label, seed))[..., 0], 0.8) for seed in range(60)] for label in (0, 1)]
    assert 0.65 < roc_auc_score(np.repeat([0, 1], 60), np.concatenate(dark)) < 0.98


@pytest.mark.parametrize(("arguments", "field"), [((2, 0), "label"), ((0, -1), "seed"), ((0, 0, 8), "patch_px")])
def test_a_bad_patch_is_named(arguments: tuple[Any, ...], field: str) -> None:
    with pytest.raises(UsageError, match=f"'{field}'"):
        draw_patch(*arguments)
