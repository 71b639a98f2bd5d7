"""Folders of DICOM files: what is an image, who is on it, and what its label is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.layouts import zip_folder
from tests.data.sources.dicom_files import (
    CT,
    DIRECTORY,
    FOR_PROCESSING,
    LABELS,
    SECRETS,
    SHOTS,
    TOMOSYNTHESIS,
    Shot,
    put,
    report,
    ultrasound,
    write_class_folders,
    write_exam_folders,
)

from clearmargin.data.audit import audit_manifest
from clearmargin.data.manifest import Manifest, exclude_paths
from clearmargin.data.sources import read_source
from clearmargin.data.sources.options import SourceOptions
from clearmargin.errors import DataError
from clearmargin.images.read import read_image
from clearmargin.types import Finding


def finding(manifest: Manifest, kind: str) -> Finding:
    return next(entry for entry in manifest.findings if entry.kind == kind)


def kinds(manifest: Manifest) -> set[str]:
    return {entry.kind for entry in manifest.findings}


def labels_by_name(manifest: Manifest) -> dict[str, int]:
    return dict(zip(manifest.relative_paths(), manifest.labels().tolist(), strict=True))


def column(manifest: Manifest, name: str) -> list[object]:
    values = manifest.frame[name].astype(object)
    return values.where(manifest.frame[name].notna(), None).tolist()


class TestFiles:
    def test_what_is_dicom_is_told_by_the_content(self, tmp_path: Path) -> None:
        manifest = read_source(write_exam_folders(tmp_path))
        assert (manifest.source, manifest.content) == ("dicom", "mammogram")
        assert labels_by_name(manifest) == {
            "DICOM/A/IM000001": 1,
            "DICOM/A/IM000002": 1,
            "DICOM/B/1.2.3.2.1.3": 0,
            "DICOM/C/picture.ima": 0,
        }
        assert manifest.files_found == 8
        for path in manifest.frame["path"]:
            assert read_image(path).shape == (40, 32, 1)

    def test_a_dicom_file_may_have_the_name_of_another_kind(self, tmp_path: Path) -> None:
        put(
            tmp_path, {"malignant/a.png": SHOTS[0].data(), "benign/b.dcm": SHOTS[1].data(), "benign/c": SHOTS[2].data()}
        )
        assert labels_by_name(read_source(tmp_path)) == {"benign/b.dcm": 0, "benign/c": 0, "malignant/a.png": 1}

    def test_patient_breast_view_and_scanner_are_those_of_the_header(self, tmp_path: Path) -> None:
        manifest = read_source(write_exam_folders(tmp_path))
        columns = ["patient_id", "slide_id", "side", "view", "site"]
        assert manifest.frame[columns].to_numpy().tolist() == [
            ["P-1", "P-1_LEFT", "left", "CC", "ACME Lens 3"],
            ["P-1", "P-1_LEFT", "left", "MLO", "ACME Lens 3"],
            ["P-2", "P-2_RIGHT", "right", "CC", "ACME Lens 3"],
            ["P-3", "P-3_LEFT", "left", "MLO", "ACME Lens 3"],
        ]

    def test_a_missing_patient_stays_missing(self, tmp_path: Path) -> None:
        put(tmp_path, {"benign/a": Shot(1, None).data(), "malignant/b": Shot(2, "", side=None, view=None).data()})
        manifest = read_source(tmp_path)
        for name in ("patient_id", "slide_id"):
            assert column(manifest, name) == [None, None]
        assert column(manifest, "side") == ["left", None]

    def test_nothing_else_of_the_header_gets_anywhere(self, tmp_path: Path) -> None:
        manifest = read_source(write_exam_folders(tmp_path))
        said = repr([column(manifest, name) for name in manifest.frame]) + repr(manifest.findings)
        for secret in (*SECRETS.values(), "SECRET"):
            assert secret not in said

    def test_a_large_header_is_read_to_its_end(self, tmp_path: Path) -> None:
        preview = b"\0" * 200_000
        put(tmp_path, {"malignant/a.dcm": SHOTS[0].data(ICCProfile=preview), "benign/b.dcm": SHOTS[2].data()})
        manifest = read_source(tmp_path)
        assert column(manifest, "patient_id") == ["P-2", "P-1"]
        assert column(manifest, "view") == ["CC", "CC"]

    def test_pixels_are_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_exam_folders(tmp_path)
        big = put(tmp_path, {"DICOM/A/IM000001": SHOTS[0].data() + bytes(300_000)}) / "DICOM/A/IM000001"
        asked: list[int | None] = []
        from clearmargin.images import read

        def watched(path: Path, *args: object, at_most: int | None = None) -> bytes:
            if path == big:
                asked.append(at_most)
            return read.read_bytes(path, at_most=at_most)

        monkeypatch.setattr("clearmargin.data.sources.dicom.headers.read_bytes", watched)
        assert len(read_source(tmp_path)) == 4
        assert None not in asked
        assert max(filter(None, asked)) < 100_000

    def test_other_dicom_files_are_left_out_by_reason(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path)
        put(
            tmp_path,
            {
                "benign/ct": Shot(7).data(Modality="CT", SOPClassUID=CT),
                "benign/ct2": Shot(8).data(Modality="CT", SOPClassUID=CT),
                "benign/sr": report(1),
                "benign/name": Shot(6).data(Modality="JANE DOE"),
                "DICOMDIR": Shot(9).data(SOPClassUID=DIRECTORY),
            },
        )
        manifest = read_source(tmp_path)
        assert len(manifest) == 4
        found = finding(manifest, "other_modality")
        assert found.count == 5
        for reason in ("CT (2)", "SR (1)", "DICOMDIR (1)", "no modality (1)"):
            assert reason in found.message
        assert "JANE" not in found.message

    def test_files_that_are_not_dicom_are_reported(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "benign" / "x.png")
        put(tmp_path, {"notes.txt": "x"})
        manifest = read_source(tmp_path)
        assert (finding(manifest, "not_dicom").severity, finding(manifest, "not_dicom").count) == ("warning", 1)
        assert finding(manifest, "other_file").count == 1

    def test_a_damaged_file_with_a_label_is_left_for_the_audit_to_find(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path)
        put(tmp_path, {"benign/cut.dcm": SHOTS[0].data()[:400], "benign/none.dcm": "not DICOM", "cut.dcm": b"\0" * 90})
        manifest = read_source(tmp_path)
        assert {"benign/cut.dcm", "benign/none.dcm"} < set(manifest.relative_paths())
        assert finding(manifest, "unreadable_header").paths == (str(tmp_path / "cut.dcm"),)
        quarantine = {Path(file.path).name for file in audit_manifest(manifest).quarantine}
        assert quarantine == {"cut.dcm", "none.dcm"}

    def test_a_zip_file_of_one_folder_gives_the_same_rows(self, tmp_path: Path) -> None:
        plain = read_source(write_exam_folders(tmp_path / "a" / "set"))
        packed = read_source(zip_folder(tmp_path / "a", tmp_path / "set.zip"))
        assert packed.relative_paths() == [f"set/{name}" for name in plain.relative_paths()]
        for name in ("label", "patient_id", "slide_id", "side", "view", "site"):
            assert column(packed, name) == column(plain, name)
        np.testing.assert_array_equal(read_image(packed.frame["path"][0]), read_image(plain.frame["path"][0]))


class TestContent:
    def test_ultrasound_has_no_breast_to_be_a_slide(self, tmp_path: Path) -> None:
        manifest = read_source(put(tmp_path, {"benign/a": ultrasound(1), "malignant/b": ultrasound(2)}))
        assert manifest.content == "ultrasound"
        assert column(manifest, "patient_id") == ["P-9", "P-9"]
        assert column(manifest, "slide_id") == [None, None]

    def test_both_kinds_together_are_neither(self, tmp_path: Path) -> None:
        manifest = read_source(put(write_class_folders(tmp_path), {"benign/us": ultrasound(1)}))
        assert manifest.content is None

    def test_several_frames_wait_for_a_choice(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path)
        put(
            tmp_path,
            {
                "benign/us": ultrasound(1, frames=3),
                "malignant/us": ultrasound(2, frames=2),
                "malignant/dbt": Shot(8).data(frames=2, SOPClassUID=TOMOSYNTHESIS),
            },
        )
        plain = read_source(tmp_path)
        found = finding(plain, "multi_frame")
        assert (found.count, len(plain)) == (3, 4)
        assert "1 of tomosynthesis" in found.message
        assert "--frame N" in found.fix
        chosen = read_source(tmp_path, options=SourceOptions(frame=3))
        assert finding(chosen, "multi_frame").count == 2
        assert "benign/us#frame=3" in chosen.relative_paths()
        assert "benign/3.dcm" in chosen.relative_paths()  # a single image needs no frame
        for path in chosen.frame["path"]:
            assert read_image(path).shape == (40, 32, 1)

    @pytest.mark.parametrize("how", [{"PresentationIntentType": "FOR PROCESSING"}, {"SOPClassUID": FOR_PROCESSING}])
    def test_raw_values_among_images_for_reading_are_a_warning(self, how: dict[str, str], tmp_path: Path) -> None:
        put(write_class_folders(tmp_path), {"malignant/raw": Shot(9, "P-9").data(**how)})
        found = finding(read_source(tmp_path), "for_processing")
        assert (found.severity, found.paths) == ("warning", (str(tmp_path / "malignant" / "raw"),))

    def test_images_for_reading_only_are_no_finding(self, tmp_path: Path) -> None:
        put(tmp_path, {"a/benign/1": SHOTS[0].data(PresentationIntentType="FOR PRESENTATION")})
        assert "for_processing" not in kinds(read_source(write_class_folders(tmp_path)))


class TestLabels:
    def put_shots(self, root: Path, table: str | None = None) -> Path:
        files: dict[str, bytes | str] = {f"{shot.patient}/{shot.number}.dcm": shot.data() for shot in SHOTS}
        return put(root, files if table is None else files | {"table.csv": table})

    def labels(self, manifest: Manifest) -> dict[int, int]:
        return {int(Path(name).stem): label for name, label in labels_by_name(manifest).items()}

    @pytest.mark.parametrize(
        "table",
        [
            LABELS,
            LABELS.replace("SOPInstanceUID,label", "sop_instance_uid;Label").replace(",", ";"),
            "Series Instance UID,label\n1.2.3.1.1,1\n1.2.3.1.2,1\n1.2.3.2.1,0\n1.2.3.3.1,0\n",
            "STUDYINSTANCEUID,pathology\n1.2.3.1,MALIGNANT\n1.2.3.2,BENIGN_WITHOUT_CALLBACK\n1.2.3.3,benign\n",
            "path,label\nP-1/1.dcm,malignant\nP-1\\2.dcm,Malignant\nP-2/3.dcm,Benign\n./P-3/4.dcm,0.0\n",
            "path,label\n1.dcm,1\n2.dcm,1\n3.dcm,0\n4.dcm,0\n",
        ],
        ids=["sop", "sop semicolons", "series", "study", "path", "file name"],
    )
    def test_a_table_names_images_in_many_ways(self, table: str, tmp_path: Path) -> None:
        manifest = read_source(self.put_shots(tmp_path, table))
        assert self.labels(manifest) == {1: 1, 2: 1, 3: 0, 4: 0}
        assert kinds(manifest) == set()

    def test_a_table_elsewhere_is_given_as_an_option(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = self.put_shots(tmp_path / "images", "path,label\n1.dcm,0\n")
        put(tmp_path, {"labels.csv": LABELS})
        monkeypatch.chdir(tmp_path)
        manifest = read_source(root, options=SourceOptions(labels=Path("labels.csv")))
        assert self.labels(manifest) == {1: 1, 2: 1, 3: 0, 4: 0}

    def test_a_table_outweighs_folders(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path)
        put(tmp_path, {"labels.csv": "path,label\nmalignant/1.dcm,0\nbenign/3.dcm,1\n"})
        manifest = read_source(tmp_path)
        assert labels_by_name(manifest) == {"benign/3.dcm": 1, "malignant/1.dcm": 0}
        assert finding(manifest, "unlabelled").count == 2

    def test_the_most_particular_line_counts(self, tmp_path: Path) -> None:
        table = "StudyInstanceUID,SeriesInstanceUID,SOPInstanceUID,path,label\n"
        table += (
            "1.2.3.1,,,,1\n1.2.3.1,1.2.3.1.2,,,0\n1.2.3.2,,,,1\n,,,P-2/3.dcm,0\n1.2.3.3,,1.2.3.3.1.4,,1\n1.2.3.3,,,,0\n"
        )
        manifest = read_source(self.put_shots(tmp_path, table))
        assert self.labels(manifest) == {1: 1, 2: 0, 3: 0, 4: 1}
        assert "label_conflict" not in kinds(manifest)

    def test_a_line_of_an_image_says_nothing_of_its_study(self, tmp_path: Path) -> None:
        manifest = read_source(
            self.put_shots(tmp_path, "StudyInstanceUID,SOPInstanceUID,label\n1.2.3.1,1.2.3.1.1.1,1\n")
        )
        assert self.labels(manifest) == {1: 1}
        assert finding(manifest, "unlabelled").count == 3

    @pytest.mark.parametrize("second", ["1.2.3.1.1.1,,0", ",P-1/1.dcm,0"])
    def test_two_labels_of_one_image_block_until_it_is_left_out(self, second: str, tmp_path: Path) -> None:
        table = f"SOPInstanceUID,path,label\n1.2.3.1.1.1,,1\n{second}\n1.2.3.2.1.3,,0\n1.2.3.1.2.2,,1\n"
        manifest = read_source(self.put_shots(tmp_path / "set", table))
        found = finding(manifest, "label_conflict")
        bad = str(tmp_path / "set" / "P-1" / "1.dcm")
        assert (found.severity, found.paths) == ("blocking", (bad,))
        (tmp_path / "out.txt").write_text(bad + "\n", encoding="utf-8")
        kept = exclude_paths(manifest, tmp_path / "out.txt")
        assert "label_conflict" not in kinds(kept)
        assert self.labels(kept) == {2: 1, 3: 0}

    def test_an_exclusion_of_another_image_leaves_the_conflict(self, tmp_path: Path) -> None:
        manifest = read_source(self.put_shots(tmp_path / "set", "path,label\n1.dcm,1\n1.dcm,0\n2.dcm,1\n"))
        (tmp_path / "out.txt").write_text("P-1/2.dcm\n", encoding="utf-8")
        assert "label_conflict" in kinds(exclude_paths(manifest, tmp_path / "out.txt"))

    def test_lines_and_images_without_each_other_are_counted(self, tmp_path: Path) -> None:
        table = "path,label\n1.dcm,1\n3.dcm,0\nelsewhere/3.dcm,1\n7.dcm,1\n"
        manifest = read_source(self.put_shots(tmp_path, table))
        unmatched = finding(manifest, "unmatched_rows")
        assert (unmatched.severity, unmatched.count) == ("warning", 2)
        assert "lines 4, 5" in unmatched.message
        assert finding(manifest, "unlabelled").count == 2

    def test_a_file_name_that_two_files_have_means_neither(self, tmp_path: Path) -> None:
        put(tmp_path, {"a/1": SHOTS[0].data(), "b/1": SHOTS[1].data(), "labels.csv": "path,label\n1,1\na/1,0\n"})
        manifest = read_source(tmp_path)
        assert labels_by_name(manifest) == {"a/1": 0}
        assert "line 2" in finding(manifest, "unmatched_rows").message

    def test_a_table_may_name_patients_and_parts(self, tmp_path: Path) -> None:
        table = "path,label,Patient ID,official_split\n1.dcm,1,X1,train\n2.dcm,1,,valid\n3.dcm,0,X3,test\n"
        manifest = read_source(self.put_shots(tmp_path, table))
        assert column(manifest, "patient_id") == ["X1", "P-1", "X3"]
        assert column(manifest, "slide_id") == ["X1_LEFT", "P-1_LEFT", "X3_RIGHT"]
        assert column(manifest, "official_split") == ["train", "validation", "test"]

    def test_two_patients_for_one_image_are_an_error_that_names_the_lines(self, tmp_path: Path) -> None:
        self.put_shots(tmp_path, "path,label,patient_id\n1.dcm,1,A\n1.dcm,1,B\n")
        with pytest.raises(DataError, match="lines 2 and 3 give one image two patients"):
            read_source(tmp_path)

    def test_a_malignant_study_of_both_breasts_is_a_warning(self, tmp_path: Path) -> None:
        files: dict[str, bytes | str] = {
            f"{n}": Shot(n, f"P-{study}", study, side=side).data()
            for n, (study, side) in enumerate([(1, "L"), (1, "R"), (2, "L"), (2, "R"), (3, "L")])
        }
        put(tmp_path, files | {"labels.csv": "StudyInstanceUID,label\n1.2.3.1,1\n1.2.3.2,0\n1.2.3.3,1\n"})
        found = finding(read_source(tmp_path), "study_label")
        assert (found.severity, {Path(path).name for path in found.paths}) == ("warning", {"0", "1"})

    def test_normal_images_are_benign_only_when_asked_for(self, tmp_path: Path) -> None:
        self.put_shots(tmp_path, "path,label\n1.dcm,1\n2.dcm,normal\n3.dcm,0\n")
        assert self.labels(read_source(tmp_path)) == {1: 1, 3: 0}
        assert finding(read_source(tmp_path), "normal_left_out").count == 1
        benign = read_source(tmp_path, options=SourceOptions(normal="benign"))
        assert self.labels(benign) == {1: 1, 2: 0, 3: 0}

    def test_folders_give_class_and_part(self, tmp_path: Path) -> None:
        put(tmp_path, {"train/Benign/a": SHOTS[0].data(), "test/malignant/x/b": SHOTS[1].data(), "c": SHOTS[2].data()})
        manifest = read_source(tmp_path)
        assert labels_by_name(manifest) == {"test/malignant/x/b": 1, "train/Benign/a": 0}
        assert column(manifest, "official_split") == ["test", "train"]
        assert finding(manifest, "unlabelled").count == 1


class TestMessages:
    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ("path,label\n1.dcm,perhaps\n", r"table\.csv: line 2 has the value 'perhaps'; write 0, 1, benign"),
            ("path,label\n,1\n", r"table\.csv: line 2 names no image"),
            ("path,label,official_split\n1.dcm,1,later\n", r"line 2 has the value 'later'; write train"),
        ],
    )
    def test_a_bad_line_is_named(self, table: str, said: str, tmp_path: Path) -> None:
        put(tmp_path, {"1.dcm": SHOTS[0].data(), "table.csv": table})
        with pytest.raises(DataError, match=said):
            read_source(tmp_path)

    def test_two_tables_need_a_choice(self, tmp_path: Path) -> None:
        put(tmp_path, {"1.dcm": SHOTS[0].data(), "a.csv": "path,label\n1.dcm,1\n", "b.csv": "path,label\n1.dcm,0\n"})
        with pytest.raises(DataError, match=r"'a\.csv' and 'b\.csv' both hold labels.*--labels FILE"):
            read_source(tmp_path)
        assert read_source(tmp_path, options=SourceOptions(labels=tmp_path / "b.csv")).labels().tolist() == [0]

    def test_other_tables_are_passed_over(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path)
        put(
            tmp_path,
            {"scanners.csv": "name,place\nACME,1\n", "empty.csv": "", "benign/labels.csv": "path,label\nx,1\n"},
        )
        assert len(read_source(tmp_path)) == 4

    def test_no_label_at_all_says_how_to_give_them(self, tmp_path: Path) -> None:
        put(tmp_path, {"a": SHOTS[0].data(), "b": SHOTS[1].data()})
        with pytest.raises(DataError, match=r"2 images without a label are left out\. Give a CSV with --labels FILE"):
            read_source(tmp_path)

    def test_a_table_without_the_columns_lists_what_it_has(self, tmp_path: Path) -> None:
        put(tmp_path, {"set/a": SHOTS[0].data(), "labels.csv": "name,label\na,1\n"})
        with pytest.raises(DataError, match="found the columns name, label"):
            read_source(tmp_path / "set", options=SourceOptions(labels=tmp_path / "labels.csv"))


class TestRecognition:
    def test_class_folders_of_dicom_are_read_here(self, tmp_path: Path) -> None:
        assert read_source(write_class_folders(tmp_path)).source == "dicom"

    def test_a_stray_dicom_file_among_pictures_changes_nothing(self, tmp_path: Path) -> None:
        put(tmp_path, {"benign/x.dcm": SHOTS[0].data()})
        for name in ("benign/a.png", "malignant/b.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
        assert read_source(tmp_path).source == "folder"


@pytest.mark.real
def test_real_files_of_four_scanners(real_data: Path, tmp_path: Path) -> None:
    for name, folder in (
        ("MG_Explicit_Little", "malignant"),
        ("US_Explicit_Big_RGB", "benign"),
        ("CT_JPEG70", "benign"),
        ("OT_Implicit_Little_Headless", "benign"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(real_data / "dicom" / f"{name}.dcm", tmp_path / folder / name)
    manifest = read_source(tmp_path)
    assert labels_by_name(manifest) == {"benign/US_Explicit_Big_RGB": 0, "malignant/MG_Explicit_Little": 1}
    assert column(manifest, "patient_id") == [None, "62354PQGRRST"]
    assert column(manifest, "site")[0] == "G.E. Medical Systems LOGIQ 700"
    assert column(manifest, "slide_id") == [None, "62354PQGRRST_RIGHT"]
    assert "CT (1), OT (1)" in finding(manifest, "other_modality").message
