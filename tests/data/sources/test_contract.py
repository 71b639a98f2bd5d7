"""What every source promises: it knows its own layout, from a folder as from a .zip file, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.data.layouts import LAYOUTS, zip_folder

from clearmargin.data.manifest import Manifest
from clearmargin.data.sources import SOURCES, read_source
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
