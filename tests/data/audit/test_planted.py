"""Each published mistake, planted in data that are otherwise right, is found, and the fix list mends what it can."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from tests.data.layouts import draw_mammogram

import clearmargin
from clearmargin.data.phantom import draw_patch
from clearmargin.images.read import read_image
from clearmargin.types import Finding

Pixels = NDArray[np.uint8]


def write(file: Path, pixels: Pixels, *, quality: int | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **({} if quality is None else {"quality": quality}))
    return file


def altered(pixels: Pixels, *, turns: int) -> Pixels:
    """The picture turned, compressed as JPEG, and lighter."""
    stream = io.BytesIO()
    Image.fromarray(np.rot90(pixels, turns)).save(stream, "JPEG", quality=60)
    return np.asarray(ImageEnhance.Brightness(Image.open(stream)).enhance(1.1))


def findings(root: Path, **options: object) -> dict[str, Finding]:
    return {entry.kind: entry for entry in clearmargin.audit(root, **options).findings}  # type: ignore[arg-type]


@pytest.fixture
def split_folders(tmp_path: Path) -> Path:
    """train/, valid/ and test/ with benign/ and malignant/ of 30, 10 and 10 drawn patches each."""
    seed = 0
    for part, count in (("train", 30), ("valid", 10), ("test", 10)):
        for label, name in enumerate(("benign", "malignant")):
            for number in range(count):
                write(tmp_path / "data" / part / name / f"{part}{number}.png", draw_patch(label, seed := seed + 1))
    return tmp_path / "data"


def test_data_without_a_planted_mistake_have_no_such_finding(split_folders: Path) -> None:
    found = findings(split_folders)
    assert not {kind for kind in found if "duplicate" in kind or kind in ("label_conflict", "inverted", "blank")}


def test_a_folder_named_valid_is_validation_and_test_stays_test(split_folders: Path) -> None:
    table = clearmargin.split(split_folders)
    parts = table["path"].str.extract(r"/(train|valid|test)/")[0].replace({"valid": "validation"})
    assert (table["split"] == parts).all()
    assert table["split"].value_counts().to_dict() == {"train": 60, "validation": 20, "test": 20}


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_test_image_that_is_in_train_turned_and_recompressed(split_folders: Path, turns: int, tmp_path: Path) -> None:
    for number in range(4):
        tested = read_image(split_folders / "test" / "benign" / f"test{number}.png")
        write(split_folders / "train" / "benign" / f"leak{number}.jpg", altered(tested, turns=turns), quality=70)
    entry = findings(split_folders)["near_duplicate_across_splits"]
    pairs = {tuple(sorted(Path(path).stem for path in group)) for group in entry.groups}
    assert pairs == {(f"leak{number}", f"test{number}") for number in range(4)}
    assert (entry.severity, entry.certainty) == ("warning", "likely")
    listing = tmp_path / "fix.txt"
    listing.write_text("\n".join(clearmargin.audit(split_folders).fix_list()), encoding="utf-8")
    assert sorted(Path(line).stem for line in listing.read_text().split("\n")) == [f"leak{n}" for n in range(4)]
    assert "near_duplicate_across_splits" not in findings(split_folders, exclude=listing)


def test_a_turned_copy_under_the_other_class(split_folders: Path) -> None:
    benign = read_image(split_folders / "train" / "benign" / "train3.png")
    write(split_folders / "train" / "malignant" / "swapped.png", altered(benign, turns=1))
    entry = findings(split_folders)["near_duplicate_across_labels"]
    assert [sorted(Path(path).stem for path in group) for group in entry.groups] == [["swapped", "train3"]]


def test_a_fresh_split_keeps_near_copies_on_one_side(tmp_path: Path) -> None:
    for number in range(40):
        for label, name in enumerate(("benign", "malignant")):
            pixels = draw_patch(label, 1 + 2 * number + label)
            write(tmp_path / name / f"a{number}.png", pixels)
            write(tmp_path / name / f"b{number}.png", altered(pixels, turns=number % 4))
    table = clearmargin.split(tmp_path, by="image")
    sides = table.assign(pair=table["path"].str.replace(r"/[ab](\d+\.png)$", r"/\1", regex=True)).groupby("pair")[
        "split"
    ]
    assert (sides.nunique() == 1).mean() > 0.95
    assert (sides.size() == 2).all()


def test_labels_swapped_between_folders_and_names(make_folder: Callable[..., Path]) -> None:
    root = make_folder(patients=12, per_class=3)
    a, b = (next((root / "P03" / str(label)).glob("*.png")) for label in (0, 1))
    a.rename(root / "P03" / "1" / a.name)
    b.rename(root / "P03" / "0" / b.name)
    entry = findings(root)["label_conflict"]
    assert (entry.severity, entry.count) == ("blocking", 2)


def test_a_patient_on_both_sides_of_an_official_split(make_folder: Callable[..., Path]) -> None:
    root = make_folder(patients=12, per_class=3)
    patients = sorted(root.iterdir())
    for part in ("train", "test"):
        (root / part).mkdir()
    for number, patient in enumerate(patients):
        patient.rename(root / ("test" if number > 8 else "train") / patient.name)
    moved = root / "test" / "P01" / "0"
    moved.mkdir(parents=True)
    file = next((root / "train" / "P01" / "0").glob("*.png"))
    file.rename(moved / file.name)
    entry = findings(root)["patient_in_two_splits"]
    assert (entry.severity, entry.count) == ("blocking", 1)
    assert "'P01'" in entry.message


def test_a_negative_among_mammograms(tmp_path: Path) -> None:
    """A MONOCHROME1 image that was saved without being inverted."""
    for number in range(24):
        pixels = draw_mammogram(((200 + 5 * number, 300, 30),), right=bool(number % 2), px=512)
        shown = 255 - pixels if number == 7 else pixels
        write(tmp_path / ("benign" if number % 3 else "malignant") / f"m{number:02}.png", shown)
    entry = findings(tmp_path)["inverted"]
    assert [Path(path).stem for path in entry.paths] == ["m07"]


@pytest.mark.real
def test_planted_copies_of_real_patches_are_found_among_all_others(real_data: Path, tmp_path: Path) -> None:
    """IDC: 60 patches turned, recompressed and lighter, beside 800 of the same patients."""
    folders = [real_data / "idc" / patient for patient in ("10253", "10254")]
    files = [file for folder in folders for file in sorted(folder.rglob("*.png"))[:400]]
    pictures = {file: read_image(file) for file in files}
    files = [file for file in files if pictures[file].shape == (50, 50, 3)]
    for file in files:
        (tmp_path / file.parent.name).mkdir(exist_ok=True)
        (tmp_path / file.parent.name / file.name).symlink_to(file)
    chosen = [file for file in files[::12] if pictures[file].mean(axis=2).std() > 12][:60]
    for number, file in enumerate(chosen):
        name = file.name.replace("_x", "_x9")
        write(tmp_path / file.parent.name / name, altered(pictures[file], turns=number % 4))
    groups = [
        set(group)
        for entry in clearmargin.audit(tmp_path).findings
        if "near_duplicate" in entry.kind
        for group in entry.groups
    ]
    wanted = [
        {str(tmp_path / file.parent.name / name) for name in (file.name, file.name.replace("_x", "_x9"))}
        for file in chosen
    ]
    assert sum(pair in groups for pair in wanted) >= 0.95 * len(wanted)
    assert len([group for group in groups if group not in wanted]) <= 1


class TestCommonLikeness:
    """Images that all look alike are no copies: they say so, and can still be split by patient."""

    def write(self, root: Path, *, patients: int) -> Path:
        """Ovals in one view with a lesion somewhere, and noise."""
        generator = np.random.default_rng(0)
        lines = ["path,label,patient_id"]
        for patient in range(patients):
            for number in range(4):
                lesion = (int(generator.integers(60, 120)), int(generator.integers(90, 160)), 6 + 10 * (patient % 2))
                oval = draw_mammogram((lesion,), right=bool(number % 2), px=256)
                pixels = (oval + generator.normal(0, 6, oval.shape)).clip(0, 255).astype(np.uint8)
                write(root / f"p{patient}_{number}.png", pixels)
                lines.append(f"p{patient}_{number}.png,{patient % 2},P{patient}")
        (root / "m.csv").write_text("\n".join(lines), encoding="utf-8")
        return root / "m.csv"

    def test_drawings_of_one_kind_can_be_split(self, tmp_path: Path) -> None:
        data = self.write(tmp_path, patients=12)
        entries = [entry for entry in clearmargin.audit(data).findings if "near_duplicate" in entry.kind]
        assert entries
        assert {entry.certainty for entry in entries if "across" in entry.kind} == {"possible"}
        assert clearmargin.split(data).groupby("patient_id")["split"].nunique().max() == 1

    def test_two_patients_of_many_who_share_a_picture_stay_together(self, tmp_path: Path) -> None:
        lines = ["path,label,patient_id"]
        for patient in range(24):
            for label in (0, 1):
                pixels = draw_patch(label, 1 + 2 * patient + label)
                write(tmp_path / f"{patient}_{label}.png", pixels)
                lines.append(f"{patient}_{label}.png,{label},P{patient}")
                if patient == 5 and label == 0:
                    write(tmp_path / "copy.png", altered(pixels, turns=1))
                    lines.append("copy.png,0,P6")
        data = tmp_path / "m.csv"
        data.write_text("\n".join(lines), encoding="utf-8")
        entry = findings(data)["near_duplicate_across_patients"]
        assert (entry.certainty, entry.count) == ("likely", 2)
        for seed in range(8):
            parts = clearmargin.split(data, seed=seed).drop_duplicates("patient_id").set_index("patient_id")["split"]
            assert parts["P5"] == parts["P6"]
