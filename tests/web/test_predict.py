"""Decisions over HTTP are those of the command line, bit for bit, whoever else is asking."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.bundle.small_bundle import carry, drawn_cases
from tests.slides import Placed
from tests.small_run import SmallRun
from tests.web.conftest import MakeClient, files, png
from tests.web.in_process import InProcess

from clearmargin.cli import main
from clearmargin.evaluation.prevalence import shift_prior
from clearmargin.predict.predictor import load_bundle
from clearmargin.web.answers import PredictAnswer

PREDICT = "/api/v1/predict"


def command_line(capsys: pytest.CaptureFixture[str], bundle: Path, paths: Sequence[Path], *options: str) -> list[Any]:
    """The rows of `predict --format json`, in the order of their paths."""
    capsys.readouterr()
    assert main(["predict", str(bundle), *map(str, paths), "--format", "json", *options]) in (0, 5)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def named(paths: Sequence[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    return files(*((path.name, path.read_bytes()) for path in paths))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of several kinds and sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(40):
        (folder / f"P1_idx5_x{1 + 32 * number}_y1_class0.png").write_bytes(png(number))
    generator = np.random.default_rng(5)
    for number, (kind, shape) in enumerate({"JPEG": (40, 50, 3), "BMP": (32, 32), "TIFF": (9, 70, 3)}.items()):
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"other{number}.{kind.lower()}")
    Image.fromarray(generator.integers(0, 65536, (30, 31), dtype=np.uint16)).save(folder / "deep.png")
    return folder


def test_every_row_is_that_of_the_command_line(
    client: InProcess, bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(folder.iterdir())
    wanted = command_line(capsys, bundle, paths)
    answer = client.post(PREDICT, files=named(paths))
    assert answer.status_code == 200
    PredictAnswer.model_validate(answer.json())
    rows = answer.json()["predictions"]
    assert [row.pop("at_prevalence") for row in rows] == [None] * len(rows)
    assert [row.pop("in_context") for row in rows] == [False] * len(rows)
    assert rows == [row | {"path": Path(row["path"]).name} for row in wanted]
    assert rows[0]["patient_id"] == "P1"


def test_the_gate_refuses_over_http_what_it_refuses_at_the_command_line(
    make_client: MakeClient, small_run: SmallRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paths = sorted(small_run.data.glob("P0[01]/*/*.png"))
    (tmp_path / "odd.png").write_bytes(png(3))
    paths.append(tmp_path / "odd.png")
    wanted = command_line(capsys, small_run.folder, paths)
    rows = make_client(small_run.folder).post(PREDICT, files=named(paths)).json()["predictions"]
    assert [(row["probability"], row["decision"], row["reason"]) for row in rows] == [
        (row["probability"], row["decision"], row["reason"]) for row in wanted
    ]
    assert rows[-1]["decision"] == "refused"
    ungated = make_client(small_run.folder, gate=False).post(PREDICT, files=named(paths[-1:])).json()["predictions"]
    assert ungated[0]["probability"] is not None
    assert "not gated" in ungated[0]["reason"]


def test_only_unlike_images_are_an_answer_not_an_error(make_client: MakeClient, small_run: SmallRun) -> None:
    answer = make_client(small_run.folder).post(PREDICT, files=files(("a.png", png(3))))
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["decision"] == "refused"


@pytest.mark.parametrize("context", [True, False])
def test_neighbours_count_as_they_do_at_the_command_line(
    make_client: MakeClient, placed: Placed, capsys: pytest.CaptureFixture[str], context: bool
) -> None:
    paths = sorted(placed.others.rglob("*.png"))[:60]
    wanted = command_line(capsys, placed.run, paths, *([] if context else ["--no-context"]))
    answer = make_client(placed.run).post(PREDICT, files=named(paths), params={"context": context})
    rows = answer.json()["predictions"]
    assert [row["probability"] for row in rows] == [row["probability"] for row in wanted]


def test_a_zip_is_its_members_in_the_order_of_the_command_line(
    client: InProcess, bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "all.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir(), reverse=True):
            archive.write(path, f"deep/{path.name}")
        archive.writestr("notes.txt", "no image")
        archive.writestr("__MACOSX/deep/._a.png", "no image either")
    wanted = command_line(capsys, bundle, [packed])
    answer = client.post(PREDICT, files=files(("all.zip", packed.read_bytes()), ("one.png", png(7))))
    rows = answer.json()["predictions"]
    assert rows[-1]["path"] == "one.png"
    assert [row["path"] for row in rows[:-1]] == [row["path"].removeprefix(f"{tmp_path}/") for row in wanted]
    assert [row["probability"] for row in rows[:-1]] == [row["probability"] for row in wanted]


@pytest.mark.parametrize("batching", [True, False])
def test_requests_at_once_get_the_bits_that_they_get_alone(
    make_client: MakeClient, bundle: Path, batching: bool
) -> None:
    client = make_client(batching=batching)
    pictures = [png(seed) for seed in range(60)]
    expected = [row["probability"] for row in _alone(bundle, pictures)]
    groups = [range(start, min(start + 1 + start % 4, 60)) for start in range(0, 60, 2)]

    def ask(group: range) -> list[float]:
        answer = client.post(PREDICT, files=files(*((f"{number}.png", pictures[number]) for number in group)))
        return [row["probability"] for row in answer.json()["predictions"]]

    with ThreadPoolExecutor(16) as pool:
        for group, got in zip(groups, pool.map(ask, groups), strict=True):
            assert got == [expected[number] for number in group]


def _alone(bundle: Path, pictures: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    predictor = load_bundle(bundle)
    for picture in pictures:
        prediction = predictor.predict_pixels(np.asarray(Image.open(io.BytesIO(picture))))
        yield {"probability": prediction.probability}


def test_similar_images_come_with_their_pictures(make_client: MakeClient, bundle: Path, tmp_path: Path) -> None:
    features = load_bundle(bundle)._session.describe(np.zeros((1, 32, 32, 3), np.uint8))[1].shape[1]
    cases = drawn_cases(features=features)
    client = make_client(carry(bundle, tmp_path / "carrying", cases))
    answer = client.post(PREDICT, files=files(("a.png", png())), params={"similar": 3})
    PredictAnswer.model_validate(answer.json())
    (row,) = answer.json()["predictions"]
    assert len(row["similar"]) == 3
    for similar in row["similar"]:
        picture = client.get(similar["thumbnail"])
        assert picture.headers["content-type"] == "image/png"
        number = int(similar["thumbnail"].rsplit("/", 1)[1])
        shown = np.asarray(Image.open(io.BytesIO(picture.content)))
        np.testing.assert_array_equal(shown, cases.thumbnails[number])
    assert client.get("/api/v1/models/carrying/similar/99").status_code == 404


def test_a_probability_is_shifted_to_the_prevalence_that_is_asked_for(
    make_client: MakeClient, small_run: SmallRun
) -> None:
    client = make_client(small_run.folder, gate=False)
    answer = client.post(PREDICT, files=files(("a.png", png())), params={"prevalence": 0.01})
    (row,) = answer.json()["predictions"]
    observed = client.get("/api/v1/models/run").json()["prevalence"]
    assert observed == 0.5
    assert row["at_prevalence"] == float(shift_prior(np.array(row["probability"]), 0.5, 0.01))


def test_what_cannot_be_read_is_a_row_while_others_are_decided(client: InProcess) -> None:
    answer = client.post(PREDICT, files=files(("a.png", png()[:300]), ("b.png", png()), ("c.txt", b"words")))
    assert answer.status_code == 200
    rows = answer.json()["predictions"]
    assert [row["decision"] == "refused" for row in rows] == [True, False, True]
    assert rows[0]["reason"] and rows[2]["reason"].startswith("the content is not")


def test_several_bundles_are_told_apart_by_name(make_client: MakeClient, bundle: Path, small_run: SmallRun) -> None:
    client = make_client(bundle, small_run.folder, bundle)
    names = [model["name"] for model in client.get("/api/v1/models").json()["models"]]
    assert names == ["small", "run", "small-2"]
    for name in (None, *names):
        answer = client.post(PREDICT, files=files(("a.png", png())), params={"model": name} if name else {})
        assert answer.json()["model"] == (name or "small")
