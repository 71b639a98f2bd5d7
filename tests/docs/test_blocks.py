"""Python in the documents runs, JSON and TOML in them are what they are said to be."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.docs.conftest import make_light
from tests.docs.shown import Block, blocks_of
from tests.docs.stage import SMALL, THINGS, Stage

import clearmargin
from clearmargin.config import load_recipe
from clearmargin.data import phantom
from clearmargin.studies.sweep.space import check_space, read_space

ELSEWHERE = {
    "docs/serve.md": 'with Client("http://127.0.0.1:8000"',
    "docs/keras.md": "keras.models.load_model(",
    "docs/bundle.md": "onnxruntime.InferenceSession(",
}
"""Blocks that another test runs with what they need: by page, a line of each."""
WRITTEN = {
    "train": 1,
    "optimism": 1,
    "sweep": 1,
    "export": 1,
    "import_keras": 1,
    "evaluate": 2,
    "calibrate": 2,
    "explain": 2,
    "write_phantom": 0,
    "rewrite_bundle": 1,
}
"""Of functions that write, the number of the argument that says where."""
FEW = {"patients": 4, "patches_per_patient": 4, "patch_px": 24}
_PATHLIKE = re.compile(
    r"^(?:[A-Z][A-Z0-9_]+|[^\s*{}]+\.(?:png|jpg|csv|h5|keras|npz|zip|dcm|onnx|clearmargin|toml|txt))$"
)
_WORDS = {"RGB"}
"""In capitals, and no paths."""


def pages() -> dict[str, list[Block]]:
    """The Python blocks of each page that are run here, in order."""
    found: dict[str, list[Block]] = {}
    for block in blocks_of("python"):
        page = block.place.rpartition(":")[0]
        if not (page in ELSEWHERE and ELSEWHERE[page] in block.text):
            found.setdefault(page, []).append(block)
    return found


def texts_in(tree: ast.Module) -> Iterator[str]:
    """Every text that stands in the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def written_by(tree: ast.Module) -> Iterator[str]:
    """The paths that calls of public functions write."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            place = node.args[WRITTEN[name] : WRITTEN[name] + 1] if name in WRITTEN else []
            inside = (each for argument in place for each in ast.walk(argument))
            yield from (str(each.value) for each in inside if isinstance(each, ast.Constant))


@pytest.mark.parametrize("page", pages())
def test_python_of_the_documents_runs(page: str, quick: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = pages()[page]
    trees = [ast.parse(block.text) for block in blocks]
    written = {name for tree in trees for name in written_by(tree)}
    for block, tree in zip(blocks, trees, strict=True):
        for text in set(texts_in(tree)) - written:
            if text in THINGS:
                quick.put(text, tmp_path)
            elif text not in _WORDS and _PATHLIKE.match(text) and not (tmp_path / text).exists():
                pytest.fail(f"{block.place}: what is '{text}'? Add it to THINGS in tests/docs/stage.py.")
    make_light(monkeypatch)
    make_trainings_small(monkeypatch)
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.text, block.place, "exec"), values)


def make_trainings_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` of the package runs one epoch of one network, and little is drawn."""
    train = clearmargin.train

    @functools.wraps(train)
    def small(*arguments: Any, **keywords: Any) -> clearmargin.Run:
        settings = {**dict(keywords.pop("settings", {})), **SMALL}
        return train(*arguments, **{**keywords, "epochs": 1}, settings=settings)

    monkeypatch.setattr(clearmargin, "train", small)
    write = phantom.write_phantom
    monkeypatch.setattr(phantom, "write_phantom", lambda folder, settings: write(folder, replace(settings, **FEW)))


@pytest.mark.parametrize("page", ELSEWHERE)
def test_a_block_that_runs_elsewhere_is_there(page: str) -> None:
    assert any(block.place.startswith(page) and ELSEWHERE[page] in block.text for block in blocks_of("python"))


@pytest.mark.parametrize("block", blocks_of("json"), ids=lambda block: block.place)
def test_json_of_the_documents_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks_of("toml"), ids=lambda block: block.place)
def test_toml_of_the_documents_has_settings_that_exist(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(block.text, encoding="utf-8")
    if block.text.lstrip().startswith('"'):  # a setting by its dotted name: what to search, for sweep
        check_space(file, read_space(file), "default", {})
    else:
        load_recipe(str(file))
