"""Whatever is wrong, a user gets one clear line with the fix and the right exit code, and nothing half-made."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import Answer, SmallRun, write_patches

Call = Callable[..., Answer]


def nothing_complete(run: Path) -> bool:
    return not (run / "run.json").exists() and not (run / "bundle").exists()


def test_data_that_is_not_there(call: Call, tmp_path: Path) -> None:
    answer = call("train", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert answer.code == 3
    assert "nowhere: no such file or folder" in answer.error
    assert nothing_complete(tmp_path / "run")


def test_folder_without_images(call: Call, tmp_path: Path) -> None:
    (tmp_path / "data" / "benign").mkdir(parents=True)
    for command in (["audit"], ["train", "--out", tmp_path / "run"], ["split", "--out", tmp_path / "s.csv"]):
        answer = call(command[0], tmp_path / "data", *command[1:])
        assert answer.code == 3
        assert "benign/ and malignant/" in answer.error


def test_one_class(call: Call, tmp_path: Path) -> None:
    write_patches(tmp_path / "data", patients=8, per_class=3, px=16)
    for folder in (tmp_path / "data").glob("*/1"):
        shutil.rmtree(folder)
    answer = call("train", tmp_path / "data", "--out", tmp_path / "run")
    assert answer.code == 3
    assert "no usable malignant image" in answer.error
    assert "Add images of the class malignant" in answer.error
    assert nothing_complete(tmp_path / "run")


@pytest.mark.parametrize("patients", [1, 3])
def test_too_few_patients(call: Call, tmp_path: Path, patients: int) -> None:
    write_patches(tmp_path / "data", patients=patients, per_class=10, px=16)
    answer = call("train", tmp_path / "data", "--out", tmp_path / "run")
    assert answer.code == 3
    assert "a split by patient needs at least 4" in answer.error
    assert "--by image (optimistic, and stamped so)" in answer.error


def test_no_patients_names_the_commands_to_choose_from(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder(layout="folder")
    answer = call("train", data, "--out", data.parent / "run")
    assert answer.code == 3
    for way in ("--patient-regex", "a CSV with the columns path,label,patient_id", "--by image"):
        assert way in answer.error


def test_all_files_corrupt(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder()
    for file in data.rglob("*.png"):
        file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"junk" * 10)
    answer = call("train", data, "--out", data.parent / "run")
    assert answer.code == 3
    assert "100.0%" in answer.error
    assert "--tolerance" in answer.error
    assert nothing_complete(data.parent / "run")
    assert call("audit", data).code == 3


def test_some_corrupt_files_are_quarantined_within_the_tolerance(call: Call, tmp_path: Path) -> None:
    write_patches(tmp_path / "data", patients=12, per_class=4, px=16)
    broken = next((tmp_path / "data").rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    blocked = call("audit", tmp_path / "data", "--json")
    assert blocked.code == 3  # 1 of 96 is above 1 %
    allowed = call("audit", tmp_path / "data", "--json", "--tolerance", "0.02")
    assert allowed.code == 0
    assert broken.name in allowed.out
    assert broken.exists()


def test_out_is_a_file(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder()
    (data.parent / "run").write_text("mine")
    answer = call("train", data, "--out", data.parent / "run")
    assert answer.code == 2
    assert "is a file" in answer.error
    assert (data.parent / "run").read_text() == "mine"


def test_out_below_a_file_cannot_be_made(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder()
    (data.parent / "file").write_text("mine")
    answer = call("train", data, "--out", data.parent / "file" / "run")
    assert answer.code == 3
    assert "not writable" in answer.error


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc here")
def test_out_where_no_folder_can_be_made(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder()
    answer = call("train", data, "--out", "/proc/x")
    assert answer.code == 3
    assert "/proc/x: not writable" in answer.error
    answer = call("split", data, "--out", "/proc/x/a.csv")
    assert answer.code == 2
    assert "/proc/x/a.csv: not writable" in answer.error


def test_missing_file_inside_a_command_is_a_bug_and_not_called_a_full_disk(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clearmargin.api

    monkeypatch.setattr(clearmargin.api, "audit", lambda *_, **__: Path("gone").read_bytes())
    assert call("audit", "x").code == 1


def test_full_disk(call: Call, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = make_folder()
    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    answer = call("train", data, "--out", data.parent / "run")
    assert answer.code == 3
    assert "the disk is full" in answer.error
    assert nothing_complete(data.parent / "run")


def test_existing_run_folder_is_not_touched(call: Call, small_run: SmallRun) -> None:
    before = (small_run.folder / "metrics.json").read_bytes()
    answer = call("train", small_run.data, "--out", small_run.folder)
    assert answer.code == 2
    assert "--resume" in answer.error
    assert (small_run.folder / "metrics.json").read_bytes() == before


def test_evaluate_offers_no_resume_that_it_has_not(call: Call, small_run: SmallRun) -> None:
    answer = call("evaluate", small_run.folder, small_run.data, "--out", small_run.folder)
    assert answer.code == 2
    assert "there is a run in this folder already. Give another --out." in answer.error


def test_folder_that_is_no_run_is_not_touched(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder()
    other = data.parent / "thesis"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    answer = call("train", data, "--out", other)
    assert answer.code == 2
    assert "not empty" in answer.error
    assert [file.name for file in other.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["model.json", "model.onnx", "weights.safetensors", "MODEL_CARD.md"])
def test_bundle_with_a_changed_byte(call: Call, small_run: SmallRun, tmp_path: Path, name: str) -> None:
    shutil.copytree(small_run.folder / "bundle", tmp_path / "bundle")
    content = bytearray((tmp_path / "bundle" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bundle" / name).write_bytes(content)
    answer = call("predict", tmp_path / "bundle", small_run.data)
    assert answer.code == 4
    assert name in answer.error
    assert answer.out == ""


def test_folder_that_is_not_a_bundle(call: Call, tmp_path: Path) -> None:
    assert call("predict", tmp_path, tmp_path).code == 4
    assert call("predict", tmp_path / "nowhere", tmp_path).code == 4


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.epoch=3", "did you mean 'train.epochs'"),
        ("epochz=3", "did you mean"),
        ("train.epochs=0", "train.epochs"),
        ("train.monitor=val_loss", "validation_loss"),
        ("train.epochs", "write it as key=value"),
        ("split.fractions=[0.5,0.2,0.2]", "sum to 1"),
    ],
)
def test_misspelt_or_wrong_setting(call: Call, tmp_path: Path, setting: str, expected: str) -> None:
    answer = call("train", tmp_path, "--out", tmp_path / "run", "--set", setting)
    assert answer.code == 2
    assert expected in answer.error


def test_config_file_with_a_misspelt_key(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nlerning_rate = 0.1\n")
    answer = call("train", tmp_path, "--out", tmp_path / "run", "--recipe", tmp_path / "mine.toml")
    assert answer.code == 2
    assert "train.learning_rate" in answer.error


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--recipe", "cancernt", "did you mean 'cancernet'"),
        ("--model", "residul", "did you mean 'residual'"),
        ("--source", "iddc", "did you mean 'idc'"),
        ("--by", "slide", "patient"),
    ],
)
def test_unknown_name(call: Call, make_folder: Callable[..., Path], option: str, value: str, expected: str) -> None:
    data = make_folder()
    answer = call("train", data, "--out", data.parent / "run", option, value)
    assert answer.code == 2
    assert expected in answer.error
    assert not (data.parent / "run" / "run.json").exists()


def test_unknown_command_and_option(call: Call) -> None:
    assert call("trian").code == 2
    assert "train" in call("trian").error
    assert call("audit", "--jsn", "x").code == 2
    assert call("train", "x").code == 2  # --out is missing


def test_csv_with_a_missing_column(call: Call, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,label\na.png,0\n")
    answer = call("train", tmp_path / "list.csv", "--out", tmp_path / "run")
    assert answer.code == 3
    assert "the column 'path' is missing; found file, label" in answer.error


def test_csv_with_a_path_that_does_not_exist(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder()
    rows = [f"{file},{file.parent.name},{file.parent.parent.name}" for file in sorted(data.rglob("*.png"))]
    listing = data.parent / "list.csv"
    listing.write_text("\n".join(["path,label,patient_id", *rows, "gone.png,1,P00"]))
    answer = call("train", listing, "--out", data.parent / "run")
    assert answer.code == 3
    assert "gone.png" in answer.error
    assert "do not exist" in answer.error
    assert nothing_complete(data.parent / "run")


def test_predict_on_a_path_that_is_not_there(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path / "*.png", tmp_path):
        answer = call("predict", small_run.folder, path)
        assert answer.code == 3
        assert str(path) in answer.error


def test_unreadable_inputs_are_refused_one_by_one_while_the_rest_goes_on(
    call: Call, small_run: SmallRun, tmp_path: Path
) -> None:
    good = next(small_run.data.rglob("*.png"))
    shutil.copy(good, tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not an image")
    shutil.copy(good, tmp_path / "c.png")
    answer = call("predict", small_run.folder, tmp_path, "--format", "csv")
    assert answer.code == 0
    a, b, c = answer.out.splitlines()[1:]
    assert a.split(",")[1:] == c.split(",")[1:]
    assert ",refused," in b
    assert "not a PNG" in b
    assert "1 of 3 images was refused" in answer.err


def test_every_input_refused_is_exit_code_5(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"junk")
    answer = call("predict", small_run.folder, tmp_path, "--format", "json")
    assert answer.code == 5
    assert answer.out.count('"decision": "refused"') == 2
    assert "every input was refused" in answer.error


def test_image_too_large_for_the_limit_is_refused_not_a_crash(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1, 1), np.uint8)).resize((10_000, 9_000)).save(tmp_path / "bomb.png")
    answer = call("predict", small_run.folder, tmp_path / "bomb.png", "--format", "json")
    assert answer.code == 5
    assert "limit of 89,478,485" in answer.out


def test_bug_of_ours_is_exit_code_1_with_a_way_to_report_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import clearmargin.api

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("impossible")

    monkeypatch.setattr(clearmargin.api, "audit", broken)
    answer = call("audit", "x")
    assert answer.code == 1
    assert "--debug" in answer.error
    with pytest.raises(RuntimeError):
        call("audit", "x", "--debug")


@pytest.mark.parametrize("name", ["x" * 100_000, "\udcff.png"])
def test_impossible_names_are_answered_like_missing_ones(
    call: Call, small_run: SmallRun, tmp_path: Path, name: str
) -> None:
    for command in (
        ["predict", small_run.folder, name],
        ["audit", name],
        ["train", name, "--out", tmp_path / "run"],
    ):
        answer = call(*command)
        assert answer.code == 3
        assert "no such file or folder" in answer.error
    assert call("predict", name, small_run.data).code == 4


def test_run_folder_with_an_impossible_name(call: Call, make_folder: Callable[..., Path]) -> None:
    data = make_folder()
    assert call("train", data, "--out", data.parent / ("x" * 300)).code == 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["explain", "x", "y", "--out", "z", "--alpha", "4"],
            "Invalid value for '--alpha': 4 is above 1. See 'clearmargin explain --help'.",
        ),
        (
            ["predict", "x", "y", "--similar", "99"],
            "Invalid value for '--similar': 99 is above 50. See 'clearmargin predict --help'.",
        ),
        (
            ["predict", "x", "y", "--similar", "a"],
            "Invalid value for '--similar': a is no whole number. See 'clearmargin predict --help'.",
        ),
        (
            ["calibrate", "x", "y", "--out", "z", "--coverage", "2"],
            "Invalid value for '--coverage': 2 is above 1. See 'clearmargin calibrate --help'.",
        ),
        (["predict", "x", "y", "--nonsense"], "No such option: --nonsense. See 'clearmargin predict --help'."),
        (["nonsense"], "No such command 'nonsense'. See 'clearmargin --help'."),
    ],
)
def test_usage_errors_speak_plainly_and_name_the_commands_help(call: Call, arguments: list[str], error: str) -> None:
    answer = call(*arguments)
    assert (answer.code, answer.error) == (2, f"Error: {error}")
