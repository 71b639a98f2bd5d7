"""`clearmargin model`: layers as a table, as JSON and as a picture, of whatever can be named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from tests.cli.conftest import Answer, SmallRun
from tests.models.torchvision_stand_in import import_timm
from tests.slides import Placed

from clearmargin.config import load_recipe, recipe_names
from clearmargin.models import MODELS

Call = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _elsewhere_without_dot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    return import_timm()


@pytest.mark.parametrize("name", [*MODELS, "default", "transfer"])
def test_every_model_and_recipe_is_a_table_of_100_columns_and_json(call: Call, name: str) -> None:
    table, answer = call("model", name), call("model", name, "--json")
    assert (table.code, table.err) == (answer.code, answer.err) == (0, "")
    content = json.loads(answer.out)
    lines = table.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) == len(content["layers"]) + 7 + (content["values"] > content["parameters"])
    assert f"{content['multiply_adds']:,} (" in table.out
    assert f"parameters     {content['parameters']:,}, all trainable" in table.out
    size = load_recipe(name).images.size if name in recipe_names() else "auto"
    width, height = (50, 50) if size == "auto" else size
    assert content["layers"][0]["shape"] == [3, height, width]
    assert content["name"] == name
    assert content["field"] is None
    for layer in content["layers"]:
        assert set(layer) == {"name", "kind", "detail", "shape", "parameters", "multiply_adds", "block"}


def test_a_recipe_of_another_name_is_its_network_with_its_settings(call: Call) -> None:
    content = json.loads(call("model", "transfer", "--json").out)
    assert content["model"] == "squeezenet"
    assert [layer["detail"] for layer in content["layers"] if layer["kind"] == "dense"] == ["128", "1"]
    assert call("model", "transfer").out.startswith("transfer (squeezenet), image 50×50×3\n")


def test_a_toml_file_is_a_recipe_too(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[model]\nname = "cnn_50"\n[images]\nsize = [40, 60]\nchannels = 1\n')
    content = json.loads(call("model", tmp_path / "mine.toml", "--json").out)
    assert (content["model"], content["layers"][0]["shape"]) == ("cnn_50", [1, 60, 40])


def test_size_and_channels_are_those_asked_for(call: Call) -> None:
    content = json.loads(call("model", "cnn_50", "--size", "64,32", "--channels", "1", "--json").out)
    assert content["layers"][0]["shape"] == [1, 32, 64]
    assert content["layers"][1]["parameters"] == 32 * 9 + 32
    assert "image 64×32×1" in call("model", "cnn_50", "--size", "64x32", "--channels", 1).out


@pytest.mark.usefixtures("timm")
def test_a_network_of_timm(call: Call) -> None:
    answer = call("model", "timm:test_resnet")
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= 100
    unknown = call("model", "timm:test_resnt")
    assert unknown.code == 2
    assert "did you mean 'timm:test_resnet'?" in unknown.error


def test_without_timm_one_line_says_what_to_install(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    answer = call("model", "timm:vgg16")
    assert answer.code == 2
    assert 'pip install "clearmargin[backbones]"' in answer.error


def test_without_a_name_the_models_are_listed(call: Call) -> None:
    answer = call("model")
    assert (answer.code, answer.err) == (0, "")
    names = {line.split()[0] for line in answer.out.splitlines() if line}
    assert {*MODELS, *recipe_names(), "timm:NAME"} <= names
    content = json.loads(call("model", "--json").out)
    assert list(content["models"]) == list(MODELS)
    assert set(content["recipes"]) == set(recipe_names())
    assert call("model", "--svg", "x.svg").code == 2
    assert not Path("x.svg").exists()


def test_a_run_and_its_bundle_are_described_with_their_networks(call: Call, small_run: SmallRun) -> None:
    stored = json.loads((small_run.folder / "bundle" / "model.json").read_text())
    for place in (small_run.folder, small_run.folder / "bundle"):
        content = json.loads(call("model", place, "--json").out)
        assert content["model"] == stored["architecture"]["name"]
        assert content["networks"] == stored["architecture"]["ensemble"]
        assert content["trainable"] == stored["architecture"]["parameters"]
        assert content["layers"][0]["shape"] == [3, 32, 32]
    answer = call("model", small_run.folder)
    assert max(map(len, answer.out.splitlines())) <= 100
    if content["networks"] > 1:
        assert f"in {content['networks']} networks of these layers" in answer.out
    assert "has a size of its own" in call("model", small_run.folder, "--size", "64,64").error


@pytest.mark.usefixtures("quick_networks")
def test_networks_that_see_the_field_are_described_too(call: Call, placed: Placed, tmp_path: Path) -> None:
    content = json.loads(call("model", placed.run, "--json").out)
    assert content["field"]["networks"] == content["networks"]
    assert content["field"]["layers"][0]["shape"] != content["layers"][0]["shape"]
    answer = call("model", placed.run, "--svg", tmp_path / "m.svg")
    assert ", field " in answer.out
    assert "not those that see its field" in answer.err


def test_a_picture_is_written_whole(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "m.svg"
    answer = call("model", "residual", "--svg", path)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[-1] == f"picture  {path}"
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    quiet = call("model", "residual", "--svg", path, "--json")
    json.loads(quiet.out)
    assert quiet.err == f"picture  {path}\n"
    assert [each.name for each in path.parent.iterdir()] == ["m.svg"]


def test_a_dot_that_fails_is_a_note_and_no_error(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "dot").write_text(f"#!{sys.executable}\nimport sys; sys.exit(1)\n")
    (folder / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    answer = call("model", "cnn_50", "--svg", tmp_path / "m.svg")
    assert answer.code == 0
    assert answer.err == f"Note: Graphviz is not used: {folder / 'dot'} ended with 1.\n"
    assert (tmp_path / "m.svg").is_file()


def test_help_and_list_name_the_one_file_that_a_bundle_can_be(call: Call) -> None:
    assert ".clearmargin" in call("model", "--help").out
    assert ".clearmargin" in call("model").out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["cancernt"], 2, ["there is no model 'cancernt'; did you mean 'cancernet'?", "larger_model"]),
        (["cnn_50", "--size", "8,8"], 2, ["images of 8×8 pixels are too small for the model 'cnn_50'", "--size"]),
        (["cnn_50", "--size", "50"], 2, ["--size 50: write it as width,height", "--size 64,64"]),
        (["cnn_50", "--size", "50,5000"], 2, ["from 8 to 2,048 pixels"]),
        (["cnn_50", "--size", "50,-1"], 2, ["--size 50,-1"]),
        (["cnn_50", "--channels", "2"], 2, ["--channels"]),
        (["./nowhere"], 4, ["nowhere: no such bundle"]),
        (["."], 4, ["not a bundle"]),
        (["nowhere.toml"], 2, ["nowhere.toml: no such file"]),
        (["cnn_50", "--svg", "m.png"], 2, ["m.png: the picture is an SVG", "--svg m.png.svg"]),
        (["cnn_50", "--svg", "folder"], 2, ["folder: is a folder; give a file, as --svg folder/model.svg"]),
        (["cnn_50", "--svg", "file/m.svg"], 2, ["file: is not a folder"]),
        (["cnn_50", "--svg", "a/b/m.svg"], 2, ["/a: no such folder. Make it, or give another file with --svg"]),
        (["cnn_50", "--svg", "/proc/m.svg"], 2, ["/proc/m.svg: not writable", "elsewhere with --svg"]),
    ],
)
def test_what_is_wrong_is_one_line_with_the_fix(
    call: Call, tmp_path: Path, *, arguments: list[str], code: int, words: list[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    answer = call("model", *arguments)
    assert answer.code == code
    for word in words:
        assert word in answer.error
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]
