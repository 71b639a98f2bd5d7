"""A bundle is written whole or not at all, and others can verify it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.bundle.small_bundle import every_choice, model_file, write_invented

from clearmargin.bundle.read import REQUIRED, SUMS, read_bundle
from clearmargin.bundle.write import rewrite_bundle
from clearmargin.errors import BundleError, UsageError


def test_a_bundle_is_five_files_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = write_invented(tmp_path / "run" / "bundle")
    assert {entry.name for entry in folder.iterdir()} == {*REQUIRED, SUMS}
    assert [entry.name for entry in folder.parent.iterdir()] == ["bundle"]


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = (write_invented(tmp_path / name) for name in ("one", "other"))
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in [*REQUIRED, SUMS])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_verifies_it(tmp_path: Path) -> None:
    folder = write_invented(tmp_path / "bundle")
    check = ["sha256sum", "--check", "--strict", SUMS]
    good = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=False)
    assert good.returncode == 0
    assert good.stdout.count(": OK") == 4
    (folder / "model.onnx").write_bytes(b"x")
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode != 0


def test_a_bundle_replaces_the_one_before(tmp_path: Path) -> None:
    folder = write_invented(tmp_path / "bundle")
    (folder / "notes.txt").write_text("of the old one")
    write_invented(folder, threshold=0.9)
    assert read_bundle(folder).model.decision_point.threshold == 0.9
    assert {entry.name for entry in folder.iterdir()} == {*REQUIRED, SUMS}
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("failing", [*REQUIRED, SUMS])
def test_a_failure_while_writing_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    folder = write_invented(tmp_path / "bundle")
    opened = Path.open

    def fails(self: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if self.name == failing and "w" in mode:
            raise OSError(28, "No space left on device")
        return opened(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(OSError, match="No space"):
        write_invented(folder, threshold=0.9)
    monkeypatch.undo()
    assert read_bundle(folder).model.decision_point.threshold == 0.4321
    write_invented(folder, threshold=0.9)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_failure_of_the_last_step_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_invented(tmp_path / "bundle")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name == "bundle.partial":
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Permission"):
        write_invented(folder, threshold=0.9)
    assert read_bundle(folder).model.decision_point.threshold == 0.4321


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is there already and is no bundle"):
        write_invented(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(UsageError, match="is there already and is no bundle"):
        write_invented(tmp_path / "thesis.txt")


def test_an_empty_folder_may_become_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    read_bundle(write_invented(tmp_path / "bundle"))


def test_everything_that_was_chosen_comes_back(tmp_path: Path) -> None:
    folder = write_invented(tmp_path / "bundle", **every_choice())
    assert read_bundle(folder).model == model_file(**every_choice())


def test_a_bundle_is_written_anew_with_the_same_network_and_other_decisions(tmp_path: Path) -> None:
    before = read_bundle(write_invented(tmp_path / "bundle"))
    changed = model_file(threshold=0.9, **every_choice())
    rewrite_bundle(before, tmp_path / "other", changed)
    rewrite_bundle(before, tmp_path / "same")
    other, same = read_bundle(tmp_path / "other"), read_bundle(tmp_path / "same")
    assert other.model == changed
    for name in ("weights.safetensors", "model.onnx"):
        assert other.read(name) == same.read(name) == before.read(name)
    assert "at or above 0.9000" in other.read("MODEL_CARD.md").decode()
    assert same.sha256 == before.sha256 != other.sha256
    assert read_bundle(tmp_path / "bundle").model == before.model


def test_a_network_that_was_changed_is_not_written_anew(tmp_path: Path) -> None:
    bundle = read_bundle(write_invented(tmp_path / "bundle"))
    (tmp_path / "bundle" / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="the content is not"):
        rewrite_bundle(bundle, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is there already and is no bundle"):
        rewrite_bundle(read_bundle(write_invented(tmp_path / "third")), tmp_path / "mine")
