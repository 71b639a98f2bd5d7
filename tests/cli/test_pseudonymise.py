"""End to end: a run, an audit page and a split of data that name a person everywhere hold no name at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Answer, write_patches

from clearmargin.bundle.cases import load_cases
from clearmargin.bundle.read import CASES, read_bundle
from clearmargin.cli import main

PERSON = re.compile(rb"DOE|JANE|P\d\d(?![\d-])")
REGEX = r"_(P\d+)/"


def write_named(root: Path) -> Path:
    write_patches(root / "patches", patients=8, per_class=4, px=16)
    data = root / "DOE_JANE_archive"
    for number, file in enumerate(sorted((root / "patches").rglob("*.png"))):
        patient = re.search(r"P\d\d", file.name)
        assert patient is not None
        label = "malignant" if file.parent.name == "1" else "benign"
        target = data / label / f"DOE_JANE_{patient[0]}" / f"DOE_JANE_{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    (data / "DOE_JANE_letter.txt").write_text("x")
    (data / "benign" / "DOE_JANE_P00" / "DOE_JANE_broken.png").write_bytes(b"not an image")
    return data


def leaks(folder: Path) -> list[str]:
    """The files below the folder that name the person, and the names that do."""
    return [
        str(file.relative_to(folder))
        for file in sorted(folder.rglob("*"))
        if PERSON.search(file.name.encode()) or (file.is_file() and PERSON.search(readable(file)))
    ]


def readable(file: Path) -> bytes:
    if file.suffix == ".parquet":
        import pandas as pd

        return str(pd.read_parquet(file).to_csv()).encode()
    if file.suffix in (".safetensors", ".onnx"):
        return b""  # numbers, in which any three letters come up by chance
    text = re.sub(rb"base64,[A-Za-z0-9+/=]+", b"", file.read_bytes())
    return re.sub(rb'"[A-Za-z0-9+/]{64,}={0,2}"', b"", text) if file.name == "model.json" else text  # the same


@pytest.fixture(scope="module")
def named_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("named")
    data = write_named(root)
    run = root / "run"
    arguments = ["train", data, "--out", run, "--epochs", 1, "--patient-regex", REGEX, "--pseudonymise"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEARMARGIN_CACHE", str(root / "cache"))
        patch.setenv("CLEARMARGIN_KEY_FILE", str(root / "key"))
        assert main([*map(str, arguments), "--set", "evaluate.resamples=100", "--tolerance", "0.1"]) == 0
    return data, run


def test_the_search_finds_a_name_where_there_is_one(named_run: tuple[Path, Path]) -> None:
    assert len(leaks(named_run[0])) > 60


def test_no_file_of_a_run_names_the_person(named_run: tuple[Path, Path]) -> None:
    assert leaks(named_run[1]) == []


def test_the_bundle_carries_cases_of_patients_of_train_without_any_name(named_run: tuple[Path, Path]) -> None:
    import pandas as pd

    bundle = read_bundle(named_run[1])
    split = pd.read_csv(named_run[1] / "split.csv")
    train = split[split["split"] == "train"]
    assert len(set(split["split"])) == 3
    rows = load_cases(bundle).rows
    assert len(rows) == 2 * train["label"].value_counts().min()
    assert {row.patient_id for row in rows} == set(train["patient_id"])
    assert {row.path for row in rows} == {None}
    assert bundle.model.cases is not None
    assert bundle.model.cases.pseudonymous
    assert not any(re.search(rb"DOE|JANE|\.png", bundle.read(name)) for name in CASES)


def test_the_run_is_as_complete_as_any(named_run: tuple[Path, Path]) -> None:
    import pandas as pd

    table = pd.read_csv(named_run[1] / "predictions.csv")
    assert table["patient_id"].nunique() == 8
    assert table["patient_id"].str.fullmatch(r"patient-[0-9a-f]{16}").all()
    assert table["path"].str.fullmatch(r"data-[0-9a-f]{16}/image-[0-9a-f]{16}\.png").all()
    assert "data:image/png" in (named_run[1] / "report.html").read_text(encoding="utf-8")


def test_nothing_that_is_printed_names_the_person(
    named_run: tuple[Path, Path], tmp_path: Path, call: Callable[..., Answer]
) -> None:
    data, _ = named_run
    options = [data, "--patient-regex", REGEX, "--pseudonymise", "--tolerance", "0.1"]
    for arguments in (
        ["audit", *options],
        ["audit", *options, "--json"],
        ["audit", *options, "--html", tmp_path / "page.html", "--fix-list", tmp_path / "fix.txt"],
        ["split", *options, "--out", tmp_path / "split.csv"],
    ):
        answer = call(*arguments)
        assert answer.code == 0, answer.err
        assert not PERSON.search((answer.out + answer.err).encode().replace(str(tmp_path).encode(), b""))
    assert leaks(tmp_path) == []
    assert (tmp_path / "fix.txt").read_text().count("image-") == 1


def test_a_run_goes_on_with_the_same_words(
    named_run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, call: Callable[..., Answer]
) -> None:
    data, run = named_run
    monkeypatch.setenv("CLEARMARGIN_KEY_FILE", str(run.parent / "key"))
    answer = call("train", data, "--out", run, "--resume")
    assert answer.code == 0, answer.err
    assert "complete already" in answer.err


@pytest.mark.parametrize(
    "options",
    [
        ["--patient-regex", "nothing like it"],
        ["--patient-regex", r"_(P\d+)/", "--exclude", "DOE_JANE_list.txt"],
        ["--patient-regex", r"_(P\d+)/", "--source", "dicom"],
        ["--source", "mias"],
    ],
)
def test_errors_name_nobody(
    named_run: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., Answer],
    options: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DOE_JANE_list.txt").write_text("DOE_JANE_P77.png\n")
    answer = call("audit", named_run[0], *options, "--pseudonymise")
    assert answer.code == 3
    assert not PERSON.search(answer.error.encode()), answer.error
    assert "--pseudonymise" in answer.error
    assert PERSON.search(call("audit", named_run[0], *options).error.encode())


def test_a_table_that_names_a_person_where_a_label_should_be(tmp_path: Path, call: Callable[..., Answer]) -> None:
    (tmp_path / "m.csv").write_text("path,label\na.png,JANE DOE\n")
    answer = call("audit", tmp_path / "m.csv", "--pseudonymise")
    assert answer.code == 3
    assert not PERSON.search(answer.error.encode()), answer.error
    assert "line 2" in answer.error
