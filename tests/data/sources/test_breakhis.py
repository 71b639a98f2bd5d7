"""BreaKHis: what names say, which slides are one patient's, and what is said of contradictions."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.layouts import BREAKHIS_SLIDES, save, write_breakhis

from clearmargin.data.audit import audit_manifest
from clearmargin.data.manifest import Manifest
from clearmargin.data.phantom import draw_patch
from clearmargin.data.sources import read_source
from clearmargin.data.sources.options import SourceOptions
from clearmargin.errors import DataError, UsageError
from clearmargin.images.names import BreakhisName, label_of_name, parse_breakhis_name
from clearmargin.images.read import read_image
from clearmargin.types import Finding


def finding(manifest: Manifest, kind: str) -> Finding:
    return next(entry for entry in manifest.findings if entry.kind == kind)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("SOB_B_A-14-22549AB-100-027.png", (0, "A", "14-22549", "14-22549AB", 100)),
        ("SOB_B_A-14-22549CD-40-026.png", (0, "A", "14-22549", "14-22549CD", 40)),
        ("SOB_B_F-14-14134E-400-001.png", (0, "F", "14-14134", "14-14134E", 400)),
        ("SOB_B_F-14-14134-400-001.png", (0, "F", "14-14134", "14-14134", 400)),
        ("SOB_M_MC-14-18842D-200-016.PNG", (1, "MC", "14-18842", "14-18842D", 200)),
        ("sob_m_pc-15-190ef-40-019.png", (1, "PC", "15-190", "15-190EF", 40)),
        ("SOB_M_DC-14-3909-100-014.jpg", (1, "DC", "14-3909", "14-3909", 100)),
    ],
)
def test_the_name_gives_class_type_patient_slide_and_magnification(
    name: str, facts: tuple[int, str, str, str, int]
) -> None:
    assert parse_breakhis_name(name) == BreakhisName(*facts)
    assert label_of_name(name) == facts[0]


@pytest.mark.parametrize(
    "name",
    [
        "SOB_X_A-14-22549AB-100-027.png",
        "SOB_B_A-14-22549AB-100.png",
        "SOB_B_A-14-22549G-100-030-550-150.png",  # a patch that somebody cut
        "SOB_B_A-14--100-027.png",
        "SOB_B_A-14-٣٣-100-027.png",
        "a_SOB_B_A-14-22549AB-100-027.png",
    ],
)
def test_another_name_says_nothing(name: str) -> None:
    assert parse_breakhis_name(name) is None


def test_slides_with_letters_are_one_patient(tmp_path: Path) -> None:
    frame = read_source(write_breakhis(tmp_path)).frame
    patients = frame.groupby("patient_id")["slide_id"].unique().map(sorted).to_dict()
    assert patients == {
        "14-22549": ["14-22549AB", "14-22549CD"],
        "14-14134": ["14-14134", "14-14134E"],
        "14-13412": ["14-13412"],
        "14-18842": ["14-18842D"],
        "15-190": ["15-190EF"],
    }
    assert len(frame) == 2 * len(BREAKHIS_SLIDES)
    assert frame["official_split"].isna().all()


class TestMagnification:
    def test_all_are_taken_and_a_note_says_what_that_means(self, tmp_path: Path) -> None:
        manifest = read_source(write_breakhis(tmp_path))
        note = finding(manifest, "several_magnifications")
        assert note.severity == "note"
        assert "40 (8), 400 (8)" in note.message
        assert "same field" in note.message

    def test_is_a_column_of_the_manifest(self, tmp_path: Path) -> None:
        frame = read_source(write_breakhis(tmp_path)).frame
        assert set(frame["magnification"]) == {"40", "400"}
        for path, value in zip(frame["path"], frame["magnification"], strict=True):
            assert f"-{value}-" in path

    def test_those_asked_for_are_kept_and_the_rest_is_counted(self, tmp_path: Path) -> None:
        manifest = read_source(write_breakhis(tmp_path), options=SourceOptions(magnification=(40,)))
        assert len(manifest) == 8
        assert all("-40-" in path for path in manifest.frame["path"])
        assert finding(manifest, "magnification_left_out").count == 8
        assert "several_magnifications" not in {entry.kind for entry in manifest.findings}
        both = read_source(tmp_path, options=SourceOptions(magnification=(400, 40)))
        assert len(both) == 16

    def test_one_that_is_not_there_is_an_error_that_lists_those_that_are(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"magnification 20\. There are 40 \(8 images\), 400 \(8 images\)"):
            read_source(write_breakhis(tmp_path), options=SourceOptions(magnification=(20, 40)))

    def test_other_sources_do_not_take_it(self, tmp_path: Path) -> None:
        save(tmp_path / "benign" / "a.png", draw_patch(0, 1, 20))
        with pytest.raises(UsageError, match=r"--magnification is for data of the source breakhis"):
            read_source(tmp_path, options=SourceOptions(magnification=(40,)))


class TestContradictions:
    def test_the_patient_under_two_types_is_reported(self, tmp_path: Path) -> None:
        found = finding(read_source(write_breakhis(tmp_path)), "patient_in_two_types")
        assert found.count == 1
        assert "14-13412 (DC and LC)" in found.message
        assert len(found.paths) == 4

    def test_one_type_a_slide_is_no_contradiction(self, tmp_path: Path) -> None:
        for name in ("SOB_B_A-14-29960CD-40-001.png", "SOB_B_F-14-29960AB-40-001.png"):  # two slides of one patient
            save(tmp_path / name, draw_patch(0, len(name), 20))
        manifest = read_source(tmp_path)
        assert "patient_in_two_types" not in {entry.kind for entry in manifest.findings}

    def test_a_patient_under_both_classes_can_be_seen(self, tmp_path: Path) -> None:
        save(tmp_path / "SOB_B_A-14-1AB-40-001.png", draw_patch(0, 1, 20))
        save(tmp_path / "SOB_M_DC-14-1C-40-001.png", draw_patch(1, 2, 20))
        assert read_source(tmp_path).frame.groupby("patient_id")["label"].nunique().to_dict() == {"14-1": 2}

    def test_a_name_against_its_folder_blocks(self, tmp_path: Path) -> None:
        write_breakhis(tmp_path)
        wrong = save(tmp_path / "BreaKHis_v1" / "Benign" / "1" / "SOB_M_DC-14-9-40-001.png", draw_patch(1, 1, 20))
        audit = audit_manifest(read_source(tmp_path))
        conflict = next(entry for entry in audit.findings if entry.kind == "label_conflict")
        assert conflict.severity == "blocking"
        assert conflict.paths == (str(wrong),)
        assert "lies under benign and is named malignant" in conflict.message

    def test_a_folder_that_is_a_number_is_a_fold_and_no_class(self, tmp_path: Path) -> None:
        save(tmp_path / "1" / "SOB_B_A-14-1AB-40-001.png", draw_patch(0, 1, 20))
        save(tmp_path / "0" / "SOB_M_DC-14-2-40-001.png", draw_patch(1, 2, 20))
        manifest = read_source(tmp_path)
        assert manifest.source == "breakhis"
        assert sorted(manifest.labels().tolist()) == [0, 1]
        assert "label_conflict" not in {entry.kind for entry in audit_manifest(manifest).findings}


def test_files_with_other_names_are_left_out_and_reported(tmp_path: Path) -> None:
    write_breakhis(tmp_path)
    save(tmp_path / "BreaKHis_v1" / "figure.png", draw_patch(0, 1, 20))
    manifest = read_source(tmp_path)
    assert len(manifest) == 16
    assert finding(manifest, "unlabelled").count == 1
    assert finding(manifest, "other_file").paths == (str(tmp_path / "BreaKHis_v1" / "README.txt"),)
    assert manifest.files_found == 18


def test_folders_of_a_split_bring_it_along(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        name = f"SOB_B_A-14-{number}-400-001.png"
        save(tmp_path / "BreaKHis 400X" / split / "benign" / name, draw_patch(0, number, 20))
    assert sorted(read_source(tmp_path).frame["official_split"]) == ["test", "train", "validation"]


@pytest.mark.real
def test_real_images_are_read(real_data: Path) -> None:
    manifest = read_source(real_data / "breakhis")
    assert (manifest.source, manifest.content, len(manifest)) == ("breakhis", "histology", 10)
    by_name = manifest.frame.set_index(manifest.frame["path"].map(lambda path: Path(path).name))
    for name, (label, patient, slide) in {
        "SOB_B_A-14-22549AB-100-027.png": (0, "14-22549", "14-22549AB"),
        "SOB_B_A-14-22549CD-40-026.png": (0, "14-22549", "14-22549CD"),
        "SOB_M_LC-14-13412-200-003.png": (1, "14-13412", "14-13412"),
        "SOB_M_MC-14-18842D-200-016.png": (1, "14-18842", "14-18842D"),
    }.items():
        row = by_name.loc[name]
        assert (row["label"], row["patient_id"], row["slide_id"]) == (label, patient, slide)
    assert {read_image(path).shape for path in manifest.frame["path"]} == {(460, 700, 3)}
    assert len(read_source(real_data / "breakhis", options=SourceOptions(magnification=(40,)))) == 4
