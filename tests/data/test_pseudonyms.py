"""Nothing that leaves a pseudonymised job names a person, and the same key gives the same words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from clearmargin.config import load_recipe
from clearmargin.data.manifest import Manifest, exclude_paths, set_patients
from clearmargin.data.pseudonyms import hide_paths, pseudonym, pseudonymise, read_key
from clearmargin.data.sources import read_source
from clearmargin.data.split import read_split, split_manifest
from clearmargin.errors import DataError


@pytest.fixture
def manifest(make_folder: Callable[..., Path]) -> Manifest:
    return read_source(make_folder(patients=6, per_class=1))


def text_of(manifest: Manifest) -> str:
    return manifest.frame.to_csv() + str(manifest.root) + repr(manifest.findings)


def test_no_patient_no_slide_and_no_path_is_left(manifest: Manifest) -> None:
    hidden = pseudonymise(manifest, b"key")
    assert not re.search(r"P0\d", text_of(hidden))
    assert str(manifest.root) not in text_of(hidden)
    assert hidden.frame["path"].is_unique


def test_the_images_are_still_found_and_patients_kept_apart(manifest: Manifest) -> None:
    hidden = pseudonymise(manifest, b"key")
    assert [hidden.locate(path) for path in hidden.frame["path"]] == manifest.frame["path"].tolist()
    pairs = set(zip(manifest.frame["patient_id"], hidden.frame["patient_id"], strict=True))
    assert len(pairs) == manifest.frame["patient_id"].nunique() == hidden.frame["patient_id"].nunique()
    plain, other = split_manifest(manifest, seed=3), split_manifest(hidden, seed=3)
    assert plain.counts() == other.counts()


def test_another_key_gives_other_words_and_the_same_key_the_same(manifest: Manifest) -> None:
    first, again, other = (pseudonymise(manifest, key).frame for key in (b"a", b"a", b"b"))
    assert first.equals(again)
    for column in ("path", "patient_id", "slide_id"):
        assert not set(first[column]) & set(other[column])


def test_kinds_do_not_share_words() -> None:
    assert pseudonym("patient", "7", b"k").split("-")[1] != pseudonym("slide", "7", b"k").split("-")[1]


def test_a_missing_patient_stays_missing(make_folder: Callable[..., Path]) -> None:
    hidden = pseudonymise(read_source(make_folder(layout="folder")), b"key")
    assert hidden.frame["patient_id"].isna().all()
    assert not hidden.knows_patients


def test_patients_taken_from_paths_are_hidden_too(make_folder: Callable[..., Path]) -> None:
    manifest = set_patients(read_source(make_folder(layout="folder")), r"(P\d+)_")
    assert not re.search(r"P0\d", text_of(pseudonymise(manifest, b"key")))


def test_what_findings_say_names_no_file(make_folder: Callable[..., Path]) -> None:
    root = make_folder(layout="folder")
    (root / "DOE_JANE").mkdir()
    (root / "benign" / "P00_0.png").rename(root / "DOE_JANE" / "DOE_JANE.png")
    (root / "DOE_JANE" / "notes.txt").write_text("x")
    manifest = read_source(root)
    assert "DOE_JANE" in repr(manifest.findings)
    hidden = pseudonymise(manifest, b"key")
    assert "DOE_JANE" not in repr(hidden.findings)
    assert [(f.kind, f.severity, f.count, len(f.paths)) for f in hidden.findings] == [
        (f.kind, f.severity, f.count, len(f.paths)) for f in manifest.findings
    ]


def test_files_to_leave_out_may_be_named_either_way(manifest: Manifest, tmp_path: Path) -> None:
    hidden = pseudonymise(manifest, b"key")
    listing = tmp_path / "out.txt"
    listing.write_text(f"{hidden.frame['path'][0]}\n{manifest.frame['path'][1]}\n", encoding="utf-8")
    kept = exclude_paths(hidden, listing)
    assert kept.frame["path"].tolist() == hidden.frame["path"].tolist()[2:]


def test_a_split_may_name_files_either_way(manifest: Manifest, tmp_path: Path) -> None:
    hidden = pseudonymise(manifest, b"key")
    plain = split_manifest(manifest).table()
    plain.to_csv(tmp_path / "plain.csv", index=False)
    plain.assign(path=hidden.frame["path"]).to_csv(tmp_path / "hidden.csv", index=False)
    splits = [read_split(tmp_path / name, hidden).splits.tolist() for name in ("plain.csv", "hidden.csv")]
    assert splits[0] == splits[1] == plain["split"].tolist()


def test_settings_are_written_without_their_paths() -> None:
    config = load_recipe(
        "default", {"data.root": "/a/DOE_JANE", "split_file": "/b/DOE.csv", "exclude_file": "/c/DOE.txt"}
    )
    hidden = hide_paths(config, b"key")
    assert "DOE" not in repr(hidden)
    assert hidden.model_copy(update={"data": config.data}) == config
    assert hide_paths(config, b"key") == hidden


class TestKey:
    def test_it_is_made_once_and_readable_by_its_owner_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "new" / "key"
        monkeypatch.setenv("CLEARMARGIN_KEY_FILE", str(file))
        first = read_key()
        assert read_key() == first and len(first) == 64
        assert file.stat().st_mode & 0o077 == 0

    def test_two_users_have_two_keys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = set()
        for name in ("a", "b"):
            monkeypatch.setenv("CLEARMARGIN_KEY_FILE", str(tmp_path / name))
            keys.add(read_key())
        assert len(keys) == 2

    @pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe" * 40])
    def test_a_file_that_is_no_key_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        file = tmp_path / "key"
        file.write_bytes(content)
        monkeypatch.setenv("CLEARMARGIN_KEY_FILE", str(file))
        with pytest.raises(DataError, match="key of pseudonyms"):
            read_key()

    def test_a_key_that_cannot_be_written_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("x")
        monkeypatch.setenv("CLEARMARGIN_KEY_FILE", str(tmp_path / "file" / "key"))
        with pytest.raises(DataError, match="cannot be used"):
            read_key()
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
