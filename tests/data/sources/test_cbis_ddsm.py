"""CBIS-DDSM in the layouts of Kaggle and TCIA: what is one row, who is tested on, and which file is the crop."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.data.layouts import zip_folder
from tests.data.sources.cbis_files import (
    CROP_PX,
    FULL_PX,
    LESIONS,
    Lesion,
    crop_pixels,
    full_pixels,
    mask_pixels,
    write_kaggle,
    write_tcia,
)

from clearmargin.data.audit import audit_manifest
from clearmargin.data.manifest import Manifest
from clearmargin.data.sources import read_source
from clearmargin.data.sources.cbis_ddsm.tables import find_tables
from clearmargin.data.sources.options import SourceOptions
from clearmargin.data.split import official_split
from clearmargin.errors import DataError, UsageError
from clearmargin.images.read import read_image
from clearmargin.types import Finding


class Write(Protocol):
    def __call__(self, root: Path, lesions: Sequence[Lesion] = ..., *, without: Iterable[str] = ...) -> Path: ...


def write_renamed(root: Path, lesions: Sequence[Lesion] = LESIONS, *, without: Iterable[str] = ()) -> Path:
    return write_tcia(root, lesions, renamed=True, without=without)


CROP = SourceOptions(view="crop")
WRITERS: list[Write] = [write_kaggle, write_tcia, write_renamed]
each_layout = pytest.mark.parametrize("write", WRITERS, ids=["kaggle", "tcia", "renamed"])


def finding(manifest: Manifest, kind: str) -> Finding:
    return next(entry for entry in manifest.findings if entry.kind == kind)


def kinds(manifest: Manifest) -> set[str]:
    return {entry.kind for entry in manifest.findings}


def facts(manifest: Manifest) -> list[list[object]]:
    columns = ["patient_id", "slide_id", "side", "view", "label", "official_split"]
    return sorted(manifest.frame[columns].to_numpy().tolist())


def correlation(pixels: np.ndarray, others: np.ndarray) -> float:
    return float(np.corrcoef(pixels.ravel().astype(float), others.ravel().astype(float))[0, 1])


class TestFullMammograms:
    @each_layout
    def test_one_row_a_mammogram_with_all_that_the_tables_say(self, write: Write, tmp_path: Path) -> None:
        manifest = read_source(write(tmp_path))
        assert (manifest.source, manifest.content) == ("cbis_ddsm", "mammogram")
        assert facts(manifest) == [
            ["P_00001", "P_00001_LEFT", "left", "CC", 1, "train"],
            ["P_00001", "P_00001_LEFT", "left", "MLO", 1, "train"],
            ["P_00002", "P_00002_RIGHT", "right", "CC", 0, "train"],
            ["P_00003", "P_00003_LEFT", "left", "CC", 0, "test"],
            ["P_00004", "P_00004_RIGHT", "right", "MLO", 1, "test"],
        ]
        assert kinds(manifest) == {"other_file"}

    @each_layout
    def test_each_row_is_the_mammogram_of_its_lesion(self, write: Write, tmp_path: Path) -> None:
        frame = read_source(write(tmp_path)).frame
        for lesion in LESIONS:
            patient, view = f"P_{lesion.patient:05}", lesion.view
            (path,) = frame["path"][(frame["patient_id"] == patient) & (frame["view"] == view)]
            pixels = read_image(path)
            assert pixels.shape == (*FULL_PX, 1)
            assert correlation(pixels, full_pixels(lesion)) > 0.99

    def test_a_zip_file_gives_the_same_rows(self, tmp_path: Path) -> None:
        plain = read_source(write_kaggle(tmp_path / "set"))
        packed = read_source(zip_folder(tmp_path / "set", tmp_path / "set.zip"))
        assert packed.relative_paths() == plain.relative_paths()
        assert facts(packed) == facts(plain)
        assert read_image(packed.frame["path"][0]).shape == (*FULL_PX, 1)

    def test_several_lesions_are_one_row_malignant_if_any_is(self, tmp_path: Path) -> None:
        lesions = [Lesion(1, "BENIGN"), Lesion(1, "MALIGNANT", number=2), Lesion(2, "BENIGN"), Lesion(2, number=2)]
        manifest = read_source(write_kaggle(tmp_path, lesions))
        assert dict(zip(manifest.frame["patient_id"], manifest.labels(), strict=True)) == {"P_00001": 1, "P_00002": 0}
        (path,) = manifest.frame["path"][manifest.frame["patient_id"] == "P_00001"]
        assert finding(manifest, "lesions_disagree").paths == (path,)

    @pytest.mark.parametrize("own_series", [False, True])
    @pytest.mark.parametrize("without_the_first", [False, True])
    def test_a_mammogram_in_both_tables_is_one_row(
        self, own_series: bool, without_the_first: bool, tmp_path: Path
    ) -> None:
        lesions = [Lesion(1, "BENIGN", own_series=own_series), Lesion(1, "MALIGNANT", "calc", own_series=own_series)]
        missing = [lesions[0].uid("full")] if without_the_first and own_series else []
        manifest = read_source(write_kaggle(tmp_path, lesions, without=missing))
        assert facts(manifest) == [["P_00001", "P_00001_LEFT", "left", "CC", 1, "train"]]
        assert finding(manifest, "listed_twice").count == 1
        assert "missing" not in kinds(manifest)

    def test_two_mammograms_of_one_view_in_one_table_stay_two_rows(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path, [Lesion(1), Lesion(2)])
        table = tmp_path / "csv" / "mass_case_description_train_set.csv"
        table.write_text(table.read_text(encoding="utf-8").replace("\nP_00002", "\nP_00001"), encoding="utf-8")
        assert facts(read_source(tmp_path)) == [["P_00001", "P_00001_LEFT", "left", "CC", 0, "train"]] * 2

    def test_a_mask_beside_the_mammogram_is_not_taken_for_it(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path, [LESIONS[0]])
        folder = tmp_path / "jpeg" / LESIONS[0].uid("full")
        mask = (mask_pixels(LESIONS[0]) >> 4).astype(np.uint8)
        Image.fromarray(mask).save(folder / "1-001.jpg")
        (path,) = read_source(tmp_path).frame["path"]
        assert Path(path).name == "1-101.jpg"

    @pytest.mark.parametrize("pathology", ["", "UNPROVEN"])
    def test_an_unknown_pathology_is_no_label(self, pathology: str, tmp_path: Path) -> None:
        lesions = [Lesion(1, pathology), Lesion(2, "MALIGNANT"), Lesion(3, pathology), Lesion(3, number=2)]
        manifest = read_source(write_kaggle(tmp_path, lesions))
        assert facts(manifest) == [["P_00002", "P_00002_LEFT", "left", "CC", 1, "train"]]
        assert finding(manifest, "unlabelled").count == 2  # one benign lesion does not make up for an unknown one


class TestCrops:
    @each_layout
    def test_one_row_a_lesion_with_its_own_label(self, write: Write, tmp_path: Path) -> None:
        lesions = [Lesion(1, "BENIGN"), Lesion(1, "MALIGNANT", number=2), *LESIONS[2:]]
        manifest = read_source(write(tmp_path, lesions), options=CROP)
        assert manifest.content == "lesion"
        assert [row[0:1] + row[4:] for row in facts(manifest)] == [
            ["P_00001", 0, "train"],
            ["P_00001", 1, "train"],
            ["P_00002", 0, "train"],
            ["P_00003", 0, "test"],
            ["P_00004", 1, "test"],
        ]
        assert not kinds(manifest) & {"swapped_files", "lesions_disagree", "missing"}

    @each_layout
    @pytest.mark.parametrize("mask_together", [False, True])
    @pytest.mark.parametrize("full_is_there", [False, True])
    def test_swapped_crops_and_masks_are_told_apart_by_what_they_show(
        self, write: Write, mask_together: bool, full_is_there: bool, tmp_path: Path
    ) -> None:
        lesions = [replace(lesion, mask_together=mask_together, swapped=lesion.patient in (1, 4)) for lesion in LESIONS]
        missing = [] if full_is_there else [lesion.uid("full") for lesion in lesions]
        manifest = read_source(write(tmp_path, lesions, without=missing), options=CROP)
        assert len(manifest) == len(lesions)
        frame = manifest.frame
        for lesion in lesions:
            patient = f"P_{lesion.patient:05}"
            (path,) = frame["path"][(frame["patient_id"] == patient) & (frame["view"] == lesion.view)]
            pixels = read_image(path)
            assert pixels.shape == (CROP_PX, CROP_PX, 1)
            assert correlation(pixels, crop_pixels(lesion)) > 0.9
        found = finding(manifest, "swapped_files")
        assert (found.severity, found.count) == ("note", 3)
        assert set(found.paths) == set(frame["path"][frame["patient_id"].isin(["P_00001", "P_00004"])])

    @each_layout
    @pytest.mark.parametrize("is_second", [False, True])
    def test_a_table_that_is_right_on_a_shared_folder_is_not_reported(
        self, write: Write, is_second: bool, tmp_path: Path
    ) -> None:
        lesions = [replace(lesion, mask_together=True, swapped=is_second, crop_second=is_second) for lesion in LESIONS]
        manifest = read_source(write(tmp_path, lesions), options=CROP)
        assert [read_image(path).shape for path in manifest.frame["path"]] == [(CROP_PX, CROP_PX, 1)] * 5
        assert "swapped_files" not in kinds(manifest)

    def test_nothing_is_decoded_where_sizes_tell(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lesions = [replace(lesion, mask_together=True, swapped=True) for lesion in LESIONS]
        write_kaggle(tmp_path, lesions)

        def refuse(path: Path) -> None:
            raise AssertionError(f"{path} was decoded")

        monkeypatch.setattr("clearmargin.data.sources.cbis_ddsm.files.read_image", refuse)
        assert len(read_source(tmp_path, options=CROP)) == len(lesions)

    @each_layout
    def test_a_mask_without_its_crop_is_a_missing_crop(self, write: Write, tmp_path: Path) -> None:
        gone = [lesion.uid("crop") for lesion in LESIONS[:2]] + [LESIONS[0].uid("full")]
        manifest = read_source(write(tmp_path, without=gone), options=CROP)
        assert len(manifest) == len(LESIONS) - 2
        assert finding(manifest, "missing").count == 2

    def test_a_damaged_crop_is_kept_for_the_audit_to_find(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path)
        (crop,) = (tmp_path / "jpeg" / LESIONS[0].uid("crop")).iterdir()
        crop.write_bytes(crop.read_bytes()[:300])
        manifest = read_source(tmp_path, options=CROP)
        assert str(crop) in set(manifest.frame["path"])
        assert {file.path for file in audit_manifest(manifest).quarantine} == {str(crop)}


class TestOfficialSplit:
    def crossing(self) -> list[Lesion]:
        """Patient 5 is trained on for masses and tested on for calcifications."""
        return [
            *LESIONS,
            Lesion(5, "MALIGNANT", "mass", "train"),
            Lesion(5, "MALIGNANT", "mass", "train", view="MLO"),
            Lesion(5, "BENIGN", "calc", "test"),
            Lesion(5, "BENIGN", "calc", "test", side="RIGHT"),
        ]

    @pytest.mark.parametrize("view", ["full", "crop"])
    def test_a_patient_on_both_sides_is_tested_on_only(self, view: str, tmp_path: Path) -> None:
        options = SourceOptions(view="crop") if view == "crop" else SourceOptions()
        manifest = read_source(write_kaggle(tmp_path, self.crossing()), options=options)
        frame = manifest.frame
        assert set(frame["official_split"][frame["patient_id"] == "P_00005"]) == {"test"}
        found = finding(manifest, "patient_on_both_sides")
        assert (found.severity, found.count) == ("warning", 1)
        assert "P_00005" in found.message
        assert len(found.paths) == (1 if view == "full" else 2)
        assert not set(found.paths) & set(frame["path"])

    def test_the_test_part_is_the_published_one(self, tmp_path: Path) -> None:
        frame = read_source(write_kaggle(tmp_path, self.crossing())).frame
        tested = {lesion.uid("full") for lesion in self.crossing() if lesion.split == "test"}
        assert {Path(path).parent.name for path in frame["path"][frame["official_split"] == "test"]} == tested

    def test_a_mammogram_in_both_parts_has_the_labels_of_both(self, tmp_path: Path) -> None:
        frame = read_source(write_kaggle(tmp_path, self.crossing())).frame
        row = frame.loc[(frame["patient_id"] == "P_00005") & (frame["side"] == "left")]
        assert row[["label", "official_split"]].to_numpy().tolist() == [[1, "test"]]

    def test_such_data_pass_the_audit_and_split_officially(self, tmp_path: Path) -> None:
        audit = audit_manifest(
            read_source(write_kaggle(tmp_path, [*self.crossing(), Lesion(6), Lesion(7, "MALIGNANT")]))
        )
        assert not audit.blocking
        assignment = official_split(audit.manifest, fractions=(0.5, 0.5, 0.0))
        assert assignment.protocol == "official"
        patients = assignment.manifest.frame.groupby(assignment.splits)["patient_id"].unique()
        assert not set(patients["test"]) & (set(patients["train"]) | set(patients["validation"]))

    def test_a_patient_in_the_same_part_of_both_tables_is_left_alone(self, tmp_path: Path) -> None:
        manifest = read_source(write_kaggle(tmp_path, [Lesion(1), Lesion(1, table="calc", side="RIGHT"), LESIONS[3]]))
        assert "patient_on_both_sides" not in kinds(manifest)
        assert len(manifest) == 3


class TestTables:
    def test_tables_are_known_by_their_names_wherever_they_lie(self) -> None:
        names = ["a/b/Calc_Case_Description_Train_Set.csv", "mass_case_description_test_set (1).csv", "description.csv"]
        assert find_tables(names) == {names[0]: ("calc", "train"), names[1]: ("mass", "test")}

    @pytest.mark.parametrize(
        ("change", "to"),
        [("left or right breast", "left_or_right_breast"), ("image view", "Image View "), ("patient_id", "patient id")],
    )
    def test_columns_may_be_written_otherwise(self, change: str, to: str, tmp_path: Path) -> None:
        write_kaggle(tmp_path)
        for table in (tmp_path / "csv").glob("*_set.csv"):
            table.write_text(table.read_text(encoding="utf-8").replace(change, to, 1), encoding="utf-8")
        assert len(read_source(tmp_path)) == 5

    def test_a_table_that_is_there_twice_changes_nothing(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path)
        table = tmp_path / "csv" / "mass_case_description_train_set.csv"
        shutil.copy(table, tmp_path / "mass_case_description_train_set (1).csv")
        assert facts(read_source(tmp_path, options=CROP)) == facts(read_source(tmp_path))

    def test_a_missing_column_is_named(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path)
        table = tmp_path / "csv" / "calc_case_description_test_set.csv"
        table.write_text(table.read_text(encoding="utf-8").replace("pathology", "result"), encoding="utf-8")
        with pytest.raises(DataError, match=r"calc_case_description_test_set\.csv: the column 'pathology' is missing"):
            read_source(tmp_path)

    @each_layout
    def test_a_partial_download_is_counted_and_used(self, write: Write, tmp_path: Path) -> None:
        gone = {lesion.uid("full") for lesion in LESIONS[:2]}
        manifest = read_source(write(tmp_path, without=gone))
        found = finding(manifest, "missing")
        assert (found.severity, found.count, len(manifest)) == ("warning", 2, 3)
        assert "2 of the 5 mammograms" in found.message

    def test_no_image_at_all_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path)
        shutil.rmtree(tmp_path / "jpeg")
        with pytest.raises(DataError, match="5 of the 5 mammograms in the tables are not there"):
            read_source(tmp_path)

    def test_the_order_of_the_lines_does_not_matter(self, tmp_path: Path) -> None:
        lesions = [*LESIONS, Lesion(1, "BENIGN", number=2), Lesion(3, "MALIGNANT", "calc")]
        shuffled = random.Random(1).sample(lesions, len(lesions))
        first = read_source(write_kaggle(tmp_path / "a", lesions))
        second = read_source(write_kaggle(tmp_path / "b", shuffled))
        pd.testing.assert_frame_equal(
            first.frame.assign(path=first.relative_paths()), second.frame.assign(path=second.relative_paths())
        )

    def test_other_options_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--frame"):
            read_source(write_kaggle(tmp_path), options=SourceOptions(frame=1))


def test_headers_are_read_only_where_folders_do_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path, names: Sequence[str]) -> None:
        raise AssertionError(f"headers of {len(names)} files were read")

    write_tcia(tmp_path)
    monkeypatch.setattr("clearmargin.data.sources.cbis_ddsm.files.read_headers", refuse)
    readers: list[Callable[[], Manifest]] = [
        lambda: read_source(tmp_path),
        lambda: read_source(tmp_path, options=CROP),
    ]
    assert [len(read_manifest()) for read_manifest in readers] == [5, 5]
