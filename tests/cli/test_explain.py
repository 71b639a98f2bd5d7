"""`explain` writes whole files, on the bundle's scale, refuses with reasons, and says what it explains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.bundle.small_bundle import write_working
from tests.cli.conftest import Answer, SmallRun
from tests.slides import Placed

import clearmargin
from clearmargin.bundle.read import read_bundle
from clearmargin.errors import UsageError
from clearmargin.explanation import explainer
from clearmargin.explanation.draw import ALPHA
from clearmargin.explanation.methods import METHODS
from clearmargin.files import partial_path
from clearmargin.images.preprocess import Preprocessing
from clearmargin.images.read import read_image

Call = Callable[..., Answer]


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def some(run: SmallRun, number: int = 2) -> list[Path]:
    return sorted(run.data.rglob("*.png"))[:number]


def test_a_training_keeps_the_scale_of_every_method(small_run: SmallRun) -> None:
    model = read_bundle(small_run.folder).model
    assert model.saliency is not None
    assert list(model.saliency) == list(METHODS)
    assert {scale.of for scale in model.saliency.values()} == {"images of validation"}
    card = (small_run.folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "one fixed scale, found on images of validation: they are evidence for this network, not for disease" in card


def test_pictures_maps_and_an_index_of_them(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = some(small_run)
    arguments = [*files, "--out", out, "--method", "grad_cam", "--method", "occlusion", "--format", "json"]
    answer = call("explain", small_run.folder, *arguments)
    assert answer.code == 0, answer.err
    assert (out / "explanations.jsonl").read_text() == answer.out
    listed = rows(answer.out)
    assert [(row["path"], row["method"]) for row in listed] == [
        (str(file), name) for file in files for name in ("grad_cam", "occlusion")
    ]
    predicted = rows(call("predict", small_run.folder, *files, "--format", "json", "--no-context").out)
    for row, prediction in zip(listed[::2], predicted, strict=True):
        assert {key: row[key] for key in prediction} == prediction
    for row in listed:
        values = np.load(out / str(row["map"]), allow_pickle=False)
        assert values.shape == (32, 32)
        assert values.dtype == np.float32
        assert float(values.max()) == row["largest"]
        with Image.open(out / str(row["picture"])) as picture:
            assert picture.width >= 640
    named = {str(row[kind]) for row in listed for kind in ("picture", "map")}
    assert {file.name for file in out.iterdir()} == {*named, "explanations.jsonl"}
    assert len(named) == 8


def test_the_table_says_that_a_map_is_empty(
    call: Call, small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        explainer, "explain_packed", lambda _model, _spec, images, *, method: np.zeros(images.shape[:3], np.float32)
    )
    answer = call("explain", small_run.folder, *some(small_run, 1), "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert "No place spoke for malignant: the map is zero everywhere)" in answer.out
    (row,) = rows((tmp_path / "out" / "explanations.jsonl").read_text())
    assert row["remarks"] == ["No place spoke for malignant: the map is zero everywhere."]


def test_a_network_that_hardly_moves_is_noted_once(
    call: Call, small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explainer.Explainer, "full_reach", lambda *_: 0.1)
    answer = call("explain", small_run.folder, *some(small_run), "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert answer.err.count("this network hardly moves") == 1
    assert "hardly" not in answer.out
    listed = rows((tmp_path / "out" / "explanations.jsonl").read_text())
    assert all("hardly moves" in str(row["remarks"]) for row in listed)


def test_files_of_one_name_do_not_take_each_others_place(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    file, other = some(small_run)
    for folder, source in (("a", file), ("b", other)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(source.read_bytes())
    out = tmp_path / "out"
    answer = call(
        "explain",
        small_run.folder,
        tmp_path / "a" / "x.png",
        tmp_path / "b" / "x.png",
        "--out",
        out,
        "--method",
        "occlusion",
    )
    assert answer.code == 0, answer.err
    assert sorted(file.name for file in out.glob("*.png")) == ["x-2_occlusion.png", "x_occlusion.png"]
    assert (out / "x-2_occlusion.npy").read_bytes() != (out / "x_occlusion.npy").read_bytes()


def test_the_map_alone(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = call("explain", small_run.folder, some(small_run, 1)[0], "--out", out, "--no-legend", "--no-maps")
    assert answer.code == 0, answer.err
    (picture,) = out.glob("*.png")
    with Image.open(picture) as opened:
        assert opened.size == (384, 384)
    assert not list(out.glob("*.npy"))


def test_what_cannot_be_read_is_refused_while_the_others_go_on(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    answer = call("explain", small_run.folder, tmp_path / "bad.png", *some(small_run, 1), "--out", tmp_path / "out")
    assert answer.code == 0
    assert "refused" in answer.out and "1 of 2 images was refused" in answer.err
    listed = rows((tmp_path / "out" / "explanations.jsonl").read_text())
    assert [row["method"] for row in listed] == [None, "grad_cam"]
    assert "not a PNG" in str(listed[0]["reason"])
    answer = call("explain", small_run.folder, tmp_path / "bad.png", "--out", tmp_path / "out2")
    assert answer.code == 5
    assert "every input was refused" in answer.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gradcam"], "there is no method 'gradcam'; did you mean 'grad_cam'"),
        (["--alpha", "3"], "alpha"),
    ],
)
def test_wrong_usage_writes_nothing(
    call: Call, small_run: SmallRun, tmp_path: Path, arguments: list[str], message: str
) -> None:
    answer = call("explain", small_run.folder, some(small_run, 1)[0], "--out", tmp_path / "out", *arguments)
    assert answer.code == 2
    assert message in answer.error
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    answer = call("explain", small_run.folder, some(small_run, 1)[0], "--out", tmp_path)
    assert answer.code == 2
    assert "is there already" in answer.error
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_written_half(
    call: Call, small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *arguments: object, **options: object) -> None:
        Path(path).write_bytes(b"ha")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(np, "save", full)
    out = tmp_path / "out"
    answer = call("explain", small_run.folder, *some(small_run), "--out", out)
    assert answer.code == 3
    assert "the disk is full" in answer.error
    assert [file.suffix for file in out.iterdir()] == [".png"]
    assert not partial_path(next(out.iterdir())).exists()


def test_a_bundle_without_a_scale_says_that_drawn_images_gave_it(call: Call, tmp_path: Path) -> None:
    spec = Preprocessing(width=16, height=16)
    write_working(tmp_path / "bundle", name="cbis_ddsm", spec=spec)
    file = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(file)
    scales = []
    for out in ("one", "two"):
        answer = call("explain", tmp_path / "bundle", file, "--out", tmp_path / out, "--format", "json")
        assert answer.code == 0, answer.err
        assert "no colour scale for grad_cam; it is found on drawn phantom images" in answer.err
        (row,) = rows(answer.out)
        scales.append(row["scale"])
    assert scales[0] == scales[1]
    assert scales[0]["of"] == "drawn phantom images"  # type: ignore[index]


@pytest.mark.usefixtures("quick_networks")
def test_it_says_that_neighbours_are_left_out(call: Call, placed: Placed, tmp_path: Path) -> None:
    patches = sorted(placed.others.rglob("*.png"))[:3]
    answer = call("explain", placed.run, *patches, "--out", tmp_path / "out", "--format", "json")
    assert answer.code == 0, answer.err
    assert "explained is what the network says of each patch by itself" in answer.err
    explained = clearmargin.load_explainer(placed.run).explain(read_image(str(patches[0])))
    assert explained.explanations[0].alone
    alone = rows(call("predict", placed.run, *patches, "--no-context", "--format", "json").out)
    assert [row["probability"] for row in rows(answer.out)] == [row["probability"] for row in alone]


def test_from_python(small_run: SmallRun, tmp_path: Path) -> None:
    files = some(small_run)
    table = clearmargin.explain(small_run.folder, [str(file) for file in files], tmp_path / "out", methods="hires_cam")
    assert table["path"].tolist() == [str(file) for file in files]
    assert all((tmp_path / "out" / name).is_file() for name in table["picture"])
    explainer = clearmargin.load_explainer(small_run.folder)
    assert isinstance(explainer, clearmargin.Explainer)


@pytest.mark.parametrize("alpha", [4, 0, -0.5, float("nan"), "0.5"])
def test_python_refuses_an_opacity_that_cannot_be(small_run: SmallRun, tmp_path: Path, alpha: Any) -> None:
    with pytest.raises(UsageError, match=r"^alpha: .* is no number from 0\.05 to 1\.$"):
        clearmargin.explain(small_run.folder, some(small_run), tmp_path / "out", alpha=alpha)
    assert not (tmp_path / "out").exists()


def test_from_python_with_pixels_in_the_place_of_paths(small_run: SmallRun, tmp_path: Path) -> None:
    pixels: Any = read_image(str(some(small_run, 1)[0]))
    with pytest.raises(UsageError, match="images are paths, not ndarray"):
        clearmargin.explain(small_run.folder, [some(small_run, 1)[0], pixels], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_help_says_how_much_full_colour_hides(call: Call) -> None:
    assert f"default: {ALPHA}" in call("explain", "--help").out


def test_an_explanation_knows_that_the_gate_was_switched_off(small_run: SmallRun) -> None:
    pixels = read_image(str(some(small_run, 1)[0]))
    for gate in (True, False):
        explained = clearmargin.load_explainer(small_run.folder, gate=gate).explain(pixels)
        assert ("not gated" in str(explained.explanations[0].reason)) is not gate
        assert explained.explanations[0].reason == explained.prediction.reason


def test_calibrate_makes_the_scale_anew(call: Call, small_run: SmallRun, tmp_path: Path) -> None:
    answer = call("calibrate", small_run.folder, small_run.data, "--out", tmp_path / "new")
    assert answer.code == 0, answer.err
    model = read_bundle(tmp_path / "new").model
    assert model.saliency is not None
    assert {scale.of for scale in model.saliency.values()} == {"the images of the recalibration"}
