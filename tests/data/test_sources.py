"""From whatever lies on disk to a manifest: what is recognised, what is read, and what is said of the rest."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clearmargin.data.audit import Audit, audit_manifest
from clearmargin.data.manifest import Manifest, data_hash, exclude_paths, write_manifest
from clearmargin.data.sources import SOURCES, read_source
from clearmargin.data.sources.csv import read_table
from clearmargin.data.split import split_manifest
from clearmargin.data.walk import walk_files
from clearmargin.errors import DataError, UnknownName, UsageError
from clearmargin.types import MANIFEST_COLUMNS, Finding

Build = Callable[..., Path]


def put_image(file: Path, *, seed: int | None = None, px: int = 8) -> Path:
    """A small image that differs from every other, by its path or by the seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(zlib.crc32(os.fsencode(file)) if seed is None else seed)
    Image.fromarray(generator.integers(0, 256, (px, px, 3)).astype(np.uint8)).save(file)
    return file


def put_images(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        put_image(root / name)
    return root


def put_csv(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def labels_by_name(manifest: Manifest) -> dict[str, int]:
    return dict(zip(manifest.relative_paths(), manifest.labels().tolist(), strict=True))


def splits_by_name(manifest: Manifest) -> dict[str, object]:
    splits = manifest.frame["official_split"]
    return dict(zip(manifest.relative_paths(), splits.astype(object).where(splits.notna(), None), strict=True))


def finding(found: Manifest | Audit, kind: str) -> Finding:
    return next(entry for entry in found.findings if entry.kind == kind)


class TestRecognition:
    def test_idc_at_any_level(self, make_folder: Build, tmp_path: Path) -> None:
        plain = make_folder(patients=2, per_class=2)
        deep = tmp_path / "archive" / "IDC_regular_ps50_idx5"
        shutil.copytree(plain, deep)
        shutil.copytree(plain, deep / "IDC_regular_ps50_idx5")  # as some archives have it: the same folder twice
        for root, level in ((plain, "data"), (deep.parent, "archive"), (deep, "archive/IDC…")):
            manifest = read_source(root)
            assert manifest.source == "idc", level
            assert set(manifest.frame["patient_id"]) == {"P00", "P01"}
            assert manifest.frame["slide_id"].equals(manifest.frame["patient_id"])

    def test_idc_names_give_patient_place_and_label(self, tmp_path: Path) -> None:
        put_images(tmp_path, ["8863/1/8863_idx5_x451_y1451_class1.png", "9_a b/0/9_a b_idx5_x1_y51_class0.PNG"])
        frame = read_source(tmp_path).frame
        assert frame[["patient_id", "slide_id", "x", "y", "label"]].to_numpy().tolist() == [
            ["8863", "8863", 451, 1451, 1],
            ["9_a b", "9_a b", 1, 51, 0],
        ]

    @pytest.mark.parametrize("folders", [("train", "valid", "test"), ("Training", "val", "Testing")])
    def test_idc_below_split_folders_brings_an_official_split(self, tmp_path: Path, folders: tuple[str, ...]) -> None:
        for number, folder in enumerate(folders):
            put_images(tmp_path, [f"{folder}/P{number}/{c}/P{number}_idx5_x1_y{c}_class{c}.png" for c in (0, 1)])
        manifest = read_source(tmp_path)
        assert manifest.source == "idc"
        assert dict(zip(manifest.frame["patient_id"], manifest.frame["official_split"], strict=True)) == {
            "P0": "train",
            "P1": "validation",
            "P2": "test",
        }

    @pytest.mark.parametrize(
        ("benign", "malignant"), [("benign", "malignant"), ("Benign", "MALIGNANT"), ("0", "1"), ("benign", "1")]
    )
    def test_class_folders_in_any_case_or_as_digits(self, tmp_path: Path, benign: str, malignant: str) -> None:
        put_images(tmp_path, [f"{benign}/a.png", f"{malignant}/b.JPG", f"{malignant}/more/c.tif"])
        manifest = read_source(tmp_path)
        assert manifest.source == "folder"
        assert labels_by_name(manifest) == {f"{benign}/a.png": 0, f"{malignant}/b.JPG": 1, f"{malignant}/more/c.tif": 1}
        assert not manifest.knows_patients
        assert not manifest.has_official_split

    @pytest.mark.parametrize(
        ("folder", "split"),
        [
            ("train", "train"),
            ("Training", "train"),
            ("val", "validation"),
            ("valid", "validation"),
            ("VALID", "validation"),
            ("validation", "validation"),
            ("test", "test"),
            ("Testing", "test"),
        ],
    )
    def test_split_folders_above_or_below_the_class_are_official(self, tmp_path: Path, folder: str, split: str) -> None:
        put_images(tmp_path, [f"{folder}/benign/a.png", f"malignant/{folder}/b.png", f"x/{folder}/y/benign/z/c.png"])
        assert set(splits_by_name(read_source(tmp_path)).values()) == {split}

    def test_valid_never_becomes_test(self, tmp_path: Path) -> None:
        put_images(tmp_path, [f"{s}/{c}/{i}.png" for s in ("train", "valid", "test") for c in ("0", "1") for i in "ab"])
        splits = splits_by_name(read_source(tmp_path))
        assert {name.split("/")[0]: split for name, split in splits.items()} == {
            "train": "train",
            "valid": "validation",
            "test": "test",
        }

    def test_some_images_outside_the_split_folders_have_no_place(self, tmp_path: Path) -> None:
        put_images(tmp_path, ["train/benign/a.png", "malignant/b.png"])
        assert splits_by_name(read_source(tmp_path)) == {"train/benign/a.png": "train", "malignant/b.png": None}

    def test_a_number_below_a_class_folder_is_a_patient_and_no_class(self, tmp_path: Path) -> None:
        put_images(tmp_path, ["benign/1/a.png", "benign/0/b.png", "malignant/0/c.png", "1/benign/d.png"])
        manifest = read_source(tmp_path)
        assert labels_by_name(manifest) == {
            "benign/1/a.png": 0,
            "benign/0/b.png": 0,
            "malignant/0/c.png": 1,
            "1/benign/d.png": 0,
        }

    def test_csv_and_parquet(self, tmp_path: Path) -> None:
        put_images(tmp_path, ["a.png", "b.png"])
        table = pd.DataFrame({"path": ["a.png", "b.png"], "label": [0, 1], "patient_id": [17, None], "x": [1.0, None]})
        table.to_parquet(tmp_path / "m.parquet")
        put_csv(tmp_path / "m.CSV", "path,label,patient_id,x\na.png,0,17,1\nb.png,1,,\n")
        for name in ("m.parquet", "m.CSV"):
            manifest = read_source(tmp_path / name)
            assert manifest.source == "csv"
            assert labels_by_name(manifest) == {"a.png": 0, "b.png": 1}
            frame = manifest.frame.astype(object)
            assert frame["patient_id"].where(frame["patient_id"].notna(), None).tolist() == ["17", None]
            assert frame["x"].where(frame["x"].notna(), None).tolist() == [1, None]

    def test_a_source_can_be_named(self, make_folder: Build) -> None:
        root = make_folder(patients=2, per_class=2)
        assert read_source(root).source == "idc"
        manifest = read_source(root, source="folder")
        assert manifest.source == "folder"
        assert not manifest.knows_patients
        assert manifest.labels().tolist() == read_source(root).labels().tolist()

    def test_an_unknown_source_lists_the_known_ones_with_the_nearest(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownName, match=r"no source 'foldr'; did you mean 'folder'\? Known: csv, .*folder\."):
            read_source(tmp_path, source="foldr")

    def test_every_source_says_what_it_looks_like(self) -> None:
        assert all(entry.summary for entry in SOURCES.values())

    @pytest.mark.parametrize("source", sorted(SOURCES))
    def test_a_source_named_for_the_wrong_thing_is_a_data_error(self, tmp_path: Path, source: str) -> None:
        file, folder = put_csv(tmp_path / "notes.txt", "hello"), tmp_path / "empty"
        folder.mkdir()
        for path in (file, folder):
            with pytest.raises(DataError, match=path.name):
                read_source(path, source=source)


class TestNothingToRead:
    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nowhere: no such file or folder\. Give the folder"):
            read_source(tmp_path / "nowhere")

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"the folder is empty\. Put images in folders named benign/ and"):
            read_source(tmp_path)

    def test_images_without_a_class(self, tmp_path: Path) -> None:
        put_images(tmp_path, ["cats/a.png", "dogs/b.png"])
        with pytest.raises(DataError, match=r"found 2 images \(folders: cats, dogs\); none lies in a folder named for"):
            read_source(tmp_path)

    def test_a_class_folder_without_images(self, tmp_path: Path) -> None:
        put_csv(tmp_path / "benign" / "notes.txt", "hello")
        with pytest.raises(DataError, match=r"found 0 images \(folders: benign\)"):
            read_source(tmp_path)

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"notes.txt: not a data set\. Give a folder of images, a \.zip file"):
            read_source(put_csv(tmp_path / "notes.txt", "hello"))

    def test_a_folder_that_may_not_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put_images(tmp_path, ["benign/a.png", "malignant/b.png", "malignant/secret/c.png"])
        scan = os.scandir

        def forbid(folder: str) -> object:
            if folder.endswith("secret"):
                raise PermissionError(13, "Permission denied", folder)
            return scan(folder)

        monkeypatch.setattr(os, "scandir", forbid)
        with pytest.raises(DataError, match=r"secret: the folder cannot be read \(Permission denied\)"):
            read_source(tmp_path)


class TestWhatIsLeftOut:
    def test_masks_beside_their_image(self, tmp_path: Path) -> None:
        images = ["benign/us 1.png", "benign/us 2.png", "malignant/us 3.png"]
        masks = ["benign/us 1_mask.png", "benign/us 1_mask_1.png", "malignant/us 3_mask.png"]
        put_images(tmp_path, [*images, *masks])
        manifest = read_source(tmp_path)
        assert manifest.relative_paths() == images
        left_out = finding(manifest, "mask")
        assert (left_out.severity, left_out.count) == ("warning", 3)
        assert set(left_out.paths) == {str(tmp_path / name) for name in masks}

    def test_a_name_like_a_mask_without_its_image_is_an_image(self, tmp_path: Path) -> None:
        put_images(tmp_path, ["benign/face_mask.png", "malignant/a.png"])
        manifest = read_source(tmp_path)
        assert manifest.relative_paths() == ["benign/face_mask.png", "malignant/a.png"]
        assert manifest.findings == ()

    def test_a_folder_of_no_class_is_said_to_be_left_out(self, tmp_path: Path) -> None:
        put_images(tmp_path, ["benign/a.png", "malignant/b.png", "normal/c.png", "normal/d.png", "loose.png"])
        manifest = read_source(tmp_path)
        assert manifest.relative_paths() == ["benign/a.png", "malignant/b.png"]
        left_out = finding(manifest, "unlabelled")
        assert (left_out.severity, left_out.count) == ("warning", 3)
        assert "normal (2), . (1)" in left_out.message

    def test_other_files_are_noted_and_counted(self, tmp_path: Path) -> None:
        put_images(tmp_path, ["benign/a.png", "malignant/b.png"])
        put_csv(tmp_path / "Info.txt", "x")
        put_csv(tmp_path / "benign" / "a.gif", "x")
        manifest = read_source(tmp_path)
        other = finding(manifest, "other_file")
        assert (other.severity, other.count, manifest.files_found) == ("note", 2, 4)
        assert other.paths == (str(tmp_path / "Info.txt"), str(tmp_path / "benign" / "a.gif"))

    @pytest.mark.parametrize(
        "hidden", [".DS_Store.png", ".git/benign/x.png", "__MACOSX/benign/a.png", "benign/._a.png"]
    )
    def test_hidden_files_and_archive_rests_are_passed_over_in_silence(self, tmp_path: Path, hidden: str) -> None:
        put_images(tmp_path, ["benign/a.png", "malignant/b.png", hidden])
        manifest = read_source(tmp_path)
        assert manifest.relative_paths() == ["benign/a.png", "malignant/b.png"]
        assert (manifest.findings, manifest.files_found) == ((), 2)

    def test_other_names_in_an_idc_folder(self, make_folder: Build) -> None:
        root = make_folder(patients=2, per_class=2)
        put_image(root / "P00" / "0" / "overview.png")
        manifest = read_source(root)
        left_out = finding(manifest, "unlabelled")
        assert (left_out.count, left_out.paths) == (1, (str(root / "P00" / "0" / "overview.png"),))
        assert "not named like an IDC patch" in left_out.message
        assert len(manifest) == 8

    def test_an_idc_name_with_an_absurd_place_is_no_idc_name(self, make_folder: Build) -> None:
        root = make_folder(patients=2, per_class=2)
        put_image(root / "P00" / "0" / f"P00_idx5_x{'9' * 30}_y1_class0.png")
        assert finding(read_source(root), "unlabelled").count == 1


class TestOrderAndLinks:
    def test_rows_are_in_a_fixed_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [f"{c}/{i}.png" for c in ("benign", "malignant") for i in (1, 10, 2, "B", "a")]
        put_images(tmp_path, names)
        first = read_source(tmp_path).frame["path"].tolist()
        scan = os.scandir

        class Reversed:
            def __init__(self, folder: str) -> None:
                self._entries = scan(folder)

            def __enter__(self) -> object:
                return iter(list(self._entries)[::-1])

            def __exit__(self, *exception: object) -> None:
                self._entries.close()

        monkeypatch.setattr(os, "scandir", Reversed)
        assert read_source(tmp_path).frame["path"].tolist() == first
        assert [path.removeprefix(f"{tmp_path}/") for path in first] == sorted(names)

    def test_links_are_followed_once_and_a_circle_ends(self, tmp_path: Path) -> None:
        put_images(tmp_path / "elsewhere", ["a.png", "b.png"])
        put_images(tmp_path / "data", ["malignant/c.png"])
        (tmp_path / "data" / "benign").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
        (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "data")
        assert list(walk_files(tmp_path / "data")) == ["benign/a.png", "benign/b.png", "malignant/c.png"]

    def test_the_root_of_the_file_system_gives_relative_paths_too(self) -> None:
        frame = pd.DataFrame({"path": ["/a/b.png"]})
        assert Manifest(frame, Path("/"), "folder").relative_paths() == ["a/b.png"]


class TestPatients:
    @pytest.mark.parametrize(
        ("pattern", "patients"),
        [
            (r"(?P<patient>P\d+)_(\d)", ["P00", "P01"]),
            (r"(\d)_(?P<patient>[ab])", ["a", "b"]),
            (r"(P\d+)_(\d)", ["P00", "P01"]),
            (r"P\d+", ["P00", "P01"]),
            (r"^(?:benign|malignant)", ["benign", "malignant"]),
        ],
        ids=["named group", "named group, not the first", "first group", "whole match", "folders too"],
    )
    def test_a_pattern_takes_the_patient_from_the_path(self, tmp_path: Path, pattern: str, patients: list[str]) -> None:
        put_images(tmp_path, ["benign/P00_1_a.png", "malignant/P01_2_b.png"])
        manifest = read_source(tmp_path, patient_regex=pattern)
        assert manifest.frame["patient_id"].tolist() == patients
        assert manifest.knows_patients

    def test_the_path_is_seen_from_the_root(self, tmp_path: Path) -> None:
        root = put_images(tmp_path / "P99", ["benign/P00.png", "malignant/P01.png"])
        assert read_source(root, patient_regex=r"P\d+").frame["patient_id"].tolist() == ["P00", "P01"]

    @pytest.mark.parametrize("pattern", [r"P00", r"(P01)|benign", r"(P\d+)?"])
    def test_a_path_without_a_patient_is_named(self, tmp_path: Path, pattern: str) -> None:
        put_images(tmp_path, ["benign/P00.png", "malignant/P01.png", "malignant/Q.png"])
        with pytest.raises(DataError, match=r"finds no patient in \d of 3 paths, the first is '\w+/\w+\.png'\. Paths"):
            read_source(tmp_path, patient_regex=pattern)

    def test_no_regular_expression(self, tmp_path: Path) -> None:
        put_images(tmp_path, ["benign/a.png", "malignant/b.png"])
        with pytest.raises(UsageError, match=r"--patient-regex '\(P' is not a regular expression: .*unterminated"):
            read_source(tmp_path, patient_regex="(P")

    def test_a_pattern_replaces_the_patients_of_the_names(self, make_folder: Build) -> None:
        root = make_folder(patients=3, per_class=1)
        assert set(read_source(root, patient_regex=r"\d\d").frame["patient_id"]) == {"00", "01", "02"}


class TestCsv:
    def test_paths_are_seen_from_the_folder_of_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put_images(tmp_path / "images", ["a.png", "b.png"])
        absolute = tmp_path / "images" / "b.png"
        put_csv(tmp_path / "tables" / "m.csv", f"path,label\n../images/./a.png,benign\n{absolute},Malignant\n")
        monkeypatch.chdir(tmp_path / "tables")
        frame = read_source("m.csv").frame
        assert frame["path"].tolist() == [str(tmp_path / "images" / "a.png"), str(absolute)]
        assert frame["label"].tolist() == [0, 1]

    def test_every_column_of_the_manifest_is_taken_and_others_are_passed_over(self, tmp_path: Path) -> None:
        names = "age,path,label,patient_id,slide_id,x,y,site,official_split,side,view,magnification"
        text = f"{names}\n51,a.png,1,P1,S1,451,1.0,Graz,Valid,left,MLO,40\n"
        row = read_source(put_csv(tmp_path / "m.csv", text)).frame.iloc[0]
        assert list(row.index) == list(MANIFEST_COLUMNS)
        assert row.drop(["width", "height", "sha256"]).to_dict() == {
            "path": str(tmp_path / "a.png"),
            "label": 1,
            "patient_id": "P1",
            "slide_id": "S1",
            "x": 451,
            "y": 1,
            "site": "Graz",
            "source": "csv",
            "official_split": "validation",
            "side": "left",
            "view": "MLO",
            "magnification": "40",
        }
        assert row[["width", "height", "sha256"]].isna().all()

    @pytest.mark.parametrize(
        "text",
        [
            "\ufeffpath,label,patient_id\na.png,0,P1\nb.png,1,P2\n",
            "path,label,patient_id\r\na.png,0,P1\r\nb.png,1,P2\r\n",
            "path,label,patient_id\ra.png,0,P1\rb.png,1,P2\r",
            " path , label,  patient_id\n a.png , 0 , P1 \n  b.png, malignant,P2",
            '"path","label","patient_id"\n"a.png","0","P1"\n"b.png", "1", "P2"\n',
            "path;label;patient_id\na.png;0;P1\nb.png;1;P2\n",
            "path\tlabel\tpatient_id\na.png\tbenign\tP1\nb.png\t1.0\tP2\n",
            "\n\npath,label,patient_id\n\na.png,0,P1\n,,\nb.png,1,P2\n\n",
            "path,label,patient_id,\na.png,0,P1,\nb.png,1,P2,,\n",
            "patient_id,label,path\nP1,0,a.png\nP2,1,b.png\n",
        ],
        ids=["BOM", "Windows", "old Mac", "spaces", "quotes", "semicolons", "tabs", "blank lines", "commas", "order"],
    )
    def test_is_read_however_it_was_saved(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "m.csv"
        file.write_bytes(text.encode())
        frame = read_source(file).frame
        assert frame["path"].tolist() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
        assert frame["label"].tolist() == [0, 1]
        assert frame["patient_id"].tolist() == ["P1", "P2"]

    def test_commas_quotes_and_line_breaks_in_quoted_names(self, tmp_path: Path) -> None:
        text = 'path,label\n"a,b.png",0\n"say ""ah"".png",1\n"two\nlines.png",1\n'
        manifest = read_source(put_csv(tmp_path / "m.csv", text))
        assert manifest.relative_paths() == ["a,b.png", 'say "ah".png', "two\nlines.png"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("file,label\na.png,0\n", r"the column 'path' is missing; found file, label\."),
            ("path,Labels\na.png,0\n", r"the column 'label' is missing; found path, Labels\. Is it 'Labels'\?"),
            ("Path,label\na.png,0\n", r"the column 'path' is missing; found Path, label\. Is it 'Path'\?"),
            ("path,label\na.png,0\nb.png,2\n", r"line 3 has the label '2'; write 0, 1, benign or malignant\."),
            ("path,label\n\n\na.png,0\n\nb.png,cancer\n", r"line 6 has the label 'cancer'"),
            ('path,label\n"a\nb.png",0\nc.png,\n', r"line 4 has the label ''"),
            ("path,label\na.png\n", r"line 2 has the label ''"),
            ("path,label\n,1\n", r"line 2 has no path\."),
            ("path,label\n'',1\n ,0\n", r"line 3 has no path\."),
            ("path,label,x\na.png,0,1.5\n", r"line 2 has the x '1\.5'; write whole pixels or leave it empty\."),
            ("path,label,y\na.png,0,three\n", r"line 2 has the y 'three'"),
            ("path,label,y\na.png,0,inf\n", r"line 2 has the y 'inf'"),
            ("path,label,y\na.png,0,1e300\n", r"line 2 has the y '1e300'"),
            ("path,label,official_split\na.png,0,dev\n", r"line 2 has the official_split 'dev'; write train, valid"),
            (
                "path,label\na.png,0\nb,c.png,1\n",
                r"line 3 has 3 values for 2 columns\. Put a value that contains ',' in",
            ),
            ("path,label,path\na.png,0,b.png\n", r"two columns are called 'path'; keep one\."),
            ('path,label\n"a.png,0\nb.png,1\n', r"cannot be read as a table \(unexpected end of data\)\."),
            ("", r"the file is empty; it needs a header line with path,label\."),
            ("\n\n", r"the file is empty; it needs a header line with path,label\."),
            ("path,label\n", r"the table has no rows; write one line for each image\."),
        ],
    )
    def test_an_error_names_the_file_and_the_line(self, tmp_path: Path, text: str, message: str) -> None:
        file = put_csv(tmp_path / "m.csv", text)
        with pytest.raises(DataError, match=message) as caught:
            read_source(file)
        assert str(tmp_path) in str(caught.value)

    def test_text_that_is_not_utf_8(self, tmp_path: Path) -> None:
        file = tmp_path / "m.csv"
        file.write_bytes("path,label\ngröße.png,0\n".encode("latin-1"))
        with pytest.raises(DataError, match=r"m\.csv: is not UTF-8 text \(.*\)\. Save it as 'CSV UTF-8'\."):
            read_source(file)

    def test_a_parquet_file_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"m\.parquet: cannot be read as a table"):
            read_source(put_csv(tmp_path / "m.parquet", "path,label\n"))

    def test_parquet_columns_of_any_kind_are_passed_over(self, tmp_path: Path) -> None:
        table = pd.DataFrame(
            {
                "path": ["a.png", "b.png"],
                "label": [0.0, 1.0],
                "patient_id": pd.Series([8863.0, None], dtype="float32"),
                "embedding": [[1.0, 2.0], [3.0, 4.0]],
                "when": [pd.Timestamp("2024-01-01"), pd.NaT],
            }
        )
        table.to_parquet(tmp_path / "m.parquet")
        frame = read_source(tmp_path / "m.parquet").frame
        assert frame["patient_id"].isna().tolist() == [False, True]
        assert frame["patient_id"][0] == "8863"

    def test_the_index_of_a_table_is_the_line_in_the_file(self, tmp_path: Path) -> None:
        table = read_table(put_csv(tmp_path / "m.csv", 'a,b\n1,2\n\n"x\ny",3\n4,5\n'))
        assert table.index.tolist() == [2, 4, 6]
        assert table["b"].tolist() == ["2", "3", "5"]

    def test_a_written_manifest_is_read_again(self, make_folder: Build, tmp_path: Path) -> None:
        audited = audit_manifest(read_source(make_folder(patients=2, per_class=2))).manifest
        for name in ("m.csv", "m.parquet"):
            write_manifest(audited, tmp_path / name)
            again = read_source(tmp_path / name)
            columns = ["path", "label", "patient_id", "slide_id", "x", "y"]
            pd.testing.assert_frame_equal(again.frame[columns], audited.frame[columns])


class TestExclude:
    def listing(self, tmp_path: Path, text: str) -> Path:
        return put_csv(tmp_path / "exclude.txt", text)

    def test_paths_absolute_relative_to_the_root_or_to_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = put_images(tmp_path / "data", [f"{c}/{i}.png" for c in ("benign", "malignant") for i in "abc"])
        monkeypatch.chdir(root / "malignant")
        text = f"\ufeff# copies\n\n{root}/benign/a.png\r\n  malignant/b.png  \nc.png\n"
        manifest = exclude_paths(read_source(root), self.listing(tmp_path, text))
        assert manifest.relative_paths() == ["benign/b.png", "benign/c.png", "malignant/a.png"]
        assert manifest.excluded == 3
        assert manifest.frame.index.tolist() == [0, 1, 2]

    def test_a_name_that_begins_like_a_comment_is_a_name(self, tmp_path: Path) -> None:
        root = put_images(tmp_path / "data", ["#1/benign/a.png", "#1/malignant/b.png"])
        manifest = exclude_paths(read_source(root), self.listing(tmp_path, "#1/benign/a.png\n# a comment\n"))
        assert manifest.relative_paths() == ["#1/malignant/b.png"]

    def test_a_file_that_is_not_in_the_manifest_is_named(self, tmp_path: Path) -> None:
        root = put_images(tmp_path / "data", ["benign/a.png", "malignant/b.png"])
        with pytest.raises(DataError, match=r"exclude\.txt: line 3 'benign/x\.png' is not an image of .*data"):
            exclude_paths(read_source(root), self.listing(tmp_path, "\nbenign/a.png\nbenign/x.png\n"))

    def test_a_listing_that_is_missing_or_no_text(self, tmp_path: Path) -> None:
        root = put_images(tmp_path / "data", ["benign/a.png", "malignant/b.png"])
        with pytest.raises(DataError, match=r"nowhere\.txt: cannot be read \(No such file"):
            exclude_paths(read_source(root), tmp_path / "nowhere.txt")
        with pytest.raises(DataError, match=r"a\.png: is not UTF-8 text; give a text file, one path a line"):
            exclude_paths(read_source(root), root / "benign" / "a.png")


class TestDataHash:
    def test_does_not_depend_on_the_order_of_rows_or_the_place_of_the_root(
        self, make_folder: Build, tmp_path: Path
    ) -> None:
        root = make_folder(patients=3, per_class=2)
        manifest = audit_manifest(read_source(root)).manifest
        expected = data_hash(manifest)
        shuffled = Manifest(manifest.frame.sample(frac=1, random_state=1), manifest.root, manifest.source)
        assert data_hash(shuffled) == expected
        shutil.move(root, tmp_path / "elsewhere" / "x")
        assert data_hash(audit_manifest(read_source(tmp_path / "elsewhere" / "x")).manifest) == expected

    def test_changes_with_a_label_a_name_or_a_pixel(self, make_folder: Build) -> None:
        root = make_folder(patients=3, per_class=2)
        manifest = audit_manifest(read_source(root)).manifest
        hashes = {data_hash(manifest)}
        frame = manifest.frame.copy()
        frame.loc[0, "label"] = 1 - frame.loc[0, "label"]
        hashes.add(data_hash(Manifest(frame, root, "idc")))
        put_image(Path(manifest.frame["path"][0]), seed=1)
        hashes.add(data_hash(audit_manifest(read_source(root)).manifest))
        Path(manifest.frame["path"][0]).unlink()
        hashes.add(data_hash(audit_manifest(read_source(root)).manifest))
        assert len(hashes) == 4


class TestFileNames:
    NAMES = (
        b'it\'s "quoted", really.png',
        b"two\nlines\tand a tab.png",
        "größe 图 🎗.png".encode(),
        b"gew\xe4chs.png",
        b"\xff\xfe.png",
        b" leading space.png",
        b"-dash;semicolon.png",
        b"\\udcff spelt out.png",
    )

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "data"
        for label in ("benign", "malignant"):
            for name in self.NAMES:
                put_image(root / label / os.fsdecode(name))
        put_image(root / "malignant" / os.fsdecode(b"sub\xe4") / "a.png")
        return root

    def test_every_name_survives_to_the_manifest_and_is_read(self, root: Path) -> None:
        audit = audit_manifest(read_source(root))
        assert audit.quarantine == ()
        assert len(audit.manifest) == 2 * len(self.NAMES) + 1
        for path in audit.manifest.frame["path"]:
            path.encode("utf-8")

    def test_every_name_survives_to_parquet_csv_and_json(self, root: Path, tmp_path: Path) -> None:
        (root / "benign" / os.fsdecode(b"broken\xe4.png")).write_bytes(b"")
        audit = audit_manifest(read_source(root))
        paths = audit.manifest.frame["path"].tolist()
        for name in ("m.parquet", "m.csv"):
            write_manifest(audit.manifest, tmp_path / name)
        assert pd.read_parquet(tmp_path / "m.parquet")["path"].tolist() == paths
        assert pd.read_csv(tmp_path / "m.csv")["path"].tolist() == paths
        audit.write(tmp_path / "audit.json")
        written = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
        assert written["quarantine"][0]["path"] == str(root / "benign" / r"broken\udce4.png")
        json.dumps(written, ensure_ascii=False).encode("utf-8")
        assignment = split_manifest(audit.manifest, by="image")
        assert len(data_hash(audit.manifest)) == len(assignment.sha256) == 64
        assert "\udce4" not in "".join(assignment.table()["path"])

    def test_a_manifest_with_such_names_is_read_from_csv(self, root: Path, tmp_path: Path) -> None:
        audit = audit_manifest(read_source(root))
        write_manifest(audit.manifest, tmp_path / "m.csv")
        again = audit_manifest(read_source(tmp_path / "m.csv"))
        assert again.quarantine == ()
        assert again.manifest.frame["sha256"].tolist() == audit.manifest.frame["sha256"].tolist()

    def test_a_patient_may_be_taken_from_such_a_name(self, root: Path) -> None:
        manifest = read_source(root, patient_regex=r"[^/]+$")
        assert r"gew\udce4chs.png" in set(manifest.frame["patient_id"])

    def test_a_root_that_is_not_unicode_is_refused_with_the_reason(self, root: Path) -> None:
        renamed = root.rename(root.with_name(os.fsdecode(b"da\xe4ta")))
        with pytest.raises(DataError, match=r"da\\udce4ta: a folder whose name is not Unicode .* Rename it\.$"):
            read_source(renamed)


@pytest.mark.real
class TestRealData:
    def test_busi_masks_and_normal_images_are_left_out(self, real_data: Path) -> None:
        root = real_data / "busi"
        manifest = read_source(root, source="folder")
        assert not any("_mask" in name or name.startswith("normal/") for name in manifest.relative_paths())
        masks = [file for file in root.glob("*/*_mask*.png") if file.parent.name != "normal"]
        normal_masks = list(root.glob("normal/*_mask*.png"))
        assert finding(manifest, "mask").count == len(masks) + len(normal_masks)
        assert finding(manifest, "unlabelled").count == len(list(root.glob("normal/*.png"))) - len(normal_masks)
        assert len(manifest) == sum(len(list(root.glob(f"{c}/*).png"))) for c in ("benign", "malignant"))

    def test_idc_has_sixteen_patients_with_both_labels(self, real_data: Path) -> None:
        manifest = read_source(real_data / "idc")
        assert (manifest.source, len(manifest), manifest.findings) == ("idc", 17_337, ())
        labels = manifest.frame.groupby("patient_id")["label"].agg(["nunique", "size"])
        assert len(labels) == 16
        assert (labels["nunique"] == 2).all()
        on_disk = {path.name for path in (real_data / "idc").iterdir() if path.is_dir()}
        assert set(labels.index) == on_disk
