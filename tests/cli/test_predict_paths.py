"""Every way to name images to `predict`, and that each means the images it should."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Answer, SmallRun
from tests.data.layouts import zip_folder
from tests.data.sources.dicom_files import Shot, put

Call = Callable[..., Answer]


def rows(answer: Answer) -> list[dict[str, object]]:
    return [json.loads(line) for line in answer.out.splitlines()]


@pytest.fixture
def ask(call: Call, small_run: SmallRun) -> Callable[..., Answer]:
    return lambda *arguments: call("predict", small_run.folder, *arguments, "--format", "json")


def test_a_zip_is_searched_as_its_folder_is(ask: Call, small_run: SmallRun, tmp_path: Path) -> None:
    packed = zip_folder(small_run.data, tmp_path / "data.zip")
    plain, zipped = rows(ask(small_run.data)), rows(ask(packed))
    assert len(plain) == len(zipped) > 100
    for one, other in zip(plain, zipped, strict=True):
        assert str(other["path"]).removeprefix(f"{packed}/") == str(one["path"]).removeprefix(f"{small_run.data}/")
        assert {**one, "path": ""} == {**other, "path": ""}


def test_one_member_of_a_zip(ask: Call, small_run: SmallRun, tmp_path: Path) -> None:
    packed = zip_folder(small_run.data, tmp_path / "data.zip")
    file = next(small_run.data.rglob("*.png"))
    (row,) = rows(ask(f"{packed}/{file.relative_to(small_run.data).as_posix()}"))
    assert row["decision"] in ("benign", "malignant")


def test_every_row_of_an_npz(ask: Call, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", test_images=images, test_labels=np.zeros((5, 1), np.uint8))
    answers = rows(ask(tmp_path / "set.npz"))
    assert [row["path"] for row in answers] == [f"{tmp_path}/set.npz/test_images/{number}" for number in range(5)]
    assert rows(ask(f"{tmp_path}/set.npz/test_images/3")) == [answers[3]]


def test_dicom_files_without_an_extension_are_found_in_a_folder(ask: Call, tmp_path: Path) -> None:
    put(tmp_path / "study", {"IM0001": Shot(1).data(), "1.2.3.4": Shot(2).data(), "notes": "text", "a.txt": "text"})
    answers = rows(ask(tmp_path / "study", "--no-gate"))  # they are no tissue
    assert [Path(str(row["path"])).name for row in answers] == ["1.2.3.4", "IM0001"]
    assert all(row["decision"] in ("benign", "malignant") for row in answers)


def test_of_several_frames_one_is_chosen(ask: Call, tmp_path: Path) -> None:
    put(tmp_path / "study", {"LOOP0001": Shot(1).data(frames=3)})
    refused = ask(tmp_path / "study")
    assert refused.code == 5
    assert "has 3 frames; choose one with --frame" in str(rows(refused)[0]["reason"])
    chosen = rows(ask(tmp_path / "study", "--frame", 2, "--no-gate"))
    assert rows(ask(f"{tmp_path}/study/LOOP0001#frame=2", "--no-gate")) == chosen
    assert str(chosen[0]["path"]).endswith("LOOP0001#frame=2")
    assert chosen[0]["probability"] != rows(ask(tmp_path / "study", "--frame", 1, "--no-gate"))[0]["probability"]


def test_a_whole_slide_file_is_called_one(ask: Call, small_run: SmallRun, tmp_path: Path) -> None:
    named = tmp_path / "a.svs"
    named.write_bytes(b"II*\0")
    os.truncate(named, 2**32)  # as large as they are
    answer = ask(named)
    assert answer.code == 5
    assert "is a whole-slide file, which is not read yet: cut it into patches" in str(rows(answer)[0]["reason"])
    assert "The image was refused, with its reason." in answer.err
    assert "holds 1 whole-slide file, which" in ask(tmp_path).error
    (tmp_path / "B.NDPI").touch()
    (tmp_path / "a.png").write_bytes(next(small_run.data.rglob("*.png")).read_bytes())
    answer = ask(tmp_path)
    assert (answer.code, len(rows(answer))) == (0, 1)
    assert answer.err.count("Note: 2 whole-slide files are left out, which are not read yet: cut them into") == 1


def test_a_box_of_an_image(ask: Call, small_run: SmallRun) -> None:
    file = next(small_run.data.rglob("*.png"))
    (row,) = rows(ask(f"{file}#xywh=4,4,16,16"))
    assert row["decision"] in ("benign", "malignant")
    outside = ask(f"{file}#xywh=4,4,160,16")
    assert outside.code == 5
    assert "reaches beyond the image" in str(rows(outside)[0]["reason"])


def test_masks_of_a_folder_are_left_out_and_said(ask: Call, small_run: SmallRun, tmp_path: Path) -> None:
    data = next(small_run.data.rglob("*.png")).read_bytes()
    for name in ("a.png", "a_mask.png", "a_mask_1.png", "b_mask.png"):
        (tmp_path / name).write_bytes(data)
    answer = ask(tmp_path)
    assert [Path(str(row["path"])).name for row in rows(answer)] == ["a.png", "b_mask.png"]
    assert "2 masks are left out" in answer.err
    assert len(rows(ask(*sorted(tmp_path.glob("a*.png"))))) == 1
    assert len(rows(ask(tmp_path / "a_mask.png"))) == 1


def test_a_model_of_crops_says_so_before_it_answers(
    call: Call, small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearmargin.bundle.read import read_bundle
    from clearmargin.predict import predictor

    file = next(small_run.data.rglob("*.png"))
    assert "crops around lesions" not in call("predict", small_run.folder, file).err
    bundle = read_bundle(small_run.folder)
    crops = replace(bundle, model=bundle.model.model_copy(update={"content": "lesion"}))
    monkeypatch.setattr(predictor, "read_bundle", lambda _: crops)
    assert "trained on crops around lesions" in call("predict", small_run.folder, file).err


def test_the_table_tells_the_threshold(call: Call, small_run: SmallRun) -> None:
    answer = call("predict", small_run.folder, next(small_run.data.rglob("*.png")))
    assert re.search(
        r"Malignant at or above 0\.\d{4} \(balanced\)(\.|; cannot tell from 0\.\d{4} to \d\.\d{4} )", answer.err
    )
