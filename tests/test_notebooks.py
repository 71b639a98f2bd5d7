"""The notebooks are what their script writes, small, without places of a machine; and they run from top to bottom."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

from clearmargin.config import recipe_names

ROOT = Path(__file__).resolve().parents[1]
_LARGEST = 300_000
_TINY = {
    "PHANTOM": {"patients": 10, "patches_per_patient": 6, "patch_px": 32},
    "EPOCHS": 1,
}
_SETTINGS = {"evaluate.resamples": 100, "train.batch_size": 16, "split.fractions": [0.6, 0.2, 0.2]}


def _load_script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("write_notebooks", ROOT / "notebooks" / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


script = _load_script()


def committed(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Any]]]:
    """Every notebook on a few tiny images, two at a time, each in processes of its own."""
    folder = tmp_path_factory.mktemp("notebooks")
    environment = {**os.environ, "HOME": str(folder), "CLEARMARGIN_CACHE": str(folder / "cache")}

    def run(name: str) -> Any:
        further = {"train.crossfit": 2} if name == "default" else {}
        given = json.dumps(_TINY | {"SETTINGS": _SETTINGS | further})
        command = [sys.executable, script.__file__, name, "--into", folder, "--given", given]
        subprocess.run([str(part) for part in command], check=True, env=environment, timeout=300)
        return nbformat.read(folder / f"{name}.ipynb", as_version=4)

    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run, name) for name in script.NAMES}


def test_every_recipe_has_a_notebook() -> None:
    assert set(script.NAMES) == {"quickstart", *recipe_names()} - {"transfer"}
    assert {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")} == set(script.NAMES)


@pytest.mark.parametrize("name", script.NAMES)
def test_a_notebook_is_what_its_script_writes(name: str) -> None:
    kept, made = committed(name), script.build(name)
    nbformat.validate(kept)
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == [
        (cell.cell_type, cell.source) for cell in made.cells
    ], "run make notebooks"


@pytest.mark.parametrize("name", script.NAMES)
def test_a_notebook_is_small_and_names_no_place(name: str) -> None:
    kept, file = committed(name), ROOT / "notebooks" / f"{name}.ipynb"
    assert file.stat().st_size < _LARGEST
    assert not re.search(r"/(work|root|home|tmp|Users|private|var)/", file.read_text(encoding="utf-8"))
    assert script.problems(kept) == []
    assert all(
        cell.outputs for cell in kept.cells if cell.cell_type == "code" and cell.source.endswith(("\nrun", "run"))
    )


@pytest.mark.parametrize("name", script.NAMES)
def test_links_of_a_notebook_lead_somewhere(name: str) -> None:
    for cell in script.build(name).cells:
        for target in re.findall(r"\]\(([^)#:]+)\)", cell.source):
            assert (ROOT / "notebooks" / target).exists(), target


@pytest.mark.parametrize("name", script.NAMES)
def test_a_notebook_runs_from_top_to_bottom(name: str, executed: dict[str, Future[Any]]) -> None:
    done = executed[name].result()
    assert script.problems(done) == []
    shown = [output["data"] for output in script.outputs_of(done) if "data" in output]
    assert sum("clearmargin" in data.get("text/html", "") for data in shown) >= 6
    assert not any("Traceback" in str(data) for data in shown)
