"""The run folder: who may open it, what goes wrong on disks, and that run.json comes last."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clearmargin.config import dump_config, load_recipe, read_config
from clearmargin.errors import ConfigError, DataError, UsageError
from clearmargin.files import disk_errors, write_json, write_text, write_whole
from clearmargin.training.run_folder import (
    LIBRARIES,
    describe_environment,
    finish_run,
    is_complete,
    open_run,
)

CONFIG = load_recipe("cnn_50", {"data.root": "/images"})
HASHED = ("config.toml", "manifest.parquet", "split.csv", "predictions.csv", "metrics.json", "bundle/SHA256SUMS")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "run"


def begin(run: Path) -> None:
    with open_run(run, CONFIG, resume=False):
        pass


def test_a_new_run_folder_is_made_with_its_settings_and_no_lock_stays(run: Path) -> None:
    with open_run(run, CONFIG, resume=False):
        assert read_config(run / "config.toml") == CONFIG
    assert [entry.name for entry in run.iterdir()] == ["config.toml"]
    assert not is_complete(run)


def test_an_empty_folder_may_become_a_run(run: Path) -> None:
    run.mkdir(parents=True)
    begin(run)
    assert (run / "config.toml").is_file()


def test_a_run_that_is_there_is_not_overwritten(run: Path) -> None:
    begin(run)
    (run / "checkpoint").mkdir()
    with pytest.raises(UsageError, match=r"run: there is a run in this folder already\. .*--resume"):
        begin(run)


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_run_left_that_stopped_before_training_binds_nobody(run: Path, resume: bool) -> None:
    begin(run)
    other = load_recipe("cnn_50", {"data.root": "/others"})
    with open_run(run, other, resume=resume):
        pass
    assert read_config(run / "config.toml") == other


def test_a_folder_with_other_things_is_left_alone(run: Path) -> None:
    run.mkdir(parents=True)
    (run / "holiday.jpg").write_bytes(b"x")
    for resume in (False, True):
        with (
            pytest.raises(UsageError, match=r"not empty and holds no run.*--out"),
            open_run(run, CONFIG, resume=resume),
        ):
            pass
    assert [entry.name for entry in run.iterdir()] == ["holiday.jpg"]


def test_a_file_in_the_place_of_the_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(UsageError, match="run: is a file; give a folder"):
        begin(tmp_path / "run")


def test_a_run_killed_before_its_first_file_was_whole_can_begin_again(run: Path) -> None:
    run.mkdir(parents=True)
    (run / ".lock").touch()
    (run / ".config.partial.toml").write_text("recipe = ")
    begin(run)
    assert read_config(run / "config.toml") == CONFIG


def test_resuming_with_the_same_settings_opens_the_run(run: Path) -> None:
    begin(run)
    with open_run(run, CONFIG, resume=True):
        pass


def test_resuming_where_nothing_is_begins_a_run(run: Path) -> None:
    with open_run(run, CONFIG, resume=True):
        pass
    assert (run / "config.toml").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.epochs": 7}, r"begun with train\.epochs = 200, not 7\. Resume with the same settings"),
        ({"images.size": [64, 64], "seed": 3}, r"begun with seed = 0, not 3 \(and 1 more\)"),
        ({"data.root": "/others"}, r"data\.root = '/images', not '/others'"),
    ],
)
def test_resuming_with_other_settings_names_the_key(run: Path, changes: dict[str, Any], message: str) -> None:
    begin(run)
    (run / "checkpoint").mkdir()
    before = (run / "config.toml").read_bytes()
    other = load_recipe("cnn_50", changes, base=CONFIG)
    with pytest.raises(ConfigError, match=message), open_run(run, other, resume=True):
        pass
    assert (run / "config.toml").read_bytes() == before


def test_a_run_held_by_another_process_cannot_be_opened(run: Path) -> None:
    begin(run)
    code = (
        f"from filelock import FileLock\nlock = FileLock({str(run / '.lock')!r})\nlock.acquire()\n"
        "print('held', flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UsageError, match="run: another process is working in this run folder"),
            open_run(run, CONFIG, resume=True),
        ):
            pass
        holder.communicate("\n")
    with open_run(run, CONFIG, resume=True):
        pass


def test_a_run_cannot_be_opened_twice_by_one_process(run: Path) -> None:
    with open_run(run, CONFIG, resume=False):
        with pytest.raises(UsageError, match="another process"), open_run(run, CONFIG, resume=True):
            pass
        assert (run / ".lock").exists(), "the one who was refused took the lock away"


def test_the_lock_is_released_when_the_run_fails(run: Path) -> None:
    with pytest.raises(DataError, match="broken"), open_run(run, CONFIG, resume=False):
        raise DataError("broken")
    with open_run(run, CONFIG, resume=True):
        pass


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"run: the disk is full\. Free some space, or write to another disk\."),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, r"not writable \(Permission denied\)"),
        (errno.EROFS, r"not writable \(Read-only file system\)"),
    ],
)
def test_a_full_or_read_only_disk_is_one_clear_line(run: Path, number: int, message: str) -> None:
    with pytest.raises(DataError, match=message), open_run(run, CONFIG, resume=False):
        raise OSError(number, os.strerror(number))


def test_the_file_that_did_not_fit_is_named() -> None:
    with pytest.raises(DataError, match=r"^/disk/x: the disk is full"), disk_errors(Path("/elsewhere")):
        raise OSError(errno.ENOSPC, "full", "/disk/x")


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk(run: Path) -> None:
    with pytest.raises(TimeoutError), open_run(run, CONFIG, resume=False):
        raise OSError(errno.ETIMEDOUT, "no answer")


def test_a_run_folder_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="not writable"):
        begin(tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_really_full_leaves_the_old_file_and_no_partial(run: Path) -> None:
    def fill(partial: Path) -> None:
        partial.touch()
        Path("/dev/full").write_text("x")

    with pytest.raises(DataError, match="the disk is full"), open_run(run, CONFIG, resume=False):
        write_text(run / "metrics.json", "old")
        write_whole(run / "metrics.json", fill)
    assert (run / "metrics.json").read_text() == "old"
    assert sorted(entry.name for entry in run.iterdir()) == ["config.toml", "metrics.json"]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def write(partial: Path) -> None:
        partial.write_text("content")
        assert partial.suffix == ".csv"
        seen.append([entry.name for entry in tmp_path.iterdir()])

    write_whole(tmp_path / "split.csv", write)
    assert seen == [[".split.partial.csv"]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["split.csv"]


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"value": 0.1, "name": "é"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"value": 0.1, "name": "é"}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"value": float("nan")})


def fill_run(run: Path) -> None:
    begin(run)
    for name in HASHED[1:]:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(f"content of {name}")


def test_run_json_is_written_last_and_names_every_file_by_its_hash(run: Path) -> None:
    fill_run(run)
    assert not is_complete(run)
    finish_run(run, {"stamp": None})
    assert is_complete(run)
    content = json.loads((run / "run.json").read_text())
    assert content["complete"] is True
    assert content["stamp"] is None
    assert content["sha256"] == {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in HASHED}


@pytest.mark.parametrize("missing", HASHED)
def test_a_run_without_one_of_its_files_is_not_complete(run: Path, missing: str) -> None:
    fill_run(run)
    (run / missing).unlink()
    with pytest.raises(FileNotFoundError):
        finish_run(run, {})
    assert not is_complete(run)


def test_the_environment_names_software_machine_and_command() -> None:
    facts = describe_environment("clearmargin train x")
    assert facts["command"] == "clearmargin train x"
    assert set(facts["libraries"]) == set(LIBRARIES)
    assert facts["cores"] == os.cpu_count()
    assert facts["processor"]
    json.dumps(facts, allow_nan=False)


def test_the_settings_on_disk_are_the_ones_in_memory(run: Path) -> None:
    begin(run)
    assert (run / "config.toml").read_text(encoding="utf-8") == dump_config(CONFIG)
