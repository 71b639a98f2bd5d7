"""`predict --out`: results stream, and an interrupted file is completed byte for byte."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Answer, SmallRun
from tests.slides import PATCHES, Placed

from clearmargin.cli.inputs import Inputs
from clearmargin.images.limits import Limits
from clearmargin.images.read import EncodedImage, read_encoded
from clearmargin.predict import predictor

Call = Callable[..., Answer]


@pytest.fixture(params=["csv", "json"])
def output(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def whole(call: Call, small_run: SmallRun, tmp_path: Path, output: str) -> Path:
    """A file of answers that was never interrupted; one image of them is refused."""
    shutil.copytree(small_run.data, tmp_path / "data")
    (tmp_path / "data" / "P03" / "0" / 'broken "1",\n2.png').write_bytes(b"no image")
    path = tmp_path / f"whole.{output}"
    answer = call("predict", small_run.folder, tmp_path / "data", "--out", path)
    assert (answer.code, answer.out) == (0, "")
    assert "1 of 145 images was refused" in answer.err
    return path


def cut(whole: Path, size: int) -> Path:
    """The file as a kill leaves it after so many bytes."""
    part = whole.with_name(f"part{whole.suffix}")
    part.write_bytes(whole.read_bytes()[:size])
    shutil.copy(f"{whole}.job.json", f"{part}.job.json")
    return part


def test_the_file_is_what_standard_output_would_be(call: Call, small_run: SmallRun, whole: Path, output: str) -> None:
    answer = call("predict", small_run.folder, whole.parent / "data", "--format", output)
    assert whole.read_text() == answer.out


def test_a_file_cut_anywhere_is_completed_byte_for_byte(call: Call, small_run: SmallRun, whole: Path) -> None:
    content = whole.read_bytes()
    torn = content.index(b"broken") + 10  # between the quotes of a CSV, where a line ends within a row
    for size in (0, 3, len(content) // 3, torn, len(content) - 1, len(content)):
        part = cut(whole, size)
        answer = call("predict", small_run.folder, whole.parent / "data", "--out", part, "--resume")
        assert answer.code == 0
        assert part.read_bytes() == content
        assert "1 of 145 images was refused" in answer.err


def test_resume_begins_where_nothing_is_there(call: Call, small_run: SmallRun, whole: Path) -> None:
    other = whole.parent / "new" / whole.name
    assert call("predict", small_run.folder, whole.parent / "data", "--out", other, "--resume").code == 0
    assert other.read_bytes() == whole.read_bytes()


def test_the_end_says_what_was_written_where_and_by_what_rule(call: Call, small_run: SmallRun, whole: Path) -> None:
    words = {word: len(re.findall(rf"\b{word}[\",]", whole.read_text())) for word in ("benign", "malignant", "abstain")}
    counts = ", ".join(f"{number} {word}" for word, number in words.items() if number)
    form = ", one JSON object a line" if whole.suffix == ".json" else ""
    for resume in ([], ["--resume"]):  # of which nothing is left to do
        path = whole if resume else whole.with_name(f"again{whole.suffix}")
        told = call("predict", small_run.folder, whole.parent / "data", "--out", path, *resume).err.splitlines()
        assert f"Wrote 145 images to {path}{form}: {counts}, 1 refused." in told
        assert f"{path.name}.job.json beside it is for --resume alone." in told
        assert any(line.startswith("Malignant at or above ") for line in told)
    assert (
        "  145 of 145 ("
        in call("predict", small_run.folder, whole.parent / "data", "--out", path.with_name("new.csv")).err
    )


def test_a_decision_that_there_is_none_of_is_a_changed_row(call: Call, small_run: SmallRun, whole: Path) -> None:
    part = cut(whole, 2000)
    part.write_bytes(part.read_bytes().replace(b"benign,", b"b9,", 1).replace(b'"benign"', b'"b9"', 1))
    answer = call("predict", small_run.folder, whole.parent / "data", "--out", part, "--resume")
    assert (answer.code, "the file was changed" in answer.error) == (3, True)


def test_a_file_that_is_there_is_not_overwritten(call: Call, small_run: SmallRun, whole: Path) -> None:
    before = whole.read_bytes()
    answer = call("predict", small_run.folder, small_run.data, "--out", whole)
    assert answer.code == 2
    assert "is there already. Go on with it with --resume, or give another --out." in answer.error
    assert whole.read_bytes() == before


def test_another_job_does_not_go_on_with_the_file(call: Call, small_run: SmallRun, placed: Placed, whole: Path) -> None:
    data, part = whole.parent / "data", cut(whole, 1000)
    before = part.read_bytes()

    def refusal(bundle: Path, *arguments: object) -> str:
        answer = call("predict", bundle, *arguments, "--out", part, "--resume")
        assert answer.code == 2
        assert part.read_bytes() == before
        return answer.error

    assert "begun with another bundle" in refusal(placed.run, data)
    assert "begun with --context, not --no-context, so" in refusal(small_run.folder, data, "--no-context")
    told = refusal(small_run.folder, data, "--frame", 2, "--no-gate")
    assert "begun with without" not in told
    assert "--frame: none, not 2" in told and "--gate, not --no-gate" in told
    assert "begun with other inputs" in refusal(small_run.folder, data / "P00")
    (data / "P00" / "0" / "new.png").touch()
    assert "begun with other inputs" in refusal(small_run.folder, data)
    Path(f"{part}.job.json").unlink()
    assert "says what it was begun with" in refusal(small_run.folder, data)


def test_a_file_is_gone_on_with_in_its_format(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    arguments = ["predict", small_run.folder, small_run.data / "P00", "--out", tmp_path / "answers", "--resume"]
    assert call(*arguments, "--format", "csv").code == 0
    assert "begun with another format" in call(*arguments, "--format", "json").error


def test_rows_that_were_changed_are_not_gone_on_with(call: Call, small_run: SmallRun, whole: Path) -> None:
    part = cut(whole, 2000)
    part.write_bytes(part.read_bytes().replace(b"P00_idx5_x1_", b"P00_idx5_x9_", 1))
    answer = call("predict", small_run.folder, whole.parent / "data", "--out", part, "--resume")
    assert answer.code == 3
    assert "row 3 is not of the image that stands there" in answer.error


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--out", "a.txt"], "write a .csv, .json or .jsonl file"),
        (["--out", "a.csv", "--format", "table"], "write a .csv, .json or .jsonl file"),
        (["--out", "a.csv", "--format", "json"], "its name says csv, --format says json"),
        (["--out", "a.jsonl", "--format", "csv"], "its name says json, --format says csv"),
        (["--resume"], "give --out FILE"),
        (["--resume", "--out", "a.csv", "--level", "patient"], "give --out FILE"),
        (["--out", "."], "--format csv or json"),
        (["--out", "/proc/x.csv"], "/proc/x.csv: not writable"),
        (["--out", "/proc/x.csv", "--level", "patient"], "/proc/x.csv: not writable"),
        (["--out", "/tmp/mistyped/more/x.csv"], "/tmp/mistyped: no such folder. Make it, or give another file with"),
    ],
)
def test_what_cannot_be_written_is_a_usage_error(
    call: Call, small_run: SmallRun, arguments: list[str], text: str
) -> None:
    answer = call("predict", small_run.folder, small_run.data, *arguments)
    assert answer.code == 2
    assert text in answer.error


def test_in_context_a_slide_of_which_a_part_is_there_is_predicted_again(
    call: Call, placed: Placed, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.csv"
    assert call("predict", placed.run, placed.others, "--out", whole).code == 0
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) == 4 * PATCHES + 1
    for rows, kept in ((10, 0), (PATCHES, PATCHES), (3 * PATCHES - 1, 2 * PATCHES), (4 * PATCHES, 4 * PATCHES)):
        part = cut(whole, len(b"".join(lines[: rows + 1])) + 5)
        answer = call("predict", placed.run, placed.others, "--out", part, "--resume")
        assert answer.code == 0
        assert part.read_bytes() == content
        assert (f"Going on after {kept} of" in answer.err) == (kept > 0)


def command(run: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "clearmargin", "predict", str(run), *map(str, arguments)]


@pytest.fixture
def many(small_run: SmallRun, tmp_path: Path) -> Path:
    """A folder of 3,000 links to images."""
    files = sorted(small_run.data.rglob("*.png"))
    (tmp_path / "many").mkdir()
    for number in range(3000):
        os.link(files[number % len(files)], tmp_path / "many" / f"{number:05}.png")
    return tmp_path / "many"


def wait_for_rows(path: Path, process: subprocess.Popen[bytes], rows: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < rows:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_again_and_again_the_file_is_that_of_an_uninterrupted_run(
    call: Call, small_run: SmallRun, many: Path, tmp_path: Path
) -> None:
    assert call("predict", small_run.folder, many, "--out", tmp_path / "whole.jsonl").code == 0
    part = tmp_path / "part.jsonl"
    arguments = command(small_run.folder, many, "--out", part, "--resume")
    for rows, sign in ((1, signal.SIGKILL), (700, signal.SIGTERM), (1500, signal.SIGKILL)):
        with subprocess.Popen(arguments, stderr=subprocess.PIPE) as process:
            wait_for_rows(part, process, rows)
            process.send_signal(sign)
            told = process.communicate()[1].decode()
        assert process.returncode == (-9 if sign == signal.SIGKILL else 130)
        assert ("Go on with the same command and --resume" in told) == (sign == signal.SIGTERM)
        assert part.read_bytes().count(b"\n") < 3000
    assert call("predict", small_run.folder, many, "--out", part, "--resume").code == 0
    assert part.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_the_first_answers_come_long_before_the_last_image_is_read(
    small_run: SmallRun, many: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clearmargin.cli import main

    out = many.parent / "out.csv"
    there: list[int] = []
    read = 0

    def watched(path: str, limits: Limits) -> EncodedImage:
        nonlocal read
        read += 1
        if read == 1000:
            there.append(out.read_bytes().count(b"\n"))
        return read_encoded(path, limits)

    monkeypatch.setattr(predictor, "read_encoded", watched)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert main(["predict", str(small_run.folder), str(many), "--out", str(out)]) == 0
    assert there[0] > 1000 - 5 * 32
    assert "Predicting" in capsys.readouterr().err


_PEAK = """
import itertools, resource, sys
from clearmargin.cli.inputs import Inputs
from clearmargin.predict.predictor import load_bundle
from clearmargin.types import Record
class Many:
    def __iter__(self):
        return (Record(sys.argv[2], "P", f"S{n // 50}", n % 50, 0) for n in range(int(sys.argv[3])))
assert sum(1 for _ in load_bundle(sys.argv[1]).predict_records(Many(), context=False)) == int(sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_images(small_run: SmallRun) -> None:
    file = next(small_run.data.rglob("*.png"))

    def peak_kb(images: int) -> int:
        arguments = [sys.executable, "-c", _PEAK, str(small_run.folder), str(file), str(images)]
        return int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)

    assert peak_kb(6000) < peak_kb(600) + 8 * 1024


def test_a_listing_is_gone_through_without_being_kept(many: Path) -> None:
    inputs = Inputs([str(many)])
    assert len(inputs) == sum(1 for _ in inputs) == 3000
    assert inputs.sha256 == Inputs([str(many)]).sha256 != Inputs([str(many / "00000.png")]).sha256
