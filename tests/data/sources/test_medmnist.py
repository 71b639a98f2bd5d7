"""BreastMNIST: labels are turned round once, the split is kept, and what is not BreastMNIST is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.data.layouts import save, write_breastmnist, write_folder, zip_folder

from clearmargin.data.manifest import Manifest
from clearmargin.data.sources import read_source
from clearmargin.data.split import official_split
from clearmargin.errors import DataError
from clearmargin.images.read import read_image
from clearmargin.types import Finding

OFFICIAL = {"train": (546, 147), "val": (78, 21), "test": (156, 42)}


def finding(manifest: Manifest, kind: str) -> Finding:
    return next(entry for entry in manifest.findings if entry.kind == kind)


def write_npz(
    file: Path, labels: dict[str, NDArray[np.generic]], *, px: int = 28, channels: tuple[int, ...] = ()
) -> Path:
    generator = np.random.default_rng(0)
    arrays: dict[str, NDArray[np.generic]] = {f"{split}_labels": coded for split, coded in labels.items()}
    for split, coded in labels.items():
        arrays[f"{split}_images"] = generator.integers(0, 256, (len(coded), px, px, *channels)).astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)
    return file


def official_labels(*splits: str, malignant: int = 0) -> dict[str, NDArray[np.generic]]:
    labels: dict[str, NDArray[np.generic]] = {}
    for split in splits:
        count, positive = OFFICIAL[split]
        coded = np.full(count, 1 - malignant, dtype=np.uint8)
        coded[:positive] = malignant
        labels[split] = coded
    return labels


@pytest.mark.parametrize("shape", ["flat", "column"])
def test_zero_is_malignant(tmp_path: Path, shape: str) -> None:
    coded = np.array([0, 1, 1, 0, 1], dtype=np.uint8)
    labels = {"train": coded if shape == "flat" else coded[:, None]}
    manifest = read_source(write_npz(tmp_path / "breastmnist.npz", labels))
    assert manifest.labels().tolist() == [1, 0, 0, 1, 0]
    assert (manifest.source, manifest.content) == ("medmnist", "ultrasound")
    assert "2 of 5 images are malignant" in finding(manifest, "labels_turned").message
    assert not manifest.knows_patients


def test_rows_are_read_in_place(tmp_path: Path) -> None:
    file = write_breastmnist(tmp_path)
    manifest = read_source(file)
    assert manifest.frame["path"].tolist()[:2] == [f"{file}/train_images/0", f"{file}/train_images/1"]
    assert manifest.relative_paths()[-1] == "test_images/4"
    with np.load(file) as arrays:
        stored = arrays["val_images"][2]
    np.testing.assert_array_equal(read_image(f"{file}/val_images/2")[..., 0], stored)


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("train", "val"), ("test",)])
def test_the_official_split_is_that_of_the_arrays(tmp_path: Path, splits: tuple[str, ...]) -> None:
    labels = {split: np.array([0, 1] * 3, dtype=np.uint8) for split in splits}
    manifest = read_source(write_npz(tmp_path / "breastmnist.npz", labels))
    counts = manifest.frame["official_split"].value_counts().to_dict()
    assert counts == {"validation" if split == "val" else split: 6 for split in splits}


def test_the_official_split_can_be_used(tmp_path: Path) -> None:
    manifest = read_source(write_breastmnist(tmp_path))
    assignment = official_split(manifest, by="image")
    assert assignment.protocol == "official"
    parts = dict(zip(manifest.relative_paths(), assignment.splits.tolist(), strict=True))
    assert parts["train_images/0"] == "train"
    assert parts["val_images/0"] == "validation"
    assert parts["test_images/4"] == "test"


@pytest.mark.parametrize(("px", "channels"), [(28, ()), (64, ()), (28, (3,)), (28, (1,))])
def test_larger_and_coloured_images_are_read(tmp_path: Path, px: int, channels: tuple[int, ...]) -> None:
    labels = {"train": np.array([0, 1, 1], dtype=np.int64)}
    manifest = read_source(write_npz(tmp_path / "breastmnist_64.npz", labels, px=px, channels=channels))
    assert read_image(manifest.frame["path"][0]).shape == (px, px, *(channels or (1,)))


class TestWhichSet:
    def test_a_renamed_file_is_known_by_its_exact_sizes(self, tmp_path: Path) -> None:
        for splits in (("train", "val", "test"), ("train", "val"), ("test",)):
            manifest = read_source(write_npz(tmp_path / "data.npz", official_labels(*splits), px=4))
            assert int(manifest.labels().sum()) == sum(OFFICIAL[split][1] for split in splits)

    def test_a_part_is_known_by_its_name(self, tmp_path: Path) -> None:
        file = write_npz(tmp_path / "my BreastMNIST part.npz", {"train": np.array([0, 1, 1], dtype=np.uint8)})
        assert read_source(file).labels().tolist() == [1, 0, 0]

    def test_another_file_with_two_classes_is_refused(self, tmp_path: Path) -> None:
        file = write_npz(tmp_path / "pneumoniamnist.npz", {"train": np.array([0, 1, 1], dtype=np.uint8)})
        with pytest.raises(
            DataError, match=r"nobody can tell which label is malignant\. Rename it to breastmnist\.npz"
        ):
            read_source(file)

    @pytest.mark.parametrize("name", ["pathmnist.npz", "breastmnist.npz"])
    def test_more_than_two_classes_are_refused(self, tmp_path: Path, name: str) -> None:
        file = write_npz(tmp_path / name, {"train": np.array([0, 1, 8], dtype=np.uint8)})
        with pytest.raises(DataError, match="train_labels are not all 0 or 1, so this is not BreastMNIST"):
            read_source(file)

    def test_labels_that_were_turned_round_already_are_not_turned_again(self, tmp_path: Path) -> None:
        file = write_npz(tmp_path / "breastmnist.npz", official_labels("train", "val", malignant=1), px=4)
        with pytest.raises(DataError, match=r"turned round already.*Give the file as published"):
            read_source(file)

    def test_other_arrays_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", weights=np.zeros(3), bias=np.zeros(1))
        with pytest.raises(
            DataError, match="no MedMNIST file; it has the arrays bias, weights, and needs train_images"
        ):
            read_source(tmp_path / "x.npz")


class TestDamage:
    def test_objects_are_never_loaded(self, tmp_path: Path) -> None:
        labels = np.array([0, None], dtype=object)
        np.savez(tmp_path / "breastmnist.npz", train_images=np.zeros((2, 8, 8), np.uint8), train_labels=labels)
        with pytest.raises(DataError, match="holds Python objects, which are never loaded"):
            read_source(tmp_path / "breastmnist.npz")

    def test_no_archive_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "breastmnist.npz").write_bytes(b"PK\x03\x04 cut short")
        with pytest.raises(DataError, match="not a zip archive, or only part of one"):
            read_source(tmp_path / "breastmnist.npz")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"train_images": np.zeros((2, 8, 8), np.uint8)}, "train_images has no train_labels"),
            (
                {"train_images": np.zeros((2, 8, 8), np.uint8), "train_labels": np.zeros(3, np.uint8)},
                r"train_labels has the shape \(3,\), for 2 images",
            ),
            (
                {"train_images": np.zeros((2, 8), np.uint8), "train_labels": np.zeros(2, np.uint8)},
                r"train_images has the shape \(2, 8\)",
            ),
            (
                {"train_images": np.zeros((2, 8, 8), np.uint8), "train_labels": np.array([0.5, 1.0])},
                "not all 0 or 1",
            ),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(
        self, tmp_path: Path, arrays: dict[str, NDArray[np.generic]], message: str
    ) -> None:
        np.savez(tmp_path / "breastmnist.npz", **arrays)
        with pytest.raises(DataError, match=message):
            read_source(tmp_path / "breastmnist.npz")


class TestFolders:
    def test_two_files_ask_which(self, tmp_path: Path) -> None:
        write_breastmnist(tmp_path)
        write_breastmnist(tmp_path, name="breastmnist_64.npz")
        with pytest.raises(DataError, match=r"holds 2 \.npz files: breastmnist\.npz, breastmnist_64\.npz\. Give the"):
            read_source(tmp_path)

    def test_a_folder_of_images_with_such_a_file_is_a_folder_of_images(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        write_breastmnist(tmp_path)
        assert read_source(tmp_path).source == "folder"

    def test_other_files_beside_it_are_reported(self, tmp_path: Path) -> None:
        write_breastmnist(tmp_path)
        (tmp_path / "breastmnist.npz.sha256").write_text("0")
        manifest = read_source(tmp_path)
        assert finding(manifest, "other_file").count == 1
        assert manifest.files_found == 19

    def test_a_row_of_a_file_within_a_zip_file_is_read(self, tmp_path: Path) -> None:
        file = write_breastmnist(tmp_path / "set" / "deep")
        archive = zip_folder(tmp_path / "set", tmp_path / "set.zip")
        path = f"{archive}/deep/breastmnist.npz/train_images/3"
        np.testing.assert_array_equal(read_image(path), read_image(f"{file}/train_images/3"))
        assert path in set(read_source(archive).frame["path"])

    def test_an_image_named_npz_in_a_folder_is_a_folder(self, tmp_path: Path) -> None:
        save(tmp_path / "breast.npz" / "benign" / "a.png", np.zeros((8, 8), np.uint8))
        assert read_source(tmp_path / "breast.npz").source == "folder"


@pytest.mark.real
def test_the_real_file_is_read(real_data: Path) -> None:
    manifest = read_source(real_data / "breastmnist")
    assert manifest.source == "medmnist"
    counts = manifest.frame.groupby("official_split")["label"].agg(["size", "sum"])
    assert counts.loc["train"].tolist() == [546, 147]
    assert counts.loc["validation"].tolist() == [78, 21]
    assert read_image(manifest.frame["path"].iloc[-1]).shape == (28, 28, 1)
