"""Tables of other software are understood by their usual names, and refused in one line that says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clearmargin.errors import DataError, UsageError
from clearmargin.evaluation.foreign import read_models, read_table
from clearmargin.evaluation.predictions import write_predictions

GOOD = "path,label,probability\na.png,0,0.1\nb.png,1,0.9\nc.png,1,0.4\n"


def save(folder: Path, text: str, name: str = "other.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "header",
    ["path,label,probability", "Image, Target ,SCORE", "id,y_true,prob", "filename,ground_truth,p_malignant"],
)
def test_usual_column_names_are_understood(tmp_path: Path, header: str) -> None:
    table = read_table(save(tmp_path, GOOD.replace("path,label,probability", header))).table
    assert table["path"].tolist() == ["a.png", "b.png", "c.png"]
    assert table["label"].tolist() == [0, 1, 1]
    assert table["probability"].tolist() == [0.1, 0.9, 0.4]
    assert set(table["split"]) == {"test"}
    assert table["patient_id"].isna().all()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_and_a_byte_order_mark_are_read(tmp_path: Path, separator: str) -> None:
    path = save(tmp_path, "\ufeff" + GOOD.replace(",", separator))
    assert read_table(path).table["probability"].tolist() == [0.1, 0.9, 0.4]


def test_ids_in_text_keep_their_zeros_and_numbers_get_no_decimals(tmp_path: Path) -> None:
    text = "id,patient,label,score\n007,0012,0,0.1\n008,,1,0.9\n"
    table = read_table(save(tmp_path, text)).table
    assert table["path"].tolist() == ["007", "008"]
    assert table["patient_id"].iloc[0] == "0012"
    assert pd.isna(table["patient_id"].iloc[1])
    frame = pd.DataFrame({"image_id": [7, 8], "patient": [12.0, np.nan], "label": [False, True], "prob": [0.1, 0.9]})
    frame.to_parquet(tmp_path / "other.parquet")
    table = read_table(tmp_path / "other.parquet").table
    assert table["path"].tolist() == ["7", "8"]
    assert table["patient_id"].iloc[0] == "12"
    assert table["label"].tolist() == [0, 1]


def test_split_words_of_other_software_are_understood(tmp_path: Path) -> None:
    text = "path,label,prob,split\na,0,0.1,Training\nb,1,0.2,val\nc,1,0.3,TEST\n"
    assert read_table(save(tmp_path, text)).table["split"].tolist() == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("0.4", "nan"), r"probability in row 3 \('c.png'\) is 'nan'.*finite"),
        (GOOD.replace("0.4", ""), r"probability in row 3 \('c.png'\) is missing"),
        (GOOD.replace("0.4", "2.5"), r"probability in row 3.*'2.5'.*between 0 and 1; apply the sigmoid"),
        (GOOD.replace("0.4", "-1"), r"probability in row 3.*between 0 and 1"),
        (GOOD.replace(",1,0.4", ",2,0.4"), r"label in row 3.*'2'.*0 \(benign\) and 1 \(malignant\)"),
        (GOOD.replace("c.png", "b.png"), r"'b.png' is twice in the split 'test' \(rows 2 and 3\)"),
        ("path,label,prob,split\na,0,0.1,train\na,0,0.1,test\n", r"'a' is in both 'train' and 'test'"),
        ("path,label,prob,split\na,0,0.1,holdout9\n", r"split in row 1.*'holdout9'.*train, validation, test"),
        ("path,label,prob,decision\na,0,0.1,perhaps\n", r"decision in row 1.*'perhaps'"),
        ("path,label\na,0\n", r"no column 'probability'.*score"),
        ("path,labels,prob\na,0,0.1\n", r"no column 'label' \(there is 'labels'\)"),
        ("path,label,score,prob\na,0,0.1,0.2\n", r"has both 'prob' and 'score': name the column to use 'probability'"),
        ("path,label,prob\n", "has no row"),
        ("", "not a table in CSV or Parquet"),
    ],
)
def test_bad_table_is_refused_with_file_place_and_fix(tmp_path: Path, text: str, message: str) -> None:
    path = save(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    (tmp_path / "other.parquet").write_bytes(b"no parquet")
    for name, message in (("image.csv", "not a table"), ("other.parquet", "not a table"), ("none.csv", "no such file")):
        with pytest.raises(DataError, match=message):
            read_table(tmp_path / name)


def test_threshold_is_the_one_that_the_decisions_follow(tmp_path: Path) -> None:
    rows = "path,label,prob,decision\na,0,0.1,benign\nb,1,0.9,malignant\nc,1,0.4,malignant\n"
    assert read_table(save(tmp_path, rows)).threshold == 0.4
    none_called = rows.replace("malignant", "benign")
    threshold = read_table(save(tmp_path, none_called)).threshold
    assert threshold is not None and threshold > 0.9
    assert read_table(save(tmp_path, rows.replace("benign", "0").replace("malignant", "1"))).threshold == 0.4


@pytest.mark.parametrize("decisions", [("malignant", "benign", "malignant"), ("benign", "malignant", "abstain")])
def test_no_threshold_is_made_up(tmp_path: Path, decisions: tuple[str, ...]) -> None:
    assert read_table(save(tmp_path, GOOD)).threshold is None
    rows = [f"{name},{label},{share},{word}" for name, label, share, word in
            zip("abc", (0, 1, 1), (0.1, 0.9, 0.4), decisions, strict=True)]  # fmt: skip
    assert read_table(save(tmp_path, "\n".join(["path,label,prob,decision", *rows]))).threshold is None


def test_thresholds_go_to_the_files_that_have_none_in_their_order(tmp_path: Path) -> None:
    decided = "path,label,prob,decision\na,0,0.1,benign\nb,1,0.9,malignant\n"
    paths = [save(tmp_path, GOOD, "a.csv"), save(tmp_path, decided, "b.csv"), save(tmp_path, GOOD, "c.csv")]
    assert [model.threshold for model in read_models(paths)] == [None, 0.9, None]
    assert [model.threshold for model in read_models(paths, thresholds=[0.3])] == [0.3, 0.9, 0.3]
    assert [model.threshold for model in read_models(paths, thresholds=[0.3, 0.5])] == [0.3, 0.9, 0.5]
    for wrong, message in (([0.1, 0.2, 0.3], "3 thresholds given, and 2 files need one"), ([1.5], "between 0 and 1")):
        with pytest.raises(UsageError, match=message):
            read_models(paths, thresholds=wrong)
    with pytest.raises(UsageError, match="leave the threshold out"):
        read_models([paths[1]], thresholds=[0.5])


def test_names_differ_where_file_names_do_not(tmp_path: Path) -> None:
    paths = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        paths.append(save(tmp_path / folder, GOOD))
    assert [model.name for model in read_models(paths)] == ["one/other.csv", "two/other.csv"]
    assert [model.name for model in read_models([paths[0], paths[0]])] == ["other.csv (1)", "other.csv (2)"]


def test_run_folder_has_the_threshold_of_its_metrics(
    tmp_path: Path, clustered: Callable[..., object], frame_of: Callable[..., pd.DataFrame]
) -> None:
    frame = frame_of(clustered(0, n_patients=6), threshold=0.3)
    write_predictions(frame, tmp_path / "predictions.csv")
    with pytest.raises(DataError, match=r"not a finished run \(no metrics.json\)"):
        read_models([tmp_path])
    (tmp_path / "metrics.json").write_text(json.dumps({"operating_point": {"threshold": 0.3}}))
    by_folder, by_file = read_models([tmp_path, tmp_path / "predictions.csv"])
    assert by_folder.threshold == by_file.threshold == 0.3
    pd.testing.assert_frame_equal(by_folder.table, by_file.table)
    assert by_folder.table["probability"].tolist() == frame["probability"].tolist()
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(DataError, match="has no operating point"):
        read_models([tmp_path])
