from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearmargin.errors import DataError
from clearmargin.evaluation.predictions import check_predictions, read_predictions, write_predictions
from clearmargin.types import PREDICTION_COLUMNS


@pytest.fixture
def frame(clustered: Callable[..., Any], frame_of: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    return frame_of(clustered(0, n_patients=4, images_each=5))


def changed(frame: pd.DataFrame, column: str, value: object, *, row: int = 3) -> pd.DataFrame:
    copy = frame.copy()
    copy[column] = copy[column].astype("object")
    copy.loc[row - 1, column] = value
    return copy


def test_a_table_comes_back_as_it_was(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_predictions(frame, tmp_path / "predictions.csv")
    again = read_predictions(tmp_path / "predictions.csv")
    assert tuple(again.columns) == PREDICTION_COLUMNS
    pd.testing.assert_frame_equal(again, frame.astype({"slide_id": "str"}), check_dtype=False)
    assert {name: str(again[name].dtype) for name in ("x", "y", "label", "logit", "probability")} == {
        "x": "Int64",
        "y": "Int64",
        "label": "int64",
        "logit": "float64",
        "probability": "float64",
    }
    assert again["y"].isna().all()
    assert again["slide_id"].isna().all()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    logits=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    probability=st.floats(0, 1),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1),
)
def test_floats_and_names_come_back_bit_for_bit(
    tmp_path: Path, logits: list[float], probability: float, name: str
) -> None:
    frame = pd.DataFrame({column: [None] * len(logits) for column in PREDICTION_COLUMNS}).assign(
        path=[f"{name} {number}" for number in range(len(logits))],
        patient_id=name,
        split="test",
        label=1,
        logit=logits,
        probability=probability,
        decision="abstain",
    )
    write_predictions(frame, tmp_path / "predictions.csv")
    again = read_predictions(tmp_path / "predictions.csv")
    assert again["logit"].to_numpy().tobytes() == np.array(logits).tobytes()
    assert (again["probability"].to_numpy() == probability).all()
    assert again["path"].tolist() == frame["path"].tolist()
    assert again["patient_id"].tolist() == frame["patient_id"].tolist()


@pytest.mark.parametrize("name", ["0012", "NA", "None", "nan", "1e5", "8863", "true", ' a, "b"\n', "a\rb"])
def test_ids_stay_the_text_they_are(frame: pd.DataFrame, tmp_path: Path, name: str) -> None:
    frame["patient_id"] = name
    frame["slide_id"] = pd.Series([name] * 19 + [None], dtype="str")
    write_predictions(frame, tmp_path / "predictions.csv")
    again = read_predictions(tmp_path / "predictions.csv")
    assert set(again["patient_id"]) == set(again["slide_id"].dropna()) == {name}
    assert again["slide_id"].isna().sum() == 1
    assert again["y"].isna().all()


def test_float32_logits_are_written_without_loss(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["logit"] = frame["logit"].astype("float32")
    write_predictions(frame, tmp_path / "predictions.csv")
    again = read_predictions(tmp_path / "predictions.csv")
    assert again["logit"].tolist() == frame["logit"].astype("float64").tolist()


def test_missing_is_written_empty_and_columns_stand_in_their_order(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[0, "patient_id"] = None
    frame.loc[1, "patient_id"] = ""
    mixed = frame[list(reversed(PREDICTION_COLUMNS))].assign(extra=1)
    write_predictions(mixed, tmp_path / "predictions.csv")
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[0] == ",".join(PREDICTION_COLUMNS)
    assert lines[1].startswith("test/00000.png,,,0,,test,")
    assert lines[2].startswith("test/00001.png,,,50,,test,")
    assert read_predictions(tmp_path / "predictions.csv")["patient_id"].isna().sum() == 2


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "predictions.csv"
    write_predictions(frame, file)
    before = file.read_bytes()

    def write_half(self: pd.DataFrame, target: Path, **options: object) -> None:
        target.write_text("path,pat")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", write_half)
    with pytest.raises(OSError, match="disk full"):
        write_predictions(frame, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_table_that_would_be_refused_is_not_written(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="logit in row 3"):
        write_predictions(changed(frame, "logit", np.nan), tmp_path / "predictions.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("logit", np.nan, r"logit in row 3 \('test/00002.png'\) is missing: it must be a finite number"),
        ("logit", np.inf, r"logit in row 3 .* is 'inf'"),
        ("logit", "high", r"logit in row 3 .* is 'high'"),
        ("probability", np.nan, r"probability in row 3 .* is missing"),
        ("probability", 1.5, r"probability in row 3 .* is '1.5': it must be between 0 and 1; apply the sigmoid"),
        ("probability", -0.1, r"probability in row 3 .* is '-0.1'"),
        ("label", 2, r"label in row 3 .* is '2': 0 \(benign\) and 1 \(malignant\) are the only labels"),
        ("label", 0.5, r"label in row 3 .* is '0.5'"),
        ("label", None, r"label in row 3 .* is missing"),
        ("label", "malignant", r"label in row 3 .* is 'malignant'"),
        ("split", "valid", r"split in row 3 .* is 'valid': it must be one of train, validation, test"),
        ("split", None, r"split in row 3 .* is missing"),
        ("decision", "refused", r"decision in row 3 .* is 'refused': it must be one of benign, malignant, abstain"),
        ("decision", None, r"decision in row 3 .* is missing"),
        ("x", 1.5, r"x in row 3 .* is '1.5': it must be a whole number of pixels, or empty"),
        ("y", "left", r"y in row 3 .* is 'left'"),
        ("y", np.inf, r"y in row 3 .* is 'inf'"),
        ("patient_id", 12, r"patient_id in row 3 .* is '12': it must be text"),
        ("path", None, "row 3 has no path"),
        ("path", "test/00000.png", r"'test/00000.png' is twice in the split 'test' \(rows 1 and 3\)"),
    ],
)
def test_a_refused_table_names_column_row_and_fix(
    frame: pd.DataFrame, column: str, value: object, message: str
) -> None:
    check_predictions(frame)
    with pytest.raises(DataError, match=message):
        check_predictions(changed(frame, column, value))


def test_further_rows_with_the_same_fault_are_counted(frame: pd.DataFrame) -> None:
    frame.loc[5:8, "probability"] = 2.0
    with pytest.raises(DataError, match=r"probability in row 6 .* is '2.0' \(and in 3 more\)"):
        check_predictions(frame)


def test_an_image_in_two_splits_is_a_leak_and_named_so(frame: pd.DataFrame) -> None:
    frame["split"] = ["train"] * 10 + ["test"] * 10
    check_predictions(frame)
    with pytest.raises(DataError, match=r"'test/00000.png' is in both 'train' and 'test' \(rows 1 and 15\).*rebuild"):
        check_predictions(changed(frame, "path", "test/00000.png", row=15))


def test_missing_columns_are_named_with_the_closest_present(frame: pd.DataFrame) -> None:
    renamed = frame.rename(columns={"patient_id": "patientid", "probability": "prob"}).drop(columns="slide_id")
    with pytest.raises(DataError, match=r"columns 'patient_id' \(there is 'patientid'\), 'slide_id'") as caught:
        check_predictions(renamed)
    assert "'probability' (there is 'prob')" in str(caught.value)


def test_a_table_without_rows_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="no row"):
        check_predictions(frame.iloc[:0])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00binary", b'a,b\n1,2,3,4\n"x'])
def test_a_file_that_is_no_table_is_an_error_with_its_path(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "predictions.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"predictions.csv: not a table in CSV"):
        read_predictions(file)


def test_a_missing_file_and_a_bad_row_name_the_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    with pytest.raises(DataError, match=r"predictions.csv: no such file"):
        read_predictions(file)
    changed(frame, "logit", "n/a").to_csv(file, index=False)
    with pytest.raises(DataError, match=r"predictions.csv: logit in row 3 .* is 'n/a'"):
        read_predictions(file)


def test_index_of_the_frame_does_not_matter(frame: pd.DataFrame, tmp_path: Path) -> None:
    shuffled = frame.sample(frac=1, random_state=0)
    write_predictions(shuffled, tmp_path / "predictions.csv")
    again = read_predictions(tmp_path / "predictions.csv")
    assert again["path"].tolist() == shuffled["path"].tolist()
    assert again["logit"].tolist() == shuffled["logit"].tolist()
