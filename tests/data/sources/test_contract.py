"""What every source promises: it knows its own layout, from a folder as from a .zip file, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.data.layouts import LAYOUTS, write_folder, write_mias, zip_folder

from clearmargin.data.manifest import Manifest, exclude_paths
from clearmargin.data.sources import SOURCES, read_source
from clearmargin.data.sources.options import SourceOptions
from clearmargin.errors import DataError
from clearmargin.images.read import read_image
from clearmargin.types import MANIFEST_COLUMNS

TREES = sorted(set(LAYOUTS) - {"csv"})


def rows(manifest: Manifest) -> pd.DataFrame:
    return manifest.frame.assign(path=manifest.relative_paths())


def test_every_source_has_a_layout_here_and_the_general_one_comes_last() -> None:
    assert set(LAYOUTS) == set(SOURCES)
    assert list(SOURCES)[-1] == "folder"


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_layout_is_recognised_by_the_right_source_only(name: str, tmp_path: Path) -> None:
    path = LAYOUTS[name].write(tmp_path)
    knowing = {other for other, source in SOURCES.items() if source.recognises(path)}
    assert knowing - {"folder"} == {name} - {"folder"}
    assert next(other for other in SOURCES if other in knowing) == name
    assert read_source(path).source == name


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_row_is_an_image_with_a_label_and_nothing_made_up(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    manifest = read_source(layout.write(tmp_path))
    assert (len(manifest), int(manifest.labels().sum())) == (layout.images, layout.malignant)
    assert tuple(manifest.frame.columns) == MANIFEST_COLUMNS
    assert manifest.frame["path"].is_unique
    assert manifest.frame[["width", "height", "sha256"]].isna().all(axis=None)
    assert manifest.files_found >= len(manifest)
    for path in manifest.frame["path"]:
        assert read_image(path).ndim == 3


@pytest.mark.parametrize("name", TREES)
def test_a_zip_file_is_read_like_the_folder(name: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    LAYOUTS[name].write(root)
    archive = zip_folder(root, tmp_path / "set.zip")
    packed, plain = read_source(archive), read_source(root)
    assert packed.source == plain.source == name
    pd.testing.assert_frame_equal(rows(packed), rows(plain))
    assert packed.content == plain.content
    assert [(f.kind, f.severity, f.count) for f in packed.findings] == [
        (f.kind, f.severity, f.count) for f in plain.findings
    ]
    for inside, outside in zip(packed.frame["path"], plain.frame["path"], strict=True):
        np.testing.assert_array_equal(read_image(inside), read_image(outside))


@pytest.mark.parametrize("name", TREES)
def test_data_may_lie_some_folders_deeper(name: str, tmp_path: Path) -> None:
    LAYOUTS[name].write(tmp_path / "archive" / "of my data" / "v1")
    manifest = read_source(tmp_path / "archive")
    assert manifest.source == name
    assert (len(manifest), int(manifest.labels().sum())) == (LAYOUTS[name].images, LAYOUTS[name].malignant)
    assert rows(manifest)["path"].str.startswith("of my data/v1/").all()


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_the_source_can_be_named(name: str, tmp_path: Path) -> None:
    path = LAYOUTS[name].write(tmp_path)
    pd.testing.assert_frame_equal(rows(read_source(path, source=name)), rows(read_source(path)))


@pytest.mark.parametrize("name", TREES)
def test_files_of_the_system_change_nothing(name: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    LAYOUTS[name].write(root)
    before = rows(read_source(root))
    for folder in [entry for entry in root.rglob("*") if entry.is_dir()]:
        (folder / ".DS_Store").write_bytes(b"\0")
        (folder / "._mdb001.pgm").write_bytes(b"\0")
    pd.testing.assert_frame_equal(rows(read_source(root)), before)


def test_an_archive_among_images_is_not_passed_over_silently(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    zip_folder(root, root / "more.zip")
    found = {entry.kind: entry for entry in read_source(root).findings}
    assert found["archive_left_out"].severity == "warning"
    assert "more.zip" in found["archive_left_out"].message


def test_a_file_to_leave_out_stands_for_every_crop_of_it(tmp_path: Path) -> None:
    root = write_mias(tmp_path / "mias")
    crops = read_source(root, options=SourceOptions(view="crop"))
    files = crops.frame["path"].str.partition("#")[0]
    file, several = str(files.value_counts().index[0]), int(files.value_counts().iloc[0])
    assert several > 1
    listing = tmp_path / "out.txt"
    listing.write_text(f"{Path(file).name}\nmdb999.pgm\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2 'mdb999\.pgm' is not an image of"):
        exclude_paths(crops, listing)
    normal = next(path for path in sorted(root.glob("*.pgm")) if str(path) not in files.tolist())
    listing.write_text(f"{Path(file).name}\n{normal.name}\n", encoding="utf-8")
    kept = exclude_paths(crops, listing)
    assert len(kept) == len(crops) - several
    assert not kept.frame["path"].str.startswith(file).any()
