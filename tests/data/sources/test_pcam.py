"""PCam in Kaggle's edition: labels come from the table, and nothing is said to be labelled that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.layouts import pcam_id, save, write_pcam

from clearmargin.data.manifest import Manifest
from clearmargin.data.phantom import draw_patch
from clearmargin.data.sources import pcam, read_source
from clearmargin.errors import DataError
from clearmargin.types import Finding


def finding(manifest: Manifest, kind: str) -> Finding:
    return next(entry for entry in manifest.findings if entry.kind == kind)


def kinds(manifest: Manifest) -> set[str]:
    return {entry.kind for entry in manifest.findings}


def test_labels_come_from_the_table(tmp_path: Path) -> None:
    manifest = read_source(write_pcam(tmp_path))
    labels = {Path(path).stem: label for path, label in zip(manifest.frame["path"], manifest.labels(), strict=True)}
    assert labels == {pcam_id(number): int(number % 3 == 0) for number in range(6)}
    assert manifest.content == "histology"
    assert not manifest.knows_patients
    assert not manifest.has_official_split


def test_the_test_folder_has_no_labels_and_that_is_said(tmp_path: Path) -> None:
    manifest = read_source(write_pcam(tmp_path))
    note = finding(manifest, "test_without_labels")
    assert (note.severity, note.count) == ("note", 2)
    assert not {"missing", "unlabelled"} & kinds(manifest)


def test_ids_without_a_file_and_files_without_an_id_are_counted(tmp_path: Path) -> None:
    write_pcam(tmp_path)
    (tmp_path / "train" / f"{pcam_id(0)}.tif").unlink()
    save(tmp_path / "train" / f"{pcam_id(99)}.tif", draw_patch(0, 99, 96))
    manifest = read_source(tmp_path)
    missing = finding(manifest, "missing")
    assert (missing.severity, missing.count) == ("warning", 1)
    assert pcam_id(0) in missing.message
    assert finding(manifest, "unlabelled").paths == (str(tmp_path / "train" / f"{pcam_id(99)}.tif"),)
    assert len(manifest) == 5


@pytest.mark.parametrize(
    "text",
    [
        "label,id,extra\n1,{0},x\n0,{1},y\n\n",
        "\ufeffID,Label\r\n{0},1\r\n{1},0\r\n",
        '"id","label"\n"{0}","1"\n{1},0\n',
    ],
)
def test_the_table_may_be_written_in_several_ways(tmp_path: Path, text: str) -> None:
    write_pcam(tmp_path)
    (tmp_path / "train_labels.csv").write_bytes(text.format(pcam_id(0), pcam_id(1)).encode())
    manifest = read_source(tmp_path)
    assert manifest.source == "pcam"
    assert sorted(manifest.labels().tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\nA,2\n", "line 2 is not an id with the label 0 or 1"),
        ("id,label\nA,1\nB\n", "line 3 is not an id with the label 0 or 1"),
        ("id,label\nA,1\nA,0\n", "line 3 gives 'A' another label than before"),
        ("id,label\nother,1\n", r"no image to use.*1 id of train_labels\.csv has no image: other"),
        ("id,label\n\ufffe,1\n", "no image to use"),
    ],
)
def test_a_table_that_contradicts_itself_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    write_pcam(tmp_path)
    (tmp_path / "train_labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_source(tmp_path)


def test_the_same_id_twice_with_one_label_is_one_image(tmp_path: Path) -> None:
    write_pcam(tmp_path)
    table = tmp_path / "train_labels.csv"
    table.write_text(table.read_text() + f"{pcam_id(1)},0\n")
    assert len(read_source(tmp_path)) == 6


@pytest.mark.parametrize("header", ["id,class", "image,label"])
def test_another_table_of_that_name_is_not_pcam(tmp_path: Path, header: str) -> None:
    write_pcam(tmp_path)
    (tmp_path / "train_labels.csv").write_text(f"{header}\n{pcam_id(0)},1\n")
    assert not pcam.recognises(tmp_path)


def test_images_that_are_not_beside_the_table_are_not_pcam(tmp_path: Path) -> None:
    write_pcam(tmp_path)
    (tmp_path / "train").rename(tmp_path / "pictures")
    assert not pcam.recognises(tmp_path)


def test_220_025_rows_are_read_without_a_look_at_any_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"{number:040x}" for number in range(220_025)]
    (tmp_path / "train_labels.csv").write_text("id,label\n" + "".join(f"{name},{int(name, 16) % 2}\n" for name in ids))
    names = [*(f"train/{name}.tif" for name in ids), "train_labels.csv"]
    monkeypatch.setattr(pcam, "walk_files", lambda root: iter(names))  # of files that are not there
    manifest = pcam.read(tmp_path)
    assert len(manifest) == 220_025
    assert int(manifest.labels().sum()) == 110_012
